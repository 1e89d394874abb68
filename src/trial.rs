//! Measured trials. A profile says what an adapter has, not whether it is worth using: drivers without an instruction for packed
//! integer dot products emulate them, and some cards announce cooperative matrices without the units that multiply them. A
//! feature that loses against what would run without it is taken out of the profile. They take some tenths of a second, at the
//! first start with an adapter and driver; the answers are kept in a file.
//!
//! ```no_run
//! # pollster::block_on(async {
//! use anygpu::gpu::{Adapter, Context};
//! use anygpu::trial;
//!
//! let adapter = Adapter::request(&Default::default()).await?;
//! let profile = trial::profile(&adapter, std::path::Path::new("cache/trials")).await;
//! let context = Context::with_profile(&adapter, profile).await?;
//! # Ok::<(), anygpu::Error>(()) }).unwrap();
//! ```

use std::fs;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::disk::replace;
use crate::gpu::{Adapter, Context};
use crate::kernels::matmul::{Matmul, cooperative};
use crate::kernels::matvec::Matvec;
use crate::kernels::normed::Normed;
use crate::kernels::q8::{Activations, Q8};
use crate::layout;
use crate::plan::{Builder, Plan};
use crate::profile::Profile;
use crate::tensor::{Storage, Tensor};

/// Rows and columns of the matrix that is multiplied: a layer's of a 7B model.
const SIDE: usize = 4096;
/// Rows of the input where cooperative matrices are tried: a piece of a prompt.
const ROWS: usize = 128;
/// Steps of a replay with one row of input; with many rows one step is as much work.
const STEPS: usize = 16;
/// What is timed lasts this long at least, in milliseconds, so that a clock and a submission count for little.
const LEAST_MS: f64 = 10.0;
/// Rounds of each side.
const ROUNDS: usize = 5;
/// How much slower than without it a feature may be and stay, since clocks err.
const MARGIN: f64 = 1.1;

/// What a trial found: milliseconds with a feature and without; `None` where the driver refused.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// With the feature.
    pub with_ms: Option<f64>,
    /// Without.
    pub without_ms: Option<f64>,
}

impl Trial {
    /// Whether what would run without the feature is clearly faster, or alone runs.
    pub fn lost(&self) -> bool {
        match (self.with_ms, self.without_ms) {
            (Some(with), Some(without)) => with > MARGIN * without,
            (None, Some(_)) => true,
            _ => false,
        }
    }
}

/// The trials of an adapter; `None` where there was nothing to decide.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trials {
    /// The adapter's name.
    pub adapter: String,
    /// Its driver and that driver's version.
    pub driver: String,
    /// The version of this crate.
    pub version: String,
    /// The API that the driver is spoken to by.
    pub backend: String,
    /// Whether the adapter is taken to have either: what is not there is not tried.
    pub offered: [bool; 2],
    /// Integer dot products against floats, in products of one row.
    pub integer_dot: Option<Trial>,
    /// Cooperative matrices against what else multiplies many rows.
    pub cooperative_matrices: Option<Trial>,
}

