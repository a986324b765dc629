// The piece map: a grid of cells, each for some pieces, in the colour of their source.

const CELL = 9, GAP = 1, ROWS = 4;

const raw = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const bit = (field, piece) => (field[piece >> 3] >> (7 - (piece & 7))) & 1;

export function decode(view) {
  const have = raw(view.have), cache = raw(view.from_cache), mirrors = raw(view.from_mirrors);
  const near = raw(view.availability);
  const kinds = new Uint8Array(view.count);
  for (let piece = 0; piece < view.count; piece += 1) {
    if (!bit(have, piece)) kinds[piece] = near[piece] ? 1 : 0;
    else kinds[piece] = bit(cache, piece) ? 2 : bit(mirrors, piece) ? 4 : 3;
  }
  return kinds;
}

// The number of pieces of each kind: absent, offered, cache, peers, mirrors.
export function countKinds(kinds) {
  const found = [0, 0, 0, 0, 0];
  for (const kind of kinds) found[kind] += 1;
  return found;
}

export function draw(canvas, kinds) {
  const width = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
  if (!width) return;
  const height = ROWS * CELL;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d"), style = getComputedStyle(canvas);
  const colours = ["absent", "offered", "cache", "peers", "mirrors"].map((name) => style.getPropertyValue(`--${name}`));
  pen.scale(ratio, ratio);
  const columns = Math.max(1, Math.floor(width / CELL)), cells = Math.min(columns * ROWS, kinds.length);
  const across = Math.ceil(cells / ROWS), step = width / across;
  for (let cell = 0; cell < cells; cell += 1) {
    const first = Math.floor((cell * kinds.length) / cells), last = Math.floor(((cell + 1) * kinds.length) / cells);
    const found = countKinds(kinds.subarray(first, last)), here = found[2] + found[3] + found[4];
    const kind = here ? 2 + found.slice(2).indexOf(Math.max(...found.slice(2))) : found[1] ? 1 : 0;
    pen.globalAlpha = 1;
    pen.fillStyle = colours[found[1] ? 1 : 0];
    const x = Math.floor(cell / ROWS) * step, y = (cell % ROWS) * CELL;
    pen.fillRect(x, y, step - GAP, CELL - GAP);
    if (!here) continue;
    pen.globalAlpha = here / (last - first);
    pen.fillStyle = colours[kind];
    pen.fillRect(x, y, step - GAP, CELL - GAP);
  }
}
