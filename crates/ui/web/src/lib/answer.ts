// One answer at a time in each conversation: asks, adds what comes, and keeps the end.

import { ApiError, chat, type ChatMessage, type ChatPiece } from "./api";
import { find, newId, put, type Conversation, type Figures, type Message } from "./conversations";
import { Shared } from "./signal";

/** Conversations that an answer is being written in, and how to end it. */
export const running = new Shared<ReadonlyMap<string, AbortController>>(new Map());

/** What is read out when something ended. */
export const announcement = new Shared("");

/** Between two renderings of an answer that comes. */
const SHOW_EVERY_MS = 60;

function asked(conversation: Conversation): ChatMessage[] {
  const messages: ChatMessage[] = [];
  if (conversation.system.trim()) messages.push({ role: "system", content: conversation.system });
  for (const { role, text, attachments, error } of conversation.messages) {
    if (error && !text) continue;
    const images = attachments?.map((attachment) => attachment.data);
    messages.push({ role, content: text, ...(images?.length ? { images } : {}) });
  }
  return messages;
}

export function stop(id: string): void {
  running.value.get(id)?.abort();
}

/** Has the last message answered. */
export async function answer(conversation: Conversation): Promise<void> {
  if (running.value.has(conversation.id)) return;
  const control = new AbortController();
  running.set(new Map(running.value).set(conversation.id, control));
  const message: Message = { id: newId(), role: "assistant", text: "", model: conversation.model };
  const began = performance.now();
  let shown = 0;
  const show = (keep: boolean) => {
    const latest = find(conversation.id);
    // It was deleted meanwhile.
    if (!latest) return control.abort();
    const before = latest.messages.filter((other) => other.id !== message.id);
    put({ ...latest, changed: Date.now(), messages: [...before, { ...message }] }, keep);
    shown = performance.now();
  };
  const request = {
    model: conversation.model,
    messages: asked(conversation),
    ...(conversation.think === null ? {} : { think: conversation.think }),
    ...(conversation.temperature === null ? {} : { options: { temperature: conversation.temperature } }),
  };
  try {
    show(false);
    for await (const piece of chat(request, control.signal)) {
      add(message, piece, began);
      if (piece.done || performance.now() - shown >= SHOW_EVERY_MS) show(piece.done);
    }
    announcement.set("The answer is complete.");
  } catch (error) {
    if (control.signal.aborted) {
      announcement.set("Stopped.");
    } else {
      message.error = error instanceof ApiError ? error.message : `The server cannot be reached: ${String(error)}`;
      announcement.set(message.error);
    }
  } finally {
    const left = new Map(running.value);
    left.delete(conversation.id);
    running.set(left);
    if (find(conversation.id)) show(true);
  }
}

function add(message: Message, piece: ChatPiece, began: number): void {
  const { content = "", thinking = "" } = piece.message ?? {};
  if (thinking) message.thinking = (message.thinking ?? "") + thinking;
  if (content) {
    if (message.thinking && message.thinking_s === undefined) {
      message.thinking_s = (performance.now() - began) / 1000;
    }
    message.text += content;
  }
  if (piece.done) message.figures = figures(piece);
}

function figures(piece: ChatPiece): Figures {
  const [tokens, nanos] = [piece.eval_count ?? 0, piece.eval_duration ?? 0];
  return {
    prompt_tokens: piece.prompt_eval_count ?? 0,
    cached_tokens: piece.prompt_eval_cached ?? 0,
    tokens,
    tokens_per_s: nanos > 0 ? tokens / (nanos / 1e9) : null,
    prompt_s: (piece.prompt_eval_duration ?? 0) / 1e9,
    total_s: (piece.total_duration ?? 0) / 1e9,
    reason: piece.done_reason ?? "",
  };
}
