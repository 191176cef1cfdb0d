// Deciding by keyboard: a number takes a vote, c the consensus, m an own ranking; a letter says why;
// Enter decides, n goes on, z takes a decision back, p compares two responses word by word. Without
// script the form does the same.
import { makeCompare } from "./judge/compare.js";
import { $, freeKeys } from "./judge/net.js";
import { makeOwnOrder } from "./judge/own_order.js";
import { gettext } from "./judge/words.js";

const page = $("case"), form = $("decide");
const shortcuts = page.dataset.shortcuts === "on";
if (shortcuts) freeKeys(page);
const responses = page.querySelector(".case-responses");

// --- Two responses word by word ----------------------------------------------------------------------------------
const compare = makeCompare();
const covering = () => page.querySelector(".cover input:not(:checked)");
const several = responses.querySelectorAll(".response-text").length > 1;
function compareWords() {
  if (several && !covering()) compare.open(responses);
}
$("open-compare").addEventListener("click", compareWords);
const offer = () => { $("open-compare").hidden = !several || Boolean(covering()); };
offer();

// What was uncovered once stays so while this tab is open, whatever page is loaded in between.
const cover = page.querySelector(".cover input"), UNCOVERED = `review:uncovered:${location.pathname}`;
if (cover) {
  try { cover.checked = Boolean(sessionStorage.getItem(UNCOVERED)); } catch { /* forbidden */ }
  cover.addEventListener("change", () => {
    try { sessionStorage.setItem(UNCOVERED, "1"); } catch { /* forbidden */ }
    offer();
  });
  offer();
}

const order = makeOwnOrder(form);

// --- Deciding ----------------------------------------------------------------------------------------------------
function choose(value) {
  const radio = form.querySelector(`input[name="choice"][value="${value}"]`);
  if (!radio) return;
  radio.checked = true;
  radio.focus();
  radio.dispatchEvent(new Event("change", { bubbles: true }));
}

form.addEventListener("change", (event) => {
  if (event.target.name !== "choice") return;
  const own = $("own");
  own.open = event.target.value === "own";
  if (own.open && shortcuts) (own.querySelector("select, input:not([name^=rank-]), textarea") ?? own.querySelector("summary")).focus();
});

document.addEventListener("keydown", (event) => {
  if (!shortcuts || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const at = event.target, key = event.key;
  const dialog = page.querySelector("dialog[open]");
  if (dialog) {
    if (key === "p") dialog.close();
    else if (at.tagName === "SELECT" || !compare.letter(key.toUpperCase())) return;
    event.preventDefault();
    return;
  }
  if (at.matches("textarea, select, input:not([type=radio], [type=checkbox])")) return;
  if (form.elements.choice.value === "own" && order(key)) {
    event.preventDefault();
    return;
  }
  if (at.closest("#own") && key !== "Enter") return; // There, keys belong to what is filled in.
  const cover = covering();
  if (cover && key !== "n") {
    if (key === "o") {
      event.preventDefault();
      cover.click();
      $("conversation").focus({ preventScroll: true });
    } else if (key.length === 1 && key !== " ") $("said").textContent = gettext("Covered: press o to uncover, n for the next.");
    return;
  }
  if (/^[1-9]$/.test(key)) choose(key);
  else if (key === "c") choose("consensus");
  else if (key === "m") choose("own");
  else if (key === "p") compareWords();
  else if (key === "n") $("to-next")?.click();
  else if (key === "z") $("undo")?.click();
  else if (key === "Enter" && !at.closest("a, button, summary")) {
    form.querySelector('button[value="decide"]')?.click();
  } else {
    const ground = form.querySelector(`input[name="ground"][data-key="${CSS.escape(key)}"]`);
    if (!ground) return;
    ground.checked = true;
    ground.focus();
  }
  event.preventDefault();
});
