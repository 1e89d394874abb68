//! [`Head`]: a linear classifier of vectors, trained elsewhere and read from a file.
//!
//! A file is safetensors: `weight` F32 `[labels, dimensions]`, `bias` F32 `[labels]`, and in its metadata `labels`, a JSON
//! array of texts in the order of the rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::ByteSource;
use crate::format::safetensors::{Element, Safetensors, header};

/// Labels are meant to be told apart by a person.
const MAX_LABELS: u64 = 1 << 16;

/// A linear classifier: `softmax(weight · vector + bias)` over labels.
///
/// ```
/// # pollster::block_on(async {
/// use anygpu::embed::Head;
///
/// let labels = vec!["cold".to_owned(), "warm".to_owned()];
/// let head = Head::new(labels, vec![-1.0, 0.0, 1.0, 0.0], vec![0.0, 0.0])?;
/// let head = Head::open(std::sync::Arc::new(head.to_bytes()?)).await?;
/// let (label, probability) = head.classify(&[2.0, 5.0])?;
/// assert!(label == "warm" && (probability - 0.982).abs() < 1e-3);
/// # Ok::<(), anygpu::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    labels: Vec<String>,
    /// `[labels, dimensions]`.
    pub(super) weight: Vec<f32>,
    /// `[labels]`.
    pub(super) bias: Vec<f32>,
}

impl Head {
    /// A head of these labels: `weight[labels, dimensions]`, `bias[labels]`.
    ///
    /// # Errors
    /// `Format` for no labels, a label twice, sizes that do not fit them, or numbers that are not finite.
    pub fn new(labels: Vec<String>, weight: Vec<f32>, bias: Vec<f32>) -> Result<Self> {
        let count = labels.len();
        if count == 0 || bias.len() != count || weight.is_empty() || !weight.len().is_multiple_of(count) {
            return Err(Error::format(format!(
                "head: found {count} labels, {} weights and a bias of {}, expected as many rows as labels",
                weight.len(),
                bias.len()
            )));
        }
        let mut sorted: Vec<&String> = labels.iter().collect();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::format(format!("head: label {:?} twice, expected once", pair[0])));
        }
        if let Some(value) = weight.iter().chain(&bias).find(|value| !value.is_finite()) {
            return Err(Error::format(format!("head: found {value}, expected finite numbers")));
        }
        Ok(Self { labels, weight, bias })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// `Format` for a file of another kind or numbers that do not fit together; what reading gives.
    pub async fn open(source: Arc<dyn ByteSource>) -> Result<Self> {
        let file = Safetensors::open(source).await?;
        let labels = file
            .metadata()
            .get("labels")
            .ok_or_else(|| Error::format("head: metadata labels: not found, expected a JSON array of texts"))?;
        let labels: Vec<String> = serde_json::from_str(labels).map_err(|error| {
            Error::format(format!("head: metadata labels: {error}, expected a JSON array of texts"))
        })?;
        let count = labels.len() as u64;
        if count > MAX_LABELS {
            return Err(Error::format(format!("head: {count} labels, expected at most {MAX_LABELS}")));
        }
        let weight = values(&file, "weight", &[Some(count), None]).await?;
        let bias = values(&file, "bias", &[Some(count)]).await?;
        Self::new(labels, weight, bias)
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// `Shape` where sizes overflow.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let (count, dimensions) = (self.labels.len() as u64, self.dimensions() as u64);
        let labels = serde_json::Value::from(self.labels.clone()).to_string();
        let metadata = BTreeMap::from([("labels".to_owned(), labels)]);
        let tensors = [("weight", Element::F32, vec![count, dimensions]), ("bias", Element::F32, vec![count])];
        let mut bytes = header(&tensors, &metadata)?;
        for value in self.weight.iter().chain(&self.bias) {
            bytes.extend(value.to_le_bytes());
        }
        Ok(bytes)
    }

    /// The labels, in the order of scores.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Numbers of a vector.
    pub fn dimensions(&self) -> usize {
        self.weight.len() / self.labels.len()
    }

    /// The probability of each label.
    ///
    /// # Errors
    /// `Shape` for a vector of another size.
    pub fn probabilities(&self, vector: &[f32]) -> Result<Vec<f32>> {
        if vector.len() != self.dimensions() {
            let (found, expected) = (vector.len(), self.dimensions());
            return Err(Error::shape(format!("head: a vector of {found} numbers, expected {expected}")));
        }
        let rows = self.weight.chunks_exact(vector.len()).zip(&self.bias);
        let score = |(row, &bias): (&[f32], &f32)| {
            row.iter().zip(vector).map(|(&w, &v)| f64::from(w) * f64::from(v)).sum::<f64>() + f64::from(bias)
        };
        let scores: Vec<f64> = rows.map(score).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let total: f64 = powers.iter().sum();
        Ok(powers.into_iter().map(|power| (power / total) as f32).collect())
    }

    /// The likeliest label and its probability; of equals, the first.
    ///
    /// # Errors
    /// As [`Self::probabilities`].
    pub fn classify(&self, vector: &[f32]) -> Result<(&str, f32)> {
        let probabilities = self.probabilities(vector)?;
        let mut best = 0;
        for (index, probability) in probabilities.iter().enumerate() {
            if *probability > probabilities[best] {
                best = index;
            }
        }
        Ok((&self.labels[best], probabilities[best]))
    }
}

