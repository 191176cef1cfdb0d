// The interfaces other than plain ranking: marks, safety votes, pairs with strength. The form
// holds the answer; a key does the same as a click on its field.
//
// A "step" is one question with its fields. One step is the current one and takes the keys; answering
// it goes on to the next that has no answer. j and k move between steps without answering.
import { gettext, ngettext } from "./words.js";

// One key for each check box of a list: first the digits, then letters.
const BOX_KEYS = "123456789abcdefghijk";

const inputs = (step) => [...step.querySelectorAll("input")];
const isAnswered = (step) => inputs(step).some((one) => one.checked);

// writing.js puts its own maker here, on the pages where something is written.
export const writers = [];

// `question()` is what a ranking asks now; `say(words)` tells a screen reader, `changed(words)` notes that there is something to save.
export function makeInterface(form, { say, changed, question }) {
  const kind = form.dataset.interface;
  const ranks = kind === "rank";
  const all = [...form.querySelectorAll(".step")];
  // Key hints are added here, as a page without script has no keys.
  for (const list of all.filter((one) => one.dataset.step === "boxes"))
    inputs(list).slice(0, BOX_KEYS.length).forEach((box, at) => {
      const key = document.createElement("kbd");
      key.dataset.key = "";
      key.setAttribute("aria-hidden", "true");
      key.textContent = box.dataset.key = BOX_KEYS[at];
      box.parentElement.append(" ", key);
    });
  const writing = form.querySelector(".writing textarea");
  let current = null;

  // Kinds of harm are asked only for unsafe responses.
  const isAsked = (step) => !step.dataset.of || [...form.elements[step.dataset.of]].some((one) => one.checked && one.value === "no");
  const asked = () => all.filter(isAsked);
  const isOpen = (step) => "required" in step.dataset && !isAnswered(step);
  const title = (step) => [step.dataset.letter, step.dataset.name].filter(Boolean).join(": ");

  function follow(from) {
    const steps = asked();
    const at = steps.indexOf(from);
    return [...steps.slice(at + 1), ...steps.slice(0, at + 1)].find(isOpen) || null;
  }

  // A question that needs no answer and has none takes the keys after those that do.
  const unsaid = (from) => asked().find((step) => step !== from && step.dataset.step === "pair" && !("required" in step.dataset) && inputs(step).some((one) => one.checked && !one.value)) || null;

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
    // After the last question the step stays current, so that a key corrects it; a ranking gets
    // its keys back.
    const open = step.dataset.step === "boxes" ? null : follow(step) || unsaid(step);
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
    const words = form.querySelector("[data-asked]");
    if (words) words.textContent = ` ${current ? current.title || title(current) : question()}`;
    const said = form.querySelector("[data-said]");
    if (!said) return;
    const parts = [];
    for (const step of all.filter((one) => one.dataset.step === "pair")) {
      const chosen = inputs(step).find((one) => one.checked);
      const bad = form.querySelector(`.all-bad input[value="${CSS.escape(step.dataset.axis)}"]`)?.checked;
      parts.push([step.dataset.name, (chosen ? labelOf(chosen) : "–") + (bad ? `, ${gettext("both bad")}` : ""), step.dataset.axis]);
    }
    const left = asked().filter(isOpen).length, marks = asked().filter((step) => "required" in step.dataset && step.dataset.step !== "pair");
    if (marks.length) parts.push(["", left ? ngettext("%(n)s answer left", "%(n)s answers left", left) : gettext("all answered"), ""]);
    if (written) parts.push(["", written.summary(), ""]);
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

  const written = writing && writers[0](form, changed);

  // --- What the page asks of a face -------------------------------------------------------------------
  return {
    ranks,

    begin() {
      written?.begin();
      // A reopened judgment has its answers, so keys correct the first step.
      if (!writing) go(asked().find(isOpen) || (ranks ? null : asked()[0]), false);
      else paint();
    },

    paint,

    // Why the answer can't be sent yet, "" if it can; focuses the first open question.
    lacks() {
      const open = asked().find(isOpen);
      if (open) {
        go(open, false);
        return gettext("%(what)s: no answer yet.", { what: title(open) });
      }
      const unwritten = written?.lacks();
      if (unwritten) return unwritten;
      const reason = form.elements.reason, least = Number(form.dataset.reasonLeast), n = reason?.value.trim().length;
      if (reason && n < least && (form.dataset.reason === "required" || n)) {
        reason.focus();
        return ngettext("Give a reason of at least %(least)s character, now %(there)s.", "Give a reason of at least %(least)s characters, now %(there)s.", least, { least, there: n });
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
      if (written?.key(key)) return true;
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

    // A field changed by pointer or native key is handled like its shortcut.
    touched(field) {
      const step = field.closest(".step");
      if (field.name === "based_on") written.correct(field.value);
      else if (step) answered(step, labelOf(field));
      else changed("");
    },

    typed(field) {
      if (field === writing) { written.draw(); paint(); }
    },

    // Enter in a list of check boxes goes to the next open question; true if it did.
    enter() {
      if (current?.dataset.step !== "boxes") return false;
      const next = follow(current);
      if (next === current || (!next && !ranks)) return false;
      go(next); // null gives a ranking its letters back
      return true;
    },
  };
}
