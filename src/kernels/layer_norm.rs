//! `x[m] = (x[m] + add[m] - mean) / sqrt(variance + eps) · weight + bias`, in place (Ba, Kiros and Hinton 2016). What is added
//! is a row of a table, so that a bias, or the embeddings of positions, goes in without a dispatch of its own; or, with
//! everything in halves, what a product gave.

use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, expect_shape, linear_grid, read, write};
use super::packed::{self, PackedRow};
use super::q8::Activations;
use super::testing::{Case, CaseBuilder, Compare};
use crate::dtype::DType;
use crate::error::Result;
use crate::params;
use crate::profile::{Backend, Profile};
use crate::shader::{Flag, Spec, Target};
use crate::tensor::Tensor;

/// Layer normalisation of each row, after something is added to it.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// The rows and what is added to them.
    pub sum: Sum,
    /// `weight[K]`.
    pub weight: Tensor,
    /// `bias[K]`.
    pub bias: Tensor,
    /// Added to the variance.
    pub eps: f32,
}

/// Rows and what is added to them; K is a multiple of 4.
#[derive(Clone, Debug)]
pub enum Sum {
    /// In f32.
    Floats {
        /// `x[M, K]`, read and overwritten.
        x: Tensor,
        /// `add[P, K]`: the row at a row's position is added to it; with P = 1 the same to all.
        add: Tensor,
        /// `rows[M, 4]`: see [`packed`]. Positions are below P.
        rows: Tensor,
        /// `halves[M, K]`: the result in f16 as well, for matrix products that round their input to it; K a multiple of 32.
        halves: Option<Tensor>,
    },
    /// In f16, K a multiple of 32.
    Halves {
        /// `x[M, K]`, read and overwritten.
        x: Tensor,
        /// `y[M, K]`, added to it.
        y: Tensor,
        /// `floats[M, K]`: the result in f32 as well.
        floats: Option<Tensor>,
    },
}

impl Sum {
    fn x(&self) -> &Tensor {
        match self {
            Sum::Floats { x, .. } | Sum::Halves { x, .. } => x,
        }
    }
}

params! {
    struct Uniform { rows: u32, eps: f32 }
}

/// Invocations of a workgroup, and of a row.
fn shape(profile: &Profile, cols: usize) -> (u32, u32) {
    match profile.fixed_subgroup() {
        // A subgroup a row waits for no barrier, and of workgroups of one subgroup an H100 starts 8192 in 5 us alone. Browsers may name
        // a size that is not fixed.
        Some(lanes) if (8..=64).contains(&lanes) && cols as u32 <= 32 * lanes && profile.backend != Backend::Browser => (4 * lanes, lanes),
        // Four vectors an invocation: enough under way, and small workgroups have short barriers.
        _ => [(cols as u32).div_ceil(16).next_power_of_two().clamp(32, 256); 2].into(),
    }
}

