//! Acceptance that a benchmark forces: models of random weights agree with no draft.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The probability that the draft at each position comes true, given that all before it did. Further
/// positions are like the last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcceptanceCurve(Vec<f64>);

impl AcceptanceCurve {
    /// The probability at a position, from 0.
    #[must_use]
    pub fn at(&self, position: usize) -> f64 {
        self.0.get(position).or(self.0.last()).copied().unwrap_or(0.0)
    }
}

impl FromStr for AcceptanceCurve {
    type Err = String;

    /// `0.88`, or `0.9,0.85,0.7`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let probability = |part: &str| {
            let number = part.trim().parse::<f64>().ok().filter(|number| (0.0..=1.0).contains(number));
            number.ok_or_else(|| format!("`{part}` is no probability between 0 and 1"))
        };
        text.split(',').map(probability).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for AcceptanceCurve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_goes_on_as_it_ends_and_reads_what_it_writes() {
        let curve: AcceptanceCurve = "0.9, 0.5".parse().unwrap();
        assert_eq!([curve.at(0), curve.at(1), curve.at(9)], [0.9, 0.5, 0.5]);
        assert_eq!(curve.to_string().parse(), Ok(curve));
        for bad in ["", "1.1", "-0.1", "x", "0.5,,0.5", "NaN"] {
            assert!(bad.parse::<AcceptanceCurve>().is_err(), "{bad}");
        }
    }
}
