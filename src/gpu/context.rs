//! [`Context`]: a device and its queue, the errors it reported, and what is shared on it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use super::adapter::Adapter;
use super::buffer::{Buffer, MemoryTracker};
use super::pipeline::{Access, Pipeline};
use super::readback::{Readback, Staging};
use crate::error::{Error, ErrorKind, Result};
use crate::profile::Profile;
use crate::shader::Spec;

/// A device, its queue and what is shared on it. Clones are handles to the same device; several contexts can live side
/// by side.
///
/// # Examples
/// ```no_run
/// # pollster::block_on(async {
/// let adapter = anygpu::gpu::Adapter::request(&Default::default()).await?;
/// let context = anygpu::gpu::Context::open(&adapter, None).await?;
/// println!("{}", context.profile().name);
/// # Ok::<(), anygpu::Error>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Context(Arc<Inner>);

/// How a submission is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Until the system says that it is done.
    Asleep,
    /// By asking again and again, for milliseconds at most: for answers that take about as long as waking up does.
    Awake,
}

/// Compiled shaders by what they were made from and how they use their bindings.
type Pipelines = HashMap<(Spec, Vec<Access>), Arc<Pipeline>>;

struct Inner {
    // Before the device, so that the poller has stopped when the device goes.
    #[cfg(not(target_arch = "wasm32"))]
    poller: poller::Poller,
    device: wgpu::Device,
    queue: wgpu::Queue,
    profile: Profile,
    driver: String,
    fault: Arc<Mutex<Option<Error>>>,
    memory: Arc<MemoryTracker>,
    staging: Staging,
    pipelines: Mutex<Pipelines>,
    /// What the adapter's pipelines on disk are called, where its driver has a cache.
    #[cfg(not(target_arch = "wasm32"))]
    disk_key: Option<String>,
    #[cfg(not(target_arch = "wasm32"))]
    disk: std::sync::OnceLock<super::disk::DiskCache>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("profile", &self.0.profile.name).finish_non_exhaustive()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the mutexes of this crate guard is whole after every statement, so that a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Keeps the first error: later ones mostly follow from it. A lost device outranks them all.
fn keep(fault: &Mutex<Option<Error>>, error: Error) {
    let mut fault = lock(fault);
    if fault.is_none() || error.kind() == ErrorKind::DeviceLost {
        *fault = Some(error);
    }
}

/// Has errors of the device, and its loss, kept in `fault`.
fn watch(device: &wgpu::Device, fault: &Arc<Mutex<Option<Error>>>) {
    let handler = fault.clone();
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        let error = match error {
            wgpu::Error::OutOfMemory { .. } => Error::out_of_memory("the adapter ran out of memory"),
            wgpu::Error::Validation { description, .. } => Error::adapter(description),
            wgpu::Error::Internal { description, .. } => Error::adapter(description),
        };
        keep(&handler, error);
    }));
    let handler = fault.clone();
    device.set_device_lost_callback(move |reason, message| {
        keep(&handler, Error::device_lost(format!("the device was lost ({reason:?}): {message}")));
    });
}

impl Context {
    /// Opens a device on an adapter, with all that the adapter offers, or clipped to what `clip` also has.
    ///
    /// # Errors
    /// `Adapter` where the driver refuses.
    pub async fn open(adapter: &Adapter, clip: Option<&Profile>) -> Result<Self> {
        let profile = match clip {
            Some(clip) => adapter.profile().clip(clip),
            None => adapter.profile().clone(),
        };
        Self::with_profile(adapter, profile).await
    }

    /// Opens a device that has exactly what `profile` says; for tests of limits.
    ///
    /// # Errors
    /// `Adapter` where the adapter has less than the profile.
    pub async fn with_profile(adapter: &Adapter, profile: Profile) -> Result<Self> {
        Self::request(adapter, profile, wgpu::Features::empty()).await
    }

    /// Opens a device as [`Self::open`] does, with these features besides where the adapter has them: for a runtime that
    /// shares the device and takes what the adapter has for granted.
    ///
    /// # Errors
    /// `Adapter` where the driver refuses.
    #[cfg(feature = "burn-inference")]
    pub(crate) async fn open_with(adapter: &Adapter, besides: wgpu::Features) -> Result<Self> {
        let besides = besides & adapter.raw.features();
        Self::request(adapter, adapter.profile().clone(), besides).await
    }

