//! The command line as its users run it: the built program on the shipped model, on whatever adapter there is.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

#[path = "cli/embed.rs"]
mod embed;
#[path = "cli/pull.rs"]
mod pull;

/// A folder that is gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("anygpu-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn shipped() -> PathBuf {
    repository().join("benches/models/anygpu-rust-6m-f16.gguf")
}

fn anygpu(arguments: &[&str]) -> Output {
    anygpu_with(arguments, "")
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anygpu"));
    // Without it, Mesa's Wayland part complains on stderr.
    command.args(arguments).env("XDG_RUNTIME_DIR", std::env::temp_dir());
    command
}

fn anygpu_with(arguments: &[&str], input: &str) -> Output {
    let mut child =
        command(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that ends early has no use for the rest.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The output of a run that must succeed.
fn passes(arguments: &[&str]) -> String {
    let output = anygpu(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

fn json(arguments: &[&str]) -> Value {
    let text = passes(arguments);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
}

#[test]
fn generate_is_deterministic_where_asked() {
    let greedy = ["generate", "A trait is", "--temperature", "0", "-n", "12", "--json"];
    let first = json(&greedy);
    assert_eq!(first["tokens"], json(&greedy)["tokens"]);
    assert_eq!(first["tokens"].as_array().unwrap().len(), 12);
    assert_eq!(first["finish"], "length");
    assert_eq!(first["prefilled"], first["prompt_tokens"]);
    let text = first["text"].as_str().unwrap();
    assert!(text.split_whitespace().count() >= 4, "{text:?} is no text");
    // The same as plain text, from stdin.
    let output = anygpu_with(&["generate", "-", "--temperature", "0", "-n", "12"], "A trait is");
    assert_eq!(stdout(&output), format!("{text}\n"));
    assert!(stderr(&output).contains("tokens/s"), "{}", stderr(&output));
    let seeded = ["generate", "A trait is", "--temperature", "1.2", "--seed", "7", "-n", "12", "--json"];
    assert_eq!(json(&seeded)["text"], json(&seeded)["text"], "the same seed");
}

#[test]
fn a_full_context_is_an_error_or_a_shift() {
    let arguments = ["generate", "A trait is", "--temperature", "0", "-c", "64", "-n", "90"];
    let output = anygpu(&[&arguments[..], &["--context-full", "error"]].concat());
    let message = stderr(&output);
    // The model may end before; then there is nothing to see here.
    if !output.status.success() {
        assert!(message.contains("context is full: 65 tokens, expected at most 64"), "{message}");
    }
    let output = anygpu(&[&arguments[..], &["--context-full", "shift"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_turn_computes_only_its_own_tokens() {
    let input = "What is a slice?\n\nAnd a vector?\n/quit\nnever read\n";
    let output = anygpu_with(&["chat", "--json", "--temperature", "0", "-n", "16"], input);
    assert!(output.status.success(), "{}", stderr(&output));
    let turns: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(turns.len(), 2);
    let number = |turn: usize, key: &str| turns[turn][key].as_u64().unwrap();
    assert_eq!(number(0, "prefilled"), number(0, "prompt_tokens"));
    let written = turns[0]["tokens"].as_array().unwrap().len() as u64;
    let new = number(1, "prompt_tokens") - number(0, "prompt_tokens") - written;
    assert!(new > 0 && new < number(0, "prompt_tokens") + 8, "{turns:?}");
    let prefilled = number(1, "prefilled");
    // The last token of an answer may not have been fed.
    assert!(prefilled == new || prefilled == new + 1, "{prefilled} of {new} new tokens: {turns:?}");
}

#[test]
fn inspect_shows_metadata_tensors_and_the_plan() {
    let found = json(&["inspect", "--json"]);
    assert_eq!(found["metadata"]["general.architecture"], "llama");
    assert!(found["metadata"]["tokenizer.ggml.tokens"]["length"].as_u64().unwrap() > 1000);
    assert!(found["tensors"].as_array().unwrap().iter().any(|tensor| tensor["name"] == "token_embd.weight"));
    let plan = &found["plan"];
    let bytes = |key: &str| plan[key].as_u64().unwrap();
    assert_eq!(bytes("total_bytes"), bytes("weight_bytes") + bytes("cache_bytes"));
    assert!(bytes("weight_bytes") > 10 << 20);
    let text = passes(&["inspect", "-m", shipped().to_str().unwrap(), "--profile", "webgpu-baseline"]);
    assert!(text.contains("bindings of 128.0 MiB") && text.contains("every tensor is bound whole"), "{text}");
}

#[test]
fn every_format_is_written_and_evaluated() {
    let folder = Folder::new("quantize");
    let text = folder.path("text.txt");
    let held_out = std::fs::read_to_string(repository().join("benches/models/held-out.txt")).unwrap();
    std::fs::write(&text, held_out.chars().take(900).collect::<String>()).unwrap();
    let evaluate = |model: &Path| {
        let (model, text) = (model.to_str().unwrap(), text.to_str().unwrap());
        json(&["eval", text, "-m", model, "--context", "128", "--windows", "1", "--json"])
    };
    let original = evaluate(&shipped());
    let perplexity = |found: &Value| found["perplexity"].as_f64().unwrap();
    assert!(perplexity(&original) > 1.0 && perplexity(&original) < 200.0, "{original}");
    assert!(original["tokens"].as_u64().unwrap() > 100, "{original}");
    for dtype in ["f32", "f16", "bf16", "q8_0", "q6_k", "q5_k", "q5_1", "q5_0", "q4_k", "q4_1", "q4_0"] {
        let out = folder.path(&format!("{dtype}.gguf"));
        passes(&["quantize", shipped().to_str().unwrap(), out.to_str().unwrap(), dtype]);
        let found = evaluate(&out);
        // Four bits cost this small model some per cent on so short a text; a wrong nibble would cost everything.
        let ratio = perplexity(&found) / perplexity(&original);
        assert!((0.8..1.25).contains(&ratio), "{dtype}: {ratio}");
        assert_eq!(found["dtype"], dtype);
        assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 2, "{dtype}: nothing is left beside the file");
        std::fs::remove_file(&out).unwrap();
    }
}

#[test]
fn nothing_is_written_over_unasked() {
    let folder = Folder::new("force");
    let out = folder.path("out.gguf");
    std::fs::write(&out, b"mine").unwrap();
    let (input, path) = (shipped(), out.to_str().unwrap().to_owned());
    let output = anygpu(&["quantize", input.to_str().unwrap(), &path, "q8_0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is there already; --force"), "{}", stderr(&output));
    assert_eq!(std::fs::read(&out).unwrap(), b"mine");
    passes(&["quantize", input.to_str().unwrap(), &path, "q8_0", "--force"]);
    let output = anygpu(&["quantize", &path, folder.path("again.gguf").to_str().unwrap(), "q4_0"]);
    assert_eq!(output.status.code(), Some(1), "a quantised file is no input");
    assert!(stderr(&output).contains("found q8_0, expected f32, f16 or bf16"), "{}", stderr(&output));
}

#[test]
fn logits_are_a_numpy_file() {
    let folder = Folder::new("logits");
    let path = folder.path("out.npy");
    let found = json(&["eval", "--tokens", "1,5,9", "--logits", path.to_str().unwrap(), "--json"]);
    let vocabulary = found["shape"][1].as_u64().unwrap() as usize;
    assert_eq!(found["shape"][0], 3);
    let file = std::fs::read(&path).unwrap();
    let header = 10 + usize::from(u16::from_le_bytes([file[8], file[9]]));
    assert_eq!(file.len(), header + 4 * 3 * vocabulary);
    let values: Vec<f32> = file[header..].as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    assert!(values.iter().all(|value| value.is_finite()) && values.iter().any(|&value| value != values[0]));
}

#[test]
fn adapters_check_and_shaders() {
    let adapters = json(&["adapters", "--json"]);
    assert!(adapters[0]["profile"]["limits"]["max_buffer_bytes"].as_u64().unwrap() > 0);
    assert!(passes(&["adapters"]).contains("bindings of"));
    let check = json(&["check", "--filter", "rms_norm", "--profile", "webgpu-baseline", "--json"]);
    assert_eq!(check["failures"], 0, "{check}");
    assert!(!check["cases"].as_array().unwrap().is_empty());
    let source = passes(&["shaders", "rms_norm", "--profile", "webgpu-baseline"]);
    assert!(source.contains("@compute") && source.contains("// case: rms_norm"), "{source}");
    assert!(passes(&["shaders", "--list", "--profile", "h100"]).contains("matvec"));
}

#[test]
fn bad_input_is_one_line_and_an_exit_code() {
    let folder = Folder::new("bad");
    let truncated = folder.path("truncated.gguf");
    let file = std::fs::read(shipped()).unwrap();
    std::fs::write(&truncated, &file[..file.len() / 2]).unwrap();
    let text = folder.path("text.gguf");
    std::fs::write(&text, "no model").unwrap();
    let (truncated, text) = (truncated.to_str().unwrap(), text.to_str().unwrap());
    let cases: [(&[&str], i32, &str); 14] = [
        (&["generate", "x", "-m", "/nowhere/model.gguf"], 1, "/nowhere/model.gguf"),
        (&["generate", "x", "-m", truncated], 1, "expected them to end within the file's"),
        (&["inspect", "-m", truncated], 1, "truncated.gguf: GGUF: tensor"),
        (&["inspect", "-m", text], 1, "expected \"GGUF\""),
        (&["inspect", "--profile", "voodoo-2"], 1, "no profile `voodoo-2`; there are webgpu-baseline"),
        (&["check", "--filter", "no such case"], 1, "no case has"),
        (&["shaders", "no_such_kernel"], 1, "expected one of add_bias"),
        (&["adapters", "--adapter", "no such adapter"], 1, "not found"),
        (&["generate", "x", "--synthetic", "llama-2-1b"], 1, "expected one of llama-2-7b"),
        (&["generate", "x", "--temperature", "-1"], 2, "unexpected argument"),
        (&["generate", "x", "--temperature=-1"], 1, "sampling temperature: found -1, expected 0 or more"),
        (&["generate", "--tokens", "4000000000"], 1, "expected less than the vocabulary's"),
        (&["quantize", "a.gguf", "b.gguf", "q9_9"], 2, "tensor type \"q9_9\": expected one of f32"),
        (&["pull", "../..", "model.gguf"], 2, "expected a name such as"),
    ];
    for (arguments, code, message) in cases {
        let output = anygpu(arguments);
        let found = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {found}");
        assert!(found.contains(message), "{arguments:?}: {found}");
        assert!(found.starts_with("error: "), "{arguments:?}: {found}");
        assert!(code == 2 || found.trim_end().lines().count() == 1, "{arguments:?}: {found}");
    }
    let output = anygpu(&["eval", text, "-m", text]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn help_has_examples() {
    assert!(passes(&["--help"]).contains("anygpu chat"));
    for command in ["generate", "chat", "pull", "eval", "quantize", "inspect", "check", "shaders"] {
        assert!(passes(&[command, "--help"]).contains("Example"), "{command}");
    }
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = command(&["shaders", "matmul", "--profile", "h100"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}
