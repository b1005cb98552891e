// Uploads by tus 1.0.0, in pieces that are sent again after a lost connection; where a file stands is kept in the
// browser, so that the same file chosen after a reload goes on where it stopped.
"use strict";

const CREATE = "/api/v1/uploads";
const PIECE = 8 * 1024 * 1024;
const LONGEST_WAIT_MS = 30000;
const TELL_EVERY = 25;
const AGAIN = new Set([0, 408, 409, 423, 429, 460, 500, 502, 503, 504]);

const form = document.getElementById("new-dub");
const list = document.getElementById("uploads");
const picker = document.getElementById("films");
const drop = document.getElementById("drop");
const button = document.getElementById("send");
const waiting = document.getElementById("waiting");
const trouble = document.getElementById("trouble");
const translations = document.getElementById("translations");
const sentences = JSON.parse(form.dataset.words);
const uploads = new Set();
let phase = "choosing"; // then "waiting" for the uploads, then "sending"
let key = "";

function sentence(name, facts) {
  return sentences[name].replace(/\{(\w+)\}/g, (_, fact) => facts[fact]);
}

// --- what the browser remembers: fingerprint -> address, name ---

const PREFIX = `upload:${form.dataset.user}:`;

function markOf(file) {
  return `${PREFIX}${file.name}:${file.size}:${file.lastModified}`;
}

function remember(upload) {
  localStorage.setItem(upload.mark, JSON.stringify({ address: upload.address, name: upload.file.name }));
}

function remembered() {
  const marks = Object.keys(localStorage).filter((mark) => mark.startsWith(PREFIX));
  return marks.map((mark) => [mark, JSON.parse(localStorage.getItem(mark))]);
}

// --- one request ---

class Refusal extends Error {
  constructor(status, facts) {
    super(facts.title || (status ? sentence("answered", { status }) : sentences.lost));
    this.status = status;
    this.hint = facts.detail || "";
  }
}

function factsOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

function ask(method, address, headers, body, upload) {
  return new Promise((done, fail) => {
    const request = new XMLHttpRequest();
    request.open(method, address);
    for (const [name, value] of Object.entries({ Accept: "application/json", ...headers })) {
      request.setRequestHeader(name, value);
    }
    if (upload) {
      upload.request = request;
      request.upload.addEventListener("progress", (event) => upload.show(upload.offset + event.loaded));
    }
    request.addEventListener("loadend", () => {
      if (request.status >= 200 && request.status < 300) done(request);
      else fail(new Refusal(request.status, factsOf(request.responseText)));
    });
    request.send(body);
  });
}

async function checksum(bytes) {
  // browsers hash on https and on this machine only; elsewhere TCP has to do
  if (!window.crypto.subtle) return {};
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return { "Upload-Checksum": `sha256 ${btoa(String.fromCharCode(...digest))}` };
}

function base64(text) {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}

// --- one file ---

function number(value, digits) {
  const exact = { minimumFractionDigits: digits, maximumFractionDigits: digits, useGrouping: false };
  return value.toLocaleString(document.documentElement.lang, exact);
}

