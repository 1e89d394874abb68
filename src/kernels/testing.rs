//! The harness that holds a kernel on a device against its reference: poisoned outputs, guard zones behind every tensor,
//! and mutants that show that it can fail.

use super::host::Host;
use super::kernel::Kernel;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::{Access, Buffer, Context};
use crate::shader::PARAMS;
use crate::tensor::{Storage, Tensor};

/// How an output is compared with the reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Compare {
    /// 32-bit floats: normalised mean squared error `Σ(a - b)² / Σb²` at most this, no single error above
    /// 30·√nmse of the reference's root mean square, and NaN or infinite only where the reference is.
    Nmse(f64),
    /// Pairs of 16-bit floats in 32-bit words, compared like [`Compare::Nmse`].
    HalfNmse(f64),
    /// Pairs of 16-bit floats in 32-bit words: none off by more than this times 1/16 more than its size.
    HalfEach(f64),
    /// Packed signed bytes: none off by more than this.
    Bytes(u8),
    /// [`Q8`](super::q8::Q8) of values whose error is at most this, by [`Compare::Nmse`]: no byte off by more than 1, where a
    /// rounding falls on the other side, which moves the scaled sum by one scale, 10⁻⁵ of it; scales, and sums of squares,
    /// which double relative errors, within 10 times this.
    Q8(f64),
    /// The same bits.
    Exact,
}

/// A kernel with arguments, inputs and what its outputs may differ by.
#[derive(Debug)]
pub struct Case {
    /// Kernel and shape, for the table.
    pub name: String,
    /// The dispatch.
    pub kernel: Box<dyn Kernel>,
    /// Bound of positions for [`Kernel::grid`].
    pub context: usize,
    storages: Vec<Vec<u8>>,
    outputs: Vec<(Tensor, Compare)>,
}

/// How a device did at a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The case.
    pub name: String,
    /// The largest normalised mean squared error of its outputs.
    pub nmse: f64,
    /// What is wrong, where something is.
    pub failure: Option<String>,
}

/// A fault put into a device's answer, to show that the harness sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// One value of the first output is off by a tenth of the root mean square (integers: by one more than allowed).
    OneValueOff,
    /// The last element of the first output was never written.
    LastSkipped,
    /// One write lies past the end of the first output.
    PastTheEnd,
}

/// What outputs hold before the dispatch: a NaN as f32, improbable as anything else.
const POISON: u32 = 0x7fc0_dead;
/// Bytes behind every tensor that nothing may write; also the alignment that bindings need.
const GUARD: usize = 256;

/// Builds a [`Case`]: tensors first, then the kernel on them.
#[derive(Debug)]
pub struct CaseBuilder {
    storages: Vec<Vec<u8>>,
    outputs: Vec<(Tensor, Compare)>,
    random: u64,
}

