//! Layers of Burn modules, loaded by the names of a [`TensorFile`]. Each runs on the kernels that it was loaded for.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::module::{layer_norm, linear};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::error::Result;
use crate::models::burn_kernels::{Kernels, Launcher, Packed};
use crate::models::weights::TensorFile;

/// A matrix, and what it is multiplied by.
#[derive(Module, Debug)]
pub enum Weight {
    /// For Burn's kernels.
    Dense(Param<Tensor<2>>),
    /// For this crate's.
    Packed(Matrices),
}

/// Matrices of the same columns in the formats of a file, one below the other. They are not trained.
#[derive(Module, Debug)]
pub struct Matrices {
    #[module(skip)]
    parts: Vec<Packed>,
    #[module(skip)]
    launcher: Arc<Launcher>,
}

/// `y = x · weightᵀ + bias`.
#[derive(Module, Debug)]
pub struct Linear {
    /// Dense: `[cols, rows]`, as Burn multiplies. Packed: `[rows, cols]`.
    weight: Weight,
    /// `[rows]`.
    bias: Option<Param<Tensor<1>>>,
}

/// A table whose rows are looked up.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[rows, cols]`.
    weight: Weight,
}

/// Layer normalisation, with a bias for its input where this crate's kernel adds one.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[cols]`.
    weight: Param<Tensor<1>>,
    /// `[cols]`.
    bias: Param<Tensor<1>>,
    #[module(skip)]
    eps: f32,
    #[module(skip)]
    kernels: Kernels,
}

/// Division by the root of the mean square.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[cols]`.
    weight: Param<Tensor<1>>,
    #[module(skip)]
    eps: f32,
    #[module(skip)]
    kernels: Kernels,
}

/// What layers are loaded from, and for.
pub struct Loader<'a> {
    /// The tensors.
    pub file: &'a TensorFile,
    /// The device that layers are on.
    pub device: &'a Device,
    /// Whose kernels they run on.
    pub kernels: &'a Kernels,
}

/// Numbers on a device as Burn's integers; this crate's kernels read their bits as unsigned.
pub fn integers<const D: usize>(words: &[u32], shape: [usize; D], device: &Device) -> Tensor<D, Int> {
    let words: Vec<i32> = words.iter().map(|word| word.cast_signed()).collect();
    Tensor::from_data(TensorData::new(words, shape), (device, DType::I32))
}

impl Loader<'_> {
    /// A parameter of these values.
    pub fn parameter<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Param<Tensor<D>> {
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), self.device))
    }

    /// The vector of this name.
    ///
    /// # Errors
    /// What reading gives.
    pub async fn vector(&self, name: &str) -> Result<Param<Tensor<1>>> {
        let values = self.file.values(name).await?;
        let shape = [values.len()];
        Ok(self.parameter(values, shape))
    }

    async fn matrices(&self, names: &[String], launcher: &Arc<Launcher>) -> Result<Weight> {
        let mut parts = Vec::with_capacity(names.len());
        for name in names {
            let (dtype, [rows, cols], bytes) = self.file.packed(name).await?;
            let words = integers(&bytemuck::pod_collect_to_vec(&bytes), [bytes.len() / 4], self.device);
            parts.push(Packed { words, dtype, rows, cols });
        }
        Ok(Weight::Packed(Matrices { parts, launcher: launcher.clone() }))
    }

    async fn dense(&self, names: &[String], cols: usize) -> Result<Tensor<2>> {
        let mut values = Vec::new();
        for name in names {
            values.extend(self.file.values(name).await?);
        }
        let shape = [values.len() / cols.max(1), cols];
        Ok(Tensor::from_data(TensorData::new(values, shape), self.device))
    }

    /// The layers `name.weight` (and `name.bias`, for those that have one), each `cols` wide, as one.
    ///
    /// # Errors
    /// What reading gives.
    pub async fn linear(&self, layers: &[(&str, usize, bool)], prefix: &str, cols: usize) -> Result<Linear> {
        let names: Vec<String> = layers.iter().map(|(name, ..)| format!("{prefix}{name}.weight")).collect();
        let weight = match self.kernels {
            Kernels::Own(launcher) => self.matrices(&names, launcher).await?,
            Kernels::Burn => Weight::Dense(Param::from_tensor(self.dense(&names, cols).await?.transpose())),
        };
        let mut bias = Vec::new();
        for (name, rows, has_bias) in layers {
            match has_bias {
                true => bias.extend(self.file.values(&format!("{prefix}{name}.bias")).await?),
                false => bias.resize(bias.len() + rows, 0.0),
            }
        }
        let has_bias = layers.iter().any(|(.., has_bias)| *has_bias);
        let shape = [bias.len()];
        Ok(Linear { weight, bias: has_bias.then(|| self.parameter(bias, shape)) })
    }

    /// The table of this name, `cols` wide.
    ///
    /// # Errors
    /// What reading gives.
    pub async fn embedding(&self, name: &str, cols: usize) -> Result<Embedding> {
        let names = [name.to_owned()];
        let weight = match self.kernels {
            Kernels::Own(launcher) => self.matrices(&names, launcher).await?,
            Kernels::Burn => Weight::Dense(Param::from_tensor(self.dense(&names, cols).await?)),
        };
        Ok(Embedding { weight })
    }

    /// The layer norm `name.weight`, `name.bias`.
    ///
    /// # Errors
    /// What reading gives.
    pub async fn layer_norm(&self, name: &str, eps: f32) -> Result<LayerNorm> {
        let weight = self.vector(&format!("{name}.weight")).await?;
        let bias = self.vector(&format!("{name}.bias")).await?;
        Ok(LayerNorm { weight, bias, eps, kernels: self.kernels.clone() })
    }

    /// The RMS norm of this name.
    ///
    /// # Errors
    /// What reading gives.
    pub async fn rms_norm(&self, name: &str, eps: f32) -> Result<RmsNorm> {
        Ok(RmsNorm { weight: self.vector(name).await?, eps, kernels: self.kernels.clone() })
    }
}

