//! Imports and conditions of WGSL files.
//!
//! | line | meaning |
//! |---|---|
//! | `#import NAME` | the file bound to the slot `NAME`, or else `shaders/lib/NAME.wgsl`; each file comes once, at its first import |
//! | `#ifdef FLAG`, `#ifndef FLAG`, `#else`, `#endif` | conditions on hardware [`Flag`]s, which nest |
//!
//! Nothing is substituted in the other lines. An unknown directive, import or flag, an unbalanced block and a cycle
//! of imports are errors with file and line, in blocks that are left out too (whose imports are not followed).

use std::collections::{BTreeMap, HashSet};

use super::spec::{Flag, Flags};
use crate::error::{Error, Result};

/// What a file's directives are resolved against.
pub struct Inputs<'a> {
    /// The flags that are defined.
    pub flags: Flags,
    /// Slot names, and the file below `shaders/lib` (without `.wgsl`) that each is bound to.
    pub slots: &'a BTreeMap<&'static str, String>,
    /// The text of a path below `shaders/`.
    pub files: &'a dyn Fn(&str) -> Option<&'static str>,
}

/// The text of `path` (below `shaders/`) with its imports in place and its conditions decided.
///
/// # Errors
/// `Unsupported`, for what the module's head lists; the message begins with `shaders/FILE:LINE`.
pub fn preprocess(path: &str, inputs: &Inputs<'_>) -> Result<String> {
    let Some(text) = (inputs.files)(path) else {
        return Err(Error::unsupported(format!("no shader `shaders/{path}`")));
    };
    let mut run = Run { inputs, out: String::new(), done: HashSet::new(), open: vec![path.to_owned()] };
    run.file(path, text)?;
    Ok(run.out)
}

struct Run<'a> {
    inputs: &'a Inputs<'a>,
    out: String,
    /// Files that are in the output, whole.
    done: HashSet<String>,
    /// The file being read, after those that import it.
    open: Vec<String>,
}

/// An `#ifdef` that has not met its `#endif`.
struct Block {
    line: usize,
    /// The lines around the block are taken.
    outer: bool,
    /// The lines of the branch at hand are taken.
    taken: bool,
    in_else: bool,
}

