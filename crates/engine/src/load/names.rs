//! How llama.cpp loads the weights, and which of them it leaves to us: as regular expressions over names of
//! tensors.

use hypura_core::plan::{Choice, Mode};
use hypura_ggml::LoadMode;

use super::prepare::Planned;

/// Which kernels compute with the weights. They round differently, so their bits are never mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// Those for the layout of the file: the same for weights that stream and weights that stay.
    FileLayout,
    /// Those for weights that llama.cpp repacked while it loaded them.
    Repacked,
}

impl Kernels {
    /// Name for people and for JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FileLayout => "file-layout",
            Self::Repacked => "repacked",
        }
    }
}

impl Planned {
    /// Which kernels compute.
    #[must_use]
    pub fn kernels(&self) -> Kernels {
        // Asked for by name, resident keeps the file's layout, so that its logits are those of streaming. And
        // only graphs on our device can be looked into.
        let asked = self.settings.model.choice == Choice::Resident || self.settings.tuning.routes.is_active();
        if self.plan.mode() == Mode::FullResident && !asked { Kernels::Repacked } else { Kernels::FileLayout }
    }
}

/// Whether the model runs on our device, and what streams through it.
pub(super) fn load_mode(planned: &Planned) -> LoadMode {
    match planned.kernels() {
        Kernels::Repacked => LoadMode::Plain { repack: true, mmap: false },
        Kernels::FileLayout => LoadMode::Decorated { streamed: streamed_patterns(planned) },
    }
}

/// Regular expressions for the streamed tensors, one per kind of tensor: llama.cpp compiles each of them anew
/// for every tensor of the model.
fn streamed_patterns(planned: &Planned) -> Vec<String> {
    let Planned { plan, layout, source, .. } = planned;
    let parts = layout.layers.iter().flat_map(|layer| &layer.parts);
    let experts = parts.filter(|_| plan.experts.is_some()).map(|part| part.tensor.as_str());
    let dense = plan.streamed_dense().iter().map(|index| source.shape.tensors[*index].info.name.as_str());
    let mut layers_by_kind: Vec<(String, Vec<String>)> = Vec::new();
    for name in experts.chain(dense) {
        let Some((layer, kind)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
            layers_by_kind.push((escape(name), Vec::new()));
            continue;
        };
        match layers_by_kind.iter_mut().find(|(known, _)| known == kind) {
            Some((_, layers)) => layers.push(layer.to_owned()),
            None => layers_by_kind.push((kind.to_owned(), vec![layer.to_owned()])),
        }
    }
    layers_by_kind
        .into_iter()
        .map(|(kind, layers)| match layers.as_slice() {
            [] => format!("^{kind}$"),
            _ => format!("^blk\\.({})\\.{}$", layers.join("|"), escape(&kind)),
        })
        .collect()
}

fn escape(name: &str) -> String {
    name.replace('.', "\\.")
}
