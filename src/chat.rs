//! Chat messages to the text that a model was trained on, by the Jinja template in its file.
//!
//! Templates run in minijinja under the settings of Hugging Face's `apply_chat_template`: `trim_blocks`, `lstrip_blocks`,
//! `raise_exception`, `strftime_now`, a `tojson` that does not escape HTML, Python's string and list methods, loop
//! controls. The steps that a template may take, the text that it may make and the depth to which it may nest are bounded,
//! since it comes with the file. One thing is not, in minijinja as in Jinja2: a list that holds the same list twice, and so
//! on for dozens of levels, takes time without end to print or compare.

mod conversation;
mod environment;
mod limits;
mod stack;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use conversation::{Conversation, forget_oldest};

use minijinja::value::{Enumerator, Object, Value};
use minijinja::{Environment, context};

use crate::error::{Error, Result};
use crate::format::metadata::Metadata;
use crate::tokenizer::{EncodeOptions, Tokenizer};

/// llama.cpp's template for a file that has none.
const CHAT_ML: &str = "\
{%- for message in messages -%}
  {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}";

/// Steps that any template may take (minijinja's fuel: an instruction, or 64 bytes of text): published templates take
/// some hundreds for a message.
const BASE_FUEL: u64 = 200_000;
/// Steps more for each message.
const FUEL_PER_MESSAGE: u64 = 5_000;
/// Steps at most: what a template can nest within them fits the stack that it runs on.
const MAX_FUEL: u64 = 4_000_000;
/// The longest template that is read; published ones stay below 24 KiB. An expression takes minijinja time in the square of
/// its length: seconds at this one.
const MAX_SOURCE_BYTES: usize = 64 * 1024;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions ahead of the conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool that the model called.
    Tool,
}

impl Role {
    /// The name that templates compare with.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Message {
        Message { role, content: content.into() }
    }
}

/// A template that turns messages into a prompt.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    is_fallback: bool,
}

impl ChatTemplate {
    /// The template of a model file: `tokenizer.chat_template`. A file without one gets ChatML (`<|im_start|>role …`),
    /// as in llama.cpp; [`is_fallback`](Self::is_fallback) tells.
    ///
    /// # Errors
    /// `Tokenizer`, with the line, for a template that does not parse.
    pub fn from_gguf(metadata: &Metadata, tokenizer: &Tokenizer) -> Result<ChatTemplate> {
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token(id)).unwrap_or_default();
        let source = metadata.str("tokenizer.chat_template")?.filter(|source| !source.trim().is_empty());
        let mut template = Self::new(source.unwrap_or(CHAT_ML), text(tokenizer.bos()), text(tokenizer.eos()))?;
        template.is_fallback = source.is_none();
        Ok(template)
    }

    /// A template from its source; `bos` and `eos` are what `bos_token` and `eos_token` stand for in it.
    ///
    /// # Errors
    /// `Tokenizer`, with the line, for a template that does not parse.
    ///
    /// ```
    /// use anygpu::chat::{ChatTemplate, Message, Role};
    /// let source = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m['content'].strip() }}\n{% endfor %}";
    /// let template = ChatTemplate::new(source, "<s>", "</s>")?;
    /// let messages = [Message::new(Role::User, " Hi! "), Message::new(Role::Assistant, "Hello.")];
    /// assert_eq!(template.render(&messages, false)?, "<s>[user] Hi!\n[assistant] Hello.\n");
    /// # Ok::<(), anygpu::Error>(())
    /// ```
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<ChatTemplate> {
        if source.len() > MAX_SOURCE_BYTES {
            let found = source.len();
            return Err(Error::tokenizer(format!(
                "chat template: found {found} bytes, expected at most {MAX_SOURCE_BYTES}"
            )));
        }
        let environment = stack::deep(|| environment::new(source).map_err(|error| failed(&error)))?;
        Ok(ChatTemplate { environment, bos: bos.to_owned(), eos: eos.to_owned(), is_fallback: false })
    }

    /// Whether the model file had no template, and ChatML stands in for it.
    pub fn is_fallback(&self) -> bool {
        self.is_fallback
    }

    /// Sets the time that `strftime_now` writes, in seconds since 1970 (UTC). Natively it is the system's clock unless
    /// set; in a browser the function exists only once it is set, and templates fall back to a date of their own.
    #[must_use]
    pub fn with_time(mut self, unix_seconds: i64) -> ChatTemplate {
        environment::set_clock(&mut self.environment, move || unix_seconds);
        self
    }

    /// The prompt. `add_generation_prompt` ends it where the assistant's answer starts.
    ///
    /// # Errors
    /// `Tokenizer`, with the template's line, where the template fails, refuses the messages (many want user and
    /// assistant to alternate), or does more work than a template should.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let text_bytes: usize = messages.iter().map(|message| message.content.len()).sum();
        // Text is paid for each time that it is touched: 32 times for all of it, as a fuel is 64 bytes.
        let fuel = BASE_FUEL + messages.len() as u64 * FUEL_PER_MESSAGE + text_bytes as u64 / 2;
        stack::deep(|| {
            let mut environment = self.environment.clone();
            environment.set_fuel(Some(fuel.min(MAX_FUEL)));
            let messages: Vec<Value> = messages.iter().cloned().map(Value::from_object).collect();
            let template = environment.get_template(environment::NAME).map_err(|error| failed(&error))?;
            let context = context! {
                messages,
                add_generation_prompt,
                bos_token => &self.bos,
                eos_token => &self.eos,
                // Defined but none, as in transformers.
                tools => (),
                documents => (),
            };
            template.render(context).map_err(|error| failed(&error))
        })
    }

    /// The prompt as token ids, with the control tokens that the template writes. A model whose texts start with BOS
    /// gets it once, whether or not the template writes it, as in llama.cpp.
    ///
    /// # Errors
    /// As [`render`](Self::render) and [`Tokenizer::encode`].
    pub fn encode(&self, tokenizer: &Tokenizer, messages: &[Message], add_generation_prompt: bool) -> Result<Vec<u32>> {
        let prompt = self.render(messages, add_generation_prompt)?;
        let mut ids = tokenizer.encode(&prompt, EncodeOptions { add_special: false, parse_special: true })?;
        if tokenizer.adds_bos() && ids.first().copied() != tokenizer.bos() {
            ids.splice(..0, tokenizer.bos());
        }
        Ok(ids)
    }
}

impl Object for Message {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "role" => Some(Value::from(self.role.name())),
            "content" => Some(Value::from(self.content.as_str())),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(&["role", "content"])
    }
}

fn failed(error: &minijinja::Error) -> Error {
    let place = error.line().map_or_else(String::new, |line| format!(", line {line}"));
    let detail = error.detail().map_or_else(String::new, |detail| format!(": {detail}"));
    Error::tokenizer(format!("chat template{place}: {}{detail}", error.kind()))
}
