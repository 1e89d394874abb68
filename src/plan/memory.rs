//! Where activations lie: those whose lives do not overlap share a buffer. An activation has a buffer of its own while
//! it lives, since wgpu refuses one buffer bound for reading and for writing in the same dispatch, even in disjoint
//! ranges.

use std::sync::{Arc, Mutex};

use crate::error::Result;
use crate::gpu::{Buffer, Context};

/// Buffers for the activations of plans of one context of which nothing outlives a replay: the device runs replays one after the
/// other. All plans take the memory of the largest where those with smaller buffers are dropped as they are outgrown.
#[derive(Clone, Debug, Default)]
pub struct Scratch(Arc<Mutex<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    buffers: Vec<Buffer>,
    outgrown: bool,
}

impl Scratch {
    /// Whether a plan since the last call took larger buffers than there were: plans before it still hold the smaller ones.
    pub fn take_outgrown(&self) -> bool {
        std::mem::take(&mut self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).outgrown)
    }

    /// The buffer for a plan's `index`-th colour: the one that is there, or a larger one in its place.
    fn buffer(&self, context: &Context, index: usize, bytes: u64) -> Result<Buffer> {
        let mut shared = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(buffer) = shared.buffers.get(index).filter(|buffer| buffer.bytes() >= bytes) {
            return Ok(buffer.clone());
        }
        let buffer = context.buffer(&format!("shared activations {index}"), bytes)?;
        match shared.buffers.get_mut(index) {
            Some(smaller) => {
                *smaller = buffer.clone();
                shared.outgrown = true;
            }
            None => shared.buffers.push(buffer.clone()),
        }
        Ok(buffer)
    }
}

/// An activation's size and the steps between which it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Bytes.
    pub bytes: u64,
    /// The step that writes it first.
    pub first: usize,
    /// The last step that uses it; `usize::MAX` where it is read after a replay.
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
    /// A buffer a colour: of `scratch` where nothing in it outlives a replay, or else its own.
    ///
    /// # Errors
    /// `OutOfMemory` where there is no room.
    pub fn allocate(context: &Context, lives: &[Life], scratch: Option<&Scratch>) -> Result<Self> {
        // What is kept shares with nothing where others may be shared: a large buffer would be kept with it.
        let mut lives = lives.to_vec();
        if scratch.is_some() {
            lives.iter_mut().filter(|life| life.last == usize::MAX).for_each(|life| life.first = 0);
        }
        let (colours, sizes) = colour(&lives);
        let mut kept = vec![false; sizes.len()];
        for (life, &colour) in lives.iter().zip(&colours) {
            kept[colour] |= life.last == usize::MAX;
        }
        let mut shared = 0;
        let mut buffers = Vec::with_capacity(sizes.len());
        for (index, &bytes) in sizes.iter().enumerate() {
            buffers.push(match scratch.filter(|_| !kept[index]) {
                Some(scratch) => {
                    shared += 1;
                    scratch.buffer(context, shared - 1, bytes)?
                }
                None => context.buffer(&format!("activations {index}"), bytes)?,
            });
        }
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
    use crate::dtype::DType;
    use crate::gpu::Adapter;
    use crate::kernels::copy::Copy;
    use crate::plan::{Builder, Plan};
    use crate::tensor::{Storage, Tensor};
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

    /// `input` through three activations, and the first 64 values of the last into one that is kept.
    fn copies(context: &Context, scratch: &Scratch, values: &[f32]) -> (Plan, Tensor) {
        let input = context.buffer_from("input", bytemuck::cast_slice(values)).unwrap();
        let mut x = Tensor::new(Storage::Buffer(input), 0, DType::F32, [values.len() / 64, 64]);
        let mut builder = Builder::new(context).sharing(scratch);
        for _ in 0..3 {
            let y = builder.activation(DType::F32, [values.len() / 64, 64]);
            builder.step("copy", Copy { x, y: y.clone() }).unwrap();
            x = y;
        }
        let y = builder.activation(DType::F32, [1, 64]);
        builder.step("copy", Copy { x: x.slice(0, 1).unwrap(), y: y.clone() }).unwrap();
        builder.keep(&y);
        (builder.finish().unwrap(), y)
    }

    #[test]
    fn plans_share_what_no_replay_leaves_behind() {
        let context = pollster::block_on(async {
            Context::open(&Adapter::request(&Default::default()).await.unwrap(), None).await.unwrap()
        });
        let scratch = Scratch::default();
        let (large, small) = (vec![1.0f32; 1 << 16], vec![2.0f32; 1 << 15]);
        let (first, first_out) = copies(&context, &scratch, &large);
        let before = context.memory().current_bytes();
        let (second, second_out) = copies(&context, &scratch, &small);
        // Its input of 128 KiB, what is kept, and parameters; without sharing 256 KiB more.
        let added = context.memory().current_bytes() - before;
        assert!((128 << 10..160 << 10).contains(&added), "{added} bytes");
        first.replay(0);
        second.replay(0);
        for (plan, out, expected) in [(&first, first_out, large), (&second, second_out, small)] {
            let found = pollster::block_on(plan.read(&out)).unwrap();
            assert!(bytemuck::pod_collect_to_vec::<u8, f32>(&found) == expected[..64]);
        }
        // A larger one takes the place of what is there.
        assert!(!scratch.take_outgrown());
        let (third, third_out) = copies(&context, &scratch, &vec![3.0f32; 1 << 17]);
        assert!(scratch.take_outgrown() && !scratch.take_outgrown());
        third.replay(0);
        let found = pollster::block_on(third.read(&third_out)).unwrap();
        assert!(bytemuck::pod_collect_to_vec::<u8, f32>(&found) == [3.0f32; 64]);
    }
}
