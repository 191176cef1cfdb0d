// What allauth's scripts leave out: whether the browser knows passkeys, and what to say when one fails.
"use strict";

(() => {
  const button = document.getElementById("passkey-button");
  const message = document.getElementById("passkey-error");
  if (button && window.PublicKeyCredential) button.hidden = false;
  document.addEventListener("allauth.error", (event) => {
    if (!message) return;
    event.preventDefault();
    message.hidden = false;
  });
  button?.addEventListener("click", () => { message.hidden = true; });
})();
