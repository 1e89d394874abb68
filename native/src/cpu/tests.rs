use super::*;
use std::path::PathBuf;

/// Small random models with logits that transformers gave, kept for the library's own tests.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/testdata/logits").join(name)
}

fn request(file: &str) -> Request {
    Request {
        file: fixture(file),
        model: "random".into(),
        dtype: "f32".into(),
        batch: 1,
        n_prompt: 4,
        n_gen: 3,
        n_depth: 2,
        ..Request::default()
    }
}

/// The last row of a NumPy file of f32 `[rows, columns]` in C order.
fn last_row(file: &Path, columns: usize) -> Vec<f32> {
    let bytes = std::fs::read(file).unwrap();
    let values = bytes[bytes.len() - 4 * columns..].chunks_exact(4);
    values.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

#[test]
fn candle_computes_the_same_model() {
    let index = std::fs::read_to_string(fixture("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let (mut same, mut refused, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    for case in index.as_array().unwrap() {
        let name = case["file"].as_str().unwrap();
        let tokens: Vec<u32> = case["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect();
        match Candle::load(&fixture(name)).and_then(|mut model| model.logits(&tokens)) {
            Ok(found) => {
                let expected = last_row(&fixture(case["logits"].as_str().unwrap()), found.len());
                let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>();
                let error = square(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
                let nmse = error / square(&mut expected.iter().copied());
                // Two f32 paths that add in another order; both files store f32.
                if nmse < 1e-9 { same.push(name) } else { wrong.push(format!("{name}: NMSE {nmse:e}")) }
            }
            Err(e) if e.kind() == ErrorKind::Unsupported => refused.push(name),
            Err(e) => wrong.push(format!("{name}: {e}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for name in ["mha.gguf", "gqa-tied.gguf", "mqa.gguf"] {
        assert!(same.contains(&name), "{name} is not among {same:?}");
    }
    for name in ["rope-llama3.gguf", "rope-linear.gguf", "rope-yarn.gguf", "bias-f32.gguf"] {
        assert!(refused.contains(&name), "{name} is not among {refused:?}");
    }
}

#[test]
fn chunks_and_steps_give_what_one_prefill_gives() {
    let mut model = Candle::load(&fixture("gqa-tied.gguf")).unwrap();
    let tokens = [5, 9, 2, 60, 31, 7];
    let at_once = model.logits(&tokens).unwrap();
    model.forward(tokens[..3].to_vec(), 1, 0).unwrap();
    model.forward(tokens[3..5].to_vec(), 1, 3).unwrap();
    let in_steps: Vec<f32> = model.forward(vec![tokens[5]], 1, 5).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    for (a, b) in at_once.iter().zip(&in_steps) {
        // Sums of the same numbers in another grouping.
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

#[test]
fn measures_what_is_asked() {
    let rows = rows(&Request { batch: 2, ..request("gqa-tied.gguf") }, 3).unwrap();
    let named: Vec<_> = rows.iter().map(|r| (r.suite.as_str(), r.test(), r.batch, r.samples)).collect();
    assert_eq!(named, [("batch", "pp4".into(), 2, Some(3)), ("batch", "tg3 @ d2".into(), 2, Some(3))]);
    for row in rows {
        assert!(row.tokens_per_second.is_some_and(|rate| rate > 0.0), "{row:?}");
        assert!(row.p50_ms.is_some() && row.p99_ms.is_none() && row.check.is_none(), "{row:?}");
        assert_eq!(row.engine, ENGINE);
    }
}

#[test]
fn says_what_it_does_not_take() {
    let cases = [
        (request("rope-llama3.gguf"), "rope scaling", 2),
        (Request { n_depth: 5000, n_prompt: 0, ..request("mha.gguf") }, "a context of 5003 tokens", 1),
        (Request { n_prompt: 4097, n_gen: 0, ..request("mha.gguf") }, "a context of 4097 tokens", 1),
    ];
    for (request, expected, count) in cases {
        let rows = rows(&request, 1).unwrap();
        assert_eq!(rows.len(), count, "{expected}");
        for row in rows {
            assert_eq!(row.check.as_deref(), Some("unsupported"));
            assert!(row.note.as_deref().is_some_and(|note| note.contains(expected)), "{row:?}");
        }
    }
    let missing = rows(&request("none.gguf"), 1).unwrap_err();
    assert!(missing.to_string().contains("none.gguf"), "{missing}");
}

#[test]
fn refuses_tokens_that_are_not_there() {
    let mut model = Candle::load(&fixture("mha.gguf")).unwrap();
    for tokens in [vec![], vec![u32::MAX], vec![0; MAX_SEQ_LEN + 1]] {
        assert_eq!(model.logits(&tokens).unwrap_err().kind(), ErrorKind::Shape, "{} tokens", tokens.len());
    }
}
