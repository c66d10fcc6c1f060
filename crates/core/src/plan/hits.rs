//! Share of expert lookups that find their expert in memory, as a function of how many experts there is room
//! for.
//!
//! With independent, uniform routing the share is the share of experts in memory, and no policy can do
//! better. Routers of real models are skewed and repeat themselves, so a cache does much better, and how much
//! depends on its size in *tokens' worth*: room for every expert that one token uses in every layer is 1. In
//! that unit the traces of models with very different numbers of experts fall close together (which as a
//! function of the plain share they do not).

use crate::model::ModelShape;
use crate::profile::interpolate;
use crate::synth::SYNTHETIC_NAME;

/// What is assumed of the model's router.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Routing {
    /// Like the routers whose traces were replayed: [`TRACED`], with [`TRACED_LOW`] and [`TRACED_HIGH`] as
    /// the band.
    #[default]
    Traced,
    /// Like the random routers of `hypura synth`: [`SYNTHETIC`].
    Synthetic,
    /// Independent and uniform: the share of experts in memory. The worst case.
    Uniform,
    /// Known, because it was measured: 0 to 1.
    Known(f64),
}

/// Low, expected and high share of hits, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HitRate {
    /// The least that is likely.
    pub low: f64,
    /// Expected.
    pub mid: f64,
    /// The most that is likely.
    pub high: f64,
}

/// (tokens' worth, hit rate) of LFRU over the generated tokens of recorded traces: Qwen3-30B-A3B (48 layers,
/// 6 of 128 experts, 156 tokens) and OLMoE 1B-7B (16 layers, 8 of 64, 299 tokens)
/// from <https://github.com/Helldez/BigMoeOnEdge> and <https://github.com/sqliteai/waste>, replayed by
/// `examples/replay.rs` at 2.5, 5, 10, 25, 50 and 75% of the experts. Points of both models, smoothed to be
/// concave; neither is off by more than 0.05.
const TRACED: &[(f64, f64)] = &[
    (0.2, 0.12),
    (0.4, 0.23),
    (0.53, 0.28),
    (0.8, 0.37),
    (1.07, 0.43),
    (2.0, 0.60),
    (4.0, 0.81),
    (6.0, 0.90),
    (10.0, 0.965),
    (16.0, 0.98),
];

/// The least of any trace: gpt-oss-120b (36 layers, 2 of 128, 149 tokens), whose few lookups a token are
/// diverse and whose trace is short enough for first uses to count; OLMoE below 1.5 tokens' worth.
const TRACED_LOW: &[(f64, f64)] =
    &[(0.2, 0.107), (0.8, 0.30), (1.6, 0.36), (3.2, 0.50), (6.4, 0.65), (16.0, 0.81), (32.0, 0.89)];

/// Belady's policy on the same two traces as [`TRACED`]: no policy does better.
const TRACED_HIGH: &[(f64, f64)] = &[
    (0.2, 0.16),
    (0.53, 0.41),
    (1.07, 0.58),
    (2.0, 0.76),
    (4.0, 0.91),
    (5.3, 0.93),
    (6.0, 0.966),
    (10.0, 0.98),
];

/// Shares of the experts in memory that [`SYNTHETIC`] is given for.
const SYNTHETIC_FRACTIONS: [f64; 10] = [0.0, 0.05, 0.1, 0.2, 0.286, 0.4, 0.548, 0.7, 0.85, 1.0];

/// (share of the experts that a token uses, hit rates at [`SYNTHETIC_FRACTIONS`]) of LFRU with the routers of
/// `hypura synth`, whose rows are of different lengths, so that some experts are chosen more often than
/// others, but token after token independently: replays of drawn routes with 2 of 8, 8 of 128, 4 of 128 and 8
/// of 384 experts. Two runs of the engine with 8 of 128 hit 0.523 at 0.286 and 0.819 at 0.548, 0.02 on
/// average above the drawn ones; that line is between both.
const SYNTHETIC: [(f64, [f64; 10]); 4] = [
    (8.0 / 384.0, [0.0, 0.112, 0.226, 0.426, 0.59, 0.752, 0.89, 0.96, 0.99, 1.0]),
    (4.0 / 128.0, [0.0, 0.095, 0.19, 0.374, 0.525, 0.696, 0.853, 0.95, 0.99, 1.0]),
    (8.0 / 128.0, [0.0, 0.088, 0.18, 0.355, 0.498, 0.65, 0.814, 0.93, 0.985, 1.0]),
    (2.0 / 8.0, [0.0, 0.05, 0.102, 0.212, 0.302, 0.424, 0.584, 0.738, 0.88, 1.0]),
];

impl Routing {
    /// What to assume of a model: synthetic ones say so in their name.
    #[must_use]
    pub fn of(shape: &ModelShape) -> Self {
        let synthetic = shape.name.as_deref().is_some_and(|name| name.ends_with(SYNTHETIC_NAME));
        if synthetic { Self::Synthetic } else { Self::Traced }
    }

    /// The hit rate with room for `fraction` (0 to 1) of the experts, of which each token uses `used_share`
    /// (0 to 1) in every layer. Never falls with `fraction`; 1 at 1.
    #[must_use]
    pub fn hit_rate(self, fraction: f64, used_share: f64) -> HitRate {
        let fraction = fraction.clamp(0.0, 1.0);
        match self {
            Self::Uniform => HitRate { low: fraction, mid: fraction, high: fraction },
            Self::Known(rate) => {
                let rate = if fraction >= 1.0 { 1.0 } else { rate.clamp(0.0, 1.0) };
                HitRate { low: rate, mid: rate, high: rate }
            }
            Self::Synthetic => {
                let mid = synthetic(fraction, used_share);
                HitRate { low: mid, mid, high: mid }
            }
            Self::Traced => {
                let at = |curve| traced(curve, fraction, used_share);
                let mid = at(TRACED);
                HitRate { low: at(TRACED_LOW).min(mid), mid, high: at(TRACED_HIGH).max(mid) }
            }
        }
    }
}

