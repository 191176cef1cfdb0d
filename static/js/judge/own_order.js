// A reviewer's own ranking by the keys of the judging page: letters in order, "=", Backspace, "t".
// The radio buttons hold it.
export function makeOwnOrder(form) {
  const axes = [...form.querySelectorAll(".own-order")];
  const keys = axes.map((axis) => axis.dataset.axis);
  let at = 0, tie = false, last = "";

  const lettersOf = (key) => [...form.querySelectorAll(`.own-order[data-axis="${CSS.escape(key)}"] .segments`)].map((set) => set.getAttribute("aria-label"));
  const radios = (key, letter) => [...form.querySelectorAll(`[name="rank-${CSS.escape(key)}-${letter}"]`)];
  const rankOf = (key, letter) => Number(radios(key, letter).find((one) => one.checked)?.value || 0);
  const setRank = (key, letter, rank) => { for (const one of radios(key, letter)) one.checked = one.value === (rank ? String(rank) : ""); };
  const top = (key) => Math.max(0, ...lettersOf(key).map((letter) => rankOf(key, letter)));

  function paint() {
    axes.forEach((axis, n) => {
      const key = keys[n], places = new Map();
      for (const letter of lettersOf(key)) {
        const rank = rankOf(key, letter);
        if (rank) places.set(rank, [...(places.get(rank) || []), letter]);
      }
      axis.classList.toggle("current", n === at);
      axis.querySelector("[data-order]").textContent = [...places.keys()].sort((a, b) => a - b).map((rank) => places.get(rank).join(" = ")).join(" > ") || "–";
    });
  }

  form.addEventListener("change", paint);
  paint();

  // Whether the key was meant for the ranking.
  return (key) => {
    if (!axes.length) return false;
    const letter = key.toUpperCase(), axis = keys[at];
    if (key === "=") tie = true;
    else if (key === "t") { at = (at + 1) % axes.length; last = ""; }
    else if (key === "Backspace") {
      const worst = top(axis);
      const out = lettersOf(axis).filter((one) => rankOf(axis, one) === worst && worst).at(-1);
      if (out) setRank(axis, out, 0);
      last = "";
    } else if (key.length === 1 && lettersOf(axis).includes(letter)) {
      // As on the judging page, a full ranking starts over.
      if (lettersOf(axis).every((one) => rankOf(axis, one))) {
        for (const one of lettersOf(axis)) setRank(axis, one, 0);
        last = "";
      }
      if (rankOf(axis, letter)) setRank(axis, letter, 0);
      setRank(axis, letter, tie && last ? rankOf(axis, last) : top(axis) + 1);
      [tie, last] = [false, letter];
      if (lettersOf(axis).every((one) => rankOf(axis, one)) && at + 1 < axes.length) { at += 1; last = ""; }
    } else return false;
    paint();
    return true;
  };
}