impl Trials {
    fn of(adapter: &Adapter) -> Self {
        Self {
            adapter: adapter.profile().name.clone(),
            driver: adapter.driver(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            backend: format!("{:?}", adapter.profile().backend),
            offered: [adapter.profile().features.integer_dot, cooperative(adapter.profile()).is_some()],
            ..Self::default()
        }
    }

    /// The same without answers: what they are of.
    fn question(&self) -> Self {
        Self { integer_dot: None, cooperative_matrices: None, ..self.clone() }
    }

    /// The profile without what lost.
    #[must_use]
    pub fn applied(&self, profile: &Profile) -> Profile {
        let mut profile = profile.clone();
        let lost = |trial: &Option<Trial>| trial.is_some_and(|trial| trial.lost());
        if lost(&self.integer_dot) {
            profile.features.integer_dot = false;
        }
        if lost(&self.cooperative_matrices) {
            profile.cooperative_matrices.clear();
        }
        profile
    }
}

/// Runs the trials of an adapter. None on a processor, whose clock says more of what else it does.
///
/// # Errors
/// `Adapter` or `OutOfMemory` where no device can be opened.
pub async fn measure(adapter: &Adapter) -> Result<Trials> {
    let mut trials = Trials::of(adapter);
    let profile = adapter.profile();
    if adapter.is_cpu() {
        return Ok(trials);
    }
    if profile.features.integer_dot {
        let with = Contestant::new(adapter, profile, |builder| few(builder, true)).await;
        let without = Contestant::new(adapter, profile, |builder| few(builder, false)).await;
        trials.integer_dot = Some(race(with, without).await?);
    }
    if cooperative(profile).is_some() {
        let mut plain = trials.applied(profile);
        plain.cooperative_matrices.clear();
        let bytes = plain.features.integer_dot;
        let with = Contestant::new(adapter, profile, |builder| many(builder, false)).await;
        let without = Contestant::new(adapter, &plain, |builder| many(builder, bytes)).await;
        trials.cooperative_matrices = Some(race(with, without).await?);
    }
    Ok(trials)
}

/// The adapter's profile without what lost its trial: from the file of the adapter in `folder`, or measured now and put there. An
/// adapter that cannot be measured keeps its profile, and a file that cannot be written is measured for again.
pub async fn profile(adapter: &Adapter, folder: &Path) -> Profile {
    let of = Trials::of(adapter);
    let path = file(folder, &of);
    if let Some(trials) = read(&path, &of) {
        return trials.applied(adapter.profile());
    }
    match measure(adapter).await {
        Ok(trials) => {
            let _ = write(&path, &trials);
            trials.applied(adapter.profile())
        }
        Err(_) => adapter.profile().clone(),
    }
}

fn file(folder: &Path, of: &Trials) -> PathBuf {
    let key = (&of.adapter, &of.driver, &of.version, &of.backend, &of.offered);
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
    folder.join(format!("{hash:016x}.json"))
}

/// What a file says, where it is of this adapter, driver and version, described so.
fn read(path: &Path, of: &Trials) -> Option<Trials> {
    let trials: Trials = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (trials.question() == *of).then_some(trials)
}

fn write(path: &Path, trials: &Trials) -> Result<()> {
    let text = serde_json::to_string_pretty(trials).map_err(|error| Error::io(format!("trials: {error}")))?;
    replace(path, text.as_bytes()).map_err(|error| Error::io(format!("trials {}: {error}", path.display())))
}

/// A matrix of zeros: what it holds makes no difference to how long it takes.
fn matrix(builder: &Builder) -> Result<Tensor> {
    let bytes = SIDE * layout::row_bytes(DType::Q4_0, SIDE);
    let buffer = builder.context().buffer("trial", bytes as u64)?;
    Ok(Tensor::new(Storage::Buffer(buffer), 0, DType::Q4_0, [SIDE, SIDE]))
}

fn quantised(builder: &mut Builder, rows: usize) -> Activations {
    Activations::Q8(Q8 { x: builder.activation(DType::U32, Q8::shape(rows, SIDE)) })
}

/// Products of one row, of bytes or of floats.
fn few(builder: &mut Builder, bytes: bool) -> Result<()> {
    let x = match bytes {
        true => quantised(builder, 1),
        false => Activations::F32(builder.activation(DType::F32, [1, SIDE])),
    };
    let (w, y) = (matrix(builder)?, builder.activation(DType::F32, [1, SIDE]));
    for _ in 0..STEPS {
        let x = Normed::from(x.clone());
        builder.step("trial", Matvec { w: w.clone(), x, y: y.clone(), y_offset: 0, accumulate: false })?;
    }
    Ok(())
}

/// A product of many rows, of bytes or of halves.
fn many(builder: &mut Builder, bytes: bool) -> Result<()> {
    let x = match bytes {
        true => quantised(builder, ROWS),
        false => Activations::F16(builder.activation(DType::F16, [ROWS, SIDE])),
    };
    let (w, y) = (matrix(builder)?, builder.activation(DType::F32, [ROWS, SIDE]));
    builder.step("trial", Matmul { w, x, y, y_offset: 0, accumulate: false })
}

/// A plan to be timed, on a device of its own: what a driver refuses there spoils nothing.
struct Contestant {
    context: Context,
    plan: Plan,
    /// Replays of a round.
    replays: usize,
}

impl Contestant {
    /// What `write` puts into a plan, with kernels for `profile`.
    async fn new(adapter: &Adapter, profile: &Profile, write: impl FnOnce(&mut Builder) -> Result<()>) -> Result<Self> {
        let context = Context::open(adapter, None).await?;
        let mut builder = Builder::new(&context).clipped(profile);
        write(&mut builder)?;
        let plan = builder.finish()?;
        let mut contestant = Self { context, plan, replays: 1 };
        // The first replay compiles what the driver compiles late, and wakes the card.
        contestant.round().await?;
        while contestant.replays < 4096 && contestant.round().await? * (contestant.replays as f64) < LEAST_MS {
            contestant.replays *= 2;
        }
        Ok(contestant)
    }

