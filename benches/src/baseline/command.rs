//! A command line as words with holes.

use super::Request;

/// A stretch of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Taken as it is.
    Text(String),
    /// Filled in for each run.
    Hole(Hole),
}

/// What is filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hole {
    Model,
    Prompt,
    Gen,
    Batch,
    Depth,
}

const HOLES: [(&str, Hole); 5] = [
    ("model", Hole::Model),
    ("n_prompt", Hole::Prompt),
    ("n_gen", Hole::Gen),
    ("batch", Hole::Batch),
    ("n_depth", Hole::Depth),
];

/// Splits `line` into words and each word at its `{holes}`; `{{` and `}}` stand for braces. The error says what is wrong.
pub fn parse(line: &str, backslash_is_text: bool) -> Result<Vec<Vec<Part>>, String> {
    let words = split(line, backslash_is_text)?;
    if words.is_empty() {
        return Err("the command is empty".into());
    }
    words.iter().map(|word| holes(word)).collect()
}

/// `word` with its holes filled.
pub fn fill(word: &[Part], request: &Request) -> String {
    let part = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Hole(Hole::Model) => request.file.to_string_lossy().into_owned(),
        Part::Hole(Hole::Prompt) => request.n_prompt.to_string(),
        Part::Hole(Hole::Gen) => request.n_gen.to_string(),
        Part::Hole(Hole::Batch) => request.batch.to_string(),
        Part::Hole(Hole::Depth) => request.n_depth.to_string(),
    };
    word.iter().map(part).collect()
}

/// `words` as one line that a shell would take.
pub fn show(words: &[String]) -> String {
    let safe = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    let quote = |word: &String| match word.chars().all(safe) && !word.is_empty() {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

fn split(line: &str, backslash_is_text: bool) -> Result<Vec<String>, String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or("a ' is not closed")? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or("a \" is not closed")? {
                        '"' => break,
                        '\\' if !backslash_is_text => match chars.next().ok_or("a \" is not closed")? {
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' if !backslash_is_text => {
                word.get_or_insert_default().push(chars.next().ok_or("nothing follows the last backslash")?);
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn holes(word: &str) -> Result<Vec<Part>, String> {
    let (mut parts, mut text) = (Vec::new(), String::new());
    let mut rest = word;
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            text.push_str(brace);
            rest = after;
            continue;
        }
        let unclosed = || format!("{brace} alone in {word}; write {brace}{brace} for a brace");
        let (name, after) = rest.split_once('}').filter(|_| brace == "{").ok_or_else(unclosed)?;
        let known = || HOLES.map(|(name, _)| format!("{{{name}}}")).join(" ");
        let found = HOLES.iter().find(|(hole, _)| *hole == name);
        let (_, hole) = found.ok_or_else(|| format!("unknown placeholder {{{name}}}, expected one of {}", known()))?;
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text)));
        }
        parts.push(Part::Hole(*hole));
        rest = after;
    }
    text.push_str(rest);
    if !text.is_empty() || parts.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}
