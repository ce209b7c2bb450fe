//! The JSON form, byte for byte as clients of the first version know it, spoken by `curl`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "a test that cannot go on fails"
)]

#[path = "sidecar/support.rs"]
#[expect(dead_code, reason = "shared by several test binaries")]
mod support;

use std::fs;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rstest::rstest;
use serde_json::{Value, json};
use support::{Process, curl};

fn b64(text: &str) -> String {
    STANDARD.encode(text)
}

#[rstest]
#[case::whole(
    json!({"command": "jq", "args": ["-c", ".a"], "timeout": "30s", "env": {"A": "1"}, "stdin": b64("{\"a\":[1]}")}),
    json!({"stdout": b64("[1]\n"), "stderr": "", "exitCode": 0})
)]
#[case::least(json!({"command": "true"}), json!({"stdout": "", "stderr": "", "exitCode": 0}))]
#[case::nulls(
    json!({"command": "cat", "args": null, "timeout": "", "env": null, "stdin": null}),
    json!({"stdout": "", "stderr": "", "exitCode": 0})
)]
#[case::by_path(json!({"command": "/bin/true"}), json!({"stdout": "", "stderr": "", "exitCode": 0}))]
#[case::a_code(
    json!({"command": "bash", "args": ["-c", "echo out; echo err >&2; exit 3"]}),
    json!({"stdout": b64("out\n"), "stderr": b64("err\n"), "exitCode": 3})
)]
#[case::a_signal(
    json!({"command": "bash", "args": ["-c", "kill -9 $BASHPID"]}),
    json!({"stdout": "", "stderr": "", "exitCode": 137})
)]
#[case::a_variable(
    json!({"command": "bash", "args": ["-c", "echo $GREETING"], "env": {"GREETING": "hello"}}),
    json!({"stdout": b64("hello\n"), "stderr": "", "exitCode": 0})
)]
#[case::bytes(
    json!({"command": "cat", "stdin": STANDARD.encode([0_u8, 255, 10])}),
    json!({"stdout": STANDARD.encode([0_u8, 255, 10]), "stderr": "", "exitCode": 0})
)]
#[case::input_that_nobody_reads(
    json!({"command": "true", "stdin": b64(&"x".repeat(1_000_000))}),
    json!({"stdout": "", "stderr": "", "exitCode": 0})
)]
fn answers_are_compatible(#[case] asked: Value, #[case] expected: Value) {
    let process = Process::start(json!({}));
    let body = process.root.path().join("body");
    fs::write(&body, asked.to_string()).unwrap();
    let (status, text) = curl(
        &process,
        &[
            "--data-binary",
            &format!("@{}", body.display()),
            "http://localhost/execute",
        ],
    );
    assert_eq!(status, 200, "{text}");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
}

#[rstest]
#[case::no_json("{", 400, "JSON")]
#[case::no_timeout(r#"{"command":"true","timeout":"soon"}"#, 400, "soon")]
#[case::no_base64(r#"{"command":"true","stdin":"%%"}"#, 400, "base64")]
#[case::not_whitelisted(r#"{"command":"rm"}"#, 403, "\"rm\"")]
#[case::no_such_program(r#"{"command":"/nowhere/jq"}"#, 403, "/nowhere/jq")]
#[case::a_bad_variable(r#"{"command":"true","env":{"LD_PRELOAD":"x"}}"#, 400, "LD_PRELOAD")]
fn refusals_are_compatible(#[case] body: &str, #[case] status: u16, #[case] part: &str) {
    let process = Process::start(json!({}));
    let (found, text) = curl(&process, &["--data-binary", body, "http://localhost/execute"]);
    assert_eq!(found, status, "{text}");
    assert!(text.contains(part), "{text}");
}

#[test]
fn methods_paths_and_health_are_compatible() {
    let process = Process::start(json!({}));
    assert_eq!(
        curl(&process, &["http://localhost/health"]),
        (200, r#"{"status":"healthy"}"#.to_owned())
    );
    assert_eq!(curl(&process, &["http://localhost/execute"]).0, 405);
    assert_eq!(curl(&process, &["-X", "PUT", "http://localhost/run"]).0, 405);
    assert_eq!(curl(&process, &["-X", "DELETE", "http://localhost/health"]).0, 405);
    assert_eq!(curl(&process, &["http://localhost/"]).0, 404);
}

#[test]
fn a_timeout_is_an_answer_of_200_that_says_so() {
    let process = Process::start(json!({}));
    let body = r#"{"command":"bash","args":["-c","echo begun; sleep 60"],"timeout":"500ms"}"#;
    let (status, text) = curl(&process, &["--data-binary", body, "http://localhost/execute"]);
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (status, &answer["exitCode"], &answer["end"]),
        (200, &json!(-1), &json!("timed-out"))
    );
    assert_eq!(answer["stderr"], b64("timed out after 500ms\n"));
    assert_eq!(answer["stdout"], b64("begun\n"));
}

#[rstest]
#[case::announced(false)]
#[case::chunked(true)]
fn a_message_of_more_than_8_mib_is_refused(#[case] chunked: bool) {
    let process = Process::start(json!({}));
    let body = process.root.path().join("body");
    let stdin = STANDARD.encode(vec![b'x'; 7 * 1024 * 1024]);
    fs::write(&body, json!({"command": "cat", "stdin": stdin}).to_string()).unwrap();
    let data = format!("@{}", body.display());
    let mut args = vec!["--data-binary", &data, "http://localhost/execute"];
    if chunked {
        args.extend(["-H", "Transfer-Encoding: chunked"]);
    }
    let (status, text) = curl(&process, &args);
    assert_eq!(status, 413, "{text}");
}

#[test]
fn an_answer_stays_below_8_mib() {
    let process = Process::start(json!({}));
    let body = r#"{"command":"head","args":["-c","7000000","/dev/zero"]}"#;
    let (status, text) = curl(&process, &["--data-binary", body, "http://localhost/execute"]);
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &answer["end"]), (200, &json!("too-large")));
    assert!(text.len() < trellis_hooks::EXECUTE_LIMIT, "{}", text.len());
}

#[test]
fn streaming_is_spoken_by_curl_too() {
    let process = Process::start(json!({}));
    let header = |script: &str| {
        format!(
            "trellis-hook: {}",
            b64(&json!({"command": "bash", "args": ["-c", script]}).to_string())
        )
    };
    let good = header("cat; echo said >&2");
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        let args = [
            protocol,
            "-H",
            &good,
            "-H",
            "TE: trailers",
            "--data-binary",
            "abc",
            "http://localhost/run",
        ];
        assert_eq!(curl(&process, &args), (200, "abc".to_owned()), "{protocol}");
    }
    // Without trailers, a failure cuts the connection: a part is never taken for the whole.
    let bad = header("echo part; exit 3");
    let output = std::process::Command::new("curl")
        .args(["-sS", "--http1.1", "--unix-socket"])
        .arg(process.socket())
        .args(["-H", &bad, "--data-binary", "", "http://localhost/run"])
        .output()
        .unwrap();
    assert!(!output.status.success(), "{output:?}");
}
