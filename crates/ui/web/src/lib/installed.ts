// Which models are installed, what they can do, and what is predicted of them.

import { models, plan } from "./api";
import { Shared } from "./signal";
import type { ModelEntry, PlanDocument } from "./types";

export const installed = new Shared<ModelEntry[] | null>(null);
export const chosen = new Shared<string>(remembered());

/** Plans as the server would make them now, by name; `null`: there is none. */
export const plans = new Shared<ReadonlyMap<string, PlanDocument | null>>(new Map());

const NAME = "hypura.model";

function remembered(): string {
  try {
    return localStorage.getItem(NAME) ?? "";
  } catch {
    return "";
  }
}

export function choose(name: string): void {
  chosen.set(name);
  try {
    localStorage.setItem(NAME, name);
  } catch {
    // It is chosen for as long as the page is open.
  }
}

export async function loadInstalled(): Promise<void> {
  const all = (await models()).filter((model) => model.capabilities.includes("completion"));
  installed.set(all);
  if (!all.some((model) => model.name === chosen.value)) chosen.set(all[0]?.name ?? "");
}

export function entry(name: string): ModelEntry | undefined {
  return installed.value?.find((model) => model.name === name);
}

export function can(name: string, capability: string): boolean {
  return entry(name)?.capabilities.includes(capability) ?? false;
}

let planning = false;

/** Asks for the plans that are not known yet, one after the other: each is a process of the server. */
export async function planAll(): Promise<void> {
  if (planning) return;
  planning = true;
  try {
    for (const { name } of installed.value ?? []) {
      if (plans.value.has(name)) continue;
      const document = await plan(name).catch(() => null);
      plans.set(new Map(plans.value).set(name, document));
    }
  } finally {
    planning = false;
  }
}
