//! What an answer cost, in words.

use hypura_core::plan::{Mode, Purpose, human_bytes};
use hypura_core::roofline::BoundBy;
use hypura_engine::session::Session;
use std::fmt::Write as _;

use super::stats::{Phase, SpeculationNumbers, Stats, kernels};

/// What `run` says after an answer.
pub(super) fn summary(stats: &Stats) -> String {
    let mut text = String::new();
    if let Some(tps) = stats.decode_tps {
        let _ = write!(text, "{tps:.1} tok/s, ");
    }
    let _ = write!(text, "{} after a prompt of {}", tokens(stats.generated_tokens), stats.prompt_tokens);
    if let Some(tps) = stats.prefill_tps {
        let _ = write!(text, " ({}, {tps:.0} tok/s)", time(stats.prefill_ms));
    }
    let _ = write!(text, "\n{}", residence(stats));
    if let Some(bytes) = stats.bytes_read_per_token.filter(|_| stats.mode != Mode::FullResident.name()) {
        let _ = write!(text, ", {} read per token", human_bytes(bytes as u64));
    }
    let _ = write!(text, "\n{}, bound by {}", memory(stats), bound_text(stats.bound_by));
    if let Some(fewer) = fewer_threads(stats) {
        let _ = write!(text, "\n{fewer}");
    }
    if let Some(drafts) = drafts(stats) {
        let _ = write!(text, "\n{drafts}");
    }
    if let Some(hint) = finish_hint(stats) {
        let _ = write!(text, "\n{hint}");
    }
    if let Some(routes) = &stats.routes {
        let _ = write!(text, "\nroutes {routes}: the text means nothing");
    }
    text
}

/// What became of drafts, where there were any.
fn drafts(stats: &Stats) -> Option<String> {
    let drafts = stats.speculation.as_ref().filter(|drafts| drafts.proposed > 0)?;
    let each = drafts.tokens_per_step.unwrap_or(1.0);
    let share = if stats.decode_ms > 0.0 { drafts.drafting_ms / stats.decode_ms * 100.0 } else { 0.0 };
    let SpeculationNumbers { accepted, proposed, .. } = drafts;
    Some(format!(
        "{accepted} of {proposed} drafts kept, {each:.2} tokens a step, {share:.0}% of the time drafting"
    ))
}

/// What a chat says after each answer.
pub(super) fn brief(stats: &Stats) -> String {
    let mut parts: Vec<String> = stats.decode_tps.map(|tps| format!("{tps:.1} tok/s")).into_iter().collect();
    parts.push(tokens(stats.generated_tokens));
    if let Some(rate) = stats.hit_rate {
        parts.push(format!("{:.1}% hits", rate * 100.0));
    }
    if let Some(bytes) = stats.bytes_read_per_token.filter(|bytes| *bytes > 0.0) {
        parts.push(format!("{} read per token", human_bytes(bytes as u64)));
    }
    parts.push(format!("bound by {}", bound_text(stats.bound_by)));
    parts.extend(fewer_threads(stats));
    parts.extend(finish_hint(stats).map(str::to_owned));
    parts.join(", ")
}

/// Where the model is, in one line.
pub(super) fn tiers(stats: &Stats) -> String {
    let memory = &stats.memory;
    let cached = memory.streamable_bytes as f64 * memory.cached_fraction;
    let tiers = [
        ("GPU", memory.device_bytes),
        ("RAM", memory.resident_bytes + cached as u64),
        ("NVMe", memory.streamable_bytes.saturating_sub(cached as u64)),
    ];
    let used = tiers.into_iter().filter(|(_, bytes)| *bytes > 0);
    let used: Vec<String> = used.map(|(tier, bytes)| format!("{tier} {}", human_bytes(bytes))).collect();
    row("tiers", format!("{}, {}", used.join(", "), stats.mode))
}

