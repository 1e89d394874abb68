use std::sync::Arc;

use super::*;
use crate::models::llama::testing::{RopeForm, TinySpec, tiny_gguf, tiny_gguf_of};
use crate::{DType, ErrorKind};

fn load(file: Vec<u8>) -> Reference {
    pollster::block_on(async { Reference::load(&Gguf::open(Arc::new(file)).await?).await }).unwrap()
}

fn tiny(spec: &TinySpec) -> Reference {
    load(tiny_gguf(spec).unwrap())
}

/// The narrowest model: everything but what a test is about is small.
fn narrow() -> TinySpec {
    TinySpec { d_model: 32, n_heads: 4, n_kv_heads: 2, head_dim: 8, d_ff: 64, vocab_size: 50, ..TinySpec::default() }
}

fn tokens(spec: &TinySpec, count: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * i * 31 + i * 7 + 3) % spec.vocab_size) as u32).collect()
}

/// `Σ (a - b)² / Σ b²`.
fn nmse(found: &[f32], expected: &[f32]) -> f64 {
    let square = |v: f64| v * v;
    let error: f64 = found.iter().zip(expected).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    error / expected.iter().map(|&b| square(f64::from(b))).sum::<f64>()
}

#[test]
fn calls_may_split_a_text_anywhere() {
    for (name, spec) in [
        ("grouped heads", narrow()),
        ("one key head, biases, tied", TinySpec { n_kv_heads: 1, bias: true, tied: true, ..narrow() }),
        (
            "yarn, wide heads, part of a head turns",
            TinySpec { head_dim: 24, rope: RopeForm::Yarn, rope_dim: Some(16), ..narrow() },
        ),
        // Large enough for several threads.
        ("wide", TinySpec { n_layers: 1, ..TinySpec::default() }),
    ] {
        for rounded in [false, true] {
            let mut model = tiny(&spec).round_cache_to_f16(rounded);
            let tokens = tokens(&spec, 23);
            let whole = model.forward(&tokens).unwrap();
            assert_eq!(whole.len(), tokens.len() * spec.vocab_size);
            for size in [1, 5, 22] {
                model.reset();
                let split: Vec<f32> = tokens.chunks(size).flat_map(|tokens| model.forward(tokens).unwrap()).collect();
                assert!(split == whole, "{name}, in {size}s, rounded: {rounded}");
            }
        }
    }
}

#[test]
fn one_layer_and_one_head_by_hand() {
    let spec = TinySpec {
        n_layers: 1,
        d_model: 8,
        n_heads: 1,
        n_kv_heads: 1,
        head_dim: 8,
        d_ff: 8,
        vocab_size: 3,
        ..narrow()
    };
    let file = tiny_gguf_of(&spec, |name, len, row| {
        let mut values = vec![0.0; len];
        match name {
            name if name.ends_with("norm.weight") => values.fill(1.0),
            "blk.0.attn_v.weight" => values[row] = [1.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0][row],
            // Row 0 alone: gate reads element 0, up reads element 1, down writes element 2.
            "blk.0.ffn_gate.weight" if row == 0 => values[0] = 1.0,
            "blk.0.ffn_up.weight" if row == 0 => values[1] = 1.0,
            "blk.0.ffn_down.weight" if row == 2 => values[0] = 1.0,
            name if name.contains("ffn_") => {}
            // Embedding, queries, keys, attention output and output: the identity.
            _ => values[row] = 1.0,
        }
        values
    });
    let mut model = load(file.unwrap());
    let logits = model.forward(&[0, 1]).unwrap();

    let eps = f64::from(1e-5f32);
    // Token 0 is e₀ and token 1 is e₁; both have a mean square of 1/8.
    let s = 1.0 / (0.125 + eps).sqrt();
    // At position 1, e₁ turned by one radian is (-sin 1, cos 1); e₀ at position 0 is itself.
    let (score_0, score_1) = (s * s * -(1f64.sin()) / 8f64.sqrt(), s * s / 8f64.sqrt());
    let p_0 = score_0.exp() / (score_0.exp() + score_1.exp());
    let p_1 = 1.0 - p_0;
    for (position, x) in [(0, [1.0 + s, 0.0]), (1, [p_0 * s, 1.0 + p_1 * 3.0 * s])] {
        let s = 1.0 / ((x[0] * x[0] + x[1] * x[1]) / 8.0 + eps).sqrt();
        let gate = x[0] * s;
        let x = [x[0], x[1], gate / (1.0 + (-gate).exp()) * x[1] * s];
        let s = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / 8.0 + eps).sqrt();
        for (token, x) in x.iter().enumerate() {
            let found = f64::from(logits[position * 3 + token]);
            // All is f64 until the logits are rounded to f32.
            assert!((found - x * s).abs() < 1e-6, "logit {token} at {position}: {found}, not {}", x * s);
        }
    }
}

