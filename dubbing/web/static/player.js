// Language and sound are changed in place, so that the position is kept; without this file the links load other pages.
"use strict";

const player = document.getElementById("player");
const video = player.querySelector("video");
const sounds = player.querySelector(".sounds");
const languages = [...document.querySelectorAll(".languages [data-media]")];
let original = false;

function onceLoaded(act) {
  if (video.readyState >= HTMLMediaElement.HAVE_METADATA) act();
  else video.addEventListener("loadedmetadata", act, { once: true });
}

function play() {
  // a browser that wants to be asked first leaves it paused, with its own button
  video.play().catch(() => {});
}

// --- dub or original: only some browsers let a page choose among sound tracks ---

function applySound() {
  const tracks = video.audioTracks;
  const both = Boolean(tracks) && tracks.length > 1;
  sounds.hidden = !both;
  document.getElementById("one-sound").hidden = both;
  if (!both) return;
  const wanted = original ? tracks.length - 1 : 0;
  for (let i = 0; i < tracks.length; i += 1) tracks[i].enabled = i === wanted;
  for (const button of sounds.children) {
    button.setAttribute("aria-pressed", String((button.dataset.sound === "original") === original));
  }
}

for (const button of sounds.children) {
  button.addEventListener("click", () => {
    original = button.dataset.sound === "original";
    applySound();
  });
}
video.addEventListener("loadedmetadata", applySound);
onceLoaded(applySound);

// --- languages ---

function showSubtitles(link) {
  const before = video.querySelector("track[data-of=dub]");
  const shown = !before || before.track.mode === "showing";
  if (before) before.remove();
  if (!link.dataset.track) return;
  const track = document.createElement("track");
  track.kind = "subtitles";
  track.src = link.dataset.track;
  track.srclang = link.lang;
  track.label = link.textContent;
  track.dataset.of = "dub";
  video.prepend(track);
  track.track.mode = shown ? "showing" : "disabled";
}

function choose(link) {
  const position = video.currentTime;
  const playing = !video.paused;
  for (const other of document.querySelectorAll(".languages a")) other.removeAttribute("aria-current");
  link.setAttribute("aria-current", "true");
  for (const section of document.querySelectorAll("section.dub")) section.hidden = section.id !== link.dataset.section;
  history.replaceState(null, "", link.href);
  video.src = link.dataset.media;
  showSubtitles(link);
  onceLoaded(() => {
    video.currentTime = position;
    if (playing) play();
  });
}

for (const link of languages) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    if (link.getAttribute("aria-current") !== "true") choose(link);
  });
}

// --- lines to listen to ---

document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-seek]");
  if (!link) return;
  event.preventDefault();
  onceLoaded(() => {
    video.currentTime = Number(link.dataset.seek);
    play();
  });
  player.scrollIntoView({ block: "start" });
});
