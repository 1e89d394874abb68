//! Where activations lie: those whose lives do not overlap share a buffer. An activation has a buffer of its own while
//! it lives, since wgpu refuses one buffer bound for reading and for writing in the same dispatch, even in disjoint
//! ranges.

use crate::error::Result;
use crate::gpu::{Buffer, Context};

/// An activation's size and the steps between which it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Bytes.
    pub bytes: u64,
    /// The step that writes it first.
    pub first: usize,
    /// The last step that uses it.
    pub last: usize,
}

/// The buffer of each activation.
#[derive(Debug, Default)]
pub struct Places {
    colours: Vec<usize>,
    buffers: Vec<Buffer>,
}

/// Assigns a colour to each life so that overlapping ones differ, and returns them with each colour's bytes. Larger
/// activations choose first, so that the small ones move in with them.
pub fn colour(lives: &[Life]) -> (Vec<usize>, Vec<u64>) {
    let mut order: Vec<usize> = (0..lives.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lives[i].bytes), lives[i].first));
    let mut colours = vec![0; lives.len()];
    let mut members: Vec<Vec<usize>> = Vec::new();
    for i in order {
        let free = |group: &Vec<usize>| {
            group.iter().all(|&j| lives[j].last < lives[i].first || lives[i].last < lives[j].first)
        };
        let found = members.iter().position(free).unwrap_or_else(|| {
            members.push(Vec::new());
            members.len() - 1
        });
        members[found].push(i);
        colours[i] = found;
    }
    let sizes = members.iter().map(|group| group.iter().map(|&i| lives[i].bytes).max().unwrap_or(0)).collect();
    (colours, sizes)
}

impl Places {
    /// Allocates a buffer a colour.
    ///
    /// # Errors
    /// `OutOfMemory` where there is no room.
    pub fn allocate(context: &Context, lives: &[Life]) -> Result<Self> {
        let (colours, sizes) = colour(lives);
        let buffers = sizes
            .iter()
            .enumerate()
            .map(|(index, &bytes)| context.buffer(&format!("activations {index}"), bytes))
            .collect::<Result<_>>()?;
        Ok(Self { colours, buffers })
    }

    /// The buffer of an activation.
    pub fn buffer(&self, activation: u32) -> Option<&Buffer> {
        self.buffers.get(*self.colours.get(activation as usize)?)
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        self.buffers.iter().map(Buffer::bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn overlapping_lives_never_share(raw in prop::collection::vec((1u64..100, 0usize..40, 0usize..10), 0..40)) {
            let lives: Vec<Life> = raw.iter().map(|&(bytes, first, len)| Life { bytes, first, last: first + len }).collect();
            let (colours, sizes) = colour(&lives);
            for (i, a) in lives.iter().enumerate() {
                prop_assert!(sizes[colours[i]] >= a.bytes);
                for (j, b) in lives.iter().enumerate().skip(i + 1) {
                    let overlap = a.first <= b.last && b.first <= a.last;
                    prop_assert!(!(overlap && colours[i] == colours[j]), "{a:?} and {b:?} share");
                }
            }
        }
    }

    #[test]
    fn a_chain_needs_two_buffers() {
        let lives: Vec<Life> = (0..10).map(|i| Life { bytes: 64, first: i, last: i + 1 }).collect();
        assert_eq!(colour(&lives).1, [64, 64]);
    }
}
