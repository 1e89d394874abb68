//! `pull` against a hub on this machine that redirects to a store and breaks a connection in the middle of the file.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use super::{Folder, anygpu, json, stderr};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

struct Hub {
    endpoint: String,
    /// Where the ranges asked of the store began.
    starts: Arc<Mutex<Vec<usize>>>,
}

impl Hub {
    /// Serves `file`, said to have the digest `etag`; the first `breaks` answers of more than a byte stop half way.
    fn serve(file: Vec<u8>, etag: String, breaks: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let starts = Arc::new(Mutex::new(Vec::new()));
        let (address, seen, left) = (endpoint.clone(), starts.clone(), Arc::new(AtomicUsize::new(breaks)));
        let file = Arc::new(file);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (file, etag, address, seen, left) =
                    (file.clone(), etag.clone(), address.clone(), seen.clone(), left.clone());
                // A client that goes away ends its connection only.
                std::thread::spawn(move || answer(stream, &file, &etag, &address, &seen, &left));
            }
        });
        Self { endpoint, starts }
    }
}

fn answer(
    mut stream: TcpStream,
    file: &[u8],
    etag: &str,
    address: &str,
    seen: &Mutex<Vec<usize>>,
    left: &AtomicUsize,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut range = (0, file.len());
    for line in lines {
        let line = line?.to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some((start, end)) = line.strip_prefix("range: bytes=").and_then(|range| range.split_once('-')) {
            range = (start.parse().unwrap(), end.parse().map_or(file.len(), |end: usize| end + 1));
        }
    }
    match path.as_str() {
        "/owner/model/resolve/main/model.gguf" => write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: {address}/store\r\nX-Linked-ETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        ),
        "/store" => {
            let (start, end) = range;
            write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{}\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n",
                end - 1,
                file.len(),
                end - start
            )?;
            if end - start == 1 {
                return stream.write_all(&file[start..end]);
            }
            seen.lock().unwrap().push(start);
            let breaks = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            stream.write_all(&file[start..if breaks { start + (end - start) / 2 } else { end }])
        }
        _ => write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    }
}

fn file() -> (Vec<u8>, String) {
    let file: Vec<u8> = (0..600_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let digest = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
    (file, digest)
}

fn arguments<'a>(hub: &'a Hub, cache: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["pull", "owner/model", "model.gguf", "--endpoint", hub.endpoint.as_str(), "--cache", cache], more].concat()
}

#[test]
fn a_broken_download_goes_on_and_is_verified() {
    let folder = Folder::new("pull");
    let (bytes, digest) = file();
    let hub = Hub::serve(bytes.clone(), digest.clone(), 1);
    let (cache, to) = (folder.path("cache"), folder.path("sub/model.gguf"));
    let (cache, to) = (cache.to_str().unwrap(), to.to_str().unwrap());
    let found = json(&arguments(&hub, cache, &["--to", to, "--json"]));
    assert_eq!(std::fs::read(to).unwrap(), bytes);
    assert_eq!((found["bytes"].as_u64(), found["sha256"].as_str()), (Some(600_000), Some(digest.as_str())));
    let starts = hub.starts.lock().unwrap().clone();
    assert_eq!(starts[0], 0);
    assert_eq!(starts.len(), 2, "one break, one more request: {starts:?}");
    assert!(starts[1] > 0 && starts[1] <= 300_000, "it goes on where it stopped: {starts:?}");
    // Once more: it is there.
    json(&arguments(&hub, cache, &["--json"]));
    assert_eq!(hub.starts.lock().unwrap().len(), 2, "nothing is pulled twice");
}

#[test]
fn a_later_run_goes_on_too() {
    let folder = Folder::new("pull-later");
    let (bytes, digest) = file();
    let hub = Hub::serve(bytes.clone(), digest, 1);
    let cache = folder.path("cache");
    let cache = cache.to_str().unwrap();
    let output = anygpu(&arguments(&hub, cache, &["--retries", "0"]));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).starts_with("error: owner/model/model.gguf at main"), "{}", stderr(&output));
    let found = json(&arguments(&hub, cache, &["--retries", "0", "--json"]));
    assert!(found["resumed_at"].as_u64().unwrap() > 0, "{found}");
    assert_eq!(std::fs::read(found["path"].as_str().unwrap()).unwrap(), bytes);
}

#[test]
fn a_wrong_file_is_refused() {
    let folder = Folder::new("pull-wrong");
    let (mut bytes, digest) = file();
    bytes[123_456] ^= 1;
    let hub = Hub::serve(bytes, digest.clone(), 0);
    let cache = folder.path("cache");
    let output = anygpu(&arguments(&hub, cache.to_str().unwrap(), &[]));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&format!("expected 600000 with SHA-256 {digest}")), "{}", stderr(&output));
    let missing = anygpu(&["pull", "owner/model", "other.gguf", "--endpoint", hub.endpoint.as_str()]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("404"), "{}", stderr(&missing));
}
