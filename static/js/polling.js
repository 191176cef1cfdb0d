// A page in a background tab asks for nothing; the first poll after it is shown again does.
document.addEventListener("htmx:before:request", (event) => {
  if (document.hidden && event.target.matches("[data-poll]")) event.preventDefault();
});
