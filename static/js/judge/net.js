// Shared by the scripts of the judging page: browser storage, the CSRF cookie, and sending a form.
export const $ = (id) => document.getElementById(id);

export const store = {
  read(name) {
    try { return JSON.parse(localStorage.getItem(name)); } catch { return null; }
  },
  // False if the storage is full or forbidden.
  write(name, value) {
    try { localStorage.setItem(name, JSON.stringify(value)); } catch { return false; }
    return true;
  },
  drop(name) {
    try { localStorage.removeItem(name); } catch { /* forbidden */ }
  },
};

const cookie = (name) =>
  document.cookie.split("; ").find((pair) => pair.startsWith(`${name}=`))?.slice(name.length + 1);

export const token = () => cookie("csrftoken") || document.querySelector("[name=csrfmiddlewaretoken]")?.value || "";

// Form fields that are not part of the answer.
export const isAside = (name) => ["csrfmiddlewaretoken", "key", "seen", "seconds", "act", "guideline_version"].includes(name);

// After a press by pointer the keys are the page's again: Enter sends, and does not repeat the button.
export function freeKeys(root) {
  root.addEventListener("click", (event) => {
    const control = event.target.closest("button, a, summary");
    if (event.detail && control && !control.closest("dialog, .menu")) control.blur();
  }, true); // Before a dialog remembers where the focus was.
}

// Signing in again (in another tab) changes the CSRF token: a stored answer is sent with the
// current one.
export function post(url, body) {
  const fields = new URLSearchParams(body);
  fields.set("csrfmiddlewaretoken", token());
  return fetch(url, {
    method: "POST",
    body: fields,
    redirect: "manual",
    headers: { Accept: "application/json", "X-CSRFToken": token() },
    signal: AbortSignal.timeout(20000),
  });
}

// Open a page as soon as the server answers: before that the browser would show its own error
// page, which doesn't retry.
let going = false;
export async function goOnceThere(url, ask, explain) {
  if (going) return;
  going = true;
  const answer = await fetch(ask, { method: "HEAD", redirect: "manual" }).catch(() => null);
  going = false;
  if (!answer || [502, 503, 504].includes(answer.status)) {
    explain(answer);
    setTimeout(goOnceThere, 3000, url, ask, explain);
  } else if (url === location.href) location.reload();
  else location.assign(url);
}

export const signedOut = (answer) => answer.type === "opaqueredirect" || answer.status === 401 || answer.status === 403;
