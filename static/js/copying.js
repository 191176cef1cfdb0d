// Buttons that copy the text of the element they name.
document.addEventListener("click", ({ target }) => {
  const copy = target.closest("[data-copy]");
  if (!copy) return;
  const from = document.getElementById(copy.dataset.copy);
  const label = copy.textContent;
  const say = (word) => {
    copy.textContent = word;
    setTimeout(() => (copy.textContent = label), 1500);
  };
  // There is no clipboard on http:// other than localhost: what is marked can be copied by hand.
  const mark = () => {
    getSelection().selectAllChildren(from);
    say("Marked");
  };
  if (navigator.clipboard) navigator.clipboard.writeText(from.textContent).then(() => say("Copied"), mark);
  else mark();
});
