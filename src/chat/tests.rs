//! Against what jinja2 renders, stored by `src/testdata/tokenizer/make.py`.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::*;
use crate::error::ErrorKind;
use crate::format::metadata::Value as Entry;

/// 2024-07-26 12:34:56 UTC, the clock of make.py.
const NOW: i64 = 1_721_997_296;

fn role(name: &str) -> Role {
    *[Role::System, Role::User, Role::Assistant, Role::Tool].iter().find(|role| role.name() == name).unwrap()
}

#[test]
fn templates_render_as_in_jinja2() {
    let json: Json = serde_json::from_str(include_str!("../testdata/tokenizer/chat.json")).unwrap();
    let text = |json: &Json| json.as_str().unwrap().to_owned();
    let templates: BTreeMap<String, ChatTemplate> = json["templates"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, entry)| {
            let template = ChatTemplate::new(&text(&entry["source"]), &text(&entry["bos"]), &text(&entry["eos"]));
            (name.clone(), template.unwrap().with_time(NOW))
        })
        .collect();
    let (cases, mut failures) = (json["cases"].as_array().unwrap(), Vec::new());
    for case in cases {
        let messages: Vec<Message> = json["conversations"][text(&case["conversation"])]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| Message::new(role(&text(&message["role"])), text(&message["content"])))
            .collect();
        let found = templates[&text(&case["template"])].render(&messages, case["prompt"].as_bool().unwrap());
        let is_right = match (&found, case.get("error")) {
            (Ok(found), None) => *found == text(&case["text"]),
            (Err(error), Some(expected)) => error.to_string().ends_with(&text(expected)),
            _ => false,
        };
        if !is_right {
            failures.push(format!("found {found:?}\nexpected {case}"));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
    assert!(cases.len() >= 100, "only {} cases", cases.len());
}

