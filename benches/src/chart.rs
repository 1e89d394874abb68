//! Charts as SVG text. Each is drawn twice, for a wide and for a narrow page, so that its letters never shrink.

use std::fmt::Write;

/// Horizontal bars in groups.
pub struct Bars {
    /// What is shown, for the chart's title.
    pub title: String,
    /// Groups from top to bottom.
    pub groups: Vec<BarGroup>,
    /// The value of a full-length bar. `None`: the largest value.
    pub whole: Option<f64>,
}

/// Bars that belong together: one case on several engines, or several shares of one kernel.
pub struct BarGroup {
    /// Name of the case.
    pub label: String,
    /// At least one bar.
    pub bars: Vec<Bar>,
}

/// One bar.
pub struct Bar {
    /// Engine, or what the bar is a share of.
    pub name: String,
    /// CSS class that sets its colour.
    pub class: String,
    /// Length.
    pub value: f64,
    /// The value in words, beside the bar.
    pub label: String,
    /// More, beside the label in fainter letters: the ratio.
    pub detail: String,
}

/// Percentiles as marks on a line.
pub struct Spread {
    /// What is shown, for the chart's title.
    pub title: String,
    /// Unit of the axis.
    pub unit: &'static str,
    /// Rows from top to bottom.
    pub rows: Vec<SpreadRow>,
}

/// One row of marks.
pub struct SpreadRow {
    /// Name of the case; empty when it is that of the row above.
    pub label: String,
    /// Engine.
    pub name: String,
    /// CSS class that sets its colour.
    pub class: String,
    /// P50, P95, P99 as far as they are known.
    pub marks: [Option<f64>; 3],
    /// The marks in words.
    pub text: String,
}

struct Layout {
    width: f64,
    /// Left edge of engine names, of the bars, and the bars' greatest length.
    names: f64,
    bars: f64,
    length: f64,
    /// Whether a group's label stands in a line of its own above it.
    label_above: bool,
    class: &'static str,
}

const LAYOUTS: [Layout; 2] = [
    Layout { width: 900.0, names: 170.0, bars: 310.0, length: 430.0, label_above: false, class: "wide" },
    Layout { width: 360.0, names: 0.0, bars: 112.0, length: 140.0, label_above: true, class: "narrow" },
];

const ROW: f64 = 22.0;
const GAP: f64 = 14.0;

impl Bars {
    /// The chart as HTML: a wide and a narrow SVG. `id` is unique on the page.
    pub fn render(&self, id: &str) -> String {
        let largest = self.groups.iter().flat_map(|g| &g.bars).map(|b| b.value).fold(0.0, f64::max);
        let whole = self.whole.unwrap_or(largest).max(f64::MIN_POSITIVE);
        let description: Vec<String> = (self.groups.iter())
            .map(|g| {
                let bars = g.bars.iter().map(|b| format!("{} {} {}", b.name, b.label, b.detail).trim_end().to_owned());
                format!("{}: {}", g.label, bars.collect::<Vec<_>>().join(", "))
            })
            .collect();
        LAYOUTS.iter().map(|layout| self.draw(layout, id, whole, &description.join("; "))).collect()
    }

    fn draw(&self, at: &Layout, id: &str, whole: f64, description: &str) -> String {
        let mut body = String::new();
        let mut y = 4.0;
        for group in &self.groups {
            y = group_label(&mut body, at, y, &group.label);
            for bar in &group.bars {
                let middle = y + ROW / 2.0;
                let length = (bar.value / whole).clamp(0.0, 1.0) * at.length;
                text(&mut body, "name", at.names, middle, &clip(&bar.name, at));
                if self.whole.is_some() {
                    rect(&mut body, "track", at.bars, y + 4.0, at.length, ROW - 8.0);
                }
                // A value too small to see still leaves a mark.
                rect(&mut body, &bar.class, at.bars, y + 4.0, length.max(1.5), ROW - 8.0);
                let edge = if self.whole.is_some() { at.length } else { length };
                let detail = if bar.detail.is_empty() {
                    String::new()
                } else {
                    format!("<tspan class=\"detail\" dx=\"7\">{}</tspan>", escape(&bar.detail))
                };
                let x = at.bars + edge + 7.0;
                let _ = write!(
                    body,
                    "<text class=\"value\" x=\"{x:.1}\" y=\"{:.1}\">{}{detail}</text>",
                    middle + 4.0,
                    escape(&bar.label)
                );
                y += ROW;
            }
            y += GAP;
        }
        let bottom = y - GAP;
        let _ = write!(body, "<path class=\"axis\" d=\"M{0:.1} 4V{bottom:.1}\"/>", at.bars - 0.5);
        svg(at, id, &self.title, description, y - GAP + 6.0, &body)
    }
}

impl Spread {
    /// The chart as HTML: a wide and a narrow SVG. `id` is unique on the page.
    pub fn render(&self, id: &str) -> String {
        let largest = self.rows.iter().flat_map(|r| r.marks).flatten().fold(0.0, f64::max);
        let mut label = "";
        let mut description = Vec::new();
        for row in &self.rows {
            label = if row.label.is_empty() { label } else { &row.label };
            description.push(format!("{label} {}: {} {}", row.name, row.text, self.unit));
        }
        LAYOUTS.iter().map(|layout| self.draw(layout, id, largest, &description.join("; "))).collect()
    }

