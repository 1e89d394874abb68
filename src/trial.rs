//! Measured trials. A profile says what an adapter has, not whether it is worth using: drivers without an instruction for packed
//! integer dot products emulate them, and some cards announce cooperative matrices without the units that multiply them. A
//! feature that loses against what would run without it is taken out of the profile. Each takes a few hundredths of a second, at
//! the first start with an adapter and driver; the answers are kept in a file.
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
use crate::error::{Error, Result};
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
            ..Self::default()
        }
    }

    /// Whether they are of the same adapter, driver and version.
    fn fit(&self, other: &Self) -> bool {
        (&self.adapter, &self.driver, &self.version) == (&other.adapter, &other.driver, &other.version)
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
        let bytes = Q8::shape(1, SIDE);
        let with = time(adapter, profile, |builder| {
            let x = builder.activation(DType::U32, bytes);
            few(builder, Activations::Q8(Q8 { x }))
        });
        let with_ms = with.await.ok();
        let without = time(adapter, profile, |builder| {
            let x = builder.activation(DType::F32, [1, SIDE]);
            few(builder, Activations::F32(x))
        });
        trials.integer_dot = Some(Trial { with_ms, without_ms: without.await.ok() });
    }
    if cooperative(profile).is_some() {
        let halves = |builder: &mut Builder| {
            let x = builder.activation(DType::F16, [ROWS, SIDE]);
            many(builder, Activations::F16(x))
        };
        let with_ms = time(adapter, profile, halves).await.ok();
        let mut plain = trials.applied(profile);
        plain.cooperative_matrices.clear();
        let without = match plain.features.integer_dot {
            true => {
                let bytes = |builder: &mut Builder| {
                    let x = builder.activation(DType::U32, Q8::shape(ROWS, SIDE));
                    many(builder, Activations::Q8(Q8 { x }))
                };
                time(adapter, &plain, bytes).await
            }
            false => time(adapter, &plain, halves).await,
        };
        trials.cooperative_matrices = Some(Trial { with_ms, without_ms: without.ok() });
    }
    Ok(trials)
}

/// The adapter's profile without what lost its trial: from the file of the adapter in `folder`, or measured now and put there. An
/// adapter that cannot be measured keeps its profile, and a file that cannot be written is measured for again.
pub async fn profile(adapter: &Adapter, folder: &Path) -> Profile {
    let path = file(folder, &Trials::of(adapter));
    if let Some(trials) = read(&path, &Trials::of(adapter)) {
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
    let key = (&of.adapter, &of.driver, &of.version);
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
    folder.join(format!("{hash:016x}.json"))
}

/// What a file says, where it is of this adapter, driver and version.
fn read(path: &Path, of: &Trials) -> Option<Trials> {
    let trials: Trials = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    trials.fit(of).then_some(trials)
}

/// Writes a file, of which another process never sees half.
fn write(path: &Path, trials: &Trials) -> Result<()> {
    let failed = |error: std::io::Error| Error::io(format!("trials {}: {error}", path.display()));
    fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let text = serde_json::to_string_pretty(trials).map_err(|error| Error::io(format!("trials: {error}")))?;
    fs::write(&part, text).and_then(|()| fs::rename(&part, path)).map_err(failed)
}

/// A matrix of zeros: what it holds makes no difference to how long it takes.
fn matrix(builder: &Builder) -> Result<Tensor> {
    let bytes = SIDE * layout::row_bytes(DType::Q4_0, SIDE);
    let buffer = builder.context().buffer("trial", bytes as u64)?;
    Ok(Tensor::new(Storage::Buffer(buffer), 0, DType::Q4_0, [SIDE, SIDE]))
}

fn few(builder: &mut Builder, x: Activations) -> Result<()> {
    let (w, y) = (matrix(builder)?, builder.activation(DType::F32, [1, SIDE]));
    for _ in 0..STEPS {
        let x = Normed::from(x.clone());
        builder.step("trial", Matvec { w: w.clone(), x, y: y.clone(), y_offset: 0, accumulate: false })?;
    }
    Ok(())
}

fn many(builder: &mut Builder, x: Activations) -> Result<()> {
    let (w, y) = (matrix(builder)?, builder.activation(DType::F32, [ROWS, SIDE]));
    builder.step("trial", Matmul { w, x, y, y_offset: 0, accumulate: false })
}

/// Milliseconds of a replay of what `write` puts into a plan with kernels for `profile`, on a device of its own: what a driver refuses there spoils nothing.
async fn time(adapter: &Adapter, profile: &Profile, write: impl FnOnce(&mut Builder) -> Result<()>) -> Result<f64> {
    let context = Context::open(adapter, None).await?;
    let mut builder = Builder::new(&context).clipped(profile);
    write(&mut builder)?;
    let plan = builder.finish()?;
    // The first replay compiles what the driver compiles late, and wakes the card.
    let mut replays = 1;
    replay(&context, &plan, replays).await?;
    let mut best = f64::INFINITY;
    for _ in 0..8 {
        let ms = replay(&context, &plan, replays).await?;
        if ms < LEAST_MS {
            replays = (replays * 2).max((1.2 * LEAST_MS / ms * replays as f64) as usize).min(4096);
        } else {
            best = best.min(ms / replays as f64);
        }
    }
    context.check()?;
    if best.is_finite() { Ok(best) } else { Err(Error::adapter("the device's clock stands still")) }
}

/// Milliseconds until the device has done this many replays.
async fn replay(context: &Context, plan: &Plan, replays: usize) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..replays {
        plan.replay(0);
    }
    context.finish().await?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
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
        let ms = pollster::block_on(time(&adapter, adapter.profile(), |builder| {
            let x = Activations::Q8(Q8 { x: builder.activation(DType::U32, Q8::shape(1, SIDE)) });
            few(builder, x)
        }));
        assert!(ms.unwrap() > 0.0);

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
        fs::write(&path, b"{").unwrap();
        assert_eq!(read(&path, &of), None, "a damaged file");
        fs::remove_dir_all(&folder).unwrap();
    }
}
