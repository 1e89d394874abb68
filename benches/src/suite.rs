//! The suites that run anygpu itself: kernels, load, prefill, decode, batch, streams, memory. Every timed case has its answer
//! checked: the last position's logits, or what came of them, against the plain f32 path on the same weights.

mod streams;

use anygpu::generate::{Model, Sampling, Session, SessionOptions};
use anygpu::gpu::Context;
use anygpu::kernels::copy::Copy;
use anygpu::kernels::matmul::Matmul;
use anygpu::kernels::testing::nmse;
use anygpu::models::llama::plan::Phase;
use anygpu::plan::{Builder, Plan};
use anygpu::{DType, Error, ErrorKind, Result};

use crate::report::{ANYGPU, Environment, Report, Row};
use crate::stats;

/// The most that logits of the fast path may differ from the plain path's, as normalised mean squared error: activations
/// in bytes are off by up to 1 / 254 of a block's largest, f16 tiles by 2^-11 of each factor.
pub const CHECK_NMSE: f64 = 1e-3;

/// What to measure.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Names of [`SUITES`].
    pub suites: Vec<String>,
    /// Prompt lengths of the prefill suite.
    pub prompts: Vec<usize>,
    /// Tokens to generate.
    pub n_gen: usize,
    /// Tokens in the cache before generation starts, in the decode suite.
    pub depths: Vec<usize>,
    /// Sequences side by side, in the suites batch and kernels.
    pub batches: Vec<usize>,
    /// Tokens of each of them before.
    pub batch_depth: usize,
    /// Streams side by side, in the streams suite; prompts of about `batch_depth` tokens, answers of about `n_gen`.
    pub streams: Vec<usize>,
    /// Runs of each case, after one that warms up.
    pub repeats: usize,
    /// Whether answers are checked; a second cache is needed for it.
    pub check: bool,
    /// Decode steps submitted ahead of the one whose token is awaited, as whoever runs the suites has them.
    pub ahead: usize,
    /// The name for rows' `model`.
    pub model: String,
}

impl Settings {
    /// All suites at their usual sizes. A CPU that plays a GPU takes a hundred times as long: there the benchmark shows
    /// that all works.
    ///
    /// ```
    /// let settings = anygpu_benches::suite::Settings::usual(false, "llama-2-7b");
    /// assert_eq!((settings.prompts, settings.n_gen), (vec![128, 512], 128));
    /// ```
    pub fn usual(is_cpu: bool, model: impl Into<String>) -> Self {
        let pick = |gpu: usize, cpu: usize| if is_cpu { cpu } else { gpu };
        Self {
            suites: SUITES.map(String::from).to_vec(),
            prompts: if is_cpu { vec![128] } else { vec![128, 512] },
            n_gen: pick(128, 16),
            depths: vec![0, pick(4096, 256)],
            batches: vec![1, 8, 32],
            batch_depth: pick(512, 16),
            streams: vec![1, 2, 4, 8],
            repeats: pick(5, 2),
            check: true,
            ahead: SessionOptions::default().ahead,
            model: model.into(),
        }
    }
}

/// The suites, in the order in which they run.
pub const SUITES: [&str; 7] = ["kernels", "load", "prefill", "decode", "batch", "streams", "memory"];

/// A clock in milliseconds from any origin.
pub type Clock<'a> = &'a (dyn Fn() -> f64 + Sync);

/// Milliseconds of work of its own ahead of what is timed.
const WARM_MS: f64 = 200.0;
/// Milliseconds after which no further round of work is begun for a device to clock up.
const HEAT_MS: f64 = 3000.0;
/// Milliseconds of a round.
const ROUND_MS: f64 = 10.0;

/// Keeps the device busy with a plan for so long, once at least.
pub(crate) async fn warm(context: &Context, plan: &Plan, now: Clock<'_>) -> Result<()> {
    let begun = now();
    loop {
        plan.replay(0);
        context.finish().await?;
        if now() - begun >= WARM_MS {
            return Ok(());
        }
    }
}

