//! `inspect`: what a file holds, and what it will take on a device before anything is allocated.

use std::collections::BTreeMap;
use std::io::Write;

use anygpu::format::gguf::{Gguf, TensorInfo};
use anygpu::format::metadata::Value as Meta;
use anygpu::generate::model::MemoryPlan;
use anygpu::profile::Profile;
use anygpu::{DType, layout};
use serde_json::{Value, json};

use super::common::{FileArgs, Global, print_json};
use super::failure::Result;

#[derive(clap::Args, Debug)]
#[command(after_help = "Works without an adapter too; with --profile the plan is for that profile's limits.

Examples:
  anygpu inspect -m model.gguf
  anygpu inspect -m model.gguf --profile webgpu-baseline --context 8192
  anygpu inspect --json | jq .plan")]
pub struct Args {
    #[command(flatten)]
    file: FileArgs,
    /// Positions of a context; without it what the model was made for
    #[arg(short, long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    context: usize,
    /// Contexts side by side
    #[arg(long, default_value_t = 1, value_name = "N")]
    slots: usize,
}

/// Elements of an array that are shown.
const SHOWN: usize = 8;
/// Characters of a text that are shown.
const TEXT: usize = 120;

/// A value, shortened; arrays say how long they are.
fn shown(value: &Meta) -> Value {
    fn list<T>(values: &[T], show: impl Fn(&T) -> Value) -> Value {
        let first: Vec<Value> = values.iter().take(SHOWN).map(show).collect();
        if values.len() > SHOWN { json!({ "length": values.len(), "first": first }) } else { json!(first) }
    }
    match value {
        Meta::Uint(v) => json!(v),
        Meta::Int(v) => json!(v),
        Meta::Float32(v) => json!(v),
        Meta::Float64(v) => json!(v),
        Meta::Bool(v) => json!(v),
        Meta::String(v) => json!(v),
        Meta::Strings(v) => list(v, |v| json!(v)),
        Meta::Ints(v) => list(v, |v| json!(v)),
        Meta::Floats(v) => list(v, |v| json!(v)),
        Meta::Bools(v) => list(v, |v| json!(v)),
        Meta::Array(v) => list(v, shown),
        other => json!(other.type_name()),
    }
}

/// The same on one line for a person.
fn line(value: &Value) -> String {
    let text = match value {
        Value::Object(object) => {
            let first = object.get("first").map(Value::to_string).unwrap_or_default();
            let first = first.strip_suffix(']').unwrap_or(&first);
            return format!("{} values: {first}, ...]", object.get("length").unwrap_or(&Value::Null));
        }
        other => other.to_string(),
    };
    match text.char_indices().nth(TEXT) {
        Some((end, _)) => format!("{}... ({} bytes)", &text[..end], text.len()),
        None => text,
    }
}

/// Buffers that a tensor takes within the limits of a device, each bound whole; `None` where a row is too long.
fn parts(tensor: &TensorInfo, profile: &Profile) -> Option<u64> {
    let [rows, cols] = tensor.shape[..] else { return Some(1) };
    let row = layout::row_bytes(tensor.dtype, layout::padded_cols(tensor.dtype, cols as usize)) as u64;
    let limit = profile.limits.max_binding_bytes.min(profile.limits.max_buffer_bytes);
    Some(limit / row.max(1))
        .filter(|&rows_per_part| rows_per_part > 0)
        .map(|rows_per_part| rows.div_ceil(rows_per_part))
}

/// The plan, or why there is none.
fn plan(gguf: &Gguf, args: &Args, profile: &Profile) -> Value {
    let limits = &profile.limits;
    let offered = json!({
        "max_buffer_bytes": limits.max_buffer_bytes,
        "max_binding_bytes": limits.max_binding_bytes,
        "max_storage_buffers": limits.max_storage_buffers,
        "memory_bytes": profile.memory_bytes,
    });
    match MemoryPlan::new(gguf, args.slots.max(1), args.context, profile) {
        Ok(plan) => {
            let parts: Vec<(&str, Option<u64>)> =
                gguf.tensors().iter().map(|tensor| (tensor.name.as_str(), parts(tensor, profile))).collect();
            let split: BTreeMap<&str, u64> = parts
                .iter()
                .filter_map(|&(name, parts)| Some((name, parts?)))
                .filter(|&(_, parts)| parts > 1)
                .collect();
            json!({
                "device": profile.name,
                "weight_bytes": plan.weight_bytes,
                "cache_bytes": plan.cache_bytes,
                "total_bytes": plan.total_bytes(),
                "split": split,
                "fits": profile.memory_bytes.map(|memory| plan.total_bytes() <= memory),
                "offered": offered,
            })
        }
        Err(error) => json!({ "device": profile.name, "error": error.to_string(), "offered": offered }),
    }
}

