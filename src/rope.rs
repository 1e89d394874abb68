//! Rotary position embedding: the frequencies of every form that GGUF files state, computed once on the host.

use std::f64::consts::PI;

/// Which two elements of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pairing {
    /// Neighbours, `(x[2i], x[2i + 1])`: architecture `llama` in GGUF, whose converter permutes the rows for it.
    Interleaved,
    /// `(x[i], x[i + dim / 2])`, called NeoX in ggml: the layout of Hugging Face's checkpoints.
    Half,
}

/// How the frequencies of a model trained on a short context are stretched over a longer one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// Every position divided by `factor`.
    Linear {
        /// New context length over the original one.
        factor: f32,
    },
    /// YaRN (Peng et al. 2023, arXiv 2309.00071): slow frequencies are interpolated, fast ones kept, attention sharpened.
    Yarn {
        /// New context length over the original one.
        factor: f32,
        /// Positions that the frequencies were trained on.
        original_context: usize,
        /// Frequencies that turn at least this often over the original context are kept.
        beta_fast: f32,
        /// Frequencies that turn at most this often over the original context are interpolated.
        beta_slow: f32,
        /// Multiplies the magnitude that follows from `factor`.
        attn_factor: f32,
    },
}

/// A model's rotary embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Frequency `i` is `base^(-2i / dim)` before scaling.
    pub base: f32,
    /// Leading elements of a head that turn; even, at most the head's size.
    pub dim: usize,
    /// Which two elements turn together.
    pub pairing: Pairing,
    /// Stretching over a longer context.
    pub scaling: Scaling,
    /// Whether the file holds divisors of the frequencies, tensor `rope_freqs.weight` (Llama 3.1's scaling).
    pub has_factors: bool,
}

