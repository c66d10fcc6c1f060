// Bars and curves. Each says in words what it shows.

import { bytes, digits } from "../lib/format";

export interface Segment {
  name: string;
  value: number;
  /** A class of styles/parts.css that colours it. */
  kind: string;
}

/** Parts of a whole, side by side. */
export function StackedBar({ label, segments, whole }: { label: string; segments: Segment[]; whole?: number }) {
  const sum = segments.reduce((all, segment) => all + segment.value, 0);
  const total = Math.max(whole ?? sum, sum, 1);
  const words = segments.filter(({ value }) => value > 0).map(({ name, value }) => `${name} ${bytes(value)}`);
  return (
    <div class="bar" role="img" aria-label={`${label}: ${words.join(", ") || "nothing"}`}>
      {segments
        .filter(({ value }) => value > 0)
        .map(({ name, value, kind }) => (
          <span key={name} class={`segment ${kind}`} style={{ width: `${(value / total) * 100}%` }} title={`${name}: ${bytes(value)}`} />
        ))}
    </div>
  );
}

export function Legend({ segments }: { segments: Segment[] }) {
  return (
    <ul class="legend">
      {segments.map(({ name, value, kind }) => (
        <li key={name}>
          <i class={`dot ${kind}`} />
          <span>{name}</span>
          <b>{bytes(value)}</b>
        </li>
      ))}
    </ul>
  );
}

/** A share of 1. */
export function Meter({ label, value, kind = "accent" }: { label: string; value: number | null; kind?: string }) {
  const share = Math.min(Math.max(value ?? 0, 0), 1);
  return (
    <div
      class="bar thin"
      role="meter"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={Math.round(share * 100)}
    >
      <span class={`segment ${kind}`} style={{ width: `${share * 100}%` }} />
    </div>
  );
}

const [WIDTH, HEIGHT] = [240, 48];

/** Speeds over the last minutes; `band`: what was predicted. */
export function Curve({
  points,
  band,
  most,
  label,
}: {
  points: (number | null)[];
  band?: { low: number; high: number } | null | undefined;
  most: number;
  label: string;
}) {
  const known = points.filter((point): point is number => point !== null);
  const top = Math.max(...known, band?.high ?? 0, 1e-9) * 1.1;
  const y = (value: number) => HEIGHT - (value / top) * HEIGHT;
  const x = (index: number) => WIDTH - ((points.length - 1 - index) / (most - 1)) * WIDTH;
  const lines: string[] = [];
  let open = false;
  points.forEach((point, index) => {
    if (point !== null) lines.push(`${open ? "L" : "M"}${x(index).toFixed(1)} ${y(point).toFixed(1)}`);
    open = point !== null;
  });
  const last = known.at(-1);
  return (
    <svg
      class="curve"
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      preserveAspectRatio="none"
      role="img"
      aria-label={`${label}${last === undefined ? "" : `, last ${digits(last)} tokens per second`}`}
    >
      {band && <rect class="band" x="0" width={WIDTH} y={y(band.high)} height={Math.max(y(band.low) - y(band.high), 1)} />}
      <path d={lines.join("")} />
    </svg>
  );
}
