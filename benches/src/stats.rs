//! Figures from samples: percentiles by nearest rank, and the median.

/// Percentile `percent` (0 to 100, exclusive) of `samples` in any order, by nearest rank: the smallest sample that at
/// least `percent` of all samples do not exceed. It is always a value that was measured, never an interpolation.
///
/// `None` when there are fewer samples than the percentile needs ([`samples_needed`]) or one of them is not finite.
pub fn percentile(samples: &[f64], percent: f64) -> Option<f64> {
    if !(percent > 0.0 && percent < 100.0) || samples.len() < samples_needed(percent) {
        return None;
    }
    let sorted = sorted(samples)?;
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// How many samples percentile `percent` needs before it is worth stating: so many that one of them is expected
/// beyond it. 2 for P50, 20 for P95, 100 for P99; with fewer it would be the maximum under another name.
pub fn samples_needed(percent: f64) -> usize {
    // The small term takes back what division adds: 100 / (100 - 95) must not become 21.
    (100.0 / (100.0 - percent) - 1e-9).ceil() as usize
}

/// The median of `samples` in any order: the middle one, or the mean of the middle two. `None` for no samples or for
/// one that is not finite.
pub fn median(samples: &[f64]) -> Option<f64> {
    let sorted = sorted(samples)?;
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The geometric mean of positive `values`, as ratios are averaged. `None` for no values or one that is not positive.
pub fn geometric_mean(values: &[f64]) -> Option<f64> {
    if values.is_empty() || values.iter().any(|v| !v.is_finite() || *v <= 0.0) {
        return None;
    }
    Some((values.iter().map(|v| v.ln()).sum::<f64>() / values.len() as f64).exp())
}

fn sorted(samples: &[f64]) -> Option<Vec<f64>> {
    if samples.iter().any(|s| !s.is_finite()) {
        return None;
    }
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some(sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks_and_unknown_from_few_samples() {
        let up_to = |n: usize| (1..=n).rev().map(|v| v as f64).collect::<Vec<_>>();
        let cases: &[(Vec<f64>, f64, Option<f64>)] = &[
            (up_to(0), 50.0, None),
            (up_to(1), 50.0, None),
            (up_to(2), 50.0, Some(1.0)),
            (up_to(5), 50.0, Some(3.0)),
            (up_to(5), 99.0, None),
            (up_to(19), 95.0, None),
            (up_to(20), 95.0, Some(19.0)),
            (up_to(99), 99.0, None),
            (up_to(100), 99.0, Some(99.0)),
            (up_to(128), 99.0, Some(127.0)),
            (up_to(128), 95.0, Some(122.0)),
            (vec![1.0, f64::NAN, 2.0], 50.0, None),
            (up_to(9), 0.0, None),
            (up_to(9), 100.0, None),
        ];
        for (samples, percent, expected) in cases {
            assert_eq!(percentile(samples, *percent), *expected, "P{percent} of {} samples", samples.len());
        }
    }

    #[test]
    fn a_percentile_needs_one_sample_beyond_it() {
        for (percent, expected) in [(50.0, 2), (90.0, 10), (95.0, 20), (99.0, 100)] {
            assert_eq!(samples_needed(percent), expected, "P{percent}");
        }
    }

    #[test]
    fn medians_and_means() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(geometric_mean(&[]), None);
        assert_eq!(geometric_mean(&[1.0, 0.0]), None);
        let mean = geometric_mean(&[0.5, 2.0, 1.0]).unwrap();
        // Three logarithms and one exponential, each within an ulp.
        assert!((mean - 1.0).abs() < 1e-12, "{mean}");
    }
}
