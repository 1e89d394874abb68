// Writes greedy.json: what the command line writes, natively, with the shipped model at temperature 0. The browser must
// write the same tokens. Run again when the shipped model changes:
//
//     cargo build --release -p anygpu-native && node web/tests/engine/make-greedy.mjs [path of the built anygpu]

import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const program = process.argv[2] ?? `${root}target/release/anygpu`;

/** Objects that the program prints, one a line. */
function run(args, input) {
  const text = execFileSync(program, [...args, "--json", "--temperature", "0"], { input, encoding: "utf8" });
  return text.trim().split("\n").map((line) => JSON.parse(line));
}

const kept = ({ tokens, text, finish, prompt_tokens, prefilled }) => ({ tokens, text, finish, prompt_tokens, prefilled });

const text = "A trait in Rust is";
const questions = ["What is a slice?", "And a Vec?"];
const greedy = {
  model: "anygpu-rust-6m-f16.gguf",
  raw: { prompt: text, maxTokens: 24, ...kept(run(["generate", text, "-n", "24"])[0]) },
  chat: run(["chat", "-n", "16"], `${questions.join("\n")}\n`).map((turn, index) => ({
    question: questions[index],
    maxTokens: 16,
    ...kept(turn),
  })),
};
writeFileSync(new URL("greedy.json", import.meta.url), `${JSON.stringify(greedy, null, 2)}\n`);
