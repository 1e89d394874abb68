//! What a plan is made of, for shapes whose weights are not there.

use super::*;
use crate::gpu::Adapter;
use crate::layout;

/// Llama-2-7B with fewer layers, its weights names without memory, and a state.
fn seven_billion(
    builder: &mut Builder,
    context: &Context,
    dtype: DType,
    layers: usize,
    slots: usize,
) -> (Llama, State) {
    let config = Config { n_layers: layers, ..Config::synthetic("llama-2-7b").unwrap() };
    let (d, ff, vocabulary) = (config.d_model, config.d_ff, config.vocab_size);
    let mut matrix = |rows: usize, cols: usize| {
        let tensor = builder.activation(dtype, [rows, layout::padded_cols(dtype, cols)]);
        Matrix { dtype, rows, cols, parts: vec![(0, tensor)] }
    };
    let mut wide = Vec::new();
    for _ in 0..layers {
        wide.push([matrix(3 * d, d), matrix(d, d), matrix(2 * ff, d), matrix(d, ff)]);
    }
    let (embedding, output) = (matrix(vocabulary, d), matrix(vocabulary, d));
    let layers = wide
        .into_iter()
        .map(|[qkv, attn_output, gate_up, down]| Layer {
            attn_norm: builder.activation(DType::F32, [d]),
            qkv: vec![(0, qkv)],
            qkv_biases: Vec::new(),
            attn_output: vec![(0, attn_output)],
            output_bias: None,
            ffn_norm: builder.activation(DType::F32, [d]),
            gate_up: vec![(0, gate_up)],
            down: vec![(0, down)],
        })
        .collect();
    let llama = Llama {
        embedding,
        layers,
        output_norm: builder.activation(DType::F32, [d]),
        output: vec![(0, output)],
        frequencies: config.rope_frequencies(None),
        config,
    };
    let state = llama.state(context, slots, 256, None).unwrap();
    (llama, state)
}

fn any_context() -> Context {
    pollster::block_on(async {
        let adapter = Adapter::request(&Default::default()).await?;
        Context::open(&adapter, None).await
    })
    .unwrap()
}

/// Steps and pipelines of a plan for a stored profile.
fn plan(profile: &str, dtype: DType, layers: usize, slots: usize, phase: Phase) -> (Vec<String>, usize) {
    let context = any_context();
    let mut builder = Builder::for_profile(&context, &Profile::by_name(profile).unwrap());
    let (llama, state) = seven_billion(&mut builder, &context, dtype, layers, slots);
    llama.write(&mut builder, &context, &state, phase).unwrap();
    (builder.labels(), builder.uncompiled().unwrap().len())
}

/// Bytes of a plan's activations on an H100.
fn activation_bytes(phase: Phase) -> u64 {
    let context = any_context();
    let mut builder = Builder::for_profile(&context, &Profile::by_name("h100").unwrap());
    let (llama, state) = seven_billion(&mut builder, &context, DType::Q4_0, 2, 1);
    let weights = builder.activations();
    llama.write(&mut builder, &context, &state, phase).unwrap();
    builder.activation_bytes(weights)
}

#[test]
fn activations_are_a_small_part_of_the_memory() {
    let of = |rows| activation_bytes(Phase::Prefill { rows, outputs: 1, sample: true });
    // Residual, QKV and input of the products, in megabytes, rounded: what the documentation of `MemoryPlan` says.
    assert_eq!([of(512), of(2_048)].map(|bytes| (bytes + 500_000) / 1_000_000), [38, 151]);
}

fn steps_a_layer(profile: &str, dtype: DType, slots: usize, phase: Phase) -> usize {
    let [one, two] = [1, 2].map(|layers| plan(profile, dtype, layers, slots, phase).0.len());
    two - one
}

#[test]
fn decode_takes_at_most_six_dependent_steps_a_layer() {
    for profile in ["h100", "rtx-3090", "rdna", "webgpu-baseline"] {
        for (dtype, slots) in [(DType::Q4_0, 1), (DType::Q4_0, 8), (DType::F16, 1)] {
            let steps = |short| steps_a_layer(profile, dtype, slots, Phase::Decode { sample: true, short });
            assert_eq!([steps(true), steps(false)], [5, 6], "{profile}, {dtype}, {slots} sequences");
        }
    }
    // With cooperative matrices of 16 also more than eight sequences, whose attention fills a GPU without a split.
    let steps = |short| steps_a_layer("h100", DType::Q4_0, 32, Phase::Decode { sample: true, short });
    assert_eq!([steps(true), steps(false)], [5, 5]);
}

#[test]
fn pipelines_are_few() {
    let decode = |short| plan("h100", DType::Q4_0, 2, 1, Phase::Decode { sample: true, short }).1;
    // Embedding, norm, QKV of the first layer, QKV of others and logits, attention, output, gate and up, down and sampling; with
    // a merge from 512 positions on.
    assert_eq!([decode(true), decode(false)], [9, 10]);
    let prefill = plan("h100", DType::Q4_0, 2, 1, Phase::Prefill { rows: 512, outputs: 1, sample: true }).1;
    assert_eq!(prefill, 11);
}