/// That other programs cost threads, if they did for a noticeable part of the time.
fn fewer_threads(stats: &Stats) -> Option<String> {
    let share = stats.threads_used.share_with_fewer().filter(|share| *share >= 0.05)?;
    let most = stats.threads;
    Some(format!(
        "fewer than {most} threads for {:.0}% of the computing: other programs used the processors",
        share * 100.0
    ))
}

fn tokens(count: usize) -> String {
    if count == 1 { "1 token".to_owned() } else { format!("{count} tokens") }
}

fn time(ms: f64) -> String {
    if ms < 1e3 { format!("{ms:.0} ms") } else { format!("{:.1} s", ms / 1e3) }
}

fn residence(stats: &Stats) -> String {
    let share = stats.memory.cached_fraction * 100.0;
    if stats.mode == Mode::FullResident.name() {
        return format!("{}: all {} in memory", stats.mode, human_bytes(stats.memory.resident_bytes));
    }
    if stats.mode == Mode::DenseStreaming.name() {
        let streamable = human_bytes(stats.memory.streamable_bytes);
        return format!("{}: {share:.0}% of {streamable} in memory", stats.mode);
    }
    if stats.mode == Mode::TableStreaming.name() {
        let resident = human_bytes(stats.memory.resident_bytes);
        return format!("{}: {resident} in memory, tables by the row", stats.mode);
    }
    let hits = match stats.hit_rate {
        Some(rate) => format!("{:.1}% hits", rate * 100.0),
        None => "no lookups".to_owned(),
    };
    let experts = human_bytes(stats.memory.streamable_bytes);
    if stats.mode == Mode::MixedStreaming.name() {
        return format!("{}: {share:.0}% of {experts} in memory, {hits}", stats.mode);
    }
    format!("{}: {share:.0}% of {experts} of experts in memory, {hits}", stats.mode)
}

fn memory(stats: &Stats) -> String {
    let budget = human_bytes(stats.memory.memory_budget_bytes);
    match stats.memory.peak_rss_bytes {
        Some(peak) => format!("memory {} at most, of {budget}", human_bytes(peak)),
        None => format!("memory budget {budget}"),
    }
}

const fn bound_text(bound: BoundBy) -> &'static str {
    match bound {
        BoundBy::Disk => "the disk",
        BoundBy::Compute => "compute",
        BoundBy::Sync => "synchronisation",
        BoundBy::Link => "the link",
    }
}

fn finish_hint(stats: &Stats) -> Option<&'static str> {
    match stats.finish {
        "context-full" => Some("the context is full: begin anew, or give more with --ctx"),
        "repeats" => Some("stopped: the model repeated itself (-n N lets it, for N tokens)"),
        "stopped" => Some("stopped"),
        _ => None,
    }
}

/// What `--verbose` adds after an answer.
pub(super) fn details(stats: &Stats) -> String {
    let mut rows = vec![
        row("load", format!("{}, {} read", time(stats.load_ms), human_bytes(stats.bytes_read_load))),
        row("first token", stats.ttft_ms.map_or_else(|| "none".to_owned(), time)),
        row("prefill", phase_text(&stats.prefill)),
        row("decode", phase_text(&stats.decode)),
    ];
    if let (Some(p50), Some(p99)) = (stats.token_ms_p50, stats.token_ms_p99) {
        rows.push(row("token times", format!("{p50:.1} ms median, {p99:.1} ms at the 99th percentile")));
    }
    rows.push(row("threads", threads_text(stats)));
    if let Some(kernel) = stats.bytes_read_kernel {
        let ours = human_bytes(stats.bytes_read);
        rows.push(row(
            "disk",
            format!("{ours} by our reader, {} by the kernel's count", human_bytes(kernel)),
        ));
    }
    if let Some(hash) = &stats.logits_hash {
        rows.push(row("logits hash", hash.clone()));
    }
    rows.join("\n")
}

