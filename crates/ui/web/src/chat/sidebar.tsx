// The conversations of this browser, and the way to the other views.

import { useRef, useState } from "preact/hooks";
import { conversations, exported, imported, remove } from "../lib/conversations";
import { announcement, running } from "../lib/answer";
import { go, route, type Route } from "../lib/route";
import { apply, theme, type Theme } from "../lib/theme";
import { useShared } from "../lib/signal";
import { Icon, Logo, type IconName } from "../parts/icons";

export const VIEWS: [Route["view"], IconName, string][] = [
  ["chat", "chat", "Chat"],
  ["live", "live", "Live"],
  ["plan", "plan", "Plan"],
];

const THEMES: Record<Theme, [Theme, IconName, string]> = {
  system: ["light", "auto", "Colours: as the system has them"],
  light: ["dark", "sun", "Colours: light"],
  dark: ["system", "moon", "Colours: dark"],
};

function save(blob: Blob): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `hypura-${new Date().toISOString().slice(0, 10)}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function Footer() {
  const all = useShared(conversations);
  const [next, icon, label] = THEMES[useShared(theme)];
  const picker = useRef<HTMLInputElement>(null);
  const [said, say] = useState("");
  const take = async (file: File | undefined) => {
    if (!file) return;
    try {
      const count = await imported(await file.text());
      say(`${count} imported.`);
    } catch (error) {
      say(error instanceof Error && !(error instanceof SyntaxError) ? error.message : "this file is no JSON");
    }
  };
  return (
    <footer class="sidebar-foot">
      {said && <p class="small muted" role="status">{said}</p>}
      <div class="row">
        <button type="button" class="quiet icon-only" aria-label={label} title={label} onClick={() => apply(next)}>
          <Icon name={icon} />
        </button>
        <span class="grow" />
        <input
          ref={picker}
          type="file"
          hidden
          accept="application/json,.json"
          data-testid="import"
          onChange={(event) => {
            void take(event.currentTarget.files?.[0]);
            event.currentTarget.value = "";
          }}
        />
        <button type="button" class="quiet icon-only" aria-label="Import conversations" title="Import" onClick={() => picker.current?.click()}>
          <Icon name="import" />
        </button>
        <button type="button" class="quiet icon-only" aria-label="Export all conversations" title="Export" disabled={all.length === 0} onClick={() => save(exported(all))}>
          <Icon name="export" />
        </button>
      </div>
    </footer>
  );
}

export function Sidebar({ open, onClose }: { open: boolean; onClose: () => void }) {
  const all = useShared(conversations);
  const { view, id } = useShared(route);
  const writing = useShared(running);
  return (
    <nav class={`sidebar ${open ? "open" : ""}`} aria-label="Hypura">
      <a class="brand" href="#/chat" onClick={onClose}>
        <Logo /> Hypura
      </a>
      <ul class="views">
        {VIEWS.map(([name, icon, label]) => (
          <li key={name}>
            <a href={`#/${name}`} aria-current={view === name ? "page" : undefined} onClick={onClose}>
              <Icon name={icon} /> {label}
            </a>
          </li>
        ))}
      </ul>
      <button
        type="button"
        class="new-chat"
        onClick={() => {
          go("chat");
          onClose();
        }}
      >
        <Icon name="plus" /> New chat
      </button>
      <ul class="conversations" aria-label="Conversations">
        {all.map((conversation) => (
          <li key={conversation.id} class={view === "chat" && conversation.id === id ? "active" : ""}>
            <a href={`#/chat/${conversation.id}`} aria-current={view === "chat" && conversation.id === id ? "page" : undefined} onClick={onClose}>
              {writing.has(conversation.id) && <i class="pulse" />}
              {conversation.title}
            </a>
            <button
              type="button"
              class="quiet icon-only"
              aria-label={`Delete “${conversation.title}”`}
              onClick={() => {
                void remove(conversation.id);
                announcement.set("Deleted.");
                if (conversation.id === id) go("chat");
              }}
            >
              <Icon name="trash" />
            </button>
          </li>
        ))}
      </ul>
      <Footer />
    </nav>
  );
}
