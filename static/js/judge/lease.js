// The time for which a comparison is reserved: renewed while its person works, and a warning before
// it ends. `lease` is the page's: what it holds, when it was renewed and last touched.
import { $ } from "./net.js";
import { gettext, ngettext } from "./words.js";

export async function renew(lease) {
  const mine = lease.held();
  if (!mine) return;
  lease.renewed = Date.now();
  try {
    const answer = await lease.ask(mine);
    if (!answer.ok) return;
    const said = await answer.json();
    if (lease.held() !== mine) return;
    if (said.renewed) {
      mine.dataset.lease = said.lease;
      lease.ends = Date.now() + lease.seconds * 1000;
      $("lease").hidden = true;
    } else if (said.renewed !== false) return; // It was not our server that answered.
    else if (!lease.isEdited()) lease.again();
    else lost(mine);
  } catch { /* Offline: the answer is accepted later all the same. */ }
}

function lost(form) {
  $("lease").querySelector("span").textContent = gettext("Somebody else has this comparison now. You can still send your answer as an extra.");
  $("lease").querySelector("button").hidden = true; // There is nothing left to keep.
  $("lease").hidden = false;
  form.querySelector(".conversation").focus({ preventScroll: true });
}

export function watchLease(lease) {
  setInterval(() => {
    if (!lease.held()) return;
    const now = Date.now(), left = (lease.ends - now) / 1000;
    if (lease.touched > lease.renewed && now - lease.renewed > (lease.seconds * 1000) / 3) renew(lease);
    else if (left < Math.min(120, lease.seconds / 4)) {
      $("lease").querySelector("span").textContent = left > 0
        ? ngettext("This comparison is reserved for you for %(n)s more minute.", "This comparison is reserved for you for %(n)s more minutes.", Math.ceil(left / 60))
        : gettext("The time for this comparison ran out, and somebody else may get it. You can still send your answer.");
      $("lease").hidden = false;
    }
  }, 5000);
  $("lease").querySelector("button").addEventListener("click", () => renew(lease));
}
