use std::sync::Arc;

use super::*;
use crate::dtype::DType;
use crate::error::ErrorKind;
use crate::format::gguf::Gguf;
use crate::gpu::{Adapter, Context};
use crate::kernels::testing::nmse;
use crate::models::llama::Reference;
use crate::models::llama::testing::{RopeForm, TinySpec, tiny_gguf};
use crate::profile::Profile;

fn wait<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}

fn context(change: impl FnOnce(&mut Profile)) -> Context {
    let adapter = wait(Adapter::request(&Default::default())).unwrap();
    let mut profile = adapter.profile().clone();
    change(&mut profile);
    wait(Context::with_profile(&adapter, profile)).unwrap()
}

fn load(context: &Context, file: &[u8]) -> Model {
    wait(Model::load(context, Arc::new(file.to_vec()), |_| {})).unwrap()
}

fn reference(file: &[u8]) -> Reference {
    let gguf = wait(Gguf::open(Arc::new(file.to_vec()))).unwrap();
    wait(Reference::load(&gguf)).unwrap().round_cache_to_f16(true)
}

fn session(model: &Model, options: SessionOptions) -> Session {
    model.session(SessionOptions { context_length: 256, ..options }).unwrap()
}

fn greedy(session: &mut Session, prompt: &[u32], count: usize) -> Vec<u32> {
    let options = GenerateOptions { max_tokens: count, ..Default::default() };
    let mut metrics = Metrics::default();
    let mut stream = session.generate(prompt, options, &mut metrics);
    let mut out = Vec::new();
    wait(async {
        while let Some(token) = stream.next().await {
            out.push(token.unwrap());
        }
    });
    out
}

const PROMPT: [u32; 9] = [1, 17, 4, 90, 33, 2, 64, 8, 21];

#[test]
fn plans_equal_the_reference() {
    let specs = DType::WEIGHTS
        .map(|dtype| TinySpec { dtype, seed: dtype as u64, ..Default::default() })
        .into_iter()
        .chain(
            [RopeForm::Linear, RopeForm::Yarn, RopeForm::Factors].map(|rope| TinySpec { rope, ..Default::default() }),
        )
        .chain([(4, 1, 64), (8, 2, 24), (2, 2, 40), (6, 3, 80)].map(|(n_heads, n_kv_heads, head_dim)| TinySpec {
            dtype: DType::F16,
            n_heads,
            n_kv_heads,
            head_dim,
            tied: true,
            bias: true,
            ..Default::default()
        }));
    let context = context(|_| {});
    for spec in specs {
        let file = tiny_gguf(&spec).unwrap();
        let expected = reference(&file).forward(&PROMPT).unwrap();
        let model = load(&context, &file);
        for (plain, limit) in [
            // Both round keys and values to f16, where an ulp of f32 before may decide: 2^-11 of single elements.
            (true, 1e-7),
            // Prefill through f16 tiles or activations in bytes: 2^-11 and 2^-8 of each element of every product.
            (false, 1e-3),
        ] {
            let mut session = session(&model, SessionOptions { plain, ..Default::default() });
            let found = wait(session.forward_all(0, &PROMPT)).unwrap();
            let error = nmse(&found, &expected);
            assert!(error < limit, "{spec:?} plain {plain}: NMSE {error:.2e}, expected less than {limit:.0e}");
            // One at a time takes the kernels of decode.
            session.clear(0);
            let mut singles = Vec::new();
            for token in PROMPT {
                singles.extend(wait(session.forward(0, &[token])).unwrap());
            }
            let error = nmse(&singles, &expected);
            assert!(
                error < limit,
                "{spec:?} plain {plain}, one by one: NMSE {error:.2e}, expected less than {limit:.0e}"
            );
        }
    }
}

#[test]
fn split_buffers_give_the_same_tokens() {
    let file = tiny_gguf(&TinySpec { dtype: DType::Q4_0, ..Default::default() }).unwrap();
    let whole = context(|_| {});
    let split = context(|profile| {
        // Less than the feed-forward's matrices and a layer's keys take, more than a row or a head.
        profile.limits.max_binding_bytes = 80 << 10;
        profile.limits.max_buffer_bytes = 256 << 20;
        profile.limits.max_storage_buffers = 8;
        profile.limits.max_workgroups_per_dimension = 65_535;
    });
    let mut tokens = Vec::new();
    let mut logits = Vec::new();
    for context in [&whole, &split] {
        let model = load(context, &file);
        let mut session =
            model.session(SessionOptions { context_length: 512, chunk: 4, ..Default::default() }).unwrap();
        logits.push(wait(session.forward(0, &PROMPT)).unwrap());
        session.clear(0);
        tokens.push(greedy(&mut session, &PROMPT, 24));
    }
    assert_eq!(tokens[0], tokens[1]);
    assert_eq!(logits[0], logits[1], "split rows and heads compute what whole ones do, to the bit");
}

