// Numbers as a person reads them.

const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB"];

/** `1536` is "1.5 KiB". */
export function bytes(count) {
  if (!Number.isFinite(count)) return "unknown";
  let unit = 0;
  let value = count;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : significant(value)} ${UNITS[unit]}`;
}

/** Three significant digits, no exponent, thousands set apart: 0.0123, 1.23, 12.3, 123, 12,300. */
export function significant(value) {
  if (!Number.isFinite(value)) return "–";
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
  return value === 0 ? "0" : Number(value.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });
}

/** Milliseconds: "0.25 ms", "120 ms", "3.2 s", "2 min 5 s". */
export function duration(ms) {
  if (!Number.isFinite(ms)) return "unknown";
  if (ms < 1000) return `${significant(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** "5.8 million", "6.74 billion". */
export function parameters(count) {
  if (!Number.isFinite(count)) return undefined;
  if (count >= 1e9) return `${significant(count / 1e9)} billion`;
  if (count >= 1e6) return `${significant(count / 1e6)} million`;
  return significant(count);
}

/** A normalised mean squared error: "2.1e-8", "0". */
export function error(nmse) {
  if (nmse == null || Number.isNaN(nmse)) return "–";
  return nmse === 0 ? "0" : nmse.toExponential(1);
}

/** What a benchmark row ran, as the native reports name it: "pp512", "tg128 @ d1024 × 8", a kernel's name. */
export function test(row) {
  const tokens = [row.n_prompt > 0 && `pp${row.n_prompt}`, row.n_gen > 0 && `tg${row.n_gen}`].filter(Boolean).join("+");
  const parts = [row.name, tokens, row.n_depth > 0 && `@ d${row.n_depth}`, row.batch > 1 && `× ${row.batch}`];
  return parts.filter(Boolean).join(" ");
}
