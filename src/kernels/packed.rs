//! Packed texts: the rows of all texts lie one behind the other, without padding between them. What a row is stands in
//! `rows[M, 4]`: token, position in its text, and the first row of its text and the first one behind it. Rows that are no
//! text's lie at the end; their text is the empty one there: both numbers are that of the rows in use.

/// A row of packed texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedRow {
    /// Position in the text.
    pub position: usize,
    /// The first row of the text.
    pub start: usize,
    /// The first row behind the text.
    pub end: usize,
}

/// The rows of `rows[M, 4]`.
pub fn rows(words: &[u32]) -> Vec<PackedRow> {
    let row = |row: &[u32]| PackedRow { position: row[1] as usize, start: row[2] as usize, end: row[3] as usize };
    words.chunks_exact(4).map(row).collect()
}

/// The words of `rows[M, 4]` for texts of these tokens, filled up to M rows; `None` where they are more.
///
/// ```
/// use anygpu::kernels::packed::pack;
/// assert_eq!(pack(&[&[7, 8], &[9]], 4).unwrap(), [7, 0, 0, 2, 8, 1, 0, 2, 9, 0, 2, 3, 0, 0, 3, 3]);
/// assert_eq!(pack(&[&[7, 8]], 1), None);
/// ```
pub fn pack(texts: &[&[u32]], rows: usize) -> Option<Vec<u32>> {
    let used: usize = texts.iter().map(|text| text.len()).sum();
    if used > rows {
        return None;
    }
    let mut words = Vec::with_capacity(4 * rows);
    let mut start = 0;
    for text in texts {
        let end = start + text.len() as u32;
        for (position, &token) in text.iter().enumerate() {
            words.extend([token, position as u32, start, end]);
        }
        start = end;
    }
    for _ in used..rows {
        words.extend([0, 0, start, start]);
    }
    Some(words)
}