impl Kernel for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn check(&self) -> Result<()> {
        let name = self.name();
        let (count, cols) = (self.sum.x().rows(), self.sum.x().cols());
        expect(name, cols.is_multiple_of(4) && cols > 0, || format!("rows of {cols}, expected a multiple of 4"))?;
        expect_shape(name, "weight", self.weight.shape(), &[cols])?;
        expect_shape(name, "bias", self.bias.shape(), &[cols])?;
        let of_type = |argument: &str, tensor: &Tensor, dtype: DType| {
            expect(name, tensor.dtype() == dtype, || format!("{argument} is {}, expected {dtype}", tensor.dtype()))
        };
        let in_halves = |argument: &str, tensor: &Tensor| {
            of_type(argument, tensor, DType::F16)?;
            Activations::F16(tensor.clone()).check(name, argument, count, cols)
        };
        match &self.sum {
            Sum::Floats { x, add, rows, halves } => {
                of_type("x", x, DType::F32)?;
                of_type("add", add, DType::F32)?;
                of_type("rows", rows, DType::U32)?;
                expect_shape(name, "rows", rows.shape(), &[count, 4])?;
                expect_shape(name, "add", add.shape(), &[add.rows(), cols])?;
                halves.as_ref().map_or(Ok(()), |halves| in_halves("halves", halves))?;
            }
            Sum::Halves { x, y, floats } => {
                in_halves("x", x)?;
                in_halves("y", y)?;
                if let Some(floats) = floats {
                    of_type("floats", floats, DType::F32)?;
                    expect_shape(name, "floats", floats.shape(), &[count, cols])?;
                }
            }
        }
        expect(name, self.eps >= 0.0, || format!("eps {}: expected a number from 0", self.eps))
    }

    fn spec(&self, profile: &Profile) -> Spec {
        let cols = self.sum.x().cols();
        let (workgroup, lanes) = shape(profile, cols);
        let spec = Spec::new("layer_norm", Target::of(profile))
            .constant("K", cols as u32)
            .constant("WORKGROUP", workgroup)
            .constant("LANES", lanes)
            .slot("total", if lanes == workgroup { "layer_norm/total/workgroup" } else { "layer_norm/total/subgroup" })
            .trusted();
        let spec = match &self.sum {
            Sum::Floats { add, halves, .. } => spec
                .constant("BY_POSITION", add.rows() > 1)
                .slot("row", "layer_norm/floats")
                .slot("output", if halves.is_some() { "output/f16" } else { "output/none" }),
            Sum::Halves { floats, .. } => spec
                .slot("row", "layer_norm/halves")
                .slot("output", if floats.is_some() { "output/f32" } else { "output/none" }),
        };
        if profile.features.subgroups { spec.flag(Flag::SUBGROUPS) } else { spec }
    }

    fn params(&self) -> Params {
        Uniform { rows: self.sum.x().rows() as u32, eps: self.eps }.into()
    }

    fn grid(&self, profile: &Profile, _context: usize) -> [u32; 3] {
        let (workgroup, lanes) = shape(profile, self.sum.x().cols());
        linear_grid(self.sum.x().rows().div_ceil((workgroup / lanes) as usize), profile)
    }

    fn bindings(&self) -> Vec<Binding> {
        let mut bindings = vec![read(&self.weight), read(&self.bias)];
        match &self.sum {
            Sum::Floats { x, add, rows, halves } => {
                bindings.extend([read(add), read(rows), write(x)]);
                bindings.extend(halves.as_ref().map(write));
            }
            Sum::Halves { x, y, floats } => {
                bindings.extend([read(y), write(x)]);
                bindings.extend(floats.as_ref().map(write));
            }
        }
        bindings
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let (weight, bias, cols) = (host.floats(&self.weight)?, host.floats(&self.bias)?, self.sum.x().cols());
        let mut x = host.floats(self.sum.x())?;
        let normalise = |(row, added): (&mut [f32], &[f32])| {
            let values: Vec<f64> = row.iter().zip(added).map(|(&v, &a)| f64::from(v) + f64::from(a)).collect();
            let mean = values.iter().sum::<f64>() / cols as f64;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / cols as f64;
            let scale = 1.0 / (variance + f64::from(self.eps)).sqrt();
            for (i, out) in row.iter_mut().enumerate() {
                *out = ((values[i] - mean) * scale * f64::from(weight[i]) + f64::from(bias[i])) as f32;
            }
        };
        match &self.sum {
            Sum::Floats { x: tensor, add, rows, halves } => {
                let (table, rows) = (host.floats(add)?, packed::rows(&host.words(rows)?));
                let added = |packed: PackedRow| if add.rows() > 1 { &table[packed.position * cols..] } else { &table };
                x.chunks_exact_mut(cols).zip(rows.into_iter().map(added)).for_each(normalise);
                halves.as_ref().map_or(Ok(()), |halves| Activations::F16(halves.clone()).set(host, &x))?;
                host.set(tensor, &x)
            }
            Sum::Halves { x: tensor, y, floats } => {
                let y = host.floats(y)?;
                x.chunks_exact_mut(cols).zip(y.chunks_exact(cols)).for_each(normalise);
                floats.as_ref().map_or(Ok(()), |floats| host.set(floats, &x))?;
                Activations::F16(tensor.clone()).set(host, &x)
            }
        }
    }
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, cols, table, to_halves) in [
        (1, 8, 1, false),
        (5, 72, 9, false),
        (3, 384, 1, true),
        (7, 384, 16, false),
        (2, 1024, 4, true),
        (3, 4100, 1, false),
    ] {
        let mut builder = CaseBuilder::new(cols as u64);
        let words: Vec<u32> = (0..rows as u32).flat_map(|m| [9, (m * 5) % table as u32, 0, 0]).collect();
        let x = builder.random(&[rows, cols]);
        // Sums of up to 4100 terms in f32 and inverseSqrt to 2 ulp: relative errors near 1e-6, squared 1e-12.
        builder.updated(&x, Compare::Nmse(1e-11));
        let kernel = LayerNorm {
            sum: Sum::Floats {
                x,
                add: builder.random(&[table, cols]),
                rows: builder.words(&[rows, 4], &words),
                // Rounded to 11 bits: off by 2^-12 / √3 of itself, squared 2e-8.
                halves: to_halves.then(|| builder.halves_output(&[rows, cols], Compare::HalfNmse(1e-7))),
            },
            weight: builder.random(&[cols]),
            bias: builder.random(&[cols]),
            eps: 1e-12,
        };
        let halves = if to_halves { " and f16" } else { "" };
        cases.push(builder.case(format!("{rows}x{cols} + {table}{halves}"), kernel));
    }
    for (rows, cols, to_floats) in [(3, 32, false), (5, 384, true), (2, 4128, false)] {
        let mut builder = CaseBuilder::new(cols as u64 + 1);
        let mut halves = || {
            let values = builder.normals(rows * cols);
            builder.halves(&[rows, cols], &values)
        };
        let (x, y) = (halves(), halves());
        builder.updated(&x, Compare::HalfNmse(1e-7));
        let kernel = LayerNorm {
            sum: Sum::Halves {
                x,
                y,
                floats: to_floats.then(|| builder.output(&[rows, cols], Compare::Nmse(1e-11))),
            },
            weight: builder.random(&[cols]),
            bias: builder.random(&[cols]),
            eps: 1e-12,
        };
        cases.push(builder.case(format!("{rows}x{cols} f16{}", if to_floats { " and f32" } else { "" }), kernel));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workgroup_holds_whole_rows_on_every_device() {
        let mut profiles = Profile::stored();
        let h100 = Profile::by_name("h100").unwrap();
        profiles.extend([4, 8, 16, 64, 128].map(|size| {
            let mut profile = h100.clone();
            profile.subgroup = crate::profile::Subgroup { min: size, max: size };
            profile
        }));
        for profile in profiles {
            for case in cases() {
                let name = &profile.name;
                let source = case.kernel.spec(&profile).render().unwrap();
                crate::shader::reflect::validate(&source, &profile).unwrap_or_else(|error| panic!("{} for {name}: {error}", case.name));
            }
            for cols in [8, 384, 1024, 4100, 8192] {
                let (workgroup, lanes) = shape(&profile, cols);
                let limits = &profile.limits;
                assert!(workgroup % lanes == 0 && workgroup <= limits.max_workgroup_invocations.min(limits.max_workgroup_size[0]));
                let alone = lanes == workgroup || profile.fixed_subgroup() == Some(lanes) && cols <= 32 * lanes as usize;
                assert!(alone, "{}: {cols} columns by {lanes} of {workgroup}", profile.name);
            }
        }
    }
}