async fn values(file: &Safetensors, name: &str, shape: &[Option<u64>]) -> Result<Vec<f32>> {
    let info = file.expect(name, Element::F32, shape)?;
    let bytes = file.source().read(info.offset, info.bytes as usize).await?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        let labels = ["a", "b", "c"].map(str::to_owned).to_vec();
        Head::new(labels, vec![1.0, 0.0, 0.0, 1.0, -1.0, -1.0], vec![0.0, 0.5, 0.0]).unwrap()
    }

    #[test]
    fn probabilities_are_a_softmax() {
        let found = head().probabilities(&[1.0, -1.0]).unwrap();
        // Scores 1, -0.5, 0.
        let powers = [1.0f64, -0.5, 0.0].map(f64::exp);
        let total: f64 = powers.iter().sum();
        for (found, power) in found.iter().zip(powers) {
            assert!((f64::from(*found) - power / total).abs() < 1e-7, "{found}, expected {}", power / total);
        }
        assert_eq!(head().classify(&[1.0, -1.0]).unwrap().0, "a");
        assert_eq!(head().classify(&[0.0, 0.0]).unwrap().0, "b");
        // Scores whose powers overflow.
        assert_eq!(head().classify(&[1e4, 0.0]).unwrap(), ("a", 1.0));
    }

    #[test]
    fn files_hold_what_was_written() {
        let bytes = head().to_bytes().unwrap();
        assert_eq!(pollster::block_on(Head::open(Arc::new(bytes))).unwrap(), head());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let labels = |labels: &[&str]| labels.iter().map(|&label| label.to_owned()).collect::<Vec<_>>();
        let errors = [
            (Head::new(vec![], vec![1.0], vec![]), "found 0 labels"),
            (Head::new(labels(&["a", "b"]), vec![1.0; 3], vec![0.0; 2]), "3 weights"),
            (Head::new(labels(&["a", "b"]), vec![1.0; 4], vec![0.0; 1]), "a bias of 1"),
            (Head::new(labels(&["a", "a"]), vec![1.0; 4], vec![0.0; 2]), "label \"a\" twice"),
            (Head::new(labels(&["a"]), vec![f32::NAN], vec![0.0]), "found NaN"),
        ];
        for (found, expected) in errors {
            let error = found.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}, expected {expected}");
        }
        let error = head().classify(&[1.0]).unwrap_err().to_string();
        assert!(error.contains("a vector of 1 numbers, expected 2"), "{error}");
        let file = |metadata: &[(&str, &str)]| {
            let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let mut bytes = header(&[("weight", Element::F32, vec![1, 1])], &metadata).unwrap();
            bytes.extend([0; 4]);
            pollster::block_on(Head::open(Arc::new(bytes))).unwrap_err().to_string()
        };
        for (metadata, expected) in [
            (&[][..], "metadata labels: not found"),
            (&[("labels", "a")], "expected a JSON array"),
            (&[("labels", "[\"a\", \"b\"]")], "tensor weight: found F32 [1, 1], expected F32 [2, any]"),
            (&[("labels", "[\"a\"]")], "tensor bias: not found"),
        ] {
            let error = file(metadata);
            assert!(error.contains(expected), "{error}, expected {expected}");
        }
    }
}
