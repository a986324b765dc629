// Whom a transfer exchanges bytes with, as rows of its card.

import { cell, row } from "./tables.js";
import { bytes, counted, rate } from "./units.js";

const FLAGS = {
  D: "we download", d: "we would download, if it let us", U: "it downloads", u: "it would download, if we let it",
  K: "it would let us download", "?": "we would let it download", O: "let optimistically", S: "silent",
  I: "it connected to us", X: "found by peer exchange", H: "found by DHT", L: "found on the local network",
  E: "encrypted", e: "its handshake was encrypted",
};

export const counts = (count) => (count ? counted(count, "peer") : "Peers");

export function rows(met) {
  return met.map((peer) => row(
    cell(peer.address, "", note(peer)),
    cell(`${Math.floor(100 * peer.progress)} %`, "figure"),
    cell(rate(peer.download_rate), "figure"),
    cell(rate(peer.upload_rate), "figure"),
    cell(bytes(peer.downloaded), "figure"),
    cell(bytes(peer.uploaded), "figure"),
    flags(peer.flags),
  ));
}

function note(peer) {
  const program = peer.kind === "seeder" ? "seeder, over HTTP" : peer.client;
  return [program, peer.zone && `zone ${peer.zone}`].filter(Boolean).join(" · ");
}

function flags(letters) {
  const made = cell(letters);
  made.title = [...letters].map((letter) => `${letter}: ${FLAGS[letter] ?? "?"}`).join(", ");
  return made;
}
