// The interfaces for texts: an ideal answer, or a corrected response with its changes next to it.
import { writers } from "./interfaces.js";
import { gettext, ngettext } from "./words.js";

const wordsIn = (text) => (text.trim() ? text.trim().split(/\s+/).length : 0);

writers.push((form, changed) => {
  const writing = form.querySelector(".writing textarea");
  const raw = (letter) => form.querySelector(`.response[data-letter="${letter}"] [data-raw]`)?.value ?? "";
  const chosenBase = () => [...form.querySelectorAll("[name=based_on]")].find((one) => one.checked)?.value || "";
  let base = chosenBase();
  let drawing = 0;

  function draw() {
    const shown = form.querySelector("[data-changes]");
    if (!shown) return;
    cancelAnimationFrame(drawing);
    drawing = requestAnimationFrame(async () => {
      if (!base) return;
      try {
        const { shownChanges } = await import("./word_diff.js"); // fetched when somebody corrects first
        if (base) shown.replaceChildren(...shownChanges(raw(base), writing.value));
      } catch { /* Offline since before the first change: the text itself is kept. */ }
    });
  }

  function correct(letter) {
    const before = base;
    base = letter;
    for (const one of form.querySelectorAll("[name=based_on]")) one.checked = one.value === letter;
    // A text that was edited is never discarded: only an unchanged copy is replaced.
    if (!writing.value.trim() || (before && writing.value === raw(before))) writing.value = raw(letter);
    writing.focus();
    writing.setSelectionRange(0, 0);
    draw();
    changed(gettext("Correcting %(letter)s.", { letter }));
  }

  return {
    draw,
    correct,

    begin() {
      base = chosenBase();
      draw();
    },

    summary: () => ngettext("%(n)s word", "%(n)s words", wordsIn(writing.value)),

    // Why the answer can't be sent yet, "" if it can; focuses the text if it is missing.
    lacks() {
      const least = Number(writing.dataset.least), n = writing.value.trim().length;
      if (form.dataset.interface === "rewrite" && !base) return gettext("Choose the response to correct: press its letter.");
      if (n < least) { writing.focus(); return n ? ngettext("Write %(n)s character or more.", "Write %(n)s characters or more.", least) : gettext("Write the answer first."); }
      if (base && writing.value.trim() === raw(base).trim()) { writing.focus(); return gettext("No changes yet. Skip it if it is already correct."); }
      return "";
    },

    // Whether the key was the letter of a response to correct.
    key(key) {
      if (form.dataset.interface !== "rewrite" || !form.querySelector(`[name=based_on][value="${CSS.escape(key.toUpperCase())}"]`)) return false;
      correct(key.toUpperCase());
      return true;
    },
  };
});