/// Multiplies matrices until the device does so at the rate that [`ceilings`] found: a GPU that waited for its host has clocked down,
/// to a quarter and less, and short work with waits between may leave it there for a second and more. Nothing where there is no
/// rate, or a CPU plays the GPU.
pub(crate) async fn heat(context: &Context, environment: &Environment, now: Clock<'_>) -> Result<()> {
    let Some(rate) = environment.matrix_operations_per_second.filter(|_| !is_small(environment)) else { return Ok(()) };
    let plan = product(context, PRODUCT)?;
    let begun = now();
    while now() - begun < HEAT_MS {
        // Without a wait between them.
        let count = ROUND_MS * 1e-3 * rate / operations(PRODUCT);
        (0..count.clamp(1.0, 64.0) as usize).for_each(|_| plan.replay(0));
        let ms = plan.time_steps(0).await?.last().map_or(f64::INFINITY, |step| step.gpu_ms);
        if operations(PRODUCT) / ms * 1e3 >= 0.9 * rate {
            break;
        }
    }
    Ok(())
}

/// Milliseconds of `run`'s first time, and of `repeats` times once the device is warm. `run` says how long it took. The peak of
/// memory counts from there on.
pub(crate) async fn timed(
    context: &Context,
    environment: &Environment,
    repeats: usize,
    now: Clock<'_>,
    mut run: impl AsyncFnMut() -> Result<f64>,
) -> Result<(f64, Vec<f64>)> {
    let first_ms = run().await?;
    heat(context, environment, now).await?;
    context.memory().reset_peak();
    let begun = now();
    let mut samples = Vec::with_capacity(repeats);
    while samples.len() < repeats {
        let warm = now() - begun >= WARM_MS;
        let ms = run().await?;
        if warm {
            samples.push(ms);
        }
    }
    Ok((first_ms, samples))
}

/// Runs suites on a loaded model and adds their rows to a report.
pub struct Suites<'a> {
    model: &'a Model,
    settings: &'a Settings,
    now: Clock<'a>,
    report: &'a mut Report,
    on_row: &'a mut dyn FnMut(&Row),
    stop: &'a dyn Fn() -> bool,
    /// Measured first: bytes a second, operations a second.
    copy_rate: Option<f64>,
    matrix_rate: Option<f64>,
    /// The most memory in use since the run began.
    peak: u64,
}

impl<'a> Suites<'a> {
    /// Suites to run.
    pub fn new(
        model: &'a Model,
        settings: &'a Settings,
        now: Clock<'a>,
        report: &'a mut Report,
        on_row: &'a mut dyn FnMut(&Row),
    ) -> Self {
        Self { model, settings, now, report, on_row, stop: &|| false, copy_rate: None, matrix_rate: None, peak: 0 }
    }

    /// Ends the run with `Cancelled` before the next case once `stop` says so.
    #[must_use]
    pub fn until(mut self, stop: &'a dyn Fn() -> bool) -> Self {
        self.stop = stop;
        self
    }

    fn check_stop(&self) -> Result<()> {
        if (self.stop)() { Err(Error::cancelled("the benchmark was cancelled")) } else { Ok(()) }
    }

    fn wants(&self, suite: &str) -> bool {
        self.settings.suites.iter().any(|name| name == suite)
    }

    fn row(&self, suite: &str) -> Row {
        Row {
            synthetic: self.model.is_synthetic(),
            ..Row::new(ANYGPU, suite, &self.settings.model, self.model.dtype().name())
        }
    }

    fn push(&mut self, row: Row) {
        (self.on_row)(&row);
        self.report.rows.push(row);
    }

