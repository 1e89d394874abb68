//! Arguments that commands share, and what they stand for: a device, a model, a progress bar, Ctrl-C.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anygpu::format::source::{ByteSource, MappedFile};
use anygpu::generate::Model;
use anygpu::gpu::{Adapter, AdapterOptions, Context};
use anygpu::profile::Profile;
use anygpu::{DType, Error};
use indicatif::{ProgressBar, ProgressStyle};

use super::failure::{Failure, Result};

/// Arguments of every command.
#[derive(clap::Args, Debug)]
pub struct Global {
    /// Part of the adapter's name; without it the fastest kind there is
    #[arg(long, global = true, value_name = "NAME")]
    pub adapter: Option<String>,
    /// Clip the device to a stored profile, or to that of a JSON file: what another machine would do
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

impl Global {
    /// The profile that is asked for: a stored one by name, or one of a JSON file in the form of the stored ones.
    pub fn stored_profile(&self) -> Result<Option<Profile>> {
        Ok(self.profile.as_deref().map(crate::clip::profile).transpose()?)
    }

    /// The adapter that is asked for.
    pub async fn find_adapter(&self) -> Result<Adapter> {
        Ok(Adapter::request(&AdapterOptions { name: self.adapter.clone(), ..Default::default() }).await?)
    }

    /// The device that is asked for.
    pub async fn open(&self) -> Result<Context> {
        let clip = self.stored_profile()?;
        Ok(crate::open(&self.find_adapter().await?, clip.as_ref()).await?)
    }
}

/// A model file.
#[derive(clap::Args, Debug)]
pub struct FileArgs {
    /// The GGUF file; without it the small model that is part of the program
    #[arg(short, long, value_name = "PATH")]
    pub model: Option<PathBuf>,
}

impl FileArgs {
    /// What `--json` and messages call the file.
    pub fn label(&self) -> String {
        self.model.as_ref().map_or_else(|| "shipped".to_owned(), |path| path.display().to_string())
    }

    /// The file's bytes.
    pub fn source(&self) -> Result<Arc<dyn ByteSource>> {
        Ok(match &self.model {
            Some(path) => Arc::new(MappedFile::open(path)?),
            None => crate::shipped::source(),
        })
    }

    /// The file's label before an error.
    pub fn named(&self, error: Error) -> Failure {
        match self.model {
            Some(_) => error.context(self.label()).into(),
            None => error.into(),
        }
    }
}

/// A model: a file, or a well-known shape with random weights.
#[derive(clap::Args, Debug)]
pub struct ModelArgs {
    #[command(flatten)]
    pub file: FileArgs,
    /// A shape with random weights in place of a file: llama-2-7b, llama-2-13b, llama-2-70b, llama-1b
    #[arg(long, value_name = "SHAPE", conflicts_with = "model")]
    pub synthetic: Option<String>,
    /// The format of the random weights
    #[arg(long, value_name = "TYPE", default_value = "q4_0", requires = "synthetic")]
    pub dtype: DType,
}

impl ModelArgs {
    /// Opens a device and loads the model onto it.
    pub async fn load(&self, global: &Global) -> Result<Model> {
        // A missing file is said before a device is looked for.
        let source = self.file.source()?;
        let context = global.open().await?;
        if let Some(shape) = &self.synthetic {
            return Ok(Model::synthetic(&context, shape, self.dtype).await?);
        }
        let bar = bytes_bar(source.len(), "loading");
        let report = bar.clone();
        let model = Model::load(&context, source, move |progress| {
            report.set_length(progress.total_bytes);
            report.set_position(progress.loaded_bytes);
        })
        .await;
        bar.finish_and_clear();
        model.map_err(|error| self.file.named(error))
    }
}

/// A progress bar in bytes on stderr; hidden where that is no terminal.
pub fn bytes_bar(bytes: u64, what: &'static str) -> ProgressBar {
    styled(ProgressBar::new(bytes), "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}").with_message(what)
}

/// A progress bar in pieces on stderr; hidden where that is no terminal.
pub fn count_bar(count: usize, what: &'static str) -> ProgressBar {
    styled(ProgressBar::new(count as u64), "{msg} {wide_bar} {pos}/{len} {eta}").with_message(what)
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A line for a person on stderr.
pub fn note(message: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// Whether a person reads along.
pub fn is_interactive() -> bool {
    std::io::stderr().is_terminal() && std::io::stdin().is_terminal()
}

/// Prints one JSON value on a line of its own.
pub fn print_json(value: &serde_json::Value) -> Result {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

static WRITING: AtomicBool = AtomicBool::new(false);
static STOP: AtomicBool = AtomicBool::new(false);

/// While it lives, Ctrl-C asks for an end; without it, and at the second time, Ctrl-C ends the program.
pub struct Interruptible(());

impl Interruptible {
    /// Begins work that looks at [`Self::stopped`].
    pub fn new() -> Self {
        static HANDLER: std::sync::Once = std::sync::Once::new();
        HANDLER.call_once(|| {
            // Where there can be no handler, Ctrl-C ends the program at once, as it does anyway.
            let _ = ctrlc::set_handler(|| {
                if !WRITING.load(Ordering::SeqCst) || STOP.swap(true, Ordering::SeqCst) {
                    std::process::exit(130);
                }
            });
        });
        STOP.store(false, Ordering::SeqCst);
        WRITING.store(true, Ordering::SeqCst);
        Self(())
    }

    /// Whether Ctrl-C was pressed.
    pub fn stopped(&self) -> bool {
        STOP.load(Ordering::SeqCst)
    }
}

impl Drop for Interruptible {
    fn drop(&mut self) {
        WRITING.store(false, Ordering::SeqCst);
    }
}
