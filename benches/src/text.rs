//! A report as plain text: the terminal's tables, and Markdown.

use crate::compare::{self, suites};
use crate::figure;
use crate::report::{Environment, Report};
use crate::table::{Column, Table};

/// The widest line of [`terminal`], in characters.
pub const TERMINAL_COLUMNS: usize = 100;

/// The report for a terminal of at least [`TERMINAL_COLUMNS`] characters.
pub fn terminal(report: &Report) -> String {
    let mut out = String::new();
    for (label, value) in environment(&report.environment) {
        wrap(&mut out, &format!("{label:<10}"), &value);
    }
    for suite in suites(report) {
        let mut table = Table::new(&suite);
        out.push_str(&format!("\n{}\n", clip(suite.name, TERMINAL_COLUMNS)));
        let widths = fit(&mut table);
        line(&mut out, &table.columns, &widths, table.columns.iter().map(|c| c.title));
        for group in &table.groups {
            if !group.heading.is_empty() {
                out.push_str(&clip(&group.heading, TERMINAL_COLUMNS));
                out.push('\n');
            }
            for row in &group.rows {
                // A case's name stands once; the engines below it are the same case.
                let cells = table.columns.iter().zip(&row.cells).map(|(column, cell)| {
                    if row.starts_case || !matches!(column.title, "test" | "batch") { cell.as_str() } else { "" }
                });
                line(&mut out, &table.columns, &widths, cells);
            }
        }
        for note in &table.notes {
            wrap(&mut out, "  note: ", note);
        }
    }
    let summaries = compare::summary(report);
    if !summaries.is_empty() {
        out.push_str("\nanygpu against\n");
        for s in &summaries {
            out.push_str(&clip(&format!("  {:<20} {:<8} {}", s.engine, s.suite, summary_text(s)), TERMINAL_COLUMNS));
            out.push('\n');
        }
    }
    wrap(&mut out, "\nchecks    ", &checks(report));
    out
}

/// The report as Markdown.
pub fn markdown(report: &Report) -> String {
    let mut out = String::from("# anygpu benchmark\n\n");
    for (label, value) in environment(&report.environment) {
        out.push_str(&format!("- {label}: {}\n", cell(&value)));
    }
    out.push_str(&format!("- checks: {}\n", cell(&checks(report))));
    let summaries = compare::summary(report);
    if !summaries.is_empty() {
        out.push_str("\n| anygpu against | suite | ratio |\n|---|---|---|\n");
        for s in &summaries {
            out.push_str(&format!("| {} | {} | {} |\n", cell(&s.engine), cell(&s.suite), summary_text(s)));
        }
    }
    for suite in suites(report) {
        let table = Table::new(&suite);
        out.push_str(&format!("\n## {}\n", cell(suite.name)));
        for group in &table.groups {
            if !group.heading.is_empty() {
                out.push_str(&format!("\n### {}\n", cell(&group.heading)));
            }
            out.push_str("\n|");
            table.columns.iter().for_each(|c| out.push_str(&format!(" {} |", c.title)));
            out.push_str("\n|");
            table.columns.iter().for_each(|c| out.push_str(if c.number { "---:|" } else { "---|" }));
            out.push('\n');
            for row in &group.rows {
                out.push('|');
                row.cells.iter().for_each(|text| out.push_str(&format!(" {} |", cell(text))));
                out.push('\n');
            }
        }
        if !table.notes.is_empty() {
            out.push('\n');
            table.notes.iter().for_each(|note| out.push_str(&format!("- {}\n", cell(note))));
        }
    }
    out
}

/// What is known of where a run took place, as label and value.
pub fn environment(environment: &Environment) -> Vec<(&'static str, String)> {
    let (host, adapter) = (&environment.host, &environment.adapter);
    let joined = |parts: &[Option<String>]| {
        let known = parts.iter().flatten().map(String::as_str).filter(|s| !s.is_empty()).collect::<Vec<_>>();
        (!known.is_empty()).then(|| known.join(", "))
    };
    let memory = host.memory_bytes.map(figure::bytes);
    let measured = [
        environment.copy_bytes_per_second.map(|v| format!("copy {}", figure::metric(v, "B/s"))),
        environment.matrix_operations_per_second.map(|v| format!("matrix product {}", figure::metric(v, "FLOP/s"))),
    ];
    let features = (!adapter.features.is_empty()).then(|| adapter.features.join(" "));
    [
        ("date", environment.date.clone()),
        ("adapter", joined(&[adapter.name.clone(), adapter.backend.clone(), adapter.driver.clone()])),
        ("features", features),
        ("profile", environment.profile.clone()),
        ("measured", joined(&measured)),
        ("host", joined(&[host.os.clone(), host.cpu.clone(), memory])),
        ("anygpu", joined(&[environment.version.clone(), environment.revision.clone()])),
        ("command", environment.command.clone()),
    ]
    .into_iter()
    .filter_map(|(label, value)| Some((label, value?)))
    .collect()
}

