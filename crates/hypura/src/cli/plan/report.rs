//! The plan for people.

use hypura_core::plan::{
    Alternative, Basis, Estimate, Mode, PoolId, PoolKind, Prediction, Purpose, Tier, TierBytes, human_bytes,
};
use hypura_core::profile::Profile;
use hypura_core::speculate::{ASSUMED_ACCEPTANCE, SpeculationCost};
use hypura_engine::advise::{Advice, AdviceSettings};
use hypura_engine::workers::WorkerShare;
use std::fmt::{self, Write as _};

use super::header::Header;

/// Layers of a model that are drawn in one line each; longer models are drawn in groups.
const MOST_BARS: usize = 40;
const BAR_WIDTH: usize = 40;

/// Everything about the plan.
pub(super) fn render(
    header: &Header,
    profile: &Profile,
    settings: &AdviceSettings,
    advice: &Advice,
) -> String {
    let mut text = String::new();
    let parts = [
        model(&mut text, header),
        memory(&mut text, header, advice),
        tiers(&mut text, advice),
        bars(&mut text, advice),
        prediction(&mut text, profile, settings, &advice.prediction, advice),
        alternatives(&mut text, &advice.alternatives),
    ];
    debug_assert!(parts.iter().all(Result::is_ok), "writing to a string cannot fail");
    text
}

fn model(out: &mut String, header: &Header) -> fmt::Result {
    let shape = &header.shape;
    let name = shape.name.as_deref().unwrap_or(&header.name);
    let files = if header.shards > 1 { format!(" in {} shards", header.shards) } else { String::new() };
    let experts = if shape.is_dense() {
        String::new()
    } else {
        format!(", {} of {} experts a token", shape.experts_used, shape.experts)
    };
    writeln!(
        out,
        "{name}: {}, {} layers{experts}, {}{files}, trained for {} tokens",
        shape.architecture,
        shape.layers,
        human_bytes(shape.total_bytes()),
        shape.context_train
    )
}

fn memory(out: &mut String, header: &Header, advice: &Advice) -> fmt::Result {
    let plan = &advice.plan;
    writeln!(out, "\nmode        {}", plan.mode().name())?;
    let bytes_of_rows = plan.ledger.bytes_for(Purpose::Rows);
    let mut line =
        |name: &str, bytes: u64, note: &str| writeln!(out, "{name:<11} {:>11}  {note}", human_bytes(bytes));
    // What other machines have is in lines of their own.
    let bytes = |purpose| {
        if plan.pools.has_workers() {
            plan.ledger.bytes(PoolId::HOST, purpose)
        } else {
            plan.ledger.bytes_for(purpose)
        }
    };
    line("resident", bytes(Purpose::Weights), "weights that stay in memory")?;
    if plan.slot_bytes() > 0 {
        line("slots", plan.slot_bytes(), &slots(advice))?;
    }
    if plan.buffer_bytes() > bytes_of_rows {
        let ring_cells = plan.dense.as_ref().map_or(0, |dense| dense.cells);
        let cells = ring_cells + plan.experts.as_ref().map_or(0, |experts| experts.cells);
        let note = format!("{cells} cells for what passes through");
        line("buffers", plan.buffer_bytes() - bytes_of_rows, &note)?;
    }
    if bytes_of_rows > 0 {
        line("rows", bytes_of_rows, &rows(header, advice))?;
    }
    let context =
        format!("in {}, for {} tokens of context", plan.context.kv.name(), plan.context.context_tokens);
    line("KV cache", bytes(Purpose::Kv), &context)?;
    let basis = plan.ledger.basis_of(Purpose::Compute).unwrap_or(Basis::Estimated).name();
    let ubatch = format!("{basis}, for {} tokens of a prompt at once", plan.context.ubatch_tokens);
    line("compute", bytes(Purpose::Compute), &ubatch)?;
    line("program", bytes(Purpose::Process), "estimated")?;
    if bytes(Purpose::Driver) > 0 {
        line(
            "driver",
            bytes(Purpose::Driver),
            "of the GPU, in the host's memory, measured when it was opened",
        )?;
    }
    if bytes(Purpose::Media) > 0 {
        line("media", bytes(Purpose::Media), "projector, and an image or a sound on its way through it")?;
    }
    if bytes(Purpose::Draft) > 0 {
        line("draft", bytes(Purpose::Draft), "draft model, its KV cache and compute buffers")?;
    }
    let host = plan.ledger.pool_bytes(PoolId::HOST);
    line("together", host, &format!("of {} that may be used", human_bytes(plan.budget_bytes())))?;
    for worker in &advice.workers {
        line("worker", worker.bytes, &of_worker(worker))?;
    }
    for (id, pool) in plan.pools.devices().filter(|(_, pool)| pool.kind == PoolKind::Device) {
        let layers = format!("{} of {} layers", plan.homes.device_layers(), plan.homes.layers.len() + 1);
        let note = format!("of {} that may be used, {layers}", human_bytes(pool.budget_bytes));
        line("device", plan.ledger.pool_bytes(id), &note)?;
    }
    line("headroom", plan.budget_bytes().saturating_sub(host), "")?;
    line("floor", plan.floor_bytes, "the least that this works in")?;
    advice.notes.iter().try_for_each(|note| writeln!(out, "note        {note}"))
}