    async fn request(adapter: &Adapter, profile: Profile, besides: wgpu::Features) -> Result<Self> {
        let raw = &adapter.raw;
        let mut features = besides;
        let on_web = cfg!(target_arch = "wasm32");
        for (wanted, feature) in [
            (profile.features.f16, wgpu::Features::SHADER_F16),
            (profile.features.subgroups && !on_web, wgpu::Features::SUBGROUP),
            (
                // Every driver with cooperative matrices has it; what uses it uses both.
                !profile.cooperative_matrices.is_empty() && raw.features().contains(wgpu::Features::SUBGROUP_BARRIER),
                wgpu::Features::SUBGROUP_BARRIER,
            ),
            (profile.features.timestamps, wgpu::Features::TIMESTAMP_QUERY),
            (profile.features.pipeline_cache, wgpu::Features::PIPELINE_CACHE),
            (!profile.cooperative_matrices.is_empty(), wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
        ] {
            features.set(feature, wanted);
        }
        let missing = features - raw.features();
        if !missing.is_empty() {
            return Err(Error::adapter(format!("{}: the adapter lacks {missing:?}", profile.name)));
        }
        let (device, queue) = raw
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("anygpu"),
                required_features: features,
                required_limits: limits(&profile, &raw.limits()),
                // SAFETY: cooperative matrices are the only experimental feature, used from shaders of this crate that
                // the tests run against references; wgpu asks to acknowledge that its side may have bugs.
                experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
                // Weights are a few large buffers, which suballocation blocks only round up.
                memory_hints: wgpu::MemoryHints::MemoryUsage,
                trace: wgpu::Trace::Off,
            })
            .await
            .map_err(|error| Error::adapter(format!("{}: {error}", profile.name)))?;
        let fault = Arc::default();
        watch(&device, &fault);
        #[cfg(not(target_arch = "wasm32"))]
        let disk_key = wgpu::util::pipeline_cache_key(&raw.get_info())
            .filter(|_| features.contains(wgpu::Features::PIPELINE_CACHE));
        Ok(Self(Arc::new(Inner {
            #[cfg(not(target_arch = "wasm32"))]
            poller: poller::Poller::start(device.clone(), adapter.is_cpu()),
            device,
            queue,
            profile,
            driver: adapter.driver(),
            fault,
            memory: Arc::default(),
            staging: Staging::default(),
            pipelines: Mutex::default(),
            #[cfg(not(target_arch = "wasm32"))]
            disk_key,
            #[cfg(not(target_arch = "wasm32"))]
            disk: std::sync::OnceLock::new(),
        })))
    }

    /// What the device can do: the adapter's profile, clipped as asked.
    pub fn profile(&self) -> &Profile {
        &self.0.profile
    }

    /// The driver's name and version.
    pub fn driver(&self) -> &str {
        &self.0.driver
    }

    /// Bytes of GPU memory that this context's buffers take.
    pub fn memory(&self) -> &MemoryTracker {
        &self.0.memory
    }

    pub(crate) fn device(&self) -> &wgpu::Device {
        &self.0.device
    }

    pub(crate) fn queue(&self) -> &wgpu::Queue {
        &self.0.queue
    }

    /// Has the device's errors come here again, after another runtime took them for itself.
    #[cfg(feature = "burn-inference")]
    pub(crate) fn watch(&self) {
        watch(&self.0.device, &self.0.fault);
    }

    pub(super) fn staging(&self) -> &Staging {
        &self.0.staging
    }

    /// The first error that the device reported since the last call, if any; a lost device stays lost.
    ///
    /// # Errors
    /// That error.
    pub fn check(&self) -> Result<()> {
        let mut fault = lock(&self.0.fault);
        match &*fault {
            None => Ok(()),
            Some(error) if error.kind() == ErrorKind::DeviceLost => Err(error.clone()),
            Some(_) => Err(fault.take().unwrap_or_else(|| Error::adapter("unknown error"))),
        }
    }

    /// Takes an error that reached the caller in place of this context: browsers report some that wgpu cannot read. The
    /// next [`Self::check`] returns it.
    pub fn report(&self, error: Error) {
        keep(&self.0.fault, error);
    }

    /// Destroys the device as a driver reset would: everything on it fails with `DeviceLost` from now on.
    pub fn lose(&self) {
        keep(&self.0.fault, Error::device_lost("the device was destroyed on request"));
        self.0.device.destroy();
    }

    /// A buffer for storage and copies; contents are zero.
    ///
    /// # Errors
    /// `OutOfMemory` where it is larger than a buffer may be or memory is short.
    pub fn buffer(&self, label: &str, bytes: u64) -> Result<Buffer> {
        self.buffer_with(label, bytes, wgpu::BufferUsages::STORAGE)
    }

    pub(crate) fn buffer_with(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<Buffer> {
        let limit = self.0.profile.limits.max_buffer_bytes;
        let bytes = bytes.next_multiple_of(16).max(16);
        if bytes > limit {
            return Err(Error::out_of_memory(format!("buffer {label}: {bytes} bytes, expected at most {limit}")));
        }
        self.check()?;
        let raw = self.0.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes,
            usage: usage | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let in_use = self.0.memory.current_bytes();
        self.check()
            .map_err(|error| error.context(format!("buffer {label} of {bytes} bytes beside {in_use} in use")))?;
        Ok(Buffer::new(raw, self.0.memory.clone()))
    }

    /// A buffer with these contents, padded with zeros to a multiple of 16 bytes.
    ///
    /// # Errors
    /// As [`Self::buffer`].
    pub fn buffer_from(&self, label: &str, contents: &[u8]) -> Result<Buffer> {
        let buffer = self.buffer(label, contents.len() as u64)?;
        self.write(&buffer, 0, contents);
        Ok(buffer)
    }

    /// Writes bytes at `offset`, a multiple of 4, before whatever is submitted next.
    pub fn write(&self, buffer: &Buffer, offset: u64, contents: &[u8]) {
        let contents: Cow<'_, [u8]> = if contents.len().is_multiple_of(4) {
            contents.into()
        } else {
            let mut padded = contents.to_vec();
            padded.resize(contents.len().next_multiple_of(4), 0);
            padded.into()
        };
        if !contents.is_empty() {
            self.0.queue.write_buffer(buffer.raw(), offset, &contents);
        }
    }

    /// Waits until all that was submitted is done: the way to bound how much is in flight while weights are written.
    ///
    /// # Errors
    /// What the device reported.
    pub async fn finish(&self) -> Result<()> {
        self.finished().await
    }

    /// [`Self::finish`] for what was submitted before this call, whatever is submitted before the future is awaited.
    pub(crate) fn finished(&self) -> impl Future<Output = Result<()>> + use<> {
        let (sender, done) = futures_channel::oneshot::channel();
        let submission = self.0.queue.submit([]);
        self.0.queue.on_submitted_work_done(move || {
            let _ = sender.send(());
        });
        self.wake_poller(submission, Wait::Asleep);
        let context = self.clone();
        async move {
            let _ = done.await;
            context.check()
        }
    }

    /// Reads a buffer's bytes from `offset`; both numbers are multiples of 4.
    ///
    /// # Errors
    /// What the device reported.
    pub async fn read(&self, buffer: &Buffer, offset: u64, bytes: u64) -> Result<Vec<u8>> {
        let mut encoder = self.encoder();
        let readback = self.record_read(&mut encoder, buffer, offset, bytes);
        let submission = self.submit(encoder);
        readback.submitted(submission).bytes().await
    }

    pub(crate) fn record_read(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        buffer: &Buffer,
        offset: u64,
        bytes: u64,
    ) -> Readback {
        let readback = self.readback(bytes);
        readback.copy(encoder, buffer, offset, 0, bytes);
        readback
    }

    /// Room for bytes to be read back, which copies fill.
    pub(crate) fn readback(&self, bytes: u64) -> Readback {
        Readback::new(self, bytes)
    }

    /// Copies bytes from one place of a buffer to another, after what was submitted before; all numbers are multiples of 4.
    ///
    /// # Errors
    /// As [`Self::buffer`].
    pub(crate) fn copy_within(&self, buffer: &Buffer, from: u64, to: u64, bytes: u64) -> Result<()> {
        // A copy's two buffers have to be different ones.
        let between = self.buffer("copy", bytes)?;
        let mut encoder = self.encoder();
        encoder.copy_buffer_to_buffer(buffer.raw(), from, between.raw(), 0, bytes);
        encoder.copy_buffer_to_buffer(between.raw(), 0, buffer.raw(), to, bytes);
        self.submit(encoder);
        Ok(())
    }

    pub(crate) fn encoder(&self) -> wgpu::CommandEncoder {
        self.0.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None })
    }

    pub(crate) fn submit(&self, encoder: wgpu::CommandEncoder) -> wgpu::SubmissionIndex {
        self.submit_recorded([encoder.finish()])
    }

    pub(crate) fn submit_recorded<const N: usize>(&self, commands: [wgpu::CommandBuffer; N]) -> wgpu::SubmissionIndex {
        self.0.queue.submit(commands)
    }

    /// Has the callbacks of a submission called as soon as it is done.
    pub(super) fn wake_poller(&self, submission: wgpu::SubmissionIndex, wait: Wait) {
        #[cfg(not(target_arch = "wasm32"))]
        self.0.poller.wake(submission, wait);
        #[cfg(target_arch = "wasm32")]
        drop((submission, wait));
    }

    /// The pipeline of a spec, compiled at its first use.
    ///
    /// # Errors
    /// `Adapter`, with the compiler's message, where the shader is refused.
    pub fn pipeline(&self, spec: &Spec, accesses: &[Access]) -> Result<Arc<Pipeline>> {
        let key = (spec.clone(), accesses.to_vec());
        if let Some(pipeline) = lock(&self.0.pipelines).get(&key) {
            return Ok(pipeline.clone());
        }
        let pipeline = Arc::new(Pipeline::compile(self, spec, accesses)?);
        // Another thread may have compiled the same spec meanwhile; the first one in stays.
        Ok(lock(&self.0.pipelines).entry(key).or_insert(pipeline).clone())
    }

    /// Whether [`Self::pipeline`] has compiled this one.
    pub(crate) fn has_pipeline(&self, spec: &Spec, accesses: &[Access]) -> bool {
        lock(&self.0.pipelines).contains_key(&(spec.clone(), accesses.to_vec()))
    }

    /// Compiles those of the pipelines that are not there yet, several at a time where there are threads; plans call it.
    ///
    /// # Errors
    /// As [`Self::pipeline`], behind the label.
    pub(crate) fn compile(&self, wanted: &[(String, Spec, Vec<Access>)]) -> Result<()> {
        let compile = |(label, spec, accesses): &(String, Spec, Vec<Access>)| {
            self.pipeline(spec, accesses).map(drop).map_err(|error| error.context(label))
        };
        #[cfg(not(target_arch = "wasm32"))]
        if wanted.len() > 1 {
            let threads = std::thread::available_parallelism().map_or(1, usize::from).min(wanted.len());
            let next = std::sync::atomic::AtomicUsize::new(0);
            let work = || {
                while let Some(one) = wanted.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    compile(one)?;
                }
                Ok(())
            };
            let done: Result<()> = std::thread::scope(|scope| {
                let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                workers.into_iter().try_for_each(|worker| match worker.join() {
                    Ok(result) => result,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
            });
            done?;
            // A cache that cannot be written only costs time at the next start.
            let _ = self.save_pipelines();
            return Ok(());
        }
        wanted.iter().try_for_each(compile)
    }

    /// Takes compiled pipelines from a file in this folder and keeps new ones there, each adapter's in a file of its own. To
    /// be called before anything is compiled; does nothing where the driver has no such cache (only Vulkan's have).
    ///
    /// # Examples
    /// ```no_run
    /// # pollster::block_on(async {
    /// use anygpu::gpu::{Adapter, Context};
    ///
    /// let context = Context::open(&Adapter::request(&Default::default()).await?, None).await?;
    /// context.keep_pipelines(std::path::Path::new("cache/pipelines"));
    /// # Ok::<(), anygpu::Error>(()) }).unwrap();
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn keep_pipelines(&self, folder: &std::path::Path) {
        if let Some(key) = &self.0.disk_key {
            self.0.disk.get_or_init(|| super::disk::DiskCache::open(&self.0.device, folder, key));
        }
    }

    /// Writes what was compiled since to the file of [`Self::keep_pipelines`]. Plans do this when they have compiled anything.
    ///
    /// # Errors
    /// `Io`, naming the file.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn save_pipelines(&self) -> Result<()> {
        self.0.disk.get().map_or(Ok(()), super::disk::DiskCache::save)
    }

    /// The driver's cache, where pipelines are kept.
    pub(super) fn pipeline_cache(&self) -> Option<&wgpu::PipelineCache> {
        #[cfg(not(target_arch = "wasm32"))]
        return self.0.disk.get().map(super::disk::DiskCache::raw);
        #[cfg(target_arch = "wasm32")]
        None
    }

    /// How many pipelines have been compiled.
    pub fn pipeline_count(&self) -> usize {
        lock(&self.0.pipelines).len()
    }
}

