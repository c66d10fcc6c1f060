// Conversations: in this browser (IndexedDB), nowhere else. Export and import are one JSON file.

import { Shared } from "./signal";

export interface Attachment {
  name: string;
  /** MIME type. */
  type: string;
  /** Base64. */
  data: string;
}

/** What an answer cost. */
export interface Figures {
  prompt_tokens: number;
  cached_tokens: number;
  tokens: number;
  tokens_per_s: number | null;
  prompt_s: number;
  total_s: number;
  reason: string;
}

export interface Message {
  id: string;
  role: "user" | "assistant";
  text: string;
  thinking?: string;
  thinking_s?: number;
  attachments?: Attachment[];
  model?: string;
  figures?: Figures;
  error?: string;
}

export interface Conversation {
  id: string;
  title: string;
  created: number;
  changed: number;
  model: string;
  system: string;
  temperature: number | null;
  think: boolean | null;
  messages: Message[];
}

const DATABASE = "hypura";
const STORE = "conversations";
const FORMAT = "hypura-conversations-1";

export const conversations = new Shared<Conversation[]>([]);

/** Not `randomUUID`, which browsers have on secure origins alone. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function newConversation(model: string): Conversation {
  const now = Date.now();
  return {
    id: newId(),
    title: "New chat",
    created: now,
    changed: now,
    model,
    system: "",
    temperature: null,
    think: null,
    messages: [],
  };
}

let opened: Promise<IDBDatabase> | null = null;

function database(): Promise<IDBDatabase> {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened;
}

function finished<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function store(mode: IDBTransactionMode): Promise<IDBObjectStore> {
  return (await database()).transaction(STORE, mode).objectStore(STORE);
}

/** Reads them all. A browser that keeps nothing (private windows of some) begins with none. */
export async function load(): Promise<void> {
  try {
    const all = (await finished((await store("readonly")).getAll())) as Conversation[];
    show(all);
  } catch (error) {
    console.warn("conversations are not kept in this browser", error);
  }
}

function show(all: Conversation[]): void {
  conversations.set([...all].sort((one, other) => other.changed - one.changed));
}

export function find(id: string): Conversation | undefined {
  return conversations.value.find((conversation) => conversation.id === id);
}

/** Shows a change at once; `keep` writes it, too. While an answer comes only its end is written. */
export function put(conversation: Conversation, keep = true): void {
  show([conversation, ...conversations.value.filter((other) => other.id !== conversation.id)]);
  if (keep) void write(conversation);
}

async function write(conversation: Conversation): Promise<void> {
  try {
    await finished((await store("readwrite")).put(conversation));
  } catch (error) {
    console.warn("a conversation could not be kept", error);
  }
}

export async function remove(id: string): Promise<void> {
  conversations.set(conversations.value.filter((other) => other.id !== id));
  try {
    await finished((await store("readwrite")).delete(id));
  } catch {
    // It was not kept.
  }
}

export function exported(some: Conversation[]): Blob {
  const text = JSON.stringify({ format: FORMAT, conversations: some }, null, 1);
  return new Blob([text], { type: "application/json" });
}

/** Takes conversations from a file, beside those that are here. Returns how many. */
export async function imported(text: string): Promise<number> {
  const file = JSON.parse(text) as { format?: unknown; conversations?: unknown };
  if (file.format !== FORMAT || !Array.isArray(file.conversations)) {
    throw new Error("this file has no conversations of Hypura");
  }
  const some = file.conversations.map(read);
  for (const conversation of some) put(conversation);
  return some.length;
}

const text = (value: unknown, otherwise = ""): string => (typeof value === "string" ? value : otherwise);
const number = (value: unknown, otherwise: number): number =>
  typeof value === "number" && Number.isFinite(value) ? value : otherwise;

/** A file may say anything: only what has the right form is taken. */
function read(value: Record<string, unknown>): Conversation {
  const messages = Array.isArray(value.messages) ? value.messages : [];
  return {
    id: newId(),
    title: text(value.title, "Imported chat").slice(0, 200),
    created: number(value.created, Date.now()),
    changed: number(value.changed, Date.now()),
    model: text(value.model),
    system: text(value.system),
    temperature: typeof value.temperature === "number" ? value.temperature : null,
    think: typeof value.think === "boolean" ? value.think : null,
    messages: messages.map(readMessage),
  };
}

function readMessage(value: Record<string, unknown>): Message {
  const message: Message = {
    id: newId(),
    role: value.role === "assistant" ? "assistant" : "user",
    text: text(value.text),
  };
  if (typeof value.thinking === "string") message.thinking = value.thinking;
  if (typeof value.model === "string") message.model = value.model;
  if (Array.isArray(value.attachments)) {
    message.attachments = value.attachments.map((one: Record<string, unknown>) => ({
      name: text(one.name, "file"),
      type: /^(image|audio)\/[\w.+-]+$/.test(text(one.type)) ? text(one.type) : "image/png",
      data: text(one.data).replace(/[^A-Za-z0-9+/=]/g, ""),
    }));
  }
  return message;
}

/** The first words of a conversation, for the list. */
export function titleOf(text: string): string {
  const line = text.trim().split("\n")[0] ?? "";
  return line.length > 60 ? `${line.slice(0, 57).trimEnd()}…` : line || "New chat";
}