    fn context(&self) -> &'a Context {
        self.model.context()
    }

    /// Tokens that spread over the vocabulary; timing does not depend on which they are.
    fn tokens(&self, count: usize, sequence: usize) -> Vec<u32> {
        let vocabulary = self.model.config().vocab_size;
        (0..count).map(|i| ((i * 7919 + sequence) % (vocabulary - 1) + 1) as u32).collect()
    }

    fn session(&self, longest: usize, slots: usize, plain: bool) -> Result<Session> {
        let ahead = self.settings.ahead;
        self.model.session(SessionOptions { context_length: longest, slots, plain, ahead, ..Default::default() })
    }

    /// Runs the suites that the settings name. `load_ms` is what loading the model took.
    ///
    /// # Errors
    /// What stops a run: a lost device, no memory, or `Cancelled`.
    pub async fn run(&mut self, load_ms: Option<f64>) -> Result<()> {
        if self.context().profile().features.timestamps {
            self.ceilings().await?;
            self.context().finish().await?;
        }
        self.context().memory().reset_peak();
        // What was loaded computes what it should.
        let loaded = {
            let tokens = self.tokens(64.min(self.model.config().context_length), 0);
            let mut session = self.session(tokens.len(), 1, false)?;
            self.check(&mut session, &tokens, 0).await?
        };
        self.start_peak();
        if self.wants("load") {
            let bytes = Some(self.model.weight_bytes());
            let row = Row { load_ms, bytes, name: Some("load".into()), check: loaded.clone(), ..self.row("load") };
            self.push(row);
        }
        if self.wants("kernels") {
            self.check_stop()?;
            self.kernels().await?;
        }
        if self.wants("prefill") {
            for n_prompt in self.settings.prompts.clone() {
                self.check_stop()?;
                self.prefill(n_prompt).await?;
            }
        }
        if self.wants("decode") {
            for depth in self.settings.depths.clone() {
                self.check_stop()?;
                self.decode(depth).await?;
            }
        }
        if self.wants("batch") {
            for batch in self.settings.batches.clone() {
                self.check_stop()?;
                self.batch(batch).await?;
            }
        }
        if self.wants("streams") {
            for readers in self.settings.streams.clone() {
                self.check_stop()?;
                self.streams(readers).await?;
            }
        }
        if self.wants("memory") {
            let peak = self.peak.max(self.context().memory().peak_bytes());
            let row = Row {
                name: Some("peak of the run".into()),
                peak_memory_bytes: Some(peak),
                bytes: Some(self.model.weight_bytes()),
                check: loaded,
                ..self.row("memory")
            };
            self.push(row);
        }
        Ok(())
    }

    /// What the device copies and multiplies at most, by GPU timestamps.
    async fn ceilings(&mut self) -> Result<()> {
        ceilings(self.context(), self.settings.repeats, &mut self.report.environment).await?;
        self.copy_rate = self.report.environment.copy_bytes_per_second;
        self.matrix_rate = self.report.environment.matrix_operations_per_second;
        Ok(())
    }

    /// The steps of a decode and of a prefill plan, and of a decode plan of each batch, by GPU timestamps, summed over layers.
    async fn kernels(&mut self) -> Result<()> {
        if !self.context().profile().features.timestamps {
            let row = Row {
                name: Some("kernels".into()),
                check: Some("unsupported".into()),
                note: Some("the device has no timestamps".into()),
                ..self.row("kernels")
            };
            self.push(row);
            return Ok(());
        }
        let longest =
            self.settings.prompts.iter().copied().max().unwrap_or(512).min(self.model.config().context_length);
        // Every replay of either plan samples a token and moves the slot on by one.
        let room = 2 * (self.settings.repeats.max(1) + 1);
        let mut session = self.session(longest + room, 1, false)?;
        // Decode behind a short prompt, and the largest chunk of the longest.
        for (n_prompt, decode) in
            [(longest.min(512), true), (session.chunks(longest).into_iter().max().unwrap_or(1), false)]
        {
            let tokens = self.tokens(n_prompt.min(longest - 1), 0);
            let check = self.check(&mut session, &tokens, if decode { 8.min(tokens.len() - 1) } else { 0 }).await?;
            session.extend(0, &tokens, &Sampling::default()).await?;
            session.finish().await?;
            let (phase, [n_prompt, n_gen, n_depth]) = match decode {
                true => (session.decode_phase(n_prompt), [0, 1, n_prompt as u64]),
                false => (
                    Phase::Prefill { rows: session.rows_for(tokens.len()), outputs: 1, sample: true },
                    [n_prompt as u64, 0, 0],
                ),
            };
            let row = self.row("kernels").case(1, n_prompt, n_gen, n_depth);
            let plan = session.prepare(phase)?;
            self.steps(plan, longest + room, row, check).await?;
        }
        for batch in self.settings.batches.clone().into_iter().filter(|&batch| batch > 1) {
            self.check_stop()?;
            self.batch_kernels(batch).await?;
        }
        Ok(())
    }

    /// A plan's steps by GPU timestamps, summed over layers. Every replay samples a token for each of its slots.
    async fn steps(&mut self, plan: &Plan, context: usize, row: Row, check: Option<String>) -> Result<()> {
        let work = plan.work();
        plan.time_steps(context).await?;
        let mut groups: Vec<(String, f64, u64, u64)> = Vec::new();
        let repeats = self.settings.repeats.max(1);
        for repeat in 0..repeats {
            for (step, work) in plan.time_steps(context).await?.iter().zip(&work) {
                let name = kernel_name(&step.label);
                let at = groups.iter().position(|(known, ..)| *known == name).unwrap_or_else(|| {
                    groups.push((name, 0.0, 0, 0));
                    groups.len() - 1
                });
                groups[at].1 += step.gpu_ms / repeats as f64;
                if repeat == 0 {
                    groups[at].2 += work.bound_bytes;
                    groups[at].3 += work.operations;
                }
            }
        }
        for (name, ms, bytes, operations) in groups {
            // Attention and embedding bind far more than they read.
            let reads_all = !name.starts_with("attention") && !name.starts_with("embed") && !name.starts_with("rope");
            let share = |amount: u64, rate: Option<f64>| rate.map(|rate| amount as f64 / ms * 1e3 / rate);
            let row = Row {
                name: Some(name),
                bytes: reads_all.then_some(bytes),
                operations: (operations > 0).then_some(operations),
                bandwidth_share: if reads_all { share(bytes, self.copy_rate) } else { None },
                matrix_share: if operations > 0 { share(operations, self.matrix_rate) } else { None },
                p50_ms: Some(ms),
                // The plan that the kernel is a part of.
                check: check.clone(),
                ..row.clone()
            };
            self.push(row);
        }
        Ok(())
    }

    /// The steps of a decode plan of several sequences behind `batch_depth` tokens each.
    async fn batch_kernels(&mut self, batch: usize) -> Result<()> {
        let (depth, repeats) = (self.settings.batch_depth, self.settings.repeats.max(1));
        // Every replay moves the slots on by one; the check takes four tokens.
        let longest = depth + 4.max(repeats + 1);
        let row = self.row("kernels").case(batch as u64, 0, 1, depth as u64);
        if !self.fits("kernels", &row, longest) {
            return Ok(());
        }
        let mut session = match self.session(longest, batch, false) {
            // What one sequence leaves room for is measured all the same.
            Err(error) if error.kind() == ErrorKind::OutOfMemory => {
                self.push(Row {
                    name: Some("kernels".into()),
                    check: Some("unsupported".into()),
                    note: Some(error.to_string()),
                    ..row
                });
                return Ok(());
            }
            session => session?,
        };
        let check = self.check_batch(&mut session, depth).await?;
        for slot in 0..batch {
            session.clear(slot);
            session.extend(slot, &self.tokens(depth, slot), &Sampling::default()).await?;
        }
        session.finish().await?;
        let phase = session.decode_phase(depth);
        let plan = session.prepare(phase)?;
        self.steps(plan, longest, row, check).await
    }

    /// `ok`, or how far the last position's logits behind `tokens` are from the plain path's. `singles` of the tokens go
    /// through decode, one by one.
    async fn check(&self, session: &mut Session, tokens: &[u32], singles: usize) -> Result<Option<String>> {
        if !self.settings.check {
            return Ok(None);
        }
        let mut plain = match self.session(tokens.len() + 64, 1, true) {
            Err(error) if error.kind() == ErrorKind::OutOfMemory => return Ok(None),
            session => session?,
        };
        let expected = plain.forward(0, tokens).await?;
        session.clear(0);
        let (first, rest) = tokens.split_at(tokens.len() - singles);
        session.prefill(0, first).await?;
        let mut found = Vec::new();
        for chunk in if singles == 0 { vec![rest] } else { rest.chunks(1).collect() } {
            if !chunk.is_empty() {
                found = session.forward(0, chunk).await?;
            }
        }
        if singles == 0 {
            session.clear(0);
            found = session.forward(0, tokens).await?;
        }
        session.clear(0);
        let error = nmse(&found, &expected);
        Ok(Some(if error <= CHECK_NMSE { "ok".to_owned() } else { format!("logits NMSE {error:.1e}") }))
    }

    /// Starts the peak of a timed case: what checking its answer took is not its own.
    fn start_peak(&mut self) {
        let memory = self.context().memory();
        self.peak = self.peak.max(memory.peak_bytes());
        memory.reset_peak();
    }

    fn fits(&mut self, suite: &str, row: &Row, longest: usize) -> bool {
        let room = self.model.config().context_length;
        if longest > room {
            let note = format!("needs {longest} positions, the model has {room}");
            let row = Row { suite: suite.into(), check: Some("unsupported".into()), note: Some(note), ..row.clone() };
            self.push(row);
        }
        longest <= room
    }

    async fn prefill(&mut self, n_prompt: usize) -> Result<()> {
        let row = self.row("prefill").case(1, n_prompt as u64, 0, 0);
        if !self.fits("prefill", &row, n_prompt) {
            return Ok(());
        }
        let tokens = self.tokens(n_prompt, 0);
        let mut session = self.session(n_prompt, 1, false)?;
        let check = self.check(&mut session, &tokens, 0).await?;
        self.start_peak();
        let mut samples = Vec::new();
        let mut first_ms = None;
        for repeat in 0..=self.settings.repeats {
            session.clear(0);
            let start = (self.now)();
            session.extend(0, &tokens, &Sampling::default()).await?;
            session.finish().await?;
            let ms = (self.now)() - start;
            if repeat == 0 {
                first_ms = Some(ms);
            } else {
                samples.push(ms);
            }
        }
        let median = stats::median(&samples);
        let operations = 2.0 * self.parameters() * n_prompt as f64;
        let rate = median.map(|ms| n_prompt as f64 / ms * 1e3);
        let row = Row {
            tokens_per_second: rate,
            first_ms,
            peak_memory_bytes: Some(self.context().memory().peak_bytes()),
            matrix_share: median.zip(self.matrix_rate).map(|(ms, peak)| operations / ms * 1e3 / peak),
            check,
            ..row.with_samples(&samples)
        };
        self.push(row);
        Ok(())
    }

    /// Weights that a token goes through.
    fn parameters(&self) -> f64 {
        let c = self.model.config();
        let layer = c.d_model * (c.q_dim() + 2 * c.kv_dim()) + c.q_dim() * c.d_model + 3 * c.d_model * c.d_ff;
        c.n_layers as f64 * layer as f64
    }

    async fn decode(&mut self, depth: usize) -> Result<()> {
        let n_gen = self.settings.n_gen;
        let row = self.row("decode").case(1, 0, n_gen as u64, depth as u64);
        // A generation starts behind one token at least.
        let start = depth.max(1);
        if !self.fits("decode", &row, start + n_gen) {
            return Ok(());
        }
        let tokens = self.tokens(start + 8, 0);
        let mut session = self.session(start + n_gen + 8, 1, false)?;
        let check = self.check(&mut session, &tokens, 8).await?;
        self.start_peak();
        let (samples, total) = self.generations(&mut session, 1, start).await?;
        let median = stats::median(&samples);
        // A token reads every weight once and the cache as far as it has come.
        let cache = 4.0 * self.model.config().n_layers as f64 * self.model.config().kv_dim() as f64;
        let bytes = self.read_weight_bytes() + cache * (start as f64 + n_gen as f64 / 2.0);
        let row = Row {
            tokens_per_second: stats::median(&total).map(|ms| n_gen as f64 / ms * 1e3),
            peak_memory_bytes: Some(self.context().memory().peak_bytes()),
            bandwidth_share: median.zip(self.copy_rate).map(|(ms, peak)| bytes / ms * 1e3 / peak),
            check,
            ..row.with_samples(&samples)
        };
        self.push(row);
        Ok(())
    }

    /// Bytes of the weights that a decode step reads: all but the embedding table, of which it reads a row, unless that is
    /// the output matrix too.
    fn read_weight_bytes(&self) -> f64 {
        let config = self.model.config();
        let table = match config.tied_output {
            true => 0,
            false => config.vocab_size * anygpu::layout::row_bytes(self.model.dtype(), config.d_model),
        };
        self.model.weight_bytes().saturating_sub(table as u64) as f64
    }

    /// Milliseconds of each step, and of each run of `n_gen` steps.
    async fn generations(&self, session: &mut Session, slots: usize, depth: usize) -> Result<(Vec<f64>, Vec<f64>)> {
        let (mut samples, mut totals) = (Vec::new(), Vec::new());
        for repeat in 0..=self.settings.repeats {
            for slot in 0..slots {
                session.clear(slot);
                session.extend(slot, &self.tokens(depth, slot), &Sampling::default()).await?;
            }
            session.finish().await?;
            let start = (self.now)();
            let mut last = start;
            let mut arrivals = Vec::new();
            session
                .decode_each(self.settings.n_gen, |count| {
                    let now = (self.now)();
                    // Tokens that came together took as long each.
                    arrivals.extend(std::iter::repeat_n((now - last) / count as f64, count));
                    last = now;
                })
                .await?;
            if repeat > 0 {
                totals.push((self.now)() - start);
                // The first to arrive is the token that prefill chose.
                samples.extend_from_slice(&arrivals[1..]);
            }
        }
        Ok((samples, totals))
    }

    async fn batch(&mut self, batch: usize) -> Result<()> {
        let (n_gen, depth) = (self.settings.n_gen, self.settings.batch_depth);
        let row = self.row("batch").case(batch as u64, 0, n_gen as u64, depth as u64);
        if !self.fits("batch", &row, depth + n_gen) {
            return Ok(());
        }
        let mut session = self.session(depth + n_gen, batch, false)?;
        let check = self.check_batch(&mut session, depth).await?;
        self.start_peak();
        let (samples, total) = self.generations(&mut session, batch, depth).await?;
        let row = Row {
            tokens_per_second: stats::median(&total).map(|ms| (batch * n_gen) as f64 / ms * 1e3),
            peak_memory_bytes: Some(self.context().memory().peak_bytes()),
            check,
            ..row.with_samples(&samples)
        };
        self.push(row);
        Ok(())
    }

    /// A batch's logits are not its own to read: its last slot's first tokens are compared with those that it gets alone,
    /// on the plain path, as far as the two best logits there are told apart.
    async fn check_batch(&self, session: &mut Session, depth: usize) -> Result<Option<String>> {
        if !self.settings.check {
            return Ok(None);
        }
        let slots = session.options().slots;
        for slot in 0..slots {
            session.clear(slot);
            session.extend(slot, &self.tokens(depth, slot), &Sampling::default()).await?;
        }
        let steps = 4;
        let found = session.decode(steps).await?;
        let mut plain = self.session(depth + steps + 64, 1, true)?;
        let verdict = compare_tokens(&mut plain, &self.tokens(depth, slots - 1), &found[slots - 1]).await?;
        Ok(Some(verdict.map_or("ok".to_owned(), |wrong| format!("the last sequence: {wrong}"))))
    }
}

