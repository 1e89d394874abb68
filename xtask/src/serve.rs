//! `cargo xtask serve`: a folder on a loopback port, with what a page that runs models needs: cross-origin isolation,
//! byte ranges, and the right types. Browsers offer WebGPU on localhost without TLS.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const HELP: &str = "\
Serves the page that cargo xtask web builds.

usage: cargo xtask serve [--port N] [FOLDER]     --port: 8080 unless it is taken; FOLDER: web/dist
";

/// The longest head of a request.
const LARGEST_HEAD_BYTES: u64 = 16 << 10;
/// How long a connection may say nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// `cargo xtask serve ARGUMENTS`.
///
/// # Errors
/// What is wrong with the arguments, the folder or the port.
pub fn run(arguments: &[String], dist: PathBuf) -> Result<(), String> {
    let mut port = None;
    let mut folder = None;
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(());
            }
            "--port" => {
                let number = words.next().and_then(|n| n.parse::<u16>().ok());
                port = Some(number.ok_or("--port: expected a number from 0 to 65535")?);
            }
            word if !word.starts_with('-') && folder.is_none() => folder = Some(PathBuf::from(word)),
            word => return Err(format!("unknown argument {word:?}\n\n{HELP}")),
        }
    }
    let folder = folder.unwrap_or(dist);
    if !folder.join("index.html").is_file() {
        return Err(format!("{}: no index.html in it (cargo xtask web builds the page)", folder.display()));
    }
    let address = |port| ("127.0.0.1", port);
    let listener = match port {
        Some(port) => TcpListener::bind(address(port)),
        None => TcpListener::bind(address(8080)).or_else(|_| TcpListener::bind(address(0))),
    };
    let listener = listener.map_err(|e| format!("port {}: {e}", port.unwrap_or_default()))?;
    let local = listener.local_addr().map_err(|e| e.to_string())?;
    println!("http://localhost:{}/  ({}; Ctrl-C ends it)", local.port(), folder.display());
    serve(&listener, folder);
    Ok(())
}

/// Answers for as long as `listener` lives, each connection on a thread of its own.
fn serve(listener: &TcpListener, folder: PathBuf) {
    let folder = Arc::new(folder);
    for stream in listener.incoming() {
        // A connection that fails before it begins is none of the others'.
        let Ok(stream) = stream else { continue };
        let folder = Arc::clone(&folder);
        thread::spawn(move || {
            // Browsers break off connections at will.
            drop(connection(&stream, &folder));
        });
    }
}

fn connection(stream: &TcpStream, folder: &Path) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = Request::read(&mut reader)? {
        let keep = answer(&request, folder, &mut &*stream)?;
        if !keep {
            break;
        }
    }
    Ok(())
}

/// A request as far as files go.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    method: String,
    target: String,
    range: Option<String>,
    has_body: bool,
}

impl Request {
    /// The next one, or `None` where the connection ends.
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut head = reader.take(LARGEST_HEAD_BYTES);
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let mut request = Self {
            method: words.next().unwrap_or_default().to_owned(),
            target: words.next().unwrap_or_default().to_owned(),
            ..Self::default()
        };
        loop {
            line.clear();
            if head.read_line(&mut line)? == 0 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a head without an end"));
            }
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "range" => request.range = Some(value.trim().to_owned()),
                "content-length" => request.has_body = value.trim() != "0",
                "transfer-encoding" => request.has_body = true,
                _ => {}
            }
        }
        Ok(Some(request))
    }
}

/// Answers `request`; false where the connection has to end.
fn answer(request: &Request, folder: &Path, out: &mut impl Write) -> io::Result<bool> {
    // What a body says is not read, so nothing may follow it.
    let keep = !request.has_body;
    let error = |out: &mut dyn Write, status: &str, extra: &str| {
        let body = if request.method == "HEAD" { "" } else { status };
        write!(out, "{}{extra}Content-Length: {}\r\n\r\n{body}", head(status, "text/plain", keep), status.len())
    };
    if request.method != "GET" && request.method != "HEAD" {
        error(out, "405 Method Not Allowed", "Allow: GET, HEAD\r\n")?;
        return Ok(keep);
    }
    let path = file_path(&request.target).map(|path| folder.join(path));
    let opened = path.as_ref().and_then(|path| {
        let path = if path.is_dir() { path.join("index.html") } else { path.clone() };
        let file = File::open(&path).ok()?;
        let size = file.metadata().ok().filter(fs::Metadata::is_file)?.len();
        Some((path, file, size))
    });
    let Some((path, mut file, size)) = opened else {
        error(out, "404 Not Found", "")?;
        return Ok(keep);
    };
    let (status, start, length, extra) = match range(request.range.as_deref(), size) {
        Range::All => ("200 OK", 0, size, String::new()),
        Range::Part(start, end) => {
            ("206 Partial Content", start, end - start, format!("Content-Range: bytes {start}-{}/{size}\r\n", end - 1))
        }
        Range::Beyond => {
            error(out, "416 Range Not Satisfiable", &format!("Content-Range: bytes */{size}\r\n"))?;
            return Ok(keep);
        }
    };
    write!(
        out,
        "{}Accept-Ranges: bytes\r\n{extra}Content-Length: {length}\r\n\r\n",
        head(status, media_type(&path), keep)
    )?;
    if request.method == "GET" {
        file.seek(SeekFrom::Start(start))?;
        let sent = io::copy(&mut file.take(length), out)?;
        // A file that shrank meanwhile: only an end tells the client.
        return Ok(keep && sent == length);
    }
    Ok(keep)
}

