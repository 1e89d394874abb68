// A check's result as Markdown for a driver's or a browser's bug tracker.

import { error as nmse } from "./figures.js";
import { features as words } from "./words.js";

/** Rows beyond this say no more about a driver than those before. */
const SHOWN = 60;

const code = (text) => `\`${String(text).replaceAll("`", "'")}\``;
const cell = (text) => String(text).replaceAll("|", "\\|").replace(/\s+/g, " ");

/**
 * @param {{ adapter: object, rows: { name: string, nmse: number, failure: string | null }[], profile: string,
 *   complete: boolean, agent: string, version?: string }} found
 */
export function bugReport({ adapter, rows, profile, complete, agent, version }) {
  const failed = rows.filter((row) => row.failure);
  const features = words(adapter);
  const limits = Object.entries(adapter.limits ?? {}).map(([name, value]) => `${name} ${Array.isArray(value) ? value.join("×") : value}`);
  const subgroup = adapter.subgroup ? `${adapter.subgroup.min} to ${adapter.subgroup.max} lanes` : null;
  const lines = [
    "### anygpu check: WebGPU compute kernels against CPU references",
    "",
    `- Adapter: ${code(adapter.name ?? "unknown")}${adapter.isCpu ? ", a processor that stands in for a GPU" : ""}`,
    `- Browser: ${agent}`,
    `- Features: ${features.length > 0 ? features.join(", ") : "none"}`,
    subgroup && `- Subgroups: ${subgroup}`,
    limits.length > 0 && `- Limits: ${limits.join(", ")}`,
    `- Profile: ${profile}`,
    version && `- anygpu: ${version}`,
    `- Result: ${rows.length - failed.length} of ${rows.length} cases pass${complete ? "" : "; the run was not finished"}`,
  ];
  if (failed.length > 0) {
    lines.push("", "| case | NMSE | failure |", "|---|---:|---|");
    lines.push(...failed.slice(0, SHOWN).map((row) => `| ${cell(row.name)} | ${nmse(row.nmse)} | ${cell(row.failure)} |`));
    if (failed.length > SHOWN) lines.push("", `${failed.length - SHOWN} more fail.`);
  }
  return `${lines.filter((line) => typeof line === "string").join("\n")}\n`;
}
