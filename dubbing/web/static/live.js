// Keeps the list and a job's page up to date: server-sent events while the page is seen, questions every 5 s where they fail.
"use strict";

(() => {
  const POLL_MS = 5000;
  const REST_MS = 500; // at most so often is a part of the page fetched again
  const PARTS = ["preview", "files", "log"]; // of a job's page, beside its state and stages
  const ENDED = ["done", "done_with_warnings", "failed", "cancelled"];
  const list = document.getElementById("list");
  const page = document.getElementById("live");
  const said = document.getElementById("said");
  const stages = list ? JSON.parse(list.dataset.stages) : {};
  let source = null;
  let timer = null;
  let replaced = false;

  // --- fetching: one request at a time for each part, and one more if something happened meanwhile ---

  const under = new Map();

  function refresh(key, act) {
    if (under.has(key)) {
      under.set(key, true);
      return;
    }
    under.set(key, false);
    act()
      .catch(() => {}) // the next event or question tries again
      .then(() => new Promise((done) => setTimeout(done, REST_MS)))
      .then(() => {
        const again = under.get(key);
        under.delete(key);
        if (again) refresh(key, act);
      });
  }

  async function fetched(address) {
    const answer = await fetch(address);
    if (answer.redirected && new URL(answer.url).pathname === "/ui/login") location.reload();
    if (!answer.ok) throw new Error(String(answer.status));
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  }

  function say(text) {
    if (said.textContent !== text) said.textContent = text;
  }

  function focused(part) {
    const at = document.activeElement;
    return at && part.contains(at) ? at.closest("form, a") : null;
  }

  // --- the page of one job ---

  function ended(state) {
    return ENDED.includes(state);
  }

  function updatePart(old, fresh) {
    fresh.remove();
    const log = old.querySelector("pre");
    const words = fresh.querySelector("pre");
    if (log && words) {
      // it may be open, and somebody may be reading further up
      const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 40;
      if (log.textContent !== words.textContent) log.textContent = words.textContent;
      old.querySelector("summary").textContent = fresh.querySelector("summary").textContent;
      if (atEnd) log.scrollTop = log.scrollHeight;
    } else if (old.innerHTML !== fresh.innerHTML) {
      const held = focused(old);
      const href = held && held.getAttribute("href");
      old.replaceChildren(...fresh.childNodes);
      const again = href && old.querySelector(`a[href="${CSS.escape(href)}"]`);
      if (again) again.focus();
    }
  }

  async function updatePage() {
    const found = await fetched(`/ui/jobs/${page.dataset.job}/stages`);
    const state = found.querySelector(".state");
    const now = [...state.classList].find((name) => name !== "state");
    if (now !== page.dataset.state) {
      // what an ended job leaves is on the rest of the page
      if (ended(now) && !ended(page.dataset.state)) {
        location.reload();
        return;
      }
      page.dataset.state = now;
      say(state.textContent);
    }
    for (const id of PARTS) updatePart(document.getElementById(id), found.getElementById(id));
    const form = focused(page);
    const action = form && form.getAttribute("action");
    page.replaceChildren(...found.body.childNodes);
    const again = action && page.querySelector(`form[action="${CSS.escape(action)}"] button`);
    if (again) again.focus();
  }

  // --- the list ---

  function row(id) {
    return list.querySelector(`li[data-job="${CSS.escape(id)}"]`);
  }

  async function updateRow(id) {
    const found = (await fetched(`/ui/jobs/${id}/row`)).querySelector("li");
    const old = row(id);
    if (!old) return;
    const held = focused(old);
    old.replaceWith(found);
    if (held) found.querySelector("a").focus();
    if (found.dataset.state !== old.dataset.state) {
      say(`${found.querySelector(".name").textContent}: ${found.querySelector(".state").textContent}`);
    }
  }

  async function updateList() {
    const found = (await fetched(location.href)).getElementById("list");
    const held = focused(list);
    const href = held && held.getAttribute("href");
    list.replaceChildren(...found.childNodes);
    const again = href && list.querySelector(`a[href="${CSS.escape(href)}"]`);
    if (again) again.focus();
  }

  function far(job) {
    const stage = job.state === "running" && job.progress.find((one) => one.done < one.total);
    return stage ? `${stages[stage.stage] || stage.stage} ${Math.floor((100 * stage.done) / stage.total)} %` : "";
  }

  // --- what comes in ---

  function heard(job) {
    if (page && page.dataset.job === job.id) refresh("page", updatePage);
    if (!list) return;
    const old = row(job.id);
    if (!old) {
      if ("first" in list.dataset) refresh("list", updateList);
    } else if (old.dataset.state === job.state) {
      old.querySelector(".far").textContent = far(job);
    } else {
      refresh(job.id, () => updateRow(job.id));
    }
  }

  function everything() {
    if (page && !ended(page.dataset.state)) refresh("page", updatePage);
    if (list) refresh("list", updateList);
  }

  function ask() {
    everything();
    if (!replaced) open();
  }

  function poll(on) {
    if (on && timer === null) timer = setInterval(ask, POLL_MS);
    if (!on && timer !== null) {
      clearInterval(timer);
      timer = null;
    }
  }

  function open() {
    if (source) return;
    if (!window.EventSource) {
      poll(true);
      return;
    }
    source = new EventSource("/api/v1/events");
    source.addEventListener("open", () => poll(false));
    source.addEventListener("job", (event) => heard(JSON.parse(event.data)));
    source.addEventListener("end", (event) => {
      // another window of this session took over: ask instead, or the two would take it from each other for ever
      if (event.data === "replaced") {
        replaced = true;
        shut();
        poll(true);
      }
    });
    source.addEventListener("error", () => {
      poll(true);
      if (source && source.readyState === EventSource.CLOSED) source = null; // it was refused; the questions go on
    });
  }

  function shut() {
    if (source) source.close();
    source = null;
  }

  // phones drop streams of hidden pages without a word
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") {
      shut();
      poll(false);
      return;
    }
    replaced = false;
    everything();
    open();
  });
  window.addEventListener("pagehide", shut);
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) everything();
    if (document.visibilityState === "visible" && !replaced) open();
  });
})();
