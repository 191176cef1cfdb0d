// Answers on their way: kept in this browser, each with its idempotency key, until the server has said
// what became of them. So none is lost or counted twice, whatever happens to the network, the server,
// the session or the page.
import { $, post, signedOut, store } from "./net.js";
import { gettext, ngettext } from "./words.js";

// `sent(said)`, `refused(item, sentence)` and `drained()` say what the page does then.
export function makeOutbox(user, { sent, refused, drained }) {
  const name = `judge:outbox:${user}`;
  let memory = []; // Where the browser keeps nothing.
  let flushing = false;
  let retry = 0;

  const items = () => store.read(name) || memory;
  const keep = (kept) => { memory = kept; store.write(name, kept); };

  function trouble(sentence) {
    const n = items().length;
    const kept = n ? ` ${ngettext("%(n)s answer waits here and is sent when it can be.", "%(n)s answers wait here and are sent when they can be.", n)}` : "";
    $("offline").textContent = sentence + kept;
    $("offline").hidden = false;
  }

  // What stands in the way, "" if nothing does; `answer` is null where there was none.
  function obstacle(answer) {
    if (answer === null) return navigator.onLine ? gettext("The server can't be reached.") : gettext("You are offline.");
    if (signedOut(answer)) return gettext("You are signed out: sign in again in another tab.");
    if (answer.status === 404) return gettext("The server does not know this comparison as yours. Did somebody else sign in here?");
    if (answer.status >= 500 || answer.status === 429) return gettext("The server has trouble.");
    return "";
  }

  function explain(answer) {
    const sentence = obstacle(answer);
    if (sentence) trouble(`${sentence} ${gettext("What you do is kept in this browser.")}`);
  }

  async function flush() {
    if (flushing) return;
    flushing = true;
    clearTimeout(retry);
    let sentence = "";
    try {
      while (items().length) {
        const item = items()[0];
        const answer = await post(item.url, item.body).catch(() => null);
        sentence = obstacle(answer);
        if (sentence) break;
        keep(items().filter((other) => other.id !== item.id));
        const said = await answer.json().catch(() => ({}));
        if (answer.ok) sent(said);
        else refused(item, said.problem || gettext("The server did not accept it."));
      }
    } finally {
      flushing = false;
    }
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
  return { items, trouble, explain, flush, add: (item) => keep([...items(), item]) };
}
