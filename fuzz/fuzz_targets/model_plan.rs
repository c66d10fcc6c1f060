//! Changes some bytes of the header of a synthetic model and plans what is left of it, within arbitrary
//! budgets: sizes come from files, which may lie.
#![no_main]

use std::sync::LazyLock;

use hypura_core::gguf::{merge, read_header};
use hypura_core::model::ModelShape;
use hypura_core::plan::{
    CacheSize, ContextShape, ExpertLayout, PlanRequest, Pools, Residency, estimate_needs, settle,
};
use hypura_core::synth::{Quant, Shape, SynthOptions, SynthPlan};
use libfuzzer_sys::fuzz_target;

/// Headers are shorter.
const MOST_HEADER_BYTES: u64 = 1 << 20;

/// The beginning of a file, and its length.
type Model = (Vec<u8>, u64);

static MODELS: LazyLock<Vec<Model>> = LazyLock::new(|| {
    let tiny = Shape::ALL.iter().filter(|shape| shape.name().starts_with("tiny"));
    tiny.filter_map(|shape| {
        let plan = SynthPlan::new(&SynthOptions::new(*shape, Quant::Q4_K)).ok()?;
        let file_bytes = plan.shards().first()?.file_bytes;
        let mut bytes = vec![0; usize::try_from(file_bytes.min(MOST_HEADER_BYTES)).ok()?];
        plan.fill_file(0, 0, &mut bytes);
        let header = read_header(bytes.as_slice(), file_bytes).ok()?;
        bytes.truncate(usize::try_from(header.data_start).ok()?);
        Some((bytes, file_bytes))
    })
    .collect()
});

/// Which model, what is changed where, the budget, the context, and how weights are wanted.
type Input = (u8, Vec<(u16, u8, u64)>, u64, (u32, u32, u8), (u8, u64));

fuzz_target!(|input: Input| {
    let (model, edits, budget_bytes, (context_tokens, ubatch_tokens, sequences), (kind, cache)) = input;
    let (bytes, file_bytes) = &MODELS[usize::from(model) % MODELS.len()];
    let mut bytes = bytes.clone();
    for (at, length, value) in edits.iter().take(8) {
        let (at, length) = (usize::from(*at), usize::from(*length % 8) + 1);
        if let Some(place) = bytes.get_mut(at..at + length) {
            place.copy_from_slice(&value.to_le_bytes()[..length]);
        }
    }
    let Ok(header) = read_header(bytes.as_slice(), *file_bytes) else { return };
    let Ok(set) = merge(vec![header], vec![*file_bytes]) else { return };
    let Ok(shape) = ModelShape::from_gguf(&set) else { return };
    let layout = ExpertLayout::new(&shape);
    let request = PlanRequest {
        pools: Pools::host(budget_bytes),
        residency: [Residency::Auto, Residency::Stream, Residency::Resident][usize::from(kind % 3)],
        cache: (kind & 4 != 0).then_some(CacheSize::Bytes(cache)),
        context: ContextShape {
            context_tokens,
            ubatch_tokens,
            sequences: u32::from(sequences),
            ..ContextShape::default()
        },
        ubatch_may_grow: kind & 8 != 0,
        ..PlanRequest::default()
    };
    let settled = settle(&shape, &layout, &request, |context, _| estimate_needs(&shape, context));
    if let Ok(settled) = settled {
        assert!(settled.plan.total_bytes() <= budget_bytes, "{:?}", settled.plan);
    }
});
