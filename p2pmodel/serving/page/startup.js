// The panel that shows how far the model has come, until it is ready.

import { bytes, counted, duration, percent, rate } from "./units.js";

const PHASES = ["finding", "transferring", "loading", "ready"];
const WORDS = { finding: "looking for the model", loading: "all files are verified; the weights go onto the device" };

const byId = (id) => document.getElementById(id);

export function show(view) {
  const now = PHASES.indexOf(view.phase);
  byId("startup").hidden = view.phase === "ready";
  for (const step of byId("phases").children) {
    const index = PHASES.indexOf(step.dataset.phase);
    step.classList.toggle("done", index < now);
    if (index === now) step.setAttribute("aria-current", "step");
    else step.removeAttribute("aria-current");
  }
  showBar(view);
  byId("figures").textContent = figures(view).join(" · ");
}

export function hide() {
  byId("startup").hidden = true;
}

function showBar(view) {
  const bar = document.querySelector("#startup .bar");
  const { done, total } = view.phase === "loading" && view.load ? view.load : view.transfer;
  const known = total > 0 && (view.phase === "transferring" || Boolean(view.load));
  bar.toggleAttribute("data-unknown", !known);
  bar.firstElementChild.style.width = known ? `${percent(done, total)}%` : "";
  if (known) bar.setAttribute("aria-valuenow", String(percent(done, total)));
  else bar.removeAttribute("aria-valuenow");
}

function figures({ phase, seconds, transfer, load }) {
  const texts = [];
  if (WORDS[phase]) texts.push(WORDS[phase]);
  if (phase === "transferring") {
    texts.push(transfer.step);
    if (transfer.total) texts.push(`${percent(transfer.done, transfer.total)} %`, `${bytes(transfer.done)} of ${bytes(transfer.total)}`);
    if (transfer.rate) texts.push(rate(transfer.rate));
    if (transfer.eta !== null) texts.push(`${duration(transfer.eta)} left`);
    if (transfer.peers) texts.push(counted(transfer.peers, "peer"));
    if (transfer.waiting_for) texts.push(`waiting for ${transfer.waiting_for}`);
  }
  if (load?.total) texts.push(`${bytes(load.done)} of ${bytes(load.total)} on the device`);
  texts.push(`${duration(seconds)} so far`);
  return texts;
}