impl Run<'_> {
    fn file(&mut self, path: &str, text: &str) -> Result<()> {
        let mut blocks: Vec<Block> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let at = |message: String| Error::unsupported(format!("shaders/{path}:{number}: {message}"));
            let active = blocks.last().is_none_or(|block| block.taken);
            let Some(directive) = line.trim_start().strip_prefix('#') else {
                if active {
                    self.out.push_str(line);
                    self.out.push('\n');
                }
                continue;
            };
            // A comment may follow a directive.
            let words: Vec<_> = directive.split("//").next().unwrap_or_default().split_whitespace().collect();
            match words[..] {
                ["import", name] => {
                    let (file, text) = self.resolve(name).map_err(at)?;
                    if active && !self.done.contains(&file) {
                        if self.open.contains(&file) {
                            let chain: Vec<_> = self.open.iter().chain([&file]).map(String::as_str).collect();
                            return Err(at(format!("a cycle of imports: {}", chain.join(" -> "))));
                        }
                        self.open.push(file.clone());
                        self.file(&file, text)?;
                        self.open.pop();
                        self.done.insert(file);
                    }
                }
                [condition @ ("ifdef" | "ifndef"), name] => {
                    let flag = Flag::by_name(name).ok_or_else(|| {
                        let names: Vec<_> = Flag::ALL.iter().map(|flag| flag.name()).collect();
                        at(format!("unknown flag `{name}`; there are {}", names.join(", ")))
                    })?;
                    let holds = self.inputs.flags.has(flag) == (condition == "ifdef");
                    blocks.push(Block { line: number, outer: active, taken: active && holds, in_else: false });
                }
                ["else"] => {
                    let block = blocks.last_mut().ok_or_else(|| at("`#else` without `#ifdef`".into()))?;
                    if block.in_else {
                        return Err(at(format!("a second `#else` for the block of line {}", block.line)));
                    }
                    block.in_else = true;
                    block.taken = block.outer && !block.taken;
                }
                ["endif"] => {
                    blocks.pop().ok_or_else(|| at("`#endif` without `#ifdef`".into()))?;
                }
                _ => return Err(at(format!("unknown directive `#{}`", directive.trim_end()))),
            }
        }
        match blocks.last() {
            Some(block) => {
                Err(Error::unsupported(format!("shaders/{path}:{}: this block has no `#endif`", block.line)))
            }
            None => Ok(()),
        }
    }

    /// The path and the text of what `name` imports.
    fn resolve(&self, name: &str) -> Result<(String, &'static str), String> {
        let slot = self.inputs.slots.get(name);
        let file = format!("lib/{}.wgsl", slot.map_or(name, String::as_str));
        match (self.inputs.files)(&file) {
            Some(text) => Ok((file, text)),
            None if slot.is_some() => Err(format!("slot `{name}` is bound to `shaders/{file}`, which is not there")),
            None => {
                let slots: Vec<_> = self.inputs.slots.keys().copied().collect();
                Err(format!("unknown import `{name}`: no `shaders/{file}`, and no slot of [{}]", slots.join(", ")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: &[(&str, &str)] = &[
        ("plain.wgsl", "a\n\n  b // #import x\n"),
        ("imports.wgsl", "#import one\n#import two // why\nmain\n#import one\n"),
        ("lib/one.wgsl", "one\n"),
        ("lib/two.wgsl", "#import one\ntwo\n"),
        ("lib/deep/er.wgsl", "deeper\n"),
        ("slot.wgsl", "#import weights\nmain\n"),
        ("deep.wgsl", "#import deep/er\n"),
        (
            "flags.wgsl",
            "#ifdef F16\nhalf\n#ifdef SUBGROUPS\nboth\n#else\nhalf only\n#endif\n#else\n  #ifndef SUBGROUPS\nneither\n#else\nsub only\n#endif\n#endif\nend\n",
        ),
        ("skipped.wgsl", "#ifdef DOT4\n#import one\n#endif\n#import two\n"),
        ("bad-directive.wgsl", "a\n#define X 1\n"),
        ("bad-import.wgsl", "a\n\n#import gone\n"),
        ("bad-import-skipped.wgsl", "#ifdef F16\n#import gone\n#endif\n"),
        ("bad-import-below.wgsl", "#import bad\n"),
        ("lib/bad.wgsl", "x\n#import gone\n"),
        ("bad-flag.wgsl", "#ifdef Q4_K\n#endif\n"),
        ("bad-open.wgsl", "x\n#ifdef F16\n#ifdef DOT4\n#endif\n"),
        ("bad-endif.wgsl", "#ifdef F16\n#endif\n#endif\n"),
        ("bad-else.wgsl", "#else\n"),
        ("bad-else-twice.wgsl", "#ifndef F16\n#else\n#else\n#endif\n"),
        ("bad-empty.wgsl", "#\n"),
        ("bad-two-words.wgsl", "#import one two\n"),
        ("cycle.wgsl", "#import ring\n"),
        ("lib/ring.wgsl", "r\n#import back\n"),
        ("lib/back.wgsl", "#import ring\n"),
        ("cycle-self.wgsl", "#import self\n"),
        ("lib/self.wgsl", "#import self\n"),
    ];

    fn run(path: &str, flags: &[Flag], slots: &[(&'static str, &str)]) -> Result<String> {
        let slots = slots.iter().map(|(name, file)| (*name, (*file).to_owned())).collect();
        let files = |path: &str| FILES.iter().find(|(name, _)| *name == path).map(|(_, text)| *text);
        preprocess(path, &Inputs { flags: flags.iter().copied().collect(), slots: &slots, files: &files })
    }

    #[test]
    fn imports_and_conditions() {
        use Flag::{F16, SUBGROUPS};
        let cases: &[(&str, &[Flag], &str)] = &[
            ("plain.wgsl", &[], "a\n\n  b // #import x\n"),
            ("imports.wgsl", &[], "one\ntwo\nmain\n"),
            ("deep.wgsl", &[], "deeper\n"),
            ("flags.wgsl", &[], "neither\nend\n"),
            ("flags.wgsl", &[F16], "half\nhalf only\nend\n"),
            ("flags.wgsl", &[SUBGROUPS], "sub only\nend\n"),
            ("flags.wgsl", &[F16, SUBGROUPS], "half\nboth\nend\n"),
            ("skipped.wgsl", &[], "one\ntwo\n"),
            ("skipped.wgsl", &[Flag::DOT4], "one\ntwo\n"),
        ];
        for (path, flags, expected) in cases {
            assert_eq!(run(path, flags, &[]).as_deref(), Ok(*expected), "{path} with {flags:?}");
        }
    }

    #[test]
    fn slots_stand_for_files() {
        assert_eq!(run("slot.wgsl", &[], &[("weights", "deep/er")]).unwrap(), "deeper\nmain\n");
        // The slot's file counts as imported under its own path.
        assert_eq!(run("imports.wgsl", &[], &[("two", "one")]).unwrap(), "one\nmain\n");
    }

    #[test]
    fn errors_name_file_and_line() {
        let cases: &[(&str, &str)] = &[
            ("absent.wgsl", "no shader `shaders/absent.wgsl`"),
            ("bad-directive.wgsl", "shaders/bad-directive.wgsl:2: unknown directive `#define X 1`"),
            (
                "bad-import.wgsl",
                "shaders/bad-import.wgsl:3: unknown import `gone`: no `shaders/lib/gone.wgsl`, and no slot of [weights]",
            ),
            (
                "bad-import-skipped.wgsl",
                "shaders/bad-import-skipped.wgsl:2: unknown import `gone`: no `shaders/lib/gone.wgsl`, and no slot of [weights]",
            ),
            (
                "bad-import-below.wgsl",
                "shaders/lib/bad.wgsl:2: unknown import `gone`: no `shaders/lib/gone.wgsl`, and no slot of [weights]",
            ),
            (
                "slot.wgsl",
                "shaders/slot.wgsl:1: slot `weights` is bound to `shaders/lib/weights/q9.wgsl`, which is not there",
            ),
            (
                "bad-flag.wgsl",
                "shaders/bad-flag.wgsl:1: unknown flag `Q4_K`; there are F16, SUBGROUPS, COOP_MATRIX, DOT4, TILES, HALVES, SPREAD, WRITABLE",
            ),
            ("bad-open.wgsl", "shaders/bad-open.wgsl:2: this block has no `#endif`"),
            ("bad-endif.wgsl", "shaders/bad-endif.wgsl:3: `#endif` without `#ifdef`"),
            ("bad-else.wgsl", "shaders/bad-else.wgsl:1: `#else` without `#ifdef`"),
            ("bad-else-twice.wgsl", "shaders/bad-else-twice.wgsl:3: a second `#else` for the block of line 1"),
            ("bad-empty.wgsl", "shaders/bad-empty.wgsl:1: unknown directive `#`"),
            ("bad-two-words.wgsl", "shaders/bad-two-words.wgsl:1: unknown directive `#import one two`"),
            (
                "cycle.wgsl",
                "shaders/lib/back.wgsl:1: a cycle of imports: cycle.wgsl -> lib/ring.wgsl -> lib/back.wgsl -> lib/ring.wgsl",
            ),
            (
                "cycle-self.wgsl",
                "shaders/lib/self.wgsl:1: a cycle of imports: cycle-self.wgsl -> lib/self.wgsl -> lib/self.wgsl",
            ),
        ];
        for (path, expected) in cases {
            let error = run(path, &[], &[("weights", "weights/q9")]).expect_err(path);
            assert_eq!(error.to_string(), *expected, "{path}");
        }
    }
}
