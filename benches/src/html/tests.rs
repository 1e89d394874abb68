//! All three renderings of one fixture, held against files that were looked at.
//!
//! After a change that is meant, write them anew with `ANYGPU_BLESS=1 cargo test -p anygpu-benches golden` and look again.

use super::*;
use crate::text::{TERMINAL_COLUMNS, markdown, terminal};

const FIXTURE: &str = include_str!("../testdata/report.json");

fn fixture() -> Report {
    Report::from_json(FIXTURE).unwrap()
}

#[test]
fn golden_renderings() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/testdata");
    let report = fixture();
    let mut wrong = Vec::new();
    for (file, found) in [
        ("report.json", report.to_json()),
        ("report.txt", terminal(&report)),
        ("report.md", markdown(&report)),
        ("report.html", page(&report)),
    ] {
        let path = format!("{folder}/{file}");
        if std::env::var_os("ANYGPU_BLESS").is_some() {
            std::fs::write(&path, &found).unwrap();
        } else if std::fs::read_to_string(&path).unwrap() != found {
            wrong.push(file);
        }
    }
    assert!(wrong.is_empty(), "differ from src/testdata: {wrong:?}");
}

#[test]
fn the_terminal_fits_its_width() {
    for (i, line) in terminal(&fixture()).lines().enumerate() {
        assert!(line.chars().count() <= TERMINAL_COLUMNS, "line {}: {line}", i + 1);
    }
}

#[test]
fn the_page_needs_no_network_and_no_script() {
    let page = page(&fixture());
    for forbidden in ["<script", "http://", "https://", "url(", "@import", "src="] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
}

#[test]
fn the_page_is_well_formed() {
    let page = page(&fixture());
    let mut open: Vec<&str> = Vec::new();
    let body = page.split_once("</style>").unwrap().1;
    for tag in body.split('<').skip(1).map(|t| t.split_once('>').unwrap().0) {
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if tag.starts_with('/') {
            // <head>, <html> and <body> open before the part looked at, or close after it.
            if !["head", "html"].contains(&name) {
                assert_eq!(open.pop(), Some(name), "closing {name}");
            }
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert_eq!(open, Vec::<&str>::new());
    let mut ids: Vec<&str> = page.split(" id=\"").skip(1).map(|t| t.split_once('"').unwrap().0).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "an id stands twice");
    for id in page.split("aria-labelledby=\"").skip(1).flat_map(|t| t.split_once('"').unwrap().0.split(' ')) {
        assert!(ids.binary_search(&id).is_ok(), "{id} is named but not there");
    }
}

#[test]
fn hostile_names_stay_text() {
    let mut report = fixture();
    for row in &mut report.rows {
        row.engine = "<img src=x onerror=1>".into();
        row.model = "</style><script>\u{1b}[2J".into();
        row.note = Some("a | b\n# c".into());
    }
    let page = page(&report);
    assert!(!page.contains("<img") && !page.contains("<script") && page.contains("&lt;img"));
    assert!(!markdown(&report).contains("\n# c"));
    assert!(!terminal(&report).contains('\u{1b}'));
}

#[test]
fn an_empty_report_renders() {
    let report = Report::default();
    assert!(page(&report).contains("Unknown adapter"));
    assert!(terminal(&report).contains("0 of 0 rows compared"));
    assert!(markdown(&report).starts_with("# anygpu benchmark"));
}
