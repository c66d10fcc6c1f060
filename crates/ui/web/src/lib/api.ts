// The server: one place that speaks HTTP, brings the key, and knows the shapes of answers.

import { getKey } from "./key";
import type { ExpertsDocument, ModelEntry, ModelShow, PlanDocument, StatusDocument } from "./types";

/** What the server refused, in its own words. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** Called whenever the server wants its key, or another one than it got. */
let onUnauthorized: () => void = () => {};

export function whenUnauthorized(callback: () => void): void {
  onUnauthorized = callback;
}

async function send(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  const key = getKey();
  if (key) headers.set("Authorization", `Bearer ${key}`);
  const response = await fetch(path, { ...init, headers, cache: "no-store" });
  if (response.ok) return response;
  if (response.status === 401) onUnauthorized();
  throw new ApiError(response.status, await messageOf(response));
}

async function messageOf(response: Response): Promise<string> {
  const text = await response.text().catch(() => "");
  try {
    const body = JSON.parse(text);
    const error = body.error?.message ?? body.error;
    if (typeof error === "string") return error;
  } catch {
    // Not JSON: the text itself is all there is.
  }
  return text.slice(0, 300) || `the server answered ${response.status}`;
}

async function json<T>(path: string, init?: RequestInit): Promise<T> {
  return (await send(path, init)).json() as Promise<T>;
}

export const status = (signal?: AbortSignal) => json<StatusDocument>("/api/hypura/status", { signal });

export const experts = (model: string, signal?: AbortSignal) =>
  json<ExpertsDocument>(`/api/hypura/experts?model=${encodeURIComponent(model)}`, { signal });

export async function models(): Promise<ModelEntry[]> {
  return (await json<{ models: ModelEntry[] }>("/api/tags")).models;
}

export const show = (model: string) =>
  json<ModelShow>("/api/show", { method: "POST", body: JSON.stringify({ model }) });

/** What a plan is asked for; what is absent is as the server would have it. */
export interface WhatIf {
  memory_bytes?: number;
  context_tokens?: number;
  disk_bytes_per_s?: number;
  prompt_tokens?: number;
  /** Another one than the file's, like `Q8_0`. */
  quantization?: string;
}

export function plan(model: string, whatIf: WhatIf = {}, signal?: AbortSignal): Promise<PlanDocument> {
  const query = new URLSearchParams({ model });
  for (const [name, value] of Object.entries(whatIf)) {
    if (value !== undefined) query.set(name, typeof value === "number" ? String(Math.round(value)) : value);
  }
  return json<PlanDocument>(`/api/hypura/plan?${query}`, { signal });
}

/** A quantisation in the repository of a model. */
export interface Quantization {
  quantization: string;
  bytes: number;
}

/** Those of the repository that a model came from; null where it came from none, or that cannot be asked. */
export async function quantizations(model: string, signal?: AbortSignal): Promise<Quantization[] | null> {
  const query = new URLSearchParams({ model });
  return (await json<{ quantizations: Quantization[] | null }>(`/api/hypura/quantizations?${query}`, { signal })).quantizations;
}

/** A message as the server takes it. */
export interface ChatMessage {
  role: "system" | "user" | "assistant";
  content: string;
  images?: string[];
}

export interface ChatRequest {
  model: string;
  messages: ChatMessage[];
  think?: boolean;
  options?: Record<string, number>;
}

/** A piece of an answer, or its end. */
export interface ChatPiece {
  message?: { content?: string; thinking?: string };
  done: boolean;
  done_reason?: string;
  error?: string;
  total_duration?: number;
  load_duration?: number;
  prompt_eval_count?: number;
  prompt_eval_cached?: number;
  prompt_eval_duration?: number;
  eval_count?: number;
  eval_duration?: number;
}

/** Streams an answer, line by line. */
export async function* chat(request: ChatRequest, signal: AbortSignal): AsyncGenerator<ChatPiece> {
  const response = await send("/api/chat", { method: "POST", body: JSON.stringify(request), signal });
  const reader = response.body!.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    rest += decoder.decode(value, { stream: !done });
    const lines = rest.split("\n");
    rest = done ? "" : (lines.pop() ?? "");
    for (const line of lines) {
      if (!line.trim()) continue;
      const piece = JSON.parse(line) as ChatPiece;
      if (piece.error) throw new ApiError(500, piece.error);
      yield piece;
    }
    if (done) return;
  }
}
