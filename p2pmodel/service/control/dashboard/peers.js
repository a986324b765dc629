// The peer connections of a transfer as rows of its card.

import { cell, row } from "./tables.js";
import { bytes, counted, rate } from "./units.js";

const FLAGS = {
  D: "downloading from it", d: "interested, but choked by it", U: "uploading to it", u: "it is interested, but choked",
  K: "it unchokes us, not interested", "?": "unchoked, not interested", O: "optimistic unchoke", S: "snubbed",
  I: "incoming connection", X: "found by peer exchange", H: "found by DHT", L: "found on the local network",
  E: "encrypted", e: "encrypted handshake",
};

export const counts = (count) => (count ? counted(count, "peer") : "Peers");

export function rows(connections) {
  return connections.map((peer) => row(
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