    fn draw(&self, at: &Layout, id: &str, largest: f64, description: &str) -> String {
        let (step, ticks) = ticks(largest, if at.label_above { 2 } else { 5 });
        let x = |value: f64| at.bars + (value / (step * ticks as f64)).clamp(0.0, 1.0) * at.length;
        let (mut body, mut y) = (String::new(), 4.0);
        for (i, row) in self.rows.iter().enumerate() {
            if !row.label.is_empty() {
                y = group_label(&mut body, at, if i > 0 { y + GAP } else { y }, &row.label);
            }
            let middle = y + ROW / 2.0;
            text(&mut body, "name", at.names, middle, &clip(&row.name, at));
            let known = row.marks.iter().flatten().map(|v| x(*v)).collect::<Vec<_>>();
            if let (Some(first), Some(last)) = (known.first(), known.last()) {
                let _ = write!(body, "<path class=\"range {}\" d=\"M{first:.1} {middle:.1}H{last:.1}\"/>", row.class);
            }
            // Larger percentiles first, so that the median stays on top where they meet.
            if let Some(p99) = row.marks[2].map(x) {
                let _ = write!(
                    body,
                    "<path class=\"open {}\" d=\"M{:.1} {middle:.1}l5 -5 5 5 -5 5z\"/>",
                    row.class,
                    p99 - 5.0
                );
            }
            if let Some(p95) = row.marks[1].map(x) {
                let _ = write!(body, "<path class=\"tick {}\" d=\"M{p95:.1} {:.1}v14\"/>", row.class, middle - 7.0);
            }
            if let Some(p50) = row.marks[0].map(x) {
                let _ = write!(body, "<circle class=\"{}\" cx=\"{p50:.1}\" cy=\"{middle:.1}\" r=\"5\"/>", row.class);
            }
            // A narrow page has room for the median; the table has the rest.
            let words = row.text.split(" / ").next().filter(|_| at.label_above).unwrap_or(&row.text);
            text(&mut body, "value", at.bars + at.length + 12.0, middle, words);
            y += ROW;
        }
        let mut grid = String::new();
        for i in 0..=ticks {
            let (value, left) = (step * i as f64, at.bars + at.length * i as f64 / ticks as f64);
            let _ = write!(grid, "<path class=\"grid\" d=\"M{left:.1} 4V{:.1}\"/>", y + 4.0);
            let unit = if i == ticks { format!(" {}", self.unit) } else { String::new() };
            let _ = write!(
                grid,
                "<text class=\"tick-label\" x=\"{left:.1}\" y=\"{:.1}\">{}{unit}</text>",
                y + 20.0,
                trim(value)
            );
        }
        svg(at, id, &self.title, description, y + 26.0, &(grid + &body))
    }
}

fn group_label(body: &mut String, at: &Layout, y: f64, label: &str) -> f64 {
    if label.is_empty() {
        return y;
    }
    text(body, "label", 0.0, y + ROW / 2.0, label);
    // About 7.5 units a letter: a label that would run into the names stands above them too.
    let above = at.label_above || label.chars().count() as f64 * 7.5 > at.names;
    if above { y + ROW } else { y }
}

fn svg(at: &Layout, id: &str, title: &str, description: &str, height: f64, body: &str) -> String {
    let (class, width) = (at.class, at.width);
    format!(
        "<svg class=\"chart {class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-labelledby=\"{id}-{class}-t {id}-{class}-d\"><title id=\"{id}-{class}-t\">{}</title>\
         <desc id=\"{id}-{class}-d\">{}</desc>{body}</svg>\n",
        escape(title),
        escape(description),
    )
}

fn text(body: &mut String, class: &str, x: f64, middle: f64, text: &str) {
    let _ = write!(body, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>", middle + 4.0, escape(text));
}

fn rect(body: &mut String, class: &str, x: f64, y: f64, width: f64, height: f64) {
    let _ = write!(
        body,
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"2\"/>"
    );
}

/// An engine's name as far as its gutter holds it: about 7 units a letter.
fn clip(name: &str, at: &Layout) -> String {
    let room = ((at.bars - at.names) / 7.0) as usize;
    if name.chars().count() <= room {
        return name.to_owned();
    }
    name.chars().take(room.saturating_sub(1)).chain(['…']).collect()
}

/// A round step, and how many of them reach `largest`, about `wanted`.
fn ticks(largest: f64, wanted: u32) -> (f64, u32) {
    if !(largest.is_finite() && largest > 0.0) {
        return (1.0, 1);
    }
    let raw = largest / f64::from(wanted);
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= raw * 0.999).unwrap_or(raw);
    (step, (largest / step - 1e-9).ceil().max(1.0) as u32)
}

/// A tick's value: its exact decimal, which is short because steps are round.
fn trim(value: f64) -> String {
    let fixed = format!("{value:.6}");
    let short = fixed.trim_end_matches('0').trim_end_matches('.');
    if short.is_empty() { "0".into() } else { short.into() }
}

/// Text as HTML and SVG take it, in content and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Control characters have no place in a document, escaped or not.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_the_largest() {
        for (largest, wanted, expected) in [
            (3.42, 5, (1.0, 4)),
            (100.0, 5, (20.0, 5)),
            (0.013, 5, (0.005, 3)),
            (844.0, 2, (500.0, 2)),
            (1.0, 2, (0.5, 2)),
            (0.0, 5, (1.0, 1)),
            (f64::NAN, 5, (1.0, 1)),
        ] {
            let (step, count) = ticks(largest, wanted);
            assert!(
                (step - expected.0).abs() < expected.0 * 1e-9 && count == expected.1,
                "{largest}: {step} × {count}"
            );
        }
        assert_eq!([0.0, 0.5, 20.0, 2.5].map(trim), ["0", "0.5", "20", "2.5"]);
    }

    #[test]
    fn text_cannot_leave_its_place() {
        assert_eq!(escape("<a href='x' b=\"&\">\u{1b}[0m"), "&lt;a href=&#39;x&#39; b=&quot;&amp;&quot;&gt; [0m");
    }
}
