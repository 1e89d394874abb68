//! Numbers for people: three or four digits that count, units where they are not in a heading.

/// A rate: `11,592`, `318.2`, `4.31`.
pub fn rate(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => thousands(value),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Milliseconds: `21,800`, `844`, `44.2`, `3.14`, `0.523`, `0.0131`.
pub fn ms(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => thousands(value),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        v if v >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

/// Bytes in binary units: `512 B`, `11.4 MiB`, `3.79 GiB`.
pub fn bytes(value: u64) -> String {
    if value < 1024 {
        return format!("{value} B");
    }
    let (mut scaled, mut unit) = (value as f64 / 1024.0, 0);
    let units = ["KiB", "MiB", "GiB", "TiB"];
    while scaled >= 1000.0 && unit + 1 < units.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    let digits = if scaled >= 100.0 { 0 } else { 1 + usize::from(scaled < 10.0) };
    format!("{scaled:.digits$} {}", units[unit])
}

/// A share of a whole: `58%`, `4.2%`.
pub fn share(value: f64) -> String {
    if value.abs() >= 0.0995 { format!("{:.0}%", value * 100.0) } else { format!("{:.1}%", value * 100.0) }
}

/// A ratio: `1.06×`, `12.4×`, `144×`.
pub fn ratio(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{}×", thousands(value)),
        v if v >= 10.0 => format!("{value:.1}×"),
        _ => format!("{value:.2}×"),
    }
}

/// A large rate with its unit's prefix: `2.98 TB/s` of `2.98e12` and `B/s`.
pub fn metric(value: f64, unit: &str) -> String {
    for (scale, prefix) in [(1e12, "T"), (1e9, "G"), (1e6, "M")] {
        if value >= scale {
            let scaled = value / scale;
            let digits = if scaled >= 100.0 { 0 } else { 1 + usize::from(scaled < 10.0) };
            return format!("{scaled:.digits$} {prefix}{unit}");
        }
    }
    format!("{value:.0} {unit}")
}

/// A whole number with commas.
fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut out = String::from(if value < 0.0 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_the_digits_that_count() {
        let cases = [
            (rate(11592.4), "11,592"),
            (rate(1234567.0), "1,234,567"),
            (rate(318.24), "318.2"),
            (rate(4.312), "4.31"),
            (ms(21800.0), "21,800"),
            (ms(844.4), "844"),
            (ms(44.16), "44.2"),
            (ms(3.144), "3.14"),
            (ms(0.5231), "0.523"),
            (ms(0.01312), "0.0131"),
            (bytes(512), "512 B"),
            (bytes(11 << 20), "11.0 MiB"),
            (bytes(4_070_000_000), "3.79 GiB"),
            (bytes(1023 << 20), "1.00 GiB"),
            (bytes(140 << 30), "140 GiB"),
            (share(0.584), "58%"),
            (share(0.042), "4.2%"),
            (ratio(1.0565), "1.06×"),
            (ratio(12.44), "12.4×"),
            (ratio(1440.0), "1,440×"),
            (metric(2.98e12, "B/s"), "2.98 TB/s"),
            (metric(771e12, "FLOP/s"), "771 TFLOP/s"),
            (metric(42.6e9, "B/s"), "42.6 GB/s"),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }
}