/// What is wrong with greedy `tokens` behind `prompt` by the plain path, as far as the two best logits there are told
/// apart.
async fn compare_tokens(plain: &mut Session, prompt: &[u32], tokens: &[u32]) -> Result<Option<String>> {
    let mut logits = plain.forward(0, prompt).await?;
    for (i, &token) in tokens.iter().enumerate() {
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let rms = (logits.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / logits.len() as f64).sqrt();
        let chosen = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        // Two logits that are both off by three deviations of the allowed error may change places.
        if f64::from(best - chosen) > 6.0 * CHECK_NMSE.sqrt() * rms {
            return Ok(Some(format!("token {i} has logit {chosen}, the best is {best}")));
        }
        logits = plain.forward(0, &[token]).await?;
    }
    Ok(None)
}

/// Measures what the device copies and multiplies at most, by GPU timestamps, and notes it down.
///
/// # Errors
/// `Unsupported` where the device has no timestamps, and what else stops a run.
pub async fn ceilings(context: &Context, repeats: usize, environment: &mut Environment) -> Result<()> {
    let limit = context.profile().limits.max_binding_bytes.min(context.profile().limits.max_buffer_bytes);
    // Several times any cache on a GPU; little where a CPU plays one.
    let small = is_small(environment);
    let bytes = limit.min(if small { 64 << 20 } else { 1 << 30 });
    let mut builder = Builder::new(context);
    let x = builder.activation(DType::F32, [bytes as usize / 4]);
    let y = builder.activation(DType::F32, [bytes as usize / 4]);
    builder.step("copy", Copy { x, y })?;
    let plan = builder.finish()?;
    let ms = best(&plan, repeats).await?;
    environment.copy_bytes_per_second = Some(2.0 * bytes as f64 / ms * 1e3);
    let n = if small { 512 } else { PRODUCT };
    let plan = product(context, n)?;
    // What idled until now clocks up meanwhile: half a second of work without waits.
    let first = plan.time_steps(0).await?.last().map_or(f64::INFINITY, |step| step.gpu_ms);
    let count = if small { 0.0 } else { (500.0 / first).min(1000.0) };
    (0..count as usize).for_each(|_| plan.replay(0));
    let mut ms = f64::INFINITY;
    for _ in 0..repeats {
        ms = ms.min(plan.time_steps(0).await?.last().map_or(f64::INFINITY, |step| step.gpu_ms));
    }
    environment.matrix_operations_per_second = Some(operations(n) / ms * 1e3);
    Ok(())
}

