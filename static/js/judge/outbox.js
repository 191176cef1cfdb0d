// Answers on their way: kept in this browser, each with its idempotency key, until the server has said
// what became of them. So none is lost or counted twice, whatever happens to the network, the server,
// the session or the page.
import { $, post, signedOut, store } from "./net.js";

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
    const kept = n === 0 ? "" : n === 1 ? " 1 answer waits here and is sent when it can be." : ` ${n} answers wait here and are sent when they can be.`;
    $("offline").textContent = sentence + kept;
    $("offline").hidden = false;
  }

  async function flush() {
    if (flushing) return;
    flushing = true;
    clearTimeout(retry);
    let sentence = "";
    try {
      while (items().length) {
        const item = items()[0];
        let answer;
        try {
          answer = await post(item.url, item.body);
        } catch {
          sentence = navigator.onLine ? "The server can't be reached." : "You are offline.";
          break;
        }
        if (signedOut(answer)) {
          sentence = "You are signed out: sign in again in another tab.";
          break;
        }
        if (answer.status >= 500 || answer.status === 429) {
          sentence = "The server has trouble.";
          break;
        }
        keep(items().filter((other) => other.id !== item.id));
        const said = await answer.json().catch(() => ({}));
        if (answer.ok) sent(said);
        else refused(item, said.problem || "The server did not accept it.");
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
  return { items, trouble, flush, add: (item) => keep([...items(), item]) };
}
