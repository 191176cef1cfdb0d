// The data manager: one box selects a page's rows, and the bar says how many are selected.
(() => {
  const boxes = () => [...document.querySelectorAll("#rows input[name=row]")];
  const show = () => {
    const all = document.getElementById("pick-all");
    if (!all) return;
    all.hidden = false;
    const rows = boxes();
    const n = rows.filter((box) => box.checked).length;
    all.checked = n > 0 && n === rows.length;
    all.indeterminate = n > 0 && n < rows.length;
    document.getElementById("n-picked").textContent = String(n);
  };
  // Words are sent while they are typed. To leave the field sends nothing again, which would take back
  // what somebody has just selected.
  document.addEventListener(
    "change",
    (event) => {
      if (event.target.id === "id_q") event.stopPropagation();
    },
    true,
  );
  let last = null;
  document.addEventListener("click", (event) => {
    const box = event.target.closest?.("#rows input[name=row]");
    if (!box) return;
    const rows = boxes();
    if (event.shiftKey && last && rows.includes(last)) {
      const [a, b] = [rows.indexOf(last), rows.indexOf(box)].sort((x, y) => x - y);
      for (const other of rows.slice(a, b + 1)) other.checked = box.checked;
    }
    last = box;
    show();
  });
  document.addEventListener("change", (event) => {
    if (event.target.id === "pick-all") {
      for (const box of boxes()) box.checked = event.target.checked;
    }
    show();
  });
  // Enter in a field of an act presses that act's button, not the first one of the form.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !event.target.matches?.(".bulk .ask input")) return;
    event.preventDefault();
    const below = [...event.target.closest(".ask").querySelectorAll("button[name=act]")];
    const after = Node.DOCUMENT_POSITION_FOLLOWING;
    below.find((button) => event.target.compareDocumentPosition(button) & after)?.click();
  });
  document.addEventListener("htmx:after:swap", show);
  document.addEventListener("DOMContentLoaded", show);
  show();
})();