#[test]
fn large_chunks_compute_what_small_ones_do() {
    let file = tiny_gguf(&TinySpec { dtype: DType::Q4_0, ..Default::default() }).unwrap();
    let enough = context(|_| {});
    // Less than the feed-forward takes of 1024 rows, more than of 512.
    let little = context(|profile| profile.limits.max_buffer_bytes = 3 << 20);
    // 1024 rows and 76 more, or 512 twice and 76.
    let prompt: Vec<u32> = (0..1_100).map(|i| 1 + i * 7 % 90).collect();
    let mut found = Vec::new();
    for (context, chunk, expected) in [(&enough, 512, 512), (&enough, 2_048, 2_048), (&little, 2_048, 512)] {
        let model = load(context, &file);
        let mut session = model.session(SessionOptions { context_length: 1_200, chunk, ..Default::default() }).unwrap();
        let logits = wait(session.forward(0, &prompt)).unwrap();
        assert_eq!(session.chunk(), expected, "chunks of {chunk} are what there is memory for");
        session.clear(0);
        found.push((logits, greedy(&mut session, &prompt, 8)));
    }
    // Tiles differ between plans of more and of fewer rows, and with them the order of sums and of what is rounded to f16.
    let error = nmse(&found[1].0, &found[0].0);
    assert!(error < 1e-6, "NMSE {error:.2e}");
    assert_eq!(found[1].1, found[0].1);
    assert_eq!(found[2], found[0], "to the bit, once chunks are small");
}

#[test]
fn deterministic_takes_the_same_kernels_at_every_position() {
    // Heads of whole blocks, for which attention of short contexts has a variant.
    let file = tiny_gguf(&TinySpec { n_heads: 4, n_kv_heads: 2, head_dim: 32, ..Default::default() }).unwrap();
    let model = load(&context(|_| {}), &file);
    let expected = reference(&file).generate_greedy(&PROMPT, 12).unwrap();
    let mut texts = Vec::new();
    for deterministic in [false, true] {
        let options = SessionOptions { context_length: 1024, deterministic, plain: true, ..Default::default() };
        let mut session = model.session(options).unwrap();
        let phases = [0, 511, 512, 1000].map(|longest| session.decode_phase(longest));
        assert_eq!(phases.iter().all(|phase| *phase == phases[0]), deterministic, "{phases:?}");
        texts.push(greedy(&mut session, &PROMPT, 12));
    }
    assert_eq!(texts[0], texts[1], "both variants choose the same tokens");
    assert_eq!(texts[0], expected);
}

#[test]
fn ahead_of_read_back_or_not_is_the_same() {
    let file = tiny_gguf(&TinySpec::default()).unwrap();
    let model = load(&context(|_| {}), &file);
    let run = |ahead| {
        let mut session = session(&model, SessionOptions { ahead, ..Default::default() });
        let sampling = Sampling {
            temperature: 0.9,
            top_k: 20,
            top_p: 0.95,
            repetition_penalty: 1.1,
            seed: 5,
            ..Default::default()
        };
        let mut metrics = Metrics::default();
        let options = GenerateOptions { sampling, max_tokens: 32, ..Default::default() };
        let mut stream = session.generate(&PROMPT, options, &mut metrics);
        let mut out = Vec::new();
        wait(async {
            while let Some(token) = stream.next().await {
                out.push(token.unwrap());
            }
        });
        out
    };
    let synchronous = run(1);
    assert_eq!(synchronous.len(), 32);
    assert_eq!(run(4), synchronous);
    assert_eq!(run(4), synchronous, "the same seed gives the same text");
}

#[test]
fn replays_are_what_fresh_recordings_are() {
    let file = tiny_gguf(&TinySpec::default()).unwrap();
    let model = load(&context(|_| {}), &file);
    let mut replayed = session(&model, SessionOptions::default());
    for turn in 0..3 {
        let tokens: Vec<u32> = PROMPT.iter().map(|token| token + turn).collect();
        replayed.clear(0);
        let mut fresh = session(&model, SessionOptions::default());
        let (found, expected) = (wait(replayed.forward(0, &tokens)), wait(fresh.forward(0, &tokens)));
        assert_eq!(found, expected, "turn {turn}");
        for token in [1, 2, 3] {
            let (found, expected) = (wait(replayed.forward(0, &[token])), wait(fresh.forward(0, &[token])));
            assert_eq!(found, expected, "turn {turn}, token {token}");
        }
    }
}

#[test]
fn host_choice_equals_the_resident_loop() {
    let file = tiny_gguf(&TinySpec::default()).unwrap();
    let model = load(&context(|_| {}), &file);
    let mut session = session(&model, SessionOptions::default());
    let resident = greedy(&mut session, &PROMPT, 16);
    session.clear(0);
    let mut logits = wait(session.forward(0, &PROMPT)).unwrap();
    for (i, &token) in resident.iter().enumerate() {
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32;
        assert_eq!(best, token, "token {i}");
        logits = wait(session.forward(0, &[token])).unwrap();
    }
}

