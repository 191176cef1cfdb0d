// Answers that wait for the person: the server knows none such comparison, or another answer of
// theirs counts there. They stay in the outbox until the person has decided.
import { $, isAside } from "./net.js";
import { gettext } from "./words.js";

// An answer as text to read and copy: orders, then every filled field.
function written(item) {
  const orders = new Map();
  const lines = [];
  for (const [name, value] of new URLSearchParams(item.body)) {
    if (!value || isAside(name)) continue;
    const [, axis, letter] = name.match(/^rank-(.+)-([A-I])$/) || [];
    if (!axis) lines.push(`${name}: ${value}`);
    else {
      const places = orders.get(axis) || orders.set(axis, {}).get(axis);
      (places[value] ||= []).push(letter);
    }
  }
  const rankings = [...orders].map(([axis, places]) => `${axis}: ${Object.values(places).map((tied) => tied.join(" = ")).join(" > ")}`);
  return [...rankings, ...lines].join("\n");
}

// `held` are items of `outbox`.
export function showAside(outbox, held) {
  const again = () => { outbox.flush(); };
  showForeign(outbox, held.find((item) => !item.choice), again);
  showTwo(outbox, held.find((item) => item.choice), again);
}

function showForeign(outbox, item, again) {
  const box = $("foreign");
  box.hidden = !item;
  if (!item) return;
  const [copy, discard] = box.querySelectorAll("button"), text = box.querySelector("textarea");
  text.value = written(item);
  copy.textContent = gettext("Copy");
  copy.onclick = () => {
    text.select(); // By hand, where the browser lets no page write to the clipboard.
    navigator.clipboard?.writeText(text.value).then(() => { copy.textContent = gettext("Copied"); }).catch(() => {});
  };
  discard.textContent = gettext("Discard this answer");
  discard.onclick = () => {
    if (discard.textContent !== gettext("Discard permanently")) {
      discard.textContent = gettext("Discard permanently");
      return;
    }
    outbox.drop(item);
    box.hidden = true;
    again();
  };
}

// One's own two answers, from two pages: both are shown, and the person says which counts.
function showTwo(outbox, item, again) {
  const box = $("two-answers");
  if (!item) { box.hidden = true; return; }
  for (const name of ["prompt", "counts", "sent"]) box.querySelector(`[data-${name}]`).textContent = item.choice[name];
  box.querySelector("[data-keep]").onclick = () => { box.hidden = true; outbox.drop(item); again(); };
  box.querySelector("[data-replace]").onclick = () => {
    const body = new URLSearchParams(item.body), { choice, ...sent } = item;
    body.set("seen", choice.revision);
    box.hidden = true;
    outbox.put({ ...sent, body: body.toString() });
    again();
  };
  box.hidden = false;
  box.scrollIntoView({ block: "nearest" });
}
