// Numbers with units, for display and from input.

const UNITS = ["bytes", "kB", "MB", "GB", "TB", "PB"];

export function bytes(count) {
  let value = count, unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) { value /= 1000; unit += 1; }
  const digits = unit === 0 || value >= 99.5 ? 0 : value >= 9.95 ? 1 : 2;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

// The byte count of "50 MB", "64KiB", "1.5g" or a plain number, 0 for an empty text or "none"; NaN for other texts.
export function parse(text) {
  const found = /^(\d{1,15}(?:\.\d{1,9})?) ?(?:([kmgt])(i?)b?|b|bytes)?(?:\/s)?$/i.exec(text.trim());
  if (!text.trim() || text.trim() === "none") return 0;
  if (!found) return NaN;
  const power = " kmgt".indexOf((found[2] ?? " ").toLowerCase());
  return Math.round(Number(found[1]) * (found[3] ? 1024 : 1000) ** power);
}

export const rate = (count) => (count ? `${bytes(count)}/s` : "0");

export const limit = (count) => (count ? rate(count) : "none");

export function duration(seconds) {
  if (seconds < 1) return "less than a second";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

export const milliseconds = (seconds) => `${(1000 * seconds).toFixed(seconds < 0.01 ? 1 : 0)} ms`;

export const counted = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

// Less than 100 until everything is done.
export const percent = (done, total) => (total ? Math.floor(100 * Math.min(done / total, 1)) : 0);
