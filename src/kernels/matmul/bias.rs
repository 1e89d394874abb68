//! `y[m, y_offset + n] = f(Σ_k x[m, k] · w[n, k] + bias[y_offset + n])`: [`Matmul`] with what follows a product in an
//! encoder, so that it takes no dispatch of its own.

use super::super::host::Host;
use super::super::kernel::{Binding, Kernel, Params, expect, expect_shape, read, write};
use super::super::q8::{Activations, BLOCK};
use super::super::testing::{Case, CaseBuilder, Compare};
use super::Matmul;
use crate::dtype::DType;
use crate::error::Result;
use crate::profile::Profile;
use crate::shader::Spec;
use crate::tensor::Tensor;

/// A matrix times many rows, plus a bias, through GELU where asked for.
#[derive(Clone, Debug)]
pub struct MatmulBias {
    /// The product; does not accumulate.
    pub matmul: Matmul,
    /// `bias[stride]`: one for each column of `y`.
    pub bias: Tensor,
    /// Whether `gelu(x) = x · Φ(x)` follows, Φ the normal distribution function.
    pub gelu: bool,
}

impl Kernel for MatmulBias {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn check(&self) -> Result<()> {
        self.matmul.check()?;
        expect_shape("matmul", "bias", self.bias.shape(), &[self.matmul.y.cols()])?;
        expect("matmul", !self.matmul.accumulate, || "accumulate with a bias: expected one of them".to_owned())
    }

    fn runs_on(&self, profile: &Profile) -> bool {
        self.matmul.runs_on(profile)
    }

    fn spec(&self, profile: &Profile) -> Spec {
        let finish = if self.gelu { "matmul/finish/bias_gelu" } else { "matmul/finish/bias" };
        self.matmul.spec(profile).slot("finish", finish)
    }

    fn params(&self) -> Params {
        self.matmul.params()
    }

    fn grid(&self, profile: &Profile, context: usize) -> [u32; 3] {
        self.matmul.grid(profile, context)
    }

    fn bindings(&self) -> Vec<Binding> {
        vec![read(&self.matmul.w), self.matmul.x.binding(false), read(&self.bias), write(&self.matmul.y)]
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let bias = host.floats(&self.bias)?;
        self.matmul.finished(host, |n, _, sum| {
            let sum = sum + f64::from(bias[n]);
            if self.gelu { gelu(sum) } else { sum }
        })
    }
}

/// `x · Φ(x)`.
fn gelu(x: f64) -> f64 {
    0.5 * x * libm::erfc(-x / std::f64::consts::SQRT_2)
}

/// Cases for the harness: tiles within `y` and over its edges, of every way that sums are written.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (dtype, [m, n, k], [y_offset, gap], gelu, halves) in [
        (DType::F16, [130, 200, 72], [0, 0], true, false),
        (DType::F16, [128, 384, 64], [0, 0], false, false),
        (DType::F32, [20, 72, 64], [3, 4], true, false),
        (DType::Q8_0, [33, 65, 64], [4, 0], false, false),
        (DType::F16, [7, 24_600, 40], [0, 0], true, false),
        (DType::F16, [130, 200, 64], [8, 16], true, true),
        // Few rounds: tiles of 128 x 128 and of 128 x 96, which divide the product or not.
        (DType::F16, [640, 2_560, 32], [0, 0], false, true),
        (DType::F16, [640, 1_920, 32], [0, 0], true, true),
        (DType::F16, [640, 2_560, 32], [8, 24], true, true),
        // More rows of x than of w.
        (DType::F16, [1280, 384, 64], [0, 0], true, true),
        // Four matrices of a subgroup side by side.
        (DType::F16, [500, 3_085, 40], [0, 0], false, false),
        (DType::F16, [640, 1_920, 40], [0, 0], false, false),
        (DType::F16, [520, 9_888, 8], [0, 0], false, true),
        (DType::F16, [520, 4_928, 96], [0, 0], true, true),
        (DType::Q8_0, [20, 64, 64], [0, 0], false, true),
    ] {
        let mut builder = CaseBuilder::new((m * n * k) as u64 + 1);
        let Ok(w) = builder.weight(dtype, n, k) else { continue };
        let x = match halves && k % BLOCK == 0 {
            true => {
                let values = builder.normals(m * k);
                Activations::F16(builder.halves(&[m, k], &values))
            }
            false => Activations::F32(builder.random(&[m, k])),
        };
        let bias = builder.random(&[y_offset + n + gap]);
        let shape = [m, y_offset + n + gap];
        // As for the product: f16 tiles round each factor to 11 bits, and so do halves the result.
        let y = match halves {
            true => {
                let before: Vec<f32> = builder.normals(m * shape[1]);
                builder.halves(&shape, &before)
            }
            false => builder.random(&shape),
        };
        builder.updated(&y, if halves { Compare::HalfNmse(1e-6) } else { Compare::Nmse(1e-6) });
        let name = format!(
            "{dtype} {m}x{n}x{k} + bias{}{}",
            if gelu { ", gelu" } else { "" },
            if halves { ", to halves" } else { "" }
        );
        let matmul = Matmul { w, x, y, y_offset, accumulate: false };
        cases.push(builder.case(name, MatmulBias { matmul, bias, gelu }));
    }
    cases
}

#[cfg(test)]
mod tests {
    /// What the shader says of its polynomial for halves, by the coefficients that stand in it.
    #[test]
    fn the_polynomial_is_as_close_as_the_shader_says() {
        let source = crate::shader::library::get("lib/matmul/finish/bias_gelu.wgsl").unwrap();
        let (_, halves) = source.split_once("#ifdef HALVES").unwrap();
        let (halves, _) = halves.split_once("#else").unwrap();
        let mut coefficients = Vec::new();
        for line in halves.lines().map(str::trim).filter(|line| line.starts_with("var p =") || line.starts_with("p =")) {
            let words: Vec<_> = line.trim_end_matches(';').split(' ').collect();
            for pair in words.windows(2) {
                if let Ok(value) = pair[1].parse::<f32>() {
                    coefficients.push(if pair[0] == "-" { -value } else { value });
                }
            }
        }
        assert_eq!(coefficients.len(), 9);
        for step in -120_000..120_000 {
            let x = step as f32 / 10_000.0;
            let (kept, u) = (x.max(-4.5), x.clamp(-4.5, 4.5));
            let p = coefficients.iter().fold(0.0, |p, c| p * (u * u) + c);
            let error = (f64::from(kept * (u * p + 0.5)) - super::gelu(f64::from(x))).abs();
            let limit = match x {
                _ if x < -4.5 => 2.1e-5,
                _ if x <= 4.5 => 6e-5,
                // And the rounding of f32.
                _ => 4.6e-6 * f64::from(x),
            };
            assert!(error <= limit, "{x}: off by {error:e}");
        }
    }

    #[test]
    fn gelu_is_that_of_torch() {
        // torch.nn.functional.gelu in float64.
        for (x, expected) in
            [(0.0, 0.0), (1.0, 0.841_344_746_068_543), (-1.0, -0.158_655_253_931_457), (-5.0, -1.433_258_e-6)]
        {
            assert!((super::gelu(x) - expected).abs() < 1e-12, "{x}: {}", super::gelu(x));
        }
    }
}
