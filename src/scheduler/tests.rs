use std::sync::Arc;

use super::*;
use crate::chat::{Message, Role};
use crate::dtype::DType;
use crate::error::{Error, ErrorKind};
use crate::generate::{ContextFull, Finish, Metrics, Sampling, SessionOptions};
use crate::gpu::{Adapter, Context};
use crate::models::llama::testing::{TinySpec, tiny_gguf};

fn wait<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}

fn model(spec: &TinySpec) -> Model {
    let adapter = wait(Adapter::request(&Default::default())).unwrap();
    let context = wait(Context::open(&adapter, None)).unwrap();
    wait(Model::load(&context, Arc::new(tiny_gguf(spec).unwrap()), |_| {})).unwrap()
}

fn tiny() -> Model {
    model(&TinySpec::default())
}

/// Tokens that differ with `seed`.
fn prompt(len: usize, seed: usize) -> Vec<u32> {
    (0..len).map(|i| ((i * 37 + seed * 101 + i * i % 7) % 319 + 1) as u32).collect()
}

fn max(max_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_tokens, ..Default::default() }
}

fn small() -> SchedulerOptions {
    SchedulerOptions { context_length: 256, slots: 3, chunk: 64, ..Default::default() }
}

fn scheduler(model: &Model, options: SchedulerOptions) -> Scheduler {
    Scheduler::new(model, options).unwrap()
}

/// Up to `count` more tokens.
fn read(stream: &mut RequestStream, count: usize) -> Vec<u32> {
    (0..count).map_while(|_| wait(stream.next())).map(Result::unwrap).collect()
}

fn rest(stream: &mut RequestStream) -> Vec<u32> {
    read(stream, usize::MAX)
}

fn alone(model: &Model, options: &SchedulerOptions, prompt: &[u32], request: &GenerateOptions) -> Vec<u32> {
    let scheduler = scheduler(model, options.clone());
    rest(&mut scheduler.submit(prompt, request.clone()).unwrap())
}

/// The request in a session of one sequence.
fn in_session(model: &Model, options: &SchedulerOptions, prompt: &[u32], request: &GenerateOptions) -> Vec<u32> {
    let SchedulerOptions { context_length, chunk, deterministic, .. } = *options;
    let options = SessionOptions { context_length, chunk, deterministic, ..Default::default() };
    let mut session = model.session(options).unwrap();
    let mut metrics = Metrics::default();
    let mut stream = session.generate(prompt, request.clone(), &mut metrics);
    let mut tokens = Vec::new();
    while let Some(token) = wait(stream.next()) {
        tokens.push(token.unwrap());
    }
    tokens
}

/// The same tokens, or, at the first that differ, two whose logits are as near as errors allow: f16 tiles and activations
/// in bytes make an NMSE of up to 1e-3 (see `CHECK_NMSE` of the benchmark), 0.03 of a logit's deviation each, and a
/// difference of two may have four times that.
fn assert_same_or_tied(model: &Model, prompt: &[u32], found: &[u32], expected: &[u32]) {
    assert_eq!(found.len(), expected.len());
    let Some(at) = found.iter().zip(expected).position(|(a, b)| a != b) else { return };
    let mut session = model.session(SessionOptions { plain: true, ..Default::default() }).unwrap();
    let tokens = [prompt, &expected[..at]].concat();
    let logits = wait(session.forward(0, &tokens)).unwrap();
    let deviation = (logits.iter().map(|v| v * v).sum::<f32>() / logits.len() as f32).sqrt();
    let [a, b] = [found[at], expected[at]].map(|token| logits[token as usize]);
    let best = logits.iter().copied().fold(f32::MIN, f32::max);
    let allowed = 4.0 * 1e-3f32.sqrt() * deviation;
    assert!(best - a.min(b) < allowed, "token {at}: logits {a} and {b}, best {best}, allowed {allowed}");
}

/// Requests that come one by one while others run, all read in turns; what each got.
fn staggered(scheduler: &Scheduler, requests: &[(Vec<u32>, GenerateOptions)], pace: usize) -> Vec<Vec<u32>> {
    let mut streams: Vec<RequestStream> = Vec::new();
    let mut found = vec![Vec::new(); requests.len()];
    for (prompt, options) in requests {
        streams.push(scheduler.submit(prompt, options.clone()).unwrap());
        // The first ones move on before the next comes.
        for (stream, found) in streams.iter_mut().zip(&mut found).take(2) {
            found.extend(read(stream, pace));
        }
    }
    for (stream, found) in streams.iter_mut().zip(&mut found) {
        found.extend(rest(stream));
        assert_eq!(stream.finish(), Some(Finish::Length));
    }
    found
}

