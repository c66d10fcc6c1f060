// Where in the page one is: #/chat, #/chat/ID, #/live, #/plan, #/plan/MODEL.

import { Shared } from "./signal";

export interface Route {
  view: "chat" | "live" | "plan";
  id: string;
}

function read(): Route {
  const [, view = "", id = ""] = location.hash.split("/");
  let decoded = "";
  try {
    decoded = decodeURIComponent(id);
  } catch {
    // Somebody typed it.
  }
  return { view: view === "live" || view === "plan" ? view : "chat", id: decoded };
}

export const route = new Shared<Route>(read());

addEventListener("hashchange", () => route.set(read()));

export function go(view: Route["view"], id = ""): void {
  location.hash = id ? `/${view}/${encodeURIComponent(id)}` : `/${view}`;
}
