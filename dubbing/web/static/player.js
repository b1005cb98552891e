// Language and sound are changed in place, so that the position is kept; without this file the links load other pages.
"use strict";

const player = document.getElementById("player");
const video = player.querySelector("video");
const sounds = player.querySelector(".sounds");
const languages = [...document.querySelectorAll(".languages [data-media]")];
let film = { dub: video.dataset.dub, original: video.dataset.original };
let original = Boolean(sounds.querySelector("[data-sound=original][aria-current]"));
let place = null; // where a film that is still loading goes on

function onceLoaded(act) {
  if (video.readyState >= HTMLMediaElement.HAVE_METADATA) act();
  else video.addEventListener("loadedmetadata", act, { once: true });
}

function play() {
  // a browser that wants to be asked first leaves it paused, with its own button
  video.play().catch(() => {});
}

function load() {
  place = place || { position: video.currentTime, playing: !video.paused, rate: video.playbackRate };
  video.src = (original && film.original) || film.dub;
  onceLoaded(() => {
    if (!place) return;
    const { position, playing, rate } = place;
    place = null;
    video.currentTime = position;
    video.playbackRate = rate;
    if (playing) play();
  });
}

function remember(address) {
  // the page of a job's lines has other addresses
  if (new URL(address).pathname === location.pathname) history.replaceState(null, "", address);
}

// --- dub or original: the same film twice, each with another sound track first ---

function showSounds() {
  sounds.hidden = !film.original;
  document.getElementById("one-sound").hidden = Boolean(film.original);
  for (const link of sounds.children) {
    if ((link.dataset.sound === "original") === original) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

for (const link of sounds.children) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    if (link.getAttribute("aria-current") === "true") return;
    original = link.dataset.sound === "original";
    showSounds();
    for (const language of languages) language.href = addressOf(language.href);
    remember(link.href);
    load();
  });
}

function addressOf(address) {
  const url = new URL(address);
  if (original) url.searchParams.set("sound", "original");
  else url.searchParams.delete("sound");
  return url.href;
}

// --- languages ---

function showSubtitles(link) {
  const known = video.querySelector("track[data-of=dub]");
  if (!link.dataset.track) {
    if (known) known.remove();
    return;
  }
  // the same element stays: Chromium shows every new one while another is shown
  const track = known || document.createElement("track");
  // and it never loads another file for one that is not used at all
  if (track.track.mode === "disabled") track.track.mode = "hidden";
  track.srclang = link.lang;
  track.label = link.textContent;
  track.src = link.dataset.track;
  if (known) return;
  track.kind = "subtitles";
  track.dataset.of = "dub";
  video.prepend(track);
  track.track.mode = "showing";
}

function choose(link) {
  for (const other of document.querySelectorAll(".languages a")) other.removeAttribute("aria-current");
  link.setAttribute("aria-current", "true");
  for (const section of document.querySelectorAll("section.dub")) section.hidden = section.id !== link.dataset.section;
  remember(link.href);
  for (const sound of sounds.children) {
    const url = new URL(sound.href);
    url.searchParams.set("language", link.lang);
    sound.href = url.href;
  }
  film = { dub: link.dataset.media, original: link.dataset.original };
  showSounds();
  load();
  showSubtitles(link);
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
