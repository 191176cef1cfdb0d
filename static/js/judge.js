// The judging page's script. The form holds the answer: keys and buttons only set its fields, so a
// browser without script sends the same. Answers go through an outbox kept in this
// browser, each with its idempotency key, so none is lost or counted twice.
import { $, freeKeys, goOnceThere, isAside, post, store, token } from "./judge/net.js";
import { makeInterface } from "./judge/interfaces.js";
import { makeOutbox } from "./judge/outbox.js";
import { gettext, ngettext } from "./judge/words.js";

(() => {
  const root = document.getElementById("judge") || document.getElementById("judge-idle");
  if (!root) return;
  const idle = root.id === "judge-idle";
  const user = root.dataset.user;
  const DRAFT = `judge:draft:${user}:`;

  // What is not needed to show a comparison is loaded after it.
  const later = new Promise((done) => addEventListener("load", () => done(import("./judge/later.js"))));
  later.catch(() => {}); // Offline: those extras are missing until the page is loaded again.

  const outbox = makeOutbox(user, {
    sent: (said) => (idle ? go(location.href) : progress(said)),
    refused,
    drained: () => { if (!idle) drained(); },
    aside: (held) => later.then(({ showAside }) => showAside(outbox, held), () => {}),
    stay,
  });
  const { flush, trouble } = outbox;
  const go = (url) => goOnceThere(url, root.dataset.judge, outbox.explain);

  // A person who waits for this answer stays here to read what became of it.
  function stay(item) {
    if (idle || !waitingForNext || form?.dataset.uid !== item.uid) return;
    waitingForNext = false;
    if (!form.isConnected) form = null;
  }

  function refused(item, sentence) {
    const box = $("refused");
    if (item.undo && !idle) {
      waitingForNext = slot.inert = false;
      $("undoing").hidden = true;
      hint(sentence);
      return;
    }
    const link = document.createElement("a");
    link.href = item.url;
    link.textContent = gettext("Reopen");
    box.replaceChildren(`${gettext("An answer was rejected: %(why)s", { why: sentence })} `, link);
    box.hidden = false;
    delete box.dataset.hint;
    if (item.draft) store.write(DRAFT + item.uid, item.draft);
    stay(item);
  }

  // --- Nothing to judge: look again by itself -----------------------------------------------------
  if (idle) {
    const note = document.querySelector("[data-polling]");
    if (note) note.hidden = false;
    setInterval(() => { if (!document.hidden && !outbox.items().length) go(location.href); }, 15000);
    flush();
    return;
  }

  // --- One comparison ------------------------------------------------------------------------------
  const slot = $("slot");
  const shortcuts = root.dataset.shortcuts === "on";
  const leaseSeconds = Number(root.dataset.leaseSeconds);
  let form; // the comparison in view
  let face; // the questions in addition to a ranking: judge/interfaces.js
  let letters, axes, axis, last, selected, tie, flagging;
  let picked = false; // the selected letter waits for its rank
  let replaced = []; // orders that one key or button has replaced, for a way back
  let compare = null, arrange = null;
  let dirty = false, saving = 0, edited = false;
  let visible = 0, since = 0; // milliseconds in view
  let ahead = null, waitingForNext = false, preloading = false;

  if (shortcuts) root.classList.add("keys-on");
  $("open-keys").hidden = false;
  if (shortcuts) freeKeys(root);

  const say = (text) => { $("live").textContent = text; };
  const radios = (key, letter) => form.elements[`rank-${key}-${letter}`];
  const rankOf = (key, letter) => Number(radios(key, letter).value) || 0;
  const setRank = (key, letter, rank) => {
    for (const radio of radios(key, letter)) radio.checked = radio.value === (rank ? String(rank) : "");
  };
  const top = (key) => Math.max(0, ...letters.map((letter) => rankOf(key, letter)));
  const unranked = (key) => letters.filter((letter) => !rankOf(key, letter));
  const lineOf = (key) => form.querySelector(`.axis-line[data-axis="${CSS.escape(key)}"]`);
  const nameOf = (key) => lineOf(key).dataset.name;

  const groups = (key) => {
    const places = new Map();
    for (const letter of letters) {
      const rank = rankOf(key, letter);
      if (rank) places.set(rank, [...(places.get(rank) || []), letter]);
    }
    return [...places.keys()].sort((a, b) => a - b).map((rank) => places.get(rank));
  };
  const order = (key) => groups(key).map((tied) => tied.join(" = ")).join(" > ");

  function begin(shown) {
    form = shown;
    letters = [...form.querySelectorAll(".response")].map((one) => one.dataset.letter);
    axes = [...form.querySelectorAll(".axis-line")].map((one) => one.dataset.axis);
    [selected, tie, flagging, last, picked, replaced] = ["", false, false, "", false, []];
    dirty = edited = false;
    visible = 0;
    since = document.hidden ? 0 : performance.now();
    takeUp();
    axis = axes.find((key) => unranked(key).length) || axes[0];
    if (axes.length) form.querySelector(".quick").hidden = false;
    $("open-compare").hidden = !compare || letters.length < 2;
    face = makeInterface(form, { say, changed, question: () => (axes.length ? lineOf(axis).title : "") });
    lease.begin();
    $("lease").hidden = true;
    $("lease").querySelector("button").hidden = false;
    paint();
    face.begin();
    if (dirty) saveSoon();
  }

  function paint() {
    for (const key of axes) {
      const left = unranked(key), line = lineOf(key), text = order(key);
      const shown = line.querySelector("[data-order]");
      shown.textContent = text || "–";
      if (text && left.length) {
        const rest = document.createElement("span");
        rest.className = "left-out";
        rest.textContent = form.dataset.unranked === "below" ? ` > ${left.join(", ")}` : ` · ${gettext("%(letters)s not ranked", { letters: left.join(", ") })}`;
        shown.append(rest);
      }
      line.setAttribute("aria-pressed", String(key === axis));
    }
    for (const one of form.querySelectorAll(".response")) {
      one.classList.toggle("selected", one.dataset.letter === selected);
      const flags = [...one.querySelectorAll(".flags input:checked")].map((box) => box.nextElementSibling.textContent.toLowerCase());
      const names = one.querySelector("[data-flag-names]");
      if (names) names.textContent = flags.join(", ");
    }
    for (const set of form.querySelectorAll(".rank")) set.classList.toggle("active", set.dataset.axis === axis);
    if (axes.length) {
      form.querySelector('[data-do="repeat"]').disabled = axes.indexOf(axis) < 1;
      form.querySelector('[data-do="restore"]').hidden = !replaced.length;
    }
    face.paint();
    if (axes.length) arrange?.(form);
  }

  const sentence = (key) => {
    const left = unranked(key);
    const rest = left.length && order(key) ? `, ${gettext("%(letters)s not ranked", { letters: left.join(", ") })}` : "";
    return `${nameOf(key)}: ${order(key) || gettext("nothing ranked")}${rest}`;
  };

  function changed(words) {
    edited = dirty = true;
    lease.touched = Date.now();
    store.write(DRAFT + form.dataset.uid, draft());
    form.querySelector("[data-saved]").textContent = "";
    if ("hint" in $("refused").dataset) $("refused").hidden = true;
    paint();
    if (words) say(words);
    saveSoon();
  }

  // --- Ranking ----------------------------------------------------------------------------------------
  function place(letter) {
    if (!unranked(axis).length) {
      const open = axes.find((key) => unranked(key).length === letters.length);
      if (open && !selected) axis = open;
    }
    // On a full ranking a letter waits for its rank; a second letter starts the ranking over.
    if (picked && selected !== letter && !unranked(axis).length) {
      replace();
      setRank(axis, selected, 1);
      last = selected;
    }
    picked = false;
    if (rankOf(axis, letter)) {
      selected = letter;
      picked = true;
      tie = false;
      paint();
      say(gettext("%(letter)s: press its rank for %(axis)s", { letter, axis: nameOf(axis) }));
      return;
    }
    setRank(axis, letter, tie && last ? rankOf(axis, last) : top(axis) + 1);
    [tie, last, selected] = [false, letter, letter];
    const words = sentence(axis);
    if (!unranked(axis).length) {
      const open = axes.find((key) => unranked(key).length);
      selected = last = "";
      if (open) {
        axis = open;
        changed(gettext("%(order)s. Now %(axis)s.", { order: words, axis: nameOf(open) }));
        return;
      }
    }
    changed(words);
  }

  function number(rank) {
    if (!selected || rank > letters.length) return false;
    setRank(axis, selected, rank);
    picked = false;
    changed(sentence(axis));
    return true;
  }

  // Empty the axis; `z` brings back what it had.
  function replace() {
    if (order(axis)) replaced.push([axis, letters.map((letter) => rankOf(axis, letter))]);
    for (const letter of letters) setRank(axis, letter, 0);
  }

  const acts = {
    equal() {
      replace();
      for (const letter of letters) setRank(axis, letter, 1);
      after();
    },
    repeat() {
      const from = axes[axes.indexOf(axis) - 1];
      if (!from) return;
      replace();
      for (const letter of letters) setRank(axis, letter, rankOf(from, letter));
      after();
    },
    restore() {
      if (!replaced.length) return;
      const [key, ranks] = replaced.pop();
      axis = key;
      letters.forEach((letter, at) => setRank(axis, letter, ranks[at]));
      [selected, last, tie] = ["", "", false];
      changed(sentence(axis));
    },
    clear() {
      replace();
      [selected, last, tie] = ["", "", false];
      changed(sentence(axis));
    },
    back() {
      if (unranked(axis).length === letters.length && axes.indexOf(axis) > 0) axis = axes[axes.indexOf(axis) - 1];
      else {
        const worst = top(axis);
        const on = letters.filter((letter) => rankOf(axis, letter) === worst && worst);
        const out = on.includes(last) ? last : on.at(-1);
        if (out) setRank(axis, out, 0);
      }
      [selected, last, tie] = ["", "", false];
      changed(sentence(axis));
    },
  };

  function after() {
    const words = sentence(axis);
    [selected, last, tie] = ["", "", false];
    axis = axes.find((key) => unranked(key).length) || axis;
    changed(words);
  }

  // --- Drafts -------------------------------------------------------------------------------------------
  const fields = () => [...new FormData(form)].filter(([name]) => !isAside(name));

  // Drafts carry the server's time, not this browser's, so that the newer of two drafts is known.
  // In doubt the browser's draft is newer, so that nothing typed is lost.
  const clockOffset = Number(root.dataset.now) + performance.now() - (performance.getEntriesByType("navigation")[0]?.requestStart ?? 0) - Date.now();
  const draft = () => ({ at: Date.now() + clockOffset, fields: fields() });

  function takeUp() {
    const name = DRAFT + form.dataset.uid, own = store.read(name), before = JSON.stringify(fields());
    if (!own) return;
    if (!(own.at < form.dataset.savedAt)) restore(own.fields || own); // Once they had no time.
    dirty = JSON.stringify(fields()) !== before;
    if (!dirty) store.drop(name);
    else if (form.hasAttribute("data-correction")) {
      const note = document.createElement("p"), back = document.createElement("button");
      note.className = "notice";
      note.setAttribute("role", "status");
      back.className = "button small";
      back.textContent = gettext("Show my answer");
      back.onclick = () => { store.drop(name); location.reload(); };
      note.append(`${gettext("This correction is not sent yet.")} `, back);
      $("banners").append(note);
    }
  }

  function restore(pairs) {
    const given = new Map();
    for (const [name, value] of pairs) given.set(name, [...(given.get(name) || []), value]);
    for (const field of form.elements) {
      if (!field.name || isAside(field.name)) continue;
      const values = given.get(field.name) || [];
      if (field.type === "radio" || field.type === "checkbox") field.checked = values.includes(field.value);
      else if (field.tagName !== "BUTTON") field.value = values[0] || "";
    }
  }

  const bodyOf = (extra) => {
    const body = new URLSearchParams(new FormData(form));
    for (const [name, value] of Object.entries(extra)) body.set(name, value);
    return body;
  };

  const saveSoon = () => { clearTimeout(saving); saving = setTimeout(save, 800); };

  async function save() {
    clearTimeout(saving);
    if (!dirty || form.hasAttribute("data-correction")) return;
    const mine = form, sent = JSON.stringify(fields());
    dirty = false;
    try {
      const answer = await post(mine.action, bodyOf({ act: "draft" }));
      const said = await answer.json().catch(() => null);
      if (!answer.ok || !said?.saved) {
        if (form === mine) outbox.explain(answer, said);
        throw new Error(String(answer.status));
      }
      if (form !== mine) return;
      if (!outbox.waiting().length) $("offline").hidden = true;
      [lease.renewed, lease.ends] = [Date.now(), Date.now() + leaseSeconds * 1000];
      $("lease").hidden = true;
      if (JSON.stringify(fields()) === sent) {
        store.drop(DRAFT + mine.dataset.uid);
        mine.querySelector("[data-saved]").textContent = gettext("saved ✓");
      }
    } catch (error) {
      if (form !== mine) return;
      if (error instanceof TypeError || error.name === "TimeoutError") outbox.explain(null);
      dirty = true;
      mine.querySelector("[data-saved]").textContent = gettext("saved offline");
      saving = setTimeout(save, 5000);
    }
  }

  // --- Sending ----------------------------------------------------------------------------------------------
  const seconds = () => ((visible + (since ? performance.now() - since : 0)) / 1000).toFixed(2);
  let warnedFor = "";

  function complete() {
    const lacks = face.lacks();
    if (lacks) {
      say(lacks);
      hint(lacks);
      return false;
    }
    const rest = form.dataset.unranked;
    for (const key of axes) {
      const left = unranked(key);
      if (rest === "refused" && left.length) {
        axis = key;
        paint();
        const words = gettext("%(axis)s: rank every response; %(letters)s not ranked.", { axis: nameOf(key), letters: left.join(", ") });
        say(words);
        hint(words);
        return false;
      }
      if (letters.length - left.length < (rest === "below" ? 1 : 2)) {
        axis = key;
        [selected, last] = ["", ""];
        paint();
        const words = rest === "below" ? gettext("%(axis)s: rank at least one response.", { axis: nameOf(key) }) : gettext("%(axis)s: rank at least two responses.", { axis: nameOf(key) });
        say(words);
        hint(words);
        return false;
      }
    }
    const some = rest !== "below" && axes.find((key) => unranked(key).length);
    const state = some && JSON.stringify(fields());
    if (some && warnedFor !== state) {
      warnedFor = state;
      axis = some;
      paint();
      hint(gettext("%(axis)s: %(letters)s not ranked. Send again to confirm.", { axis: nameOf(some), letters: unranked(some).join(", ") }));
      return false;
    }
    return true;
  }

  function hint(text) {
    form.querySelector("[data-saved]").textContent = "";
    const box = $("refused");
    box.textContent = text;
    box.dataset.hint = "";
    box.hidden = false;
    clearTimeout(hint.timer);
    hint.timer = setTimeout(() => { box.hidden = true; }, 6000);
  }

  function leave(extra) {
    clearTimeout(saving);
    const uid = form.dataset.uid;
    outbox.add({ id: `${uid}:${Date.now()}`, uid, url: form.action, body: bodyOf(extra).toString(), draft: draft() });
    store.drop(DRAFT + uid);
    dirty = false;
    const correction = form.hasAttribute("data-correction");
    root.dataset.last = uid;
    $("refused").hidden = true;
    // What the page said when it was opened was about the comparison that is left now.
    for (const old of document.querySelectorAll(".notices, #problem")) old.remove();
    if (correction) {
      waitingForNext = "history";
      flush();
      return;
    }
    const began = performance.now();
    const next = ahead;
    ahead = null;
    // Another batch or new guidelines need a full page load.
    if (next?.dataset.frame === form.dataset.frame) {
      slot.replaceChildren(next);
      begin(next);
      lease.renew();
      const to = form.querySelector(".conversation");
      scrollTo({ top: 0 });
      to.focus({ preventScroll: true });
      say(ngettext("Sent. Next comparison, %(n)s response.", "Sent. Next comparison, %(n)s responses.", letters.length));
      performance.measure("judge:swap", { start: began, end: performance.now() });
    } else {
      const note = document.createElement("p");
      note.className = "waiting-next";
      note.textContent = gettext("Your answer is saved. The next comparison loads when the server is reachable.");
      slot.replaceChildren(note);
      waitingForNext = "judge";
    }
    flush();
  }

  const send = () => { if (!waitingForNext && complete()) leave({ act: "send", seconds: seconds() }); };
  const skip = (reason, other) => leave({ skip: reason, skip_other: other || "" });

  function progress(said) {
    if (said.of === undefined) return;
    $("today").textContent = said.today;
    $("today-of").textContent = said.of;
    $("today-bar").max = said.of || 1;
    $("today-bar").value = said.today;
  }

  function drained() {
    if (waitingForNext) go(root.dataset[waitingForNext]);
    else if (form && outbox.waiting().length === 0) preload();
  }

  async function preload() {
    if (ahead || preloading || form.hasAttribute("data-correction")) return;
    preloading = true;
    const mine = form;
    try {
      const { fillIn, learn } = await later;
      const answer = await fetch(mine.dataset.after, { redirect: "manual", headers: { "X-Has-Responses": letters.length } });
      if (answer.status !== 200) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const next = page.querySelector("form.slot");
      if (!next || form !== mine || outbox.items().some((item) => item.uid === next.dataset.uid)) return;
      learn(mine);
      ahead = document.adoptNode(next);
      fillIn(ahead);
    } catch { /* Offline: the next one is fetched when the answer has been sent. */ } finally {
      preloading = false;
      if (form !== mine && !waitingForNext) preload();
    }
  }

  // An undo waits behind the answers on their way, and nothing is sent until it is done: Enter
  // pressed in between can't be what it takes back.
  function undo() {
    if (waitingForNext || form.hasAttribute("data-correction")) return;
    const { last: uid, undo: url } = root.dataset;
    if (!uid) { hint(gettext("No judgment to undo.")); return; }
    if (!$("offline").hidden && outbox.waiting().length) { trouble(gettext("The last answer is still being sent.")); return; }
    save();
    outbox.add({ id: `undo:${Date.now()}`, uid, undo: true, url, body: `uid=${uid}` });
    waitingForNext = "judge";
    slot.inert = true;
    $("undoing").hidden = false;
    flush();
  }

  // --- The lease (judge/lease.js) ------------------------------------------------------------------------------
  const lease = {
    seconds: leaseSeconds,
    ends: 0, renewed: 0, touched: 0,
    begin() { this.renewed = this.touched = Date.now(); this.ends = this.renewed + leaseSeconds * 1000; },
    held: () => (form && !waitingForNext && !form.hasAttribute("data-correction") ? form : null),
    ask: (of) => post(of.action, bodyOf({ act: "renew" })),
    isEdited: () => edited,
    again: () => go(root.dataset.judge),
    renew() { later.then(({ renew }) => renew(lease), () => {}); },
  };

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      if (since) visible += performance.now() - since;
      since = 0;
    } else since = performance.now();
  });
  // Release an untouched comparison. The lease in the request tells the server if the page was
  // reloaded.
  const giveBack = (one) => navigator.sendBeacon(one.action, new URLSearchParams({ act: "release", lease: one.dataset.lease, json: "1", csrfmiddlewaretoken: token() }));
  window.addEventListener("pagehide", () => {
    if (form && !waitingForNext) {
      if (dirty) navigator.sendBeacon(form.action, bodyOf({ act: "draft", json: "1", csrfmiddlewaretoken: token() }));
      else if (!edited && !form.hasAttribute("data-correction")) giveBack(form);
    }
    if (ahead) giveBack(ahead);
    ahead = null;
  });
  window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

  // --- Pointer ---------------------------------------------------------------------------------------------------
  slot.addEventListener("change", (event) => {
    const set = event.target.closest(".rank");
    if (set) {
      axis = set.dataset.axis;
      selected = last = "";
      changed(sentence(axis));
    } else if (event.target.matches("input[type=radio], input[type=checkbox]")) face.touched(event.target);
    else changed("");
  });
  slot.addEventListener("input", (event) => {
    if (event.target.tagName !== "TEXTAREA") return;
    face.typed(event.target);
    changed("");
  });
  slot.addEventListener("click", (event) => {
    const line = event.target.closest(".axis-line");
    if (line) { axis = line.dataset.axis; [selected, last] = ["", ""]; paint(); }
    const quick = event.target.closest("[data-do]");
    if (quick) acts[quick.dataset.do]();
    if (event.target.closest("[data-ask]")) edited = true; // It stays theirs while they ask about it.
  });
  slot.addEventListener("submit", (event) => {
    event.preventDefault();
    const by = event.submitter;
    if (by?.name === "skip") {
      const other = form.elements.skip_other.value.trim();
      if (by.value === "other" && !other) { form.elements.skip_other.focus(); return; }
      skip(by.value, other);
    } else if (by?.value === "draft") { dirty = true; save(); }
    else send();
  });
  document.querySelector("#undo-form").addEventListener("submit", (event) => { event.preventDefault(); undo(); });

  const open = (id) => { if (!$(id).open) $(id).showModal(); };
  $("open-guidelines").addEventListener("click", (event) => { event.preventDefault(); open("guidelines"); });
  $("open-keys").addEventListener("click", () => open("keys"));

  // The two best-ranked responses, of another axis if this one has too few ranks; otherwise the
  // current response and the next.
  async function compareWords() {
    await later;
    const ranked = (key) => letters.filter((letter) => rankOf(key, letter)).sort((a, b) => rankOf(key, a) - rankOf(key, b));
    const full = [axis, ...axes].find((key) => ranked(key).length > 1);
    if (full) compare.open(form, ...ranked(full));
    else compare.open(form, selected || ranked(axis)[0]);
  }
  $("open-compare").addEventListener("click", compareWords);
  // An order as it was dragged.
  function put(key, tied) {
    [axis, selected, last, picked] = [key, "", "", false];
    for (const letter of letters) setRank(key, letter, tied.findIndex((group) => group.includes(letter)) + 1);
    changed(sentence(key));
  }

  later.then(({ makeArrange, makeCompare, remindOfBreaks, watchLease }) => {
    watchLease(lease);
    compare = makeCompare();
    arrange = makeArrange({ groups, unranked, current: () => axis, put, place });
    if (form?.isConnected) paint();
    $("open-compare").hidden = letters.length < 2;
    remindOfBreaks(user, Number(root.dataset.breakMinutes));
  }, () => {});

  // --- Keyboard ----------------------------------------------------------------------------------------------------
  const typing = (target) => target.matches("textarea, select, input:not([type=radio], [type=checkbox])");

  document.addEventListener("keydown", (event) => {
    if (event.isComposing || !form || waitingForNext) return;
    const target = event.target;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); return; }
    if ((event.ctrlKey || event.metaKey) && event.key === "z" && !typing(target) && replaced.length) { event.preventDefault(); acts.restore(); return; }
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const dialog = document.querySelector("dialog[open]");
    if (dialog) {
      if (dialog.id === "news") return;
      if (!shortcuts) return;
      if (["?", "g", "m", "p"].includes(event.key)) { event.preventDefault(); dialog.close(); }
      else if (target.tagName !== "SELECT" && dialog.id === "compare" && compare?.letter(event.key.toUpperCase())) event.preventDefault();
      return;
    }
    if (event.key === "Escape") {
      const own = target.closest(".flags");
      if (own) own.open = own.querySelector("input:checked") !== null;
      if (own && !shortcuts) own.querySelector("summary").focus();
      else if (own || typing(target)) { target.blur(); form.querySelector(".conversation").focus({ preventScroll: true }); }
      [selected, tie, flagging] = ["", false, false];
      paint();
      return;
    }
    if (event.key === "Enter" && target.name === "skip_other") {
      event.preventDefault();
      if (target.value.trim()) skip("other", target.value.trim());
      return;
    }
    if (!shortcuts || typing(target)) return;
    const cover = form.querySelector(".cover input:not(:checked)");
    if (cover && !form.querySelector("details.skip[open]")) {
      if (event.key === "o") {
        event.preventDefault();
        cover.click();
        form.querySelector(".conversation").focus({ preventScroll: true });
        return;
      }
      if (event.key.length === 1 && !["s", "u", "g", "m", "?", " "].includes(event.key)) {
        say(gettext("Covered: press o to uncover, s to skip."));
        return;
      }
    }
    const interactive = target.closest("button, a, summary");
    if (event.key === "Enter" && interactive) return;
    const skipMenu = form.querySelector("details.skip[open]");
    const flags = target.closest(".flags");
    const digit = /^[0-9]$/.test(event.key) ? Number(event.key) : -1;
    const letter = event.key.length === 1 ? event.key.toUpperCase() : "";

    let done = true;
    if (skipMenu && digit > 0) skipMenu.querySelectorAll('button[name="skip"]')[digit - 1]?.click();
    else if (flags && digit > 0) {
      const box = flags.querySelectorAll("input[type=checkbox]")[digit - 1];
      if (box) {
        box.click();
        box.focus();
        const said = { letter: flags.closest(".response").dataset.letter, flag: box.nextElementSibling.textContent };
        say(box.checked ? gettext("%(letter)s: %(flag)s flagged", said) : gettext("%(letter)s: %(flag)s not flagged", said));
      }
    } else if (flags && event.key === "x") { flags.open = flags.querySelector("input:checked") !== null; form.querySelector(".conversation").focus({ preventScroll: true }); }
    else if (!selected && !flagging && event.key.length === 1 && face.key(event.key)) { /* done */ }
    else if (event.key === "-" && face.ranks) {
      const box = form.querySelector(`.all-bad input[value="${CSS.escape(axis)}"]`);
      if (box) box.click();
    } else if (event.key === "Enter" && !event.repeat && face.enter()) { /* done */ }
    else if (letters.includes(letter) && letter && (face.ranks || flagging)) {
      if (flagging) {
        flagging = false;
        const own = form.querySelector(`.response[data-letter="${letter}"] .flags`);
        own.open = true;
        own.querySelector("input").focus();
        say(gettext("Flags of %(letter)s: 1 to 4, Escape when done.", { letter }));
      } else place(letter);
    } else if (event.key === "=") { tie = true; say(gettext("Tie the next letter with the previous one.")); }
    else if (!face.ranks && (digit >= 0 || ["r", "t", "z", "Backspace", "Delete"].includes(event.key))) done = false;
    else if (digit === 0) acts.equal();
    else if (digit > 0) done = number(digit);
    else if (event.key === "r") acts.repeat();
    else if (event.key === "Backspace") acts.back();
    else if (event.key === "Delete") acts.clear();
    else if (event.key === "z") acts.restore();
    else if (event.key === "t") { axis = axes[(axes.indexOf(axis) + 1) % axes.length]; [selected, last] = ["", ""]; paint(); say(sentence(axis)); }
    else if (event.key === "x" && form.querySelector(".flags")) { flagging = true; say(gettext("Flag which response? Press its letter.")); }
    else if (event.key === "w" && form.elements.reason) form.elements.reason.focus();
    else if ((event.key === "e" || event.key === "v") && form.elements.rewrite) form.elements.rewrite.focus();
    else if (event.key === "Enter" && !event.repeat) send();
    else if (event.key === "u") undo();
    else if (event.key === "q") form.querySelector("[data-ask]")?.click();
    else if (event.key === "s") {
      const menu = form.querySelector("details.skip");
      if (menu) { menu.open = true; menu.querySelector("button").focus(); }
    } else if (event.key === "g" || event.key === "m") open("guidelines");
    else if (event.key === "?") open("keys");
    else if (event.key === "p" && letters.length > 1) compareWords();
    else done = false;
    if (done) event.preventDefault();
  });

  if ($("news")) { $("news").close(); $("news").showModal(); }
  begin(slot.querySelector("form.slot"));
  if (outbox.waiting().some((item) => item.undo || item.uid === form.dataset.uid)) waitingForNext = "judge";
  flush();
})();
