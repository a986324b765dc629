// The cards of the transfers. Their values come from the network and are inserted as text only, never as HTML.

import { call } from "./api.js";
import { counts, rows } from "./peers.js";
import { countKinds, decode, draw } from "./pieces.js";
import { bytes, counted, duration, percent, rate } from "./units.js";

const SOURCES = { cache: "from_cache", peers: "from_peers", mirrors: "from_mirrors" };
const ORDER = ["active", "queued", "paused", "failed", "seeding", "ready"];
const OFFERED = { pause: ["queued", "active", "seeding", "ready"], resume: ["paused", "failed"], cancel: ORDER };
const IN_SWARM = ["active", "seeding"];
const NAMES = { absent: 0, offered: 1 };

const cards = new Map();
let operations = new Set();
let showError = () => {};

export function setUp(allowed, onError) {
  operations = allowed;
  showError = onError;
  for (const card of cards.values()) show(card, card.view);
}

export function update(view) {
  const card = cards.get(view.id) ?? add(view.id);
  show(card, view);
  arrange();
}

export function remove(id) {
  cards.get(id)?.root.remove();
  cards.delete(id);
  arrange();
}

export function clear() {
  for (const id of [...cards.keys()]) remove(id);
}

export const views = () => [...cards.values()].map((card) => card.view);

// Requests the diagnosis and the piece map of incomplete transfers, and the peers of each open list.
export async function refreshDetails() {
  const all = [...cards.values()], incomplete = all.filter((card) => !card.view.complete);
  const open = all.filter((card) => card.peers.open && !card.peers.hidden);
  await Promise.all([...incomplete.flatMap((card) => [why(card), pieces(card)]), ...open.map(peers)]);
}

export function redraw() {
  for (const card of cards.values()) if (card.kinds) draw(card.canvas, card.kinds);
}

function add(id) {
  const root = document.getElementById("transfer").content.firstElementChild.cloneNode(true);
  const find = (selector) => root.querySelector(selector);
  const card = { id, root, view: null, kinds: null, find, canvas: find("canvas"), peers: find(".connections") };
  for (const button of root.querySelectorAll("button")) {
    button.addEventListener("click", () => operate(card, button));
  }
  card.peers.addEventListener("toggle", () => { if (card.peers.open) peers(card); });
  cards.set(id, card);
  return card;
}

async function operate(card, button) {
  const operation = button.dataset.operation;
  if (operation === "cancel" && !window.confirm(`Remove the transfer of ${card.view.repo}? Its files stay.`)) return;
  button.disabled = true;
  try {
    const view = await call(`transfers/${encodeURIComponent(card.id)}/${operation}`, "POST");
    showError("");
    if (operation !== "cancel" && cards.has(card.id)) update(view);
  } catch (error) {
    showError(`${card.view.repo}: ${error.message}`);
  }
  button.disabled = false;
  if (button.hidden) card.find("button:not([hidden])")?.focus();
}

function show(card, view) {
  card.view = view;
  const { find } = card;
  const name = view.revisions.length ? view.revisions.join(", ") : view.commit.slice(0, 8);
  card.root.dataset.state = view.state;
  card.root.dataset.id = view.id;
  const title = find("h3"), revision = document.createElement("small");
  revision.textContent = `@${name}`;
  revision.title = view.commit;
  title.replaceChildren(view.repo, revision);
  find(".state").textContent = view.state;
  for (const button of card.root.querySelectorAll("button")) {
    const operation = button.dataset.operation;
    const isOffered = OFFERED[operation].includes(view.state) || (operation === "resume" && view.awaits_window);
    button.hidden = !operations.has(operation) || !isOffered;
    button.setAttribute("aria-label", `${button.textContent} ${view.repo}`);
  }
  card.peers.hidden = !IN_SWARM.includes(view.state);
  card.peers.querySelector("summary").textContent = counts(view.progress.peers);
  showBar(card, view);
  find(".figures").textContent = figures(view).join(" · ");
  if (view.complete) find(".map").hidden = true;
  if (view.error) showReason(card, view.error.message, view.error.hint);
  else if (view.complete) find(".why").hidden = true;
}

