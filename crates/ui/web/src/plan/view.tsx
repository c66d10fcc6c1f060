// The plan of a model: what is where, why, how fast that will be, and what would change it.

import { useEffect, useState } from "preact/hooks";
import { ApiError, plan as ask, quantizations, type Quantization, type WhatIf } from "../lib/api";
import { BOUNDS, MODES, bytes, digits, percent, rate, seconds, shortName } from "../lib/format";
import { chosen, installed } from "../lib/installed";
import { go } from "../lib/route";
import { useShared } from "../lib/signal";
import type { Band, PlanDocument, StatusDocument, TierBytes } from "../lib/types";
import { latest } from "../lib/watch";
import { Legend, StackedBar, type Segment } from "../parts/bars";
import { Disturbed } from "../status/view";
import { Slider } from "./slider";

const SETTLE_MS = 250;
/** The pool of the ledger that is this machine's memory. */
const HOST = 0;

/** The plan with these facts. The one before stays while the next is made. */
function usePlan(model: string, whatIf: WhatIf) {
  const [plan, setPlan] = useState<PlanDocument | null>(null);
  const [problem, setProblem] = useState("");
  const [asking, setAsking] = useState(false);
  const question = JSON.stringify(whatIf);
  useEffect(() => {
    if (!model) return;
    const control = new AbortController();
    setAsking(true);
    const timer = setTimeout(() => {
      ask(model, whatIf, control.signal)
        .then((document) => {
          setPlan(document);
          setProblem("");
        })
        .catch((error) => {
          if (!control.signal.aborted) setProblem(error instanceof ApiError ? error.message : "The server does not answer.");
        })
        .finally(() => !control.signal.aborted && setAsking(false));
    }, SETTLE_MS);
    return () => {
      clearTimeout(timer);
      control.abort();
    };
  }, [model, question]);
  return { plan, problem, asking };
}

/** What is neither here nor on the disk: a GPU of this machine, or other machines; a plan has one of the two. */
function elsewhere(plan: PlanDocument): { name: string; kind: string } {
  const workers = plan.plan.workers.length > 0;
  return workers ? { name: "workers", kind: "worker" } : { name: "GPU", kind: "gpu" };
}

function segments(tier: TierBytes, plan: PlanDocument): Segment[] {
  return [
    { ...elsewhere(plan), value: tier.device_bytes },
    { name: "RAM", value: tier.resident_bytes, kind: "ram" },
    { name: "room in RAM", value: tier.cached_bytes, kind: "cached" },
    { name: "NVMe", value: tier.streamed_bytes - tier.cached_bytes, kind: "nvme" },
  ];
}

function sum(tiers: TierBytes[]): TierBytes {
  const add = (pick: (tier: TierBytes) => number) => tiers.reduce((all, tier) => all + pick(tier), 0);
  return {
    device_bytes: add((tier) => tier.device_bytes),
    resident_bytes: add((tier) => tier.resident_bytes),
    streamed_bytes: add((tier) => tier.streamed_bytes),
    cached_bytes: add((tier) => tier.cached_bytes),
  };
}

function between(band: Band): string {
  return `${digits(band.low)}–${digits(band.high)}`;
}

function Forecast({ plan, was }: { plan: PlanDocument; was: PlanDocument | null }) {
  const { decode, prefill, load_s, missing, assumptions } = plan.prediction;
  const before = was?.prediction.decode?.tokens_per_s.mid;
  const factor = decode && before ? decode.tokens_per_s.mid / before : 1;
  const changed = Math.abs(factor - 1) > 0.005;
  return (
    <section class="card" aria-label="What it will do">
      <h2>What it will do</h2>
      {decode ? (
        <div class="figure">
          <strong class="number" data-testid="plan-speed">{digits(decode.tokens_per_s.mid)}</strong>
          <span class="unit">tok/s</span>
          <span class="muted small">{between(decode.tokens_per_s)}</span>
          {changed && <span class={`chip ${factor > 1 ? "better" : "worse"}`}>× {digits(factor)}</span>}
        </div>
      ) : (
        <p class="note">No speed can be predicted: {missing.join(", ") || "something was not measured"}.</p>
      )}
      {decode && (
        <p>
          Bound by <span class={`chip bound-${decode.bound}`}>{decode.bound}</span>{" "}
          <span class="muted">{BOUNDS[decode.bound]}</span>
        </p>
      )}
      {decode && <TokenTime plan={plan} />}
      <dl class="facts">
        <div>
          <dt>Read per token</dt>
          <dd>{bytes(decode?.read_bytes)}</dd>
        </div>
        <div>
          <dt>Hits</dt>
          <dd>{percent(decode?.hit_rate?.mid)}</dd>
        </div>
        <div>
          <dt>Prompt</dt>
          <dd>
            {digits(prefill?.tokens_per_s.mid)} <span class="muted">tok/s</span>
          </dd>
        </div>
        <div>
          <dt>First token</dt>
          <dd>{seconds(prefill?.first_token_s.mid)}</dd>
        </div>
        <div>
          <dt>Loading</dt>
          <dd>{seconds(load_s?.mid)}</dd>
        </div>
        <div>
          <dt>At most</dt>
          <dd>
            {digits(decode?.roofline_tokens_per_s)} <span class="muted">tok/s</span>
          </dd>
        </div>
      </dl>
      <Disturbed share={plan.profile.others_share} />
      {assumptions.map((text) => (
        <p key={text} class="muted small">
          Assumed: {text}
        </p>
      ))}
    </section>
  );
}

