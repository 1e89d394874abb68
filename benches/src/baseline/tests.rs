use super::*;

fn request() -> Request {
    Request {
        file: "a dir/it's.gguf".into(),
        model: "m".into(),
        dtype: "q4_0".into(),
        synthetic: true,
        batch: 8,
        n_prompt: 512,
        n_gen: 128,
        n_depth: 4096,
    }
}

#[test]
fn commands_are_split_and_filled_without_a_shell() {
    let cases: &[(&str, &[&str])] = &[
        ("x=bench -m {model}", &["bench", "-m", "a dir/it's.gguf"]),
        ("x=b {n_prompt} {n_gen} {batch} {n_depth}", &["b", "512", "128", "8", "4096"]),
        ("x=b -p{n_prompt},{n_gen}", &["b", "-p512,128"]),
        (r#"x=b 'a b' "c \"d\" \n" e\ f '' g"h"'i'"#, &["b", "a b", r#"c "d" \n"#, "e f", "", "ghi"]),
        ("x=b $HOME; `ls` | *", &["b", "$HOME;", "`ls`", "|", "*"]),
        ("x=b '{{\"n\": {n_gen}}}'", &["b", "{\"n\": 128}"]),
        ("x=b k=v", &["b", "k=v"]),
    ];
    for (text, expected) in cases {
        let baseline: Baseline = text.parse().unwrap();
        // A backslash is an ordinary character on Windows.
        if !(cfg!(windows) && text.contains('\\')) {
            assert_eq!(baseline.words(&request()), *expected, "{text}");
        }
    }
    assert_eq!(
        command::parse(r"C:\bin\b.exe {model}", true).unwrap()[0],
        [command::Part::Text(r"C:\bin\b.exe".into())]
    );
}

#[test]
fn broken_commands_are_refused() {
    let cases = [
        ("llama-bench", "expected NAME=COMMAND"),
        ("=x", "expected a name"),
        ("x=", "the command is empty"),
        ("x=  ", "the command is empty"),
        ("anygpu=x", "the benchmark's own"),
        ("x=b {ngl}", "unknown placeholder {ngl}, expected one of {model} {n_prompt} {n_gen} {batch} {n_depth}"),
        ("x=b {model", "{ alone"),
        ("x=b model}", "} alone"),
        ("x=b 'c", "' is not closed"),
        ("x=b \"c", "\" is not closed"),
    ];
    for (text, expected) in cases {
        let error = text.parse::<Baseline>().expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn what_a_command_takes() {
    let takes = |text: &str| {
        let baseline: Baseline = text.parse().unwrap();
        (baseline.takes_batch(), baseline.takes_depth())
    };
    assert_eq!(takes("x=b {model}"), (false, false));
    assert_eq!(takes("x=b --np={batch} -d {n_depth}"), (true, true));
}

const LLAMA_BENCH: &str = r#"[
  {"build_commit": "abc", "n_batch": 2048, "n_ubatch": 512, "model_filename": "m.gguf", "n_prompt": 512, "n_gen": 0,
   "n_depth": 0, "avg_ns": 44000000, "stddev_ns": 1000, "avg_ts": 11636.36, "samples_ns": [43000000, 45000000]},
  {"n_batch": 2048, "model_filename": "m.gguf", "n_prompt": 0, "n_gen": 128, "n_depth": 4096,
   "avg_ns": 402000000, "avg_ts": 318.41, "samples_ns": [400000000, 404000000]}
]"#;

#[test]
fn reads_the_rows_of_llama_bench() {
    let rows = rows::parse(LLAMA_BENCH, "base", &Request { batch: 1, ..request() }).unwrap();
    assert_eq!(rows.len(), 2);
    let (prefill, decode) = (&rows[0], &rows[1]);
    assert_eq!(
        (prefill.engine.as_str(), prefill.suite.as_str(), prefill.test().as_str()),
        ("base", "prefill", "pp512")
    );
    assert_eq!((prefill.tokens_per_second, prefill.p50_ms, prefill.p99_ms), (Some(11636.36), Some(43.0), None));
    assert_eq!((decode.suite.as_str(), decode.test().as_str(), decode.batch), ("decode", "tg128 @ d4096", 1));
    // A repeat of 128 steps tells nothing of the steps.
    assert_eq!((decode.tokens_per_second, decode.p50_ms, decode.samples), (Some(318.41), None, None));
    assert!(rows.iter().all(|r| r.synthetic && r.model == "m" && r.dtype == "q4_0" && r.check.is_none()));
}

#[test]
fn reads_other_shapes_of_output() {
    let headed = r#"[{"load_ns":570000000},
{"n_prompt":0,"n_gen":64,"n_depth":512,"n_parallel":8,"avg_ns":422000000,"avg_ts":1213.3,"first_ns":21800000000,"samples_ns":[1]}]"#;
    let lines = "ggml_init: [cuda] {found}\n{\"n_prompt\": 512.0, \"n_gen\": 0, \"avg_ns\": 1e8}\n\
                 done\n{\"n_prompt\": 0, \"n_gen\": 4, \"avg_ts\": 2, \"p50_ms\": 500, \"p99_ms\": 600}\n";
    type Right = fn(&[Row]) -> bool;
    let cases: &[(&str, usize, Right)] = &[
        (headed, 1, |r| {
            r[0].batch == 8 && r[0].suite == "batch" && r[0].load_ms == Some(570.0) && r[0].first_ms == Some(21800.0)
        }),
        // 512 tokens of each of the 8 sequences that were asked for, in 100 ms.
        (lines, 2, |r| r[0].tokens_per_second == Some(40960.0) && (r[1].p50_ms, r[1].p95_ms) == (Some(500.0), None)),
    ];
    for (output, count, right) in cases {
        let rows = rows::parse(output, "base", &request()).unwrap();
        assert!(rows.len() == *count && right(&rows), "{output}: {rows:?}");
    }
}

#[test]
fn output_without_rows_is_an_error() {
    let cases = [
        ("", "printed no JSON rows, but nothing"),
        ("| model | size |", "printed no JSON rows, but \"| model"),
        ("[]", "printed no JSON rows"),
        (r#"[{"load_ns": 1}]"#, "keys: load_ns"),
        (r#"[{"n_prompt": -1, "n_gen": 0, "avg_ts": 1}]"#, "keys:"),
        (r#"[{"n_prompt": 1, "n_gen": 0, "avg_ts": 0}]"#, "keys:"),
        (r#"[{"n_prompt": 1, "n_gen": 0, "avg_ts": 1"#, "printed no JSON rows"),
    ];
    for (output, expected) in cases {
        let error = rows::parse(output, "base", &request()).expect_err(output);
        assert!(error.contains(expected), "{output}: {error}");
    }
}

/// Programs that play a baseline are small shell scripts, so these run where `sh` is.
#[cfg(unix)]
mod running {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn script(body: &str) -> Baseline {
        format!("fake=sh -c '{}' fake {{model}} {{n_gen}}", body.replace('{', "{{").replace('}', "}}")).parse().unwrap()
    }

    #[test]
    fn runs_a_program_and_reads_its_rows() {
        let body = r#"echo loading "$1" >&2; printf "[{\"n_prompt\":0,\"n_gen\":%d,\"avg_ts\":7.5}]" "$2""#;
        let rows = script(body).run(&request(), LIMIT).unwrap();
        assert_eq!((rows[0].engine.as_str(), rows[0].n_gen, rows[0].tokens_per_second), ("fake", 128, Some(7.5)));
    }

    #[test]
    fn a_large_output_does_not_stop_the_program() {
        let body = r#"i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789012345678901234567890 >&2; i=$((i+1)); done; echo "{\"n_prompt\":1,\"n_gen\":0,\"avg_ts\":1}""#;
        assert_eq!(script(body).run(&request(), LIMIT).unwrap().len(), 1);
    }

    #[test]
    fn failures_say_the_command_the_status_and_stderr() {
        let missing: Baseline = "fake=/no/such/program {model}".parse().unwrap();
        let cases = [
            (script("echo no such device >&2; exit 3"), LIMIT, ["exit status: 3", "stderr: no such device", "sh -c"]),
            (missing, LIMIT, ["cannot start", "/no/such/program", r"'a dir/it'\''s.gguf'"]),
            (
                script("exec sleep 30"),
                Duration::from_millis(100),
                ["still running after 0.1 s", "baseline fake", "sleep"],
            ),
            (
                script("echo hello; echo why >&2"),
                LIMIT,
                ["printed no JSON rows, but \"hello\"", "stderr: why", "command:"],
            ),
        ];
        for (baseline, limit, expected) in cases {
            let start = Instant::now();
            let error = baseline.run(&request(), limit).unwrap_err().to_string();
            for part in expected {
                assert!(error.contains(part), "{part}: {error}");
            }
            assert!(start.elapsed() < LIMIT, "{error}");
        }
    }
}
