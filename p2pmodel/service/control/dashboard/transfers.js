// The cards of the transfers. What they show comes from outside, and goes in as text only.

import { ask } from "./api.js";
import { counts, rows } from "./peers.js";
import { decode, draw, tally } from "./pieces.js";
import { bytes, counted, duration, percent, rate } from "./units.js";

const SOURCES = { cache: "from_cache", peers: "from_peers", mirrors: "from_mirrors" };
const ORDER = ["active", "queued", "paused", "failed", "seeding", "ready"];
const OFFERED = { pause: ["queued", "active", "seeding", "ready"], resume: ["paused", "failed"], cancel: ORDER };
const IN_SWARM = ["active", "seeding"];
const NAMES = { absent: 0, offered: 1 };

const cards = new Map();
let operations = new Set();
let trouble = () => {};

export function setUp(allowed, told) {
  operations = allowed;
  trouble = told;
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

// What it waits for, and which pieces are here: asked only for what is on its way, while somebody looks. So are its
// peers, while their list is open.
export async function lookCloser() {
  const all = [...cards.values()], coming = all.filter((card) => !card.view.complete);
  const open = all.filter((card) => card.met.open && !card.met.hidden);
  await Promise.all([...coming.flatMap((card) => [why(card), pieces(card)]), ...open.map(peers)]);
}

export function redraw() {
  for (const card of cards.values()) if (card.kinds) draw(card.canvas, card.kinds);
}

function add(id) {
  const root = document.getElementById("transfer").content.firstElementChild.cloneNode(true);
  const find = (selector) => root.querySelector(selector);
  const card = { id, root, view: null, kinds: null, find, canvas: find("canvas"), met: find(".met") };
  for (const button of root.querySelectorAll("button")) {
    button.addEventListener("click", () => operate(card, button));
  }
  card.met.addEventListener("toggle", () => { if (card.met.open) peers(card); });
  cards.set(id, card);
  return card;
}

async function operate(card, button) {
  const operation = button.dataset.operation;
  if (operation === "cancel" && !window.confirm(`Forget ${card.view.repo}? Its files stay.`)) return;
  button.disabled = true;
  try {
    const view = await ask(`transfers/${encodeURIComponent(card.id)}/${operation}`, "POST");
    trouble("");
    if (operation !== "cancel" && cards.has(card.id)) update(view);
  } catch (error) {
    trouble(`${card.view.repo}: ${error.message}`);
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
    button.hidden = !operations.has(operation) || !OFFERED[operation].includes(view.state);
    button.setAttribute("aria-label", `${button.textContent} ${view.repo}`);
  }
  card.met.hidden = !IN_SWARM.includes(view.state);
  card.met.querySelector("summary").textContent = counts(view.progress.peers);
  showBar(card, view);
  find(".figures").textContent = figures(view).join(" · ");
  if (view.complete) find(".map").hidden = true;
  if (view.error) tell(card, view.error.message, view.error.hint);
  else if (view.complete) find(".why").hidden = true;
}

function showBar(card, view) {
  const bar = card.find(".bar"), { progress } = view;
  // What was complete when the node started is all from the cache, and need not be counted again.
  const total = progress.total || view.size, done = view.complete ? total : progress.done;
  const value = view.complete ? 100 : percent(done, total);
  const sources = Object.entries(SOURCES).map(([source, field]) => [source, progress[field]]);
  const known = sources.reduce((sum, [, count]) => sum + count, 0);
  for (const [source, count] of sources) {
    const share = view.complete && !known ? Number(source === "cache") : total ? count / total : 0;
    card.find(`.bar .${source}`).style.width = `${100 * Math.min(share, 1)}%`;
  }
  bar.setAttribute("aria-valuenow", String(value));
  bar.setAttribute("aria-label", `${view.repo}: bytes that are here and verified`);
  const parts = sources.filter(([, count]) => count).map(([source, count]) => `${bytes(count)} from ${source}`);
  bar.setAttribute("aria-valuetext", [`${value} %`, ...parts].join(", "));
  bar.title = parts.join(", ");
}

function figures(view) {
  const { progress } = view, total = progress.total || view.size, said = [];
  if (total && view.complete) said.push(bytes(total));
  else if (total) said.push(`${percent(progress.done, total)} %`, `${bytes(progress.done)} of ${bytes(total)}`);
  if (!view.complete && view.state === "active") said.push(progress.phase);
  if (view.rate) said.push(rate(view.rate));
  if (view.eta !== null) said.push(`${duration(view.eta)} left`);
  if (progress.peers) said.push(counted(progress.peers, "peer"));
  if (progress.uploaded) said.push(`${bytes(progress.uploaded)} sent`);
  if (progress.rejected) said.push(`${counted(progress.rejected, "piece")} failed their check`);
  if (view.complete && view.completion && view.timings) {
    const came = view.completion.from_peers + view.completion.from_mirrors;
    if (came) said.push(`came in ${duration(view.timings.total)}`);
  }
  return said;
}

async function why(card) {
  try {
    const found = await ask(`transfers/${encodeURIComponent(card.id)}/why`);
    if (cards.get(card.id) !== card || card.view.error || card.view.complete) return;
    const near = found.ratio === null ? "" : ` (${Math.round(100 * found.ratio)} % of it used)`;
    tell(card, found.what + near, found.advice);
  } catch { /* gone, or the stream says so */ }
}

function tell(card, what, advice) {
  const line = card.find(".why"), bold = document.createElement("b");
  bold.textContent = what;
  line.replaceChildren(bold, advice ? ` – ${advice}` : "");
  line.hidden = !what;
}

async function pieces(card) {
  try {
    const found = await ask(`transfers/${encodeURIComponent(card.id)}/pieces`);
    if (cards.get(card.id) !== card || card.view.complete) return;
    const map = card.find(".map");
    map.hidden = !found.count;
    if (!found.count) return;
    card.kinds = decode(found);
    const counts = tally(card.kinds), missing = counts[NAMES.absent] + counts[NAMES.offered];
    const caption = `${found.count - missing} of ${counted(found.count, "piece")} here, `
      + `${counts[NAMES.offered]} more with connected peers`;
    map.querySelector("figcaption").textContent = caption;
    card.canvas.setAttribute("aria-label", `Piece map of ${card.view.repo}: ${caption}`);
    draw(card.canvas, card.kinds);
  } catch { /* gone, or the stream says so */ }
}

async function peers(card) {
  try {
    const found = await ask(`transfers/${encodeURIComponent(card.id)}/peers`);
    card.met.querySelector("tbody").replaceChildren(...rows(found));
    card.met.querySelector(".scroll").hidden = !found.length;
    card.met.querySelector(".nobody").hidden = found.length > 0;
  } catch { /* gone, or the stream says so */ }
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
