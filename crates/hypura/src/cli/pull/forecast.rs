//! What a model that is elsewhere will do on this machine, from its header, and what the other quantisations
//! of its repository would do: from their headers, or, where those cannot be had quickly, from this one with
//! all weights in another type.

use hypura_core::gguf::GgmlType;
use hypura_core::model::ModelShape;
use hypura_core::plan::{Estimate, MediaNeeds, Mode, Routing, WhatIf, Workload, estimate_needs};
use hypura_core::profile::Profile;
use hypura_engine::advise::{Advice, AdviceError, AdviceSettings, advise};
use hypura_engine::profile::{Need, Wanted};
use hypura_store::fetch::{FileKind, Remote, RemoteHeader, RemoteModel, Variant};
use std::path::Path;

use crate::cli::flags::{Env, ModelFlags};
use crate::cli::profile::remembered_with_gpu;

/// Fast enough to read along, in tokens per second. Of the variants that reach it the best is the largest.
const READING_SPEED: f64 = 10.0;
/// What decoding a picture may take beside its projector.
const PICTURE_BYTES: u64 = 192 << 20;
/// No larger type is visibly better, in bits per weight.
const MOST_USEFUL_BITS: f64 = 8.6;

/// What a model will do here.
pub(super) struct Forecast {
    pub shape: ModelShape,
    pub advice: Advice,
    pub rows: Vec<Row>,
}

/// One quantisation.
pub(super) struct Row {
    pub variant: Variant,
    /// The one that is asked for.
    pub is_chosen: bool,
    /// Its header was not read: it is the chosen one with all weights in another type.
    pub is_estimated: bool,
    /// The one that suits this machine best.
    pub is_best: bool,
    /// How it would run; `None`: not at all.
    pub mode: Option<Mode>,
    pub decode_tokens_per_s: Option<Estimate>,
    bits: f64,
}

impl Forecast {
    /// Reads the header and plans.
    pub fn make(remote: &Remote, model: &RemoteModel, flags: &ModelFlags) -> anyhow::Result<Self> {
        let header = remote.header(model)?;
        let load = flags.settings(&Env::of_process())?;
        let need = Need { target: Path::new("."), threads: load.tuning.threads, disk: true };
        let profile = remembered_with_gpu(&need, Wanted::Any, &load.model.device)?.profile;
        let media = media_needs(model);
        let workload = Workload { routing: Routing::of(&header.shape), ..Workload::default() };
        let settings =
            AdviceSettings { request: load.model.plan_request(media), workload, what_if: WhatIf::default() };
        let advice = of_shape(&header.shape, &profile, &settings)
            .map_err(|error| anyhow::Error::new(error).context(format!("{} cannot run here", model.name)))?;
        let shapes = remote.variant_shapes(model, &header);
        let machine = Machine { profile: &profile, settings: &settings };
        let rows = rows(model, &header, shapes, &machine, &advice);
        Ok(Self { shape: header.shape, advice, rows })
    }
}

/// What a plan depends on beside the model.
struct Machine<'a> {
    profile: &'a Profile,
    settings: &'a AdviceSettings,
}

fn of_shape(shape: &ModelShape, profile: &Profile, settings: &AdviceSettings) -> Result<Advice, AdviceError> {
    advise(shape, profile, settings, |context, _| estimate_needs(shape, context))
}

/// What the projector of a model will take, roughly: it cannot be measured before it is here.
fn media_needs(model: &RemoteModel) -> MediaNeeds {
    let projectors = model.files.iter().filter(|file| file.kind == FileKind::Projector);
    let bytes: u64 = projectors.map(|file| file.bytes).sum();
    MediaNeeds { bytes: if bytes == 0 { 0 } else { bytes + PICTURE_BYTES }, graph_tokens: 0 }
}