fn varied() -> Vec<(Vec<u32>, GenerateOptions)> {
    let warm = |seed| Sampling { temperature: 0.8, top_k: 30, repetition_penalty: 1.1, seed, ..Default::default() };
    let with = |sampling, max_tokens| GenerateOptions { sampling, max_tokens, ..Default::default() };
    vec![
        (prompt(9, 1), max(40)),
        (prompt(70, 2), with(warm(7), 30)),
        (prompt(1, 3), max(24)),
        (prompt(130, 4), max(12)),
        (prompt(64, 5), with(warm(9), 20)),
        (prompt(200, 6), max(30)),
    ]
}

#[test]
fn deterministic_requests_get_what_they_get_alone() {
    for (spec, slots) in [
        (TinySpec::default(), 3),
        // Decode of ten slots has the products of many columns.
        (TinySpec { dtype: DType::Q4_0, seed: 2, ..Default::default() }, 10),
        (TinySpec { dtype: DType::F16, n_heads: 6, n_kv_heads: 2, seed: 3, ..Default::default() }, 4),
    ] {
        let model = model(&spec);
        let options = SchedulerOptions { deterministic: true, slots, ..small() };
        let scheduler = scheduler(&model, options.clone());
        let requests = varied();
        let expected: Vec<_> =
            requests.iter().map(|(prompt, request)| alone(&model, &options, prompt, request)).collect();
        for pace in [3, 1] {
            assert_eq!(
                staggered(&scheduler, &requests, pace),
                expected,
                "{spec:?}, {pace} tokens between two requests"
            );
        }
        assert!(scheduler.counts().shared > 0, "the second round finds prompts of the first");
        for ((prompt, request), expected) in requests.iter().zip(&expected) {
            if request.sampling == Sampling::default() {
                let found = in_session(&model, &options, prompt, request);
                assert_same_or_tied(&model, prompt, &found, expected);
            }
        }
    }
}

#[test]
fn requests_get_what_they_get_alone_but_for_ties() {
    let model = model(&TinySpec { dtype: DType::Q8_0, seed: 4, ..Default::default() });
    let scheduler = scheduler(&model, SchedulerOptions { slots: 9, ..small() });
    let requests: Vec<_> =
        varied().into_iter().filter(|(_, request)| request.sampling == Sampling::default()).collect();
    for round in 0..2 {
        for ((prompt, request), found) in requests.iter().zip(staggered(&scheduler, &requests, 2 + round)) {
            let expected = in_session(&model, &small(), prompt, request);
            assert_same_or_tied(&model, prompt, &found, &expected);
        }
    }
}

#[test]
fn the_shipped_model_answers_many_as_it_answers_one() {
    let adapter = wait(Adapter::request(&Default::default())).unwrap();
    let context = wait(Context::open(&adapter, None)).unwrap();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/models/anygpu-rust-6m-f16.gguf");
    let file = crate::format::source::MappedFile::open(&path).unwrap();
    let model = wait(Model::load(&context, Arc::new(file), |_| {})).unwrap();
    let template = model.chat_template().unwrap();
    let encode =
        |text: &str| template.encode(model.tokenizer().unwrap(), &[Message::new(Role::User, text)], true).unwrap();
    let requests: Vec<(Vec<u32>, GenerateOptions)> = ["hello", "What is ownership?", "thanks", "fn main() {", "hello"]
        .into_iter()
        .map(|text| (encode(text), max(24)))
        .collect();
    let options = SchedulerOptions { context_length: 256, slots: 3, deterministic: true, ..Default::default() };
    let found = staggered(&scheduler(&model, options.clone()), &requests, 4);
    for ((prompt, request), found) in requests.iter().zip(&found) {
        assert_eq!(found, &alone(&model, &options, prompt, request), "{prompt:?}");
        assert_same_or_tied(&model, prompt, found, &in_session(&model, &options, prompt, request));
    }
    assert_eq!(found[0], found[4]);
}

