//! Whole layers on other machines: how many, and which on which.
//!
//! A token passes each machine once and leaves it as one hidden state, so layers of a machine are neighbours,
//! and the last ones of the model go elsewhere, in the order of the machines. The projection to the
//! vocabulary stays on the host: its result is many times a hidden state. Layers go elsewhere until what is
//! left fits the host's memory, and no further; where the machines have no room for so many, as many as they
//! have room for, and what is left streams.

use super::homes::{Homes, LayerHome};
use super::ledger::{Basis, Entry, Ledger, Purpose};
use super::pool::{PoolId, Pools};
use super::request::Constraints;
use crate::model::ModelShape;

/// What a machine has room for.
#[derive(Clone)]
struct Room {
    pool: PoolId,
    /// Bytes for weights and KV cache.
    bytes: u64,
}

/// Dividing layers among machines.
#[derive(Clone)]
pub(super) struct Split<'a> {
    shape: &'a ModelShape,
    rooms: Vec<Room>,
    /// Bytes of the weights of each layer.
    layer_bytes: Vec<u64>,
    /// Bytes of the KV cache of a layer.
    kv_bytes: u64,
}

impl<'a> Split<'a> {
    /// One layer on each machine: what that needs, [`Self::new`] wants to know.
    pub fn probe(shape: &ModelShape, pools: &Pools) -> Homes {
        let mut homes = Homes::on_host(shape);
        let pools: Vec<PoolId> = pools.devices().map(|(pool, _)| pool).collect();
        for (home, pool) in homes.layers.iter_mut().rev().zip(pools.into_iter().rev()) {
            *home = LayerHome { dense: pool, experts: pool };
        }
        homes
    }

    /// `needs` is what llama.cpp needs with the homes of [`Self::probe`].
    pub fn new(shape: &'a ModelShape, pools: &Pools, needs: &Ledger) -> Self {
        let mut layer_bytes = vec![0_u64; shape.layers as usize];
        for tensor in &shape.tensors {
            let layer = tensor.layer.and_then(|layer| layer_bytes.get_mut(layer as usize));
            if let Some(bytes) = layer {
                *bytes = bytes.saturating_add(tensor.info.bytes);
            }
        }
        let kv = |pool| needs.bytes(pool, Purpose::Kv);
        let kv_bytes = pools.devices().map(|(pool, _)| kv(pool)).max().unwrap_or(0);
        let room = |(pool, of): (PoolId, &super::pool::Pool)| {
            let fixed = needs.pool_bytes(pool).saturating_sub(kv(pool));
            Room { pool, bytes: of.budget_bytes.saturating_sub(fixed) }
        };
        Self { shape, rooms: pools.devices().map(room).collect(), layer_bytes, kv_bytes }
    }

    /// As many layers as there is room for.
    pub fn most_layers(&self) -> u32 {
        let fits = |layers: &u32| self.assigned(*layers).is_some();
        (1..=self.shape.layers).take_while(fits).last().unwrap_or(0)
    }

    /// The fewest layers, at most `most`, with which what is left fits the host; `most` where nothing does.
    pub fn enough(&self, most: u32, on_host: &Constraints, fits: impl Fn(&Constraints) -> bool) -> u32 {
        (1..=most).find(|layers| fits(&self.estimated(*layers, on_host))).unwrap_or(most)
    }

    /// What is left to keep to with the last `layers` layers on machines, estimated.
    pub fn estimated(&self, layers: u32, on_host: &Constraints) -> Constraints {
        let kv = on_host.needs.bytes(PoolId::HOST, Purpose::Kv);
        let mut needs = on_host.needs.clone();
        let gone = kv / u64::from(self.shape.layers.max(1)) * u64::from(layers);
        let (pool, purpose, basis) = (PoolId::HOST, Purpose::Kv, Basis::Estimated);
        needs.set(Entry { pool, purpose, bytes: kv.saturating_sub(gone), basis });
        Constraints { needs, homes: self.homes(layers), ..on_host.clone() }
    }

    /// The machines that layers may go to.
    pub fn machines(&self) -> Vec<PoolId> {
        self.rooms.iter().map(|room| room.pool).collect()
    }

    /// The same without a machine.
    pub fn without(&self, pool: PoolId) -> Self {
        let mut split = self.clone();
        split.rooms.retain(|room| room.pool != pool);
        split
    }

    /// The last `layers` layers on machines; all of them on the host where there is no room for so many.
    pub fn homes(&self, layers: u32) -> Homes {
        let mut homes = Homes::on_host(self.shape);
        let pools = self.assigned(layers).unwrap_or_default();
        let first = homes.layers.len().saturating_sub(pools.len());
        for (home, pool) in homes.layers.iter_mut().skip(first).zip(pools) {
            *home = LayerHome { dense: pool, experts: pool };
        }
        homes
    }

