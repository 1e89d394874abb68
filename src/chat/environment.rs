//! minijinja, set up as transformers sets up Jinja2 for chat templates (`utils/chat_template_utils.py`).

use std::borrow::Cow;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State};

use super::limits;

/// The name of the one template.
pub(super) const NAME: &str = "chat";

/// Nested calls and includes; chat templates have macros within macros at most.
const RECURSION_LIMIT: usize = 100;

/// The longest text of `tojson`.
const MAX_JSON_BYTES: usize = 16 << 20;

/// Parses the template.
pub(super) fn new(source: &str) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_recursion_limit(RECURSION_LIMIT);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(python_method);
    environment.add_function("raise_exception", raise_exception);
    environment.add_filter("tojson", to_json);
    environment.add_filter("format", limits::format_filter);
    // These indent by the depth, in time of its cube, before any of it is counted. No chat template has a use for them.
    environment.remove_filter("pprint");
    environment.remove_global("debug");
    #[cfg(not(target_arch = "wasm32"))]
    set_clock(&mut environment, || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |time| time.as_secs() as i64)
    });
    environment.add_template_owned(NAME, without_generation_blocks(source).into_owned())?;
    Ok(environment)
}

/// Defines `strftime_now`.
pub(super) fn set_clock(
    environment: &mut Environment<'static>,
    unix_seconds: impl Fn() -> i64 + Send + Sync + 'static,
) {
    environment.add_function("strftime_now", move |format: &str| strftime(format, unix_seconds()));
}

/// Python's methods of strings, lists and dictionaries.
fn python_method(state: &mut State<'_, '_>, value: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        limits::check_call(state, text, method, arguments)?;
    }
    match (method, value.as_str(), arguments) {
        // minijinja's own starts words at white space only; Python's at every letter that follows none.
        ("title", Some(text), []) => {
            let mut follows_letter = false;
            let mut title = String::with_capacity(text.len());
            for character in text.chars() {
                match follows_letter {
                    true => title.extend(character.to_lowercase()),
                    false => title.extend(character.to_uppercase()),
                }
                follows_letter = character.is_alphabetic();
            }
            Ok(Value::from(title))
        }
        // The filter counts what it makes on the way.
        ("join", Some(_), [values]) => state.apply_filter("join", &[values.clone(), value.clone()]),
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, arguments),
    }
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// `{% generation %}` marks what a training mask keeps. It prints nothing, and minijinja has no such block.
fn without_generation_blocks(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return Cow::Borrowed(source);
    }
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start + 2..].find("%}") else { break };
        let inner = &rest[start + 2..start + 2 + length];
        let word = inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let replacement = match word {
            "generation" => inner.replacen(word, "if true", 1),
            "endgeneration" => inner.replacen(word, "endif", 1),
            _ => inner.to_owned(),
        };
        out.push_str(&rest[..start + 2]);
        out.push_str(&replacement);
        out.push_str("%}");
        rest = &rest[start + 2 + length + 2..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Python's `json.dumps(value, ensure_ascii=False, indent=…)`: `", "` and `": "` between values, keys in their order.
fn to_json(value: &Value, indent: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => kwargs.get("indent")?,
    };
    for ignored in ["ensure_ascii", "separators", "sort_keys"] {
        let _: Option<Value> = kwargs.get(ignored)?;
    }
    kwargs.assert_all_used()?;
    let indent = match indent {
        Some(value) if !value.is_none() && !value.is_undefined() => Some(usize::try_from(value)?.min(16)),
        _ => None,
    };
    let mut out = String::new();
    write_json(value, indent, 0, &mut out)?;
    Ok(Value::from(out))
}

fn write_json(value: &Value, indent: Option<usize>, depth: usize, out: &mut String) -> Result<(), Error> {
    // minijinja counts the text only when it is whole, and values may share their parts over and over.
    if depth > RECURSION_LIMIT || out.len() > MAX_JSON_BYTES {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson: found values nested too deep or too large"));
    }
    let line = |depth: usize, out: &mut String| {
        if let Some(indent) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    let separate = |first: bool, out: &mut String| {
        if !first {
            out.push_str(if indent.is_some() { "," } else { ", " });
        }
        line(depth + 1, out);
    };
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&value.to_string()),
        ValueKind::Map => {
            out.push('{');
            let mut is_empty = true;
            for key in value.try_iter()? {
                separate(is_empty, out);
                is_empty = false;
                write_string(&key.to_string(), out);
                out.push_str(": ");
                write_json(&value.get_item(&key)?, indent, depth + 1, out)?;
            }
            if !is_empty {
                line(depth, out);
            }
            out.push('}');
        }
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            let mut is_empty = true;
            for item in value.try_iter()? {
                separate(is_empty, out);
                is_empty = false;
                write_json(&item, indent, depth + 1, out)?;
            }
            if !is_empty {
                line(depth, out);
            }
            out.push(']');
        }
        _ => write_string(value.as_str().map_or_else(|| value.to_string(), str::to_owned).as_str(), out),
    }
    Ok(())
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' => out.push_str(&format!("\\u{:04x}", character as u32)),
            _ => out.push(character),
        }
    }
    out.push('"');
}

/// Python's `strftime` in English and UTC, as far as templates use it.
pub(super) fn strftime(format: &str, unix_seconds: i64) -> Result<String, Error> {
    const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let (days, seconds) = (unix_seconds.div_euclid(86_400), unix_seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let weekday = DAYS[(days + 4).rem_euclid(7) as usize];
    let month_name = MONTHS[month as usize - 1];
    let first_of_year = days_from_civil(year, 1, 1);
    let mut out = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let mut code = characters.next();
        let unpadded = code == Some('-');
        if unpadded {
            code = characters.next();
        }
        let mut number = |value: i64, width: usize| {
            out.push_str(&if unpadded { value.to_string() } else { format!("{value:0width$}") });
        };
        match code {
            Some('d') => number(day, 2),
            Some('m') => number(month, 2),
            Some('y') => number(year.rem_euclid(100), 2),
            Some('Y') => number(year, 4),
            Some('H') => number(hour, 2),
            Some('I') => number((hour + 11) % 12 + 1, 2),
            Some('M') => number(minute, 2),
            Some('S') => number(second, 2),
            Some('j') => number(days - first_of_year + 1, 3),
            Some('a') => out.push_str(&weekday[..3]),
            Some('A') => out.push_str(weekday),
            Some('b' | 'h') => out.push_str(&month_name[..3]),
            Some('B') => out.push_str(month_name),
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('F') => out.push_str(&format!("{year:04}-{month:02}-{day:02}")),
            Some('T') => out.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
            Some('Z') => out.push_str("UTC"),
            Some('%') => out.push('%'),
            _ => {
                let message = format!("strftime_now: found {format:?}, which has a code that is not known");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
    }
    Ok(out)
}

/// Year, month and day of a number of days since 1970: Howard Hinnant's `civil_from_days`.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Days since 1970 of a date: Howard Hinnant's `days_from_civil`.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}