impl Rope {
    /// Inverse frequencies `[dim / 2]` in radians per position, and the magnitude that the turned elements of queries
    /// and keys are multiplied by. `factors` (`rope_freqs.weight`, `[dim / 2]`) divide the frequencies; a frequency past
    /// their end is left as it is. Computed in f64, as ggml's `rope_yarn` and `ggml_rope_yarn_corr_dims` define it.
    ///
    /// ```
    /// use anygpu::rope::{Pairing, Rope, Scaling};
    /// let rope = Rope { base: 10000.0, dim: 4, pairing: Pairing::Interleaved, scaling: Scaling::None, has_factors: false };
    /// assert_eq!(rope.frequencies(None), (vec![1.0, 0.01], 1.0));
    /// ```
    pub fn frequencies(&self, factors: Option<&[f32]>) -> (Vec<f32>, f32) {
        let extrapolated = (0..self.dim / 2).map(|i| {
            let factor = factors.and_then(|factors| factors.get(i)).copied().unwrap_or(1.0);
            f64::from(self.base).powf(-2.0 * i as f64 / self.dim as f64) / f64::from(factor)
        });
        match self.scaling {
            Scaling::None => (extrapolated.map(|frequency| frequency as f32).collect(), 1.0),
            Scaling::Linear { factor } => {
                (extrapolated.map(|frequency| (frequency / f64::from(factor)) as f32).collect(), 1.0)
            }
            Scaling::Yarn { factor, original_context, beta_fast, beta_slow, attn_factor } => {
                // The real-valued index of the frequency that turns `beta` times over the original context.
                let correction = |beta: f32| {
                    let turns = original_context as f64 / (f64::from(beta) * 2.0 * PI);
                    self.dim as f64 * turns.ln() / (2.0 * f64::from(self.base).ln())
                };
                let low = correction(beta_fast).floor().max(0.0);
                let high = correction(beta_slow).ceil().min(self.dim as f64 - 1.0);
                let frequencies = extrapolated.enumerate().map(|(i, frequency)| {
                    let ramp = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                    (frequency / f64::from(factor) * ramp + frequency * (1.0 - ramp)) as f32
                });
                let magnitude = f64::from(attn_factor) * (1.0 + 0.1 * f64::from(factor).ln());
                (frequencies.collect(), magnitude as f32)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(base: f32, dim: usize, scaling: Scaling) -> Rope {
        Rope { base, dim, pairing: Pairing::Interleaved, scaling, has_factors: false }
    }

    /// ggml's own loop (`ggml_rope_cache_init`, `rope_yarn`), term by term in f64: the angle at position 1.
    fn ggml(rope: &Rope, factors: &[f64]) -> (Vec<f64>, f64) {
        let (scale, ext, n_ctx, fast, slow, attn) = match rope.scaling {
            Scaling::None => (1.0, 0.0, 0.0, 0.0, 0.0, 1.0),
            Scaling::Linear { factor } => (1.0 / f64::from(factor), 0.0, 0.0, 0.0, 0.0, 1.0),
            Scaling::Yarn { factor, original_context, beta_fast, beta_slow, attn_factor } => (
                1.0 / f64::from(factor),
                1.0,
                original_context as f64,
                f64::from(beta_fast),
                f64::from(beta_slow),
                f64::from(attn_factor),
            ),
        };
        let (dim, base) = (rope.dim as f64, f64::from(rope.base));
        let corr_dim = |rotations: f64| dim * (n_ctx / (rotations * 2.0 * PI)).ln() / (2.0 * base.ln());
        let theta_scale = base.powf(-2.0 / dim);
        let (mut theta, mut mscale) = (1.0, attn);
        let mut angles = Vec::new();
        for i0 in (0..rope.dim).step_by(2) {
            let extrapolated = theta / factors[i0 / 2];
            let interpolated = scale * extrapolated;
            angles.push(if ext == 0.0 {
                interpolated
            } else {
                let (low, high) = (corr_dim(fast).floor().max(0.0), corr_dim(slow).ceil().min(dim - 1.0));
                let y = ((i0 / 2) as f64 - low) / (high - low).max(0.001);
                let mix = 1.0 - y.clamp(0.0, 1.0);
                interpolated * (1.0 - mix) + extrapolated * mix
            });
            theta *= theta_scale;
        }
        if ext != 0.0 {
            mscale *= 1.0 + 0.1 * (1.0 / scale).ln();
        }
        (angles, mscale)
    }

    #[test]
    fn frequencies_are_ggmls() {
        let yarn = |factor, original_context| Scaling::Yarn {
            factor,
            original_context,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attn_factor: 1.25,
        };
        let llama3: Vec<f32> = (0..64).map(|i| 1.0 + 7.0 * (i as f32 / 63.0)).collect();
        let cases: [(&str, Rope, Option<&[f32]>); 6] = [
            ("plain", rope(10_000.0, 128, Scaling::None), None),
            ("small head", rope(10_000.0, 8, Scaling::None), None),
            ("linear", rope(10_000.0, 128, Scaling::Linear { factor: 4.0 }), None),
            ("yarn", rope(10_000.0, 128, yarn(16.0, 4096)), None),
            ("factors", rope(500_000.0, 128, Scaling::None), Some(&llama3)),
            ("yarn and factors", rope(500_000.0, 128, yarn(4.0, 8192)), Some(&llama3)),
        ];
        for (name, rope, factors) in cases {
            let (found, magnitude) = rope.frequencies(factors);
            let factors: Vec<f64> =
                (0..rope.dim / 2).map(|i| factors.map_or(1.0, |factors| f64::from(factors[i]))).collect();
            let (expected, expected_magnitude) = ggml(&rope, &factors);
            assert_eq!(found.len(), expected.len(), "{name}");
            // Both are computed in f64: they differ by the rounding to f32, 2^-24, and little else.
            assert!((f64::from(magnitude) / expected_magnitude - 1.0).abs() < 1e-7, "{name}: magnitude {magnitude}");
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!((f64::from(*found) / expected - 1.0).abs() < 1e-7, "{name}, {i}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn yarn_keeps_fast_and_divides_slow_frequencies() {
        // Llama 2's head stretched 16-fold: 32 turns end at index 20 (floor of 20.9), 1 turn at 46 (ceiling of 45.03).
        let scaling =
            Scaling::Yarn { factor: 16.0, original_context: 4096, beta_fast: 32.0, beta_slow: 1.0, attn_factor: 1.0 };
        let plain = rope(10_000.0, 128, Scaling::None).frequencies(None).0;
        let (stretched, magnitude) = rope(10_000.0, 128, scaling).frequencies(None);
        assert_eq!(stretched[20], plain[20]);
        assert_ne!(stretched[21], plain[21]);
        assert_eq!(stretched[46], plain[46] / 16.0);
        assert_ne!(stretched[45], plain[45] / 16.0);
        // 0.1 · ln 16 + 1, in f32.
        assert_eq!(magnitude, 1.277_258_9);
    }
}
