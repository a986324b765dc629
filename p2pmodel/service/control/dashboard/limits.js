// What is exchanged at most: shown to everybody, changed where the node lets one.

import { ask } from "./api.js";
import { bytes, limit, parse } from "./units.js";

const WAYS = ["download", "upload"];
const byId = (id) => document.getElementById(id);
const field = (way) => byId(`limit-${way}`);
const written = (count) => (!count ? "" : parse(bytes(count)) === count ? bytes(count) : String(count));

let latest = null;

export function setUp(allowed) {
  byId("change").hidden = !allowed;
}

export async function refresh() {
  show(await ask("limits"));
}

function show(found) {
  latest = found;
  byId("limits").textContent = WAYS.map((way) => limit(found[`${way}_now`])).join(" / ");
  const windows = WAYS.filter((way) => found[`${way}_schedule`].length)
    .map((way) => `${way} ${found[`${way}_schedule`].join("; ")}`);
  byId("schedule").textContent = `By day and hour: ${windows.join(" · ")}`;
  byId("schedule").hidden = !windows.length;
  byId("limiting").hidden = byId("schedule").hidden && byId("change").hidden;
}

function say(text, bad = false) {
  byId("limit-said").textContent = text;
  byId("limit-said").classList.toggle("bad", bad);
}

// What is being written is not written over: the fields are filled when the form opens, and once it was obeyed.
function fill() {
  for (const way of WAYS) {
    field(way).value = latest ? written(latest[way]) : "";
    field(way).removeAttribute("aria-invalid");
  }
}

async function change() {
  const wanted = Object.fromEntries(WAYS.map((way) => [way, parse(field(way).value)]));
  for (const way of WAYS) field(way).setAttribute("aria-invalid", String(Number.isNaN(wanted[way])));
  const wrong = WAYS.find((way) => Number.isNaN(wanted[way]));
  if (wrong) {
    say(`'${field(wrong).value.slice(0, 40)}' is no rate: write 50 MB, or nothing for no limit`, true);
    field(wrong).focus();
    return;
  }
  try {
    show(await ask("limits", "PUT", wanted));
    fill();
    say("Set.");
  } catch (error) {
    say(error.message, true);
  }
}

byId("change").addEventListener("toggle", () => {
  fill();
  say("");
});
byId("change").querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  change();
});
