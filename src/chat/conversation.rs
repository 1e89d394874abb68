//! [`Conversation`]: the tokens of a conversation from turn to turn, so that each turn computes only what is new.

use super::{ChatTemplate, Message, Role};
use crate::error::Result;
use crate::tokenizer::{EncodeOptions, Tokenizer};

/// The text of a conversation and the tokens that stand for it: prompts as the template wrote them, answers as the model
/// did.
///
/// An answer need not be how the tokenizer would split it, and a cache holds it as it was written. So where the
/// template's text goes on from what is there, only what it adds is tokenized.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    text: String,
    ids: Vec<u32>,
}

impl Conversation {
    /// All tokens so far.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Takes the messages up to the next question and returns all tokens up to the answer.
    ///
    /// # Errors
    /// As [`ChatTemplate::encode`].
    ///
    /// ```
    /// # use anygpu::format::metadata::{Metadata, Value};
    /// # use anygpu::tokenizer::Tokenizer;
    /// use anygpu::chat::{ChatTemplate, Conversation, Message, Role};
    /// # let strings = |texts: &[&str]| Value::Strings(texts.iter().map(|text| text.to_string()).collect());
    /// # let tokenizer = Tokenizer::from_gguf(&Metadata::from_iter([
    /// #     ("tokenizer.ggml.model", Value::String("gpt2".into())),
    /// #     ("tokenizer.ggml.pre", Value::String("llama-bpe".into())),
    /// #     ("tokenizer.ggml.tokens", strings(&["h", "i", "hi", "<u>", "<a>"])),
    /// #     ("tokenizer.ggml.merges", strings(&["h i"])),
    /// #     ("tokenizer.ggml.token_type", Value::Ints(vec![1, 1, 1, 3, 3])),
    /// # ]))?;
    /// let template = ChatTemplate::new(
    ///     "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}",
    ///     "",
    ///     "",
    /// )?;
    /// let mut messages = vec![Message::new(Role::User, "hi")];
    /// let mut conversation = Conversation::default();
    /// assert_eq!(conversation.ask(&messages, &template, &tokenizer)?, [3, 2, 4]);
    /// // The model answers in two tokens what the tokenizer would write as one.
    /// conversation.answered("hi", &[0, 1]);
    /// messages.extend([Message::new(Role::Assistant, "hi"), Message::new(Role::User, "h")]);
    /// assert_eq!(conversation.ask(&messages, &template, &tokenizer)?, [3, 2, 4, 0, 1, 3, 0, 4]);
    /// # Ok::<(), anygpu::Error>(())
    /// ```
    pub fn ask(&mut self, messages: &[Message], template: &ChatTemplate, tokenizer: &Tokenizer) -> Result<&[u32]> {
        let text = template.render(messages, true)?;
        let added = text.strip_prefix(&self.text).filter(|_| !self.ids.is_empty());
        let options = EncodeOptions { add_special: false, parse_special: true };
        let added = added.map(|added| tokenizer.encode(added, options).map(|ids| (added, ids))).transpose()?;
        match added {
            // A special token in front splits the text for certain.
            Some((added, ids)) if starts_with_its_first_token(added, &ids, tokenizer) => self.ids.extend(ids),
            _ => self.ids = template.encode(tokenizer, messages, true)?,
        }
        self.text = text;
        Ok(&self.ids)
    }

    /// Takes what the model wrote.
    pub fn answered(&mut self, text: &str, tokens: &[u32]) {
        self.text += text;
        self.ids.extend(tokens);
    }

    /// Forgets everything: the next turn is tokenized anew.
    pub fn clear(&mut self) {
        self.text.clear();
        self.ids.clear();
    }
}

fn starts_with_its_first_token(text: &str, ids: &[u32], tokenizer: &Tokenizer) -> bool {
    ids.first().and_then(|&id| tokenizer.token(id)).is_some_and(|token| text.starts_with(token))
}

/// Removes the oldest question and its answer; instructions at the start stay. False where only the newest question is
/// left.
///
/// ```
/// use anygpu::chat::{Message, Role, forget_oldest};
/// let mut messages: Vec<_> = [(Role::System, "be brief"), (Role::User, "a"), (Role::Assistant, "b"), (Role::User, "c")]
///     .into_iter()
///     .map(|(role, text)| Message::new(role, text))
///     .collect();
/// assert!(forget_oldest(&mut messages));
/// assert_eq!(messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>(), ["be brief", "c"]);
/// assert!(!forget_oldest(&mut messages));
/// ```
pub fn forget_oldest(messages: &mut Vec<Message>) -> bool {
    let first = usize::from(messages.first().is_some_and(|message| message.role == Role::System));
    if messages.len() < first + 3 {
        return false;
    }
    messages.drain(first..first + 2);
    true
}
