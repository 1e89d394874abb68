//! NumPy's file format, version 1.0, as far as one matrix of floats needs it (source: `numpy/lib/format.py`).

use std::io::{self, Write};

/// The header of a little-endian f32 array `[rows, cols]`: the data follow, row by row.
pub fn header(rows: usize, cols: usize) -> Vec<u8> {
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {cols}), }}");
    // Magic, version and length take 10 bytes; the data start at a multiple of 64.
    let padded = (10 + text.len() + 1).next_multiple_of(64) - 10;
    while text.len() + 1 < padded {
        text.push(' ');
    }
    text.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
    out
}

/// Appends values.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl Write, values: &[f32]) -> io::Result<()> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    out.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_header_is_what_numpy_writes() {
        let header = super::header(3, 4096);
        assert_eq!(header.len() % 64, 0);
        assert_eq!(&header[..10], b"\x93NUMPY\x01\x00v\x00");
        assert!(header[10..].starts_with(b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4096), } "));
        assert_eq!(header.last(), Some(&b'\n'));
    }
}
