//! Where the bytes of each routed expert lie.
//!
//! A stacked tensor has the shape [input, output, experts] and is contiguous, so expert `e` is the `e`-th of
//! equal slices. Invariant, checked here: all parts of a layer stack the same number of experts, and there is
//! an up (or gate_up) and a down part; `down` is last, because it is needed last.

use std::collections::BTreeMap;

use super::roles::ExpertPart;
use super::{ModelError, ModelTensor, TensorRole};

/// One routed expert of the model: the unit of caching.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExpertKey {
    /// Layer (`N` of `blk.N`).
    pub layer: u32,
    /// Index in the layer's stacks.
    pub expert: u32,
}

/// The routed experts of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpertLayer {
    /// Layer (`N` of `blk.N`).
    pub layer: u32,
    /// How many experts there are.
    pub experts: u32,
    /// How many of them a token uses.
    pub used: u32,
    /// The stacked tensors, in the order gate, up, gate_up, down.
    pub parts: Vec<ExpertTensor>,
}

/// One stacked tensor of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertTensor {
    /// Which matrix of the experts it stacks.
    pub part: ExpertPart,
    /// Index into [`super::ModelShape::tensors`].
    pub tensor: usize,
    /// Bytes of one expert.
    pub slice_bytes: u64,
}

/// The bytes of one expert in one stacked tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertSlice {
    /// Which shard's file.
    pub shard: usize,
    /// First byte in that file.
    pub offset: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// What to read to get a slice by direct I/O: the slice rounded out to whole pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First byte in the file, a multiple of the page.
    pub offset: u64,
    /// Bytes, a multiple of the page. The last page of a file may reach beyond its end.
    pub bytes: u64,
    /// Where the slice begins in what was read, less than a page.
    pub shift: u64,
}

/// Experts whose parts have equal sizes: they can take each other's place in a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeClass {
    /// Bytes of each part, in the order of [`ExpertLayer::parts`].
    pub slice_bytes: Vec<u64>,
    /// The layers whose experts have these sizes, ascending.
    pub layers: Vec<u32>,
    /// Experts in those layers together.
    pub experts: u64,
}

impl ExpertSlice {
    /// The slice rounded out to multiples of `page` bytes (a `page` of 0 counts as 1).
    pub fn window(&self, page: u64) -> Window {
        Window::around(self.offset, self.bytes, page)
    }
}

impl Window {
    /// `bytes` from `offset` on, rounded out to multiples of `page` bytes (a `page` of 0 counts as 1).
    pub fn around(offset: u64, bytes: u64, page: u64) -> Self {
        let page = page.max(1);
        let shift = offset % page;
        // Sizes come from files: what does not fit a number is as large as one can be, which no file is.
        let rounded = shift.saturating_add(bytes).checked_next_multiple_of(page).unwrap_or(u64::MAX);
        Self { offset: offset - shift, bytes: rounded, shift }
    }
}

impl ExpertLayer {
    /// Bytes of one expert, all parts together.
    pub fn expert_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.slice_bytes).fold(0, u64::saturating_add)
    }

    /// The stacked tensor of a part.
    pub fn part(&self, part: ExpertPart) -> Option<&ExpertTensor> {
        self.parts.iter().find(|tensor| tensor.part == part)
    }
}

impl SizeClass {
    /// Bytes of one expert, all parts together.
    pub fn expert_bytes(&self) -> u64 {
        self.slice_bytes.iter().copied().fold(0, u64::saturating_add)
    }
}

impl ExpertTensor {
    /// The bytes of expert `expert` in this tensor, which is `of`; `None` beyond the stack.
    pub(super) fn slice(&self, of: &ModelTensor, expert: u32) -> Option<ExpertSlice> {
        let start = self.slice_bytes.checked_mul(expert.into())?;
        (start < of.info.bytes).then(|| ExpertSlice {
            shard: of.info.shard,
            offset: of.info.offset + start,
            bytes: self.slice_bytes,
        })
    }
}