/// The profile's limits in wgpu's terms; what a profile does not mention stays at the least that compute needs.
fn limits(profile: &Profile, adapter: &wgpu::Limits) -> wgpu::Limits {
    let from = &profile.limits;
    wgpu::Limits {
        max_buffer_size: from.max_buffer_bytes,
        max_storage_buffer_binding_size: from.max_binding_bytes,
        max_storage_buffers_per_shader_stage: from.max_storage_buffers,
        max_compute_workgroups_per_dimension: from.max_workgroups_per_dimension,
        max_compute_invocations_per_workgroup: from.max_workgroup_invocations,
        max_compute_workgroup_size_x: from.max_workgroup_size[0],
        max_compute_workgroup_size_y: from.max_workgroup_size[1],
        max_compute_workgroup_size_z: from.max_workgroup_size[2],
        max_compute_workgroup_storage_size: from.max_workgroup_bytes,
        min_storage_buffer_offset_alignment: from.min_storage_offset_alignment,
        min_uniform_buffer_offset_alignment: from.min_uniform_offset_alignment,
        ..wgpu::Limits::downlevel_defaults().using_resolution(adapter.clone())
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod poller {
    //! One thread per device that drives mapping callbacks; nothing else polls.

    use std::sync::mpsc;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::Wait;

    /// The longest time awake for a submission, from when it was submitted: of a long stream of them, each of which waits for those
    /// before, most are waited for asleep.
    const AWAKE: Duration = Duration::from_millis(3);
    /// Cores of a host that has one to spare.
    const MANY_CORES: usize = 4;

    struct Entry {
        submission: wgpu::SubmissionIndex,
        awake_until: Option<Instant>,
    }

    pub(super) struct Poller {
        may_stay_awake: bool,
        sender: Option<mpsc::Sender<Entry>>,
        thread: Option<thread::JoinHandle<()>>,
    }

    /// Asks for a submission again and again until it is done, or the time is over.
    pub(super) fn stay_awake(device: &wgpu::Device, submission: &wgpu::SubmissionIndex, until: Instant) {
        let now = || wgpu::PollType::Wait { submission_index: Some(submission.clone()), timeout: Some(Duration::ZERO) };
        while matches!(device.poll(now()), Err(wgpu::PollError::Timeout)) && Instant::now() < until {
            thread::yield_now();
        }
    }

    impl Poller {
        /// A device that the CPU plays wants all cores itself.
        pub(super) fn start(device: wgpu::Device, is_cpu: bool) -> Self {
            let may_stay_awake =
                !is_cpu && thread::available_parallelism().is_ok_and(|cores| cores.get() >= MANY_CORES);
            let (sender, receiver) = mpsc::channel();
            let run = move || {
                // In the order of submission, each for itself: a wait for the newest would hold back what is done.
                while let Ok(Entry { submission, awake_until }) = receiver.recv() {
                    if let Some(until) = awake_until {
                        stay_awake(&device, &submission, until);
                    }
                    let wait = wgpu::PollType::Wait { submission_index: Some(submission), timeout: None };
                    // Errors reach the waiting side through its callback and the context's fault.
                    let _ = device.poll(wait);
                }
            };
            let thread = thread::Builder::new().name("anygpu-poller".into()).spawn(run).ok();
            Self { may_stay_awake, sender: Some(sender), thread }
        }

        pub(super) fn wake(&self, submission: wgpu::SubmissionIndex, wait: Wait) {
            if let Some(sender) = &self.sender {
                let awake = self.may_stay_awake && wait == Wait::Awake;
                let _ = sender.send(Entry { submission, awake_until: awake.then(|| Instant::now() + AWAKE) });
            }
        }
    }

    impl Drop for Poller {
        fn drop(&mut self) {
            self.sender = None;
            // The last handle may be dropped by a callback on the poller itself, which cannot join itself.
            if let Some(thread) = self.thread.take().filter(|t| t.thread().id() != thread::current().id()) {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use super::*;

    /// Waiting awake ends when the submission is done, its callbacks called, or when the time is over.
    #[test]
    fn who_is_awake_sees_a_submission_done() {
        let context = pollster::block_on(async {
            Context::open(&Adapter::request(&Default::default()).await.unwrap(), None).await.unwrap()
        });
        let (from, to) = (context.buffer("from", 64 << 20).unwrap(), context.buffer("to", 64 << 20).unwrap());
        for until in [Instant::now() + Duration::from_secs(60), Instant::now()] {
            let mut encoder = context.encoder();
            encoder.copy_buffer_to_buffer(from.raw(), 0, to.raw(), 0, 64 << 20);
            let submission = context.submit(encoder);
            let done = Arc::new(AtomicBool::new(false));
            let seen = done.clone();
            context.0.queue.on_submitted_work_done(move || seen.store(true, Ordering::Release));
            poller::stay_awake(&context.0.device, &submission, until);
            assert!(done.load(Ordering::Acquire) || until <= Instant::now());
        }
        pollster::block_on(context.finish()).unwrap();
    }
}
