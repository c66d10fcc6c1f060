// Shapes of the server's documents: docs/serving.md says what they mean.

export interface Rates {
  tokens_per_s: number;
  bytes_per_token: number | null;
  hit_rate: number | null;
  bound: Bound | null;
}

export type Bound = "disk" | "compute" | "sync" | "link";

export interface Band {
  low: number;
  mid: number;
  high: number;
}

export interface Speed {
  tokens_per_s: Band;
  bytes_per_token: number;
  hit_rate: number | null;
  bound: Bound;
}

export interface Slot {
  request: number | null;
  state: "idle" | "prompt" | "generating";
  cached_tokens: number;
  prompt_tokens: number;
  prompt_done_tokens: number;
  prompt_left_s: number | null;
  generated_tokens: number;
}

export interface LoadedModel {
  name: string;
  architecture: string;
  mode: string;
  state: "idle" | "prompt" | "generating";
  expires_at: string;
  load_seconds: number;
  file_bytes: number;
  tiers: { GPU: number; RAM: number; NVMe: number };
  workers: { name: string; layers: [number, number]; bytes: number }[];
  memory: {
    weights_bytes: number;
    streaming_bytes: number;
    kv_bytes: number;
    compute_bytes: number;
    other_bytes: number;
  };
  context: { tokens: number; cells: number; used_cells: number; trained: number; kv_bytes: number };
  experts: { layers: number; per_layer: number; used: number } | null;
  parallel: number;
  active: number;
  queued: number;
  slots: Slot[];
  prefill: Rates | null;
  decode: Rates | null;
  predicted: { prefill: Speed | null; decode: Speed | null } | null;
  threads: number;
  totals: {
    requests: number;
    prompt_tokens: number;
    reused_tokens: number;
    generated_tokens: number;
    read_bytes: number;
  };
  notes: string[];
}

export interface StatusDocument {
  version: string;
  uptime_s: number;
  machine: {
    memory: {
      total_bytes: number | null;
      available_bytes: number | null;
      limit_bytes: number | null;
      budget_bytes: number;
      held_bytes: number;
    };
    processors: { count: number; busy: number | null; model: string | null };
    disk: {
      device: string | null;
      file_system: string | null;
      sequential_bytes_per_s: number | null;
      random_bytes_per_s: number | null;
    } | null;
    measured_at_s: number | null;
    others_share: number | null;
  };
  loading: Loading | null;
  requests: { active: number; waiting_for_a_model: number; total: number; failed: number };
  models: LoadedModel[];
}

export interface Loading {
  name: string;
  read_bytes: number;
  /** Null until something is read. */
  total_bytes: number | null;
}

export interface ExpertsDocument {
  model: string;
  clock: number | null;
  layers: { layer: number; experts: string }[] | null;
}

export interface ModelEntry {
  name: string;
  size: number;
  digest: string;
  details: { family: string; parameter_size: string; quantization_level: string };
  capabilities: string[];
}

export interface ModelShow {
  capabilities: string[];
  model_info: Record<string, unknown>;
}

export interface TierBytes {
  device_bytes: number;
  resident_bytes: number;
  streamed_bytes: number;
  cached_bytes: number;
  reason?: string;
}

export interface PlanDocument {
  model: {
    name: string;
    title: string | null;
    architecture: string;
    layers: number;
    experts: number;
    experts_used: number;
    bytes: number;
    shards: number;
    context_train: number;
  };
  plan: {
    mode: string;
    reason: string;
    budget_bytes: number;
    floor_bytes: number;
    total_bytes: number;
    device_layers: number;
    workers: { name: string; first_layer: number; layers: number; bytes: number }[];
    ledger: { pool: number; purpose: string; bytes: number }[];
    resident_bytes: number;
    slot_bytes: number;
    slots: number[];
    cell_bytes: number;
    ring_cell_bytes: number;
    streamed_dense_bytes: number;
    kv_bytes: number;
    kv_type: string;
    notes: string[];
    compute_bytes: number;
    process_bytes: number;
    media_bytes: number;
    draft_bytes: number;
    context_tokens: number;
    ubatch_tokens: number;
    cached_fraction: number;
  };
  tiers: { roles: Record<string, TierBytes>; layers: TierBytes[]; outside: TierBytes };
  prediction: {
    load_s: Band | null;
    prefill: { tokens_per_s: Band; first_token_s: Band; bound: Bound } | null;
    decode: {
      tokens_per_s: Band;
      roofline_tokens_per_s: number;
      compute_s: number;
      sync_s: number;
      link_s: number;
      read_s: number;
      read_bytes: number;
      hit_rate: Band | null;
      bound: Bound;
    } | null;
    missing: string[];
    assumptions: string[];
  };
  profile: { measured_at_s: number | null; others_share: number | null };
  alternatives: {
    change: string;
    note: string | null;
    decode_tokens_per_s: Band | null;
    gain_tokens_per_s: number | null;
  }[];
}
