// The server's status, twice a second while something happens, less often otherwise, and never while nobody looks.

import { ApiError, status } from "./api";
import { running } from "./answer";
import { Shared } from "./signal";
import type { LoadedModel, StatusDocument } from "./types";

const BUSY_MS = 500;
const IDLE_MS = 2000;
/** Points of each curve: two minutes at twice a second. */
const MOST_POINTS = 240;

export const latest = new Shared<StatusDocument | null>(null);
/** Why there is none. */
export const trouble = new Shared<string | null>(null);

/** Speeds of answers so far, by model: null where none was being written. */
const curves = new Map<string, (number | null)[]>();

export function curve(model: string): (number | null)[] {
  return curves.get(model) ?? [];
}

let timer: ReturnType<typeof setTimeout> | undefined;
let asking = false;

/** Asks now, and from then on as often as it is worth. */
export async function refresh(): Promise<void> {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    const document = await status();
    note(document);
    latest.set(document);
    trouble.set(null);
  } catch (error) {
    trouble.set(error instanceof ApiError ? error.message : "The server does not answer.");
  } finally {
    asking = false;
    schedule();
  }
}

function schedule(): void {
  clearTimeout(timer);
  if (document.hidden) return;
  const busy = running.value.size > 0 || latest.value?.loading || latest.value?.models.some((model) => model.state !== "idle");
  timer = setTimeout(() => void refresh(), busy ? BUSY_MS : IDLE_MS);
}

function note(document: StatusDocument): void {
  for (const model of document.models) {
    const points = curves.get(model.name) ?? [];
    points.push(model.state === "generating" ? (model.decode?.tokens_per_s ?? null) : null);
    if (points.length > MOST_POINTS) points.shift();
    curves.set(model.name, points);
  }
}

export function start(): void {
  document.addEventListener("visibilitychange", () => void (document.hidden ? clearTimeout(timer) : refresh()));
  running.subscribe(() => void refresh());
  void refresh();
}

/** The loaded model of a name. */
export function loaded(document: StatusDocument | null, name: string): LoadedModel | undefined {
  const full = name.includes(":") ? name : `${name}:latest`;
  return document?.models.find((model) => model.name === name || model.name === full);
}
