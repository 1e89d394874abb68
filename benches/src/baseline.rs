//! External programs beside us: `--baseline NAME=COMMAND` starts any program that prints llama-bench's JSON rows.
//!
//! ```
//! use anygpu_benches::baseline::Baseline;
//!
//! let baseline: Baseline = "llama.cpp=llama-bench -m {model} -p {n_prompt} -n {n_gen} -d {n_depth} -o json".parse()?;
//! assert_eq!(baseline.name(), "llama.cpp");
//! # Ok::<(), anygpu::Error>(())
//! ```

mod command;
mod rows;

use crate::report::Row;
use anygpu::{Error, Result};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// The most that is read of a program's output.
const OUTPUT_LIMIT: u64 = 64 << 20;

/// A name, and the command that measures under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    name: String,
    words: Vec<Vec<command::Part>>,
}

/// What a baseline is asked to measure, and how its rows are to be labelled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The model file, for `{model}`.
    pub file: PathBuf,
    /// Name of the model in the report.
    pub model: String,
    /// Type of the model's weights in the report.
    pub dtype: String,
    /// Whether the weights are made up.
    pub synthetic: bool,
    /// Sequences at once, for `{batch}`.
    pub batch: u64,
    /// Tokens of prompt to time, for `{n_prompt}`.
    pub n_prompt: u64,
    /// Tokens to generate, for `{n_gen}`.
    pub n_gen: u64,
    /// Tokens in the context before generation, for `{n_depth}`.
    pub n_depth: u64,
}

impl FromStr for Baseline {
    type Err = Error;

    /// Reads `NAME=COMMAND`. The command is split into words as a POSIX shell splits them, with quotes and backslashes
    /// (on Windows a backslash is an ordinary character), but no shell ever sees it.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |what: String| Error::format(format!("--baseline {text}: {what}"));
        let (name, line) = text.split_once('=').ok_or_else(|| bad("expected NAME=COMMAND, found no '='".into()))?;
        if name.trim().is_empty() {
            return Err(bad("expected a name before '='".into()));
        }
        if name == crate::report::ANYGPU {
            return Err(bad(format!("the name {name} is the benchmark's own")));
        }
        let words = command::parse(line, cfg!(windows)).map_err(bad)?;
        Ok(Self { name: name.trim().to_owned(), words })
    }
}

impl Baseline {
    /// The engine name of its rows.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the command can be asked for more than one sequence at once.
    pub fn takes_batch(&self) -> bool {
        self.words.iter().flatten().any(|part| *part == command::Part::Hole(command::Hole::Batch))
    }

    /// Whether the command can be asked to start generation behind a context.
    pub fn takes_depth(&self) -> bool {
        self.words.iter().flatten().any(|part| *part == command::Part::Hole(command::Hole::Depth))
    }

    /// The program and its arguments for `request`.
    pub fn words(&self, request: &Request) -> Vec<String> {
        self.words.iter().map(|word| command::fill(word, request)).collect()
    }

    /// Runs the command and reads its rows. Blocks until the program ends, or is ended because `limit` has passed.
    ///
    /// # Errors
    /// With the command in the message: it cannot be started, runs past the limit, exits with another status than 0 (then
    /// with the end of what it wrote to stderr), or prints no row.
    pub fn run(&self, request: &Request, limit: Duration) -> Result<Vec<Row>> {
        let words = self.words(request);
        let fail =
            |what: String| Error::io(format!("baseline {}: {what}\n  command: {}", self.name, command::show(&words)));
        let (program, arguments) = words.split_first().ok_or_else(|| fail("the command is empty".into()))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| fail(format!("cannot start: {e}")))?;
        // Both pipes are drained all the time: a full one would stop the program.
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        let end = Instant::now() + limit;
        let status = loop {
            match child.try_wait().map_err(|e| fail(format!("cannot wait for it: {e}")))? {
                Some(status) => break status,
                None if Instant::now() >= end => {
                    // It may have ended by itself just now; either way it is over and its time is up.
                    let _ = child.kill();
                    let _ = child.wait();
                    let tail = tail(&stderr);
                    return Err(fail(format!("still running after {} s, ended{tail}", limit.as_secs_f64())));
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        if !status.success() {
            return Err(fail(format!("{status}{}", tail(&stderr))));
        }
        let output = stdout.recv_timeout(Duration::from_secs(5)).unwrap_or_default();
        rows::parse(&output, &self.name, request).map_err(|what| fail(format!("{what}{}", tail(&stderr))))
    }
}

/// Reads a pipe to its end on a thread of its own.
fn drain(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What could be read before an error is what there is to show.
            let _ = (&mut pipe).take(OUTPUT_LIMIT).read_to_end(&mut bytes);
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        }
        // Nobody listens any more when the program outlived its limit.
        let _ = send.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receive
}

/// The last lines of stderr, ready to be put behind a message. Waits a moment only: a grandchild may hold the pipe open.
fn tail(stderr: &Receiver<String>) -> String {
    let text = stderr.recv_timeout(Duration::from_millis(500)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(8)..].iter().map(|line| format!("\n  stderr: {line}")).collect()
}

#[cfg(test)]
mod tests;
