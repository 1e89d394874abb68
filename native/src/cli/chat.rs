//! `chat`: a conversation; every turn computes only what is new.

use std::io::{BufRead, Write};

use anygpu::chat::{ChatTemplate, Conversation, Message, Role, forget_oldest};
use anygpu::generate::Session;
use anygpu::tokenizer::Tokenizer;
use serde_json::json;

use super::common::{Global, ModelArgs, is_interactive, note, print_json};
use super::failure::{Failure, Result};
use super::writing::{WhenFull, WritingArgs, stop_tokens, write};

#[derive(clap::Args, Debug)]
#[command(after_help = "A line is a turn. /clear forgets the conversation, /quit or the end of input ends it;
Ctrl-C stops an answer.

Examples:
  anygpu chat
  anygpu chat -m llama-3.2-1b.gguf --system \"Answer in one sentence.\"
  printf 'What is a slice?\\nAnd a Vec?\\n' | anygpu chat --json --temperature 0")]
pub struct Args {
    /// Instructions ahead of the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Say after each turn what was computed
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    writing: WritingArgs,
}

/// The conversation: its messages and the tokens that stand for them.
struct Chat {
    messages: Vec<Message>,
    conversation: Conversation,
}

impl Chat {
    fn new(system: Option<&str>) -> Self {
        let messages = system.map(|text| Message::new(Role::System, text)).into_iter().collect();
        Self { messages, conversation: Conversation::default() }
    }

    /// Takes the next question; the conversation then holds all tokens up to the answer.
    fn ask(&mut self, question: &str, template: &ChatTemplate, tokenizer: &Tokenizer) -> anygpu::Result<()> {
        self.messages.push(Message::new(Role::User, question));
        self.conversation.ask(&self.messages, template, tokenizer).map(|_| ())
    }

    fn answered(&mut self, text: &str, tokens: &[u32]) {
        self.messages.push(Message::new(Role::Assistant, text));
        self.conversation.answered(text, tokens);
    }

    /// Makes room for an answer of one token at least.
    fn fit(&mut self, session: &Session, template: &ChatTemplate, tokenizer: &Tokenizer) -> anygpu::Result<()> {
        while self.conversation.ids().len() >= session.context_length() && forget_oldest(&mut self.messages) {
            self.conversation.clear();
            self.conversation.ask(&self.messages, template, tokenizer)?;
        }
        Ok(())
    }
}

/// Runs the command.
pub async fn run(global: &Global, args: &Args) -> Result {
    if args.model.synthetic.is_some() {
        return Err(Failure::Usage("chat needs words: a synthetic model has none".into()));
    }
    let model = args.model.load(global).await?;
    let tokenizer = model.tokenizer()?;
    let template = model.chat_template()?;
    if template.is_fallback() {
        note("[the file has no chat template; taking ChatML]");
    }
    let stops = stop_tokens(tokenizer);
    let mut session = args.writing.session(&model)?;
    let seed = args.writing.seed();
    let mut chat = Chat::new(args.system.as_deref());
    let mut turn = 0;
    let mut lines = std::io::stdin().lock().lines();
    loop {
        if is_interactive() {
            let _ = write!(std::io::stderr(), "> ");
            let _ = std::io::stderr().flush();
        }
        let Some(line) = lines.next() else { return Ok(()) };
        let line = line.map_err(|error| Failure::error(format!("stdin: {error}")))?;
        match line.trim() {
            "" => continue,
            "/quit" | "/exit" => return Ok(()),
            "/clear" => {
                chat = Chat::new(args.system.as_deref());
                session.clear(0);
                note("[forgotten]");
                continue;
            }
            _ => {}
        }
        turn += 1;
        chat.ask(line.trim_end(), &template, tokenizer)?;
        if args.writing.context_full == WhenFull::Shift {
            chat.fit(&session, &template, tokenizer)?;
        }
        // At a shift the instructions stay.
        let keep = match chat.messages.first() {
            Some(first) if first.role == Role::System => {
                let system = template.encode(tokenizer, std::slice::from_ref(first), false);
                system.map_or(4, |ids| ids.len())
            }
            _ => usize::from(tokenizer.adds_bos()),
        };
        let options = args.writing.options(seed.wrapping_add(turn), stops.clone(), keep);
        let json = global.json;
        let mut out = std::io::stdout().lock();
        let written = write(&mut session, Some(tokenizer), chat.conversation.ids(), options, false, |piece| {
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
        chat.answered(&written.text, &written.tokens);
        if json {
            let mut object = written.json();
            object["turn"] = json!(turn);
            print_json(&object)?;
        } else if args.verbose {
            note(format_args!("[{}]", written.summary()));
        }
    }
}
