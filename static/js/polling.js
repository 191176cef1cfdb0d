// A page in a background tab asks for nothing; when it is looked at again, the next tick does.
document.addEventListener("htmx:before:request", (event) => {
  if (document.hidden && event.target.matches("[data-poll]")) event.preventDefault();
});
