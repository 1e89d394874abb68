//! A report as one HTML file: charts and tables, no scripts, nothing from a network, dark or light as the reader's
//! system asks.

use crate::chart::{Bar, BarGroup, Bars, Spread, SpreadRow, escape};
use crate::compare::{self, Case, Model, Suite};
use crate::figure;
use crate::report::{Report, Row, Verdict};
use crate::table::Table;
use crate::text;
use std::fmt::Write;

const STYLE: &str = include_str!("html/style.css");

/// How many engines have a colour of their own; further ones share.
const COLOURS: usize = 6;

/// The report as a whole HTML document.
pub fn page(report: &Report) -> String {
    let engines = compare::engines(report);
    let mut out = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    out.push_str("<meta name=\"color-scheme\" content=\"light dark\">\n<title>anygpu benchmark</title>\n");
    let _ = write!(out, "<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n");
    header(&mut out, report);
    let mut charts = 0;
    for suite in compare::suites(report) {
        let (name, meaning) = heading(suite.name);
        let _ = write!(out, "<section>\n<h2>{}</h2>\n", escape(name));
        if !meaning.is_empty() {
            let _ = writeln!(out, "<p class=\"lead\">{meaning}</p>");
        }
        for model in &suite.models {
            if !model.heading().is_empty() {
                let _ = writeln!(out, "<h3>{}</h3>", escape(&model.heading()));
            }
            for figure in figures(&suite, model, &engines) {
                charts += 1;
                let (caption, svg) = match figure {
                    Figure::Bars(bars, caption) => (caption, bars.render(&format!("c{charts}"))),
                    Figure::Spread(spread, caption) => (caption, spread.render(&format!("c{charts}"))),
                };
                let _ = write!(out, "<figure>\n<figcaption>{caption}</figcaption>\n{svg}</figure>\n");
            }
            html_table(&mut out, &Table::of(std::slice::from_ref(model)));
        }
        let table = Table::new(&suite);
        if !table.notes.is_empty() {
            out.push_str("<ul class=\"notes\">\n");
            table.notes.iter().for_each(|note| {
                let _ = writeln!(out, "<li>{}</li>", escape(note));
            });
            out.push_str("</ul>\n");
        }
        out.push_str("</section>\n");
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn header(out: &mut String, report: &Report) {
    let environment = &report.environment;
    let failed = report.failures().count();
    let _ = write!(out, "<header>\n<p class=\"kicker\">anygpu benchmark</p>\n<h1>{}</h1>\n", {
        escape(environment.adapter.name.as_deref().unwrap_or("Unknown adapter"))
    });
    let class = if failed > 0 { "bad" } else { "good" };
    let _ = writeln!(out, "<p class=\"checks {class}\">{}</p>", escape(&text::checks(report)));
    let summaries = compare::summary(report);
    if !summaries.is_empty() {
        out.push_str("<ul class=\"cards\">\n");
        for s in &summaries {
            let spread = match s.cases {
                1 => "1 case".to_owned(),
                n => format!("{} to {}, {n} cases", figure::ratio(s.range.0), figure::ratio(s.range.1)),
            };
            let _ = writeln!(
                out,
                "<li><span class=\"what\">{}</span> <strong>{}</strong> <span>the speed of {}</span> \
                 <small>{spread}</small></li>",
                escape(&s.suite),
                figure::ratio(s.ratio),
                escape(&s.engine),
            );
        }
        out.push_str("</ul>\n");
    }
    out.push_str("<dl>\n");
    for (label, value) in text::environment(environment) {
        let value = if label == "command" { format!("<code>{}</code>", escape(&value)) } else { escape(&value) };
        let _ = writeln!(out, "<div><dt>{label}</dt><dd>{value}</dd></div>");
    }
    out.push_str("</dl>\n</header>\n");
}

/// A suite's title and what its figures mean.
fn heading(suite: &str) -> (&str, &'static str) {
    match suite {
        "decode" => ("Decode", "One new token at a time for one sequence."),
        "prefill" => ("Prefill", "Reading a prompt of one sequence."),
        "batch" => ("Batch", "Several sequences at once; tokens of all of them together."),
        "load" => ("Load", "From opening the file until the weights lie on the device. Shorter is better."),
        "memory" => ("Memory", "The most GPU memory allocated at once. Less is better."),
        "kernels" => ("Kernels", "Single kernels against what this adapter was measured to reach."),
        "streams" => ("Streams", "Sequences that come and go through the scheduler, their prompts included."),
        "embed" => ("Embeddings", "Texts to vectors, from token ids and from text."),
        "search" => ("Search", "The nearest of many vectors, exactly, for one query and for several at once."),
        "backends" => {
            ("Backends", "The same model and input by this crate's plan, by Burn on several devices, and by others.")
        }
        other => (other, ""),
    }
}

enum Figure {
    Bars(Bars, String),
    Spread(Spread, String),
}

fn figures(suite: &Suite<'_>, model: &Model<'_>, engines: &[&str]) -> Vec<Figure> {
    let mut figures = Vec::new();
    let title = |what: &str| format!("{} {}: {what}", suite.name, model.heading());
    let mut bars = |what: &str, caption: &str, whole: Option<f64>, of: &dyn Fn(&Case<'_>, &Row) -> Vec<Bar>| {
        let groups = (model.cases.iter())
            .map(|case| BarGroup {
                label: label(case.rows[0]),
                bars: case.rows.iter().flat_map(|row| of(case, row)).collect(),
            })
            .filter(|group| !group.bars.is_empty())
            .collect::<Vec<_>>();
        if !groups.is_empty() {
            figures.push(Figure::Bars(Bars { title: title(what), groups, whole }, caption.to_owned()));
        }
    };
    let bar = |case: &Case<'_>, row: &Row, value: Option<f64>, show: fn(f64) -> String| -> Vec<Bar> {
        let ratio = case.ratio(row).map(|r| format!("({})", figure::ratio(r))).unwrap_or_default();
        let detail = if row.verdict() == Verdict::Failed { "wrong answer".into() } else { ratio };
        let name = row.engine.clone();
        value
            .map(|value| Bar { name, class: class(row, engines), value, label: show(value), detail })
            .into_iter()
            .collect()
    };
    match suite.name {
        "kernels" => bars(
            "share of measured rates",
            "Share of the copy bandwidth and of the matrix rate that this run measured first",
            Some(1.0),
            &|_, row| {
                let rate = |count: Option<u64>, unit: &str| match (count, row.p50_ms) {
                    (Some(count), Some(ms)) if ms > 0.0 => figure::metric(count as f64 / ms * 1e3, unit),
                    _ => String::new(),
                };
                [
                    ("bandwidth", "e0", row.bandwidth_share, rate(row.bytes, "B/s")),
                    ("matrix", "e2", row.matrix_share, rate(row.operations, "FLOP/s")),
                ]
                .into_iter()
                .filter_map(|(name, class, value, detail)| {
                    let value = value?;
                    Some(Bar { name: name.into(), class: class.into(), value, label: figure::share(value), detail })
                })
                .collect()
            },
        ),
        "load" => {
            bars("load time", "Milliseconds; in brackets, how many times as fast anygpu is", None, &|case, row| {
                bar(case, row, row.load_ms, |v| format!("{} ms", figure::ms(v)))
            })
        }
        "memory" => bars("peak memory", "Peak GPU memory", None, &|case, row| {
            bar(case, row, row.peak_memory_bytes.map(|v| v as f64), |v| figure::bytes(v as u64))
        }),
        _ => bars(
            "tokens a second",
            "Tokens a second; in brackets, how many times as fast anygpu is",
            None,
            &|case, row| bar(case, row, row.tokens_per_second, figure::rate),
        ),
    }
    if !matches!(suite.name, "kernels" | "load" | "memory") {
        figures.extend(spread(model, engines, title("latency percentiles")));
    }
    figures
}

fn spread(model: &Model<'_>, engines: &[&str], title: String) -> Option<Figure> {
    let mut rows = Vec::new();
    for case in &model.cases {
        let mut name = label(case.rows[0]);
        for row in &case.rows {
            let marks = [row.p50_ms, row.p95_ms, row.p99_ms];
            // A median alone says no more than the tokens a second do.
            if marks.iter().flatten().count() < 2 {
                continue;
            }
            let text = marks.map(|mark| mark.map_or("–".to_owned(), figure::ms)).join(" / ");
            let label = std::mem::take(&mut name);
            rows.push(SpreadRow { label, name: row.engine.clone(), class: class(row, engines), marks, text });
        }
    }
    let caption = "Latency of one sample: P50 (dot), P95 (stroke), P99 (diamond), in milliseconds";
    (!rows.is_empty()).then(|| Figure::Spread(Spread { title, unit: "ms", rows }, caption.to_owned()))
}

fn label(row: &Row) -> String {
    match row.batch {
        0 | 1 => row.test(),
        n => format!("{} × {n}", row.test()),
    }
}

fn class(row: &Row, engines: &[&str]) -> String {
    let at = engines.iter().position(|e| *e == row.engine).unwrap_or(0);
    // The first colour is anygpu's alone.
    format!("e{}", if at < COLOURS { at } else { 1 + (at - 1) % (COLOURS - 1) })
}

fn html_table(out: &mut String, table: &Table) {
    out.push_str("<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"Figures\">\n<table>\n<thead><tr>");
    for column in &table.columns {
        let class = if column.number { " class=\"n\"" } else { "" };
        let _ = write!(out, "<th scope=\"col\"{class} title=\"{}\">{}</th>", escape(column.meaning), column.title);
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in table.groups.iter().flat_map(|g| &g.rows) {
        out.push_str(if row.starts_case { "<tr class=\"first\">" } else { "<tr>" });
        for (column, cell) in table.columns.iter().zip(&row.cells) {
            let class = match (column.title, row.verdict) {
                ("check", Verdict::Ok) => " class=\"good\"",
                ("check", Verdict::Failed) => " class=\"bad\"",
                _ if column.number => " class=\"n\"",
                _ => "",
            };
            let empty = cell.is_empty().then_some("<span class=\"none\">–</span>");
            let _ = write!(out, "<td{class}>{}</td>", empty.map_or_else(|| escape(cell), str::to_owned));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n</div>\n");
}

#[cfg(test)]
mod tests;
