// A page that loses its session or its server keeps what it shows and what was typed, and says so.
(() => {
  const says = (kind) => {
    for (const notice of document.querySelectorAll("[data-connection]"))
      notice.hidden = notice.dataset.connection !== kind;
  };
  // A form with mistakes (422) is shown; no other refusal is (noSwap in base.html).
  document.addEventListener("htmx:response:error", ({ detail: { ctx } }) => {
    if (ctx.response.status !== 422) says(ctx.response.status === 401 ? "signed-out" : "gone");
  });
  document.addEventListener("htmx:error", ({ detail: { ctx } }) => ctx && !ctx.response && says("gone"));
  document.addEventListener("htmx:after:request", ({ detail: { ctx } }) => ctx.response.status < 400 && says(""));

  // Signing in again, in another tab, changes the token: a form takes the one that counts now.
  const token = () => document.cookie.split("; ").find((pair) => pair.startsWith("csrftoken="))?.slice(10);
  document.addEventListener("submit", ({ target }) => {
    const field = target.elements.namedItem("csrfmiddlewaretoken");
    if (field && token()) field.value = token();
  }, true);
  document.addEventListener("htmx:config:request", ({ detail: { ctx } }) => {
    if (token() && ctx.request.body?.has("csrfmiddlewaretoken"))
      ctx.request.body.set("csrfmiddlewaretoken", token());
  });
})();