fn head(status: &str, media_type: &str, keep: bool) -> String {
    let connection = if keep { "keep-alive" } else { "close" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nConnection: {connection}\r\nCache-Control: no-cache\r\n\
         Cross-Origin-Opener-Policy: same-origin\r\nCross-Origin-Embedder-Policy: require-corp\r\n\
         Cross-Origin-Resource-Policy: same-origin\r\nX-Content-Type-Options: nosniff\r\n"
    )
}

/// A path below the folder, from the target of a request; `None` if it leads out of it.
fn file_path(target: &str) -> Option<PathBuf> {
    let path = target.split(['?', '#']).next()?.strip_prefix('/')?;
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || (rest.next()? as char).to_digit(16);
        bytes.push((digit()? * 16 + digit()?) as u8);
    }
    let path = PathBuf::from(String::from_utf8(bytes).ok()?);
    path.components().all(|c| matches!(c, Component::Normal(_))).then_some(path)
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    All,
    /// From the first byte to the one behind the last.
    Part(u64, u64),
    Beyond,
}

/// What a Range header asks for. One that makes no sense, or asks for several parts, gets everything, as RFC 9110 has it.
fn range(header: Option<&str>, size: u64) -> Range {
    let parts = header.and_then(|h| h.strip_prefix("bytes=")).and_then(|h| h.split_once('-'));
    let Some((first, last)) = parts else { return Range::All };
    let number = |text: &str| text.parse::<u64>().ok();
    let (start, end) = match (number(first), number(last)) {
        (Some(start), Some(last)) if start <= last => (start, size.min(last.saturating_add(1))),
        (Some(start), None) if last.is_empty() => (start, size),
        (None, Some(length)) if first.is_empty() => (size.saturating_sub(length), size),
        _ => return Range::All,
    };
    if start < end { Range::Part(start, end) } else { Range::Beyond }
}

fn media_type(path: &Path) -> &'static str {
    match path.extension().and_then(|e| e.to_str()).unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "wasm" => "application/wasm",
        "txt" | "md" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_folder() {
        for (target, expected) in [
            ("/", Some("")),
            ("/page/main.js?x=1", Some("page/main.js")),
            ("/a%20b", Some("a b")),
            ("/../x", None),
            ("/%2e%2e/x", None),
            ("/a/%2e%2e/%2e%2e/x", None),
            ("//etc/passwd", None),
            ("/%2fetc/passwd", None),
            ("/%zz", None),
            ("/%f", None),
            ("x", None),
        ] {
            assert_eq!(file_path(target).as_deref(), expected.map(Path::new), "{target}");
        }
    }

    #[test]
    fn ranges_are_those_of_rfc_9110() {
        for (header, expected) in [
            (None, Range::All),
            (Some("bytes=0-9"), Range::Part(0, 10)),
            (Some("bytes=90-"), Range::Part(90, 100)),
            (Some("bytes=90-1000"), Range::Part(90, 100)),
            (Some("bytes=-10"), Range::Part(90, 100)),
            (Some("bytes=-1000"), Range::Part(0, 100)),
            (Some("bytes=0-18446744073709551615"), Range::Part(0, 100)),
            (Some("bytes=100-"), Range::Beyond),
            (Some("bytes=-0"), Range::Beyond),
            (Some("bytes=9-8"), Range::All),
            (Some("bytes=0-1,5-6"), Range::All),
            (Some("lines=0-1"), Range::All),
        ] {
            assert_eq!(range(header, 100), expected, "{header:?}");
        }
        assert_eq!(range(Some("bytes=0-"), 0), Range::Beyond);
    }

    #[test]
    fn a_client_gets_files_over_one_connection() {
        let folder = std::env::temp_dir().join(format!("anygpu-serve-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("index.html"), "hello").unwrap();
        fs::write(folder.join("x.wasm"), [0u8, 1, 2, 3, 4, 5, 6, 7]).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let served = folder.clone();
        thread::spawn(move || serve(&listener, served));

        let mut stream = TcpStream::connect(address).unwrap();
        let requests = "GET / HTTP/1.1\r\nHost: x\r\n\r\n\
                        HEAD /x.wasm HTTP/1.1\r\nHost: x\r\n\r\n\
                        GET /x.wasm HTTP/1.1\r\nHost: x\r\nRange: bytes=2-4\r\n\r\n\
                        GET /none HTTP/1.1\r\nHost: x\r\n\r\n\
                        POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
        stream.write_all(requests.as_bytes()).unwrap();
        let mut all = Vec::new();
        // The unread body may end the connection hard; what came before counts.
        drop(stream.read_to_end(&mut all));
        let text = String::from_utf8_lossy(&all).into_owned();
        for expected in [
            "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n",
            "Cross-Origin-Embedder-Policy: require-corp\r\n",
            "\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Type: application/wasm\r\n",
            "Content-Length: 8\r\n\r\nHTTP/1.1 206",
            "Content-Range: bytes 2-4/8\r\nContent-Length: 3\r\n\r\n\u{2}\u{3}\u{4}HTTP/1.1 404",
        ] {
            assert!(text.contains(expected), "{expected:?} in {text:?}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
