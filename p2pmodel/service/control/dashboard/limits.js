// The rate limits: always shown, and a form to change them if the node allows changes.

import { call } from "./api.js";
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
  show(await call("limits"));
}

function show(found) {
  latest = found;
  byId("limits").textContent = WAYS.map((way) => limit(found[`${way}_now`])).join(" / ");
  const windows = WAYS.filter((way) => found[`${way}_schedule`].length)
    .map((way) => `${way} ${found[`${way}_schedule`].join("; ")}`);
  byId("schedule").textContent = `Schedule: ${windows.join(" · ")}`;
  byId("schedule").hidden = !windows.length;
  byId("limiting").hidden = byId("schedule").hidden && byId("change").hidden;
}

function showResult(text, bad = false) {
  byId("limit-result").textContent = text;
  byId("limit-result").classList.toggle("bad", bad);
}

// The fields are filled when the form opens and after a change, so that typed text is not overwritten.
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
    showResult(`'${field(wrong).value.slice(0, 40)}' is not a rate: enter 50 MB, or nothing for no limit`, true);
    field(wrong).focus();
    return;
  }
  try {
    show(await call("limits", "PUT", wanted));
    fill();
    showResult("Limits changed.");
  } catch (error) {
    showResult(error.message, true);
  }
}

byId("change").addEventListener("toggle", () => {
  fill();
  showResult("");
});
byId("change").querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  change();
});