    /// Where each of the last `layers` layers goes; `None` where there is no room.
    fn assigned(&self, layers: u32) -> Option<Vec<PoolId>> {
        let first = self.layer_bytes.len().checked_sub(layers as usize)?;
        let mut rooms = self.rooms.iter();
        let mut room = rooms.next()?;
        let mut left = room.bytes;
        let mut pools = Vec::with_capacity(layers as usize);
        for bytes in self.layer_bytes.get(first..)? {
            let needed = bytes.saturating_add(self.kv_bytes);
            while needed > left {
                room = rooms.next()?;
                left = room.bytes;
            }
            left -= needed;
            pools.push(room.pool);
        }
        Some(pools)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{merge, read_header};
    use crate::plan::{ContextShape, ExpertLayout, Mode, PlanRequest, Residency, settle};
    use crate::synth::{Shape, SynthOptions, SynthPlan};
    use std::convert::Infallible;

    fn shape(of: Shape) -> ModelShape {
        let synth = SynthPlan::new(&SynthOptions::new(of, of.usual_quant())).unwrap();
        let shard = &synth.shards()[0];
        let header = read_header(shard.header.as_slice(), shard.file_bytes).unwrap();
        ModelShape::from_gguf(&merge(vec![header], vec![shard.file_bytes]).unwrap()).unwrap()
    }

    fn settled(shape: &ModelShape, pools: Pools) -> crate::plan::Plan {
        let tables = Residency::Resident;
        let request = PlanRequest { pools, tables, ..PlanRequest::default() };
        let needs = |_: &ContextShape, _: &Homes| Ok::<_, Infallible>(Ledger::new());
        settle(shape, &ExpertLayout::new(shape), &request, needs).unwrap().plan
    }

    fn experts_here(plan: &crate::plan::Plan) -> usize {
        plan.homes.layers.iter().filter(|home| home.dense == PoolId::HOST).count()
    }

    #[test]
    fn no_more_layers_go_to_workers_than_make_the_rest_fit() {
        for of in [Shape::TinyMixtral, Shape::TinyLlama] {
            let shape = shape(of);
            let total = shape.total_bytes();
            let all_here = settled(&shape, Pools::host(total).with_worker(total));
            assert!(all_here.homes.are_on_host(), "what fits here needs no other machine");
            let some = settled(&shape, Pools::host(total - 1).with_worker(total));
            assert_eq!(some.mode(), Mode::FullResident);
            assert_eq!(some.homes.device_layers(), 1, "one layer is enough: {:?}", some.homes);
            assert_eq!(some.homes.output, PoolId::HOST, "logits are many times a hidden state");
            let home = some.homes.layers.last().unwrap();
            assert_eq!((home.dense, home.experts), (PoolId::DEVICE, PoolId::DEVICE), "a whole layer");
        }
    }

    #[test]
    fn a_model_of_which_only_tables_stream_moves_no_layer() {
        let shape = shape(Shape::Qwen2_5_14b);
        let pools = Pools::host(shape.total_bytes() - 1).with_worker(shape.total_bytes());
        let needs = |_: &ContextShape, _: &Homes| Ok::<_, Infallible>(Ledger::new());
        let of = |tables| {
            let request = PlanRequest { pools: pools.clone(), tables, ..PlanRequest::default() };
            settle(&shape, &ExpertLayout::new(&shape), &request, needs).unwrap().plan
        };
        assert_eq!(of(Residency::Resident).homes.device_layers(), 1, "otherwise one would");
        let plan = of(Residency::Auto);
        assert_eq!((plan.mode(), plan.homes.device_layers()), (Mode::TableStreaming, 0));
    }

    #[test]
    fn layers_of_a_machine_are_neighbours_and_no_budget_is_exceeded() {
        let shape = shape(Shape::TinyMixtral);
        let layer: u64 =
            shape.tensors.iter().filter(|tensor| tensor.layer == Some(0)).map(|t| t.info.bytes).sum();
        let host = shape.total_bytes() - layer * 2;
        let plan = settled(&shape, Pools::host(host).with_worker(layer * 5 / 4).with_worker(layer * 5 / 4));
        let pools: Vec<usize> = plan.homes.layers.iter().map(|home| home.dense.index()).collect();
        let mut sorted = pools.clone();
        sorted.sort_unstable();
        assert_eq!(pools, sorted, "each machine is passed once");
        assert_eq!(pools.iter().filter(|pool| **pool > 0).count(), 2, "{pools:?}");
        assert_eq!(plan.ledger.exceeded(&plan.pools), None);
        assert_eq!(experts_here(&plan), shape.layers as usize - 2);
    }

    #[test]
    fn what_fits_nowhere_streams_and_only_what_is_at_home_here_gets_slots() {
        let shape = shape(Shape::TinyMixtral);
        let layout = ExpertLayout::new(&shape);
        let layer: u64 =
            shape.tensors.iter().filter(|tensor| tensor.layer == Some(0)).map(|t| t.info.bytes).sum();
        let host = shape.total_bytes() - layout.total_bytes() + layout.total_bytes() / 4;
        let plan = settled(&shape, Pools::host(host).with_worker(layer * 5 / 4));
        assert_eq!(plan.homes.device_layers(), 1);
        assert_eq!(plan.mode(), Mode::ExpertStreaming);
        let here = layout.on_host(&plan.homes);
        assert_eq!(here.layers.len() + 1, layout.layers.len());
        let slots: u64 = plan.slots(&layout).iter().map(|slots| u64::from(*slots)).sum();
        assert!(slots > 0 && slots <= here.classes.iter().map(|class| class.experts).sum());
    }
}