#[test]
fn errors_name_the_line() {
    let hello = [Message::new(Role::User, "hello")];
    let cases = [
        ("syntax", "\n\n{% if %}", "line 3"),
        ("unclosed", "{% for m in messages %}", "line 1"),
        ("raised", "\n{{ raise_exception('no such role') }}", "line 2: invalid operation: no such role"),
        ("undefined", "a\nb\n{{ nothing.at.all }}", "line 3"),
        ("endless", "{% for a in range(10000) %}\n{% for b in range(10000) %}{{ a }}{% endfor %}{% endfor %}", "fuel"),
        (
            "doubling",
            "{% set ns = namespace(x='xxxxxxxx') %}{% for a in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            "fuel",
        ),
        ("repeated", "{{ 'x' * 10000000000 }}", "line 1"),
        ("recursive", "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "line 1"),
        ("include", "{% include 'other' %}", "line 1"),
        ("itself", "{% include 'chat' %}", "line 1"),
        ("unknown filter", "{{ 1 | nonsense }}", "line 1"),
        ("time", "{{ strftime_now('%Q') }}", "line 1"),
    ];
    for (name, source, part) in cases {
        let error = match ChatTemplate::new(source, "", "") {
            Ok(template) => template.render(&hello, true).expect_err(name),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::Tokenizer, "{name}");
        assert!(error.to_string().contains(part), "{name}: {error}");
    }
}

#[test]
fn long_conversations_fit_the_limit() {
    let template = ChatTemplate::new(CHAT_ML, "", "").unwrap();
    let messages = vec![Message::new(Role::User, "word ".repeat(20_000)); 300];
    let text = template.render(&messages, true).unwrap();
    assert!(text.len() > 300 * 100_000);
}

#[test]
fn time_is_written_as_python_does() {
    let cases = [
        (0, "%Y-%m-%d %H:%M:%S %a %j", "1970-01-01 00:00:00 Thu 001"),
        (NOW, "%d %b %Y, %-d %B %y %I:%M %p", "26 Jul 2024, 26 July 24 12:34 PM"),
        (951_827_696, "%F %T %A", "2000-02-29 12:34:56 Tuesday"),
        (4_102_444_799, "%-m/%-d/%Y %j %%", "12/31/2099 365 %"),
        (-1, "%F %T", "1969-12-31 23:59:59"),
    ];
    for (seconds, format, expected) in cases {
        assert_eq!(environment::strftime(format, seconds).unwrap(), expected, "{seconds}");
    }
    let template = ChatTemplate::new("{{ strftime_now('%Y') }}", "", "").unwrap();
    assert!(template.render(&[], false).unwrap().parse::<u32>().unwrap() >= 2024);
}

/// A vocabulary whose tokens are single bytes, and four control tokens.
fn metadata() -> Metadata {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"].map(str::to_owned).to_vec();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    let kinds = [2, 3, 3, 3, 3].into_iter().chain([6; 256]).collect();
    Metadata::from_iter([
        ("tokenizer.ggml.model", Entry::String("llama".into())),
        ("tokenizer.ggml.scores", Entry::Floats(vec![0.0; tokens.len()])),
        ("tokenizer.ggml.tokens", Entry::Strings(tokens)),
        ("tokenizer.ggml.token_type", Entry::Ints(kinds)),
        ("tokenizer.ggml.add_space_prefix", Entry::Bool(false)),
    ])
}

#[test]
fn a_file_without_template_gets_chat_ml() {
    let mut metadata = metadata();
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    let hello = [Message::new(Role::User, "Hi")];
    let template = ChatTemplate::from_gguf(&metadata, &tokenizer).unwrap();
    assert!(template.is_fallback());
    let expected = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(template.render(&hello, true).unwrap(), expected);

    metadata.insert(
        "tokenizer.chat_template",
        Entry::String("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}".into()),
    );
    let template = ChatTemplate::from_gguf(&metadata, &tokenizer).unwrap();
    assert!(!template.is_fallback());
    assert_eq!(template.render(&hello, true).unwrap(), "<s>Hi</s>");
}

#[test]
fn a_prompt_starts_with_bos_once() {
    let mut metadata = metadata();
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    let hello = [Message::new(Role::User, "Hi")];
    let byte = |text: &str| text.bytes().map(|byte| u32::from(byte) + 5).collect::<Vec<_>>();
    for source in ["{{ bos_token }}{{ messages[0].content }}<|im_end|>", "{{ messages[0].content }}<|im_end|>"] {
        let template = ChatTemplate::new(source, "<s>", "</s>").unwrap();
        let found = template.encode(&tokenizer, &hello, true).unwrap();
        assert_eq!(found, [vec![1], byte("Hi"), vec![4]].concat(), "{source}");
    }
    metadata.insert("tokenizer.ggml.add_bos_token", Entry::Bool(false));
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    let template = ChatTemplate::new("{{ messages[0].content }}", "<s>", "</s>").unwrap();
    assert_eq!(template.encode(&tokenizer, &hello, true).unwrap(), byte("Hi"));
}

#[test]
fn nesting_without_end_is_no_overflow() {
    let nest = |wrap: &str| {
        format!(
            "{{% set ns = namespace(x=[]) %}}{{% for a in range(10000) %}}{{% for b in range(10000) %}}\
             {{% set ns.x = {wrap} %}}{{% endfor %}}{{% endfor %}}"
        )
    };
    let within = |tail: &str| {
        format!(
            "{{% set ns = namespace(x=[], y=[]) %}}{{% for a in range(10000) %}}\
             {{% set ns.x = [ns.x] %}}{{% set ns.y = [ns.y] %}}{{% endfor %}}{tail}"
        )
    };
    let mut sources: Vec<String> =
        ["[ns.x]", "{'a': ns.x}", "namespace(a=ns.x)", "[ns.x] | list", "(ns.x, ns.x)"].map(nest).into();
    sources.extend(
        ["{{ ns.x }}", "{{ ns.x | tojson }}", "{{ ns.x == ns.y }}", "{{ ns.x | pprint }}", "{{ debug() }}"].map(within),
    );
    let terms = ["+1", "|int", "[0]", "()", ".a", " if 1 else 1", " is odd", "~1", "**1"];
    sources.extend(terms.map(|term| format!("{{{{ a{} }}}}", term.repeat(16_000 / term.len()))));
    sources.extend(["not ", "-", "("].map(|term| format!("{{{{ {}1 }}}}", term.repeat(4_000))));
    sources.push("{% if 1 %}".repeat(1_500));
    sources.push(format!("{{% if 1 %}}{}{{% endif %}}", "{% elif 1 %}".repeat(1_500)));
    // A thread of two megabytes, as most are: the engine has to bring its own.
    let work = move || {
        for source in &sources {
            let result = ChatTemplate::new(source, "", "").and_then(|template| template.render(&[], true));
            if let Err(error) = result {
                assert_eq!(error.kind(), ErrorKind::Tokenizer, "{:.60}: {error}", source);
            }
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(work).unwrap().join().unwrap();

    let error = ChatTemplate::new(&"a".repeat(MAX_SOURCE_BYTES + 1), "", "").map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tokenizer);
}