/// Which machine it is, what it computes, and its link.
fn of_worker(worker: &WorkerShare) -> String {
    let WorkerShare { name, first_layer, layers, budget_bytes, round_trip_s, link_bytes_per_s, .. } = worker;
    let (last, budget) = (first_layer + layers.saturating_sub(1), human_bytes(*budget_bytes));
    let (round_trip_ms, rate) = (round_trip_s * 1e3, link_bytes_per_s / 1e6);
    format!(
        "{name}, of {budget}: layers {first_layer} to {last}, {round_trip_ms:.2} ms there and back, {rate:.0} MB/s"
    )
}

/// What streams by the row, and how much of it a token reads.
fn rows(header: &Header, advice: &Advice) -> String {
    let plan = &advice.plan;
    let rows: u64 = plan.streamed_tables().iter().map(|table| u64::from(table.rows_per_token)).sum();
    let cached: u64 = plan.streamed_tables().iter().map(|table| u64::from(table.cache_rows)).sum();
    let tables = human_bytes(plan.streamed_table_bytes(&header.shape));
    format!("room for {cached} rows of tables of {tables}, of which a token reads {rows}")
}

fn slots(advice: &Advice) -> String {
    let slots: Vec<String> = advice.plan.slots(&advice.layout).iter().map(ToString::to_string).collect();
    format!("{} experts at a time", slots.join(" + "))
}

fn tiers(out: &mut String, advice: &Advice) -> fmt::Result {
    let (host, storage) = (Tier::Host.name(), Tier::Storage.name());
    // A column that is there only where a device has layers.
    let on_device = |text: String| if advice.plan.homes.are_on_host() { String::new() } else { text };
    let name = if advice.plan.pools.has_workers() { "workers" } else { Tier::Device.name() };
    let device = on_device(format!(" {name:>11}"));
    let cached = format!("{storage} in {host}");
    writeln!(out, "\n{:<16}{device} {host:>11} {storage:>11} {cached:>14}", "weights")?;
    let mut row = |name: &str, bytes: &TierBytes| {
        let show = |bytes: u64| if bytes == 0 { "-".to_owned() } else { human_bytes(bytes) };
        let device = on_device(format!(" {:>11}", show(bytes.device_bytes)));
        let (resident, streamed) = (show(bytes.resident_bytes), show(bytes.streamed_bytes));
        writeln!(out, "{name:<16}{device} {resident:>11} {streamed:>11} {:>14}", show(bytes.cached_bytes))
    };
    for (role, bytes) in &advice.tiers.roles {
        row(role.name(), bytes)?;
    }
    row("together", &advice.tiers.total())
}

/// A bar for each layer, or for each group of layers: resident, cached, on the disk only.
fn bars(out: &mut String, advice: &Advice) -> fmt::Result {
    let layers = &advice.tiers.layers;
    if advice.plan.mode() == Mode::FullResident || layers.is_empty() {
        return Ok(());
    }
    let group = layers.len().div_ceil(MOST_BARS);
    let largest = layers.iter().map(TierBytes::total_bytes).max().unwrap_or(1).max(1);
    writeln!(out, "\nlayers      █ in memory  ▒ room for it in memory  ░ on the disk")?;
    for (index, members) in layers.chunks(group).enumerate() {
        let sum = |pick: fn(&TierBytes) -> u64| members.iter().map(pick).sum::<u64>() / members.len() as u64;
        let width = |bytes: u64| (bytes as f64 / largest as f64 * BAR_WIDTH as f64).round() as usize;
        let resident = width(sum(|layer| layer.device_bytes + layer.resident_bytes));
        let cached = width(sum(|layer| layer.cached_bytes));
        let all = width(sum(TierBytes::total_bytes)).max(resident + cached);
        let first = index * group;
        let name =
            if group == 1 { first.to_string() } else { format!("{first}–{}", first + members.len() - 1) };
        let rest = all - resident - cached;
        let bar = format!("{}{}{}", "█".repeat(resident), "▒".repeat(cached), "░".repeat(rest));
        let elsewhere = advice.workers.iter().find(|worker| {
            let first_there = worker.first_layer as usize;
            (first_there..first_there + worker.layers as usize).contains(&first)
        });
        let machine = elsewhere.map(|worker| format!("  {}", worker.name)).unwrap_or_default();
        writeln!(out, "{name:>9}   {bar}{machine}")?;
    }
    Ok(())
}