/** Where the time of one token goes. Reading overlaps with the rest. */
function TokenTime({ plan }: { plan: PlanDocument }) {
  const decode = plan.prediction.decode;
  if (!decode) return null;
  const rows: [string, number, string][] = [
    ["reading", decode.read_s, "nvme"],
    ["multiplying", decode.compute_s, "m-compute"],
    ["dispatching", decode.sync_s, "m-other"],
    ...(decode.link_s > 0 ? [["on links", decode.link_s, "worker"] as [string, number, string]] : []),
  ];
  const most = Math.max(...rows.map(([, time]) => time), 1e-9);
  return (
    <table class="times">
      <caption class="visually-hidden">Time of one token; reading overlaps with the rest</caption>
      <tbody>
        {rows.map(([name, time, kind]) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td class="wide">
              <div class="bar thin">
                <span class={`segment ${kind}`} style={{ width: `${(time / most) * 100}%` }} />
              </div>
            </td>
            <td>{digits(time * 1000)} ms</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Places({ plan }: { plan: PlanDocument }) {
  const roles = Object.entries(plan.tiers.roles).sort(([, a], [, b]) => total(b) - total(a));
  const all = sum(roles.map(([, tier]) => tier));
  const largest = Math.max(...roles.map(([, tier]) => total(tier)), 1);
  return (
    <section class="card" aria-label="What is where, and why">
      <h2>What is where, and why</h2>
      <p data-testid="plan-reason">
        <span class="chip">{MODES[plan.plan.mode] ?? plan.plan.mode}</span> {plan.plan.reason}
      </p>
      <StackedBar label="All weights" segments={segments(all, plan)} />
      <Legend segments={segments(all, plan).filter((segment) => segment.value > 0)} />
      <ul class="roles">
        {roles.map(([name, tier]) => (
          <li key={name}>
            <div class="row">
              <b>{name}</b>
              <span class="muted">{bytes(total(tier))}</span>
            </div>
            <div class="role-bar" style={{ width: `${Math.max((total(tier) / largest) * 100, 1)}%` }}>
              <StackedBar label={name} segments={segments(tier, plan)} />
            </div>
            <p class="muted small">{tier.reason}</p>
          </li>
        ))}
      </ul>
      {plan.plan.notes.map((note) => (
        <p key={note} class="note small">{note}</p>
      ))}
    </section>
  );
}

function total(tier: TierBytes): number {
  return tier.device_bytes + tier.resident_bytes + tier.streamed_bytes;
}

function Layers({ plan }: { plan: PlanDocument }) {
  const layers = plan.tiers.layers;
  const largest = Math.max(...layers.map(total), 1);
  return (
    <section class="card" aria-label="Layers">
      <h2>
        Layers <span class="muted">{layers.length}</span>
      </h2>
      <div class="layers" role="img" aria-label="Each layer's weights on the GPU, in memory, and on the disk">
        {layers.map((tier, index) => (
          <div key={index} class="layer" title={`Layer ${index}: ${bytes(total(tier))}, ${bytes(tier.resident_bytes + tier.cached_bytes)} in memory`}>
            {segments(tier, plan)
              .filter(({ value }) => value > 0)
              .reverse()
              .map(({ name, value, kind }) => (
                <span key={name} class={`segment ${kind}`} style={{ height: `${(value / largest) * 100}%` }} />
              ))}
          </div>
        ))}
      </div>
    </section>
  );
}

/** What memory is for, by its purposes in the ledger of a plan. Weights of all kinds are told apart elsewhere. */
const PURPOSES: { name: string; kind: string; of: string[] }[] = [
  { name: "weights", kind: "ram", of: ["weights"] },
  { name: "slots and rings", kind: "m-stream", of: ["slots", "cells", "ring", "rows"] },
  { name: "KV cache", kind: "m-kv", of: ["kv"] },
  { name: "compute", kind: "m-compute", of: ["compute"] },
];

function Memory({ plan }: { plan: PlanDocument }) {
  const { plan: it } = plan;
  // The budget is that of this machine's memory: what a GPU or a worker has is in none of it.
  const here = it.ledger.filter((entry) => entry.pool === HOST);
  const together = here.reduce((all, entry) => all + entry.bytes, 0);
  const known = PURPOSES.map(({ name, kind, of }): Segment => {
    const value = here.reduce((all, entry) => all + (of.includes(entry.purpose) ? entry.bytes : 0), 0);
    return { name, kind, value };
  });
  const rest = known.reduce((left, part) => left - part.value, together);
  const parts: Segment[] = [...known, { name: "other", value: rest, kind: "m-other" }];
  return (
    <section class="card" aria-label="Memory">
      <h2>
        Memory <span class="muted">{bytes(together)} of {bytes(it.budget_bytes)}</span>
      </h2>
      <StackedBar label="Memory of the plan, of the budget" segments={parts} whole={it.budget_bytes} />
      <Legend segments={parts.filter((part) => part.value > 0)} />
      <dl class="facts">
        <div>
          <dt>Least that works</dt>
          <dd>{bytes(it.floor_bytes)}</dd>
        </div>
        <div>
          <dt>Context</dt>
          <dd>
            {it.context_tokens.toLocaleString("en")} <span class="muted">in {it.kv_type}</span>
          </dd>
        </div>
      </dl>
    </section>
  );
}

function Alternatives({ plan }: { plan: PlanDocument }) {
  const known = plan.alternatives.filter((other) => other.decode_tokens_per_s);
  if (known.length === 0) return null;
  return (
    <section class="card" aria-label="What would change it">
      <h2>What would change it</h2>
      <ul class="alternatives">
        {known.map((other) => (
          <li key={other.change} class="row">
            <span>
              {other.change}
              {other.note && <span class="muted">, {other.note}</span>}
            </span>
            <b>
              {digits(other.decode_tokens_per_s!.mid)} tok/s{" "}
              {other.gain_tokens_per_s !== null && (
                <span class={other.gain_tokens_per_s > 0.005 ? "gain" : "muted"}>
                  {other.gain_tokens_per_s >= 0 ? "+" : "−"}
                  {digits(Math.abs(other.gain_tokens_per_s))}
                </span>
              )}
            </b>
          </li>
        ))}
      </ul>
    </section>
  );
}

/** What models are usually quantised to. */
const USUAL = ["IQ2_XXS", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "BF16"];

/** Other quantisations, installed or not: those of the model's repository, otherwise the usual ones. */
function Quantisation({ model, value, onChange }: { model: string; value: string | undefined; onChange: (quantization: string | undefined) => void }) {
  const [listed, list] = useState<Quantization[] | null>(null);
  useEffect(() => {
    const control = new AbortController();
    list(null);
    // Without an answer the usual ones stay.
    quantizations(model, control.signal).then(list, () => {});
    return () => control.abort();
  }, [model]);
  const others = listed?.length
    ? listed.map((it) => ({ name: it.quantization, words: `${it.quantization} · ${bytes(it.bytes)}` }))
    : USUAL.map((name) => ({ name, words: name }));
  return (
    <label class="slider">
      <span class="row">Weights</span>
      <select value={value ?? ""} onChange={(event) => onChange(event.currentTarget.value || undefined)}>
        <option value="">as they are</option>
        {others.map(({ name, words }) => (
          <option key={name} value={name}>
            {words}
          </option>
        ))}
      </select>
    </label>
  );
}

/** About where plans end. The floor of one that has everything in memory is that of everything in memory. */
function leastOf({ plan, model }: PlanDocument): number {
  if (plan.mode !== "full-resident") return plan.floor_bytes;
  return plan.kv_bytes + plan.compute_bytes + plan.process_bytes + plan.media_bytes + plan.draft_bytes + model.bytes / 8;
}

const CONTEXTS = [2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144, 524288, 1048576];

function Questions({
  status,
  base,
  whatIf,
  onChange,
}: {
  status: StatusDocument | null;
  base: PlanDocument;
  whatIf: WhatIf;
  onChange: (whatIf: WhatIf) => void;
}) {
  const budget = status?.machine.memory.budget_bytes ?? base.plan.budget_bytes;
  const disk = status?.machine.disk?.sequential_bytes_per_s ?? null;
  const contexts = CONTEXTS.filter((tokens) => tokens <= Math.max(base.model.context_train, CONTEXTS[0]!));
  const context = whatIf.context_tokens ?? base.plan.context_tokens;
  const nearest = contexts.reduce((best, tokens, index) => (Math.abs(tokens - context) < Math.abs(contexts[best]! - context) ? index : best), 0);
  const floor = Math.max(leastOf(base), 1 << 20);
  const most = Math.max(budget, base.model.bytes * 1.3 + base.plan.kv_bytes + base.plan.compute_bytes + base.plan.process_bytes, floor * 2);
  const set = (changes: WhatIf) => onChange({ ...whatIf, ...changes });
  const changed = Object.values(whatIf).some((value) => value !== undefined);
  return (
    <section class="card what-if" aria-label="What if">
      <header class="row">
        <h2>What if…</h2>
        <button type="button" class="quiet" disabled={!changed} onClick={() => onChange({})}>
          As it is
        </button>
      </header>
      <Slider
        label="Memory for models"
        value={whatIf.memory_bytes ?? budget}
        least={floor}
        most={most}
        here={budget}
        words={bytes}
        onChange={(memory_bytes) => set({ memory_bytes })}
      />
      {disk !== null && (
        <Slider
          label="Speed of the disk"
          value={whatIf.disk_bytes_per_s ?? disk}
          least={Math.min(1e8, disk / 2)}
          most={Math.max(14e9, disk * 2)}
          here={disk}
          words={rate}
          onChange={(disk_bytes_per_s) => set({ disk_bytes_per_s })}
        />
      )}
      <Quantisation model={base.model.name} value={whatIf.quantization} onChange={(quantization) => set({ quantization })} />
      {contexts.length > 1 && (
        <label class="slider">
          <span class="row">
            Context <span class="value">{(whatIf.context_tokens ?? base.plan.context_tokens).toLocaleString("en")} tokens</span>
          </span>
          <input
            type="range"
            min="0"
            max={contexts.length - 1}
            step="1"
            value={nearest}
            aria-valuetext={`${contexts[nearest]} tokens`}
            onInput={(event) => set({ context_tokens: contexts[Number(event.currentTarget.value)] })}
          />
        </label>
      )}
    </section>
  );
}

/** Other quantisations of the same model that are installed. */
function Quants({ name }: { name: string }) {
  const all = useShared(installed) ?? [];
  const family = (model: string) => model.replace(/:[^/:]*$/, "");
  const siblings = all.filter((model) => family(model.name) === family(name));
  if (siblings.length < 2) return null;
  return (
    <label class="inline">
      Quantisation
      <select value={name} onChange={(event) => go("plan", event.currentTarget.value)}>
        {siblings.map((model) => (
          <option key={model.name} value={model.name}>
            {model.details.quantization_level || shortName(model.name)} · {bytes(model.size)}
          </option>
        ))}
      </select>
    </label>
  );
}

export function PlanView({ id }: { id: string }) {
  const all = useShared(installed);
  const preferred = useShared(chosen);
  const status = useShared(latest);
  const name = id || preferred;
  const [whatIf, change] = useState<WhatIf>({});
  useEffect(() => change({}), [name]);
  const base = usePlan(name, {});
  const then = usePlan(name, whatIf);
  const plan = then.plan?.model.name === base.plan?.model.name ? then.plan : base.plan;
  return (
    <main class="view plan" id="main" tabIndex={0} aria-label="Plan">
      <header class="view-head">
        <h1>Plan</h1>
        <label class="inline">
          <span class="visually-hidden">Model</span>
          <select value={name} onChange={(event) => go("plan", event.currentTarget.value)}>
            {(all ?? []).map((model) => (
              <option key={model.name} value={model.name}>
                {shortName(model.name)}
              </option>
            ))}
          </select>
        </label>
        <Quants name={name} />
        <span class="muted small" role="status">{then.asking ? "planning…" : ""}</span>
      </header>
      {(then.problem || base.problem) && (
        <p class="problem" role="alert">
          {then.problem || base.problem}
        </p>
      )}
      {plan && base.plan && (
        <div class={`cards ${then.asking ? "stale" : ""}`}>
          <div class="column">
            <Questions status={status} base={base.plan} whatIf={whatIf} onChange={change} />
            <Forecast plan={plan} was={plan === base.plan ? null : base.plan} />
            <Alternatives plan={plan} />
          </div>
          <div class="column">
            <Places plan={plan} />
            <Memory plan={plan} />
            <Layers plan={plan} />
          </div>
        </div>
      )}
    </main>
  );
}
