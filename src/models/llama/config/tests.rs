use super::*;
use crate::ErrorKind;

type Shapes = BTreeMap<String, Vec<u64>>;

/// Llama 3.2 1B's metadata, as its converter writes it.
fn metadata() -> Metadata {
    Metadata::from_iter([
        ("general.architecture", Value::String("llama".into())),
        ("llama.block_count", Value::Uint(16)),
        ("llama.context_length", Value::Uint(131_072)),
        ("llama.embedding_length", Value::Uint(2048)),
        ("llama.feed_forward_length", Value::Uint(8192)),
        ("llama.attention.head_count", Value::Uint(32)),
        ("llama.attention.head_count_kv", Value::Uint(8)),
        ("llama.attention.layer_norm_rms_epsilon", Value::Float32(1e-5)),
        ("llama.attention.key_length", Value::Uint(64)),
        ("llama.attention.value_length", Value::Uint(64)),
        ("llama.rope.freq_base", Value::Float32(500_000.0)),
        ("llama.rope.dimension_count", Value::Uint(64)),
        ("llama.vocab_size", Value::Uint(128_256)),
    ])
}

fn shapes() -> Shapes {
    [("token_embd.weight", vec![128_256, 2048]), ("rope_freqs.weight", vec![32])]
        .map(|(name, shape)| (name.to_string(), shape))
        .into()
}

fn read(metadata: &Metadata, shapes: &Shapes) -> Result<Config> {
    Config::from_metadata(metadata, |name| shapes.get(name).cloned())
}

fn llama_3_2() -> Config {
    Config {
        n_layers: 16,
        d_model: 2048,
        n_heads: 32,
        n_kv_heads: 8,
        head_dim: 64,
        d_ff: 8192,
        vocab_size: 128_256,
        context_length: 131_072,
        rms_eps: 1e-5,
        rope: Rope {
            base: 500_000.0,
            dim: 64,
            pairing: Pairing::Interleaved,
            scaling: Scaling::None,
            has_factors: true,
        },
        tied_output: true,
        biases: Biases::default(),
    }
}

#[test]
fn common_forms_are_read() {
    let set = |key: &'static str, value: Value| {
        move |metadata: &mut Metadata, _: &mut Shapes| {
            metadata.insert(format!("llama.{key}"), value.clone());
        }
    };
    let without = |keys: &'static [&'static str]| {
        move |metadata: &mut Metadata, _: &mut Shapes| {
            let gone = |key: &str| keys.iter().any(|gone| key == format!("llama.{gone}"));
            *metadata =
                metadata.iter().filter(|(key, _)| !gone(key)).map(|(key, value)| (key, value.clone())).collect();
        }
    };
    let yarn = Scaling::Yarn { factor: 4.0, original_context: 8192, beta_fast: 32.0, beta_slow: 1.0, attn_factor: 1.0 };
    type Change<'a> = Box<dyn Fn(&mut Metadata, &mut Shapes) + 'a>;
    type Outcome = Box<dyn Fn(&mut Config)>;
    let cases: Vec<(&str, Vec<Change>, Outcome)> = vec![
        ("llama 3.2", vec![], Box::new(|_| {})),
        (
            "llama 2: defaults",
            vec![Box::new(without(&[
                "attention.head_count_kv",
                "attention.key_length",
                "attention.value_length",
                "rope.freq_base",
                "rope.dimension_count",
                "vocab_size",
            ]))],
            Box::new(|config| {
                config.n_kv_heads = 32;
                config.rope.base = 10_000.0;
            }),
        ),
        (
            "an output matrix of its own, no factors",
            vec![Box::new(|_, shapes| {
                shapes.insert("output.weight".into(), vec![128_256, 2048]);
                shapes.remove("rope_freqs.weight");
            })],
            Box::new(|config| {
                config.tied_output = false;
                config.rope.has_factors = false;
            }),
        ),
        (
            "biases",
            vec![Box::new(|_, shapes| {
                shapes.insert("blk.0.attn_q.bias".into(), vec![2048]);
                shapes.insert("blk.0.attn_output.bias".into(), vec![2048]);
            })],
            Box::new(|config| config.biases = Biases { q: true, output: true, ..Biases::default() }),
        ),
        (
            "heads wider than the stream's share (Mistral Nemo)",
            vec![
                Box::new(set("attention.key_length", Value::Uint(128))),
                Box::new(set("attention.value_length", Value::Uint(128))),
                Box::new(set("rope.dimension_count", Value::Uint(128))),
            ],
            Box::new(|config| {
                config.head_dim = 128;
                config.rope.dim = 128;
            }),
        ),
        (
            "the same heads for every layer",
            vec![Box::new(set("attention.head_count_kv", Value::Ints(vec![4; 16])))],
            Box::new(|config| config.n_kv_heads = 4),
        ),
        (
            "a factor without a type is linear",
            vec![Box::new(set("rope.scaling.factor", Value::Float32(4.0)))],
            Box::new(|config| config.rope.scaling = Scaling::Linear { factor: 4.0 }),
        ),
        (
            "the old key of the factor",
            vec![Box::new(set("rope.scale_linear", Value::Float32(2.0)))],
            Box::new(|config| config.rope.scaling = Scaling::Linear { factor: 2.0 }),
        ),
        (
            "scaling of type none",
            vec![
                Box::new(set("rope.scaling.factor", Value::Float32(4.0))),
                Box::new(set("rope.scaling.type", Value::String("none".into()))),
            ],
            Box::new(|_| {}),
        ),
        (
            "yarn",
            vec![
                Box::new(set("rope.scaling.factor", Value::Float32(4.0))),
                Box::new(set("rope.scaling.type", Value::String("yarn".into()))),
                Box::new(set("rope.scaling.original_context_length", Value::Uint(8192))),
            ],
            Box::new(move |config| config.rope.scaling = yarn),
        ),
        (
            "a sliding window is ignored",
            vec![Box::new(set("attention.sliding_window", Value::Uint(4096)))],
            Box::new(|_| {}),
        ),
        ("no experts", vec![Box::new(set("expert_count", Value::Uint(0)))], Box::new(|_| {})),
    ];
    for (name, changes, expected) in cases {
        let (mut metadata, mut shapes, mut config) = (metadata(), shapes(), llama_3_2());
        for change in changes {
            change(&mut metadata, &mut shapes);
        }
        expected(&mut config);
        assert_eq!(read(&metadata, &shapes), Ok(config), "{name}");
    }
}

