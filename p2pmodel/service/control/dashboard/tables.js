// The tables of mirrors, swarms, roll-outs and follow lists, refreshed every few seconds, and the cells and rows of all tables.

import { call } from "./api.js";
import { bytes, counted, duration, milliseconds, percent, rate } from "./units.js";

const byId = (id) => document.getElementById(id);

export function cell(text, name = "", note = "") {
  const made = document.createElement("td");
  made.textContent = text;
  made.className = name;
  if (note) {
    const small = document.createElement("small");
    small.textContent = note;
    made.append(small);
  }
  return made;
}

export function row(...cells) {
  const made = document.createElement("tr");
  made.append(...cells);
  return made;
}

const known = (value, shown) => (value === null ? "–" : shown(value));

function stateOf(mirror) {
  const made = cell(
    mirror.state === "unused" ? "not used yet" : mirror.state, "state-cell",
    mirror.state === "healthy" ? "" : mirror.reason,
  );
  made.dataset.state = mirror.state;
  return made;
}

export async function mirrors() {
  const found = await call("mirrors");
  byId("mirrors").replaceChildren(...found.map((mirror) => row(
    cell(mirror.name, "", mirror.endpoint === mirror.name ? "" : mirror.endpoint),
    stateOf(mirror),
    cell(known(mirror.first_byte, milliseconds), "figure"),
    cell(known(mirror.rate, rate), "figure"),
  )));
  byId("no-mirrors").hidden = found.length > 0;
}

export async function swarms() {
  const found = await call("catalog");
  byId("catalog").replaceChildren(...found.map((swarm) => row(
    cell(swarm.repo, "", `${swarm.revisions.join(", ") || swarm.commit.slice(0, 8)} · ${bytes(swarm.size)}`),
    cell(swarm.seeders, "figure"),
    cell(swarm.leechers, "figure"),
    cell(
      swarm.size ? `${(swarm.origin_bytes / swarm.size).toFixed(2)} copies` : "–", "figure",
      swarm.cut_off.length ? `beyond that: ${swarm.cut_off.join(", ")}, without peers` : "",
      swarm.unreachable.length ? `unreachable: ${swarm.unreachable.join(", ")}` : "",
    ),
  )));
  byId("swarms").hidden = !found.length;
}

export async function rollouts() {
  const found = await call("rollouts");
  byId("rollout-rows").replaceChildren(...found.map((each) => row(
    cell(each.repo, "", `${each.id} · ${each.commit.slice(0, 8)}`),
    cell(each.state, "", [...each.failed.map((name) => `${name}: failed`), ...each.slow].join(", ")),
    cell(`${each.passed} of ${each.nodes}`, "figure", each.gate),
    cell(known(each.p50, duration), "figure"),
    cell(known(each.last, duration), "figure"),
    cell(each.origin_copies === null ? "–" : `${each.origin_copies.toFixed(2)} copies`, "figure"),
  )));
  byId("rollouts").hidden = !found.length;
}

function progressOf(list) {
  const sum = (field) => list.snapshots.reduce((total, each) => total + each[field], 0);
  const complete = list.snapshots.filter((each) => each.complete).length;
  if (!list.snapshots.length) return "–";
  if (complete === list.snapshots.length) return "complete";
  return `${complete} of ${counted(list.snapshots.length, "snapshot")} · ${percent(sum("done"), sum("total"))} %`;
}

function windowOf(list) {
  if (!list.window) return "at all times";
  const changes = list.changes === null ? "" : ` for ${duration(list.changes - Date.now() / 1000)}`;
  return `${list.is_open ? "open" : "closed"}${changes}`;
}

export async function followLists() {
  const found = await call("follow");
  byId("follow-rows").replaceChildren(...found.map((list) => row(
    cell(list.repo, "", `${list.revision}${list.include.length ? ` · ${list.include.join(", ")}` : ""}`),
    cell(windowOf(list), "", `${list.window} ${list.zone}`.trim()),
    cell(list.snapshots.map((each) => each.commit.slice(0, 8)).slice(0, 3).join(", ") || "–", "", list.error),
    cell(progressOf(list), "figure"),
  )));
  byId("follow").hidden = !found.length;
}

export function totals(views) {
  const sum = (value) => views.reduce((total, view) => total + value(view), 0);
  byId("total-down").textContent = rate(sum((view) => view.rate));
  byId("total-up").textContent = rate(sum((view) => view.progress.upload_rate));
  byId("total-peers").textContent = String(sum((view) => view.progress.peers));
}
