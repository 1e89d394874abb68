//! `chat`: a conversation; every turn computes only what is new.

use std::io::{BufRead, Write};

use anygpu::chat::{ChatTemplate, Message, Role};
use anygpu::generate::Session;
use anygpu::tokenizer::{EncodeOptions, Tokenizer};
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

/// The conversation as text and as the tokens that stand for it.
struct Conversation {
    messages: Vec<Message>,
    /// The text of `ids`: the prompts as the template wrote them and the answers as the model did.
    text: String,
    ids: Vec<u32>,
}

impl Conversation {
    fn new(system: Option<&str>) -> Self {
        let messages = system.map(|text| Message::new(Role::System, text)).into_iter().collect();
        Self { messages, text: String::new(), ids: Vec::new() }
    }

    /// Takes the next question and sets `ids` to all tokens up to the answer.
    ///
    /// Where the template's text goes on from what is there, only what it adds is tokenized: an answer need not be
    /// how the tokenizer would split it, and the cache holds it as it was written.
    fn ask(&mut self, question: &str, template: &ChatTemplate, tokenizer: &Tokenizer) -> anygpu::Result<()> {
        self.messages.push(Message::new(Role::User, question));
        let text = template.render(&self.messages, true)?;
        let added = text.strip_prefix(&self.text).filter(|_| !self.ids.is_empty());
        let options = EncodeOptions { add_special: false, parse_special: true };
        let added =
            added.map(|added| Ok::<_, anygpu::Error>((added, tokenizer.encode(added, options)?))).transpose()?;
        match added {
            // A special token in front splits the text for certain.
            Some((added, ids)) if starts_with_its_first_token(added, &ids, tokenizer) => self.ids.extend(ids),
            _ => self.ids = template.encode(tokenizer, &self.messages, true)?,
        }
        self.text = text;
        Ok(())
    }

    fn answered(&mut self, text: &str, tokens: &[u32]) {
        self.messages.push(Message::new(Role::Assistant, text));
        self.text += text;
        self.ids.extend(tokens);
    }

    /// Forgets the oldest question and answer; false where only the newest question is left.
    fn forget_oldest(&mut self) -> bool {
        let first = usize::from(self.messages.first().is_some_and(|message| message.role == Role::System));
        if self.messages.len() < first + 3 {
            return false;
        }
        self.messages.drain(first..first + 2);
        self.ids.clear();
        true
    }

    /// Makes room for an answer of one token at least.
    fn fit(&mut self, session: &Session, template: &ChatTemplate, tokenizer: &Tokenizer) -> anygpu::Result<()> {
        while self.ids.len() >= session.context_length() && self.forget_oldest() {
            self.text = template.render(&self.messages, true)?;
            self.ids = template.encode(tokenizer, &self.messages, true)?;
        }
        Ok(())
    }
}

fn starts_with_its_first_token(text: &str, ids: &[u32], tokenizer: &Tokenizer) -> bool {
    ids.first().and_then(|&id| tokenizer.token(id)).is_some_and(|token| text.starts_with(token))
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
    let mut conversation = Conversation::new(args.system.as_deref());
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
                conversation = Conversation::new(args.system.as_deref());
                session.clear(0);
                note("[forgotten]");
                continue;
            }
            _ => {}
        }
        turn += 1;
        conversation.ask(line.trim_end(), &template, tokenizer)?;
        if args.writing.context_full == WhenFull::Shift {
            conversation.fit(&session, &template, tokenizer)?;
        }
        // At a shift the instructions stay.
        let keep = match conversation.messages.first() {
            Some(first) if first.role == Role::System => {
                let system = template.encode(tokenizer, std::slice::from_ref(first), false);
                system.map_or(4, |ids| ids.len())
            }
            _ => usize::from(tokenizer.adds_bos()),
        };
        let options = args.writing.options(seed.wrapping_add(turn), stops.clone(), keep);
        let json = global.json;
        let mut out = std::io::stdout().lock();
        let written = write(&mut session, Some(tokenizer), &conversation.ids, options, false, |piece| {
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
        conversation.answered(&written.text, &written.tokens);
        if json {
            let mut object = written.json();
            object["turn"] = json!(turn);
            print_json(&object)?;
        } else if args.verbose {
            note(format_args!("[{}]", written.summary()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_turns_go_first_and_the_instructions_stay() {
        let mut conversation = Conversation::new(Some("be brief"));
        for (role, text) in [(Role::User, "a"), (Role::Assistant, "b"), (Role::User, "c")] {
            conversation.messages.push(Message::new(role, text));
        }
        assert!(conversation.forget_oldest());
        let left: Vec<_> = conversation.messages.iter().map(|message| message.content.as_str()).collect();
        assert_eq!(left, ["be brief", "c"]);
        assert!(!conversation.forget_oldest(), "the newest question stays");
    }
}
