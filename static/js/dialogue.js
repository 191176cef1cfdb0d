// Talking to a policy. The page is the server's: forms are sent as they stand and the part of the page
// that changes (#talk) is taken from the answer, so all of it works without script too. Script adds
// keys, answers that fill as they are written, a draft that is kept, and words about a lost connection.
import { $, post, signedOut, store } from "./judge/net.js";
import { gettext } from "./judge/words.js";

(() => {
  const root = $("dialogue");
  if (!root) return;
  const shortcuts = root.dataset.shortcuts === "on";
  const DRAFT = `dialogue:draft:${root.dataset.uid}`;
  let talk, form, busy = false, source = null, timer = 0, saving = 0, shownAt = 0;

  for (const opener of root.querySelectorAll("[data-open]")) {
    opener.hidden = false;
    opener.addEventListener("click", () => $(opener.dataset.open).showModal());
  }

  const say = (text) => { $("live").textContent = text; };
  const trouble = (text) => { $("offline").textContent = text; $("offline").hidden = !text; };
  const button = (what) => talk.querySelector(`[data-do="${what}"]`);

  // --- What is shown now ---------------------------------------------------------------------------
  function begin(first) {
    talk = $("talk");
    form = talk.querySelector("form");
    clearTimeout(timer);
    source?.close();
    source = null;
    const state = talk.dataset.turn;
    shownAt = performance.now();
    if (state === "writing") follow();
    else if (talk.dataset.serving !== "ready") timer = setTimeout(look, 2000);
    const field = talk.querySelector("#say");
    if (field) {
      const kept = store.read(DRAFT);
      if (kept && !field.value) field.value = kept;
      field.addEventListener("input", () => {
        store.write(DRAFT, field.value);
        talk.querySelector("[data-saved]").textContent = "";
        clearTimeout(saving);
        saving = setTimeout(saveDraft, 1000);
      });
      field.focus({ preventScroll: first });
    }
    for (const radio of talk.querySelectorAll(".point input")) radio.addEventListener("change", () => picked(radio.closest(".scale")));
    if (state === "ready") {
      paint();
      if (!first) {
        say(gettext("Both answers are there. Press a number to say which is better."));
        talk.querySelector(".response-text").focus({ preventScroll: true });
      }
    }
    if (state === "failed" && !first) button("again").focus({ preventScroll: true });
    if (!first) (form || talk).scrollIntoView({ block: "nearest" });
  }

  async function saveDraft() {
    const field = talk.querySelector("#say");
    if (!field || busy) return;
    const answer = await post(root.dataset.here, { act: "draft", text: field.value }).catch(() => null);
    const note = talk.querySelector("[data-saved]");
    if (note && answer?.ok) note.textContent = ` · ${gettext("draft kept")}`;
  }

  // --- Following the answers ----------------------------------------------------------------------------
  function fill(now) {
    if (now.state !== "writing") { refresh(); return false; }
    now.panes.forEach((html, at) => {
      const pane = talk.querySelector(`[data-pane="${at}"]`);
      if (!pane) return;
      const low = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 40;
      pane.innerHTML = html; // Markdown that the server has rendered and cleaned.
      if (low) pane.scrollTop = pane.scrollHeight;
    });
    return true;
  }

  function follow() {
    if (!window.EventSource) { poll(); return; }
    source = new EventSource(root.dataset.stream);
    source.onmessage = (event) => {
      trouble("");
      if (!fill(JSON.parse(event.data))) source?.close();
    };
    source.onerror = () => { source?.close(); source = null; timer = setTimeout(poll, 400); };
  }

  async function ask() {
    const answer = await fetch(root.dataset.stateUrl, { redirect: "manual", signal: AbortSignal.timeout(8000) }).catch(() => null);
    if (answer?.ok) { trouble(""); return answer.json(); }
    trouble(obstacle(answer));
    return null;
  }

  async function poll() {
    const now = await ask();
    if (talk.dataset.turn !== "writing") return;
    if (!now) timer = setTimeout(poll, 3000);
    else if (fill(now)) timer = setTimeout(poll, 500);
  }

  // The policy comes and goes: look until it is there, then open the way.
  async function look() {
    const now = await ask();
    if (now && now.serving !== talk.dataset.serving) refresh();
    else timer = setTimeout(look, 2000);
  }

  const obstacle = (answer) => {
    const kept = gettext("What you wrote is kept in this browser.");
    if (!answer) return `${navigator.onLine ? gettext("The server can't be reached.") : gettext("You are offline.")} ${kept}`;
    if (signedOut(answer)) return `${gettext("You are signed out: sign in again in another tab.")} ${kept}`;
    return `${gettext("The server has trouble.")} ${kept}`;
  };

  function take(html) {
    const page = new DOMParser().parseFromString(html, "text/html");
    const fresh = page.getElementById("talk");
    if (!fresh) return false;
    const typed = talk.querySelector("#say")?.value;
    talk.replaceWith(document.adoptNode(fresh));
    const field = fresh.querySelector("#say");
    if (field && typed && !field.value) field.value = typed;
    begin(false);
    return true;
  }

  async function refresh() {
    const answer = await fetch(root.dataset.here, { redirect: "manual", signal: AbortSignal.timeout(15000) }).catch(() => null);
    if (answer?.ok) { trouble(""); take(await answer.text()); return; }
    trouble(obstacle(answer));
    timer = setTimeout(refresh, 3000);
  }

  // --- Sending --------------------------------------------------------------------------------------------
  async function send(act) {
    if (busy) return;
    clearTimeout(saving);
    const body = new URLSearchParams(new FormData(form));
    body.set("act", act);
    if (act === "choose") body.set("seconds", ((performance.now() - shownAt) / 1000).toFixed(2));
    if (act === "end") { leave(); return; }
    busy = true;
    root.setAttribute("aria-busy", "true");
    try {
      body.delete("csrfmiddlewaretoken");
      let answer = await post(form.action, body).catch(() => null);
      if (answer?.type === "opaqueredirect") {
        // Done, or signed out: the page itself says which.
        answer = await fetch(root.dataset.here, { redirect: "manual" }).catch(() => null);
        if (answer?.ok && (act === "say" || act === "undo")) store.drop(DRAFT);
      }
      const said = answer && (answer.ok || answer.status === 422 || answer.status === 409);
      if (said && take(await answer.text())) trouble("");
      else trouble(`${obstacle(answer)} ${gettext("Try again in a moment; nothing is sent twice.")}`);
    } finally {
      busy = false;
      root.removeAttribute("aria-busy");
    }
  }

  // Ending leads to another page: an ordinary form, with a fresh token.
  function leave() {
    store.drop(DRAFT);
    const on = document.createElement("input");
    [on.type, on.name, on.value] = ["hidden", "act", "end"];
    form.append(on);
    form.submit();
  }

  root.addEventListener("submit", (event) => {
    if (event.target !== form) return;
    event.preventDefault();
    send(event.submitter?.value || form.dataset.form);
  });

  // --- Choosing ---------------------------------------------------------------------------------------------
  const scales = () => [...talk.querySelectorAll(".scale")];
  const chosen = (scale) => scale.querySelector("input:checked");
  let active = null;

  function paint() {
    const all = scales();
    if (!all.includes(active)) active = all.find((scale) => !chosen(scale)) || all[0];
    for (const scale of all) {
      scale.classList.toggle("active", scale === active && all.length > 1);
      scale.querySelector("[data-chosen]").textContent = chosen(scale)?.dataset.label || "";
    }
    const lead = chosen(all[0])?.value[0] || "";
    for (const one of talk.querySelectorAll(".response")) one.classList.toggle("leans", all.length === 1 && one.dataset.letter === lead);
  }

  function picked(scale) {
    const words = `${scale.dataset.name}: ${chosen(scale).dataset.label}.`;
    const next = scales().find((other) => !chosen(other));
    active = next || scale;
    paint();
    say(next ? `${words} ${gettext("Now %(axis)s.", { axis: next.dataset.name })}` : `${words} ${gettext("Enter goes on.")}`);
  }

  function press(number) {
    const radio = active?.querySelectorAll("input")[number - 1];
    if (!radio) return false;
    radio.checked = true;
    picked(active);
    return true;
  }

  // --- Keys -------------------------------------------------------------------------------------------------------
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]") || event.isComposing) return;
    const typing = event.target.matches("textarea, input:not([type=radio]), select");
    const way = (event.ctrlKey || event.metaKey) && event.key === "Enter";
    const state = talk.dataset.turn;
    if (way) {
      const first = button("say") || button("choose") || button("again");
      if (first && !first.disabled) { event.preventDefault(); form.requestSubmit(first); }
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      if (state === "writing") { event.preventDefault(); send("undo"); } else if (typing) event.target.blur();
      return;
    }
    if (typing || !shortcuts) return;
    const acts = {
      u: () => { if (button("undo")) send("undo"); },
      w: () => { const why = talk.querySelector(".why"); if (why) { why.open = true; why.querySelector("textarea").focus(); } },
      g: () => $("guidelines").showModal(),
      "?": () => $("keys").showModal(),
    };
    if (event.key === "Enter") {
      if (event.target.matches("a, button, summary")) return;
      const go = button("choose") || button("again");
      if (go) { event.preventDefault(); form.requestSubmit(go); }
    } else if (/^[1-9]$/.test(event.key) && state === "ready") {
      if (press(Number(event.key))) event.preventDefault();
    } else if (acts[event.key]) {
      event.preventDefault();
      acts[event.key]();
    }
  });
  window.addEventListener("pagehide", () => source?.close());

  begin(true);
})();
