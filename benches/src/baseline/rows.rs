//! llama-bench's JSON as our rows.

use super::Request;
use crate::report::{Row, suite_of};
use serde_json::{Map, Value};

/// Rows from the output of llama-bench or a program like it: an array of objects, or objects line by line, with anything
/// else before, between and after them passed over. Objects without a rate or a time (a header) are skipped.
///
/// The error says what was found.
pub fn parse(output: &str, engine: &str, request: &Request) -> Result<Vec<Row>, String> {
    let objects = objects(output);
    if objects.is_empty() {
        return Err(format!("printed no JSON rows, but {}", found(output)));
    }
    let load_ms = objects.iter().find_map(|o| number(o, "load_ns")).map(|ns| ns / 1e6);
    let rows = objects.iter().filter_map(|o| row(o, engine, request, load_ms)).collect::<Vec<_>>();
    if rows.is_empty() {
        let keys = objects.iter().flat_map(|o| o.keys()).take(12).cloned().collect::<Vec<_>>().join(", ");
        return Err(format!("printed JSON without a row that has n_prompt, n_gen and avg_ts or avg_ns; keys: {keys}"));
    }
    Ok(rows)
}

/// Every object in `output`: in an array, or on lines of its own.
fn objects(output: &str) -> Vec<Map<String, Value>> {
    let mut objects = Vec::new();
    let mut rest = output;
    // A log line may hold a bracket too: what does not read as JSON from there is passed over.
    while let Some(at) = rest.find(['[', '{']) {
        rest = &rest[at..];
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => {
                match value {
                    Value::Object(object) => objects.push(object),
                    Value::Array(items) => objects.extend(items.into_iter().filter_map(|item| match item {
                        Value::Object(object) => Some(object),
                        _ => None,
                    })),
                    _ => {}
                }
                rest = &rest[values.byte_offset()..];
            }
            _ => rest = &rest[1..],
        }
    }
    objects
}

fn row(object: &Map<String, Value>, engine: &str, request: &Request, load_ms: Option<f64>) -> Option<Row> {
    let (n_prompt, n_gen) = (count(object, "n_prompt")?, count(object, "n_gen")?);
    // llama-bench's n_batch is how many tokens it submits at once, no matter of ours. n_parallel is the sequences.
    let batch = count(object, "n_parallel").unwrap_or(request.batch).max(1);
    let tokens = ((n_prompt + n_gen) * batch) as f64;
    let average_ms = number(object, "avg_ns").map(|ns| ns / 1e6);
    let tokens_per_second = number(object, "avg_ts").or_else(|| Some(tokens / average_ms? * 1e3));
    let tokens_per_second = tokens_per_second.filter(|rate| rate.is_finite() && *rate > 0.0);
    tokens_per_second.or_else(|| number(object, "queries_per_second"))?;
    // Programs that do something else than write tokens say what.
    let text = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
    let suite = text("suite").unwrap_or_else(|| suite_of(batch, n_gen).to_owned());
    let mut row = Row {
        synthetic: request.synthetic,
        name: text("name"),
        texts_per_second: number(object, "texts_per_second"),
        queries_per_second: number(object, "queries_per_second"),
        check: text("check"),
        note: text("note"),
        tokens_per_second,
        load_ms,
        first_ms: number(object, "first_ns").map(|ns| ns / 1e6),
        peak_memory_bytes: count(object, "peak_memory_bytes"),
        ..Row::new(engine, suite, &request.model, &request.dtype)
    }
    .case(batch, n_prompt, n_gen, count(object, "n_depth").unwrap_or(0));
    // A repeat is a whole run. That is one sample of a prefill, but of a generation only the sum of its steps: their
    // percentiles are not known.
    if n_gen == 0 {
        let samples = object.get("samples_ns").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        row = row.with_samples(&samples.iter().filter_map(Value::as_f64).map(|ns| ns / 1e6).collect::<Vec<_>>());
    }
    // A program that knows its percentiles says so in our keys.
    row.p50_ms = number(object, "p50_ms").or(row.p50_ms);
    row.p95_ms = number(object, "p95_ms").or(row.p95_ms);
    row.p99_ms = number(object, "p99_ms").or(row.p99_ms);
    Some(row)
}

fn number(object: &Map<String, Value>, key: &str) -> Option<f64> {
    object.get(key).and_then(Value::as_f64).filter(|v| v.is_finite())
}

fn count(object: &Map<String, Value>, key: &str) -> Option<u64> {
    // Some programs write whole numbers as 512.0.
    let value = object.get(key)?;
    let whole = |v: f64| (v.fract() == 0.0 && (0.0..1e15).contains(&v)).then_some(v as u64);
    value.as_u64().or_else(|| whole(value.as_f64()?)).filter(|v| *v < 1 << 50)
}

fn found(output: &str) -> String {
    match output.trim() {
        "" => "nothing".into(),
        text => format!("{:?}", text.chars().take(200).collect::<String>()),
    }
}
