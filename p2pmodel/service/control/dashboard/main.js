// Joins the parts: one stream of events for the transfers, questions every few seconds for the rest.

import { ask, keepToken, Refused, watch } from "./api.js";
import * as limits from "./limits.js";
import * as tables from "./tables.js";
import * as transfers from "./transfers.js";

const RETRY = 2000, SLOW = 3000, CLOSE = 1000;

const byId = (id) => document.getElementById(id);
const pause = (time) => new Promise((resolve) => { setTimeout(resolve, time); });

function linkIs(state, text = state) {
  byId("link").dataset.state = state;
  byId("link").textContent = text;
}

function trouble(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = !text;
}

function askForToken(told) {
  byId("ask").hidden = false;
  byId("refused").textContent = told;
  byId("token").focus();
  return new Promise((resolve) => {
    byId("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      keepToken(byId("token").value.trim());
      byId("token").value = "";
      byId("ask").hidden = true;
      resolve();
    }, { once: true });
  });
}

// Buttons and the form are there for what the node's own document has: in read-only mode that is nothing.
async function meet() {
  const [node, document_] = await Promise.all([ask("node"), ask("openapi.json")]);
  byId("node").textContent = `${node.version} · peers connect to ${node.peer_address}`;
  byId("node").title = node.cache_dir;
  const offered = ["pause", "resume", "cancel"].filter((name) => `/api/v1/transfers/{id}/${name}` in document_.paths);
  transfers.setUp(new Set(offered), trouble);
  limits.setUp("put" in (document_.paths["/api/v1/limits"] ?? {}));
}

async function follow() {
  await watch("events", () => {
    transfers.clear();
    tables.totals([]);
    linkIs("live");
    refresh();
  }, (kind, value) => {
    if (kind === "gone") transfers.remove(value);
    else transfers.update(value);
    tables.totals(transfers.views());
  });
}

async function live() {
  let asked = false;
  for (;;) {
    try {
      await meet();
      asked = false;
      await follow();
      linkIs("lost", "the node has gone; trying again");
    } catch (error) {
      if (error instanceof Refused && error.status === 401) {
        linkIs("lost", "locked");
        await askForToken(asked ? "That was not it." : "");
        asked = true;
        continue;
      }
      linkIs("lost", error instanceof Refused ? error.message : "the node does not answer; trying again");
    }
    await pause(RETRY);
  }
}

const refresh = () => Promise.allSettled([tables.mirrors(), limits.refresh(), tables.swarms()]);

// Nobody looks at a hidden tab, so nothing is asked for it.
async function every(time, look) {
  for (;;) {
    await pause(time);
    if (!document.hidden && byId("link").dataset.state === "live") await look();
  }
}

byId("no-transfers").hidden = true;
window.addEventListener("resize", transfers.redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", transfers.redraw);
live();
every(SLOW, refresh);
every(CLOSE, transfers.lookCloser);
