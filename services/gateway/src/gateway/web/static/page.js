// Polling rests while nobody looks, and the page says so when the service does not answer.
document.addEventListener("htmx:before:request", (event) => {
  if (document.hidden && event.detail.ctx.request.method === "GET") event.preventDefault();
});
document.addEventListener("htmx:error", () => document.body.classList.add("away"));
document.addEventListener("htmx:after:request", () => document.body.classList.remove("away"));
