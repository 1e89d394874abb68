//! What templates must not do to the methods and filters that they call: make minijinja's formatting panic, or make text
//! far larger than their fuel pays for before any of it is counted.

use minijinja::value::{Rest, Value, ValueOrKwargs};
use minijinja::{Error, ErrorKind, State};

/// Bytes of text that a unit of minijinja's fuel pays for.
const BYTES_PER_FUEL: u64 = 64;
/// The widest field of `str.format`; templates that use it at all pad a few columns.
const MAX_WIDTH: usize = 1000;

/// The filter `format` (`"%s"|format(x)`).
///
/// # Errors
/// As minijinja's own, and for a key that is not ASCII: minijinja 3.1 steps through keys by bytes and panics.
pub(super) fn format_filter(
    state: &mut State<'_, '_>,
    text: &Value,
    arguments: Rest<ValueOrKwargs>,
) -> Result<Value, Error> {
    let template = text.as_str().unwrap_or_default();
    for (start, _) in template.match_indices("%(") {
        let key = &template[start + 2..];
        ascii(&key[..key.find(')').unwrap_or(key.len())])?;
    }
    minijinja::filters::format(state, text, arguments)
}

/// Looks at a call of a string's method before it is made.
///
/// # Errors
/// For `format` with fields that minijinja panics on or that are wider than a template needs, and for `replace` whose
/// text the remaining fuel does not pay for.
pub(super) fn check_call(state: &State<'_, '_>, text: &str, method: &str, arguments: &[Value]) -> Result<(), Error> {
    match (method, arguments) {
        ("format", _) => check_fields(text),
        ("replace", [old, new, ..]) => {
            let (Some(old), Some(new)) = (old.as_str(), new.as_str()) else { return Ok(()) };
            let grown = text.matches(old).count().saturating_mul(new.len().saturating_sub(old.len()));
            pay(state, text.len().saturating_add(grown))
        }
        _ => Ok(()),
    }
}

/// Whether the remaining fuel pays for a text of this length.
fn pay(state: &State<'_, '_>, bytes: usize) -> Result<(), Error> {
    match state.fuel_levels() {
        Some((_, remaining)) if bytes as u64 / BYTES_PER_FUEL >= remaining => Err(Error::from(ErrorKind::OutOfFuel)),
        _ => Ok(()),
    }
}

/// Checks the fields of a format string in the style of `str.format`: `{name:>10}`.
fn check_fields(template: &str) -> Result<(), Error> {
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        rest = &rest[start + 1..];
        if let Some(escaped) = rest.strip_prefix('{') {
            rest = escaped;
            continue;
        }
        let field = &rest[..rest.find('}').unwrap_or(rest.len())];
        ascii(field)?;
        // A key in brackets may hold the brace that seems to end the field, and a field may take its width from another.
        if field.contains('{') || field.rfind('[') > field.rfind(']') {
            return Err(refused("a field within another", field));
        }
        for number in field.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty()) {
            if number.parse::<usize>().is_ok_and(|number| number <= MAX_WIDTH) {
                continue;
            }
            return Err(refused("a number above 1000", field));
        }
        rest = &rest[field.len()..];
    }
    Ok(())
}

fn ascii(field: &str) -> Result<(), Error> {
    if field.is_ascii() { Ok(()) } else { Err(refused("a field that is not ASCII", field)) }
}

fn refused(what: &str, field: &str) -> Error {
    let field: String = field.chars().take(40).collect();
    Error::new(ErrorKind::InvalidOperation, format!("format: found {what}, {field:?}, expected a plain one"))
}

#[cfg(test)]
mod tests {
    use crate::chat::{ChatTemplate, Message, Role};

    fn render(source: &str) -> crate::Result<String> {
        ChatTemplate::new(source, "", "")?.render(&[Message::new(Role::User, "é")], true)
    }

    #[test]
    fn plain_formats_work() {
        for (source, expected) in [
            ("{{ '%s é %5.1f'|format('é', 2.5) }}", "é é   2.5"),
            ("{{ '%(a)s é'|format(a=3) }}", "3 é"),
            ("{{ '{} é {:>4}|{{é}}'.format('é', 'b') }}", "é é    b|{é}"),
            ("{{ '{0[a]} {1}'.format({'a': 1}, 2) }}", "1 2"),
            ("{{ 'abab'.replace('a', 'é').replace('b', '', 1) }}", "ééb"),
            ("{{ ', '.join(['a', 'b']) }}", "a, b"),
        ] {
            assert_eq!(render(source).as_deref(), Ok(expected), "{source}");
        }
    }

    #[test]
    fn formats_that_would_panic_or_exhaust_memory_are_errors() {
        for source in [
            "{{ '%(é)s'|format(1) }}",
            "{{ '%(é'|format(1) }}",
            "{{ '{[é]}'.format([1]) }}",
            "{{ '{[}é]}'.format([1]) }}",
            "{{ '{é}'.format(1) }}",
            "{{ '{:>99999999999}'.format(1) }}",
            "{{ '{:.99999999999f}'.format(1.5) }}",
            "{{ '{:>{}}'.format(1, 99999999999) }}",
            "{{ '%99999999999d'|format(1) }}",
            "{% set ns = namespace(x='xxxxxxxx') %}{% for a in range(9) %}\
             {% set ns.x = ns.x.replace('x', ns.x) %}{% endfor %}",
            "{% set ns = namespace(x='xxxxxxxx') %}{% for a in range(9) %}\
             {% set ns.x = ns.x.replace('', ns.x) %}{% endfor %}",
            "{% set ns = namespace(x='xxxxxxxx') %}{% for a in range(9) %}\
             {% set ns.x = ns.x.join(ns.x) %}{% endfor %}",
        ] {
            let found = render(source);
            assert!(found.is_err(), "{source}: {} bytes", found.map_or(0, |text| text.len()));
        }
    }
}
