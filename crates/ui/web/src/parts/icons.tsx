// Icons of one stroke, drawn for a square of 20. They are decoration: what a control does, its label says.

const PATHS = {
  plus: "M10 4v12M4 10h12",
  send: "M10 16V4M5 9l5-5 5 5",
  stop: "M6 6h8v8H6z",
  copy: "M8 8h8v8H8zM12 8V4H4v8h4",
  edit: "M4 16l1-4 8-8 3 3-8 8zM11 6l3 3",
  again: "M16 10a6 6 0 1 1-2-4.5M16 3v4h-4",
  trash: "M4 6h12M8 6V4h4v2M6 6l1 10h6l1-10",
  clip: "M14 9l-5 5a3 3 0 0 1-4-4l6-6a2 2 0 0 1 3 3l-6 6a1 1 0 0 1-1.5-1.5L11 7",
  chat: "M4 5h12v9H9l-3 3v-3H4z",
  live: "M3 11h3l2-6 4 10 2-4h3",
  plan: "M4 4h12v3H4zM4 9h8v3H4zM4 14h5v2H4z",
  menu: "M4 6h12M4 10h12M4 14h12",
  close: "M5 5l10 10M15 5L5 15",
  down: "M5 8l5 5 5-5",
  sun: "M10 7a3 3 0 1 0 0 6 3 3 0 0 0 0-6M10 2v2M10 16v2M2 10h2M16 10h2M4.5 4.5l1.4 1.4M14.1 14.1l1.4 1.4M4.5 15.5l1.4-1.4M14.1 5.9l1.4-1.4",
  moon: "M15.5 12.5A6.5 6.5 0 0 1 7.5 4.5a6.5 6.5 0 1 0 8 8z",
  auto: "M4 5h12v8H4zM8 16h4M10 13v3",
  export: "M10 12V3M6 7l4-4 4 4M4 13v3h12v-3",
  import: "M10 3v9M6 8l4 4 4-4M4 13v3h12v-3",
  tune: "M4 7h5M13 7h3M11 5a2 2 0 1 0 0 4 2 2 0 0 0 0-4M4 13h2M10 13h6M8 11a2 2 0 1 0 0 4 2 2 0 0 0 0-4",
  check: "M4 10l4 4 8-8",
  eye: "M2 10s3-5 8-5 8 5 8 5-3 5-8 5-8-5-8-5zM10 8a2 2 0 1 0 0 4 2 2 0 0 0 0-4",
  sound: "M4 8v4h3l4 3V5L7 8zM14 7a4 4 0 0 1 0 6",
  thought: "M10 3a5 5 0 0 0-3 9v2h6v-2a5 5 0 0 0-3-9M8 17h4",
  tool: "M12 4a4 4 0 0 0-4 5l-5 5 3 3 5-5a4 4 0 0 0 5-5l-2 2-3-3z",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 20 20" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}

export function Logo() {
  return (
    <svg class="logo" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <rect class="gpu" x="3" y="3" width="7" height="4.5" rx="1.5" />
      <rect class="ram" x="3" y="9.75" width="12" height="4.5" rx="1.5" />
      <rect class="nvme" x="3" y="16.5" width="18" height="4.5" rx="1.5" />
    </svg>
  );
}
