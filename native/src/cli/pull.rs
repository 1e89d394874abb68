//! `pull`: a file from a model hub, resumed where a connection broke, and verified.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiError, Metadata};
use hf_hub::{Cache, Repo, RepoType};
use indicatif::ProgressBar;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::common::{Global, bytes_bar, note, print_json};
use super::failure::{Failure, Result};

#[derive(clap::Args, Debug)]
#[command(after_help = "Files go to the hub's own cache (HF_HOME), where other programs find them too; a download
that broke off goes on where it stopped. HF_ENDPOINT and HF_TOKEN are followed.

Examples:
  anygpu pull TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF tinyllama-1.1b-chat-v1.0.Q4_0.gguf
  anygpu pull owner/model model.gguf --revision v2 --to models/model.gguf")]
pub struct Args {
    /// The repository: owner/name
    repo: String,
    /// The file in it
    file: String,
    /// A branch, tag or commit
    #[arg(long, default_value = "main", value_name = "NAME")]
    revision: String,
    /// Another hub
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Also put the file here
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,
    /// The folder of the cache
    #[arg(long, value_name = "PATH")]
    cache: Option<PathBuf>,
    /// Times that a broken connection is taken up again
    #[arg(long, default_value_t = 5, value_name = "N")]
    retries: usize,
}

struct Bar(ProgressBar);

impl Progress for Bar {
    fn init(&mut self, size: usize, _: &str) {
        self.0.set_length(size as u64);
        self.0.set_position(0);
    }

    fn update(&mut self, size: usize) {
        self.0.inc(size as u64);
    }

    fn finish(&mut self) {}
}

fn failed(args: &Args, error: ApiError) -> Failure {
    Failure::error(format!("{}/{} at {}: {error}", args.repo, args.file, args.revision))
}

fn digest(path: &Path) -> std::io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut length = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            let hex = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            return Ok((length, hex));
        }
        hash.update(&buffer[..read]);
        length += read as u64;
    }
}

/// The SHA-256 that the hub states: the ETag of large files.
fn stated_digest(metadata: &Metadata) -> Option<&str> {
    let etag = metadata.etag();
    (etag.len() == 64 && etag.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(etag)
}

/// What a cache name must not hold: it becomes part of a path on this machine.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('/')
        && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        && !name.contains(['\\', ':', '?', '#'])
}

/// Runs the command.
pub fn run(global: &Global, args: &Args) -> Result {
    for (what, name) in [("repository", &args.repo), ("file", &args.file), ("revision", &args.revision)] {
        if !is_plain(name) {
            return Err(Failure::Usage(format!("{what} {name:?}: expected a name such as owner/model or model.gguf")));
        }
    }
    let cache = args.cache.clone().map_or_else(Cache::from_env, Cache::new);
    let mut builder = ApiBuilder::from_cache(cache.clone()).with_progress(false);
    if let Ok(token) = std::env::var("HF_TOKEN") {
        builder = builder.with_token(Some(token));
    }
    if let Some(endpoint) = args.endpoint.clone().or_else(|| std::env::var("HF_ENDPOINT").ok()) {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    let api = builder.build().map_err(|error| failed(args, error))?;
    let repo = Repo::with_revision(args.repo.clone(), RepoType::Model, args.revision.clone());
    let remote = api.repo(repo.clone());
    let metadata = api.metadata(&remote.url(&args.file)).map_err(|error| failed(args, error))?;
    if !is_plain(metadata.etag()) || !is_plain(metadata.commit_hash()) {
        return Err(Failure::error(format!("{}: the hub states an ETag or commit that is no plain name", args.repo)));
    }
    let stated = stated_digest(&metadata);
    let size = metadata.size() as u64;
    let blob = cache.repo(repo.clone()).blob_path(metadata.etag());
    let mut part = blob.clone();
    part.set_extension("part");
    // What an earlier run left goes on, unless it cannot be this file's beginning.
    let resumed = std::fs::metadata(&part).map_or(0, |file| file.len());
    if resumed >= size {
        let _ = std::fs::remove_file(&part);
    } else if resumed > 0 {
        note(format_args!("[going on at byte {resumed} of {size}]"));
    }
    let bar = bytes_bar(size, "pulling");
    let verify = |path: &Path| -> Result<bool> {
        let (length, found) = digest(path).map_err(|error| Failure::error(format!("{}: {error}", path.display())))?;
        Ok(length == size && stated.is_none_or(|stated| stated.eq_ignore_ascii_case(&found)))
    };
    let there = blob.exists() && verify(&blob)?;
    if !there && blob.exists() {
        note("[the file in the cache is not what the hub states; pulling it anew]");
        std::fs::remove_file(&blob).map_err(|error| Failure::error(format!("{}: {error}", blob.display())))?;
    }
    let cached =
        cache.repo(repo).get(&args.file).filter(|path| there && path.canonicalize().ok() == blob.canonicalize().ok());
    let mut attempt = 0;
    let path = loop {
        if let Some(path) = &cached {
            break Ok(path.clone());
        }
        // Each attempt goes on at the length of what is there; the crate's own retries go by a position that it may
        // not have.
        match remote.download_with_progress(&args.file, Bar(bar.clone())) {
            Err(ApiError::IoError(_) | ApiError::RequestError(_)) if attempt < args.retries => {
                attempt += 1;
                std::thread::sleep(std::time::Duration::from_millis((100 << attempt.min(6)) as u64));
            }
            done => break done,
        }
    };
    bar.finish_and_clear();
    let path = path.map_err(|error| failed(args, error))?;
    if !verify(&path)? {
        let (length, found) = digest(&path).map_err(|error| Failure::error(format!("{}: {error}", path.display())))?;
        let _ = std::fs::remove_file(&blob);
        let _ = std::fs::remove_file(&path);
        let stated = stated.map_or_else(String::new, |stated| format!(" with SHA-256 {stated}"));
        return Err(Failure::error(format!(
            "{}: found {length} bytes with SHA-256 {found}, expected {size}{stated}; the file was removed",
            args.file
        )));
    }
    let path = match &args.to {
        Some(to) => place(&path, to)?,
        None => path,
    };
    if global.json {
        return print_json(&json!({
            "path": path.display().to_string(),
            "bytes": size,
            "sha256": stated,
            "resumed_at": resumed,
            "reconnected": attempt,
            "commit": metadata.commit_hash(),
        }));
    }
    let checked = if stated.is_some() { "length and SHA-256 verified" } else { "length verified" };
    note(format_args!("[{size} bytes, {checked}]"));
    writeln!(std::io::stdout(), "{}", path.display())?;
    Ok(())
}

/// Puts the file at `to` too, as a second name where the disk allows it.
fn place(path: &Path, to: &Path) -> Result<PathBuf> {
    let named = |error: std::io::Error| Failure::error(format!("{}: {error}", to.display()));
    let real = path.canonicalize().map_err(named)?;
    if let Some(folder) = to.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(named)?;
    }
    if to.exists() {
        return Err(Failure::error(format!("{}: is there already", to.display())));
    }
    if std::fs::hard_link(&real, to).is_err() {
        std::fs::copy(&real, to).map_err(named)?;
    }
    Ok(to.to_owned())
}

#[cfg(test)]
mod tests {
    use super::is_plain;

    #[test]
    fn names_stay_within_the_cache() {
        for name in ["owner/model", "model.gguf", "sub/model.gguf", "refs/pr/1"] {
            assert!(is_plain(name), "{name}");
        }
        for name in ["", "/etc", "../x", "a/../b", "a//b", "a\\b", "c:x", "x?y"] {
            assert!(!is_plain(name), "{name}");
        }
    }
}