/// The other quantisations beside the one whose header was read.
fn rows(
    model: &RemoteModel,
    header: &RemoteHeader,
    shapes: Vec<Option<ModelShape>>,
    machine: &Machine<'_>,
    chosen: &Advice,
) -> Vec<Row> {
    let Machine { profile, settings } = machine;
    let weights: u64 = model.weights().map(|file| file.bytes).sum();
    let elements: f64 = header.shape.tensors.iter().map(|tensor| elements(&tensor.info.shape)).sum();
    let row = |(variant, shape): (&Variant, Option<ModelShape>)| {
        let is_chosen = model.name.ends_with(&format!(":{}", variant.tag)) && variant.bytes == weights;
        let bits = variant.bytes as f64 * 8.0 / elements.max(1.0);
        let is_estimated = !is_chosen && shape.is_none();
        let advice = match is_chosen {
            true => Some(chosen.clone()),
            false => {
                let shape = shape.or_else(|| header.in_type(type_of(&variant.tag, bits)));
                shape.and_then(|shape| of_shape(&shape, profile, settings).ok())
            }
        };
        Row {
            variant: variant.clone(),
            is_chosen,
            is_estimated,
            is_best: false,
            mode: advice.as_ref().map(|advice| advice.plan.mode()),
            decode_tokens_per_s: advice.and_then(|advice| Some(advice.prediction.decode?.tokens_per_s)),
            bits,
        }
    };
    let mut rows: Vec<Row> = model.variants.iter().zip(shapes).map(row).collect();
    if let Some(best) = best(&rows).and_then(|best| rows.get_mut(best)) {
        best.is_best = true;
    }
    rows
}

fn elements(shape: &[u64]) -> f64 {
    shape.iter().map(|length| *length as f64).product()
}

/// The largest that is fast enough to read along, or the fastest. Rows are sorted by size.
fn best(rows: &[Row]) -> Option<usize> {
    let speed = |row: &Row| row.decode_tokens_per_s.map_or(0.0, |speed| speed.mid);
    let useful = |row: &Row| row.bits <= MOST_USEFUL_BITS;
    let fast = rows.iter().rposition(|row| useful(row) && speed(row) >= READING_SPEED);
    let fastest = || {
        let runs = rows.iter().enumerate().filter(|(_, row)| speed(row) > 0.0);
        runs.max_by(|(_, a), (_, b)| speed(a).total_cmp(&speed(b))).map(|(index, _)| index)
    };
    fast.or_else(fastest)
}

/// The type that most weights of a quantisation have: by its name, otherwise by its bits per weight.
fn type_of(tag: &str, bits: f64) -> GgmlType {
    let distance = |ty: &GgmlType| (bits_of(*ty) - bits).abs();
    let all = GgmlType::ALL.iter().copied();
    let nearest = || all.min_by(|a, b| distance(a).total_cmp(&distance(b)));
    GgmlType::of_quantization(tag).or_else(nearest).unwrap_or(GgmlType::F16)
}

fn bits_of(ty: GgmlType) -> f64 {
    ty.block_bytes() as f64 * 8.0 / ty.block_elements() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_known_by_name_or_by_size() {
        for (tag, bits, name) in [
            ("Q4_K_M", 4.8, "q4_K"),
            ("UD-Q2_K_XL", 3.0, "q2_K"),
            ("q8_0", 8.5, "q8_0"),
            ("BF16", 16.0, "bf16"),
            ("IQ2_XXS", 2.1, "iq2_xxs"),
        ] {
            assert_eq!(type_of(tag, bits).name(), name, "{tag}");
        }
        assert!((bits_of(type_of("a-file", 4.5)) - 4.5).abs() < 0.1);
    }

    fn row(gib: u64, bits: f64, speed: f64) -> Row {
        let variant = Variant { tag: format!("{gib}"), bytes: gib << 30, files: vec![format!("{gib}.gguf")] };
        let estimate = Estimate { low: speed, mid: speed, high: speed };
        let decode_tokens_per_s = (speed > 0.0).then_some(estimate);
        Row {
            variant,
            is_chosen: false,
            is_estimated: false,
            is_best: false,
            mode: None,
            decode_tokens_per_s,
            bits,
        }
    }

    #[test]
    fn the_best_is_the_largest_that_is_fast_enough() {
        let rows = [row(1, 2.0, 40.0), row(2, 4.5, 20.0), row(4, 8.5, 9.0), row(8, 16.0, 30.0)];
        assert_eq!(best(&rows), Some(1));
        // None is fast enough: the fastest. None runs: none.
        assert_eq!(best(&[row(1, 2.0, 3.0), row(2, 4.5, 4.0)]), Some(1));
        assert_eq!(best(&[row(1, 2.0, 0.0)]), None);
    }
}