#[test]
fn a_turn_computes_only_what_is_new() {
    let file = tiny_gguf(&TinySpec::default()).unwrap();
    let model = load(&context(|_| {}), &file);
    let mut one = session(&model, SessionOptions::default());
    let first = greedy(&mut one, &PROMPT, 8);
    assert_eq!(one.prefilled_tokens(), PROMPT.len());
    let conversation: Vec<u32> = PROMPT.iter().chain(&first).chain(&[40, 41, 42]).copied().collect();
    let second = greedy(&mut one, &conversation, 8);
    // The last of the first answer had not been fed: it goes with the three new ones.
    assert_eq!(one.prefilled_tokens(), PROMPT.len() + 4);
    let mut fresh = session(&model, SessionOptions::default());
    assert_eq!(greedy(&mut fresh, &conversation, 8), second);
}

#[test]
fn a_dropped_stream_leaves_a_usable_session() {
    let file = tiny_gguf(&TinySpec::default()).unwrap();
    let model = load(&context(|_| {}), &file);
    let mut session = session(&model, SessionOptions { ahead: 2, ..Default::default() });
    let expected = greedy(&mut session, &PROMPT, 12);
    session.clear(0);
    let mut metrics = Metrics::default();
    let mut stream = session.generate(&PROMPT, GenerateOptions::default(), &mut metrics);
    for token in &expected[..3] {
        assert_eq!(wait(stream.next()).unwrap().unwrap(), *token);
    }
    drop(stream);
    assert_eq!(metrics.delivered, 3);
    // The prompt's own token needs no step; at most `ahead` steps may lie beyond what was delivered.
    assert!(metrics.steps <= metrics.delivered - 1 + 2, "{metrics:?}");
    wait(session.finish()).unwrap();
    assert_eq!(greedy(&mut session, &PROMPT, 12), expected);
}

#[test]
fn a_full_context_is_an_error_or_a_shift() {
    let file = tiny_gguf(&TinySpec::default()).unwrap();
    let model = load(&context(|_| {}), &file);
    let run = |when_full, max_tokens| {
        let mut session = model.session(SessionOptions { context_length: 64, ..Default::default() }).unwrap();
        let mut metrics = Metrics::default();
        let mut stream =
            session.generate(&PROMPT, GenerateOptions { when_full, max_tokens, ..Default::default() }, &mut metrics);
        let (mut count, mut error) = (0, None);
        while let Some(item) = wait(stream.next()) {
            match item {
                Ok(_) => count += 1,
                Err(e) => error = Some(e),
            }
        }
        drop(stream);
        (count, error, metrics.shifts)
    };
    let (count, error, _) = run(ContextFull::Error, 0);
    assert_eq!(count, 64 - PROMPT.len() + 1, "every position is used");
    assert_eq!(error.unwrap().kind(), ErrorKind::Shape);
    let (count, error, shifts) = run(ContextFull::Shift { keep: 4 }, 120);
    assert_eq!((count, error), (120, None));
    assert!(shifts >= 2, "{shifts}");
}

#[test]
fn bad_input_is_an_error() {
    let file = tiny_gguf(&TinySpec::default()).unwrap();
    let model = load(&context(|_| {}), &file);
    let mut session = session(&model, SessionOptions::default());
    let vocabulary = model.config().vocab_size as u32;
    assert_eq!(wait(session.forward(0, &[vocabulary])).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(wait(session.forward(1, &[0])).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(wait(session.forward(0, &[])).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(wait(session.forward(0, &[0; 300])).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(session.step(256).unwrap_err().kind(), ErrorKind::Shape);
    let hot = Sampling { temperature: f32::NAN, ..Default::default() };
    assert!(wait(session.extend(0, &[1], &hot)).is_err());
}

#[test]
fn slots_decode_side_by_side_as_alone() {
    let file = tiny_gguf(&TinySpec::default()).unwrap();
    let model = load(&context(|_| {}), &file);
    let prompts: [&[u32]; 3] = [&PROMPT, &PROMPT[3..], &[5]];
    let expected = prompts.map(|prompt| greedy(&mut session(&model, SessionOptions::default()), prompt, 11));
    // A few rows, and as many as take the products of prefill; attention in one piece, and in splits.
    for (slots, deterministic) in [(3, false), (3, true), (10, false), (10, true)] {
        let mut together = session(&model, SessionOptions { slots, deterministic, ..Default::default() });
        for (slot, prompt) in prompts.iter().enumerate() {
            wait(together.extend(slot, prompt, &Sampling::default())).unwrap();
        }
        let found = wait(together.decode(10)).unwrap();
        assert_eq!(found[..3], expected, "{slots} slots, deterministic {deterministic}");
    }
}

#[test]
fn a_lost_device_is_an_error() {
    let file = tiny_gguf(&TinySpec::default()).unwrap();
    let context = context(|_| {});
    let model = load(&context, &file);
    let mut session = session(&model, SessionOptions::default());
    greedy(&mut session, &PROMPT, 2);
    context.lose();
    assert_eq!(wait(session.forward(0, &[1])).unwrap_err().kind(), ErrorKind::DeviceLost);
}
