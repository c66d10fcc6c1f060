// A model that is being loaded: how much of what stays in memory has been read.

import { bytes } from "../lib/format";
import type { Loading } from "../lib/types";
import { Meter } from "../parts/bars";

export function LoadBar({ loading }: { loading: Loading }) {
  const { read_bytes, total_bytes } = loading;
  if (!total_bytes) return <p class="muted small">Being planned, or waiting for memory.</p>;
  return (
    <div class="load">
      <Meter label="Loaded" value={read_bytes / total_bytes} kind="ram" />
      <p class="muted small">
        {bytes(read_bytes)} of {bytes(total_bytes)}
      </p>
    </div>
  );
}