#[test]
fn a_long_prompt_does_not_stop_those_that_run() {
    let model = tiny();
    let scheduler = scheduler(&model, SchedulerOptions { chunk: 16, ahead: 1, ..small() });
    let mut running = scheduler.submit(&prompt(5, 1), max(100)).unwrap();
    let first = read(&mut running, 3);
    let mut newcomer = scheduler.submit(&prompt(200, 2), max(3)).unwrap();
    let before = scheduler.counts();
    assert_eq!(read(&mut newcomer, 1).len(), 1);
    let after = scheduler.counts();
    // 200 tokens are 13 chunks, a decode step before each; the running one's tokens came with them, besides one or two that
    // were under way.
    assert_eq!(after.prefilled - before.prefilled, 200);
    let delivered = after.delivered - before.delivered;
    assert!((13..=17).contains(&delivered), "{delivered} tokens, 1 of them the newcomer's first");
    let text = [first, rest(&mut running)].concat();
    assert_same_or_tied(&model, &prompt(5, 1), &text, &in_session(&model, &small(), &prompt(5, 1), &max(100)));
    assert_eq!(rest(&mut newcomer).len(), 2);
}

#[test]
fn few_sequences_take_small_plans_and_move_down_to_them() {
    let model = tiny();
    let scheduler = scheduler(&model, SchedulerOptions { slots: 9, ..small() });
    let long = (
        prompt(20, 9),
        GenerateOptions {
            sampling: Sampling { repetition_penalty: 1.3, repetition_window: 256, ..Default::default() },
            max_tokens: 90,
            ..Default::default()
        },
    );
    // The long one gets the fifth slot.
    let mut others: Vec<_> = (0..4).map(|seed| scheduler.submit(&prompt(6, seed), max(8)).unwrap()).collect();
    let mut stream = scheduler.submit(&long.0, long.1.clone()).unwrap();
    for other in &mut others {
        assert_eq!(rest(other).len(), 8);
    }
    let mut found = read(&mut stream, 12);
    let before = scheduler.counts();
    assert_eq!((before.running, before.waiting), (1, 0));
    found.extend(read(&mut stream, 30));
    // A second one joins and leaves again.
    let mut second = scheduler.submit(&prompt(3, 8), max(5)).unwrap();
    assert_eq!(rest(&mut second).len(), 5);
    found.extend(rest(&mut stream));
    let after = scheduler.counts();
    let (steps, slots) = (after.steps - before.steps, after.step_slots - before.step_slots);
    assert!(slots <= steps + 3 * 8, "{steps} steps of {slots} slots: expected one each, four while two ran");
    // History and rules of sampling move too.
    assert_same_or_tied(&model, &long.0, &found, &in_session(&model, &small(), &long.0, &long.1));
}

#[test]
fn a_shared_prefix_is_computed_and_kept_once() {
    let model = tiny();
    for deterministic in [false, true] {
        let options = SchedulerOptions { slots: 4, deterministic, ..small() };
        let scheduler = scheduler(&model, options.clone());
        let system = prompt(150, 1);
        // The first 128 tokens are two pages.
        let prompts: Vec<Vec<u32>> = (0..4).map(|seed| [system.clone(), prompt(20, seed)].concat()).collect();
        let mut streams: Vec<_> = prompts.iter().map(|prompt| scheduler.submit(prompt, max(10)).unwrap()).collect();
        let first = read(&mut streams[3], 1);
        let counts = scheduler.counts();
        assert_eq!((counts.prefilled, counts.shared), (170 + 3 * 42, 3 * 128));
        // Two pages of all, and one of each.
        assert_eq!((counts.running, counts.pages_used), (4, 2 + 4));
        for (index, (stream, prompt)) in streams.iter_mut().zip(&prompts).enumerate() {
            let found = if index == 3 { [first.clone(), rest(stream)].concat() } else { rest(stream) };
            let expected = alone(&model, &options, prompt, &max(10));
            match deterministic {
                true => assert_eq!(found, expected),
                false => assert_same_or_tied(&model, prompt, &found, &expected),
            }
        }
        let counts = scheduler.counts();
        assert_eq!((counts.running, counts.pages_used, counts.pages_idle), (0, 0, 2), "the prefix stays to be found");
    }
}

#[test]
fn an_answer_is_found_by_the_next_turn() {
    let model = tiny();
    let scheduler = scheduler(&model, small());
    let first = prompt(60, 1);
    let answer = rest(&mut scheduler.submit(&first, max(80)).unwrap());
    let turn = [first, answer, prompt(5, 2)].concat();
    let before = scheduler.counts();
    let found = rest(&mut scheduler.submit(&turn, max(8)).unwrap());
    let after = scheduler.counts();
    assert_eq!((after.shared - before.shared, after.prefilled - before.prefilled), (128, 145 - 128));
    assert_same_or_tied(&model, &turn, &found, &in_session(&model, &small(), &turn, &max(8)));
}

