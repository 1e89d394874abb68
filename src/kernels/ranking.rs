//! Scores as sortable numbers, and the best of some candidates: what the kernels of exact search share. A candidate is a key
//! and an id; larger keys are better, of equal ones the smaller id.

use super::host::Host;
use super::kernel::{expect, expect_shape};
use crate::error::Result;
use crate::profile::Profile;
use crate::shader::{Flag, Spec};
use crate::tensor::Tensor;

/// The most candidates that one dispatch chooses for a query: invocations of a workgroup.
pub const MAX_TOP: usize = 256;

/// Invocations of a workgroup that chooses.
pub(super) const WORKGROUP: u32 = 256;
/// Candidates that a workgroup sorts: as many as the baseline's workgroup memory has room for beside scores.
const MAX_SORTED: usize = 1024;

/// Consecutive rows of which search for many queries keeps the best alone, until it has chosen among groups.
pub const GROUP: usize = 32;

/// No candidate.
pub const NONE: (u32, u32) = (0, u32::MAX);

/// A number that grows with the score; 0, which is none's, for NaN. Both zeros are one.
///
/// ```
/// use anygpu::kernels::ranking::{key_of, score_of};
/// let scores = [f32::NEG_INFINITY, -2.0, -1e-30, 0.0, 1e-30, 3.5, f32::INFINITY];
/// assert!(scores.is_sorted_by_key(|&score| key_of(score)));
/// assert!(scores.iter().all(|&score| score_of(key_of(score)) == score));
/// assert_eq!(key_of(-0.0), key_of(0.0));
/// ```
pub fn key_of(score: f32) -> u32 {
    let bits = score.to_bits();
    match score {
        _ if score.is_nan() => 0,
        0.0 => 1 << 31,
        _ if bits >> 31 == 1 => !bits,
        _ => bits | 1 << 31,
    }
}

/// The score of a key.
pub fn score_of(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key })
}

/// The best `top` candidates, in order, filled up with [`NONE`].
pub(super) fn best(mut candidates: Vec<(u32, u32)>, top: usize) -> Vec<(u32, u32)> {
    candidates.retain(|candidate| candidate.0 != 0);
    candidates.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    candidates.resize(top.max(candidates.len()), NONE);
    candidates.truncate(top);
    candidates
}

/// Candidates of an invocation, where it may have up to `most`.
pub(super) fn held(top: usize, most: usize) -> usize {
    (MAX_SORTED / top.max(1).next_power_of_two()).clamp(1, most)
}

/// Candidates that a workgroup sorts.
pub(super) fn sorted(top: usize, held: usize) -> u32 {
    (top * held).next_power_of_two().max(WORKGROUP as usize) as u32
}

/// The most that are chosen one by one, which takes a barrier each; sorting takes some 80 whatever their number.
const MOST_ROUNDS: usize = 8;

/// `spec` with what `lib/top_k/select.wgsl` takes on a device.
pub(super) fn selecting(spec: Spec, profile: &Profile, top: usize, held: usize) -> Spec {
    let spec = spec
        .constant("WORKGROUP", WORKGROUP)
        .constant("TOP", top as u32)
        .constant("HELD", held as u32)
        .constant("SORTED", sorted(top, held));
    let usable = |size: &u32| top <= MOST_ROUNDS && WORKGROUP.is_multiple_of(*size);
    let rounds = profile.fixed_subgroup().filter(usable);
    let spec = spec.constant("ROUNDS", rounds.is_some()).constant("SUBGROUP", rounds.unwrap_or(WORKGROUP));
    if rounds.is_some() { spec.flag(Flag::SUBGROUPS) } else { spec }
}

pub(super) fn check_top(kernel: &str, top: usize) -> Result<()> {
    expect(kernel, (1..=MAX_TOP).contains(&top), || format!("the best {top}, expected 1 to {MAX_TOP}"))
}

/// Whether the bit of a row is set.
pub(super) fn is_removed(removed: &[u32], row: usize) -> bool {
    removed[row / 32] >> (row % 32) & 1 == 1
}

/// Whether `removed` and the keys `y` fit `rows` rows for each of `queries`, behind `skip` other rows and `first_group` groups.
pub(super) fn check_groups(
    kernel: &str,
    rows: usize,
    removed: &Tensor,
    skip: usize,
    y: &Tensor,
    queries: usize,
    first_group: usize,
) -> Result<()> {
    let words = (skip + rows).div_ceil(32);
    expect(kernel, removed.len() >= words, || format!("removed has {} words, expected {words}", removed.len()))?;
    expect_shape(kernel, "y", y.shape(), &[queries, y.cols()])?;
    let groups = rows.div_ceil(GROUP);
    expect(kernel, rows > 0 && first_group + groups <= y.cols(), || {
        format!("{groups} groups from {first_group}, expected them within {}", y.cols())
    })
}

/// The best key of each group of `rows` scores a query, on the host.
pub(super) fn best_of_groups(
    host: &mut Host,
    scores: &[f32],
    rows: usize,
    removed: &Tensor,
    skip: usize,
    y: &Tensor,
    first_group: usize,
) -> Result<()> {
    let (removed, mut keys) = (host.words::<u32>(removed)?, host.words::<u32>(y)?);
    for (scores, keys) in scores.chunks_exact(rows).zip(keys.chunks_exact_mut(y.cols())) {
        for (group, key) in keys[first_group..][..rows.div_ceil(GROUP)].iter_mut().enumerate() {
            let own = group * GROUP..rows.min((group + 1) * GROUP);
            let left = own.filter(|&row| !is_removed(&removed, skip + row));
            *key = left.map(|row| key_of(scores[row])).max().unwrap_or(0);
        }
    }
    host.set(y, &keys)
}
