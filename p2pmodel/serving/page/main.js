// The entry module: follows the startup of the model, then sends messages and shows the answers.

import { answer, ApiError, keepKey, model, startup as readStartup } from "./api.js";
import * as composer from "./composer.js";
import * as conversations from "./conversations.js";
import * as messages from "./messages.js";
import * as startup from "./startup.js";

const STARTING = 500, READY = 5000, RETRY = 2000;
const ENDS = { length: "cut off: the answer reached its bound", stopped: "stopped" };

const byId = (id) => document.getElementById(id);
const pause = (time) => new Promise((resolve) => { setTimeout(resolve, time); });

let current = conversations.fresh(), ready = false, takesPictures = true, running = null;

function setLink(state, text = state) {
  byId("link").dataset.state = state;
  byId("link").textContent = text;
}

function showError(text) {
  byId("error").textContent = text;
  byId("error").hidden = !text;
}

function allow() {
  composer.allow({ ready, takes: takesPictures, busy: running !== null });
}

function promptForKey(message) {
  byId("login").hidden = false;
  byId("login-error").textContent = message;
  byId("key").focus();
  return new Promise((resolve) => {
    byId("login").addEventListener("submit", (event) => {
      event.preventDefault();
      keepKey(byId("key").value.trim());
      byId("key").value = "";
      byId("login").hidden = true;
      resolve();
    }, { once: true });
  });
}

async function identify() {
  let message = "";
  for (;;) {
    try {
      const name = await model();
      byId("model").textContent = name;
      document.title = name;
      return;
    } catch (error) {
      if (!(error instanceof ApiError && error.needsKey)) throw error;
      setLink("lost", "key required");
      await promptForKey(error.status === 403 ? error.message : message);
      message = "Wrong key.";
    }
  }
}

// Polls, since the server may restart, and then starts from the beginning.
async function follow() {
  for (;;) {
    const view = await readStartup();
    startup.show(view);
    ready = view.phase === "ready";
    if (ready) takesPictures = view.takes_images;
    setLink(ready ? "ready" : "starting", view.phase);
    allow();
    await pause(ready ? READY : STARTING);
    while (document.hidden) await pause(STARTING);
  }
}

async function live() {
  for (;;) {
    try {
      await identify();
      await follow();
    } catch (error) {
      ready = false;
      startup.hide();
      allow();
      setLink("lost", error instanceof ApiError ? error.message : "the server does not answer; trying again");
    }
    await pause(RETRY);
  }
}

// What the model gets: texts and pictures; reasoning is not part of the conversation.
function wire(turn) {
  if (turn.role === "assistant") return { role: turn.role, content: turn.text };
  const parts = (turn.pictures ?? []).map((url) => ({ type: "image_url", image_url: { url } }));
  if (turn.text) parts.push({ type: "text", text: turn.text });
  return { role: turn.role, content: parts };
}

async function send(asked) {
  showError("");
  const conversation = current, turn = { role: "assistant", text: "", thinking: "", end: "" };
  const before = conversation.turns.map(wire), askedView = messages.add(asked), view = messages.add(turn);
  running = new AbortController();
  allow();
  messages.busy(view, true);
  try {
    const finish = await answer([...before, wire(asked)], running.signal, (text, isThinking) => {
      if (isThinking) turn.thinking += text;
      else turn.text += text;
      messages.show(view);
    });
    turn.end = ENDS[finish] ?? "";
  } catch (error) {
    if (running.signal.aborted) turn.end = ENDS.stopped;
    else showError(error instanceof ApiError ? error.message : "the server does not answer");
  }
  running = null;
  messages.busy(view, false);
  messages.show(view);
  allow();
  if (turn.text || turn.thinking) await keep(conversation, asked, turn);
  else takeBack(askedView, view, asked);
  byId("message").focus();
}

async function keep(conversation, asked, turn) {
  conversation.turns.push(asked, turn);
  try {
    await conversations.save(conversation);
    await list();
  } catch {
    showError("this browser does not keep the conversation");
  }
}

// A message without an answer is not part of the conversation: it goes back into the form.
function takeBack(askedView, view, asked) {
  messages.drop(askedView);
  messages.drop(view);
  composer.restore(asked);
}

function open(conversation) {
  running?.abort();
  current = conversation;
  messages.clear();
  conversation.turns.forEach(messages.add);
  showError("");
  toggleMenu(false);
  mark();
  byId("message").focus();
}

function mark() {
  for (const item of byId("conversations").children) {
    item.setAttribute("aria-current", String(item.dataset.id === current.id));
  }
}

async function list() {
  const found = await conversations.all();
  byId("conversations").replaceChildren(...found.map((conversation) => {
    const item = byId("conversation").content.firstElementChild.cloneNode(true);
    item.dataset.id = conversation.id;
    item.querySelector(".open").textContent = conversation.title;
    item.querySelector(".open").addEventListener("click", () => open(conversation));
    item.querySelector(".remove").addEventListener("click", async () => {
      if (!window.confirm(`Delete "${conversation.title}"?`)) return;
      await conversations.remove(conversation.id);
      if (conversation.id === current.id) open(conversations.fresh());
      await list();
    });
    return item;
  }));
  mark();
}

function toggleMenu(shown) {
  document.body.classList.toggle("open", shown);
  byId("menu").setAttribute("aria-expanded", String(shown));
}

composer.setUp(send, showError);
byId("stop").addEventListener("click", () => running?.abort());
byId("new").addEventListener("click", () => open(conversations.fresh()));
byId("menu").addEventListener("click", () => toggleMenu(!document.body.classList.contains("open")));
allow();
list().catch(() => showError("this browser does not keep conversations"));
live();
