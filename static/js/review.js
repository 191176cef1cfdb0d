// Deciding by keyboard: a number takes a vote, c the consensus, m an own ranking; a letter says why;
// Enter decides, n goes on, z takes a decision back. Without script the form does the same.
"use strict";
(() => {
  const page = document.getElementById("case");
  const form = document.getElementById("decide");
  if (!page || !form || page.dataset.shortcuts !== "on") return;

  const choose = (value) => {
    const radio = form.querySelector(`input[name="choice"][value="${value}"]`);
    if (!radio) return;
    radio.checked = true;
    radio.focus();
    radio.dispatchEvent(new Event("change", { bubbles: true }));
  };

  form.addEventListener("change", (event) => {
    if (event.target.name !== "choice") return;
    const own = document.getElementById("own");
    own.open = event.target.value === "own";
    if (own.open) own.querySelector("select, input, textarea").focus();
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const at = event.target;
    if (at.matches("textarea, select, input:not([type=radio])")) return;
    const key = event.key;
    if (at.closest("#own") && key !== "Enter") return; // There, keys belong to what is filled in.
    if (/^[1-9]$/.test(key)) choose(key);
    else if (key === "c") choose("consensus");
    else if (key === "m") choose("own");
    else if (key === "n") document.getElementById("to-next")?.click();
    else if (key === "z") document.getElementById("undo")?.click();
    else if (key === "Enter" && !at.closest("a, button, summary")) {
      form.querySelector('button[value="decide"]')?.click();
    } else {
      const ground = form.querySelector(`input[name="ground"][data-key="${CSS.escape(key)}"]`);
      if (!ground) return;
      ground.checked = true;
      ground.focus();
    }
    event.preventDefault();
  });
})();