function showBar(card, view) {
  const bar = card.find(".bar"), { progress } = view;
  // A snapshot that was complete when the node started has no counts by source: all of it is from the cache.
  const total = progress.total || view.size, done = view.complete ? total : progress.done;
  const value = view.complete ? 100 : percent(done, total);
  const sources = Object.entries(SOURCES).map(([source, field]) => [source, progress[field]]);
  const known = sources.reduce((sum, [, count]) => sum + count, 0);
  for (const [source, count] of sources) {
    const share = view.complete && !known ? Number(source === "cache") : total ? count / total : 0;
    card.find(`.bar .${source}`).style.width = `${100 * Math.min(share, 1)}%`;
  }
  bar.setAttribute("aria-valuenow", String(value));
  bar.setAttribute("aria-label", `${view.repo}: verified bytes`);
  const parts = sources.filter(([, count]) => count).map(([source, count]) => `${bytes(count)} from ${source}`);
  bar.setAttribute("aria-valuetext", [`${value} %`, ...parts].join(", "));
  bar.title = parts.join(", ");
}

function figures(view) {
  const { progress } = view, total = progress.total || view.size, texts = [];
  if (total && view.complete) texts.push(bytes(total));
  else if (total) texts.push(`${percent(progress.done, total)} %`, `${bytes(progress.done)} of ${bytes(total)}`);
  if (!view.complete && view.state === "active") texts.push(progress.phase);
  if (view.awaits_window) texts.push("its window is closed");
  if (view.rate) texts.push(rate(view.rate));
  if (view.eta !== null) texts.push(`${duration(view.eta)} left`);
  if (progress.peers) texts.push(counted(progress.peers, "peer"));
  if (progress.uploaded) texts.push(`${bytes(progress.uploaded)} sent`);
  if (progress.rejected) texts.push(`${counted(progress.rejected, "piece")} failed verification`);
  if (view.complete && view.completion && view.timings) {
    const received = view.completion.from_peers + view.completion.from_mirrors;
    if (received) texts.push(`downloaded in ${duration(view.timings.total)}`);
  }
  if (view.complete) texts.push(...gates(view));
  return texts;
}

// What engines reported: what goes on now, else how long after the files each gate was passed.
function gates(view) {
  const { files, loaded, answered } = view.gates;
  if (view.engine === "loading") return ["an engine loads it"];
  if (view.engine === "failed") return ["an engine could not load it"];
  const after = (name, time) => (files === null ? name : `${name} ${duration(Math.max(0, time - files))} later`);
  return [["loaded", loaded], ["first token", answered]].filter(([, time]) => time !== null).map((gate) => after(...gate));
}

async function why(card) {
  try {
    const found = await call(`transfers/${encodeURIComponent(card.id)}/why`);
    if (cards.get(card.id) !== card || card.view.error || card.view.complete) return;
    const near = found.ratio === null ? "" : ` (${Math.round(100 * found.ratio)} % of it used)`;
    showReason(card, found.what + near, found.advice);
  } catch { /* the transfer is gone, or the stream reports the error */ }
}

function showReason(card, what, advice) {
  const line = card.find(".why"), bold = document.createElement("b");
  bold.textContent = what;
  line.replaceChildren(bold, advice ? ` – ${advice}` : "");
  line.hidden = !what;
}

async function pieces(card) {
  try {
    const found = await call(`transfers/${encodeURIComponent(card.id)}/pieces`);
    if (cards.get(card.id) !== card || card.view.complete) return;
    const map = card.find(".map");
    map.hidden = !found.count;
    if (!found.count) return;
    card.kinds = decode(found);
    const counts = countKinds(card.kinds), missing = counts[NAMES.absent] + counts[NAMES.offered];
    const caption = `${found.count - missing} of ${counted(found.count, "piece")} verified, `
      + `${counts[NAMES.offered]} more at connected peers`;
    map.querySelector("figcaption").textContent = caption;
    card.canvas.setAttribute("aria-label", `Piece map of ${card.view.repo}: ${caption}`);
    draw(card.canvas, card.kinds);
  } catch { /* the transfer is gone, or the stream reports the error */ }
}

async function peers(card) {
  try {
    const found = await call(`transfers/${encodeURIComponent(card.id)}/peers`);
    card.peers.querySelector("tbody").replaceChildren(...rows(found));
    card.peers.querySelector(".scroll").hidden = !found.length;
    card.peers.querySelector(".no-peers").hidden = found.length > 0;
  } catch { /* the transfer is gone, or the stream reports the error */ }
}

function arrange() {
  const place = document.getElementById("transfers"), rank = (card) => ORDER.indexOf(card.view.state);
  const wanted = [...cards.values()].sort((a, b) => rank(a) - rank(b) || b.view.added - a.view.added);
  const focused = document.activeElement;
  wanted.forEach((card, index) => {
    if (place.children[index] !== card.root) place.insertBefore(card.root, place.children[index] ?? null);
  });
  if (focused !== document.activeElement && place.contains(focused)) focused.focus();
  document.getElementById("no-transfers").hidden = cards.size > 0;
}
