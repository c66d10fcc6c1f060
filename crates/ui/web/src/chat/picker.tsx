// Which model answers: a list with what is predicted of each.

import { useEffect, useRef, useState } from "preact/hooks";
import { bytes, digits, shortName } from "../lib/format";
import { choose, entry, installed, planAll, plans } from "../lib/installed";
import { useShared } from "../lib/signal";
import type { ModelEntry } from "../lib/types";
import { latest, loaded } from "../lib/watch";
import { Icon, type IconName } from "../parts/icons";

const SENSES: [string, IconName, string][] = [
  ["vision", "eye", "sees pictures"],
  ["audio", "sound", "hears sounds"],
  ["thinking", "thought", "thinks"],
  ["tools", "tool", "calls tools"],
];

function Predicted({ name }: { name: string }) {
  const known = useShared(plans);
  const status = useShared(latest);
  const measured = loaded(status, name)?.decode;
  if (measured) {
    return <span class="speed">{digits(measured.tokens_per_s)} tok/s <small>measured</small></span>;
  }
  const plan = known.get(name);
  if (plan === undefined) return <span class="speed muted">…</span>;
  const decode = plan?.prediction.decode;
  if (!plan) return <span class="speed muted">does not fit</span>;
  if (!decode) return <span class="speed muted">speed unknown</span>;
  return (
    <span class="speed" title={`${digits(decode.tokens_per_s.low)} to ${digits(decode.tokens_per_s.high)}, bound by ${decode.bound}`}>
      ≈ {digits(decode.tokens_per_s.mid)} tok/s
    </span>
  );
}

function Option({ model, active, onPick }: { model: ModelEntry; active: boolean; onPick: () => void }) {
  const status = useShared(latest);
  const senses = SENSES.filter(([name]) => model.capabilities.includes(name));
  return (
    <li role="option" aria-selected={active} id={`model-${model.name}`} class={active ? "active" : ""} onMouseDown={(event) => event.preventDefault()} onClick={onPick}>
      <span class="option-name">
        {loaded(status, model.name) && <i class="dot ram" title="in memory" />}
        {shortName(model.name)}
        {senses.map(([name, icon, title]) => (
          <span key={name} class="sense" title={title}>
            <Icon name={icon} />
          </span>
        ))}
      </span>
      <Predicted name={model.name} />
      <span class="muted small">
        {[model.details.parameter_size, model.details.quantization_level, bytes(model.size)].filter(Boolean).join(" · ")}
      </span>
    </li>
  );
}

export function ModelPicker({ value, onPick }: { value: string; onPick: (name: string) => void }) {
  const all = useShared(installed);
  const [open, setOpen] = useState(false);
  const [at, setAt] = useState(0);
  const list = useRef<HTMLUListElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const models = all ?? [];
  useEffect(() => {
    if (!open) return;
    void planAll();
    setAt(Math.max(models.findIndex((model) => model.name === value), 0));
    list.current?.focus();
    const away = (event: Event) => {
      if (!list.current?.contains(event.target as Node) && !button.current?.contains(event.target as Node)) setOpen(false);
    };
    addEventListener("pointerdown", away);
    return () => removeEventListener("pointerdown", away);
  }, [open]);
  const pick = (name: string) => {
    choose(name);
    onPick(name);
    setOpen(false);
    button.current?.focus();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1, Home: -models.length, End: models.length }[event.key];
    if (step !== undefined) setAt(Math.min(Math.max(at + step, 0), models.length - 1));
    else if (event.key === "Enter" || event.key === " ") pick(models[at]?.name ?? value);
    else if (event.key === "Escape" || event.key === "Tab") {
      setOpen(false);
      button.current?.focus();
    } else return;
    event.preventDefault();
  };
  return (
    <div class="picker">
      <button
        ref={button}
        type="button"
        class="quiet picker-button"
        aria-haspopup="listbox"
        aria-expanded={open}
        data-testid="model-picker"
        onClick={() => setOpen(!open)}
      >
        <span class="picker-name">{value ? shortName(value) : all ? "No model is installed" : "…"}</span>
        <span class="muted small">{entry(value)?.details.quantization_level}</span>
        <Icon name="down" />
      </button>
      {open && (
        <ul
          ref={list}
          role="listbox"
          aria-label="Models"
          aria-activedescendant={models[at] ? `model-${models[at].name}` : undefined}
          tabIndex={0}
          class="options"
          onKeyDown={onKeyDown}
        >
          {models.map((model, index) => (
            <Option key={model.name} model={model} active={index === at} onPick={() => pick(model.name)} />
          ))}
        </ul>
      )}
    </div>
  );
}
