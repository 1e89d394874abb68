//! The command line `anygpu`: one module a subcommand, what they share in [`common`].
//!
//! An error is one line on stderr and exit code 1; wrong usage is exit code 2, Ctrl-C 130. A reader that closes the pipe
//! ends the program quietly.

mod adapters;
mod chat;
mod check;
mod classify;
mod common;
mod embed;
mod encoder;
mod eval;
mod failure;
mod generate;
mod inspect;
mod npy;
mod pull;
mod quantize;
mod search;
mod shaders;
mod writing;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use common::Global;
use failure::Failure;

#[derive(Parser, Debug)]
#[command(name = "anygpu", version, about = "Language models on any GPU", arg_required_else_help = true)]
#[command(after_help = "Examples:
  anygpu generate \"A trait in Rust is\"              continue a text with the model that comes with the program
  anygpu chat -m llama-3.2-1b-q4_k.gguf             talk to a model
  anygpu pull TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF tinyllama-1.1b-chat-v1.0.Q4_0.gguf
  anygpu embed -m all-MiniLM-L6-v2 \"a text\"          a text's vector
  anygpu inspect -m model.gguf                      what a file holds and what it will take on the GPU
  anygpu check --profile webgpu-baseline            every kernel against its reference
Without --model, the commands use a small model that is part of the program.")]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Continue a text
    Generate(generate::Args),
    /// Talk to a model, turn by turn
    Chat(chat::Args),
    /// Download a file from a model hub
    Pull(pull::Args),
    /// Measure perplexity on a text, or write logits
    Eval(eval::Args),
    /// Turn a float model into a quantised one
    Quantize(quantize::Args),
    /// Turn texts into vectors
    Embed(embed::Args),
    /// Label texts by a trained head on an encoder
    Classify(classify::Args),
    /// Find texts by meaning: make an index, query it
    Search(search::Args),
    /// Show a file's metadata, its tensors and what it will take on the GPU
    Inspect(inspect::Args),
    /// List the GPU adapters
    Adapters,
    /// Run every kernel against its reference
    Check(check::Args),
    /// Print the specialised source of a kernel
    Shaders(shaders::Args),
}

/// Runs the program on the process's arguments.
pub fn main() -> ExitCode {
    // Nothing here should panic; if something does, it is one line like any other error.
    std::panic::set_hook(Box::new(|info| {
        let message = info.to_string().replace('\n', " ");
        let _ = writeln!(std::io::stderr(), "error: internal error, please report it: {message}");
    }));
    std::panic::catch_unwind(run).unwrap_or(ExitCode::FAILURE)
}

fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe is no reason to complain about help that nobody reads.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let global = &cli.global;
    let result = pollster::block_on(async {
        match &cli.command {
            Command::Generate(args) => generate::run(global, args).await,
            Command::Chat(args) => chat::run(global, args).await,
            Command::Pull(args) => pull::run(global, args),
            Command::Eval(args) => eval::run(global, args).await,
            Command::Quantize(args) => quantize::run(global, args).await,
            Command::Embed(args) => embed::run(global, args).await,
            Command::Classify(args) => classify::run(global, args).await,
            Command::Search(args) => search::run(global, args).await,
            Command::Inspect(args) => inspect::run(global, args).await,
            Command::Adapters => adapters::run(global).await,
            Command::Check(args) => check::run(global, args).await,
            Command::Shaders(args) => shaders::run(global, args).await,
        }
    });
    match result {
        Ok(()) | Err(Failure::ClosedPipe) => ExitCode::SUCCESS,
        Err(Failure::Reported) => ExitCode::FAILURE,
        Err(Failure::Interrupted) => ExitCode::from(130),
        Err(Failure::Usage(message)) => {
            let _ = writeln!(std::io::stderr(), "error: {message}");
            ExitCode::from(2)
        }
        Err(Failure::Error(message)) => {
            let line =
                message.split('\n').map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
            let _ = writeln!(std::io::stderr(), "error: {line}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