impl CaseBuilder {
    /// A builder whose random values follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { storages: Vec::new(), outputs: Vec::new(), random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    fn add(&mut self, dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Tensor {
        let tensor = Tensor::new(Storage::Activation(self.storages.len() as u32), 0, dtype, shape);
        self.storages.push(bytes);
        tensor
    }

    /// The next random 32 bits.
    pub fn bits(&mut self) -> u32 {
        // xorshift64*, Vigna 2016.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// The next random number, about normal with deviation 1.
    pub fn normal(&mut self) -> f32 {
        let sum: f32 = (0..12).map(|_| self.bits() as f32 / 4_294_967_296.0).sum();
        sum - 6.0
    }

    /// Random values as activations have them: about normal, one in 64 ten times as large.
    pub fn normals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|i| self.normal() * if i % 64 == 17 { 10.0 } else { 1.0 }).collect()
    }

    /// An input of [`Self::normals`].
    pub fn random(&mut self, shape: &[usize]) -> Tensor {
        let values = self.normals(shape.iter().product());
        self.floats(shape, &values)
    }

    /// An input of these floats.
    pub fn floats(&mut self, shape: &[usize], values: &[f32]) -> Tensor {
        self.add(DType::F32, shape, bytemuck::cast_slice(values).to_vec())
    }

    /// An input of these values as halves; the last dimension is a multiple of 32.
    pub fn halves(&mut self, shape: &[usize], values: &[f32]) -> Tensor {
        let halves: Vec<half::f16> = values.iter().map(|&v| half::f16::from_f32(v)).collect();
        self.add(DType::F16, shape, bytemuck::cast_slice(&halves).to_vec())
    }

    /// An input of these integers.
    pub fn words(&mut self, shape: &[usize], values: &[u32]) -> Tensor {
        self.add(DType::U32, shape, bytemuck::cast_slice(values).to_vec())
    }

    /// A random weight of a format, rows packed as [`crate::layout`] says; its values have a deviation of about 1 / √cols.
    ///
    /// # Errors
    /// `Shape` where `cols` is no whole number of blocks.
    pub fn weight(&mut self, dtype: DType, rows: usize, cols: usize) -> Result<Tensor> {
        let scale = 1.0 / (cols as f32).sqrt();
        let mut values = Vec::with_capacity(rows * cols);
        for _ in 0..rows {
            values.extend(self.normals(cols).iter().map(|v| v * scale));
        }
        self.weight_of(dtype, cols, &values)
    }

    /// A weight of these values, rows of `cols`.
    ///
    /// # Errors
    /// `Shape` where `cols` is no whole number of blocks.
    pub fn weight_of(&mut self, dtype: DType, cols: usize, values: &[f32]) -> Result<Tensor> {
        let padded = crate::layout::padded_cols(dtype, cols);
        let row_bytes = crate::layout::row_bytes(dtype, padded);
        let rows = values.len() / cols;
        let mut packed = vec![0; rows * row_bytes];
        for (values, out) in values.chunks_exact(cols).zip(packed.chunks_exact_mut(row_bytes)) {
            let mut blocks = Vec::new();
            crate::quant::quantize(dtype, values, &mut blocks)?;
            crate::layout::pack_row(dtype, &blocks, out)?;
        }
        Ok(self.add(dtype, &[rows, padded], packed))
    }

    /// A packed weight as an output, poisoned.
    pub fn poisoned_weight(&mut self, dtype: DType, rows: usize, cols: usize, compare: Compare) -> Tensor {
        let words = rows * crate::layout::row_bytes(dtype, cols) / 4;
        let tensor = self.add(dtype, &[rows, cols], bytemuck::cast_slice(&vec![POISON; words]).to_vec());
        self.outputs.push((tensor.clone(), compare));
        tensor
    }

    /// An output of floats, poisoned.
    pub fn output(&mut self, shape: &[usize], compare: Compare) -> Tensor {
        self.output_of(DType::F32, shape, compare)
    }

    /// An output, poisoned.
    pub fn output_of(&mut self, dtype: DType, shape: &[usize], compare: Compare) -> Tensor {
        let words: usize = shape.iter().product();
        let bytes = bytemuck::cast_slice(&vec![POISON; words]).to_vec();
        let tensor = self.add(dtype, shape, bytes);
        self.outputs.push((tensor.clone(), compare));
        tensor
    }

    /// An output of halves, poisoned; the last dimension is a multiple of 32.
    pub fn halves_output(&mut self, shape: &[usize], compare: Compare) -> Tensor {
        let words: usize = shape.iter().product::<usize>() / 2;
        let tensor = self.add(DType::F16, shape, bytemuck::cast_slice(&vec![POISON; words]).to_vec());
        self.outputs.push((tensor.clone(), compare));
        tensor
    }

    /// Marks an input as an output too: a tensor that the kernel updates.
    pub fn updated(&mut self, tensor: &Tensor, compare: Compare) {
        self.outputs.push((tensor.clone(), compare));
    }

    /// The case.
    pub fn case(self, name: impl Into<String>, kernel: impl Kernel + 'static) -> Case {
        self.case_at(name, kernel, 1)
    }

    /// The case, with a bound of positions for the grid.
    pub fn case_at(self, name: impl Into<String>, kernel: impl Kernel + 'static, context: usize) -> Case {
        let name = format!("{} {}", kernel.name(), name.into());
        Case { name, kernel: Box::new(kernel), context, storages: self.storages, outputs: self.outputs }
    }
}

