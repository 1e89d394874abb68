import type { Engine } from "./index.js";

export interface ChatMessage {
  role: "system" | "developer" | "user" | "assistant" | "tool";
  content: string | null | { type: "text"; text: string }[];
}

/** Parameters of OpenAI's chat completions. One that this engine does not have rejects with "Unsupported". */
export interface ChatCompletionRequest {
  messages: ChatMessage[];
  model?: string;
  stream?: boolean;
  stream_options?: { include_usage?: boolean };
  max_tokens?: number | null;
  max_completion_tokens?: number | null;
  /** 1 unless said otherwise, as OpenAI's. */
  temperature?: number | null;
  top_p?: number | null;
  /** Beyond OpenAI's: 0 keeps all. */
  top_k?: number | null;
  /** Beyond OpenAI's: 0 keeps all. */
  min_p?: number | null;
  seed?: number | null;
  stop?: string | string[] | null;
  [parameter: string]: unknown;
}

export type FinishReason = "stop" | "length";

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details: { cached_tokens: number };
}

export interface ChatCompletion {
  id: string;
  object: "chat.completion";
  created: number;
  model: string;
  choices: {
    index: number;
    message: { role: "assistant"; content: string; refusal: null };
    logprobs: null;
    finish_reason: FinishReason;
  }[];
  usage: Usage;
}

export interface ChatCompletionChunk {
  id: string;
  object: "chat.completion.chunk";
  created: number;
  model: string;
  choices: {
    index: number;
    delta: { role?: "assistant"; content?: string };
    logprobs: null;
    finish_reason: FinishReason | null;
  }[];
  usage?: Usage | null;
}

export interface ChatCompletions {
  create(
    body: ChatCompletionRequest & { stream: true },
    options?: { signal?: AbortSignal },
  ): Promise<AsyncIterable<ChatCompletionChunk>>;
  create(
    body: ChatCompletionRequest & { stream?: false },
    options?: { signal?: AbortSignal },
  ): Promise<ChatCompletion>;
}

/**
 * An engine behind the shapes of OpenAI's chat completions.
 *
 * @example
 * const client = openai(engine);
 * const answer = await client.chat.completions.create({ messages: [{ role: "user", content: "Hello" }], max_tokens: 32 });
 */
export declare function openai(engine: Engine): { chat: { completions: ChatCompletions } };