fn prediction(
    out: &mut String,
    profile: &Profile,
    settings: &AdviceSettings,
    prediction: &Prediction,
    advice: &Advice,
) -> fmt::Result {
    writeln!(out)?;
    if let Some(load) = prediction.load_s {
        writeln!(out, "loading     {}", band(load, " s"))?;
    }
    if let Some(prefill) = &prediction.prefill {
        let (speed, first) = (band(prefill.tokens_per_s, " tok/s"), band(prefill.first_token_s, " s"));
        writeln!(out, "prefill     {speed}, bound by {}", prefill.bound.name())?;
        writeln!(out, "first token {first} after a prompt of {} tokens", settings.workload.prompt_tokens)?;
    }
    if let Some(decode) = &prediction.decode {
        writeln!(
            out,
            "decode      {}, bound by {}",
            band(decode.tokens_per_s, " tok/s"),
            decode.bound.name()
        )?;
        writeln!(
            out,
            "            {:.1} ms computing, {:.1} ms synchronising, {:.1} ms reading {} a token; at most {:.2} tok/s",
            decode.compute_s * 1e3,
            decode.sync_s * 1e3,
            decode.read_s * 1e3,
            human_bytes(decode.read_bytes as u64),
            decode.roofline_tokens_per_s
        )?;
        if decode.link_s > 0.0 {
            writeln!(out, "            {:.2} ms on links to workers a token", decode.link_s * 1e3)?;
        }
        if let Some(hits) = decode.hits {
            let percent = |rate: f64| format!("{:.0}%", rate * 100.0);
            let share = advice.plan.expert_fraction(&advice.layout);
            writeln!(
                out,
                "            {} of the experts fit, {} of lookups hit ({}–{}, as in recorded traces of other models)",
                percent(share),
                percent(hits.mid),
                percent(hits.low),
                percent(hits.high)
            )?;
        }
    }
    drafts(out, advice)?;
    missing(out, profile, prediction)
}

/// Decoding with drafts, beside decoding without.
fn drafts(out: &mut String, advice: &Advice) -> fmt::Result {
    let Some(cost) = &advice.speculation else { return Ok(()) };
    let share = ASSUMED_ACCEPTANCE * 100.0;
    let SpeculationCost { tokens_per_s, drafts, tokens_per_step } = cost;
    if *drafts == 0 {
        return writeln!(out, "with drafts none would pay, if {share:.0}% came true");
    }
    writeln!(
        out,
        "with drafts {tokens_per_s:.2} tok/s by {drafts} drafts a step, {tokens_per_step:.1} tokens of each, if {share:.0}% come true"
    )
}

fn missing(out: &mut String, profile: &Profile, prediction: &Prediction) -> fmt::Result {
    for what in &prediction.missing {
        let reason = profile.storage.as_ref().and_then(|storage| storage.obstacle.as_deref());
        let reason = reason.filter(|_| what.contains("disk")).map(|reason| format!(" ({reason})"));
        let way_out = if what.contains("disk") { ": assume one with --what-if disk=2GB/s" } else { "" };
        writeln!(out, "unknown     {what}{}{way_out}", reason.unwrap_or_default())?;
    }
    for assumption in &prediction.assumptions {
        writeln!(out, "assumed     {assumption}")?;
    }
    Ok(())
}

fn band(estimate: Estimate, unit: &str) -> String {
    let digits = |value: f64| {
        if value >= 100.0 {
            format!("{value:.0}")
        } else if value >= 10.0 {
            format!("{value:.1}")
        } else {
            format!("{value:.2}")
        }
    };
    format!("{}{unit} ({}–{})", digits(estimate.mid), digits(estimate.low), digits(estimate.high))
}

fn alternatives(out: &mut String, alternatives: &[Alternative]) -> fmt::Result {
    let known = alternatives.iter().filter_map(|other| Some((other, other.decode_tokens_per_s?)));
    let mut first = true;
    for (other, speed) in known {
        if std::mem::take(&mut first) {
            writeln!(out, "\nwhat would change it")?;
        }
        let gain = other.gain_tokens_per_s.map(|gain| format!(" ({gain:+.2})")).unwrap_or_default();
        let note = other.note.as_ref().map(|note| format!(", {note}")).unwrap_or_default();
        writeln!(out, "  {}{note}: {:.2} tok/s{gain}", other.change, speed.mid)?;
    }
    Ok(())
}
