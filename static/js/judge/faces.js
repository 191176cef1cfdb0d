// The interfaces beside the plain ranking: marks, votes on safety, pairs with strength, writing. As on
// the whole page the form is the truth, and a key does what pressing the field would have done.
//
// A "step" is one question with its fields. One step is the current one and takes the keys; answering
// it goes on to the next that has no answer. j and k move between steps without answering.
import { gettext, ngettext } from "./words.js";

const inputs = (step) => [...step.querySelectorAll("input")];
const isAnswered = (step) => inputs(step).some((one) => one.checked);
const wordsIn = (text) => (text.trim() ? text.trim().split(/\s+/).length : 0);

// `say(words)` tells a screen reader, `changed(words)` notes that there is something to save.
export function makeFace(form, { say, changed }) {
  const kind = form.dataset.face;
  const ranks = kind === "rank";
  const all = [...form.querySelectorAll(".step")];
  const writing = form.querySelector(".writing textarea");
  let current = null;

  // A question about kinds of harm is asked of what was called unsafe.
  const isAsked = (step) => !step.dataset.of || [...form.elements[step.dataset.of]].some((one) => one.checked && one.value === "no");
  const asked = () => all.filter(isAsked);
  const isOpen = (step) => "required" in step.dataset && !isAnswered(step);
  const title = (step) => [step.dataset.letter, step.dataset.name].filter(Boolean).join(": ");

  function follow(from) {
    const steps = asked();
    const at = steps.indexOf(from);
    return [...steps.slice(at + 1), ...steps.slice(0, at + 1)].find(isOpen) || null;
  }

  function go(step, speak = true) {
    current = step;
    if (step) {
      const notes = step.closest("details");
      if (notes) notes.open = true;
      const box = step.getBoundingClientRect(), bar = form.querySelector(".answer")?.getBoundingClientRect();
      if (box.top < 60 || box.bottom > Math.min(innerHeight, bar?.top ?? innerHeight)) step.scrollIntoView({ block: "center" });
      if (speak) say(title(step));
    }
    paint();
  }

  function answered(step, words) {
    // With nothing left to answer it stays, so that another key corrects it; a ranking gets its keys back.
    const open = step.dataset.step === "boxes" ? null : follow(step);
    go(open || (ranks && step.dataset.step !== "boxes" ? null : step), false);
    const then = open ? gettext("Now %(what)s.", { what: title(open) }) : asked().some(isOpen) ? "" : gettext("Everything is answered.");
    changed([`${title(step)} ${words}.`, then].join(" "));
  }

  const labelOf = (field) => {
    const label = field.closest("label");
    const words = (label.querySelector(".label") || label.querySelector("span")).cloneNode(true);
    for (const key of words.querySelectorAll("kbd")) key.remove();
    return words.textContent.trim();
  };

  function press(step, field) {
    if (field.type === "checkbox") field.checked = !field.checked;
    else field.checked = true;
    answered(step, field.checked ? labelOf(field) : gettext("no longer: %(what)s", { what: labelOf(field) }));
    return true;
  }

  // --- What is read before it is sent --------------------------------------------------------------
  function paint() {
    for (const step of all) {
      step.classList.toggle("current", step === current);
      if (step.dataset.of) step.hidden = !isAsked(step);
    }
    for (const notes of form.querySelectorAll("details.notes"))
      notes.querySelector("[data-set-names]").textContent = inputs(notes).filter((one) => one.checked).map((one) => labelOf(one).toLowerCase()).join(", ");
    const said = form.querySelector("[data-said]");
    if (!said) return;
    const parts = [];
    for (const step of all.filter((one) => one.dataset.step === "pair")) {
      const chosen = inputs(step).find((one) => one.checked);
      const bad = form.querySelector(`.all-bad input[value="${CSS.escape(step.dataset.axis)}"]`)?.checked;
      parts.push([step.dataset.name, (chosen ? labelOf(chosen) : "–") + (bad ? `, ${gettext("both bad")}` : ""), step.dataset.axis]);
    }
    const left = asked().filter(isOpen).length, marks = asked().filter((step) => "required" in step.dataset && step.dataset.step !== "pair");
    if (marks.length) parts.push(["", left ? ngettext("%(n)s answer to go", "%(n)s answers to go", left) : gettext("all answered"), ""]);
    if (writing) parts.push(["", ngettext("%(n)s word", "%(n)s words", wordsIn(writing.value)), ""]);
    said.replaceChildren(...parts.map(([name, line, axis]) => {
      const part = document.createElement("span");
      part.className = `said-part${axis ? ` axis-${axis}` : ""}`;
      const order = document.createElement("span");
      order.className = name ? "order" : "muted";
      order.textContent = line;
      part.append(name ? `${name} ` : "", order);
      return part;
    }));
  }

  // --- Correcting a response --------------------------------------------------------------------------
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
        const { shownChanges } = await import("./changes.js"); // fetched when somebody corrects first
        if (base) shown.replaceChildren(...shownChanges(raw(base), writing.value));
      } catch { /* Offline since before the first change: the text itself is kept. */ }
    });
  }

  function correct(letter) {
    const before = base;
    base = letter;
    for (const one of form.querySelectorAll("[name=based_on]")) one.checked = one.value === letter;
    // What somebody wrote is never thrown away: only an untouched copy is replaced.
    if (!writing.value.trim() || (before && writing.value === raw(before))) writing.value = raw(letter);
    writing.focus();
    writing.setSelectionRange(0, 0);
    draw();
    changed(gettext("Correcting %(letter)s.", { letter }));
  }

  // --- What the page asks of a face -------------------------------------------------------------------
  return {
    ranks,

    begin() {
      base = chosenBase();
      // What was taken back has its answers: keys correct the first.
      if (!writing) go(asked().find(isOpen) || (ranks ? null : asked()[0]), false);
      else paint();
      draw();
    },

    paint,

    // Why it can't be sent yet, "" if it can; goes to what lacks an answer.
    lacks() {
      const open = asked().find(isOpen);
      if (open) {
        go(open, false);
        return gettext("%(what)s: no answer yet.", { what: title(open) });
      }
      if (writing) {
        const least = Number(writing.dataset.least), n = writing.value.trim().length;
        if (kind === "rewrite" && !base) return gettext("Choose the response that you correct: press its letter.");
        if (n < least) { writing.focus(); return n ? ngettext("Write %(n)s character or more.", "Write %(n)s characters or more.", least) : gettext("Write the answer first."); }
        if (base && writing.value.trim() === raw(base).trim()) { writing.focus(); return gettext("Nothing is changed yet. Skip it if it is right as it is."); }
      }
      const reason = form.elements.reason, least = Number(form.dataset.reasonLeast), n = reason?.value.trim().length;
      if (reason && n < least && (form.dataset.reason === "required" || n)) {
        reason.focus();
        return ngettext("Say why in %(least)s character or more; there are %(there)s.", "Say why in %(least)s characters or more; there are %(there)s.", least, { least, there: n });
      }
      return "";
    },

    // Whether the key was meant for the current step, or for a letter of a correction.
    key(key) {
      if (key === "j" || key === "k") {
        const steps = asked();
        if (!steps.length) return false;
        const at = current ? steps.indexOf(current) : key === "j" ? -1 : steps.length;
        go(steps[key === "j" ? Math.min(at + 1, steps.length - 1) : Math.max(at - 1, 0)]);
        return true;
      }
      if (kind === "rewrite" && form.querySelector(`[name=based_on][value="${CSS.escape(key.toUpperCase())}"]`)) {
        correct(key.toUpperCase());
        return true;
      }
      if (key === "-" && !ranks) {
        const axis = (current?.dataset.axis ? current : all.findLast((step) => step.dataset.step === "pair" && isAnswered(step)) || all.find((step) => step.dataset.axis))?.dataset.axis;
        const box = form.querySelector(`.all-bad input[value="${CSS.escape(axis || "")}"]`);
        if (!box) return false;
        box.checked = !box.checked;
        changed(box.checked ? gettext("both bad") : gettext("not both bad"));
        return true;
      }
      if (!current) return false;
      let field = inputs(current).find((one) => one.dataset.key === key);
      if (!field && current.dataset.step === "mark") field = inputs(current).find((one) => one.value === key);
      if (!field && current.dataset.step === "mark" && "yn".includes(key)) field = inputs(current).find((one) => one.value === (key === "y" ? "1" : "0") && inputs(current).length === 2);
      if (!field && current.dataset.step === "pair" && inputs(current).length === 2 && "ab".includes(key)) field = inputs(current)["ab".indexOf(key)];
      return field ? press(current, field) : false;
    },

    // A pointer or a native key changed a field: the same as its key.
    touched(field) {
      const step = field.closest(".step");
      if (field.name === "based_on") correct(field.value);
      else if (step) answered(step, labelOf(field));
      else changed("");
    },

    typed(field) {
      if (field === writing) { draw(); paint(); }
    },

    // Enter while ticking boxes goes on to what is still open; true if it did.
    enter() {
      if (current?.dataset.step !== "boxes") return false;
      const next = follow(current);
      if (next === current || (!next && !ranks)) return false;
      go(next); // null gives a ranking its letters back
      return true;
    },
  };
}
