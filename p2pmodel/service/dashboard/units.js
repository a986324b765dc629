// Numbers as people read them.

const UNITS = ["bytes", "kB", "MB", "GB", "TB", "PB"];

export function bytes(count) {
  let value = count, unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) { value /= 1000; unit += 1; }
  const digits = unit === 0 || value >= 99.5 ? 0 : value >= 9.95 ? 1 : 2;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
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

// Less than 100 until all is there.
export const percent = (done, total) => (total ? Math.floor(100 * Math.min(done / total, 1)) : 0);
