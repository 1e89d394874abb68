// What the reader chose, kept in this browser.

const KEY = "anygpu.settings";

/** Every setting: its default, its bounds as the engine has them, and the words beside its field. */
export const SETTINGS = {
  temperature: { value: 0.7, min: 0, max: 5, step: 0.05, label: "Temperature", hint: "0 always takes the likeliest token" },
  topK: { value: 40, min: 0, max: 1000, step: 1, label: "Top k", hint: "0 keeps all tokens" },
  topP: { value: 0.95, min: 0.01, max: 1, step: 0.01, label: "Top p", hint: "1 keeps all" },
  minP: { value: 0.05, min: 0, max: 1, step: 0.01, label: "Min p", hint: "0 keeps all" },
  repetitionPenalty: { value: 1.1, min: 0.1, max: 3, step: 0.05, label: "Repetition penalty", hint: "1 is none" },
  seed: { value: null, min: 0, max: 4294967295, step: 1, label: "Seed", hint: "empty: another each time" },
  maxTokens: { value: 512, min: 1, max: 131072, step: 1, label: "Longest reply", hint: "tokens" },
};

export const NUMBERS = Object.keys(SETTINGS);

function defaults() {
  const values = { system: "" };
  for (const name of NUMBERS) values[name] = SETTINGS[name].value;
  return values;
}

/** Whether a setting can have a value. */
export function allowed(name, value) {
  const { min, max, step, value: standard } = SETTINGS[name];
  if (value === null) return standard === null;
  return Number.isFinite(value) && value >= min && value <= max && (step < 1 || Number.isInteger(value));
}

/** The stored settings; what is missing or out of bounds there is the default. */
export function load() {
  const values = defaults();
  try {
    const stored = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    for (const name of NUMBERS) if (name in stored && allowed(name, stored[name])) values[name] = stored[name];
    if (typeof stored.system === "string") values.system = stored.system;
  } catch {
    // Storage that is switched off or holds something else: the defaults do.
  }
  return values;
}

export const settings = load();

/** Changes settings and keeps them. */
export function save(changes) {
  Object.assign(settings, changes);
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // They hold until the page is closed.
  }
}

export function reset() {
  save(defaults());
}

/** Options for `engine.generate`, with the seed that will be used. */
export function sampling() {
  const { temperature, topK, topP, minP, repetitionPenalty, maxTokens } = settings;
  const seed = settings.seed ?? crypto.getRandomValues(new Uint32Array(1))[0];
  return { temperature, topK, topP, minP, repetitionPenalty, maxTokens, seed };
}
