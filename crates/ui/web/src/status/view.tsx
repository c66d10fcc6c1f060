// The machine and all loaded models.

import { bytes, count, percent, rate, seconds, shortName } from "../lib/format";
import { useShared } from "../lib/signal";
import type { StatusDocument } from "../lib/types";
import { latest, trouble } from "../lib/watch";
import { Legend, Meter, StackedBar, type Segment } from "../parts/bars";
import { LoadBar } from "./loading";
import { ModelCard } from "./model";

const KINDS = ["t0", "t1", "t2", "t3"];

/** Rates that were measured beside other programs are too low, and so is what follows from them. */
export function Disturbed({ share }: { share: number | null | undefined }) {
  if (!share || share <= 0.1) return null;
  return (
    <p class="note small">
      Other programs used {percent(share)} of the processor when this machine was measured, so what is predicted is too low:{" "}
      <code>hypura profile --refresh</code> when they are done.
    </p>
  );
}

function Machine({ status }: { status: StatusDocument }) {
  const { memory, processors, disk } = status.machine;
  const held: Segment[] = status.models.map((model, index) => ({
    name: shortName(model.name),
    value: model.tiers.RAM,
    kind: KINDS[index % KINDS.length]!,
  }));
  return (
    <section class="card" aria-label="This machine">
      <header class="row">
        <h2>This machine</h2>
        <span class="muted small">up {seconds(status.uptime_s)} · Hypura {status.version}</span>
      </header>
      <h3>
        Memory <span class="muted">{bytes(memory.held_bytes)} of {bytes(memory.budget_bytes)} that models may use</span>
      </h3>
      <StackedBar label="Memory that models hold, of the budget" segments={held} whole={memory.budget_bytes} />
      <Legend segments={[...held, { name: "free", value: Math.max(memory.budget_bytes - memory.held_bytes, 0), kind: "free" }]} />
      <dl class="facts">
        <div>
          <dt>RAM</dt>
          <dd>{bytes(memory.limit_bytes ?? memory.total_bytes)}</dd>
        </div>
        <div>
          <dt>Available</dt>
          <dd>{bytes(memory.available_bytes)}</dd>
        </div>
        <div>
          <dt>Disk, in order</dt>
          <dd>{rate(disk?.sequential_bytes_per_s)}</dd>
        </div>
        <div>
          <dt>Disk, at random</dt>
          <dd>{rate(disk?.random_bytes_per_s)}</dd>
        </div>
      </dl>
      <h3>
        Processors <span class="muted">{processors.count}, {percent(processors.busy)} busy{processors.model ? ` · ${processors.model}` : ""}</span>
      </h3>
      <Meter label="Processors busy" value={processors.busy} />
      <Disturbed share={status.machine.others_share} />
      {!status.machine.disk && (
        <p class="note small">
          This machine was not measured, so no speed is predicted: run <code>hypura profile</code> once.
        </p>
      )}
      <dl class="facts">
        <div>
          <dt>Requests</dt>
          <dd>{count(status.requests.total)}</dd>
        </div>
        <div>
          <dt>At work</dt>
          <dd>{count(status.requests.active)}</dd>
        </div>
        <div>
          <dt>Wait for a model</dt>
          <dd>{count(status.requests.waiting_for_a_model)}</dd>
        </div>
        <div>
          <dt>Failed</dt>
          <dd>{count(status.requests.failed)}</dd>
        </div>
      </dl>
    </section>
  );
}

export function LiveView() {
  const status = useShared(latest);
  const problem = useShared(trouble);
  return (
    <main class="view live" id="main" tabIndex={0} aria-label="Live">
      <h1>Live</h1>
      {problem && <p class="problem" role="alert">{problem}</p>}
      {status && (
        <div class="cards">
          <Machine status={status} />
          <div class="models">
          {status.loading && (
            <section class="card">
              <h2>Loading {shortName(status.loading.name)}…</h2>
              <LoadBar loading={status.loading} />
            </section>
          )}
          {status.models.map((model) => (
            <ModelCard key={model.name} model={model} />
          ))}
          {status.models.length === 0 && !status.loading && (
            <section class="card empty">
              <h2>No model is loaded</h2>
              <p class="muted">The first message to one loads it.</p>
            </section>
          )}
          </div>
        </div>
      )}
    </main>
  );
}
