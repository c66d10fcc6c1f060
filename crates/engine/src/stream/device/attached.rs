//! The device that computes a context's experts, in one of two ways.

use hypura_ggml::{ExecError, GraphRun};
use std::ops::Range;

use super::counts::DeviceCounts;
use super::in_place::InPlace;
use super::in_place_work::InPlaceWork;
use super::side::DeviceSide;
use super::work::{DeviceWork, PartOp};
use crate::stream::expert_slots::ExpertSlots;
use crate::stream::landing::Landing;
use crate::stream::step::Step;

/// How a device computes experts.
pub(crate) enum ExpertDevice {
    /// From slots of its own, which uploads fill.
    Uploads(DeviceSide),
    /// From the host's slots, where they are.
    InPlace(InPlace),
}

impl ExpertDevice {
    /// Its slots, where it has some of its own.
    pub fn uploads(&self) -> Option<&DeviceSide> {
        match self {
            Self::Uploads(device) => Some(device),
            Self::InPlace(_) => None,
        }
    }

    /// Whether every expert of the model is where it computes: nothing is left to guess.
    pub fn holds_all(&self, host: &ExpertSlots) -> bool {
        match self {
            Self::Uploads(device) => device.holds_all(host.layout()),
            Self::InPlace(_) => host.holds_all(),
        }
    }

    /// What it did.
    pub fn counts(&self) -> DeviceCounts {
        match self {
            Self::Uploads(device) => device.counts,
            Self::InPlace(device) => device.counts,
        }
    }

    /// As [`Self::counts`], to be added to.
    pub fn counts_mut(&mut self) -> &mut DeviceCounts {
        match self {
            Self::Uploads(device) => &mut device.counts,
            Self::InPlace(device) => &mut device.counts,
        }
    }

    /// Launches one node.
    pub(in crate::stream) fn run_node(
        &mut self,
        landing: Landing<'_>,
        run: &mut GraphRun<'_>,
        step: &mut Step,
        op: PartOp,
    ) -> Result<(), ExecError> {
        match self {
            Self::Uploads(device) => DeviceWork { device, landing }.run_node(run, step, op),
            Self::InPlace(device) => InPlaceWork { device, landing }.run_node(run, step, op),
        }
    }

    /// Launches `nodes` of a step that computes with slots; `ops` are those of them that have experts as
    /// their weight.
    pub(in crate::stream) fn run_layer(
        &mut self,
        landing: Landing<'_>,
        run: &mut GraphRun<'_>,
        step: &mut Step,
        ops: &[PartOp],
        nodes: Range<usize>,
    ) -> Result<(), ExecError> {
        match self {
            Self::Uploads(device) => DeviceWork { device, landing }.run_layer(run, step, ops, nodes),
            Self::InPlace(device) => InPlaceWork { device, landing }.run_layer(run, step, ops, nodes),
        }
    }

    /// A layer has been launched; it keeps what it holds.
    ///
    /// # Errors
    /// [`ExecError::Misuse`], which no input causes.
    pub(in crate::stream) fn keep(&mut self, slots: &mut ExpertSlots, step: Step) -> Result<(), ExecError> {
        match self {
            Self::Uploads(device) => device.keep(slots, step),
            Self::InPlace(device) => {
                device.keep(step);
                Ok(())
            }
        }
    }

    /// Nothing is being computed any more: what layers before held is free.
    pub(in crate::stream) fn settle(&mut self) -> Vec<Step> {
        match self {
            Self::Uploads(device) => device.settle(),
            Self::InPlace(device) => device.settle(),
        }
    }

    /// Whether a step of so many tokens is computed over the host's slots, where all its experts have one.
    pub fn takes_host_slots(&self, tokens: usize) -> bool {
        match self {
            Self::Uploads(_) => false,
            Self::InPlace(_) => InPlace::takes_slots(tokens),
        }
    }
}