impl Case {
    /// How the outputs are compared.
    pub fn compares(&self) -> Vec<Compare> {
        self.outputs.iter().map(|(_, compare)| *compare).collect()
    }

    /// The tensors before the dispatch.
    pub(super) fn host(&self) -> Host {
        let mut host = Host::default();
        for (key, bytes) in self.storages.iter().enumerate() {
            host.insert(key as u64, bytes.clone());
        }
        host
    }

    /// The outputs as the reference has them.
    ///
    /// # Errors
    /// What [`Kernel::reference`] returns.
    pub fn expected(&self) -> Result<Vec<Vec<u8>>> {
        let mut host = self.host();
        self.kernel.reference(&mut host)?;
        self.outputs.iter().map(|(tensor, _)| Ok(host.bytes(tensor)?.to_vec())).collect()
    }

    /// Runs the case on a device and compares, with a fault put into the answer where `mutant` is given.
    ///
    /// # Errors
    /// What stops the run itself: a refused shader, a lost device. A wrong answer is an [`Outcome::failure`].
    pub async fn run(&self, context: &Context, mutant: Option<Mutant>) -> Result<Outcome> {
        self.kernel.check()?;
        let expected = self.expected()?;
        let mut found = self.dispatch(context).await?;
        if let (Some(mutant), Some(first)) = (mutant, found.first_mut()) {
            self.mutate(mutant, first, &expected[0]);
        }
        let mut outcome = Outcome { name: self.name.clone(), nmse: 0.0, failure: None };
        for (index, (((_, compare), found), expected)) in self.outputs.iter().zip(&found).zip(&expected).enumerate() {
            let (found, guard) = found.split_at(expected.len());
            let result = if guard.iter().any(|&byte| byte != 0xA5) {
                Err("bytes written past the end".to_owned())
            } else {
                difference(*compare, found, expected)
            };
            match result {
                Ok(nmse) => outcome.nmse = outcome.nmse.max(nmse),
                Err(message) => outcome.failure = Some(format!("output {index}: {message}")),
            }
        }
        Ok(outcome)
    }

    fn mutate(&self, mutant: Mutant, found: &mut [u8], expected: &[u8]) {
        let Some((_, compare)) = self.outputs.first() else { return };
        let words = expected.len() / 4;
        match mutant {
            Mutant::OneValueOff => {
                let at = 4 * (words / 2);
                let word = bytemuck::pod_read_unaligned::<u32>(&found[at..at + 4]);
                let off = |values: &[f32]| {
                    let squares: f64 = values.iter().map(|&v| f64::from(v).powi(2)).sum();
                    (0.1 * (squares / values.len() as f64).sqrt()).max(1e-3) as f32
                };
                let word = match compare {
                    Compare::Nmse(_) => (f32::from_bits(word) + off(&floats(expected))).to_bits(),
                    Compare::HalfNmse(_) | Compare::HalfEach(_) => {
                        let low = half::f16::from_bits(word as u16).to_f32() + off(&halves(expected));
                        word & 0xffff_0000 | u32::from(half::f16::from_f32(low).to_bits())
                    }
                    // The middle third is bytes.
                    Compare::Q8(_) => word ^ 2 << 8,
                    Compare::Bytes(allowed) => word ^ (u32::from(*allowed) + 1).next_power_of_two() << 8,
                    Compare::Exact => word ^ 1,
                };
                found[at..at + 4].copy_from_slice(&word.to_le_bytes());
            }
            Mutant::LastSkipped => {
                let at = 4 * (words - 1);
                found[at..at + 4].copy_from_slice(&POISON.to_le_bytes());
            }
            Mutant::PastTheEnd => found[expected.len()] ^= 1,
        }
    }

