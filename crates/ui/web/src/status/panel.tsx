// Beside the chat: what its model does right now.

import { MODES, bytes, shortName } from "../lib/format";
import { chosen } from "../lib/installed";
import { useShared } from "../lib/signal";
import { latest, loaded } from "../lib/watch";
import { Legend, Meter, StackedBar } from "../parts/bars";
import { ExpertsMap } from "./experts";
import { LoadBar } from "./loading";
import { Facts, Headline, Work, tiersOf } from "./model";

export function LivePanel({ model: name }: { model: string }) {
  const status = useShared(latest);
  useShared(chosen);
  const model = loaded(status, name);
  const memory = status?.machine.memory;
  return (
    <aside class="panel" aria-label="What the model does">
      {model ? (
        <>
          <header>
            <h2>{shortName(model.name)}</h2>
            <p class="muted small">{MODES[model.mode] ?? model.mode}</p>
          </header>
          <Headline model={model} />
          <Facts model={model} />
          <Work model={model} />
          <h3>Where it is</h3>
          <StackedBar label="Where the model is" segments={tiersOf(model)} />
          <Legend segments={tiersOf(model)} />
          {model.experts && !model.mode.includes("full") && (
            <>
              <h3>Experts</h3>
              <ExpertsMap model={model} />
            </>
          )}
        </>
      ) : (
        <header>
          <h2>{name ? shortName(name) : "No model"}</h2>
          {status?.loading ? (
            <>
              <p class="muted small">Loading {shortName(status.loading.name)}…</p>
              <LoadBar loading={status.loading} />
            </>
          ) : (
            <p class="muted small">Not in memory yet: the first message loads it.</p>
          )}
        </header>
      )}
      {memory && (
        <>
          <h3>
            Memory <span class="muted">{bytes(memory.held_bytes)} of {bytes(memory.budget_bytes)}</span>
          </h3>
          <Meter label="Memory of all models, of the budget" value={memory.held_bytes / Math.max(memory.budget_bytes, 1)} kind="ram" />
        </>
      )}
    </aside>
  );
}
