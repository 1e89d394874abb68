//! A suite as a table of strings: the same cells for the terminal, Markdown and HTML.

use crate::compare::{Model, Suite};
use crate::figure;
use crate::report::{Row, Verdict};

/// A table: columns, and rows under headings.
pub struct Table {
    /// Titles and alignment, left to right.
    pub columns: Vec<Column>,
    /// Rows by model.
    pub groups: Vec<Group>,
    /// Remarks of single rows, in order, each led by what it is about.
    pub notes: Vec<String>,
}

/// One column.
#[derive(Clone, Copy)]
pub struct Column {
    /// Short title.
    pub title: &'static str,
    /// What the title means, for a tooltip or legend.
    pub meaning: &'static str,
    /// Whether the cells are numbers, aligned right.
    pub number: bool,
}

/// The rows of one model.
pub struct Group {
    /// Model, weight type and whether they are synthetic; may be empty.
    pub heading: String,
    /// Cells, one for each column of the table.
    pub rows: Vec<Line>,
}

/// One row of cells.
pub struct Line {
    /// Text of each cell; empty where unknown.
    pub cells: Vec<String>,
    /// What the row's check says, to colour it by.
    pub verdict: Verdict,
    /// Whether it is the first row of its case.
    pub starts_case: bool,
}

type Cell = fn(&Row, Option<f64>) -> String;

/// Every column there is. A table keeps those in which some row has something to say.
const COLUMNS: [(Column, Cell); 21] = [
    (text("test", "pp: prompt tokens, tg: generated tokens, d: tokens already in the context"), |r, _| r.test()),
    (number("batch", "sequences at once"), |r, _| r.batch.to_string()),
    (text("engine", "what ran it"), |r, _| r.engine.clone()),
    (number("tok/s", "tokens a second, all sequences together"), |r, _| or_none(r.tokens_per_second, figure::rate)),
    (number("texts/s", "texts a second"), |r, _| or_none(r.texts_per_second, figure::rate)),
    (number("queries/s", "queries a second"), |r, _| or_none(r.queries_per_second, figure::rate)),
    (number("ratio", "anygpu's rate over this engine's, same case"), |_, ratio| or_none(ratio, figure::ratio)),
    (number("P50 ms", "half of the samples took no longer"), |r, _| or_none(r.p50_ms, figure::ms)),
    (number("P95 ms", "95 of 100 samples took no longer"), |r, _| or_none(r.p95_ms, figure::ms)),
    (number("P99 ms", "99 of 100 samples took no longer"), |r, _| or_none(r.p99_ms, figure::ms)),
    (number("load ms", "from opening the file until the weights lie on the device"), |r, _| {
        or_none(r.load_ms, figure::ms)
    }),
    (number("first ms", "the first, cold run"), |r, _| or_none(r.first_ms, figure::ms)),
    (number("CPU ms", "processor time of the host for one sample"), |r, _| or_none(r.host_cpu_ms, figure::ms)),
    (number("GB/s", "bytes that must be moved, over the P50 time"), |r, _| {
        or_none(per_second(r.bytes, r.p50_ms), |v| figure::rate(v / 1e9))
    }),
    (number("TFLOP/s", "operations over the P50 time"), |r, _| {
        or_none(per_second(r.operations, r.p50_ms), |v| figure::rate(v / 1e12))
    }),
    (number("bw", "share of the measured copy bandwidth"), |r, _| or_none(r.bandwidth_share, figure::share)),
    (number("matrix", "share of the measured matrix rate"), |r, _| or_none(r.matrix_share, figure::share)),
    (number("memory", "peak GPU memory"), |r, _| or_none(r.peak_memory_bytes, figure::bytes)),
    (number("ppl", "perplexity on the run's text"), |r, _| or_none(r.perplexity, |v| format!("{v:.3}"))),
    (number("n", "samples"), |r, _| or_none(r.samples, |n| n.to_string())),
    (text("check", "the answer against the plain f32 path"), |r, _| match r.verdict() {
        Verdict::Unchecked => String::new(),
        Verdict::Ok => "ok".into(),
        Verdict::Unsupported => "unsupported".into(),
        // What exactly was wrong is a note below the table.
        Verdict::Failed => "FAILED".into(),
    }),
];

const fn text(title: &'static str, meaning: &'static str) -> Column {
    Column { title, meaning, number: false }
}

const fn number(title: &'static str, meaning: &'static str) -> Column {
    Column { title, meaning, number: true }
}

impl Table {
    /// The table of one suite.
    pub fn new(suite: &Suite<'_>) -> Self {
        Self::of(&suite.models)
    }

    /// The table of these models: columns without a value, and a batch column that only says 1, are left out.
    pub fn of(models: &[Model<'_>]) -> Self {
        let mut groups: Vec<Group> = models.iter().map(group).collect();
        let lines = || groups.iter().flat_map(|g| &g.rows);
        let kept: Vec<bool> = (COLUMNS.iter().enumerate())
            .map(|(i, (column, _))| {
                lines().any(|l| !(l.cells[i].is_empty() || column.title == "batch" && l.cells[i] == "1"))
            })
            .collect();
        for line in groups.iter_mut().flat_map(|g| &mut g.rows) {
            let mut at = 0..;
            line.cells.retain(|_| kept[at.next().unwrap_or(0)]);
        }
        let columns = COLUMNS.iter().zip(&kept).filter(|(_, kept)| **kept).map(|((column, _), _)| *column).collect();
        Self { columns, groups, notes: notes(models) }
    }

    /// Takes out the column of this title, if there is one.
    pub fn remove(&mut self, title: &str) {
        let Some(at) = self.columns.iter().position(|c| c.title == title) else { return };
        self.columns.remove(at);
        self.groups.iter_mut().flat_map(|g| &mut g.rows).for_each(|line| drop(line.cells.remove(at)));
    }
}

fn group(model: &Model<'_>) -> Group {
    let mut rows = Vec::new();
    for case in &model.cases {
        for (i, row) in case.rows.iter().enumerate() {
            let ratio = case.ratio(row);
            let cells = COLUMNS.iter().map(|(_, cell)| cell(row, ratio)).collect();
            rows.push(Line { cells, verdict: row.verdict(), starts_case: i == 0 });
        }
    }
    Group { heading: model.heading(), rows }
}

fn notes(models: &[Model<'_>]) -> Vec<String> {
    let mut notes = Vec::new();
    for model in models {
        for row in model.cases.iter().flat_map(|c| &c.rows) {
            let failed = row.check.as_deref().filter(|_| row.verdict() == Verdict::Failed);
            for said in failed.into_iter().chain(row.note.as_deref()) {
                let batch = if row.batch > 1 { format!("batch {}", row.batch) } else { String::new() };
                let about = [row.engine.as_str(), model.model, model.dtype, &row.test(), &batch]
                    .into_iter()
                    .filter(|s| !s.is_empty())
                    .collect::<Vec<_>>()
                    .join(" ");
                notes.push(format!("{about}: {said}"));
            }
        }
    }
    notes
}

fn or_none<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map(show).unwrap_or_default()
}

fn per_second(count: Option<u64>, ms: Option<f64>) -> Option<f64> {
    Some(count? as f64 / ms? * 1e3).filter(|v| v.is_finite())
}