    /// Runs the kernel; returns each output's bytes with the guard behind them.
    async fn dispatch(&self, context: &Context) -> Result<Vec<Vec<u8>>> {
        let mut buffers: Vec<Buffer> = Vec::new();
        for bytes in &self.storages {
            let mut padded = bytes.clone();
            padded.resize(bytes.len() + GUARD, 0xA5);
            padded.resize(padded.len().next_multiple_of(16), 0xA5);
            buffers.push(context.buffer_from("case", &padded)?);
        }
        let bindings = self.kernel.bindings();
        let accesses: Vec<Access> = bindings.iter().map(|binding| binding.access).collect();
        for binding in bindings.iter().filter(|binding| binding.access == Access::Write) {
            let key = binding.tensor.storage().key();
            if !self.outputs.iter().any(|(tensor, _)| tensor.storage().key() == key) {
                return Err(Error::shape(format!("{}: an output is not compared", self.name)));
            }
        }
        let pipeline = context.pipeline(&self.kernel.spec(context.profile()), &accesses)?;
        let device = context.device();
        let mut bytes = self.kernel.params().bytes;
        bytes.resize(bytes.len().next_multiple_of(16).max(16), 0);
        let params = context.buffer_with("params", bytes.len() as u64, wgpu::BufferUsages::UNIFORM)?;
        context.write(&params, 0, &bytes);
        let tensors = bindings.iter().zip(0..).map(|(bound, binding)| wgpu::BindGroupEntry {
            binding,
            resource: buffers[bound.tensor.storage().key() as usize].raw().as_entire_binding(),
        });
        let params = wgpu::BindGroupEntry { binding: PARAMS, resource: params.raw().as_entire_binding() };
        let entries: Vec<_> = tensors.chain([params]).collect();
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.layout,
            entries: &entries,
        });
        let mut encoder = context.encoder();
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&pipeline.raw);
            pass.set_bind_group(0, &group, &[]);
            let [x, y, z] = self.kernel.grid(context.profile(), self.context);
            pass.dispatch_workgroups(x, y, z);
        }
        context.submit(encoder);
        context.check().map_err(|error| error.context(&self.name))?;
        let mut found = Vec::new();
        for (tensor, _) in &self.outputs {
            let key = tensor.storage().key() as usize;
            let mut bytes = context.read(&buffers[key], 0, buffers[key].bytes()).await?;
            bytes.truncate(self.storages[key].len() + GUARD);
            found.push(bytes);
        }
        Ok(found)
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(bytes)
}

fn halves(bytes: &[u8]) -> Vec<f32> {
    bytemuck::pod_collect_to_vec::<u8, half::f16>(bytes).into_iter().map(half::f16::to_f32).collect()
}

/// `Σ(a - b)² / Σb²` over two lists of the same length; 0 where both are zero.
pub fn nmse(found: &[f32], expected: &[f32]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let error = squares(&mut found.iter().zip(expected).map(|(&a, &b)| f64::from(a) - f64::from(b)));
    let size = squares(&mut expected.iter().map(|&b| f64::from(b)));
    if error == 0.0 { 0.0 } else { error / size }
}

