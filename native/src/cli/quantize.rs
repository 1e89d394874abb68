//! `quantize`: a float model to a quantised one.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anygpu::format::gguf::{Gguf, TensorInfo, Writer};
use anygpu::format::metadata::Value;
use anygpu::format::source::MappedFile;
use anygpu::{DType, Error, quant};
use indicatif::ProgressBar;
use serde_json::json;

use super::common::{Global, Interruptible, bytes_bar, note, print_json};
use super::failure::{Failure, Result};

#[derive(clap::Args, Debug)]
#[command(after_help = "Types: f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q5_k, q6_k.
Vectors, such as norms, become f32. A matrix whose rows are no whole blocks of a K-quant becomes q8_0, or f16
where that does not fit either.

Example:
  anygpu quantize model-f16.gguf model-q4_k.gguf q4_k")]
pub struct Args {
    /// The GGUF file to read: F32, F16 or BF16
    input: PathBuf,
    /// The file to write
    output: PathBuf,
    /// The format of the matrices
    dtype: DType,
    /// Write over a file that is there
    #[arg(long)]
    force: bool,
    /// Threads; without it one a core
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// llama.cpp's number for a file that is mostly of one format (`enum llama_ftype`).
fn file_type(dtype: DType) -> u64 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q4_1 => 3,
        DType::Q8_0 => 7,
        DType::Q5_0 => 8,
        DType::Q5_1 => 9,
        // The "small" mixes, which are the ones without larger formats for some tensors.
        DType::Q4_K => 14,
        DType::Q5_K => 16,
        DType::Q6_K => 18,
        DType::BF16 => 32,
        // "Guessed": no other format is written.
        _ => 1024,
    }
}

/// The format that a tensor gets.
fn target(tensor: &TensorInfo, dtype: DType) -> DType {
    let [_, cols] = tensor.shape[..] else { return DType::F32 };
    [dtype, DType::Q8_0].into_iter().find(|dtype| cols.is_multiple_of(dtype.block_len() as u64)).unwrap_or(DType::F16)
}

/// A file that is written beside its final place and moved there when it is whole; gone when dropped before.
struct Part<'a> {
    path: PathBuf,
    target: &'a Path,
    done: bool,
}

impl<'a> Part<'a> {
    fn new(target: &'a Path) -> Self {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        Self { path: target.with_file_name(name), target, done: false }
    }

    fn keep(mut self) -> std::io::Result<()> {
        std::fs::rename(&self.path, self.target)?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Elements that a thread converts at a time.
const PIECE: usize = 1 << 20;

/// Converts whole rows.
fn convert(from: DType, to: DType, cols: usize, bytes: &[u8]) -> anygpu::Result<Vec<u8>> {
    if from == to {
        return Ok(bytes.to_vec());
    }
    let mut row = vec![0.0; cols];
    let row_bytes = from.bytes(cols as u64)? as usize;
    let mut out = Vec::new();
    for (index, bytes) in bytes.chunks_exact(row_bytes).enumerate() {
        quant::dequantize(from, bytes, &mut row)?;
        quant::quantize(to, &row, &mut out).map_err(|error| error.context(format!("row {index} of a piece")))?;
    }
    Ok(out)
}

async fn tensor(
    gguf: &Gguf,
    from: &TensorInfo,
    to: DType,
    threads: usize,
    writer: &mut Writer<BufWriter<File>>,
    bar: &ProgressBar,
    interrupt: &Interruptible,
) -> Result {
    let cols = from.shape.last().copied().unwrap_or(1);
    let row_bytes = from.dtype.bytes(cols)?;
    let piece = row_bytes * (PIECE as u64 / cols).max(1);
    let end = from.offset + from.bytes;
    let mut offset = from.offset;
    while offset < end {
        if interrupt.stopped() {
            return Err(Failure::Interrupted);
        }
        let mut pieces = Vec::new();
        while offset < end && pieces.len() < threads {
            let len = piece.min(end - offset);
            pieces.push(gguf.source().read(offset, len as usize).await?);
            offset += len;
        }
        let read: usize = pieces.iter().map(|piece| piece.len()).sum();
        let converted: Vec<anygpu::Result<Vec<u8>>> = std::thread::scope(|scope| {
            let running: Vec<_> =
                pieces.iter().map(|piece| scope.spawn(|| convert(from.dtype, to, cols as usize, piece))).collect();
            let stopped = || Err(Error::io("a thread stopped, expected it to convert rows"));
            running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| stopped())).collect()
        });
        for bytes in converted {
            let bytes = bytes.map_err(|error| error.context(format!("tensor {}", from.name)))?;
            writer.write(&from.name, &bytes)?;
        }
        bar.inc(read as u64);
    }
    Ok(())
}

