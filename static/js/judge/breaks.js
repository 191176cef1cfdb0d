// A reminder after a set time of work without a break; it can be postponed. Five idle minutes
// count as a break.
import { $, store } from "./net.js";
import { ngettext } from "./words.js";

const MINUTE = 60_000, BREAK = 5 * MINUTE;

export function remindOfBreaks(user, minutes) {
  if (!minutes) return;
  const name = `judge:at-work:${user}`;
  const banner = $("break");
  // The start of work is stored in this browser, so that it survives page loads.
  let work = store.read(name) || { began: Date.now(), seen: Date.now(), quietUntil: 0 };

  function touch() {
    const now = Date.now();
    if (now - work.seen > BREAK) {
      work = { began: now, seen: now, quietUntil: 0 };
      banner.hidden = true;
    } else if (now - work.seen < 2000) return;
    work.seen = now;
    store.write(name, work);
  }

  function look() {
    const now = Date.now(), worked = now - work.began;
    if (now - work.seen > BREAK || now < work.quietUntil || worked < minutes * MINUTE) return;
    const n = Math.floor(worked / MINUTE);
    banner.querySelector("span").textContent = ngettext("You have worked for %(n)s minute. Take a short break.", "You have worked for %(n)s minutes. Take a short break.", n);
    banner.hidden = false;
  }

  banner.querySelector("button").addEventListener("click", () => {
    work.quietUntil = Date.now() + 10 * MINUTE;
    store.write(name, work);
    banner.hidden = true;
  });
  for (const sign of ["keydown", "pointerdown", "wheel"]) document.addEventListener(sign, touch, { passive: true });
  touch();
  setInterval(look, 15_000);
}
