// An engine behind the shapes of OpenAI's chat completions.

import { failure } from "./errors.js";

/** Parameters that change what is written and that the engine does not have: refused where they ask for something. */
const UNSUPPORTED = {
  n: (value) => value !== 1,
  logprobs: (value) => value === true,
  top_logprobs: (value) => value > 0,
  logit_bias: (value) => Object.keys(value).length > 0,
  frequency_penalty: (value) => value !== 0,
  presence_penalty: (value) => value !== 0,
  tools: (value) => value.length > 0,
  functions: (value) => value.length > 0,
  response_format: (value) => value.type !== "text",
  modalities: (value) => value.some((modality) => modality !== "text"),
  audio: () => true,
};

function text(content, role) {
  if (typeof content === "string") return content;
  if (content === null || content === undefined) return "";
  if (!Array.isArray(content)) throw failure("Shape", `message of ${role}: expected a string or a list of parts as content`);
  return content
    .map((part) => {
      if (part.type !== "text") throw failure("Unsupported", `message part of type ${JSON.stringify(part.type)}: expected text`);
      return part.text;
    })
    .join("");
}

function requestOf(body) {
  for (const [name, asks] of Object.entries(UNSUPPORTED)) {
    const value = body[name];
    if (value !== undefined && value !== null && asks(value)) {
      throw failure("Unsupported", `${name}: found ${JSON.stringify(value)}, which this engine does not have`);
    }
  }
  if (!Array.isArray(body.messages)) throw failure("Shape", "messages: expected a list");
  const messages = body.messages.map(({ role, content }) => ({
    // The newer name of the same role.
    role: role === "developer" ? "system" : role,
    content: text(content, role),
  }));
  const options = {
    // OpenAI's own defaults: the distribution as it is.
    temperature: body.temperature ?? 1,
    topP: body.top_p ?? 1,
    topK: body.top_k ?? 0,
    minP: body.min_p ?? 0,
    maxTokens: body.max_completion_tokens ?? body.max_tokens ?? 0,
    seed: body.seed ?? undefined,
    stop: body.stop ?? undefined,
  };
  return { messages, options };
}

function usageOf(metrics) {
  return {
    prompt_tokens: metrics.promptTokens,
    completion_tokens: metrics.generatedTokens,
    total_tokens: metrics.promptTokens + metrics.generatedTokens,
    prompt_tokens_details: { cached_tokens: Math.max(0, metrics.promptTokens - metrics.prefilledTokens) },
  };
}

/** `{ chat: { completions: { create } } }`, as OpenAI's client has it. */
export function openai(engine) {
  const create = (body, { signal } = {}) => {
    const { messages, options } = requestOf(body);
    const head = {
      id: `chatcmpl-${crypto.randomUUID()}`,
      created: Math.floor(Date.now() / 1000),
      model: body.model ?? engine.info.model.name,
    };
    const generation = engine.generate(messages, { ...options, signal });
    return body.stream ? stream(generation, head, body.stream_options?.include_usage) : whole(generation, head);
  };
  // A promise in every case, so that a refused request rejects as one that fails later does.
  return { chat: { completions: { create: async (body, options) => create(body, options) } } };
}

async function whole(generation, head) {
  let content = "";
  for await (const piece of generation) content += piece;
  const metrics = await generation.metrics;
  const choice = {
    index: 0,
    message: { role: "assistant", content, refusal: null },
    logprobs: null,
    finish_reason: metrics.finish,
  };
  return { ...head, object: "chat.completion", choices: [choice], usage: usageOf(metrics) };
}

async function* chunks(generation, head, includeUsage) {
  const chunk = (delta, finish_reason) => ({
    ...head,
    object: "chat.completion.chunk",
    choices: [{ index: 0, delta, logprobs: null, finish_reason }],
    ...(includeUsage ? { usage: null } : {}),
  });
  yield chunk({ role: "assistant", content: "" }, null);
  for await (const piece of generation) yield chunk({ content: piece }, null);
  const metrics = await generation.metrics;
  yield chunk({}, metrics.finish);
  if (includeUsage) yield { ...head, object: "chat.completion.chunk", choices: [], usage: usageOf(metrics) };
}

function stream(generation, head, includeUsage) {
  return chunks(generation, head, includeUsage);
}
