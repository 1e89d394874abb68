//! Key–value metadata of a model file, with typed getters whose errors name the key, what was found and what was expected.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// A metadata value: GGUF's scalar types and arrays of them. Arrays of numbers and strings are stored flat.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// An unsigned integer of any width.
    Uint(u64),
    /// A signed integer of any width.
    Int(i64),
    /// A 32-bit float.
    Float32(f32),
    /// A 64-bit float.
    Float64(f64),
    /// A boolean.
    Bool(bool),
    /// UTF-8 text.
    String(String),
    /// Texts: a vocabulary, merges.
    Strings(Vec<String>),
    /// Integers of any width: token types, feature sizes per layer.
    Ints(Vec<i64>),
    /// Floats: token scores.
    Floats(Vec<f32>),
    /// Truth values: which layers have a window.
    Bools(Vec<bool>),
    /// Arrays of arrays.
    Array(Vec<Value>),
}

impl Value {
    /// The name of the type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Uint(_) => "an unsigned integer",
            Value::Int(_) => "a signed integer",
            Value::Float32(_) | Value::Float64(_) => "a float",
            Value::Bool(_) => "a boolean",
            Value::String(_) => "a string",
            Value::Strings(_) => "an array of strings",
            Value::Ints(_) => "an array of integers",
            Value::Floats(_) => "an array of floats",
            Value::Bools(_) => "an array of booleans",
            Value::Array(_) => "an array of arrays",
        }
    }
}

/// Metadata by key, such as `llama.embedding_length`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    entries: BTreeMap<String, Value>,
}

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident -> $ty:ty, $expected:literal, $pattern:pat => $value:expr;)*) => {
        impl Metadata {
            $($(#[$doc])*
            ///
            /// # Errors
            /// `Format` where the key has another type.
            pub fn $name(&self, key: &str) -> Result<Option<$ty>> {
                match self.get(key) {
                    None => Ok(None),
                    Some(value) => match value {
                        $pattern => Ok(Some($value)),
                        _ => Err(mismatch(key, value, $expected)),
                    },
                }
            })*
        }
    };
}

fn mismatch(key: &str, value: &Value, expected: &str) -> Error {
    Error::format(format!("metadata {key}: found {}, expected {expected}", value.type_name()))
}

getters! {
    /// An integer that is not negative.
    u64 -> u64, "an unsigned integer", Value::Uint(v) => *v;
    /// Text.
    str -> &str, "a string", Value::String(v) => v.as_str();
    /// A truth value.
    bool -> bool, "a boolean", Value::Bool(v) => *v;
    /// Texts.
    strings -> &[String], "an array of strings", Value::Strings(v) => v.as_slice();
    /// Integers.
    ints -> &[i64], "an array of integers", Value::Ints(v) => v.as_slice();
    /// Truth values.
    bools -> &[bool], "an array of booleans", Value::Bools(v) => v.as_slice();
    /// Floats.
    floats -> &[f32], "an array of floats", Value::Floats(v) => v.as_slice();
}

impl Metadata {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    /// Sets a key; returns the value it had.
    pub fn insert(&mut self, key: impl Into<String>, value: Value) -> Option<Value> {
        self.entries.insert(key.into(), value)
    }

    /// Keys and values, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// A float of either width.
    ///
    /// # Errors
    /// `Format` where the key has another type.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float32(v)) => Ok(Some(*v)),
            Some(Value::Float64(v)) => Ok(Some(*v as f32)),
            Some(value) => Err(mismatch(key, value, "a float")),
        }
    }

    /// Turns a getter's `None` into an error that names the key.
    ///
    /// # Errors
    /// `Format` where the key is missing.
    ///
    /// ```
    /// use anygpu::format::metadata::{Metadata, Value};
    /// let mut metadata = Metadata::default();
    /// metadata.insert("llama.block_count", Value::Uint(32));
    /// assert_eq!(metadata.required("llama.block_count", Metadata::u64)?, 32);
    /// assert!(metadata.required("llama.context_length", Metadata::u64).is_err());
    /// # Ok::<(), anygpu::Error>(())
    /// ```
    pub fn required<'a, T>(&'a self, key: &str, get: impl Fn(&'a Self, &str) -> Result<Option<T>>) -> Result<T> {
        get(self, key)?.ok_or_else(|| Error::format(format!("metadata {key}: not found, expected a value")))
    }
}

impl<K: Into<String>> FromIterator<(K, Value)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (K, Value)>>(entries: I) -> Self {
        Self { entries: entries.into_iter().map(|(key, value)| (key.into(), value)).collect() }
    }
}
