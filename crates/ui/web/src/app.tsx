// The page: where one is, and what surrounds it.

import { useEffect, useState } from "preact/hooks";
import { announcement } from "./lib/answer";
import { whenUnauthorized } from "./lib/api";
import { load } from "./lib/conversations";
import { loadInstalled } from "./lib/installed";
import { route } from "./lib/route";
import { useShared } from "./lib/signal";
import { refresh, start } from "./lib/watch";
import { ChatView } from "./chat/view";
import { Sidebar, VIEWS } from "./chat/sidebar";
import { KeyDialog } from "./parts/key";
import { Icon } from "./parts/icons";
import { PlanView } from "./plan/view";
import { LiveView } from "./status/view";

export function App() {
  const { view, id } = useShared(route);
  const said = useShared(announcement);
  const [wantsKey, setWantsKey] = useState(false);
  const [menu, openMenu] = useState(false);
  useEffect(() => {
    whenUnauthorized(() => setWantsKey(true));
    void load();
    start();
    loadInstalled().catch(() => {});
  }, []);
  useEffect(() => {
    document.title = view === "chat" ? "Hypura" : `Hypura · ${view === "live" ? "Live" : "Plan"}`;
  }, [view]);
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => {
        event.preventDefault();
        document.getElementById("main")?.focus();
      }}>
        To the content
      </a>
      <Sidebar open={menu} onClose={() => openMenu(false)} />
      {menu && <div class="veil" onClick={() => openMenu(false)} />}
      {view === "chat" && <ChatView id={id} onMenu={() => openMenu(true)} />}
      {view === "live" && <LiveView />}
      {view === "plan" && <PlanView id={id} />}
      <nav class="tabs" aria-label="Views">
        {VIEWS.map(([name, icon, label]) => (
          <a key={name} href={`#/${name}`} aria-current={view === name ? "page" : undefined}>
            <Icon name={icon} />
            {label}
          </a>
        ))}
      </nav>
      <div class="visually-hidden" aria-live="polite">{said}</div>
      {wantsKey && (
        <KeyDialog
          onClose={() => setWantsKey(false)}
          onDone={() => {
            setWantsKey(false);
            void refresh();
            loadInstalled().catch(() => {});
          }}
        />
      )}
    </>
  );
}
