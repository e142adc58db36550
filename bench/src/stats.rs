//! Medians and spread of a few samples.

use serde::Serialize;

/// The middle and the quartiles of a set of samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) p25: f64,
    pub(crate) median: f64,
    pub(crate) p75: f64,
    pub(crate) samples: usize,
}

impl Spread {
    /// Returns the spread of the samples, `None` of no samples. Quantiles are interpolated linearly.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            p25: quantile(&sorted, 0.25)?,
            median: quantile(&sorted, 0.5)?,
            p75: quantile(&sorted, 0.75)?,
            samples: sorted.len(),
        })
    }
}

fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let position = q * (sorted.len().checked_sub(1)? as f64);
    let low = *sorted.get(position.floor() as usize)?;
    let high = *sorted.get(position.ceil() as usize)?;
    Some(low + (high - low) * position.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_interpolated() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((spread.p25, spread.median, spread.p75), (1.75, 2.5, 3.25));
    }

    #[test]
    fn one_sample_is_its_own_spread_and_none_has_no_spread() {
        let spread = Spread::of(&[7.0]).unwrap();
        assert_eq!((spread.p25, spread.median, spread.p75, spread.samples), (7.0, 7.0, 7.0, 1));
        assert_eq!(Spread::of(&[]), None);
    }
}
