//! Why a plan is as it is, in a sentence for people: of the whole, and of each group of weights.

use super::{ExpertLayout, Mode, Plan, PoolId, Purpose, RoleGroup, TierBytes, human_bytes};
use crate::model::ModelShape;

/// Why the plan has its mode.
#[must_use]
pub fn mode_reason(shape: &ModelShape, plan: &Plan) -> String {
    let (weights, budget) = (human_bytes(shape.total_bytes()), human_bytes(plan.budget_bytes()));
    let used = format!("a token uses {} of {} experts of a layer", shape.experts_used, shape.experts);
    if plan.mode() != Mode::FullResident && would_fit(shape, plan) {
        return format!(
            "All {weights} of weights would fit into the {budget} that may be used: they stream because that was asked for."
        );
    }
    match plan.mode() {
        Mode::FullResident if plan.homes.are_on_host() => {
            format!(
                "All {weights} of weights fit into the {budget} that may be used, so nothing is read while it runs."
            )
        }
        Mode::FullResident if plan.pools.has_workers() => {
            format!(
                "All {weights} of weights fit into the {budget} that may be used here and the memory of workers, so nothing is \
                 read while it runs."
            )
        }
        Mode::FullResident => {
            format!(
                "All {weights} of weights fit into the memory of the device and the {budget} of the host."
            )
        }
        Mode::TableStreaming => format!(
            "{weights} of weights do not fit into {budget}, and a token reads only a row or a few of embedding tables: these are \
             read by the row, everything else stays in memory."
        ),
        Mode::ExpertStreaming => format!(
            "{weights} of weights do not fit into {budget}. What every token needs does, and {used}: so experts stream, and \
             those used most stay in memory."
        ),
        Mode::DenseStreaming => format!(
            "{weights} of weights do not fit into {budget}, and every token uses all of them: as many as fit stay, the rest is \
             read in its order for each token."
        ),
        Mode::MixedStreaming => format!(
            "{weights} of weights do not fit into {budget}, nor does what every token needs: that comes first, because a byte \
             of it in memory is a byte less for every token, and experts get what is left."
        ),
    }
}

/// Whether all weights would have room on the host beside what else the plan has there.
fn would_fit(shape: &ModelShape, plan: &Plan) -> bool {
    const BESIDE: [Purpose; 6] =
        [Purpose::Kv, Purpose::Compute, Purpose::Process, Purpose::Driver, Purpose::Media, Purpose::Draft];
    let beside: u64 = BESIDE.iter().map(|purpose| plan.ledger.bytes(PoolId::HOST, *purpose)).sum();
    shape.total_bytes().saturating_add(beside) <= plan.budget_bytes()
}

/// Why the weights of a group are where they are.
#[must_use]
pub fn group_reason(
    group: RoleGroup,
    bytes: &TierBytes,
    shape: &ModelShape,
    layout: &ExpertLayout,
    plan: &Plan,
) -> String {
    if bytes.streamed_bytes > 0 && group == RoleGroup::RoutedExperts {
        return experts_reason(shape, layout, plan);
    }
    if bytes.streamed_bytes > 0 && group == RoleGroup::Embedding {
        let rows: u64 = plan.streamed_tables().iter().map(|table| u64::from(table.rows_per_token)).sum();
        return format!(
            "A token reads {rows} of its rows: they are read from the disk when a step begins, and its memory serves others."
        );
    }
    if bytes.streamed_bytes > 0 {
        let stays = human_bytes(bytes.resident_bytes + bytes.device_bytes);
        let streams = human_bytes(bytes.streamed_bytes);
        return format!(
            "Every token uses all of it. {stays} stay, spread evenly over the layers; {streams} are read for each token, in \
             the order in which they are used, so that the disk never waits."
        );
    }
    let place = if plan.pools.has_workers() && bytes.device_bytes > 0 {
        "With whoever computes the layer, here or on a worker"
    } else {
        place_of(bytes)
    };
    let why = match group {
        RoleGroup::RoutedExperts => "there is room for all of them",
        RoleGroup::Embedding => "each token looks up a row of it",
        RoleGroup::Output => "every token is compared with all of it",
        RoleGroup::Router => "every token asks it which experts it needs; it is small",
        RoleGroup::SharedExperts => "every token passes them, whichever others it needs",
        RoleGroup::Attention | RoleGroup::FeedForward => "every token uses all of it",
        RoleGroup::Other => "every token uses it, and it is too small to be worth a read",
    };
    format!("{place}: {why}.")
}

const fn place_of(bytes: &TierBytes) -> &'static str {
    match (bytes.device_bytes > 0, bytes.resident_bytes > 0) {
        (true, true) => "On the device as far as layers fit there, otherwise in memory",
        (true, false) => "On the device",
        (false, _) => "In memory",
    }
}

fn experts_reason(shape: &ModelShape, layout: &ExpertLayout, plan: &Plan) -> String {
    let slots: u64 = plan.slots(layout).iter().map(|slots| u64::from(*slots)).sum();
    let experts: u64 = layout.classes.iter().map(|class| class.experts).sum();
    let percent = (plan.expert_fraction(layout) * 100.0).round();
    format!(
        "A token uses {} of {} in each layer, and mostly those that were used before: {slots} of {experts} ({percent}%) have \
         room in memory, and a missing one is read when it is needed, or before.",
        shape.experts_used, shape.experts
    )
}