/// Rows and columns of the matrices whose product is timed.
const PRODUCT: usize = 4096;

/// Operations of a product of square matrices.
fn operations(n: usize) -> f64 {
    2.0 * (n as f64).powi(3)
}

/// Whether a CPU plays the GPU.
fn is_small(environment: &Environment) -> bool {
    environment.adapter.backend.as_deref().is_some_and(|backend| backend.contains("cpu"))
}

/// A product of square matrices, its last step. Random factors: products of zeros can run faster than real ones.
fn product(context: &Context, n: usize) -> Result<Plan> {
    let mut builder = Builder::new(context);
    let w = builder.activation(DType::F16, [n, n]);
    let x = builder.activation(DType::F32, [n, n]);
    let y = builder.activation(DType::F32, [n, n]);
    builder.step("w", anygpu::kernels::synthetic::Synthetic { w: w.clone(), seed: 1 })?;
    builder.step("x", anygpu::kernels::synthetic::Synthetic { w: x.clone(), seed: 2 })?;
    let x = anygpu::kernels::q8::Activations::F32(x);
    builder.step("product", Matmul { w, x, y, y_offset: 0, accumulate: false })?;
    builder.finish()
}

/// `matvec/blk.3/ffn_down` as `matvec ffn_down`.
pub(crate) fn kernel_name(label: &str) -> String {
    let mut parts = label.split('/');
    let kernel = parts.next().unwrap_or_default();
    match parts.next_back() {
        Some(part) if part != kernel => format!("{kernel} {part}"),
        _ => kernel.to_owned(),
    }
}

async fn best(plan: &anygpu::plan::Plan, repeats: usize) -> Result<f64> {
    plan.time(0).await?;
    let mut ms = f64::INFINITY;
    for _ in 0..repeats.max(1) {
        ms = ms.min(plan.time(0).await?);
    }
    Ok(ms)
}
