// Ranking by pointer or finger, in addition to the keys: a letter that is not ranked yet is tapped, in order;
// any letter is dragged to its place in the order, onto another one for a tie.
const FAR = 6; // pixels until a press is a drag

// `ranking`: groups(axis), unranked(axis), current(), put(axis, groups), place(letter).
export function makeArrange(ranking) {
  let form, drag = null;

  const chip = (letter) => {
    const one = document.createElement("span");
    one.className = "chip";
    one.dataset.letter = one.textContent = letter;
    return one;
  };

  function paint(shown) {
    form = shown;
    for (const line of form.querySelectorAll(".axis-line")) {
      const order = line.querySelector("[data-order]"), rest = order.querySelector(".left-out");
      const groups = ranking.groups(line.dataset.axis);
      if (groups.length) order.replaceChildren(...groups.flatMap((group, n) => group.flatMap((letter, at) => [at ? " = " : n ? " > " : "", chip(letter)])), ...(rest ? [rest] : []));
    }
    let pool = form.querySelector(".pool");
    if (!pool) {
      pool = document.createElement("span");
      pool.className = "pool";
      pool.setAttribute("aria-hidden", "true"); // The ranks at each response say the same in words.
      form.querySelector(".quick").before(pool);
    }
    pool.replaceChildren(...ranking.unranked(ranking.current()).map(chip));
  }

  // Where a letter dropped here would go: { axis, onto } or { axis, before } (null: at the end).
  function target(x, y) {
    const line = [...form.querySelectorAll(".axis-line")].find((one) => {
      const box = one.getBoundingClientRect();
      return x > box.left - 12 && x < box.right + 60 && y > box.top - 16 && y < box.bottom + 16;
    });
    if (!line) return null;
    const axis = line.dataset.axis;
    for (const one of line.querySelectorAll(".chip")) {
      if (one.dataset.letter === drag.letter) continue;
      const box = one.getBoundingClientRect(), part = (x - box.left) / box.width;
      if (part > 0.2 && part < 0.8) return { axis, onto: one };
      if (part <= 0.2) return { axis, before: one };
    }
    return { axis, before: null };
  }

  function mark(place) {
    for (const one of form.querySelectorAll(".chip")) {
      one.classList.toggle("tied", one === place?.onto);
      one.classList.toggle("after", one === place?.before);
    }
  }

  function drop({ axis, onto, before }) {
    const at = (onto || before)?.dataset.letter;
    const groups = ranking.groups(axis).map((group) => group.filter((letter) => letter !== drag.letter)).filter((group) => group.length);
    const n = groups.findIndex((group) => group.includes(at));
    if (onto) groups[n].push(drag.letter);
    else groups.splice(n < 0 ? groups.length : n, 0, [drag.letter]);
    ranking.put(axis, groups.map((group) => group.sort()));
  }

  document.addEventListener("pointerdown", (event) => {
    const one = event.target.closest(".lines .chip");
    if (one && event.button === 0) drag = { one, letter: one.dataset.letter, x: event.clientX, y: event.clientY, far: false };
  });
  document.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const [x, y] = [event.clientX - drag.x, event.clientY - drag.y];
    if (!drag.far && Math.hypot(x, y) < FAR) return;
    drag.far = true;
    drag.one.classList.add("dragged");
    drag.one.style.translate = `${x}px ${y}px`;
    mark(target(event.clientX, event.clientY));
  });
  document.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const place = drag.far && target(event.clientX, event.clientY);
    if (place) drop(place);
    else if (drag.far) paint(form);
    else if (drag.one.closest(".pool")) ranking.place(drag.letter);
    // The click that follows a drag chooses nothing.
    if (drag.far) addEventListener("click", (click) => click.stopPropagation(), { capture: true, once: true });
    if (drag.far) setTimeout(() => mark(null));
    drag = null;
  });
  document.addEventListener("pointercancel", () => { if (drag) paint(form); drag = null; });

  return paint;
}
