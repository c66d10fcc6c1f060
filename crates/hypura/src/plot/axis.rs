//! Round numbers for axes.

/// About this many intervals.
const INTERVALS: f64 = 5.0;

/// The scale of one axis: from 0 in equal steps of a round number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    step: f64,
    /// Number of steps.
    pub count: usize,
    decimals: usize,
}

impl Scale {
    /// The scale whose last tick is the first at or above `reach`.
    pub fn reaching(reach: f64) -> Self {
        let reach = if reach.is_finite() && reach > 0.0 { reach.max(1e-9) } else { 1.0 };
        let magnitude = 10f64.powf((reach / INTERVALS).log10().floor());
        let fits = |factor: &f64| reach / (factor * magnitude) <= INTERVALS + 0.5;
        let step = [1.0, 2.0, 5.0].into_iter().find(fits).unwrap_or(10.0) * magnitude;
        // Not one step more for what is only rounding.
        let count = ((reach / step) - 1e-9).ceil().max(1.0) as usize;
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        Self { step, count, decimals }
    }

    /// The last tick.
    pub fn end(self) -> f64 {
        self.step * self.count as f64
    }

    /// Value and text of each tick.
    pub fn ticks(self) -> impl Iterator<Item = (f64, String)> {
        (0..=self.count).map(move |index| {
            let value = self.step * index as f64;
            (value, format!("{value:.*}", self.decimals))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(reach: f64) -> String {
        Scale::reaching(reach).ticks().map(|(_, text)| text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ticks_are_round_and_reach_what_they_must() {
        assert_eq!(texts(100.0), "0 20 40 60 80 100");
        assert_eq!(texts(50.0), "0 10 20 30 40 50");
        assert_eq!(texts(3.1), "0 1 2 3 4");
        assert_eq!(texts(0.7), "0.0 0.2 0.4 0.6 0.8");
        assert_eq!(texts(1234.0), "0 500 1000 1500");
        for reach in [1e-6, 0.013, 0.3, 1.0, 7.7, 99.0, 101.0, 5e9] {
            let scale = Scale::reaching(reach);
            assert!(scale.end() >= reach * 0.999_999 && scale.end() <= reach * 2.0, "{reach}: {scale:?}");
            assert!((2..=6).contains(&scale.count), "{reach}: {scale:?}");
        }
    }

    #[test]
    fn nothing_to_show_is_still_an_axis() {
        for reach in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Scale::reaching(reach), Scale::reaching(1.0));
        }
    }
}