impl Embedding {
    /// The rows of `rows[M, stride]`, whose first column is the row's number: `[M, cols]`.
    ///
    /// # Errors
    /// As [`Launcher::launch`].
    pub fn forward(&self, rows: &Tensor<2, Int>) -> Result<Tensor<2>> {
        match &self.weight {
            Weight::Packed(Matrices { parts, launcher }) => launcher.embed(&parts[0], rows),
            Weight::Dense(weight) => Ok(weight.val().select(0, column(rows, 0))),
        }
    }

    /// The table as a linear layer, for an output that shares it.
    pub fn tied(&self) -> Linear {
        let weight = match &self.weight {
            Weight::Packed(matrices) => Weight::Packed(matrices.clone()),
            Weight::Dense(weight) => Weight::Dense(Param::from_tensor(weight.val().transpose())),
        };
        Linear { weight, bias: None }
    }
}

/// A column of `rows[M, stride]`.
pub fn column(rows: &Tensor<2, Int>, at: usize) -> Tensor<1, Int> {
    rows.clone().narrow(1, at, 1).flatten(0, 1)
}

impl Linear {
    /// `x[M, cols]` to `[M, rows]`.
    ///
    /// # Errors
    /// As [`Launcher::launch`].
    pub fn forward(&self, x: Tensor<2>) -> Result<Tensor<2>> {
        self.apply(x, false)
    }

    /// The same through GELU.
    ///
    /// # Errors
    /// As [`Launcher::launch`].
    pub fn forward_gelu(&self, x: Tensor<2>) -> Result<Tensor<2>> {
        self.apply(x, true)
    }

    fn apply(&self, x: Tensor<2>, gelu: bool) -> Result<Tensor<2>> {
        let bias = self.bias.as_ref().map(Param::val);
        match &self.weight {
            Weight::Packed(Matrices { parts, launcher }) => launcher.linear(parts, &x, bias.as_ref(), gelu),
            Weight::Dense(weight) => {
                let y = linear(x, weight.val(), bias);
                Ok(if gelu { burn::tensor::activation::gelu(y) } else { y })
            }
        }
    }

    /// `residual + x · weightᵀ + bias`.
    ///
    /// # Errors
    /// As [`Launcher::launch`].
    pub fn add_to(&self, residual: Tensor<2>, x: Tensor<2>) -> Result<Tensor<2>> {
        match &self.weight {
            Weight::Packed(Matrices { parts, launcher }) => {
                let y = launcher.add_linear(parts, &x, residual)?;
                Ok(match &self.bias {
                    Some(bias) => y + bias.val().unsqueeze(),
                    None => y,
                })
            }
            Weight::Dense(weight) => Ok(residual + linear(x, weight.val(), self.bias.as_ref().map(Param::val))),
        }
    }

    /// `norm(residual + x · weightᵀ + bias)`; `rows[M, 4]` as this crate's kernel takes them.
    ///
    /// # Errors
    /// As [`Launcher::launch`].
    pub fn add_to_and_norm(
        &self,
        residual: Tensor<2>,
        x: Tensor<2>,
        norm: &LayerNorm,
        rows: &Tensor<2, Int>,
    ) -> Result<Tensor<2>> {
        match (&self.weight, &self.bias) {
            (Weight::Packed(Matrices { parts, launcher }), Some(bias)) => {
                let y = launcher.add_linear(parts, &x, residual)?;
                norm.forward(y, &bias.val().unsqueeze(), rows)
            }
            _ => Ok(norm.plain(self.add_to(residual, x)?)),
        }
    }
}

impl LayerNorm {
    fn plain(&self, x: Tensor<2>) -> Tensor<2> {
        layer_norm(x, self.weight.val(), Some(self.bias.val()), self.eps.into())
    }

    /// The norm of `x[M, cols]` with a row of `add[P, cols]` added to each: that of the position in `rows[M, 4]`, or the only
    /// one.
    ///
    /// # Errors
    /// As [`Launcher::launch`].
    pub fn forward(&self, x: Tensor<2>, add: &Tensor<2>, rows: &Tensor<2, Int>) -> Result<Tensor<2>> {
        match &self.kernels {
            Kernels::Own(launcher) => launcher.layer_norm(x, add, rows, &self.weight.val(), &self.bias.val(), self.eps),
            Kernels::Burn if add.dims()[0] == 1 => Ok(self.plain(x + add.clone())),
            Kernels::Burn => Ok(self.plain(x + add.clone().select(0, column(rows, 1)))),
        }
    }
}

impl RmsNorm {
    /// Where it is.
    pub fn device(&self) -> Device {
        self.weight.device()
    }

    /// The norm of every row of `x[M, cols]`.
    ///
    /// # Errors
    /// As [`Launcher::launch`].
    pub fn forward(&self, x: &Tensor<2>) -> Result<Tensor<2>> {
        match &self.kernels {
            Kernels::Own(launcher) => launcher.rms_norm(x, &self.weight.val(), self.eps),
            Kernels::Burn => {
                let square = x.clone().powi_scalar(2).mean_dim(1);
                Ok(x.clone() / (square + self.eps).sqrt() * self.weight.val().unsqueeze())
            }
        }
    }
}