/// The values that [`tiny_gguf`] gives a tensor.
fn values_of(spec: &TinySpec, tensor: &str) -> Vec<f32> {
    let mut found = Vec::new();
    let gguf = pollster::block_on(Gguf::open(Arc::new(tiny_gguf(spec).unwrap()))).unwrap();
    found.extend(pollster::block_on(Loader { gguf: &gguf }.values(tensor)).unwrap());
    found
}

#[test]
fn grouped_heads_are_repeated_heads() {
    let grouped = narrow();
    let repeated = TinySpec { n_kv_heads: grouped.n_heads, ..grouped.clone() };
    let file = tiny_gguf_of(&repeated, |name, len, row| {
        let mut row = row;
        if name.contains("attn_k.") || name.contains("attn_v.") {
            // Query heads 0 and 1 share key head 0, 2 and 3 share key head 1.
            row = row / grouped.head_dim / 2 * grouped.head_dim + row % grouped.head_dim;
        }
        values_of(&grouped, name)[row * len..][..len].to_vec()
    });
    let tokens = tokens(&grouped, 12);
    let expected = tiny(&grouped).forward(&tokens).unwrap();
    assert!(load(file.unwrap()).forward(&tokens).unwrap() == expected);
}

#[test]
fn tied_output_is_the_embedding() {
    let tied = TinySpec { tied: true, ..narrow() };
    let untied = TinySpec { tied: false, ..tied.clone() };
    let file = tiny_gguf_of(&untied, |name, len, row| {
        let name = if name == "output.weight" { "token_embd.weight" } else { name };
        values_of(&tied, name)[row * len..][..len].to_vec()
    });
    let tokens = tokens(&tied, 12);
    assert!(load(file.unwrap()).forward(&tokens).unwrap() == tiny(&tied).forward(&tokens).unwrap());
}

#[test]
fn pairs_turn_as_complex_numbers() {
    let frequencies = (vec![1.0, 0.25, 0.0625], 1.5);
    for (pairing, pairs) in
        [(Pairing::Interleaved, [(0, 1), (2, 3), (4, 5)]), (Pairing::Half, [(0, 3), (1, 4), (2, 5)])]
    {
        let mut config = narrow().config();
        config.rope = crate::rope::Rope { dim: 6, pairing, ..config.rope };
        // Two tokens of two heads, the first at position 7.
        let x: Vec<f64> = (0..4 * config.head_dim).map(|i| (i as f64 * 0.7).sin()).collect();
        let mut y = x.clone();
        rope(&mut y, 7, 2, &config, &frequencies);
        for head in 0..4 {
            let (x, y) = (&x[head * 8..][..8], &y[head * 8..][..8]);
            for (i, (a, b)) in pairs.into_iter().enumerate() {
                // Turning keeps the length, up to the magnitude, and adds the angle.
                let angle = (7 + head / 2) as f64 * f64::from(frequencies.0[i]);
                let (length, phase) = (x[a].hypot(x[b]) * 1.5, x[b].atan2(x[a]) + angle);
                let error = (y[a] - length * phase.cos()).abs() + (y[b] - length * phase.sin()).abs();
                assert!(error < 1e-12, "{pairing:?}, head {head}, pair {i}: off by {error}");
            }
            assert_eq!(x[6..], y[6..], "{pairing:?}: elements past rope.dim stay");
        }
    }
}

#[test]
fn every_part_of_the_specification_matters() {
    let base = narrow();
    let tokens = tokens(&base, 40);
    let expected = tiny(&base).forward(&tokens).unwrap();
    let rope = |rope| TinySpec { rope, ..base.clone() };
    for (name, spec) in [
        ("linear", rope(RopeForm::Linear)),
        ("yarn", rope(RopeForm::Yarn)),
        ("factors", rope(RopeForm::Factors)),
        ("half of a head turns", TinySpec { rope_dim: Some(4), ..base.clone() }),
        ("tied", TinySpec { tied: true, ..base.clone() }),
        ("biases", TinySpec { bias: true, ..base.clone() }),
        ("seed", TinySpec { seed: 2, ..base.clone() }),
    ] {
        let error = nmse(&tiny(&spec).forward(&tokens).unwrap(), &expected);
        // Far above what rounding of any kind does, so that a plan that ignores the part cannot pass for equal.
        assert!(error > 1e-2, "{name}: {error:e}");
    }
    // Half precision keeps 11 bits: (2^-11)² ≈ 2e-7 for each value of the cache, averaged over many.
    let rounded = nmse(&tiny(&base).round_cache_to_f16(true).forward(&tokens).unwrap(), &expected);
    assert!(rounded > 0.0 && rounded < 1e-6, "rounded cache: {rounded:e}");
}

