//! Training a [`Head`] with Burn's autodiff, on vectors of an encoder that stays as it is.

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests;

use burn::module::Initializer;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, TensorData};

use super::head::Head;
use crate::error::{Error, Result};

/// How a head is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainOptions {
    /// Steps of AdamW, each over all vectors.
    pub steps: usize,
    /// Its learning rate.
    pub learning_rate: f64,
    /// What weights shrink by in a step, over the learning rate.
    pub weight_decay: f32,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self { steps: 200, learning_rate: 0.05, weight_decay: 0.01 }
    }
}

/// The linear classifier that puts `vectors[N, dimensions]` into the classes of these numbers, by cross entropy. It begins at
/// zero, so that the same vectors give the same head. Runs on the vectors' device.
///
/// # Errors
/// `Shape` for no vectors, another number of classes than of vectors, or a class without a label; `Adapter` where the device
/// does not give the weights.
pub fn train(labels: Vec<String>, vectors: &Tensor<2>, classes: &[usize], options: &TrainOptions) -> Result<Head> {
    let [count, dimensions] = vectors.dims();
    if count == 0 || classes.len() != count {
        let found = classes.len();
        return Err(Error::shape(format!("{found} classes of {count} vectors: expected one for each, and any")));
    }
    if let Some(class) = classes.iter().find(|class| **class >= labels.len()) {
        return Err(Error::shape(format!("class {class}: expected one below {}, the labels", labels.len())));
    }
    let device = vectors.device().autodiff();
    let vectors = Tensor::from_inner(vectors.clone().detach());
    let mut wanted = vec![0.0f32; count * labels.len()];
    classes.iter().enumerate().for_each(|(row, class)| wanted[row * labels.len() + class] = 1.0);
    let wanted: Tensor<2> = Tensor::from_data(TensorData::new(wanted, [count, labels.len()]), &device);

    let mut head = LinearConfig::new(dimensions, labels.len()).with_initializer(Initializer::Zeros).init(&device);
    let mut optimizer = AdamWConfig::new().with_weight_decay(options.weight_decay).init();
    for _ in 0..options.steps {
        let log_probabilities = log_softmax(head.forward(vectors.clone()), 1);
        let loss = (log_probabilities * wanted.clone()).sum().neg() / count as f64;
        let gradients = GradientsParams::from_grads(loss.backward(), &head);
        head = optimizer.step(options.learning_rate, head, gradients);
    }
    export(labels, &head)
}

fn export(labels: Vec<String>, head: &Linear) -> Result<Head> {
    let weight = floats(head.weight.val().inner().transpose())?;
    let bias = match &head.bias {
        Some(bias) => floats(bias.val().inner())?,
        None => vec![0.0; labels.len()],
    };
    Head::new(labels, weight, bias)
}

/// A tensor's values on the host.
pub(crate) fn floats<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let failed = |error: &dyn std::fmt::Debug| Error::adapter(format!("Burn's runtime: {error:?}"));
    let data = tensor.try_into_data().map_err(|error| failed(&error))?;
    data.try_into_vec().map_err(|error| failed(&error))
}