#[test]
fn a_dropped_stream_frees_its_slot_and_pages() {
    let model = tiny();
    let options = SchedulerOptions { deterministic: true, ..small() };
    let scheduler = scheduler(&model, options.clone());
    let mut kept = scheduler.submit(&prompt(10, 1), max(60)).unwrap();
    let mut dropped = scheduler.submit(&prompt(100, 2), max(60)).unwrap();
    let waiting: Vec<_> = (3..6).map(|seed| scheduler.submit(&prompt(10, seed), max(60)).unwrap()).collect();
    let found = read(&mut kept, 3);
    assert_eq!(read(&mut dropped, 2).len(), 2);
    let before = scheduler.counts();
    assert_eq!((before.running, before.waiting, before.pages_used), (3, 2, 1 + 2 + 1));
    drop(dropped);
    let after = scheduler.counts();
    assert_eq!((after.running, after.waiting, after.pages_used), (2, 2, 2));
    // One that waits, one that runs.
    drop(waiting);
    assert_eq!((scheduler.counts().running, scheduler.counts().waiting), (1, 0));
    let mut next = scheduler.submit(&prompt(100, 7), max(20)).unwrap();
    assert_eq!(rest(&mut next), alone(&model, &options, &prompt(100, 7), &max(20)));
    let found = [found, rest(&mut kept)].concat();
    assert_eq!(found, alone(&model, &options, &prompt(10, 1), &max(60)));
    assert_eq!(scheduler.counts().pages_used, 0);
}

#[test]
fn where_pages_run_out_the_youngest_is_computed_again() {
    let model = model(&TinySpec { dtype: DType::Q4_0, ..Default::default() });
    for deterministic in [false, true] {
        // Three sequences of up to four pages on five.
        let options = SchedulerOptions { pages: 5, deterministic, ..small() };
        let scheduler = scheduler(&model, options.clone());
        let warm = Sampling { temperature: 0.7, seed: 5, ..Default::default() };
        let requests: Vec<_> = (0..4)
            .map(|seed| {
                // Draws are by seed and position, so that even a drawn token comes again.
                let sampling = if deterministic && seed == 2 { warm.clone() } else { Sampling::default() };
                let options = GenerateOptions { sampling, max_tokens: 150, ..Default::default() };
                (prompt(30 + 20 * seed, seed), options)
            })
            .collect();
        let found = staggered(&scheduler, &requests, 2);
        let counts = scheduler.counts();
        assert!(counts.preempted > 0, "{counts:?}");
        assert_eq!((counts.pages_used, counts.running, counts.waiting), (0, 0, 0));
        assert_eq!(counts.delivered, 4 * 150);
        for ((prompt, request), found) in requests.iter().zip(&found) {
            let expected = alone(&model, &options, prompt, request);
            match deterministic {
                true => assert_eq!(found, &expected, "{} tokens", prompt.len()),
                false => assert_same_or_tied(&model, prompt, found, &expected),
            }
        }
    }
}

#[test]
fn requests_wait_in_the_order_in_which_they_come() {
    let model = tiny();
    let scheduler = scheduler(&model, SchedulerOptions { slots: 1, ..small() });
    let mut streams: Vec<_> = (0..4).map(|seed| scheduler.submit(&prompt(4, seed), max(6)).unwrap()).collect();
    assert_eq!(scheduler.counts().waiting, 4);
    // Reading the third moves the first two on to their ends.
    assert_eq!(read(&mut streams[2], 1).len(), 1);
    let counts = scheduler.counts();
    assert!((13..=18).contains(&counts.delivered), "{counts:?}");
    assert_eq!((counts.running, counts.waiting), (1, 1));
    assert_eq!((streams[0].finish(), streams[3].finish()), (Some(Finish::Length), None));
    for (index, stream) in streams.iter_mut().enumerate() {
        assert_eq!(rest(stream).len(), if index == 2 { 5 } else { 6 });
    }
}

#[test]
fn threads_share_the_work_and_any_may_leave() {
    let model = tiny();
    let options = SchedulerOptions { deterministic: true, ..small() };
    let scheduler = scheduler(&model, options.clone());
    let driver = {
        let scheduler = scheduler.clone();
        let unread = scheduler.submit(&prompt(12, 20), max(30)).unwrap();
        std::thread::spawn(move || {
            wait(scheduler.run_until_idle());
            unread
        })
    };
    let readers: Vec<_> = (0..6)
        .map(|seed| {
            let mut stream = scheduler.submit(&prompt(10 + seed, seed), max(25)).unwrap();
            std::thread::spawn(move || match seed % 3 {
                // Leaves while it is the one that waits for the GPU.
                0 => read(&mut stream, 5),
                _ => rest(&mut stream),
            })
        })
        .collect();
    for (seed, reader) in readers.into_iter().enumerate() {
        let expected = alone(&model, &options, &prompt(10 + seed, seed), &max(25));
        let found = reader.join().unwrap();
        assert_eq!(found, expected[..if seed % 3 == 0 { 5 } else { 25 }], "{seed}");
    }
    let mut unread = driver.join().unwrap();
    assert_eq!(rest(&mut unread), alone(&model, &options, &prompt(12, 20), &max(30)));
    wait(scheduler.run_until_idle());
    assert_eq!(scheduler.counts().pages_used, 0);
}