#[test]
fn random_models_are_meaningful_in_every_format() {
    let spec = |dtype| TinySpec { dtype, ..TinySpec::default() };
    let tokens = tokens(&spec(DType::F32), 48);
    let expected = tiny(&spec(DType::F32)).forward(&tokens).unwrap();
    // Logits spread over a few units, and neither one token wins everywhere nor are all alike.
    let mean_square = expected.iter().map(|&v| f64::from(v * v)).sum::<f64>() / expected.len() as f64;
    assert!((1.0..100.0).contains(&mean_square), "mean square of the logits: {mean_square}");
    let vocabulary = TinySpec::default().vocab_size;
    let winners: std::collections::BTreeSet<u32> = expected.chunks(vocabulary).map(argmax).collect();
    assert!(winners.len() > 20, "only {} of 48 positions differ", winners.len());

    for (dtype, limit) in [
        // About three times what is found: rounding of weights, its squared steps added up by seven products in a row.
        // A wrong scale, nibble or block is off by 0.5 and more.
        (DType::F16, 2e-6),
        (DType::BF16, 1e-4),
        (DType::Q8_0, 1.5e-3),
        (DType::Q6_K, 1.2e-2),
        (DType::Q5_0, 7e-2),
        (DType::Q5_1, 5e-2),
        (DType::Q5_K, 5e-2),
        (DType::Q4_0, 0.25),
        (DType::Q4_1, 0.2),
        (DType::Q4_K, 0.16),
    ] {
        let error = nmse(&tiny(&spec(dtype)).forward(&tokens).unwrap(), &expected);
        assert!(error > 0.0 && error < limit, "{dtype}: {error:e}");
    }
}

#[test]
fn greedy_tokens_are_the_likeliest() {
    let spec = narrow();
    let mut model = tiny(&spec);
    let prompt = tokens(&spec, 5);
    let generated = model.generate_greedy(&prompt, 8).unwrap();
    assert_eq!(model.position(), prompt.len() + generated.len() - 1);
    model.reset();
    let logits = model.forward(&[prompt.as_slice(), &generated].concat()).unwrap();
    let expected: Vec<u32> = logits.chunks(spec.vocab_size).skip(prompt.len() - 1).map(argmax).collect();
    assert_eq!(generated, expected[..generated.len()]);
    assert_eq!(model.generate_greedy(&[], 1).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(model.generate_greedy(&prompt, 0), Ok(vec![]));
}

#[test]
fn argmax_prefers_the_lowest_and_skips_nan() {
    for (values, expected) in
        [(&[1.0, 3.0, 3.0][..], 1), (&[f32::NAN, -1.0, f32::NAN], 1), (&[f32::NEG_INFINITY; 2], 0), (&[f32::NAN; 2], 0)]
    {
        assert_eq!(argmax(values), expected, "{values:?}");
    }
}

#[test]
fn wrong_tokens_change_nothing() {
    let spec = TinySpec { context_length: 8, ..narrow() };
    let mut model = tiny(&spec);
    let expected = model.forward(&[1, 2, 3, 4]).unwrap();
    model.reset();
    let mut found = model.forward(&[1, 2]).unwrap();
    for (tokens, message) in [
        (&[3, 50][..], "token 1: found id 50, expected one below 50"),
        (&[u32::MAX], "token 0: found id 4294967295"),
        (&[3; 7], "7 tokens after 2: expected at most 6 more in a context of 8"),
    ] {
        let error = model.forward(tokens).unwrap_err();
        assert!(error.kind() == ErrorKind::Shape && error.to_string().contains(message), "{error}, not {message}");
    }
    assert_eq!(model.forward(&[]), Ok(vec![]));
    found.extend(model.forward(&[3, 4]).unwrap());
    assert!(found == expected);
    model.forward(&[5; 4]).unwrap();
    assert!(model.forward(&[5]).is_err());
}

#[test]
fn files_that_do_not_fit_are_errors() {
    let narrow = narrow();
    let error = tiny_gguf(&TinySpec { dtype: DType::Q4_K, ..narrow.clone() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Shape, "{error}");
    let mut file = tiny_gguf(&narrow).unwrap();
    // The norms of layer 1 get another name: the tensor is missing and an unknown one is there.
    let name = b"blk.1.attn_norm.weight";
    let at = file.windows(name.len()).position(|window| window == name).unwrap();
    file[at..at + name.len()].copy_from_slice(b"blk.1.attn_nurm.weight");
    let gguf = pollster::block_on(Gguf::open(Arc::new(file))).unwrap();
    let error = pollster::block_on(Reference::load(&gguf)).err().unwrap();
    assert!(error.kind() == ErrorKind::Format && error.to_string().contains("blk.1.attn_norm.weight"), "{error}");
}
