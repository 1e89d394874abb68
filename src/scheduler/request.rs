//! [`Request`]: what was asked for and how far it is, and [`Seated`]: its place among those that run.

use std::collections::VecDeque;

use super::pool::Table;
use crate::error::{Error, Result};
use crate::generate::{Finish, GenerateOptions};

/// A request, wherever it is.
#[derive(Debug)]
pub(super) struct Request {
    /// In the order in which requests came.
    pub id: u64,
    pub options: GenerateOptions,
    /// The prompt and the tokens chosen so far.
    pub tokens: Vec<u32>,
    /// The prompt's length.
    pub prompt: usize,
    /// Tokens delivered before the context was shifted and what was left of it made the prompt.
    pub before: usize,
    /// Tokens known to the sequence that runs. Fewer than `tokens` while known ones are computed again one by one.
    pub seen: usize,
}

/// What came of a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// One that had come before.
    Again,
    /// A new one, to be delivered.
    New,
    /// A new one, the last.
    Last,
    /// A stop token, not to be delivered.
    Stop,
}

impl Request {
    /// The tokens to be chosen are as many as wanted once those `coming` have arrived.
    pub fn is_complete_with(&self, coming: usize) -> bool {
        let chosen = self.before + (self.seen - self.prompt) + coming;
        self.options.max_tokens != 0 && chosen >= self.options.max_tokens
    }

    /// Takes the next token of the sequence.
    ///
    /// # Errors
    /// `Adapter` where it was another one when it was computed first.
    pub fn arrive(&mut self, token: u32) -> Result<Arrival> {
        if let Some(&known) = self.tokens.get(self.seen) {
            self.seen += 1;
            return match known == token {
                true => Ok(Arrival::Again),
                false => Err(Error::adapter(format!(
                    "token {} of request {}: found {token} when it was computed again, expected {known}",
                    self.seen - 1,
                    self.id
                ))),
            };
        }
        if self.options.stop_tokens.contains(&token) {
            return Ok(Arrival::Stop);
        }
        self.tokens.push(token);
        self.seen += 1;
        Ok(if self.is_complete_with(0) { Arrival::Last } else { Arrival::New })
    }
}

/// A request that has a slot and pages.
#[derive(Debug)]
pub(super) struct Seated {
    pub request: Request,
    pub slot: usize,
    /// Tells this stay from one before: what is read back of that is not this one's.
    pub stay: u64,
    pub table: Table,
    /// Tokens that go through prefill.
    pub prefill: usize,
    /// Positions submitted: the next chunk's first, then the next step's.
    pub fed: usize,
    /// Tokens chosen that have not been read back.
    pub coming: usize,
    /// Whether decode steps feed it.
    pub active: bool,
}

/// What a stream has not taken yet.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub items: VecDeque<Result<u32>>,
    /// Why no more will come.
    pub ended: Option<Option<Finish>>,
}
