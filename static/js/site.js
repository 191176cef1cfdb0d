// What every page shares: the theme switch, menus and questions that close.
(() => {
  const root = document.documentElement;
  // Times are shown in this browser's zone: config/middleware.py.
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone && !document.cookie.includes(`timezone=${zone}`)) document.cookie = `timezone=${zone};path=/;max-age=31536000;samesite=lax`;
  const apply = (theme) => {
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
    for (const button of document.querySelectorAll("[data-theme-choice]"))
      button.setAttribute("aria-pressed", String(button.dataset.themeChoice === theme));
    document.dispatchEvent(new CustomEvent("gc:theme")); // charts are drawn on canvas: redraw
  };
  const openOnes = () => document.querySelectorAll("details:is(.menu, .confirm)[open]");
  document.addEventListener("click", (event) => {
    const choice = event.target.closest("[data-theme-choice]");
    if (choice) {
      localStorage.setItem("theme", choice.dataset.themeChoice);
      apply(choice.dataset.themeChoice);
    }
    for (const menu of openOnes())
      if (!menu.contains(event.target)) menu.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of openOnes()) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
  apply(localStorage.getItem("theme") || "auto");
})();