#[test]
fn stop_tokens_and_full_contexts_end_a_request_alone() {
    let model = tiny();
    let options = SchedulerOptions { context_length: 128, deterministic: true, ..small() };
    let scheduler = scheduler(&model, options.clone());
    let text = alone(&model, &options, &prompt(9, 1), &max(20));
    let stop = text[10];
    let at = text.iter().position(|&token| token == stop).unwrap();
    let stop_tokens = vec![319, stop];
    let mut stopped = scheduler.submit(&prompt(9, 1), GenerateOptions { stop_tokens, ..Default::default() }).unwrap();
    let mut full = scheduler.submit(&prompt(100, 2), GenerateOptions::default()).unwrap();
    let shift = GenerateOptions { when_full: ContextFull::Shift { keep: 4 }, ..max(150) };
    let mut shifted = scheduler.submit(&prompt(40, 3), shift.clone()).unwrap();
    assert_eq!(rest(&mut stopped), text[..at]);
    assert_eq!(stopped.finish(), Some(Finish::Stop));
    assert_eq!(read(&mut full, 128 - 100 + 1).len(), 29, "every position is used");
    let error: Error = wait(full.next()).unwrap().unwrap_err();
    assert_eq!((error.kind(), full.finish()), (ErrorKind::Shape, None));
    assert!(wait(full.next()).is_none());
    let found = rest(&mut shifted);
    assert_eq!(found.len(), 150);
    assert_eq!(found, alone(&model, &options, &prompt(40, 3), &shift));
    assert_eq!(found[..88], in_session(&model, &options, &prompt(40, 3), &shift)[..88]);
    // A whole context of prompt leaves room for the token that follows it.
    assert_eq!(rest(&mut scheduler.submit(&prompt(128, 4), max(1)).unwrap()).len(), 1);
    assert_eq!(scheduler.counts().pages_used, 0);
}

#[test]
fn bad_input_is_an_error() {
    let model = tiny();
    let refused = |options| Scheduler::new(&model, options).err().map(|error| error.kind());
    assert_eq!(refused(SchedulerOptions { slots: 0, ..small() }), Some(ErrorKind::Shape));
    assert_eq!(refused(SchedulerOptions { chunk: 0, ..small() }), Some(ErrorKind::Shape));
    assert_eq!(refused(SchedulerOptions { ahead: 0, ..small() }), Some(ErrorKind::Shape));
    assert_eq!(refused(SchedulerOptions { pages: 3, ..small() }), Some(ErrorKind::Shape));
    assert_eq!(refused(SchedulerOptions { pages: 4, ..small() }), None);
    let scheduler = scheduler(&model, small());
    let submit = |prompt: &[u32], options| scheduler.submit(prompt, options).err().map(|error| error.kind());
    assert_eq!(submit(&[], max(1)), Some(ErrorKind::Shape));
    assert_eq!(submit(&[320], max(1)), Some(ErrorKind::Shape));
    assert_eq!(submit(&prompt(257, 1), max(1)), Some(ErrorKind::Shape));
    let hot = GenerateOptions { sampling: Sampling { temperature: f32::NAN, ..Default::default() }, ..max(1) };
    assert_eq!(submit(&[1], hot), Some(ErrorKind::Shape));
    assert_eq!(scheduler.counts(), Counts::default());
}

#[test]
fn a_lost_device_ends_every_request_with_an_error() {
    let model = tiny();
    let scheduler = scheduler(&model, SchedulerOptions { slots: 1, ..small() });
    let mut streams: Vec<_> = (0..2).map(|seed| scheduler.submit(&prompt(5, seed), max(50)).unwrap()).collect();
    read(&mut streams[0], 3);
    model.context().lose();
    for stream in &mut streams {
        let error = std::iter::from_fn(|| wait(stream.next())).find_map(Result::err);
        assert_eq!(error.unwrap().kind(), ErrorKind::DeviceLost);
        assert!(wait(stream.next()).is_none());
    }
    assert_eq!(scheduler.counts().pages_used, 0);
}