/// `24 of 26 rows compared: all ok`, or how many failed.
pub fn checks(report: &Report) -> String {
    let compared = report.rows.iter().filter(|r| r.check.as_deref().is_some_and(|c| c != "unsupported")).count();
    let failed = report.failures().count();
    let verdict = match (compared, failed) {
        (0, _) => "none was compared".to_owned(),
        (_, 0) => "all ok".to_owned(),
        _ => format!("{failed} FAILED"),
    };
    format!("{compared} of {} rows compared: {verdict}", report.rows.len())
}

/// `1.06× (0.98× to 1.14×, 4 cases)`.
pub fn summary_text(s: &compare::Summary) -> String {
    match s.cases {
        1 => format!("{} (1 case)", figure::ratio(s.ratio)),
        n => {
            let (low, high) = (figure::ratio(s.range.0), figure::ratio(s.range.1));
            format!("{} ({low} to {high}, {n} cases)", figure::ratio(s.ratio))
        }
    }
}

/// Columns that a terminal can do without, the first to go first. The files keep them.
const EXPENDABLE: [&str; 6] = ["n", "CPU ms", "ppl", "first ms", "TFLOP/s", "matrix"];

/// Makes `table` fit the terminal and returns its column widths: expendable columns go, then text columns give way, down
/// to eight characters.
fn fit(table: &mut Table) -> Vec<usize> {
    let total = |widths: &[usize]| widths.iter().sum::<usize>() + 2 * widths.len();
    let mut widths = widths(table);
    for title in EXPENDABLE {
        if total(&widths) <= TERMINAL_COLUMNS {
            break;
        }
        table.remove(title);
        widths = self::widths(table);
    }
    while total(&widths) > TERMINAL_COLUMNS {
        let may_shrink = |i: &usize| !table.columns[*i].number && widths[*i] > 8;
        match (0..widths.len()).filter(may_shrink).max_by_key(|i| widths[*i]) {
            Some(i) => widths[i] -= 1,
            // What is left runs over the edge rather than lose digits.
            None => break,
        }
    }
    widths
}

fn widths(table: &Table) -> Vec<usize> {
    let mut widths: Vec<usize> = table.columns.iter().map(|c| c.title.chars().count()).collect();
    for row in table.groups.iter().flat_map(|g| &g.rows) {
        for (width, cell) in widths.iter_mut().zip(&row.cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}

fn line<'a>(out: &mut String, columns: &[Column], widths: &[usize], cells: impl Iterator<Item = &'a str>) {
    let mut text = String::new();
    for ((column, width), cell) in columns.iter().zip(widths).zip(cells) {
        let cell = clip(cell, *width);
        let padding = " ".repeat(width - cell.chars().count());
        text.push_str("  ");
        text.push_str(&if column.number { padding + &cell } else { cell + &padding });
    }
    out.push_str(text.trim_end());
    out.push('\n');
}

/// At most `width` characters of `text`, none of which a terminal would act on.
fn clip(text: &str, width: usize) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    if text.chars().count() <= width {
        return plain.collect();
    }
    plain.take(width.saturating_sub(1)).chain(['…']).collect()
}

/// `label` and `value`, broken between words, later lines set under the value's first.
fn wrap(out: &mut String, label: &str, value: &str) {
    let indent = label.trim_start_matches('\n').chars().count();
    let mut at = indent;
    out.push_str(label);
    for (i, word) in value.split_whitespace().enumerate() {
        let length = word.chars().count();
        if i > 0 && at + 1 + length > TERMINAL_COLUMNS {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            at = indent;
        } else if i > 0 {
            out.push(' ');
            at += 1;
        }
        out.push_str(&clip(word, length));
        at += length;
    }
    out.push('\n');
}

/// Text that stays within one Markdown cell and means only itself.
fn cell(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '|' | '<' | '>' | '*' | '`' | '[' | ']' | '\\' => out.extend(['\\', c]),
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
