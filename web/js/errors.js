// Errors of this package: an `Error` whose `name` is one of the library's kinds.

/** @typedef {"Format"|"Unsupported"|"Shape"|"Adapter"|"OutOfMemory"|"DeviceLost"|"Tokenizer"|"Io"|"Cancelled"} Kind */

const KINDS = new Set([
  "Format", "Unsupported", "Shape", "Adapter", "OutOfMemory", "DeviceLost", "Tokenizer", "Io", "Cancelled",
]);

/** An error of a kind. */
export function failure(name, message) {
  const error = new Error(message);
  error.name = name;
  return error;
}

/** What was thrown, as an error of a kind: an `AbortError` is "Cancelled", anything unknown "Io". */
export function asFailure(thrown) {
  if (thrown instanceof Error && KINDS.has(thrown.name)) return thrown;
  // DOMException is no Error in every browser.
  const name = thrown?.name ?? "Error";
  const message = thrown?.message ?? String(thrown);
  if (name === "AbortError") return failure("Cancelled", "cancelled by the caller");
  return failure("Io", name === "Error" ? message : `${name}: ${message}`);
}

/** Plain data that survives `postMessage`. */
export function packed(thrown) {
  const { name, message } = asFailure(thrown);
  return { name, message };
}

/** Throws "Cancelled" where the signal has fired. */
export function checkSignal(signal) {
  if (signal?.aborted) throw failure("Cancelled", "cancelled by the caller");
}
