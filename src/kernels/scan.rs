//! `score[q, n] = Σ_k x[q, k] · w[n, k]`, of which only the best of every few hundred rows are written: exact search for one
//! query, where reading `w` is all the work.

use super::host::Host;
use super::kernel::{Binding, Kernel, Params, expect, expect_shape, read, write};
use super::ranking::{WORKGROUP, best, check_top, held, is_removed, key_of, selecting};
use super::testing::{Case, CaseBuilder, Compare};
use crate::dtype::DType;
use crate::error::Result;
use crate::layout;
use crate::params;
use crate::profile::Profile;
use crate::shader::{Flag, Spec, Target};
use crate::tensor::Tensor;

/// The best rows of each group by their product with a query.
#[derive(Clone, Debug)]
pub struct Scan {
    /// `w[N, K]`, K a multiple of 32; any weight format.
    pub w: Tensor,
    /// `x[Q, K]`: each query reads `w` anew.
    pub x: Tensor,
    /// `removed[N / 32]`, rounded up: a bit a row; those set are no candidates.
    pub removed: Tensor,
    /// `y[Q, groups, top, 2]`: key and id, see [`super::ranking`].
    pub y: Tensor,
    /// The first group of `y` that is written; [`groups`] are.
    pub first_group: usize,
    /// The id of the first row.
    pub first_id: u32,
}

params! {
    struct Uniform { rows: u32, groups: u32, first_group: u32, first_id: u32 }
}

/// Two rows an invocation: small groups leave no tail of idle ones, and large ones choose seldom.
const MOST_HELD: usize = 2;
/// Rows whose loads an invocation has under way, where neighbours share them.
const TILE: u32 = 4;
/// Neighbours that share a row at most: a row of 1024 then has a block for each.
const MOST_LANES: u32 = 32;

/// Groups that `rows` rows make.
pub fn groups(rows: usize, top: usize) -> usize {
    rows.div_ceil(WORKGROUP as usize * held(top, MOST_HELD))
}

impl Scan {
    fn top(&self) -> usize {
        self.y.shape().get(2).copied().unwrap_or(0)
    }

    fn groups(&self) -> usize {
        groups(self.w.rows(), self.top())
    }
}

