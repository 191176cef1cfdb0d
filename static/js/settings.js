// The launch form's settings: found by name, key or description, and those that are changed alone.
// A setting is changed if the last round had another value, or if it was typed into since the page came.
(() => {
  const box = () => document.getElementById("setting-search");
  const isEdited = (field) => {
    if (field.type === "checkbox") return field.checked !== field.defaultChecked;
    if (field.options) return [...field.options].some((o) => o.selected !== o.defaultSelected) && field.value !== (([...field.options].find((o) => o.defaultSelected) ?? field.options[0])?.value);
    return field.value !== field.defaultValue;
  };
  const isChanged = (setting) =>
    "changed" in setting.dataset || isEdited(setting.querySelector("input, select, textarea"));

  const filter = () => {
    const groups = document.getElementById("setting-groups");
    if (!groups || !box()) return;
    box().hidden = false;
    const words = document.getElementById("find-setting").value.toLowerCase().split(/\s+/).filter(Boolean);
    const onlyChanged = document.getElementById("only-changed").checked;
    const isFiltering = words.length > 0 || onlyChanged;
    let shown = 0;
    for (const setting of groups.querySelectorAll("[data-setting]")) {
      const label = setting.querySelector("label").firstElementChild.textContent;
      const help = setting.querySelector(".help")?.textContent ?? "";
      const text = `${setting.dataset.setting} ${label} ${help}`.toLowerCase();
      const fits = words.every((word) => text.includes(word)) && (!onlyChanged || isChanged(setting));
      setting.hidden = !fits;
      shown += fits;
    }
    for (const group of groups.querySelectorAll(".setting-group"))
      group.hidden = !group.querySelector("[data-setting]:not([hidden])");
    for (const fold of groups.querySelectorAll("details")) {
      const fits = fold.querySelector("[data-setting]:not([hidden])");
      fold.hidden = !fits;
      if (isFiltering && fits && !fold.open) fold.dataset.opened = fold.open = true;
      if (!isFiltering && fold.dataset.opened) {
        delete fold.dataset.opened;
        fold.open = false;
      }
    }
    box().querySelector("output").textContent = isFiltering ? (shown === 1 ? "1 setting" : `${shown} settings`) : "";
  };

  document.addEventListener("input", (event) => {
    if (event.target.closest("#setting-search")) filter();
  });
  document.addEventListener("keydown", (event) => {
    // Enter in the search field is no launch.
    if (event.key === "Enter" && event.target.id === "find-setting") event.preventDefault();
    if (event.key === "Escape" && event.target.id === "find-setting") {
      event.target.value = "";
      filter();
    }
  });
  document.addEventListener("htmx:after:swap", filter);
  filter();
})();
