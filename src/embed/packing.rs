//! Which parts go together, and the sizes that plans are built for.

/// The fewest rows of a plan: a tile of the matrix product.
const LEAST_ROWS: usize = 32;
/// More rows than these have eighths.
const MANY_ROWS: usize = 4096;
/// Rows to a place for a text.
const ROWS_A_TEXT: usize = 4;

/// Rows and texts of the plan for `rows` rows of `texts` texts: quarters of powers of two, so that few plans are built and
/// less than a fifth of the rows is idle, and of many rows, whose time they are most of, eighths; or `most` where that is enough.
pub(super) fn bucket(rows: usize, texts: usize, most: usize) -> [usize; 2] {
    let wanted = rows.max(ROWS_A_TEXT * texts).max(LEAST_ROWS);
    // 5 to 8 times a power of two, or 9 to 16 times.
    let parts = if wanted > MANY_ROWS { 16 } else { 8 };
    let unit = (wanted.next_power_of_two() / parts).max(LEAST_ROWS / 4);
    let mut size = wanted.next_multiple_of(unit);
    if size > most && wanted <= most {
        size = most;
    }
    [size, size.div_ceil(ROWS_A_TEXT)]
}

/// How long texts become that are computed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    /// As they are.
    None,
    /// As the longest of them.
    #[cfg(any(test, feature = "burn-inference"))]
    Longest,
}

/// Cuts parts of these lengths, which grow, into batches of at most `most` rows: the number of parts of each. What is left over are the
/// shortest, which are submitted last: the host writes them, and reads the others, while the device has a whole batch to do.
pub(super) fn batches(lengths: &[usize], most: usize, padding: Padding) -> Vec<usize> {
    let mut batches = Vec::new();
    let (mut rows, mut count) = (0, 0);
    for i in (0..lengths.len()).rev() {
        let with = match padding {
            Padding::None => rows + lengths[i],
            #[cfg(any(test, feature = "burn-inference"))]
            Padding::Longest => (count + 1) * lengths[i + count],
        };
        if count > 0 && (with > most || ROWS_A_TEXT * (count + 1) > most) {
            batches.push(count);
            (rows, count) = (0, 0);
        }
        rows += lengths[i];
        count += 1;
    }
    batches.extend((count > 0).then_some(count));
    batches.reverse();
    batches
}

/// The sizes of plans of at most `most` rows, growing.
pub(super) fn sizes(most: usize) -> impl Iterator<Item = usize> {
    let next = move |size: &usize| (*size < most).then(|| bucket(size + 1, 1, most)[0]);
    std::iter::successors(Some(bucket(1, 1, most)[0]), next)
}

/// What the fastest batches have to save for more sizes of plans to be worth it.
const WORTH: f64 = 0.97;

/// [`batches`] without padding that take the shortest time by `cost`, that of a plan of so many rows: of at most `most` rows, or of
/// another size of plans, from half of that.
pub(super) fn fastest(lengths: &[usize], most: usize, cost: impl Fn(usize) -> f64) -> Vec<usize> {
    let time = |cut: &[usize]| {
        let mut rest = lengths;
        let mut total = 0.0;
        for &count in cut {
            let (batch, behind) = rest.split_at(count);
            total += cost(bucket(batch.iter().sum(), count, most)[0]);
            rest = behind;
        }
        total
    };
    let largest = batches(lengths, most, Padding::None);
    // Every cut would be the same.
    if largest.len() == 1 && lengths.iter().sum::<usize>().max(ROWS_A_TEXT * lengths.len()) <= most / 2 {
        return largest;
    }
    let mut least = WORTH * time(&largest);
    let mut best = largest;
    for size in sizes(most).filter(|&size| size >= most / 2) {
        // A part that is longer is a batch of its own.
        let cut = batches(lengths, size, Padding::None);
        let total = time(&cut);
        if total < least {
            (best, least) = (cut, total);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn buckets_hold_what_they_are_for(rows in 1usize..40_000, texts in 1usize..4_000) {
            let most = 16_384;
            let [size, places] = bucket(rows, texts, most);
            prop_assert!(size >= rows && places >= texts);
            let wanted = rows.max(4 * texts).max(LEAST_ROWS);
            prop_assert!(size - wanted < wanted.div_ceil(4).max(8), "{size} for {wanted}");
            prop_assert!(size <= most || wanted > most);
        }

        #[test]
        fn batches_hold_every_part(mut lengths in prop::collection::vec(1usize..500, 0..300), padded: bool) {
            lengths.sort_unstable();
            let batches = batches(&lengths, 600, if padded { Padding::Longest } else { Padding::None });
            prop_assert_eq!(batches.iter().sum::<usize>(), lengths.len());
            let mut at = 0;
            for count in batches {
                let of = &lengths[at..at + count];
                let rows: usize = if padded { count * of[count - 1] } else { of.iter().sum() };
                prop_assert!(count > 0 && rows <= 600 && bucket(rows, count, 600)[0] <= 600);
                at += count;
            }
        }
    }

    proptest! {
        #[test]
        fn the_fastest_hold_every_part_and_are_no_slower(mut lengths in prop::collection::vec(1usize..500, 0..300), step in 1usize..400) {
            lengths.sort_unstable();
            // Turns of `step` rows, and something for each plan.
            let cost = |rows: usize| (rows.div_ceil(step) * step + 50) as f64;
            let total = |cut: &[usize]| {
                let mut at = 0;
                let time = cut.iter().map(|&count| {
                    let rows: usize = lengths[at..at + count].iter().sum();
                    assert!(rows <= 2000);
                    at += count;
                    cost(bucket(rows, count, 2000)[0])
                });
                let time: f64 = time.sum();
                assert_eq!(at, lengths.len());
                time
            };
            prop_assert!(total(&fastest(&lengths, 2000, cost)) <= total(&batches(&lengths, 2000, Padding::None)));
        }
    }

    #[test]
    fn the_fastest_batches_fill_whole_turns() {
        // Turns of 5632 rows, of which plans of 64 texts leave half of the second idle.
        let turns = |rows: usize| (rows.div_ceil(5632) * 5632 + 500) as f64;
        assert_eq!(fastest(&[128; 1000], 12_288, turns), [[32].as_slice(), &[88; 11]].concat());
        assert_eq!(fastest(&[128; 1000], 8192, turns), [[32].as_slice(), &[44; 22]].concat());
        // The same time for every row: as few as possible, and the rest last, which is first here.
        assert_eq!(fastest(&[128; 100], 8192, |rows| rows as f64 + 500.0), [36, 64]);
    }

    #[test]
    fn sizes_are_few() {
        let found: std::collections::BTreeSet<_> = (1..=16_384).map(|rows| bucket(rows, 1, 16_384)[0]).collect();
        assert_eq!(found.len(), 45, "{found:?}");
        assert!(sizes(16_384).eq(found));
        assert!(sizes(200).last() == Some(200) && sizes(24).eq([32]));
        assert_eq!([128, 129, 200].map(|rows| bucket(rows, 1, 16_384)[0]), [128, 160, 224]);
        assert_eq!([4100, 4700, 12_800].map(|rows| bucket(rows, 1, 16_384)[0]), [4608, 5120, 13_312]);
    }
}