    /// Milliseconds of a replay, the mean of a round.
    async fn round(&self) -> Result<f64> {
        let start = Instant::now();
        for _ in 0..self.replays {
            self.plan.replay(0);
        }
        self.context.finish().await?;
        self.context.check()?;
        Ok(start.elapsed().as_secs_f64() * 1e3 / self.replays as f64)
    }
}

/// The best rounds of both, in turns, so that what else the card does hits both. What the driver refused has no time; any other
/// error says nothing of the feature.
async fn race(with: Result<Contestant>, without: Result<Contestant>) -> Result<Trial> {
    let entered = |contestant: Result<Contestant>| match contestant {
        Ok(contestant) => Ok(Some(contestant)),
        Err(error) if matches!(error.kind(), ErrorKind::Adapter | ErrorKind::Unsupported) => Ok(None),
        Err(error) => Err(error),
    };
    let (with, without) = (entered(with)?, entered(without)?);
    let mut trial = Trial { with_ms: None, without_ms: None };
    for _ in 0..ROUNDS {
        for (contestant, best) in [(&with, &mut trial.with_ms), (&without, &mut trial.without_ms)] {
            if let Some(contestant) = contestant {
                let ms = contestant.round().await?;
                *best = Some(best.map_or(ms, |best: f64| best.min(ms)));
            }
        }
    }
    Ok(trial)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(with_ms: Option<f64>, without_ms: Option<f64>) -> Option<Trial> {
        Some(Trial { with_ms, without_ms })
    }

    #[test]
    fn what_loses_clearly_is_not_used() {
        let h100 = Profile::by_name("h100").unwrap();
        for (integer_dot, cooperative_matrices, kept) in [
            (None, None, (true, true)),
            (trial(Some(1.0), Some(2.0)), trial(Some(1.05), Some(1.0)), (true, true)),
            (trial(Some(1.2), Some(1.0)), trial(Some(1.0), Some(9.0)), (false, true)),
            (trial(Some(1.0), None), trial(None, Some(1.0)), (true, false)),
            (trial(None, None), trial(None, None), (true, true)),
        ] {
            let trials = Trials { integer_dot, cooperative_matrices, ..Trials::default() };
            let profile = trials.applied(&h100);
            let found = (profile.features.integer_dot, !profile.cooperative_matrices.is_empty());
            assert_eq!(found, kept, "{trials:?}");
        }
    }

    /// On whatever adapter there is, a processor too: what is timed runs, and its answer is kept.
    #[test]
    fn plans_are_timed_and_answers_kept() {
        let adapter = pollster::block_on(Adapter::request(&Default::default())).unwrap();
        let side = |bytes: bool| Contestant::new(&adapter, adapter.profile(), move |builder| few(builder, bytes));
        let found = pollster::block_on(async { race(side(true).await, side(false).await).await }).unwrap();
        assert!(found.with_ms.is_some_and(|ms| ms > 0.0) && found.without_ms.is_some_and(|ms| ms > 0.0), "{found:?}");
        let refused = || Err(Error::adapter("refused"));
        let found = pollster::block_on(async { race(refused(), side(false).await).await }).unwrap();
        assert!(found.with_ms.is_none() && found.lost(), "{found:?}");
        let lost = pollster::block_on(async { race(Err(Error::device_lost("gone")), side(false).await).await });
        assert_eq!(lost.map_err(|error| error.kind()), Err(ErrorKind::DeviceLost), "says nothing of the feature");

        let folder = std::env::temp_dir().join(format!("anygpu-trials-{}", std::process::id()));
        let of = Trials::of(&adapter);
        let path = file(&folder, &of);
        assert_eq!(read(&path, &of), None, "no file");
        let trials = Trials { integer_dot: trial(Some(2.0), Some(1.0)), ..of.clone() };
        write(&path, &trials).unwrap();
        assert_eq!(read(&path, &of), Some(trials.clone()));
        let profile = pollster::block_on(profile(&adapter, &folder));
        assert!(!profile.features.integer_dot, "the file decides");
        assert_eq!(read(&path, &Trials { driver: "another".into(), ..of.clone() }), None, "another driver");
        assert_eq!(read(&path, &Trials { offered: [false, false], ..of.clone() }), None, "described otherwise");
        fs::write(&path, b"{").unwrap();
        assert_eq!(read(&path, &of), None, "a damaged file");
        fs::remove_dir_all(&folder).unwrap();
    }
}
