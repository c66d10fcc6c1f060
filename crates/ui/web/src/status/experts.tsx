// Layers × experts, as a picture: what is in memory, what was used lately, what the last token used.

import { useEffect, useRef, useState } from "preact/hooks";
import { experts } from "../lib/api";
import { theme } from "../lib/theme";
import { useShared } from "../lib/signal";
import type { ExpertsDocument, LoadedModel } from "../lib/types";

const BUSY_MS = 1000;
const IDLE_MS = 4000;

/** The latest map, asked for while this is shown. */
function useMap(model: LoadedModel): ExpertsDocument | null {
  const [map, setMap] = useState<ExpertsDocument | null>(null);
  const busy = model.state !== "idle";
  useEffect(() => {
    const control = new AbortController();
    let timer: ReturnType<typeof setTimeout>;
    const ask = async () => {
      if (!document.hidden) {
        await experts(model.name, control.signal).then(setMap, () => {});
      }
      if (!control.signal.aborted) timer = setTimeout(() => void ask(), busy ? BUSY_MS : IDLE_MS);
    };
    void ask();
    return () => {
      control.abort();
      clearTimeout(timer);
    };
  }, [model.name, busy]);
  return map;
}

export function ExpertsMap({ model }: { model: LoadedModel }) {
  const map = useMap(model);
  const canvas = useRef<HTMLCanvasElement>(null);
  const scheme = useShared(theme);
  const layers = map?.layers ?? null;
  const columns = layers?.[0]?.experts.length ?? 0;
  useEffect(() => {
    if (canvas.current && layers) draw(canvas.current, layers);
  }, [map, scheme]);
  if (!layers || columns === 0) return null;
  const all = layers.reduce((sum, row) => sum + row.experts.length, 0);
  const of = (digits: string) =>
    layers.reduce((sum, row) => sum + [...row.experts].filter((digit) => digits.includes(digit)).length, 0);
  const [inMemory, lately, now] = [of("123"), of("23"), of("3")];
  const share = Math.round((inMemory / all) * 100);
  return (
    <figure class="experts">
      <canvas
        ref={canvas}
        role="img"
        aria-label={`${layers.length} layers of ${columns} experts: ${share}% in memory, ${lately} used lately, ${now} by the last token`}
      />
      <figcaption>
        <span><i class="dot x3" />last token <b>{now}</b></span>
        <span><i class="dot x2" />last 32 <b>{lately - now}</b></span>
        <span><i class="dot x1" />in memory <b>{inMemory - lately}</b></span>
        <span><i class="dot x0" />on disk <b>{all - inMemory}</b></span>
      </figcaption>
    </figure>
  );
}

/** A cell for each expert: layers are columns where there are more experts than layers, so that it lies flat. */
function draw(canvas: HTMLCanvasElement, layers: { experts: string }[]): void {
  const rows = layers.length;
  const columns = Math.max(...layers.map((row) => row.experts.length));
  const width = canvas.clientWidth || 320;
  const scale = window.devicePixelRatio || 1;
  const cell = Math.max(2, Math.min(14, Math.floor(width / columns)));
  const height = Math.max(4, Math.min(cell, 10)) * rows;
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  if (!context) return;
  context.scale(scale, scale);
  context.clearRect(0, 0, width, height);
  const style = getComputedStyle(canvas);
  const colours = ["--x0", "--x1", "--x2", "--x3"].map((name) => style.getPropertyValue(name).trim());
  const [dx, dy] = [width / columns, height / rows];
  const gap = dx >= 5 ? 1 : dx >= 3 ? 0.5 : 0;
  layers.forEach((row, y) => {
    [...row.experts].forEach((digit, x) => {
      context.fillStyle = colours[Number(digit)] ?? "transparent";
      context.fillRect(x * dx, y * dy, dx - gap, dy - (dy >= 4 ? 1 : 0));
    });
  });
}