#[test]
fn contradictions_are_errors_that_name_the_key() {
    use ErrorKind::{Format, Unsupported};
    let cases = [
        ("general.architecture", Value::String("mamba".into()), Unsupported, "\"mamba\", expected one of llama"),
        ("general.architecture", Value::Uint(1), Format, "an unsigned integer, expected a string"),
        ("llama.block_count", Value::Uint(0), Format, "llama.block_count: found 0"),
        ("llama.block_count", Value::Uint(u64::MAX), Format, "found 18446744073709551615, expected at most 1024"),
        ("llama.embedding_length", Value::Uint(1 << 40), Format, "llama.embedding_length"),
        ("llama.feed_forward_length", Value::Float32(1.0), Format, "llama.feed_forward_length: found a float"),
        ("llama.attention.head_count", Value::Uint(0), Format, "llama.attention.head_count: found 0"),
        ("llama.attention.head_count_kv", Value::Uint(0), Format, "llama.attention.head_count_kv: found 0"),
        ("llama.attention.head_count_kv", Value::Uint(5), Format, "found 5, expected a divisor of 32 heads"),
        (
            "llama.attention.head_count_kv",
            Value::Ints(vec![8; 3]),
            Format,
            "found 3 values, expected one for each of 16",
        ),
        ("llama.attention.head_count_kv", Value::Ints(vec![-8; 16]), Format, "found -8, expected a value from 1"),
        (
            "llama.attention.head_count_kv",
            Value::Ints((0..16).map(|layer| 4 << (layer % 2)).collect()),
            Unsupported,
            "differ between layers",
        ),
        ("llama.attention.key_length", Value::Uint(68), Unsupported, "heads of 68 elements: expected a multiple of 8"),
        ("llama.attention.key_length", Value::Uint(0), Unsupported, "heads of 0 elements"),
        ("llama.attention.key_length", Value::Uint(512), Format, "found 512, expected at most 256"),
        ("llama.attention.value_length", Value::Uint(128), Unsupported, "found 128, expected the keys' 64"),
        ("llama.attention.layer_norm_rms_epsilon", Value::Float32(0.0), Format, "found 0, expected a number between"),
        ("llama.attention.layer_norm_rms_epsilon", Value::Float32(f32::NAN), Format, "found NaN"),
        ("llama.context_length", Value::Uint(0), Format, "llama.context_length: found 0"),
        ("llama.vocab_size", Value::Uint(32_000), Format, "found 32000, expected 128256, the rows of token_embd"),
        ("llama.rope.freq_base", Value::Float32(f32::INFINITY), Format, "llama.rope.freq_base: found inf"),
        ("llama.rope.freq_base", Value::Float32(1.0), Format, "expected a number above 1"),
        ("llama.rope.dimension_count", Value::Uint(66), Format, "found 66, expected an even number from 2 to 64"),
        ("llama.rope.dimension_count", Value::Uint(31), Format, "found 31"),
        ("llama.rope.scaling.factor", Value::Float32(-2.0), Format, "llama.rope.scaling.factor: found -2"),
        ("llama.rope.scaling.type", Value::String("longrope".into()), Unsupported, "\"longrope\""),
        ("llama.expert_count", Value::Uint(8), Unsupported, "found 8, expected 0: mixtures of experts"),
        ("llama.attention.causal", Value::Bool(false), Unsupported, "llama.attention.causal"),
        ("llama.logit_scale", Value::Float32(0.5), Unsupported, "llama.logit_scale: found 0.5, expected 1"),
    ];
    for (key, value, kind, message) in cases {
        let mut metadata = metadata();
        metadata.insert(key, value.clone());
        let error = read(&metadata, &shapes()).expect_err(&format!("{key} = {value:?} was taken"));
        assert_eq!(error.kind(), kind, "{key} = {value:?}: {error}");
        assert!(error.to_string().contains(message), "{key} = {value:?}: {error}, not {message}");
    }
    for key in [
        "general.architecture",
        "llama.block_count",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon",
        "llama.context_length",
    ] {
        let metadata: Metadata =
            metadata().iter().filter(|(other, _)| *other != key).map(|(key, value)| (key, value.clone())).collect();
        let error = read(&metadata, &shapes()).expect_err(key);
        assert!(error.kind() == Format && error.to_string().contains(key), "{key}: {error}");
    }
    for shape in [vec![], vec![2048], vec![128_256, 1024], vec![0, 2048], vec![u64::MAX, 2048], vec![1, 128_256, 2048]]
    {
        let error = read(&metadata(), &[("token_embd.weight".to_string(), shape.clone())].into()).unwrap_err();
        assert!(error.kind() == ErrorKind::Shape && error.to_string().contains("token_embd"), "{shape:?}: {error}");
    }
    assert!(read(&metadata(), &Shapes::new()).is_err_and(|error| error.to_string().contains("token_embd.weight")));
}

