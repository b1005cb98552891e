// Samples that are being spoken turn into players as soon as they are there; without this, a reload does the same.
"use strict";

const ASK_EVERY_MS = 1000;
const MOST_TIMES = 120;

async function wait(place) {
  const { address } = place.dataset;
  for (let times = 0; ; times += 1) {
    if (times === MOST_TIMES) return;
    const answer = await fetch(address, { method: "HEAD" }).catch(() => null);
    if (answer && answer.ok) break;
    await new Promise((done) => setTimeout(done, ASK_EVERY_MS));
  }
  const player = document.createElement("audio");
  player.controls = true;
  player.src = address;
  player.setAttribute("aria-label", place.closest("li").querySelector("bdi").textContent);
  place.replaceChildren(player);
}

for (const place of document.querySelectorAll("[data-waits=true]")) wait(place);
document.getElementById("language")?.addEventListener("change", (event) => event.target.form.requestSubmit());