fn difference(compare: Compare, found: &[u8], expected: &[u8]) -> Result<f64, String> {
    let (limit, found_values, expected_values) = match compare {
        Compare::Exact => {
            let (found, expected): (Vec<u32>, Vec<u32>) =
                (bytemuck::pod_collect_to_vec(found), bytemuck::pod_collect_to_vec(expected));
            return match found.iter().zip(&expected).position(|(a, b)| a != b) {
                None => Ok(0.0),
                Some(i) => Err(format!("word {i}: found {:#010x}, expected {:#010x}", found[i], expected[i])),
            };
        }
        Compare::Bytes(allowed) => {
            let far = |(&a, &b): (&u8, &u8)| (a as i8).abs_diff(b as i8) > allowed;
            return match found.iter().zip(expected).position(far) {
                None => Ok(0.0),
                Some(i) => Err(format!("byte {i}: found {}, expected {}", found[i] as i8, expected[i] as i8)),
            };
        }
        Compare::Q8(limit) => {
            let (bytes, about) = (expected.len() / 3 * 2, |of: &[u8], part: usize| {
                let words: Vec<f32> = floats(&of[of.len() / 3 * 2..]);
                words.chunks_exact(4).map(|about| about[part]).collect::<Vec<f32>>()
            });
            difference(Compare::Bytes(1), &found[..bytes], &expected[..bytes])?;
            let mut largest = 0f64;
            for (part, name, limit) in
                [(0, "scale", 10.0 * limit), (1, "sum", 1e-5), (2, "squares", 10.0 * limit), (3, "zero", 0.0)]
            {
                let (found, expected) = (about(found, part), about(expected, part));
                let nmse = floats_difference(limit, &found, &expected).map_err(|error| format!("{name}: {error}"))?;
                largest = largest.max(nmse);
            }
            return Ok(largest);
        }
        Compare::HalfEach(limit) => {
            let (found, expected) = (halves(found), halves(expected));
            let near = |a: f32, b: f32| f64::from((a - b).abs()) <= limit * (f64::from(b.abs()) + 0.0625);
            return match found.iter().zip(&expected).position(|(&a, &b)| !near(a, b)) {
                None => Ok(0.0),
                Some(i) => Err(format!("half {i}: found {}, expected {}", found[i], expected[i])),
            };
        }
        Compare::Nmse(limit) => (limit, floats(found), floats(expected)),
        Compare::HalfNmse(limit) => (limit, halves(found), halves(expected)),
    };
    floats_difference(limit, &found_values, &expected_values)
}

/// [`Compare::Nmse`].
fn floats_difference(limit: f64, found: &[f32], expected: &[f32]) -> Result<f64, String> {
    let squares: f64 = expected.iter().filter(|v| v.is_finite()).map(|&v| f64::from(v).powi(2)).sum();
    let rms = (squares / expected.len().max(1) as f64).sqrt();
    let allowed = 30.0 * limit.sqrt() * rms;
    let mut error = 0.0;
    for (i, (&a, &b)) in found.iter().zip(expected).enumerate() {
        if b.is_finite() {
            let off = (f64::from(a) - f64::from(b)).abs();
            if off.is_nan() || off > allowed {
                return Err(format!("element {i}: found {a}, expected {b} ± {allowed:.2e}"));
            }
            error += off * off;
        } else if a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan()) {
            return Err(format!("element {i}: found {a}, expected {b}"));
        }
    }
    let nmse = if error == 0.0 { 0.0 } else { error / squares };
    if nmse <= limit { Ok(nmse) } else { Err(format!("NMSE {nmse:.2e}, expected at most {limit:.2e}")) }
}

/// Runs every case of every kernel on a device.
///
/// # Errors
/// What stops a run, such as a lost device.
pub async fn check_all(context: &Context, mut each: impl FnMut(&Outcome)) -> Result<()> {
    for case in super::cases_for(context.profile()) {
        let outcome = match case.run(context, None).await {
            Ok(outcome) => outcome,
            Err(error) if error.kind() == crate::ErrorKind::DeviceLost => return Err(error),
            Err(error) => Outcome { name: case.name.clone(), nmse: f64::NAN, failure: Some(error.to_string()) },
        };
        each(&outcome);
    }
    Ok(())
}
