//! `generate`: continues a text.

use std::io::{Read, Write};
use std::path::PathBuf;

use anygpu::chat::{Message, Role};
use anygpu::tokenizer::EncodeOptions;
use serde_json::json;

use super::common::{Global, ModelArgs, note, print_json};
use super::failure::{Failure, Result};
use super::writing::{WritingArgs, stop_tokens, write};

#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  anygpu generate \"A trait in Rust is\"
  anygpu generate --chat \"What is a slice?\" --temperature 0
  cat notes.txt | anygpu generate - --max-tokens 64 --seed 7
  anygpu generate --synthetic llama-2-7b --dtype q4_0 --tokens 1,2,3 -n 128")]
pub struct Args {
    /// The text to continue; `-` reads it from stdin
    #[arg(required_unless_present_any = ["file", "tokens"])]
    prompt: Option<String>,
    /// Read the text from a file
    #[arg(short, long, value_name = "PATH", conflicts_with = "prompt")]
    file: Option<PathBuf>,
    /// Token ids in place of a text
    #[arg(long, value_delimiter = ',', value_name = "IDS", conflicts_with_all = ["prompt", "file"])]
    tokens: Option<Vec<u32>>,
    /// Put the text into the model's chat template, as a question
    #[arg(long, conflicts_with_all = ["raw", "tokens"])]
    chat: bool,
    /// Take the text as it is (what happens without --chat)
    #[arg(long)]
    raw: bool,
    /// Instructions ahead of the question
    #[arg(long, requires = "chat", value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    writing: WritingArgs,
}

impl Args {
    fn text(&self) -> Result<String> {
        match (&self.file, self.prompt.as_deref()) {
            (Some(path), _) => {
                std::fs::read_to_string(path).map_err(|error| Failure::error(format!("{}: {error}", path.display())))
            }
            (None, Some("-")) => {
                let mut text = String::new();
                std::io::stdin()
                    .read_to_string(&mut text)
                    .map_err(|error| Failure::error(format!("stdin: {error}")))?;
                Ok(text)
            }
            (None, prompt) => Ok(prompt.unwrap_or_default().to_owned()),
        }
    }
}

/// Runs the command.
pub async fn run(global: &Global, args: &Args) -> Result {
    let text = args.text()?;
    let model = args.model.load(global).await?;
    let prompt = match &args.tokens {
        Some(tokens) => tokens.clone(),
        None if args.chat => {
            let system = args.system.iter().map(|text| Message::new(Role::System, text));
            let messages: Vec<_> = system.chain([Message::new(Role::User, text)]).collect();
            model.chat_template()?.encode(model.tokenizer()?, &messages, true)?
        }
        None => model.tokenizer()?.encode(&text, EncodeOptions { add_special: true, parse_special: true })?,
    };
    if prompt.is_empty() {
        return Err(Failure::error("prompt: found no token, expected at least one"));
    }
    let tokenizer = model.tokenizer().ok();
    let seed = args.writing.seed();
    let mut session = args.writing.session(&model)?;
    let options = args.writing.options(seed, tokenizer.map(stop_tokens).unwrap_or_default(), prompt.len().min(4));
    let json = global.json;
    let mut out = std::io::stdout().lock();
    let written = write(&mut session, tokenizer, &prompt, options, !args.chat, |piece| {
        if !json {
            out.write_all(piece.as_bytes())?;
            out.flush()?;
        }
        Ok(())
    })
    .await;
    if !json {
        writeln!(out)?;
    }
    drop(out);
    let written = written?;
    if json {
        let mut object = written.json();
        object["model"] = json!(model.name());
        object["synthetic"] = json!(model.is_synthetic());
        object["adapter"] = json!(model.context().profile().name);
        object["seed"] = json!(seed);
        print_json(&object)?;
    } else {
        note(format_args!("[{}, seed {seed}]", written.summary()));
    }
    if written.finish == "interrupted" { Err(Failure::Interrupted) } else { Ok(()) }
}