fn threads_text(stats: &Stats) -> String {
    let used = &stats.threads_used;
    let mut text = format!("{} of {} at the end", used.last, stats.threads);
    if used.steps_with_fewer > 0 {
        let _ = write!(text, ", fewer in {} of {} steps", used.steps_with_fewer, used.steps);
    }
    if let Some(waited) = used.waited_ms {
        let _ = write!(text, "; they waited {} for a processor", time(waited));
    }
    text
}

fn phase_text(phase: &Phase) -> String {
    let mut text = time(phase.wall_ms);
    if let Some(compute) = phase.compute_ms {
        let _ =
            write!(text, " (compute {}, waiting for the disk {})", time(compute), time(phase.read_stall_ms));
        let _ = write!(text, ", {} read", human_bytes(phase.bytes_read));
    }
    if let Some(rate) = phase.hit_rate {
        let _ = write!(
            text,
            ", {} hits and {} misses ({:.1}%), {} evictions",
            phase.experts_hit,
            phase.experts_missed,
            rate * 100.0,
            phase.evictions
        );
    }
    if phase.dense_weights_streamed > 0 {
        let _ = write!(text, ", {} weights streamed", phase.dense_weights_streamed);
    }
    if phase.table_rows > 0 {
        let (rows, hits, reads) = (phase.table_rows, phase.table_hits, phase.table_reads);
        let bytes = human_bytes(phase.table_bytes_read);
        let _ = write!(text, ", {rows} rows of tables, {hits} of them in memory, {bytes} in {reads} reads");
    }
    text
}

/// What `--verbose` says before an answer.
pub(super) fn loaded_text(session: &Session, seed: u32) -> String {
    let loaded = session.loaded();
    let (plan, source) = (&loaded.planned.plan, &loaded.planned.source);
    let shape = &source.shape;
    let size = human_bytes(source.file_bytes());
    let slots: u64 = plan.slots(&loaded.planned.layout).into_iter().map(u64::from).sum();
    let mut rows = vec![
        row("model", format!("{}, {}, {size}", source.path.display(), shape.architecture)),
        row("mode", format!("{}, {} kernels", plan.mode().name(), kernels(loaded))),
        row("RAM", format!("{} of weights, always", human_bytes(plan.resident_bytes()))),
    ];
    if plan.mode() != Mode::FullResident {
        let cached = plan.cached_fraction(shape, &loaded.planned.layout) * 100.0;
        let streamable = human_bytes(plan.streamable_bytes());
        rows.push(row("NVMe", format!("{streamable} can stream, {cached:.1}% of it has room in RAM")));
    }
    if plan.experts.is_some() {
        let bytes = human_bytes(plan.slot_bytes());
        rows.push(row(
            "slots",
            format!(
                "{slots} experts in {bytes}, evicted by {}",
                loaded.planned.settings.tuning.policy.name()
            ),
        ));
    }
    rows.push(row(
        "context",
        format!(
            "{} tokens, {}; compute buffers {}",
            plan.context.context_tokens,
            human_bytes(loaded.ledger.bytes_for(Purpose::Kv)),
            human_bytes(loaded.ledger.bytes_for(Purpose::Compute))
        ),
    ));
    let total = human_bytes(plan.total_bytes());
    let (budget, floor) = (human_bytes(plan.budget_bytes()), human_bytes(plan.floor_bytes));
    rows.push(row("memory", format!("{total} planned of {budget}; it works from {floor} on")));
    rows.extend(loaded.reader.map(|reader| row("reader", reader.to_owned())));
    rows.push(row("seed", seed.to_string()));
    rows.extend(loaded.notes.iter().map(|note| row("note", note.clone())));
    rows.join("\n")
}

/// What a chat says first.
pub(super) fn greeting(session: &Session) -> String {
    let loaded = session.loaded();
    let shape = &loaded.planned.source.shape;
    let name = shape.name.as_deref().unwrap_or(&shape.architecture);
    format!("{name}, {}. /help says what there is, /bye leaves.", loaded.planned.plan.mode().name())
}

fn row(name: &str, text: String) -> String {
    format!("{name:<12} {text}")
}