function size(count) {
  return count < 1e6 ? `${Math.ceil(count / 1e3)} kB` : count < 1e9 ? `${number(count / 1e6, 1)} MB` : `${number(count / 1e9, 2)} GB`;
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

class Upload {
  constructor(file) {
    this.file = file;
    this.mark = markOf(file);
    this.address = "";
    this.offset = 0;
    this.state = "going";
    this.told = 0;
    this.tries = 0;
    this.run = 0;
    this.row = element("li");
    this.bar = element("progress");
    this.bar.max = file.size;
    this.bar.setAttribute("aria-label", file.name);
    this.how = element("span", "how");
    this.pauseButton = element("button", "", sentences.pause);
    this.removeButton = element("button", "", sentences.remove);
    for (const one of [this.pauseButton, this.removeButton]) one.type = "button";
    this.pauseButton.addEventListener("click", () => (this.state === "going" ? this.pause() : this.go()));
    this.removeButton.addEventListener("click", () => this.remove());
    const name = element("span", "name");
    name.append(element("bdi", "", file.name));
    const controls = element("span", "controls");
    controls.append(this.pauseButton, this.removeButton);
    this.row.append(name, controls, this.bar, this.how);
    list.append(this.row);
    uploads.add(this);
  }

  get id() {
    return this.address.split("/").pop();
  }

  show(offset) {
    const percent = Math.floor((100 * offset) / this.file.size);
    this.bar.value = offset;
    this.how.textContent = sentence("share", { percent, size: size(this.file.size) });
    if (percent - this.told >= TELL_EVERY) {
      this.told = percent - (percent % TELL_EVERY);
      tell(`${this.file.name}: ${this.told} %`);
    }
  }

  become(state, text) {
    this.state = state;
    this.row.dataset.state = state;
    this.pauseButton.hidden = state === "done";
    this.pauseButton.textContent = state === "going" ? sentences.pause : state === "failed" ? sentences.again : sentences.resume;
    this.how.classList.toggle("bad", state === "failed");
    if (text) {
      this.how.textContent = text;
      tell(`${this.file.name}: ${text}`);
    }
    look();
  }

  async go() {
    this.run += 1;
    const run = this.run; // a run that was paused must not go on beside the one that followed it
    const live = () => this.state === "going" && this.run === run;
    this.become("going");
    while (live()) {
      try {
        await this.find();
        while (live() && this.offset < this.file.size) await this.piece(live);
        if (live()) this.become("done", sentence("whole", { size: size(this.file.size) }));
      } catch (error) {
        if (!live()) return;
        if (!(error instanceof Refusal)) return this.become("failed", sentence("unreadable", { reason: error.message }));
        if (error.status === 404) localStorage.removeItem(this.mark);
        else if (!AGAIN.has(error.status)) return this.become("failed", `${error.message}. ${error.hint}`);
        this.address = "";
        await this.waitForNextTry(error);
      }
    }
  }

  async find() {
    const known = localStorage.getItem(this.mark);
    const address = this.address || (known ? JSON.parse(known).address : "");
    if (address) {
      const answer = await ask("HEAD", address, { "Tus-Resumable": "1.0.0" });
      this.offset = Number(answer.getResponseHeader("Upload-Offset"));
      this.address = address;
    } else {
      const headers = { "Tus-Resumable": "1.0.0", "Upload-Length": this.file.size, "Upload-Metadata": `filename ${base64(this.file.name)}` };
      const answer = await ask("POST", CREATE, headers);
      this.address = new URL(answer.getResponseHeader("Location"), location.href).pathname;
      this.offset = 0;
      remember(this);
    }
    this.show(this.offset);
  }

  async piece(live) {
    const bytes = await this.file.slice(this.offset, this.offset + PIECE).arrayBuffer();
    const headers = {
      "Tus-Resumable": "1.0.0",
      "Upload-Offset": this.offset,
      "Content-Type": "application/offset+octet-stream",
      ...(await checksum(bytes)),
    };
    if (!live()) return;
    const answer = await ask("PATCH", this.address, headers, bytes, this);
    const offset = Number(answer.getResponseHeader("Upload-Offset"));
    if (offset === this.offset) throw new Refusal(0, {});
    this.offset = offset;
    this.tries = 0;
    this.show(this.offset);
  }

  async waitForNextTry(error) {
    const wait = Math.min(LONGEST_WAIT_MS, 500 * 2 ** this.tries);
    this.tries += 1;
    this.how.textContent = `${error.message} ${sentences.retrying}`;
    if (this.tries === 2) tell(`${this.file.name}: ${error.message} ${sentences.retrying}`);
    await new Promise((done) => {
      this.wake = done;
      setTimeout(done, wait);
      window.addEventListener("online", done, { once: true });
    });
  }

  pause() {
    this.become("paused", sentences.paused);
    this.request?.abort();
    this.wake?.();
  }

  async remove() {
    const address = this.address || (JSON.parse(localStorage.getItem(this.mark)) || {}).address;
    this.state = "gone";
    this.request?.abort();
    this.wake?.();
    uploads.delete(this);
    this.row.remove();
    localStorage.removeItem(this.mark);
    tell(`${this.file.name}: ${sentences.removed}`);
    key = newKey();
    look();
    if (address) await ask("DELETE", address, { "Tus-Resumable": "1.0.0" }).catch(() => {}); // it ends by itself
  }
}

function tell(text) {
  document.getElementById("news").textContent = text;
}

// --- choosing files ---

function add(files) {
  for (const file of files) {
    if ([...uploads].some((one) => one.mark === markOf(file))) continue;
    if (file.size === 0) complain({ message: sentence("empty", { name: file.name }), hint: sentences.another });
    else new Upload(file).go();
  }
  key = newKey();
  showUnfinished();
}

function showUnfinished() {
  const chosen = new Set([...uploads].map((one) => one.mark));
  const names = remembered().filter(([mark]) => !chosen.has(mark)).map(([, facts]) => facts.name);
  const hint = document.getElementById("unfinished");
  hint.hidden = names.length === 0;
  hint.textContent = sentence("unfinished", { names: names.join(", ") });
}

picker.addEventListener("change", () => {
  add(picker.files);
  picker.value = "";
});
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) document.addEventListener(name, () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  add(event.dataTransfer.files);
});
window.addEventListener("beforeunload", (event) => {
  if ([...uploads].some((one) => one.state === "going")) event.preventDefault();
});