/// Runs the command.
pub async fn run(global: &Global, args: &Args) -> Result {
    let output = &args.output;
    if output.file_name().is_none() || output.is_dir() {
        return Err(Failure::error(format!("{}: expected the path of a file to write", output.display())));
    }
    if output.exists() && !args.force {
        return Err(Failure::error(format!("{}: is there already; --force writes over it", output.display())));
    }
    let same = |path: &Path| path.canonicalize().ok();
    if same(output).is_some() && same(output) == same(&args.input) {
        return Err(Failure::error(format!("{}: is the file to read, expected another to write", output.display())));
    }
    let named = |error: Error| Failure::from(error.context(args.input.display()));
    let gguf = Gguf::open(Arc::new(MappedFile::open(&args.input)?)).await.map_err(named)?;
    let mut tensors = Vec::new();
    for tensor in gguf.tensors() {
        if !matches!(tensor.dtype, DType::F32 | DType::F16 | DType::BF16) {
            let (name, dtype) = (&tensor.name, tensor.dtype);
            return Err(named(Error::unsupported(format!("tensor {name}: found {dtype}, expected f32, f16 or bf16"))));
        }
        let to = target(tensor, args.dtype);
        if to != args.dtype && tensor.shape.len() == 2 {
            let cols = tensor.shape[1];
            note(format_args!("[{}: rows of {cols} are no whole blocks of {}; takes {to}]", tensor.name, args.dtype));
        }
        tensors.push(TensorInfo::new(tensor.name.clone(), to, tensor.shape.clone())?);
    }
    let mut metadata = gguf.metadata().clone();
    metadata.insert("general.file_type", Value::Uint(file_type(args.dtype)));
    if args.dtype.is_quantized() {
        metadata.insert("general.quantization_version", Value::Uint(2));
    }
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    let total: u64 = gguf.tensors().iter().map(|tensor| tensor.bytes).sum();
    let part = Part::new(output);
    let named_out = |error: std::io::Error| Failure::error(format!("{}: {error}", output.display()));
    let file = File::create(&part.path).map_err(named_out)?;
    let mut writer = Writer::new(BufWriter::with_capacity(1 << 20, file), &metadata, tensors)?;
    let bar = bytes_bar(total, "quantizing");
    let interrupt = Interruptible::new();
    let targets: Vec<DType> = writer.tensors().iter().map(|tensor| tensor.dtype).collect();
    for (from, to) in gguf.tensors().iter().zip(targets) {
        let done = tensor(&gguf, from, to, threads, &mut writer, &bar, &interrupt).await;
        if done.is_err() {
            bar.finish_and_clear();
        }
        done?;
    }
    bar.finish_and_clear();
    let written: u64 = writer.tensors().iter().map(|tensor| tensor.bytes).sum();
    let file = writer.finish()?.into_inner().map_err(|error| named_out(error.into_error()))?;
    file.sync_all().map_err(named_out)?;
    drop(file);
    part.keep().map_err(named_out)?;
    if global.json {
        return print_json(&json!({
            "output": output.display().to_string(), "dtype": args.dtype.name(), "bytes_before": total, "bytes": written,
        }));
    }
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    writeln!(
        std::io::stdout(),
        "{}: {} tensors, {:.1} MiB to {:.1} MiB",
        output.display(),
        gguf.tensors().len(),
        mib(total),
        mib(written)
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_stay_floats_and_odd_rows_fall_back() {
        let cases: [(&[u64], DType, DType); 7] = [
            (&[256], DType::Q4_K, DType::F32),
            (&[4, 256], DType::Q4_K, DType::Q4_K),
            (&[4, 96], DType::Q4_K, DType::Q8_0),
            (&[4, 100], DType::Q6_K, DType::F16),
            (&[4, 96], DType::Q4_0, DType::Q4_0),
            (&[4, 7], DType::BF16, DType::BF16),
            (&[2, 4, 256], DType::Q4_0, DType::F32),
        ];
        for (shape, dtype, expected) in cases {
            let tensor = TensorInfo::new("w", DType::F32, shape).unwrap();
            assert_eq!(target(&tensor, dtype), expected, "{shape:?} {dtype}");
        }
    }

    #[test]
    fn a_part_that_is_not_kept_is_gone() {
        let folder = std::env::temp_dir().join(format!("anygpu-part-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let target = folder.join("out.gguf");
        let part = Part::new(&target);
        std::fs::write(&part.path, b"x").unwrap();
        drop(part);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        let part = Part::new(&target);
        std::fs::write(&part.path, b"x").unwrap();
        part.keep().unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"x");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
