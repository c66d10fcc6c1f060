// Numbers for people. What is not known is a dash, never a zero.

const DASH = "–";

/** Powers of 1024, as memory is counted. */
export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) return DASH;
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${digits(value)} ${units[unit]}`;
}

/** Powers of 1000, as disks are sold. */
export function rate(value: number | null | undefined): string {
  if (value === null || value === undefined) return DASH;
  const units = ["B/s", "kB/s", "MB/s", "GB/s", "TB/s"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${digits(value)} ${units[unit]}`;
}

/** Three digits, as far as they mean something. */
export function digits(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return DASH;
  if (value === 0) return "0";
  if (value >= 99.95) return Math.round(value).toLocaleString("en");
  if (value >= 9.995) return value.toFixed(1);
  return value.toFixed(2);
}

export function percent(value: number | null | undefined): string {
  return value === null || value === undefined ? DASH : `${Math.round(value * 100)}%`;
}

export function count(value: number): string {
  return value.toLocaleString("en");
}

/** A time that is left or was taken. */
export function seconds(value: number | null | undefined): string {
  if (value === null || value === undefined) return DASH;
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 90) return `${Math.round(value)} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  return `${Math.floor(value / 3600)} h ${Math.round((value % 3600) / 60)} min`;
}

/** A name without what all of them have. */
export function shortName(name: string): string {
  return name.replace(/:latest$/, "");
}

export const MODES: Record<string, string> = {
  "full-resident": "all in memory",
  "expert-streaming": "experts stream",
  "table-streaming": "tables stream",
  "dense-streaming": "weights stream",
  "mixed-streaming": "experts and weights stream",
};

export const BOUNDS: Record<string, string> = {
  disk: "reading from the disk",
  compute: "multiplying weights",
  sync: "dispatching work to threads",
  link: "links to workers",
};
