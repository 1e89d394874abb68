//! Rows side by side: suites in a fixed order, cases within them, engines within a case, and the ratio between engines.

use crate::report::{ANYGPU, Report, Row, Verdict};
use crate::stats;

/// Suites in the order they are shown. Others follow in the order they appear.
pub const SUITES: [&str; 9] = ["decode", "prefill", "batch", "streams", "embed", "search", "load", "memory", "kernels"];

/// One suite of a report.
pub struct Suite<'a> {
    /// Its name, as in the rows.
    pub name: &'a str,
    /// Models (with a weight type) in the order they appear.
    pub models: Vec<Model<'a>>,
}

/// The cases of one model and weight type within a suite.
pub struct Model<'a> {
    /// Name of the model; may be empty.
    pub model: &'a str,
    /// Type of the weights.
    pub dtype: &'a str,
    /// Whether the weights were made up.
    pub synthetic: bool,
    /// Cases in the order they appear.
    pub cases: Vec<Case<'a>>,
}

/// One case: the same model, weights, batch and lengths, on each engine that ran it, anygpu first.
pub struct Case<'a> {
    /// One row an engine, at least one.
    pub rows: Vec<&'a Row>,
}

impl Model<'_> {
    /// `llama-2-7b · q4_0 · synthetic`.
    pub fn heading(&self) -> String {
        let synthetic = if self.synthetic { "synthetic" } else { "" };
        [self.model, self.dtype, synthetic].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(" · ")
    }
}

impl Case<'_> {
    /// How many times as fast anygpu is as `row` in this case: its tokens a second over the other's; where neither has
    /// tokens, the other's time (load, then P50) over its own. `None` for anygpu's own row or where either is unknown,
    /// or where one of the two gave a wrong answer: a wrong answer has no speed.
    pub fn ratio(&self, row: &Row) -> Option<f64> {
        let own = self.rows.iter().find(|r| r.engine == ANYGPU)?;
        let usable = |r: &Row| !matches!(r.verdict(), Verdict::Failed | Verdict::Unsupported);
        if row.engine == ANYGPU || !usable(own) || !usable(row) {
            return None;
        }
        let over = |a: Option<f64>, b: Option<f64>| Some(a? / b?).filter(|r| r.is_finite() && *r > 0.0);
        over(own.tokens_per_second, row.tokens_per_second)
            .or_else(|| over(own.queries_per_second, row.queries_per_second))
            .or_else(|| over(row.load_ms, own.load_ms))
            .or_else(|| over(row.p50_ms, own.p50_ms))
    }
}

/// The rows of `report`, suite by suite.
pub fn suites(report: &Report) -> Vec<Suite<'_>> {
    let mut suites: Vec<Suite<'_>> = Vec::new();
    for row in &report.rows {
        let suite = find_or_push(&mut suites, |s| s.name == row.suite, || Suite { name: &row.suite, models: vec![] });
        let model = find_or_push(
            &mut suite.models,
            |m| m.model == row.model && m.dtype == row.dtype && m.synthetic == row.synthetic,
            || Model { model: &row.model, dtype: &row.dtype, synthetic: row.synthetic, cases: vec![] },
        );
        let case = find_or_push(&mut model.cases, |c| same_case(c.rows[0], row), || Case { rows: vec![] });
        case.rows.push(row);
    }
    for case in suites.iter_mut().flat_map(|s| &mut s.models).flat_map(|m| &mut m.cases) {
        case.rows.sort_by_key(|r| r.engine != ANYGPU);
    }
    suites.sort_by_key(|s| SUITES.iter().position(|name| *name == s.name).unwrap_or(SUITES.len()));
    suites
}

/// Engines of `report`: anygpu, then the others in the order they appear.
pub fn engines(report: &Report) -> Vec<&str> {
    let mut engines: Vec<&str> = Vec::new();
    for row in &report.rows {
        if !engines.contains(&row.engine.as_str()) {
            engines.push(&row.engine);
        }
    }
    engines.sort_by_key(|e| *e != ANYGPU);
    engines
}

/// How anygpu does against one engine over a whole suite.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The suite.
    pub suite: String,
    /// The other engine.
    pub engine: String,
    /// Geometric mean of the ratios.
    pub ratio: f64,
    /// The lowest and highest ratio.
    pub range: (f64, f64),
    /// How many cases both engines ran.
    pub cases: usize,
}

