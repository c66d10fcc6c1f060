//! In which memory each layer is at home: whose kernels compute it.
//!
//! A home is decided by the plan and never changes while a model is loaded, because kernels of other devices
//! round differently. Dense weights of a layer is its attention, norms, router, shared experts and, in a
//! dense layer, its feed-forward network; its routed experts may be at home elsewhere. The embedding table is
//! always the host's, as in llama.cpp; the KV cache follows the dense weights.

use serde::{Deserialize, Serialize};

use super::pool::{PoolId, Pools};
use crate::model::{ModelShape, ModelTensor, TensorRole};

/// Where a layer is at home.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerHome {
    /// All of it but routed experts.
    pub dense: PoolId,
    /// Its routed experts.
    pub experts: PoolId,
}

/// Where everything is at home.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Homes {
    /// One for each layer that tokens pass.
    pub layers: Vec<LayerHome>,
    /// The last norm and the projection to the vocabulary.
    pub output: PoolId,
    /// Whose kernels compute routed experts that stream. A device has slots of its own for them, over those
    /// of the host.
    #[serde(default)]
    pub streamed_experts: PoolId,
    /// Whose kernels compute dense weights that stream. Where a device's do, all layers are at home there,
    /// and weights that stream count as at home there too.
    #[serde(default)]
    pub streamed_dense: PoolId,
}

impl Homes {
    /// Everything on the host.
    #[must_use]
    pub fn on_host(shape: &ModelShape) -> Self {
        Self { layers: vec![LayerHome::default(); shape.layers as usize], ..Self::default() }
    }

    /// The last `layers` layers on devices, in shares of their budgets: what llama.cpp makes of
    /// `n_gpu_layers`, for which the output is one more layer behind the others. So 1 is the output alone,
    /// and [`Self::most_layers`] all of it. Routed experts go along only if `experts` says so.
    #[must_use]
    pub fn on_devices(shape: &ModelShape, pools: &Pools, layers: u32, experts: bool) -> Self {
        let mut homes = Self::on_host(shape);
        let count = layers.min(Self::most_layers(shape));
        if count == 0 || pools.devices().next().is_none() {
            return homes;
        }
        let first = (Self::most_layers(shape) - count) as usize;
        for (at, home) in homes.layers.iter_mut().skip(first).enumerate() {
            home.dense = device_at(pools, (at as f64 + 0.5) / f64::from(count));
            if experts {
                home.experts = home.dense;
            }
        }
        homes.output = device_at(pools, 1.0);
        homes
    }

    /// All layers and the output.
    #[must_use]
    pub const fn most_layers(shape: &ModelShape) -> u32 {
        shape.layers.saturating_add(1)
    }

    /// The device that has layers, if only one has.
    #[must_use]
    pub fn device(&self) -> Option<PoolId> {
        let dense = self.layers.iter().map(|home| home.dense);
        dense.chain([self.output]).find(|pool| *pool != PoolId::HOST)
    }

    /// Bytes of the weights at home on devices.
    #[must_use]
    pub fn device_bytes(&self, shape: &ModelShape) -> u64 {
        let there = shape.tensors.iter().filter(|tensor| self.of(tensor) != PoolId::HOST);
        there.fold(0, |sum, tensor| sum.saturating_add(tensor.info.bytes))
    }

    /// Bytes of the weights at home in a pool.
    #[must_use]
    pub fn bytes_in(&self, shape: &ModelShape, pool: PoolId) -> u64 {
        self.bytes(shape, pool, |_| true)
    }

    /// Layers on devices, the output counted as one.
    #[must_use]
    pub fn device_layers(&self) -> u32 {
        let dense = self.layers.iter().filter(|home| home.dense != PoolId::HOST).count();
        u32::try_from(dense).unwrap_or(u32::MAX) + u32::from(self.output != PoolId::HOST)
    }

    /// Where a tensor is at home.
    #[must_use]
    pub fn of(&self, tensor: &ModelTensor) -> PoolId {
        match (tensor.layer, tensor.role) {
            (None, TensorRole::Output | TensorRole::Norm) => self.output,
            (None, _) => PoolId::HOST,
            (Some(layer), role) => {
                // Layers of multi-token prediction are beyond the last.
                let home = self.layers.get(layer as usize).copied().unwrap_or_default();
                match role {
                    TensorRole::RoutedExpert(_) => home.experts,
                    // With whoever computes the experts.
                    _ if role.is_routed_expert() => self.experts_of(home),
                    _ => home.dense,
                }
            }
        }
    }

    /// Whose kernels compute the routed experts of a layer that is at home there.
    fn experts_of(&self, home: LayerHome) -> PoolId {
        if home.experts == PoolId::HOST { self.streamed_experts } else { home.experts }
    }

    /// Whether there is nothing at home anywhere else.
    #[must_use]
    pub fn are_on_host(&self) -> bool {
        let on_host = |home: &LayerHome| *home == LayerHome::default();
        [self.output, self.streamed_experts] == [PoolId::HOST; 2] && self.layers.iter().all(on_host)
    }

    /// Bytes of the tensors at home in a pool of which `counts` is true.
    pub(super) fn bytes(
        &self,
        shape: &ModelShape,
        pool: PoolId,
        counts: impl Fn(&ModelTensor) -> bool,
    ) -> u64 {
        let here = shape.tensors.iter().filter(|tensor| self.of(tensor) == pool && counts(tensor));
        here.fold(0, |sum, tensor| sum.saturating_add(tensor.info.bytes))
    }
}

/// The device at a share (0 to 1) of all budgets of devices together.
fn device_at(pools: &Pools, share: f64) -> PoolId {
    let total: f64 = pools.devices().map(|(_, pool)| pool.budget_bytes as f64).sum();
    let mut below = 0.0;
    let mut last = PoolId::HOST;
    for (id, pool) in pools.devices() {
        below += pool.budget_bytes as f64;
        last = id;
        if share * total < below {
            break;
        }
    }
    last
}
