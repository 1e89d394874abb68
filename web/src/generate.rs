//! Writing: a conversation's next answer, or a text's continuation, across lost devices.

use anygpu::chat::{Message, Role, forget_oldest};
use anygpu::generate::{ContextFull, GenerateOptions, Metrics, Sampling, StopStrings};
use anygpu::tokenizer::{Decoder, EncodeOptions};
use anygpu::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

use crate::engine::{Engine, Loaded};
use crate::error::{bad_options, from_js, to_js};
use crate::host::now;
use crate::recovery::ATTEMPTS;

/// What to write: one of `messages`, `prompt` and `tokens`, and how.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Request {
    messages: Option<Vec<Said>>,
    /// A text to continue.
    prompt: Option<String>,
    /// Its token ids.
    tokens: Option<Vec<u32>>,
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    repetition_penalty: f32,
    repetition_window: u32,
    seed: u64,
    /// 0: as many as the context holds.
    max_tokens: usize,
    stop: Vec<String>,
}

#[derive(Deserialize)]
struct Said {
    role: String,
    content: String,
}

impl Default for Request {
    /// As the command line has them.
    fn default() -> Self {
        Self {
            messages: None,
            prompt: None,
            tokens: None,
            temperature: 0.7,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repetition_penalty: 1.0,
            repetition_window: 64,
            seed: 0,
            max_tokens: 0,
            stop: Vec::new(),
        }
    }
}

/// What all tokens up to the answer are.
struct Prompt {
    ids: Vec<u32>,
    /// Tokens that stay where the context overflows.
    keep: usize,
    /// Messages that were left out so that the rest fits.
    forgotten: usize,
    is_chat: bool,
}

/// An answer as far as it has come. It outlives the device that began it.
struct Written {
    tokens: Vec<u32>,
    text: String,
    decoder: Option<Decoder>,
    stops: StopStrings,
    /// The most tokens.
    limit: usize,
    when_full: ContextFull,
    prefilled: usize,
    first: Option<f64>,
    last: f64,
    finish: &'static str,
}

#[wasm_bindgen]
impl Engine {
    /// Writes; `on_text` gets each piece of text. Returns what was done as JSON. `request` is JSON.
    pub async fn generate(&self, request: String, on_text: js_sys::Function) -> std::result::Result<String, JsValue> {
        self.cancelled.set(false);
        let run = async {
            let request: Request = serde_json::from_str(&request).map_err(|error| bad_options(&error))?;
            self.write(&request, &on_text).await
        };
        run.await.map(|value| value.to_string()).map_err(|error| to_js(&error))
    }

    /// Forgets the conversation: the next one shares nothing with it.
    pub fn forget(&self) {
        self.conversation.borrow_mut().clear();
    }
}

