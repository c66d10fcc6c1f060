// One loaded model: where it is, how fast it goes, and what holds it up.

import { BOUNDS, MODES, bytes, count, digits, percent, seconds, shortName } from "../lib/format";
import type { LoadedModel, Rates, Slot } from "../lib/types";
import { curve } from "../lib/watch";
import { Curve, Legend, Meter, StackedBar, type Segment } from "../parts/bars";
import { ExpertsMap } from "./experts";

const STATES = { idle: "idle", prompt: "reading the prompt", generating: "writing" } as const;

export function tiersOf(model: LoadedModel): Segment[] {
  return [
    ...(model.tiers.GPU > 0 ? [{ name: "GPU", value: model.tiers.GPU, kind: "gpu" }] : []),
    { name: "RAM", value: model.tiers.RAM, kind: "ram" },
    ...model.workers.map((worker) => ({ name: worker.name, value: worker.bytes, kind: "worker" })),
    { name: "NVMe", value: model.tiers.NVMe, kind: "nvme" },
  ];
}

/** What is measured right now: of the prompt while one is read, otherwise of answers. */
export function ratesOf(model: LoadedModel): Rates | null {
  return model.state === "prompt" ? model.prefill : model.decode;
}

export function Headline({ model }: { model: LoadedModel }) {
  const rates = ratesOf(model);
  const predicted = model.state === "prompt" ? model.predicted?.prefill : model.predicted?.decode;
  return (
    <div class="headline">
      <div class="figure">
        <strong class="number" data-testid="tokens-per-s">{digits(rates?.tokens_per_s)}</strong>
        <span class="unit">tok/s{model.state === "prompt" ? " of the prompt" : ""}</span>
        {predicted && (
          <span class="muted small">
            predicted {digits(predicted.tokens_per_s.low)}–{digits(predicted.tokens_per_s.high)}
          </span>
        )}
      </div>
      <Curve
        points={curve(model.name)}
        band={model.predicted?.decode?.tokens_per_s}
        most={240}
        label="Speed of answers over the last two minutes"
      />
    </div>
  );
}

export function Facts({ model }: { model: LoadedModel }) {
  const rates = ratesOf(model);
  return (
    <dl class="facts">
      <div>
        <dt>Read per token</dt>
        <dd>{bytes(rates?.bytes_per_token)}</dd>
      </div>
      <div>
        <dt>Hit rate</dt>
        <dd>{percent(rates?.hit_rate)}</dd>
      </div>
      <div>
        <dt>Bound by</dt>
        <dd title={rates?.bound ? BOUNDS[rates.bound] : undefined}>
          {rates?.bound ? <span class={`chip bound-${rates.bound}`}>{rates.bound}</span> : "–"}
        </dd>
      </div>
      <div>
        <dt>Context</dt>
        <dd>
          {count(model.context.used_cells)}
          <span class="muted"> / {count(model.context.tokens)}</span>
        </dd>
      </div>
    </dl>
  );
}

function Progress({ slot }: { slot: Slot }) {
  const part = slot.prompt_tokens > 0 ? slot.prompt_done_tokens / slot.prompt_tokens : 0;
  if (slot.state === "prompt") {
    return (
      <li>
        <div class="row">
          <span>
            Prompt <b>{count(slot.prompt_done_tokens)}</b> of {count(slot.prompt_tokens)}
          </span>
          <span class="muted">{slot.prompt_left_s === null ? "" : `${seconds(slot.prompt_left_s)} left`}</span>
        </div>
        <Meter label="Prompt read" value={part} />
      </li>
    );
  }
  return (
    <li>
      <div class="row">
        <span>
          <i class="pulse" />
          Writing <b>{count(slot.generated_tokens)}</b> tokens
        </span>
        <span class="muted">after {count(slot.prompt_tokens)}</span>
      </div>
    </li>
  );
}

export function Work({ model }: { model: LoadedModel }) {
  const busy = model.slots.filter((slot) => slot.state !== "idle");
  return (
    <>
      {busy.length > 0 && (
        <ul class="work" aria-label="Requests at work">
          {busy.map((slot) => (
            <Progress key={slot.request} slot={slot} />
          ))}
        </ul>
      )}
      <p class="muted small">
        {model.active} of {model.parallel} at work, {model.queued} waiting
      </p>
    </>
  );
}

export function ModelCard({ model }: { model: LoadedModel }) {
  const tiers = tiersOf(model);
  const memory: Segment[] = [
    { name: "weights", value: model.memory.weights_bytes, kind: "ram" },
    { name: "streaming", value: model.memory.streaming_bytes, kind: "m-stream" },
    { name: "KV cache", value: model.memory.kv_bytes, kind: "m-kv" },
    { name: "compute", value: model.memory.compute_bytes, kind: "m-compute" },
    { name: "other", value: model.memory.other_bytes, kind: "m-other" },
  ];
  return (
    <section class="card model-card" aria-label={`Model ${shortName(model.name)}`}>
      <header class="row">
        <h2>{shortName(model.name)}</h2>
        <span class={`chip state-${model.state}`}>{STATES[model.state]}</span>
      </header>
      <p class="muted small">
        {model.architecture} · {MODES[model.mode] ?? model.mode} · {bytes(model.file_bytes)} ·{" "}
        {model.threads > 0 ? `${model.threads} threads · ` : ""}loaded in {seconds(model.load_seconds)}
      </p>
      <Headline model={model} />
      <Facts model={model} />
      <Work model={model} />
      <h3>Where it is</h3>
      <StackedBar label="Where the model is" segments={tiers} />
      <Legend segments={tiers} />
      <h3>What its memory holds</h3>
      <StackedBar label="What its memory holds" segments={memory} />
      <Legend segments={memory.filter((segment) => segment.value > 0)} />
      {model.experts && (
        <>
          <h3>
            Experts <span class="muted">{model.experts.used} of {model.experts.per_layer} a token, in {model.experts.layers} layers</span>
          </h3>
          {model.mode.includes("full") ? <p class="muted small">All of them are in memory.</p> : <ExpertsMap model={model} />}
        </>
      )}
      {model.notes.map((note) => (
        <p key={note} class="note small">{note}</p>
      ))}
    </section>
  );
}
