//! Order statistics of small samples: medians and percentiles, never means, because one disturbed run must
//! not decide.

use serde::{Deserialize, Serialize};

/// The middle of a sample and how far it spreads.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The value in the middle.
    pub median: f64,
    /// A tenth of the values lies below.
    pub p10: f64,
    /// A tenth of the values lies above.
    pub p90: f64,
}

impl Spread {
    /// Of a sample; `None` when it is empty.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let sorted = sorted(values);
        Some(Self {
            median: percentile(&sorted, 50.0)?,
            p10: percentile(&sorted, 10.0)?,
            p90: percentile(&sorted, 90.0)?,
        })
    }
}

/// The median; `None` of nothing.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    percentile(&sorted(values), 50.0)
}

/// The values in ascending order; what is no number is left out.
#[must_use]
pub fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().filter(|value| !value.is_nan()).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Percentile of ascending values, interpolated between neighbours (definition 7 of Hyndman and Fan, 1996:
/// the one of numpy and of spreadsheets).
#[must_use]
pub fn percentile(sorted: &[f64], percent: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = percent.clamp(0.0, 100.0) / 100.0 * last as f64;
    let below = place.floor() as usize;
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    Some(low + (high - low) * (place - below as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_percentiles() {
        let values: Vec<f64> = (0..=10).map(f64::from).collect();
        assert_eq!(Spread::of(values.clone()), Some(Spread { median: 5.0, p10: 1.0, p90: 9.0 }));
        assert_eq!(percentile(&values, 99.0), Some(9.9));
        assert_eq!(median([4.0, 1.0]), Some(2.5));
        assert_eq!(median([7.0]), Some(7.0));
        assert_eq!(median([]), None);
        assert_eq!(Spread::of([f64::NAN]), None);
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_bounds_hold(mut values in prop::collection::vec(-1e6f64..1e6, 1..40)) {
            let spread = Spread::of(values.clone()).unwrap();
            values.reverse();
            prop_assert_eq!(Spread::of(values.clone()).unwrap(), spread);
            let sorted = sorted(values);
            prop_assert!(sorted[0] <= spread.p10 && spread.p10 <= spread.median);
            prop_assert!(spread.median <= spread.p90 && spread.p90 <= sorted[sorted.len() - 1]);
        }
    }
}
