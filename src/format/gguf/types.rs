//! GGUF's metadata types: numbers in the file, [`Value`]s here.

use crate::error::{Error, Result};
use crate::format::Value;

use super::cursor::{Cursor, Stop};

/// Arrays of arrays of arrays: deeper is refused.
pub(super) const MAX_DEPTH: u32 = 3;

/// Longest string value: a chat template or licence text is far shorter.
const MAX_STRING_BYTES: u64 = 1 << 30;

/// A type's number in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Type {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl Type {
    fn read(cursor: &mut Cursor) -> Result<Self, Stop> {
        use Type::*;
        let number = cursor.u32("a value's type")?;
        [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64]
            .into_iter()
            .find(|&kind| kind as u32 == number)
            .ok_or_else(|| Error::format(format!("value of type {number}: expected 0 to 12")).into())
    }

    /// Bytes of the smallest value of this type.
    fn min_bytes(self) -> u64 {
        match self {
            Type::U8 | Type::I8 | Type::Bool => 1,
            Type::U16 | Type::I16 => 2,
            Type::U32 | Type::I32 | Type::F32 => 4,
            Type::U64 | Type::I64 | Type::F64 | Type::String => 8,
            // The elements' type and their number.
            Type::Array => 12,
        }
    }
}

/// Reads a type and a value of it.
pub(super) fn read_value(cursor: &mut Cursor) -> Result<Value, Stop> {
    let kind = Type::read(cursor)?;
    Ok(match kind {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => Value::Uint(read_uint(cursor, kind)?),
        Type::I8 | Type::I16 | Type::I32 | Type::I64 => Value::Int(read_int(cursor, kind)?),
        Type::F32 => Value::Float32(f32::from_le_bytes(cursor.array("a value")?)),
        Type::F64 => Value::Float64(f64::from_le_bytes(cursor.array("a value")?)),
        Type::Bool => Value::Bool(read_bool(cursor)?),
        Type::String => Value::String(cursor.string(0, MAX_STRING_BYTES)?),
        Type::Array => read_array(cursor, 1)?,
    })
}

fn read_array(cursor: &mut Cursor, depth: u32) -> Result<Value, Stop> {
    let kind = Type::read(cursor)?;
    let count = cursor.u64("an array's length")?;
    let bytes = count.checked_mul(kind.min_bytes()).filter(|&bytes| bytes <= cursor.remaining()).ok_or_else(|| {
        let left = cursor.remaining();
        Error::format(format!("array of {count} elements: expected no more than fit into the {left} bytes left"))
    })?;
    // From here on the elements are in memory, at their smallest: the vectors below are reserved against bytes that
    // are there, and hold at most 8 times as many (integers of one byte).
    cursor.need(bytes, "an array")?;
    Ok(match kind {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => Value::Ints(elements(count, || {
            let value = read_uint(cursor, kind)?;
            i64::try_from(value)
                .map_err(|_| Error::unsupported(format!("array element {value}: expected less than 2^63")).into())
        })?),
        Type::I8 | Type::I16 | Type::I32 | Type::I64 => Value::Ints(elements(count, || read_int(cursor, kind))?),
        Type::F32 => Value::Floats(elements(count, || Ok(f32::from_le_bytes(cursor.array("an element")?)))?),
        Type::F64 => Value::Floats(elements(count, || Ok(f64::from_le_bytes(cursor.array("an element")?) as f32))?),
        Type::Bool => Value::Bools(elements(count, || read_bool(cursor))?),
        Type::String => Value::Strings(elements(count, || cursor.string(0, MAX_STRING_BYTES))?),
        Type::Array if depth == MAX_DEPTH => {
            return Err(Error::unsupported(format!("arrays nested deeper than {MAX_DEPTH}")).into());
        }
        Type::Array => Value::Array(elements(count, || read_array(cursor, depth + 1))?),
    })
}

/// Reads `count` elements, which the caller has held against the bytes there are.
fn elements<T>(count: u64, mut read: impl FnMut() -> Result<T, Stop>) -> Result<Vec<T>, Stop> {
    let mut values = Vec::with_capacity(count as usize);
    for index in 0..count {
        values.push(read().map_err(|stop| stop.context(|| format!("element {index}")))?);
    }
    Ok(values)
}

fn read_uint(cursor: &mut Cursor, kind: Type) -> Result<u64, Stop> {
    Ok(match kind {
        Type::U8 => u64::from(u8::from_le_bytes(cursor.array("a value")?)),
        Type::U16 => u64::from(u16::from_le_bytes(cursor.array("a value")?)),
        Type::U32 => u64::from(cursor.u32("a value")?),
        _ => cursor.u64("a value")?,
    })
}

fn read_int(cursor: &mut Cursor, kind: Type) -> Result<i64, Stop> {
    Ok(match kind {
        Type::I8 => i64::from(i8::from_le_bytes(cursor.array("a value")?)),
        Type::I16 => i64::from(i16::from_le_bytes(cursor.array("a value")?)),
        Type::I32 => i64::from(i32::from_le_bytes(cursor.array("a value")?)),
        _ => i64::from_le_bytes(cursor.array("a value")?),
    })
}

fn read_bool(cursor: &mut Cursor) -> Result<bool, Stop> {
    match cursor.array("a value")? {
        [0] => Ok(false),
        [1] => Ok(true),
        [other] => Err(Error::format(format!("boolean of value {other}: expected 0 or 1")).into()),
    }
}
