// The word comparison of two responses: a dialog with two columns that scroll separately.
import { $ } from "./net.js";
import { gettext } from "./words.js";

export function makeCompare() {
  const dialog = $("compare"), styles = document.createElement("link");
  [styles.rel, styles.href] = ["stylesheet", dialog.dataset.styles];
  document.head.append(styles);
  const [left, right] = dialog.querySelectorAll("select");
  const [before, after] = dialog.querySelectorAll(".compared");
  let texts = new Map();
  let turn = right; // the side that the next letter goes to

  async function paint() {
    const fill = (column, letter) => {
      const copy = texts.get(letter).cloneNode(true);
      column.replaceChildren(...copy.childNodes);
      column.scrollTop = 0;
      column.setAttribute("aria-label", gettext("Text of response %(letter)s", { letter }));
    };
    fill(before, left.value);
    fill(after, right.value);
    const [first, second] = [left.value, right.value];
    let counts;
    try {
      const { markDifferences } = await import("./word_diff.js"); // fetched when it is wanted first
      if (first !== left.value || second !== right.value) return; // somebody was faster
      counts = markDifferences(before, after);
    } catch {
      $("compare-summary").textContent = "";
      return;
    }
    $("compare-summary").textContent = counts.before || counts.after
      ? gettext("%(shared)s words in common, %(before)s only in %(left)s, %(after)s only in %(right)s", { ...counts, left: left.value, right: right.value })
      : gettext("Identical");
  }

  for (const select of [left, right]) select.addEventListener("change", () => { turn = select === left ? right : left; paint(); });

  return {
    // `within` holds the responses; `first` and `second` are letters to begin with, where there are any.
    open(within, first, second) {
      texts = new Map([...within.querySelectorAll(".response-text")].map((text) => [text.closest("[data-letter]").dataset.letter, text]));
      const letters = [...texts.keys()];
      if (letters.length < 2) return;
      for (const select of [left, right]) select.replaceChildren(...letters.map((letter) => new Option(letter, letter)));
      left.value = first || letters[0];
      right.value = second && second !== left.value ? second : letters.find((letter) => letter !== left.value);
      turn = right;
      paint();
      dialog.showModal();
      before.focus();
    },
    // A letter puts its response on the side that changes next; true if the key is a letter.
    letter(letter) {
      if (!dialog.open || !texts.has(letter)) return false;
      turn.value = letter;
      turn = turn === left ? right : left;
      paint();
      return true;
    },
  };
}
