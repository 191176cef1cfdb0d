// Talking to a policy. The page is the server's: forms are sent as they stand and the part of the page
// that changes (#talk) is taken from the answer, so all of it works without script too. Script adds
// keys, answers that fill as they are written, a draft that is kept, and words about a lost connection.
import { remindOfBreaks } from "./judge/breaks.js";
import { makeCompare } from "./judge/compare.js";
import { makeInterface } from "./judge/interfaces.js";
import { $, freeKeys, post, signedOut, store } from "./judge/net.js";
import { gettext } from "./judge/words.js";

(() => {
  const root = $("dialogue");
  if (!root) return;
  const shortcuts = root.dataset.shortcuts === "on";
  if (shortcuts) freeKeys(root);
  const DRAFT = `dialogue:draft:${root.dataset.uid}`;
  const compare = makeCompare();
  // `face`: the questions about the two answers, as on the judging page (judge/interfaces.js).
  let talk, form, face = null, busy = false, source = null, timer = 0, saving = 0, shownAt = 0;

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
    face = null;
    $("open-compare").hidden = state !== "ready";
    if (state === "ready") {
      form.noValidate = true; // The browser's own words would come in its language, not in the page's.
      const kept = store.read(choiceKey());
      if (kept && !form.querySelector('input:checked:not([value=""])')) restore(kept);
      face = makeInterface(form, { say, changed });
      const at = scrollY;
      face.begin();
      scrollTo(0, at); // The answers are read first: the questions wait where they are.
      lean();
      if (!first) {
        say(form.querySelector(".response-marks") ? gettext("Both answers are ready. Rate each, then choose the better one.") : gettext("Both answers are ready. Press a number to choose the better one."));
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
    if (note && answer?.ok) note.textContent = ` · ${gettext("draft saved")}`;
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
    const kept = gettext("Your text is saved in this browser.");
    if (!answer) return `${navigator.onLine ? gettext("The server can't be reached.") : gettext("You are offline.")} ${kept}`;
    if (signedOut(answer)) return `${gettext("You are signed out: sign in again in another tab.")} ${kept}`;
    return `${gettext("Server error.")} ${kept}`;
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
    if (act === "choose") {
      const lacks = face.lacks();
      hint(lacks);
      if (lacks) return;
    }
    busy = true;
    root.setAttribute("aria-busy", "true");
    try {
      body.delete("csrfmiddlewaretoken");
      let answer = await post(form.action, body).catch(() => null);
      if (answer?.type === "opaqueredirect") {
        // Done, or signed out: the page itself says which.
        answer = await fetch(root.dataset.here, { redirect: "manual" }).catch(() => null);
        if (answer?.ok && (act === "say" || act === "undo")) store.drop(DRAFT);
        if (answer?.ok && (act === "choose" || act === "undo")) store.drop(choiceKey());
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
  const choiceKey = () => `dialogue:choice:${root.dataset.uid}:${talk.dataset.number}`;
  const NOT_KEPT = ["csrfmiddlewaretoken", "key", "number", "seconds"];

  function restore(pairs) {
    for (const [name, value] of pairs) {
      for (const field of talk.querySelectorAll(`[name="${CSS.escape(name)}"]`)) {
        if (field.type !== "radio" && field.type !== "checkbox") field.value = value;
        else if (field.value === value) field.checked = true;
      }
    }
  }

  const keep = () => store.write(choiceKey(), [...new FormData(form)].filter(([name]) => !NOT_KEPT.includes(name)));

  function changed(words) {
    keep();
    hint("");
    face.paint();
    lean();
    const isOpen = (step) => !step.hidden && "required" in step.dataset && !step.querySelector("input:checked");
    if (words) say([...form.querySelectorAll(".step")].some(isOpen) ? words : `${words} ${gettext("Press Enter to continue.")}`);
  }

  // Where one question decides, the answer that it leans to is marked.
  function lean() {
    const pairs = [...form.querySelectorAll(".gauge")];
    const to = pairs.length === 1 ? pairs[0].querySelector("input:checked")?.value[0] : "";
    for (const one of form.querySelectorAll(".response")) one.classList.toggle("leans", one.dataset.letter === to);
  }

  function hint(words) {
    const box = talk.querySelector("[data-hint]");
    box.textContent = words;
    box.hidden = !words;
  }

  root.addEventListener("change", (event) => {
    if (face && form.contains(event.target)) face.touched(event.target);
  });
  root.addEventListener("input", (event) => {
    if (face && event.target.name === "reason") { keep(); hint(""); }
  });
  const compareWords = () => compare.open(form, "A", "B");
  $("open-compare").addEventListener("click", compareWords);

  // --- Keys -------------------------------------------------------------------------------------------------------
  document.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    const dialog = document.querySelector("dialog[open]");
    if (dialog) {
      if (!shortcuts || dialog.id === "news" || event.ctrlKey || event.metaKey || event.altKey) return;
      if (["?", "g", "p"].includes(event.key)) { event.preventDefault(); dialog.close(); }
      else if (event.target.tagName !== "SELECT" && dialog.id === "compare" && compare.letter(event.key.toUpperCase())) event.preventDefault();
      return;
    }
    const typing = event.target.matches("textarea, input:not([type=radio], [type=checkbox]), select");
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
      w: () => { const why = talk.querySelector(".why"); if (why) { if (why.tagName === "DETAILS") why.open = true; why.querySelector("textarea").focus(); } },
      g: () => $("guidelines").showModal(),
      p: () => { if (face) compareWords(); },
      "?": () => $("keys").showModal(),
    };
    if (event.key === "Enter") {
      if (event.target.matches("a, button, summary")) return;
      if (face?.enter()) { event.preventDefault(); return; }
      const go = button("choose") || button("again");
      if (go) { event.preventDefault(); form.requestSubmit(go); }
    } else if (face && event.key.length === 1 && face.key(event.key)) {
      event.preventDefault();
    } else if (acts[event.key]) {
      event.preventDefault();
      acts[event.key]();
    }
  });
  window.addEventListener("pagehide", () => source?.close());

  remindOfBreaks(root.dataset.user, Number(root.dataset.breakMinutes));
  if ($("news")) { $("news").close(); $("news").showModal(); }
  begin(true);
})();
