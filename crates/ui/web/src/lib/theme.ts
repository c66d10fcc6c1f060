// Light, dark, or as the system has it.

import { Shared } from "./signal";

export type Theme = "system" | "light" | "dark";
const NAME = "hypura.theme";

export const theme = new Shared<Theme>(remembered());

function remembered(): Theme {
  try {
    const kept = localStorage.getItem(NAME);
    return kept === "light" || kept === "dark" ? kept : "system";
  } catch {
    return "system";
  }
}

export function apply(next: Theme): void {
  theme.set(next);
  if (next === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem(NAME, next);
  } catch {
    // It holds for as long as the page is open.
  }
}
