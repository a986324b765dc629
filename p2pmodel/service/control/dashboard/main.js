// The entry module: one stream of events for the transfers, requests every few seconds for the rest.

import { ApiError, call, keepToken, watch } from "./api.js";
import * as limits from "./limits.js";
import * as tables from "./tables.js";
import * as transfers from "./transfers.js";

const RETRY = 2000, SLOW = 3000, CLOSE = 1000;

const byId = (id) => document.getElementById(id);
const pause = (time) => new Promise((resolve) => { setTimeout(resolve, time); });

function setLink(state, text = state) {
  byId("link").dataset.state = state;
  byId("link").textContent = text;
}

function showError(text) {
  byId("error").textContent = text;
  byId("error").hidden = !text;
}

function promptForToken(message) {
  byId("login").hidden = false;
  byId("login-error").textContent = message;
  byId("token").focus();
  return new Promise((resolve) => {
    byId("login").addEventListener("submit", (event) => {
      event.preventDefault();
      keepToken(byId("token").value.trim());
      byId("token").value = "";
      byId("login").hidden = true;
      resolve();
    }, { once: true });
  });
}

// Buttons and the form are shown for operations in the node's OpenAPI document; a read-only node has none.
async function load() {
  const [node, document_] = await Promise.all([call("node"), call("openapi.json")]);
  byId("node").textContent = `${node.version} · peers connect to ${node.peer_address}`;
  byId("node").title = node.cache_dir;
  const offered = ["pause", "resume", "cancel"].filter((name) => `/api/v1/transfers/{id}/${name}` in document_.paths);
  transfers.setUp(new Set(offered), showError);
  limits.setUp("put" in (document_.paths["/api/v1/limits"] ?? {}));
}

async function follow() {
  await watch("events", () => {
    transfers.clear();
    tables.totals([]);
    setLink("live");
    refresh();
  }, (kind, value) => {
    if (kind === "gone") transfers.remove(value);
    else transfers.update(value);
    tables.totals(transfers.views());
  });
}

async function live() {
  let prompted = false;
  for (;;) {
    try {
      await load();
      prompted = false;
      await follow();
      setLink("lost", "the node has stopped; trying again");
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) {
        setLink("lost", "token required");
        await promptForToken(prompted ? "Wrong token." : "");
        prompted = true;
        continue;
      }
      setLink("lost", error instanceof ApiError ? error.message : "the node does not answer; trying again");
    }
    await pause(RETRY);
  }
}

const refresh = () => Promise.allSettled([
  tables.mirrors(), limits.refresh(), tables.swarms(), tables.rollouts(), tables.followLists(),
]);

// A hidden tab sends no requests.
async function every(time, update) {
  for (;;) {
    await pause(time);
    if (!document.hidden && byId("link").dataset.state === "live") await update();
  }
}

byId("no-transfers").hidden = true;
window.addEventListener("resize", transfers.redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", transfers.redraw);
live();
every(SLOW, refresh);
every(CLOSE, transfers.refreshDetails);