/// Groups layers by the sizes of their experts' parts, by ascending first layer.
pub(super) fn size_classes(layers: &[ExpertLayer]) -> Vec<SizeClass> {
    let mut classes: Vec<SizeClass> = Vec::new();
    for layer in layers {
        let slice_bytes: Vec<u64> = layer.parts.iter().map(|part| part.slice_bytes).collect();
        let at = classes.iter().position(|class| class.slice_bytes == slice_bytes).unwrap_or_else(|| {
            classes.push(SizeClass { slice_bytes, layers: Vec::new(), experts: 0 });
            classes.len() - 1
        });
        if let Some(class) = classes.get_mut(at) {
            class.layers.push(layer.layer);
            class.experts += u64::from(layer.experts);
        }
    }
    classes
}

/// Finds the expert layers among the tensors of a model of `model_layers` layers. `used` tells how many
/// experts a token uses in a layer.
pub(super) fn find_layers(
    tensors: &[ModelTensor],
    model_layers: u32,
    used: impl Fn(u32) -> u64,
) -> Result<Vec<ExpertLayer>, ModelError> {
    let mut stacks: BTreeMap<(u32, ExpertPart), (usize, &ModelTensor)> = BTreeMap::new();
    for (index, tensor) in tensors.iter().enumerate() {
        if let (TensorRole::RoutedExpert(part), Some(layer)) = (tensor.role, tensor.layer) {
            if layer >= model_layers {
                let name = tensor.info.name.clone();
                return Err(ModelError::LayerBeyondModel { name, layer, layers: model_layers });
            }
            stacks.insert((layer, part), (index, tensor));
        }
    }
    let mut layers: Vec<ExpertLayer> = Vec::new();
    for ((layer, part), (index, tensor)) in stacks {
        let experts = stacked_experts(tensor)?;
        let slice_bytes = tensor.info.bytes / u64::from(experts);
        let stack = ExpertTensor { part, tensor: index, slice_bytes };
        match layers.last_mut().filter(|last| last.layer == layer) {
            Some(last) if last.experts != experts => {
                let (name, found, expected) = (tensor.info.name.clone(), experts.into(), last.experts.into());
                return Err(ModelError::ExpertCountsDiffer { name, layer, found, expected });
            }
            Some(last) => last.parts.push(stack),
            None => {
                let used = check_used(layer, used(layer), experts)?;
                layers.push(ExpertLayer { layer, experts, used, parts: vec![stack] });
            }
        }
    }
    for layer in &layers {
        let has = |part| layer.part(part).is_some();
        if !has(ExpertPart::Down) {
            return Err(ModelError::MissingPart { layer: layer.layer, part: "down" });
        }
        if !has(ExpertPart::Up) && !has(ExpertPart::GateUp) {
            return Err(ModelError::MissingPart { layer: layer.layer, part: "up" });
        }
    }
    Ok(layers)
}

fn check_used(layer: u32, used: u64, experts: u32) -> Result<u32, ModelError> {
    let error = ModelError::ExpertsUsed { layer, used, experts: experts.into() };
    u32::try_from(used).ok().filter(|used| (1..=experts).contains(used)).ok_or(error)
}

/// How many experts a tensor stacks. Trailing dimensions of 1 may be absent.
fn stacked_experts(tensor: &ModelTensor) -> Result<u32, ModelError> {
    let experts = match tensor.info.shape.as_slice() {
        [_, _] => Some(1),
        [_, _, experts] | [_, _, experts, 1] => u32::try_from(*experts).ok(),
        _ => None,
    };
    experts.ok_or_else(|| ModelError::NotAStack {
        name: tensor.info.name.clone(),
        shape: tensor.info.shape.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_whole_pages_around_the_slice() {
        let window = |offset, bytes| ExpertSlice { shard: 0, offset, bytes }.window(4096);
        assert_eq!(window(8192, 4096), Window { offset: 8192, bytes: 4096, shift: 0 });
        assert_eq!(window(8192, 4097), Window { offset: 8192, bytes: 8192, shift: 0 });
        assert_eq!(window(8224, 4096), Window { offset: 8192, bytes: 8192, shift: 32 });
        assert_eq!(window(8224, 4064), Window { offset: 8192, bytes: 4096, shift: 32 });
    }
}
