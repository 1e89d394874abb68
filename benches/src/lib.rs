//! The benchmark of anygpu: what a report holds, how figures are made from samples, and how a report is shown.
//!
//! ```text
//! suites, baselines -> Row -> Report -> report.json | terminal | Markdown | HTML
//! ```
//!
//! What builds and shows a report compiles for the browser too. Programs are started and the host is asked only in
//! [`baseline`] and [`host`], which exist natively.
//!
//! # Example
//!
//! ```
//! use anygpu_benches::report::{Report, Row};
//!
//! let mut report = Report::default();
//! report.rows.push(Row {
//!     tokens_per_second: Some(318.2),
//!     ..Row::new("anygpu", "decode", "llama-2-7b", "q4_0").case(1, 0, 128, 0)
//! });
//! let again = Report::from_json(&report.to_json()).unwrap();
//! assert_eq!(again, report);
//! assert!(anygpu_benches::text::terminal(&again).contains("tg128"));
//! ```
#![warn(missing_docs)]

pub mod embed;
pub mod report;
pub mod search;
pub mod stats;
pub mod suite;

pub mod compare;
pub mod figure;
pub mod table;
pub mod text;

mod chart;
pub mod html;

#[cfg(not(target_arch = "wasm32"))]
pub mod baseline;
#[cfg(not(target_arch = "wasm32"))]
pub mod host;
