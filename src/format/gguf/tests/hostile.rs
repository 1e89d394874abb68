//! Bytes that nobody vouches for: never a panic, never memory beyond a small multiple of the input.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use proptest::prelude::*;

use super::*;

/// Counts what the current thread holds, and the most that it held.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends frees memory after its locals are gone; nothing is measured then.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: every call goes to the system's allocator as it came; counting touches thread-local cells that need no
// allocation and have no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The result of opening a file, and the most bytes held at a time on the way.
fn measured(bytes: Vec<u8>) -> (Result<Gguf>, u64) {
    let source = Arc::new(bytes);
    let before = HELD.get();
    MOST.set(before);
    let result = pollster::block_on(Gguf::open(source));
    (result, (MOST.get() - before) as u64)
}

/// What opening a file of `len` bytes may hold at a time. The worst is a list of tensors with names of a byte: 33 bytes
/// there, here a [`TensorInfo`] of 80 with two small allocations, in a vector that doubles; the next is one-byte
/// integers, 8 times as large in memory. The constant is for messages.
fn allowed(len: usize) -> u64 {
    12 * len as u64 + 4096
}

#[track_caller]
fn opens_within_bounds(bytes: Vec<u8>) -> Result<Gguf> {
    let len = bytes.len();
    let (result, most) = measured(bytes);
    assert!(most <= allowed(len), "{most} bytes held for a file of {len}: {result:?}");
    result
}

#[test]
fn the_measure_sees_an_allocation() {
    let before = HELD.get();
    let bytes = std::hint::black_box(vec![0u8; 100_000]);
    assert!(HELD.get() - before >= 100_000);
    drop(bytes);
    assert_eq!(HELD.get(), before);
}

#[test]
fn headers_that_are_larger_in_memory_stay_within_bounds() {
    let mut tensors = Header::new(3, 20_000, 0);
    for i in 0..20_000u64 {
        let name = char::from_u32(0x4e00 + i as u32).unwrap().to_string();
        tensors = tensors.tensor(&name, &[1], 0, 32 * i);
    }
    tensors = tensors.pad();
    let without_data = tensors.clone();
    tensors.0.resize(tensors.0.len() + 32 * 20_000, 0);
    assert_eq!(opens_within_bounds(tensors.0).unwrap().tensors().len(), 20_000);
    opens_within_bounds(without_data.0).unwrap_err();

    let mut entries = Header::new(3, 0, 20_000);
    for i in 0..20_000 {
        entries = entries.string(&i.to_string()).u32(7).bytes(&[1]);
    }
    opens_within_bounds(entries.0).unwrap();
    for (kind, size) in [(0, 1), (7, 1), (2, 2), (6, 4), (8, 8)] {
        opens_within_bounds(Header::entry().u32(9).u32(kind).u64(10_000).bytes(&vec![0; 10_000 * size]).0).unwrap();
    }
    let mut nested = Header::entry().u32(9).u32(9).u64(10_000);
    for _ in 0..10_000 {
        nested = nested.u32(0).u64(0);
    }
    opens_within_bounds(nested.0).unwrap();
}

/// Values that a hostile count, length or offset would have.
fn lie() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(u64::MAX),
        Just(1 << 63),
        Just(1 << 60),
        Just(1 << 32),
        Just(u64::MAX - 31),
        0..400u64,
        any::<u64>(),
    ]
}

/// A change to a file: bytes overwritten at a place, or the end cut off or extended.
#[derive(Clone, Debug)]
enum Change {
    Flip(prop::sample::Index, u8),
    Lie(prop::sample::Index, u64),
    Short(prop::sample::Index, u32),
    Cut(prop::sample::Index),
    Extend(Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), 1..=255u8).prop_map(|(at, bits)| Change::Flip(at, bits)),
        (at(), lie()).prop_map(|(at, value)| Change::Lie(at, value)),
        (at(), 0..40u32).prop_map(|(at, value)| Change::Short(at, value)),
        at().prop_map(Change::Cut),
        prop::collection::vec(any::<u8>(), 1..64).prop_map(Change::Extend),
    ]
}

/// Overwrites what lies within the file.
fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    let end = (at + new.len()).min(bytes.len());
    bytes[at..end].copy_from_slice(&new[..end - at]);
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    if bytes.is_empty() {
        return;
    }
    let len = bytes.len();
    match change {
        Change::Lie(at, value) => put(bytes, at.index(len), &value.to_le_bytes()),
        Change::Short(at, value) => put(bytes, at.index(len), &value.to_le_bytes()),
        Change::Flip(at, bits) => {
            let at = at.index(bytes.len());
            bytes[at] ^= bits;
        }
        Change::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Change::Extend(more) => bytes.extend_from_slice(more),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = opens_within_bounds(bytes);
    }

    #[test]
    fn any_bytes_after_a_magic_are_survived(
        tensors in lie(),
        entries in lie(),
        bytes in prop::collection::vec(prop_oneof![3 => Just(0u8), 2 => 0..14u8, 1 => any::<u8>()], 0..512),
    ) {
        let file = Header::new(3, tensors % 5, entries % 5).bytes(&bytes).0;
        let _ = opens_within_bounds(file.clone());
        crate::fuzzing::gguf(&file);
        let _ = opens_within_bounds(Header::new(3, tensors, entries).bytes(&bytes).0);
    }

    #[test]
    fn a_changed_file_is_an_error_or_another_sound_file(changes in prop::collection::vec(change(), 1..4)) {
        let mut bytes = sample();
        for change in &changes {
            apply(&mut bytes, change);
        }
        let _ = opens_within_bounds(bytes.clone());
        crate::fuzzing::gguf(&bytes);
    }
}

#[test]
fn every_byte_and_every_lie_of_a_small_file_is_survived() {
    let whole = sample();
    for at in 0..whole.len() {
        for bits in [1, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= bits;
            crate::fuzzing::gguf(&bytes);
        }
        for lie in [0, 1 << 31, 1 << 60, u64::MAX] {
            let mut bytes = whole.clone();
            put(&mut bytes, at, &u64::to_le_bytes(lie));
            let _ = opens_within_bounds(bytes);
        }
    }
}
