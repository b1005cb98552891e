// Lines are saved in place and drawn over the sound of the original; without this file each save loads the page again.
"use strict";

const strip = document.getElementById("strip");
const editor = document.querySelector(".editor");
const sentences = editor && JSON.parse(editor.dataset.words);

// --- one thing is heard at a time ---

document.addEventListener("play", (event) => {
  for (const other of document.querySelectorAll("audio, video")) if (other !== event.target) other.pause();
}, true);

// --- save in place ---

function say(form, text, bad) {
  const said = form.querySelector(".said");
  said.classList.toggle("bad", bad);
  said.textContent = text;
}

function words(page) {
  return [...page.querySelectorAll("main p")].map((p) => p.textContent.trim()).join(" ");
}

function show(page, form) {
  const line = form.closest("li");
  const fresh = page.getElementById(line.id);
  const version = page.querySelector("form.line [name=version]");
  if (!fresh || !version) {
    location.reload();
    return;
  }
  for (const input of document.querySelectorAll("form.line [name=version]")) input.value = version.value;
  document.getElementById("redo").replaceWith(page.getElementById("redo"));
  const open = line.querySelector("details").open;
  line.replaceWith(fresh);
  fresh.querySelector("details").open = open;
  say(fresh.querySelector("form.line"), sentences.saved, false);
  fresh.querySelector("button[value=save]").focus();
  draw();
}

async function save(form, button) {
  const body = new URLSearchParams(new FormData(form));
  body.set("action", button ? button.value : "save");
  say(form, sentences.saving, false);
  try {
    // the buttons are named "action", which hides the property of that name
    const answer = await fetch(form.getAttribute("action"), { method: "POST", body });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (answer.ok) show(page, form);
    else say(form, words(page), true);
  } catch {
    say(form, sentences.silent, true);
  }
}

if (editor) {
  editor.addEventListener("submit", (event) => {
    event.preventDefault();
    save(event.target, event.submitter);
  });
}

// --- the strip: the original's sound, the time of its lines above, of the dub's below ---

let sound = null;

function spans() {
  return [...editor.children].map((line) => ({
    line,
    source: [Number(line.dataset.start), Number(line.dataset.end)],
    dub: line.dataset.dubStart ? [Number(line.dataset.dubStart), Number(line.dataset.dubEnd)] : null,
  }));
}

function range(all) {
  const ends = all.flatMap((span) => [...span.source, ...(span.dub || [])]);
  return [Math.max(0, Math.min(...ends) - 1000), Math.max(...ends) + 1000];
}

function draw() {
  if (!sound || !strip.clientWidth) return;
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [strip.clientWidth, strip.clientHeight];
  strip.width = width * scale;
  strip.height = height * scale;
  const pen = strip.getContext("2d");
  pen.scale(scale, scale);
  const style = getComputedStyle(document.documentElement);
  const all = spans();
  const [from, to] = range(all);
  const x = (ms) => ((ms - from) / (to - from)) * width;
  const step = 1000 / sound.per_second;
  pen.fillStyle = style.getPropertyValue("--edge");
  for (let i = Math.floor(from / step); i < Math.min(sound.peaks.length, to / step); i += 1) {
    const half = (sound.peaks[i] / sound.full) * (height / 2 - 22);
    pen.fillRect(x(i * step), height / 2 - half, Math.max(1, x((i + 1) * step) - x(i * step) - 0.5), 2 * half + 1);
  }
  for (const span of all) {
    pen.fillStyle = style.getPropertyValue("--quiet");
    pen.fillRect(x(span.source[0]), 6, x(span.source[1]) - x(span.source[0]), 10);
    if (!span.dub) continue;
    pen.fillStyle = style.getPropertyValue(span.line.querySelector(".problems") ? "--warn" : "--link");
    pen.fillRect(x(span.dub[0]), height - 16, x(span.dub[1]) - x(span.dub[0]), 10);
  }
}

function lineAt(position) {
  const all = spans();
  const [from, to] = range(all);
  const ms = from + (position / strip.clientWidth) * (to - from);
  const far = (span) => Math.max(span.source[0] - ms, ms - span.source[1], 0);
  return all.reduce((best, span) => (far(span) < far(best) ? span : best)).line;
}

async function load() {
  if (sound || !strip.clientWidth) return;
  const answer = await fetch(strip.dataset.peaks);
  if (answer.ok) sound = await answer.json();
  draw();
}

if (strip) {
  strip.addEventListener("click", (event) => {
    const line = lineAt(event.offsetX);
    line.scrollIntoView({ block: "start" });
    const field = line.querySelector("textarea");
    if (field) field.focus({ preventScroll: true });
  });
  window.addEventListener("resize", () => (sound ? draw() : load()));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  load();
}