impl Kernel for Scan {
    fn name(&self) -> &'static str {
        "scan"
    }

    fn check(&self) -> Result<()> {
        let (rows, cols) = (self.w.rows(), self.w.cols());
        check_top("scan", self.top())?;
        expect("scan", rows > 0 && cols > 0 && cols.is_multiple_of(32), || {
            format!("w has shape {:?}, expected rows of a multiple of 32", self.w.shape())
        })?;
        expect_shape("scan", "x", self.x.shape(), &[self.x.rows(), cols])?;
        expect("scan", self.removed.len() >= rows.div_ceil(32), || {
            format!("removed has {} words, expected {} for {rows} rows", self.removed.len(), rows.div_ceil(32))
        })?;
        let total = self.y.shape().get(1).copied().unwrap_or(0);
        expect_shape("scan", "y", self.y.shape(), &[self.x.rows(), total, self.top(), 2])?;
        expect("scan", self.first_group + self.groups() <= total, || {
            format!("{} groups from {}, expected them within {total}", self.groups(), self.first_group)
        })
    }

    fn spec(&self, profile: &Profile) -> Spec {
        let top = self.top();
        // Where neighbours can add up without a barrier, they share a row, a block of 32 each.
        let shared = profile.features.subgroups && profile.subgroup.min >= 4;
        let lanes = match shared {
            true => (self.w.cols() as u32 / 32).next_power_of_two().min(profile.subgroup.min).min(MOST_LANES),
            false => 1,
        };
        // A pass takes no more rows than the group has.
        let side_by_side = WORKGROUP / lanes;
        let rows = WORKGROUP * held(top, MOST_HELD) as u32;
        let spec = selecting(Spec::new("scan", Target::of(profile)), profile, top, held(top, MOST_HELD))
            .constant("K", self.w.cols() as u32)
            .constant("ROW_VEC4", (layout::row_bytes(self.w.dtype(), self.w.cols()) / 16) as u32)
            .constant("LANES", lanes)
            .constant("TILE", TILE.min(rows / side_by_side))
            .slot("weights", format!("weights/{}", self.w.dtype()))
            .trusted();
        if shared { spec.flag(Flag::SUBGROUPS) } else { spec }
    }

    fn params(&self) -> Params {
        Uniform {
            rows: self.w.rows() as u32,
            groups: self.y.shape().get(1).copied().unwrap_or(0) as u32,
            first_group: self.first_group as u32,
            first_id: self.first_id,
        }
        .into()
    }

    fn grid(&self, _profile: &Profile, _context: usize) -> [u32; 3] {
        [self.groups() as u32, self.x.rows() as u32, 1]
    }

    fn bindings(&self) -> Vec<Binding> {
        vec![read(&self.w), read(&self.x), read(&self.removed), write(&self.y)]
    }

    fn reference(&self, host: &mut Host) -> Result<()> {
        let (w, x, removed) = (host.floats(&self.w)?, host.floats(&self.x)?, host.words::<u32>(&self.removed)?);
        let (rows, cols, top) = (self.w.rows(), self.w.cols(), self.top());
        let total = self.y.shape()[1];
        let group_rows = WORKGROUP as usize * held(top, MOST_HELD);
        let mut y = host.words::<u32>(&self.y)?;
        for (q, x) in x.chunks_exact(cols).enumerate() {
            for group in 0..self.groups() {
                let candidates = (group * group_rows..rows.min((group + 1) * group_rows))
                    .filter(|&row| !is_removed(&removed, row))
                    .map(|row| {
                        let terms = w[row * cols..][..cols].iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
                        (key_of(terms.sum::<f64>() as f32), self.first_id + row as u32)
                    });
                let found = best(candidates.collect(), top);
                let at = (q * total + self.first_group + group) * top;
                for (i, (key, id)) in found.into_iter().enumerate() {
                    y[2 * (at + i)..][..2].copy_from_slice(&[key, id]);
                }
            }
        }
        host.set(&self.y, &y)
    }
}

/// Vectors whose products are whole numbers, exact in any order of summation and in every format, with many equal ones:
/// what is chosen among them is known to the bit.
pub(super) fn whole_numbers(builder: &mut CaseBuilder, rows: usize, cols: usize) -> Vec<f32> {
    let mut values: Vec<f32> = (0..rows * cols).map(|_| (builder.bits() % 5) as f32 - 2.0).collect();
    // With 127 as the largest of a block of 32, a step of Q8_0 is 1.
    values.iter_mut().step_by(32).for_each(|value| *value = if *value < 0.0 { -127.0 } else { 127.0 });
    values
}

/// Cases for the harness.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (dtype, queries, rows, cols, top) in [
        (DType::F16, 1, 1300, 384, 5),
        (DType::F32, 2, 700, 64, 1),
        (DType::Q8_0, 3, 600, 96, 10),
        (DType::F16, 1, 515, 32, 256),
        (DType::F16, 1, 7, 160, 16),
    ] {
        let mut builder = CaseBuilder::new((rows + top) as u64);
        let values = whole_numbers(&mut builder, rows, cols);
        let Ok(w) = builder.weight_of(dtype, cols, &values) else { continue };
        let x: Vec<f32> = (0..queries * cols).map(|_| (builder.bits() % 7) as f32 - 3.0).collect();
        let removed: Vec<u32> = (0..rows.div_ceil(32)).map(|_| builder.bits() & builder.bits()).collect();
        let total = groups(rows, top) + 3;
        let y: Vec<u32> = vec![7; queries * total * top * 2];
        let kernel = Scan {
            w,
            x: builder.floats(&[queries, cols], &x),
            removed: builder.words(&[removed.len()], &removed),
            y: builder.words(&[queries, total, top, 2], &y),
            first_group: 1,
            first_id: 1000,
        };
        builder.updated(&kernel.y, Compare::Exact);
        cases.push(builder.case(format!("{dtype} {queries} of {rows}x{cols}, best {top}"), kernel));
    }
    cases
}