/// A curve at a share of experts: straight from the origin to its first point, and never below uniform
/// routing, which carries it to 1 where everything fits.
fn traced(curve: &[(f64, f64)], fraction: f64, used_share: f64) -> f64 {
    if fraction <= 0.0 || used_share <= 0.0 {
        return fraction;
    }
    let tokens_worth = fraction / used_share;
    let first = curve.first().copied().unwrap_or((1.0, 0.0));
    let hit = if tokens_worth < first.0 {
        first.1 * tokens_worth / first.0
    } else {
        interpolate(curve, tokens_worth).unwrap_or(0.0)
    };
    hit.max(fraction).min(1.0)
}

/// Between the curves (linear in the logarithm of the share that is used) and on each of them (linear).
fn synthetic(fraction: f64, used_share: f64) -> f64 {
    let on = |curve: &[f64; 10]| {
        let above = SYNTHETIC_FRACTIONS.iter().position(|at| *at >= fraction).unwrap_or(9).max(1);
        let (low, high) = (SYNTHETIC_FRACTIONS[above - 1], SYNTHETIC_FRACTIONS[above]);
        curve[above - 1] + (curve[above] - curve[above - 1]) * (fraction - low) / (high - low)
    };
    let points = SYNTHETIC.each_ref().map(|(used, curve)| (*used, on(curve)));
    interpolate(&points, used_share).unwrap_or(fraction).max(fraction).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mid(fraction: f64, used: f64, experts: f64) -> f64 {
        Routing::Traced.hit_rate(fraction, used / experts).mid
    }

    #[test]
    fn the_curve_is_near_the_replays_it_came_from() {
        // examples/replay.rs, LFRU, generated tokens.
        let qwen = [(0.025, 0.266), (0.05, 0.404), (0.10, 0.585), (0.25, 0.845), (0.5, 0.966)];
        let olmoe =
            [(0.025, 0.107), (0.05, 0.232), (0.10, 0.388), (0.25, 0.617), (0.5, 0.823), (0.75, 0.945)];
        for (fraction, hit) in qwen {
            assert!((mid(fraction, 6.0, 128.0) - hit).abs() <= 0.05, "qwen3 at {fraction}");
        }
        for (fraction, hit) in olmoe {
            assert!((mid(fraction, 8.0, 64.0) - hit).abs() <= 0.05, "olmoe at {fraction}");
        }
        // The third trace is the lower edge of the band.
        let gpt_oss = [(0.025, 0.315), (0.05, 0.474), (0.10, 0.627), (0.25, 0.808), (0.5, 0.891)];
        for (fraction, hit) in gpt_oss {
            let rate = Routing::Traced.hit_rate(fraction, 2.0 / 128.0);
            assert!((rate.low - hit).abs() <= 0.06, "gpt-oss at {fraction}: {rate:?}");
        }
    }

    #[test]
    fn more_room_never_hits_less_and_the_band_holds_its_middle() {
        for (used, experts) in [(2.0, 8.0), (8.0, 128.0), (8.0, 384.0), (4.0, 128.0), (1.0, 1.0)] {
            let mut last = HitRate { low: 0.0, mid: 0.0, high: 0.0 };
            for step in 0..=1000 {
                let fraction = f64::from(step) / 1000.0;
                let rate = Routing::Traced.hit_rate(fraction, used / experts);
                assert!(rate.low >= last.low && rate.mid >= last.mid && rate.high >= last.high, "{rate:?}");
                assert!(fraction <= rate.low && rate.low <= rate.mid && rate.mid <= rate.high);
                last = rate;
            }
            assert_eq!(last, HitRate { low: 1.0, mid: 1.0, high: 1.0 });
        }
    }

    #[test]
    fn synthetic_routers_are_skewed_and_do_not_repeat_themselves() {
        let hit = |fraction, used| Routing::Synthetic.hit_rate(fraction, used).mid;
        assert!((hit(0.286, 8.0 / 128.0) - 0.523).abs() < 0.03);
        assert!((hit(0.548, 8.0 / 128.0) - 0.819).abs() < 0.01);
        assert!(hit(0.286, 2.0 / 8.0) < 0.31 && hit(0.286, 8.0 / 384.0) > 0.58);
        for used in [0.001, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0] {
            let rates: Vec<f64> = (0..=1000).map(|step| hit(f64::from(step) / 1000.0, used)).collect();
            assert!(rates.is_sorted() && rates[1000] == 1.0 && rates[0] == 0.0, "{used}");
        }
    }

    #[test]
    fn few_large_experts_hit_little_more_than_their_share() {
        let mixtral = mid(0.5, 2.0, 8.0);
        assert!((0.5..0.65).contains(&mixtral), "{mixtral}");
    }

    #[test]
    fn what_is_known_is_not_guessed() {
        assert_eq!(Routing::Known(0.7).hit_rate(0.1, 0.1).mid, 0.7);
        assert_eq!(Routing::Known(0.7).hit_rate(1.0, 0.1).mid, 1.0);
        assert_eq!(Routing::Uniform.hit_rate(0.3, 0.1).high, 0.3);
    }
}
