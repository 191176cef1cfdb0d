// The outbox: answers stay in this browser, each with its idempotency key, until the server
// accepts or rejects them. So none is lost or counted twice if the network, the server, the
// session or the page fails.
import { $, isAside, post, signedOut, store } from "./net.js";
import { gettext, ngettext } from "./words.js";

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

// `sent(said)`, `refused(item, sentence)` and `drained()` say what the page does then.
export function makeOutbox(user, { sent, refused, drained }) {
  const name = `judge:outbox:${user}`;
  let memory = []; // Where the browser keeps nothing.
  let flushing = false;
  let again = false; // Something changed while answers were on their way: try what was set aside once more.
  let retry = 0;
  // Ids of answers that the server rejected as somebody else's: kept, shown and retried from time
  // to time, without blocking others.
  const foreign = new Set();

  const items = () => store.read(name) || memory;
  const waiting = () => items().filter((item) => !foreign.has(item.id));
  // An answer that does not fit into the storage stays in memory; an older stored list must not
  // hide it.
  const keep = (kept) => { memory = kept; if (!store.write(name, kept)) store.drop(name); };

  function trouble(sentence) {
    const n = waiting().length;
    const kept = n ? ` ${ngettext("%(n)s answer is saved here and will be sent later.", "%(n)s answers are saved here and will be sent later.", n)}` : "";
    $("offline").textContent = sentence + kept;
    $("offline").hidden = false;
  }

  // Why sending failed, "" if it did not; `answer` is null without a response. Status 200 is not
  // enough: a proxy or a hotel's sign-in page answers 200 with its own page.
  function obstacle(answer, said) {
    if (answer === null) return navigator.onLine ? gettext("The server can't be reached.") : gettext("You are offline.");
    if (signedOut(answer)) return gettext("You are signed out: sign in again in another tab.");
    if (answer.status === 404) return gettext("This comparison is not assigned to you. Did somebody else sign in here?");
    const did = said?.sent || said?.skipped || said?.saved;
    if (answer.status >= 500 || answer.status === 429 || (answer.ok && !did)) return gettext("Server error.");
    return "";
  }

  function explain(answer, said) {
    const sentence = obstacle(answer, said);
    if (sentence) trouble(`${sentence} ${gettext("Your work is saved in this browser.")}`);
  }

  async function flush() {
    if (flushing) {
      again = true;
      return;
    }
    flushing = true;
    again = false;
    clearTimeout(retry);
    let sentence = "";
    foreign.clear();
    try {
      for (let item; (item = waiting()[0]);) {
        const answer = await post(item.url, item.body).catch(() => null);
        if (answer?.status === 404 || answer?.status === 410) {
          foreign.add(item.id);
          continue;
        }
        const said = await answer?.json().catch(() => null);
        sentence = obstacle(answer, said);
        if (sentence) break;
        keep(items().filter((other) => other.id !== item.id));
        if (answer.ok) sent(said);
        else refused(item, said?.problem || gettext("The server rejected it."));
      }
    } finally {
      flushing = false;
    }
    if (again && foreign.size) {
      flush();
      return;
    }
    showForeign();
    if (foreign.size) retry = setTimeout(flush, 30000);
    if (sentence) {
      trouble(sentence);
      retry = setTimeout(flush, 5000);
    } else {
      $("offline").hidden = true;
      drained();
    }
  }

  function showForeign() {
    const box = $("foreign");
    const item = items().find((one) => foreign.has(one.id));
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
      keep(items().filter((other) => other.id !== item.id));
      showForeign();
    };
  }

  window.addEventListener("online", flush);
  window.addEventListener("offline", () => explain(null));
  document.addEventListener("visibilitychange", () => { if (!document.hidden && items().length) flush(); });
  return { items, waiting, trouble, explain, flush, add: (item) => keep([...items(), item]) };
}
