// Parts that are equal in every comparison (marks, flags, reasons to skip) come once, with the
// page. A next comparison has a <template data-like> in their place, whose `data-set` holds the
// answers given so far.
const PARTS = ["response-marks", "flags"];
const known = new Map(); // "A response-marks" to an untouched copy
let skips = [];

// Copies the parts of a comparison, without the answers in them.
export function learn(form) {
  if (!skips.length) skips = copies(form.querySelectorAll(".skip .menu-items > *"));
  for (const response of form.querySelectorAll(".response"))
    for (const part of PARTS) {
      const name = `${response.dataset.letter} ${part}`, there = response.querySelector(`.${part}`);
      if (there && !known.has(name)) known.set(name, untouched(there.cloneNode(true)));
    }
}

const copies = (nodes) => [...nodes].map((node) => node.cloneNode(true));

function untouched(part) {
  for (const field of part.querySelectorAll("input")) field.checked = field.defaultChecked = false;
  for (const option of part.querySelectorAll("option")) option.selected = option.defaultSelected = false;
  for (const one of [part, ...part.querySelectorAll("details")]) one.removeAttribute("open");
  for (const key of part.querySelectorAll("[data-step=boxes] kbd")) key.remove(); // interfaces.js adds them.
  return part;
}

export function fillIn(form) {
  const menu = form.querySelector(".skip .menu-items");
  if (menu && !menu.children.length) menu.append(...copies(skips));
  for (const place of form.querySelectorAll("[data-like]")) {
    const response = place.closest(".response");
    const copy = known.get(`${response.dataset.letter} ${place.dataset.like}`);
    if (copy) place.replaceWith(copy.cloneNode(true)); // Another batch gets a page of its own.
  }
  for (const response of form.querySelectorAll("[data-set]"))
    for (const [name, value] of JSON.parse(response.dataset.set))
      for (const field of response.querySelectorAll(`[name="${CSS.escape(name)}"]`)) {
        if (field.tagName === "SELECT") field.value = value;
        else if (field.value === value) {
          field.checked = true;
          const list = field.closest("details");
          if (list) list.open = true;
        }
      }
}