// --- languages and texts ---

function targets() {
  const checked = [...form.querySelectorAll("[name=target]:checked")].map((one) => [one.value, one.dataset.name]);
  const others = form.elements.other.value.split(/[\s,]+/).filter(Boolean).map((tag) => [tag, tag]);
  return [...checked, ...others];
}

function offerTranslations() {
  const wanted = targets();
  for (const row of [...translations.children]) {
    if (!wanted.some(([tag]) => tag === row.dataset.tag)) row.remove();
  }
  for (const [tag, name] of wanted) {
    if ([...translations.children].some((row) => row.dataset.tag === tag)) continue;
    const row = element("div");
    row.dataset.tag = tag;
    const label = element("label", "", sentence("translation", { language: name }));
    const input = element("input");
    Object.assign(input, { type: "file", name: `translation:${tag}`, id: `translation-${tag}`, accept: ".srt,.vtt,.ass" });
    label.htmlFor = input.id;
    row.append(label, input);
    translations.append(row);
  }
}

// --- sending ---

function look() {
  const all = [...uploads];
  const open = all.filter((one) => one.state !== "done");
  if (phase === "waiting" && (all.length === 0 || open.some((one) => one.state !== "going"))) phase = "choosing";
  if (phase === "waiting" && open.length === 0) send();
  button.disabled = all.length === 0 || phase !== "choosing";
  if (all.length === 0) waiting.textContent = sentences.choose;
  else if (phase === "waiting") waiting.textContent = sentences.soon;
  else if (phase === "sending") waiting.textContent = sentences.starting;
  else waiting.textContent = targets().length ? "" : sentences.target;
}

function complain(error) {
  const [message, hint] = trouble.querySelectorAll("p");
  message.textContent = error.message;
  hint.textContent = error.hint || "";
  trouble.hidden = false;
  trouble.scrollIntoView({ block: "nearest" });
}

function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function send() {
  phase = "sending";
  const data = new FormData(form);
  for (const one of uploads) data.append("upload", one.id);
  try {
    const answer = await ask("POST", form.action, { "Idempotency-Key": key }, data);
    for (const one of uploads) localStorage.removeItem(one.mark);
    const { jobs } = factsOf(answer.responseText);
    location.assign(jobs.length === 1 ? `/ui/jobs/${jobs[0].id}` : "/ui/jobs?view=mine");
  } catch (error) {
    phase = "choosing";
    complain(error);
    look();
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  trouble.hidden = true;
  if (uploads.size === 0 || phase !== "choosing") return;
  if (targets().length === 0) return complain({ message: sentences.target, hint: "" });
  phase = "waiting";
  look();
});
form.addEventListener("input", () => {
  key = newKey(); // the same wish sent again makes nothing new; another wish does
  offerTranslations();
  look();
});

key = newKey();
offerTranslations();
showUnfinished();
look();
