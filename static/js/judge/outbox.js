// The outbox: answers stay in this browser, each with its idempotency key, until the server
// accepts or rejects them. So none is lost or counted twice if the network, the server, the
// session or the page fails.
import { $, post, signedOut, store } from "./net.js";
import { gettext, ngettext } from "./words.js";

// `sent(said)`, `refused(item, sentence)` and `drained()` say what the page does then; `aside(held)`
// shows what waits for a decision of the person (judge/aside.js), and `stay(item)` keeps a page that
// waits for it. An undo is an item like any other,
// so acts reach the server in the order in which they were done.
export function makeOutbox(user, { sent, refused, drained, aside, stay }) {
  const name = `judge:outbox:${user}`;
  let memory = []; // Where the browser keeps nothing.
  let flushing = false;
  let again = false; // Something changed while answers were on their way: try what was set aside once more.
  let retry = 0;
  // Ids of answers that the server rejected as somebody else's: kept, shown and retried from time
  // to time, without blocking others.
  const foreign = new Set();

  const items = () => store.read(name) || memory;
  const waiting = () => items().filter((item) => !foreign.has(item.id) && !item.choice);
  // An answer that does not fit into the storage stays in memory; an older stored list must not
  // hide it.
  const keep = (kept) => { memory = kept; if (!store.write(name, kept)) store.drop(name); };

  const put = (item) => keep(items().map((other) => (other.id === item.id ? item : other)));
  const drop = (item) => keep(items().filter((other) => other.id !== item.id));
  const showHeld = () => aside(items().filter((item) => item.choice || foreign.has(item.id)));

  function trouble(sentence) {
    const n = waiting().filter((item) => !item.undo).length;
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
    const did = said?.sent || said?.skipped || said?.saved || said?.undone;
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
    const state = $("sending"), slow = setTimeout(() => { if (state) state.hidden = false; }, 400);
    try {
      for (let item; (item = waiting()[0]);) {
        const answer = await post(item.url, item.body).catch(() => null);
        if (!item.undo && (answer?.status === 404 || answer?.status === 410)) {
          foreign.add(item.id);
          continue;
        }
        const said = await answer?.json().catch(() => null);
        sentence = item.undo && answer?.status === 404 ? "" : obstacle(answer, said);
        if (sentence) break;
        if (said?.choice) {
          put({ ...item, choice: said.choice });
          stay(item);
          continue;
        }
        drop(item);
        if (answer.ok) sent(said);
        else refused(item, said?.problem || gettext("The server rejected it."));
      }
    } finally {
      flushing = false;
      clearTimeout(slow);
      if (state) state.hidden = true;
    }
    if (again && foreign.size) {
      flush();
      return;
    }
    showHeld();
    if (foreign.size) retry = setTimeout(flush, 30000);
    if (sentence) {
      trouble(sentence);
      retry = setTimeout(flush, 5000);
    } else {
      $("offline").hidden = true;
      drained();
    }
  }

  window.addEventListener("online", flush);
  window.addEventListener("offline", () => explain(null));
  document.addEventListener("visibilitychange", () => { if (!document.hidden && items().length) flush(); });
  return { items, waiting, trouble, explain, flush, put, drop, add: (item) => keep([...items(), item]) };
}