#[test]
fn tensors_are_checked() {
    let config = Config { biases: Biases { k: true, ..Biases::default() }, n_layers: 2, ..llama_3_2() };
    let file: Vec<(String, DType, Vec<u64>)> = config
        .tensors()
        .into_iter()
        .map(|tensor| (tensor.name, if tensor.kind == Kind::Matrix { DType::Q4_K } else { DType::F32 }, tensor.shape))
        .collect();
    let check = |file: &[(String, DType, Vec<u64>)]| {
        config.check_tensors(file.iter().map(|(name, dtype, shape)| (name.as_str(), *dtype, shape.as_slice())))
    };
    // Embedding, factors, output norm; per layer two norms, seven matrices and a bias.
    assert_eq!(file.len(), 3 + 2 * 10);
    assert_eq!(check(&file), Ok(()));

    for index in 0..file.len() {
        let name = &file[index].0;
        let mut short = file.clone();
        short.remove(index);
        let error = check(&short).expect_err(name);
        assert!(error.kind() == ErrorKind::Format && error.to_string().contains(name.as_str()), "{name}: {error}");

        let mut wrong = file.clone();
        wrong[index].2[0] += 1;
        let error = check(&wrong).expect_err(name);
        assert!(error.kind() == ErrorKind::Shape && error.to_string().contains(name.as_str()), "{name}: {error}");
    }

    let norm = file.iter().position(|(name, ..)| name == "blk.1.attn_norm.weight").unwrap();
    let mut quantized = file.clone();
    quantized[norm].1 = DType::Q8_0;
    assert!(check(&quantized).is_err_and(|error| error.kind() == ErrorKind::Unsupported));

    for (name, taken) in
        [("blk.0.attn_q_norm.weight", false), ("blk.2.ffn_up.weight", false), ("blk.0.attn_rot_embd", true)]
    {
        let mut more = file.clone();
        more.push((name.into(), DType::F32, vec![64]));
        match check(&more) {
            Ok(()) => assert!(taken, "{name}"),
            Err(error) => {
                assert!(
                    !taken && error.kind() == ErrorKind::Unsupported && error.to_string().contains(name),
                    "{error}"
                );
            }
        }
    }

    // 2,880 is a multiple of 32, not of 256.
    let narrow = Config { d_model: 2880, n_layers: 1, ..llama_3_2() };
    for (dtype, whole) in [(DType::Q8_0, true), (DType::Q4_K, false)] {
        let tensors = narrow.tensors();
        let result = narrow.check_tensors(tensors.iter().map(|tensor| {
            let dtype = if tensor.kind == Kind::Matrix { dtype } else { DType::F32 };
            (tensor.name.as_str(), dtype, tensor.shape.as_slice())
        }));
        assert_eq!(result.is_ok(), whole, "{dtype}: {result:?}");
    }
}