fn bytes(count: u64) -> String {
    match count {
        0..10_240 => format!("{count} bytes"),
        10_240..10_485_760 => format!("{:.1} KiB", count as f64 / 1024.0),
        10_485_760..10_737_418_240 => format!("{:.1} MiB", count as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", count as f64 / 1_073_741_824.0),
    }
}

/// Runs the command.
pub async fn run(global: &Global, args: &Args) -> Result {
    let source = args.file.source()?;
    let file_bytes = source.len();
    let gguf = Gguf::open(source).await.map_err(|error| args.file.named(error))?;
    let stored = global.stored_profile()?;
    let adapter = global.find_adapter().await;
    let profile = match (&stored, &adapter) {
        (Some(stored), Ok(adapter)) => Some(adapter.profile().clip(stored)),
        (Some(stored), Err(_)) => Some(stored.clone()),
        (None, Ok(adapter)) => Some(adapter.profile().clone()),
        (None, Err(_)) => None,
    };
    let plan = profile.as_ref().map(|profile| plan(&gguf, args, profile));
    let mut by_dtype: BTreeMap<DType, (usize, u64)> = BTreeMap::new();
    for tensor in gguf.tensors() {
        let entry = by_dtype.entry(tensor.dtype).or_default();
        *entry = (entry.0 + 1, entry.1 + tensor.bytes);
    }
    let elements: u64 = gguf.tensors().iter().map(TensorInfo::elements).fold(0, u64::saturating_add);
    if global.json {
        let metadata: BTreeMap<&str, Value> = gguf.metadata().iter().map(|(key, value)| (key, shown(value))).collect();
        let tensors: Vec<Value> = gguf
            .tensors()
            .iter()
            .map(|TensorInfo { name, dtype, shape, offset, bytes, .. }| {
                json!({ "name": name, "dtype": dtype.name(), "shape": shape, "offset": offset, "bytes": bytes })
            })
            .collect();
        return print_json(&json!({
            "file": args.file.label(),
            "file_bytes": file_bytes,
            "version": gguf.version(),
            "parameters": elements,
            "metadata": metadata,
            "tensors": tensors,
            "plan": plan,
        }));
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}: GGUF version {}, {}", args.file.label(), gguf.version(), bytes(file_bytes))?;
    writeln!(out, "\nMetadata")?;
    let width = gguf.metadata().iter().map(|(key, _)| key.len()).max().unwrap_or(0).min(48);
    for (key, value) in gguf.metadata().iter() {
        writeln!(out, "  {key:width$}  {}", line(&shown(value)))?;
    }
    writeln!(out, "\nTensors")?;
    let width = gguf.tensors().iter().map(|tensor| tensor.name.len()).max().unwrap_or(0);
    for tensor in gguf.tensors() {
        let shape = format!("{:?}", tensor.shape);
        writeln!(out, "  {:width$}  {:5} {shape:18} {}", tensor.name, tensor.dtype, bytes(tensor.bytes))?;
    }
    for (dtype, (count, size)) in &by_dtype {
        writeln!(out, "  {count} in {dtype}: {}", bytes(*size))?;
    }
    writeln!(out, "  {elements} parameters")?;
    writeln!(out, "\nMemory plan")?;
    let Some(plan) = plan else {
        writeln!(out, "  none: no adapter was found; --profile plans for a stored one")?;
        return Ok(());
    };
    writeln!(out, "  for {}", plan["device"].as_str().unwrap_or_default())?;
    if let Some(error) = plan["error"].as_str() {
        writeln!(out, "  cannot be loaded: {error}")?;
        return Ok(());
    }
    let size = |key: &str| bytes(plan[key].as_u64().unwrap_or(0));
    writeln!(out, "  weights     {}", size("weight_bytes"))?;
    writeln!(out, "  cache       {} ({} context(s))", size("cache_bytes"), args.slots.max(1))?;
    writeln!(out, "  together    {}, activations come on top", size("total_bytes"))?;
    let offered = |key: &str| bytes(plan["offered"][key].as_u64().unwrap_or(0));
    writeln!(
        out,
        "  offered     buffers of {}, bindings of {}",
        offered("max_buffer_bytes"),
        offered("max_binding_bytes")
    )?;
    match plan["offered"]["memory_bytes"].as_u64() {
        Some(memory) => {
            let fits = plan["fits"].as_bool().unwrap_or(false);
            writeln!(out, "  memory      {}: {}", bytes(memory), if fits { "fits" } else { "does not fit" })?;
        }
        None => writeln!(out, "  memory      not said by the driver")?,
    }
    let split = plan["split"].as_object().filter(|split| !split.is_empty());
    match split {
        None => writeln!(out, "  splits      none: every tensor is bound whole")?,
        Some(split) => {
            for (name, parts) in split {
                writeln!(out, "  split       {name} into {parts} parts")?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_split_where_a_binding_ends() {
        let mut profile = Profile::by_name("webgpu-baseline").unwrap();
        let tensor = TensorInfo::new("w", DType::F32, [100, 256]).unwrap();
        // Rows of 1 KiB.
        for (limit, expected) in
            [(1 << 20, Some(1)), (100 << 10, Some(1)), (99 << 10, Some(2)), (1 << 10, Some(100)), (512, None)]
        {
            profile.limits.max_binding_bytes = limit;
            assert_eq!(parts(&tensor, &profile), expected, "{limit}");
        }
    }

    #[test]
    fn long_values_are_shortened() {
        assert_eq!(line(&shown(&Meta::Ints((0..100).collect()))), "100 values: [0,1,2,3,4,5,6,7, ...]");
        assert_eq!(line(&shown(&Meta::Ints(vec![1, 2]))), "[1,2]");
        assert!(line(&shown(&Meta::String("é".repeat(400)))).ends_with("... (802 bytes)"));
    }
}