impl Engine {
    async fn write(&self, request: &Request, on_text: &js_sys::Function) -> Result<Value> {
        let start = now();
        let mut loaded = self.take().await?;
        let begun = self.prompt(&loaded, request).and_then(|prompt| {
            let written = self.begin(&loaded, request, &prompt)?;
            Ok((prompt, written))
        });
        let (prompt, mut written) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                self.give_back(loaded);
                return Err(error);
            }
        };
        let mut rebuilt = 0;
        let (mut in_a_row, mut before) = (0, 0);
        let result = loop {
            match self.attempt(&mut loaded, request, &prompt, &mut written, on_text).await {
                Err(error) if error.kind() == ErrorKind::DeviceLost => {
                    in_a_row = if written.tokens.len() > before { 1 } else { in_a_row + 1 };
                    before = written.tokens.len();
                    if in_a_row > ATTEMPTS {
                        break Err(error);
                    }
                    drop(loaded);
                    // The conversation's tokens are here, not on the device: only its cache is computed anew.
                    loaded = self.load_again(Some(&error)).await?;
                    rebuilt += 1;
                }
                result => break result,
            }
        };
        if let Ok(rest) = &result {
            self.finish(&prompt, &mut written, rest, on_text)?;
        } else if prompt.is_chat {
            self.conversation.borrow_mut().clear();
        }
        self.give_back(loaded);
        result?;
        let first = written.first.unwrap_or(written.last);
        let decode_ms = written.last - first;
        let rate =
            (written.tokens.len() > 1 && decode_ms > 0.0).then(|| (written.tokens.len() - 1) as f64 / decode_ms * 1e3);
        Ok(json!({
            "promptTokens": prompt.ids.len(),
            "prefilledTokens": written.prefilled,
            "generatedTokens": written.tokens.len(),
            "firstTokenMs": written.first.map(|first| first - start),
            "tokensPerSecond": rate,
            "finish": written.finish,
            "tokens": written.tokens,
            "forgottenMessages": prompt.forgotten,
            "rebuilt": rebuilt,
        }))
    }

    /// The tokens to start from.
    fn prompt(&self, loaded: &Loaded, request: &Request) -> Result<Prompt> {
        let room = loaded.session.context_length();
        let plain = |ids: Vec<u32>| Prompt { keep: ids.len().min(4), ids, forgotten: 0, is_chat: false };
        let prompt = match (&request.messages, &request.prompt, &request.tokens) {
            (Some(messages), None, None) => self.chat_prompt(loaded, messages)?,
            (None, Some(text), None) => {
                let options = EncodeOptions { add_special: true, parse_special: true };
                plain(loaded.model.tokenizer()?.encode(text, options)?)
            }
            (None, None, Some(tokens)) => plain(tokens.clone()),
            _ => return Err(Error::shape("generate: expected one of messages, prompt and tokens")),
        };
        if prompt.ids.is_empty() {
            return Err(Error::shape("prompt: found no token, expected at least one"));
        }
        if prompt.ids.len() >= room {
            let found = prompt.ids.len();
            return Err(Error::shape(format!("prompt: found {found} tokens, expected less than the context's {room}")));
        }
        Ok(prompt)
    }

    fn chat_prompt(&self, loaded: &Loaded, said: &[Said]) -> Result<Prompt> {
        let tokenizer = loaded.model.tokenizer()?;
        let missing = || Error::tokenizer("the model has no chat template");
        let template = loaded.template.as_ref().ok_or_else(missing)?;
        let mut messages = said
            .iter()
            .map(|said| {
                let roles = [Role::System, Role::User, Role::Assistant, Role::Tool];
                let role = roles.into_iter().find(|role| role.name() == said.role);
                let unknown = || {
                    let found = &said.role;
                    Error::shape(format!("role {found:?}: expected system, user, assistant or tool"))
                };
                Ok(Message::new(role.ok_or_else(unknown)?, said.content.clone()))
            })
            .collect::<Result<Vec<_>>>()?;
        if messages.is_empty() {
            return Err(Error::shape("messages: found none, expected at least one"));
        }
        let mut conversation = self.conversation.borrow_mut();
        let mut ids = conversation.ask(&messages, template, tokenizer)?.to_vec();
        let mut forgotten = 0;
        while ids.len() >= loaded.session.context_length() && forget_oldest(&mut messages) {
            forgotten += 2;
            conversation.clear();
            ids = conversation.ask(&messages, template, tokenizer)?.to_vec();
        }
        // At a shift the instructions stay.
        let keep = match messages.first() {
            Some(first) if first.role == Role::System => {
                template.encode(tokenizer, std::slice::from_ref(first), false).map_or(4, |ids| ids.len())
            }
            _ => usize::from(tokenizer.adds_bos()),
        };
        Ok(Prompt { ids, keep, forgotten, is_chat: true })
    }

    fn begin(&self, loaded: &Loaded, request: &Request, prompt: &Prompt) -> Result<Written> {
        let (limit, when_full) = match request.max_tokens {
            0 => (loaded.session.context_length() - prompt.ids.len(), ContextFull::Error),
            limit => (limit, ContextFull::Shift { keep: prompt.keep }),
        };
        let decoder = loaded.model.tokenizer().ok().map(|tokenizer| match prompt.is_chat {
            true => tokenizer.decoder(),
            false => tokenizer.decoder().after_text(),
        });
        Ok(Written {
            tokens: Vec::new(),
            text: String::new(),
            decoder,
            stops: StopStrings::new(request.stop.iter().cloned()),
            limit,
            when_full,
            prefilled: 0,
            first: None,
            last: now(),
            finish: "length",
        })
    }

    /// Goes on from what is written until the end, or until the device is lost. Returns text still to be given out.
    async fn attempt(
        &self,
        loaded: &mut Loaded,
        request: &Request,
        prompt: &Prompt,
        written: &mut Written,
        on_text: &js_sys::Function,
    ) -> Result<String> {
        // A device lost after the last token leaves nothing to write.
        if written.finish == "length" && written.tokens.len() < written.limit {
            let mut ids = [prompt.ids.as_slice(), &written.tokens].concat();
            let room = loaded.session.context_length();
            if ids.len() >= room {
                // As the session itself does where its context is full.
                ids.drain(prompt.keep..prompt.keep + (ids.len() - room / 2).min(ids.len() - prompt.keep - 1));
            }
            let phases = loaded.session.missing_phases(&ids);
            self.prepare(&mut loaded.session, &phases).await?;
            self.read_tokens(loaded, &ids, request, written, on_text).await?;
            // What was submitted ahead runs out, so that its time is nobody else's.
            loaded.session.finish().await?;
        }
        let unfinished = written.decoder.take().map_or(String::new(), Decoder::finish);
        Ok(match written.finish {
            "stop sequence" => String::new(),
            _ => {
                let (text, stopped) = written.stops.push(&unfinished);
                if stopped { text } else { text + &written.stops.finish() }
            }
        })
    }

    async fn read_tokens(
        &self,
        loaded: &mut Loaded,
        ids: &[u32],
        request: &Request,
        written: &mut Written,
        on_text: &js_sys::Function,
    ) -> Result<()> {
        let options = GenerateOptions {
            sampling: Sampling {
                temperature: request.temperature,
                top_k: request.top_k,
                top_p: request.top_p,
                min_p: request.min_p,
                repetition_penalty: request.repetition_penalty,
                repetition_window: request.repetition_window,
                seed: request.seed,
            },
            max_tokens: written.limit - written.tokens.len(),
            stop_tokens: loaded.stop_tokens.clone(),
            when_full: written.when_full,
        };
        let mut metrics = Metrics::default();
        let mut stream = loaded.session.generate(ids, options, &mut metrics);
        let end = loop {
            if self.cancelled.get() {
                written.finish = "cancelled";
                break Ok(());
            }
            match stream.next().await {
                None => break Ok(()),
                Some(Err(error)) => break Err(error),
                Some(Ok(token)) => match written.push(token, on_text) {
                    Ok(true) => {}
                    Ok(false) => break Ok(()),
                    Err(error) => break Err(error),
                },
            }
        };
        drop(stream);
        written.prefilled += metrics.prefilled;
        if end.is_ok() && written.finish == "length" && written.tokens.len() < written.limit {
            written.finish = "stop";
        }
        end
    }

    fn finish(&self, prompt: &Prompt, written: &mut Written, rest: &str, on_text: &js_sys::Function) -> Result<()> {
        written.give(rest, on_text)?;
        if prompt.is_chat {
            let mut conversation = self.conversation.borrow_mut();
            match written.finish {
                // The text ends within a token: what the template makes of it is other tokens.
                "stop sequence" => conversation.clear(),
                _ => conversation.answered(&written.text, &written.tokens),
            }
        }
        if written.finish == "stop sequence" {
            written.finish = "stop";
        }
        Ok(())
    }
}

impl Written {
    /// Takes a token; false where a stop string ends the text with it.
    fn push(&mut self, token: u32, on_text: &js_sys::Function) -> Result<bool> {
        self.last = now();
        self.first.get_or_insert(self.last);
        self.tokens.push(token);
        let piece = match &mut self.decoder {
            Some(decoder) => decoder.push(token)?,
            None => format!("{}{token}", if self.tokens.len() > 1 { " " } else { "" }),
        };
        let (text, stopped) = self.stops.push(&piece);
        self.give(&text, on_text)?;
        if stopped {
            self.finish = "stop sequence";
        }
        Ok(!stopped)
    }

    fn give(&mut self, text: &str, on_text: &js_sys::Function) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.text += text;
        on_text.call1(&JsValue::NULL, &text.into()).map(|_| ()).map_err(|error| from_js(&error))
    }
}