#[test]
fn synthetic_sizes_have_the_parameters_they_are_named_for() {
    for (name, parameters) in [
        ("llama-2-7b", 6_738_415_616),
        ("llama-2-13b", 13_015_864_320),
        ("llama-2-70b", 68_976_648_192),
        ("llama-1b", 1_100_048_384_u64),
    ] {
        let config = Config::synthetic(name).unwrap();
        let found: u64 = config.tensors().iter().map(|tensor| tensor.shape.iter().product::<u64>()).sum();
        assert_eq!(found, parameters, "{name}");
    }
    assert_eq!(Config::synthetic("gpt-5").unwrap_err().kind(), ErrorKind::Unsupported);
}

fn any_value() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    prop_oneof![
        // Sizes near those that are taken, then anything.
        4 => (0u64..300).prop_map(Value::Uint),
        2 => any::<u64>().prop_map(Value::Uint),
        1 => any::<i64>().prop_map(Value::Int),
        2 => any::<f32>().prop_map(Value::Float32),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => proptest::sample::select(vec!["llama", "none", "linear", "yarn", "su", ""])
            .prop_map(|text| Value::String(text.into())),
        1 => proptest::collection::vec(any::<i64>(), 0..20).prop_map(Value::Ints),
    ]
}

proptest::proptest! {
    #[test]
    fn any_metadata_is_an_error_or_consistent(
        changes in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), any_value()), 0..4),
        rows in 0u64..5_000_000,
    ) {
        let mut metadata = metadata();
        let mut keys: Vec<String> = metadata.iter().map(|(key, _)| key.to_string()).collect();
        for key in ["scaling.type", "scaling.factor", "scaling.original_context_length", "scaling.yarn_beta_fast", "scaling.attn_factor"] {
            keys.push(format!("llama.rope.{key}"));
        }
        keys.push("llama.expert_count".into());
        for (index, value) in changes {
            metadata.insert(index.get(&keys).clone(), value);
        }
        metadata.insert("llama.vocab_size", Value::Uint(rows));
        let width = metadata.u64("llama.embedding_length").ok().flatten().unwrap_or(2048);
        if let Ok(config) = Config::from_metadata(&metadata, |name| (name == "token_embd.weight").then(|| vec![rows, width])) {
            proptest::prop_assert_eq!(config.n_heads % config.n_kv_heads, 0);
            proptest::prop_assert!(config.head_dim % 8 == 0 && (8..=256).contains(&config.head_dim));
            proptest::prop_assert!(config.n_layers > 0 && config.d_ff > 0 && config.context_length > 0);
            // None of these may overflow, and no tensor may be empty or beyond what a u64 counts.
            proptest::prop_assert_eq!(config.rope_frequencies(None).0.len(), config.rope.dim / 2);
            for tensor in config.tensors() {
                let elements = tensor.shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size));
                proptest::prop_assert!(elements.is_some_and(|elements| elements > 0), "{:?}", tensor);
            }
        }
    }
}
