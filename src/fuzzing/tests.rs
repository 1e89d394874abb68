use std::path::Path;

/// Runs a target over its corpus.
fn corpus(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("xtask/fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "{}: found {} files, expected at least 10", folder.display(), files.len());
    for file in files {
        let data = std::fs::read(&file).unwrap();
        if std::panic::catch_unwind(|| body(&data)).is_err() {
            panic!("{} fails", file.display());
        }
    }
}

#[test]
fn corpus_of_gguf() {
    corpus("gguf", super::gguf);
}

#[test]
fn corpus_of_quant() {
    corpus("quant", super::quant);
}

#[test]
fn corpus_of_tokenizer() {
    corpus("tokenizer", super::tokenizer);
}

#[test]
fn corpus_of_chat_template() {
    corpus("chat_template", super::chat_template);
}