/// One [`Summary`] for each suite and other engine that share a case.
pub fn summary(report: &Report) -> Vec<Summary> {
    let mut summaries = Vec::new();
    for suite in suites(report) {
        for engine in engines(report) {
            let cases = suite.models.iter().flat_map(|m| &m.cases);
            let ratios: Vec<f64> = cases
                .flat_map(|case| case.rows.iter().filter_map(move |row| Some((row, case.ratio(row)?))))
                .filter(|(row, _)| row.engine == engine)
                .map(|(_, ratio)| ratio)
                .collect();
            if let Some(ratio) = stats::geometric_mean(&ratios) {
                let low = ratios.iter().copied().fold(f64::INFINITY, f64::min);
                let high = ratios.iter().copied().fold(0.0, f64::max);
                summaries.push(Summary {
                    suite: suite.name.to_owned(),
                    engine: engine.to_owned(),
                    ratio,
                    range: (low, high),
                    cases: ratios.len(),
                });
            }
        }
    }
    summaries
}

fn same_case(a: &Row, b: &Row) -> bool {
    let key = |r: &Row| (r.batch, r.n_prompt, r.n_gen, r.n_depth);
    key(a) == key(b) && a.name == b.name
}

fn find_or_push<T>(list: &mut Vec<T>, is: impl FnMut(&T) -> bool, make: impl FnOnce() -> T) -> &mut T {
    let at = list.iter().position(is).unwrap_or_else(|| {
        list.push(make());
        list.len() - 1
    });
    &mut list[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(engine: &str, suite: &str, dtype: &str, batch: u64, tokens_per_second: f64) -> Row {
        Row { tokens_per_second: Some(tokens_per_second), ..Row::new(engine, suite, "m", dtype).case(batch, 0, 128, 0) }
    }

    #[test]
    fn engines_of_one_case_stand_together() {
        let rows = vec![
            row("base", "decode", "q4_0", 1, 100.0),
            row("anygpu", "decode", "q4_0", 1, 150.0),
            row("anygpu", "decode", "q8_0", 1, 90.0),
            row("base", "decode", "q4_0", 8, 100.0),
            row("anygpu", "kernels", "q4_0", 1, 1.0),
            row("anygpu", "aside", "q4_0", 1, 1.0),
        ];
        let report = Report { rows, ..Report::default() };
        let suites = suites(&report);
        assert_eq!(suites.iter().map(|s| s.name).collect::<Vec<_>>(), ["decode", "kernels", "aside"]);
        let decode = &suites[0];
        assert_eq!(decode.models.iter().map(Model::heading).collect::<Vec<_>>(), ["m · q4_0", "m · q8_0"]);
        let case = &decode.models[0].cases[0];
        assert_eq!(case.rows.iter().map(|r| r.engine.as_str()).collect::<Vec<_>>(), ["anygpu", "base"]);
        assert_eq!(case.ratio(case.rows[0]), None);
        assert_eq!(case.ratio(case.rows[1]), Some(1.5));
        let alone = &decode.models[0].cases[1];
        assert_eq!(alone.ratio(alone.rows[0]), None);
        assert_eq!(engines(&report), ["anygpu", "base"]);
    }

    #[test]
    fn a_wrong_answer_has_no_speed() {
        for (own, other, expected) in [
            (Some("ok"), None, Some(2.0)),
            (None, None, Some(2.0)),
            (Some("logits differ"), None, None),
            (Some("ok"), Some("unsupported"), None),
        ] {
            let mut rows = vec![row("anygpu", "decode", "f16", 1, 20.0), row("b", "decode", "f16", 1, 10.0)];
            rows[0].check = own.map(String::from);
            rows[1].check = other.map(String::from);
            let report = Report { rows, ..Report::default() };
            let suites = suites(&report);
            let case = &suites[0].models[0].cases[0];
            assert_eq!(case.ratio(case.rows[1]), expected, "{own:?} {other:?}");
        }
    }

    #[test]
    fn times_compare_the_other_way_round() {
        let timed = |engine: &str, load_ms| Row { load_ms, ..Row::new(engine, "load", "m", "f16") };
        let report = Report { rows: vec![timed("anygpu", Some(50.0)), timed("b", Some(100.0))], ..Report::default() };
        assert_eq!(
            summary(&report),
            [Summary { suite: "load".into(), engine: "b".into(), ratio: 2.0, range: (2.0, 2.0), cases: 1 }]
        );
    }
}
