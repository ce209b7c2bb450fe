//! Every hole that hooks could have, tried on the real process. That nothing stays behind is in `trees.rs`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "a test that cannot go on fails"
)]

#[path = "sidecar/support.rs"]
#[expect(dead_code, reason = "shared by several test binaries")]
mod support;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use http_body_util::Full;
use rstest::rstest;
use serde_json::json;
use support::{Kernel, Process, curl, hook, mark, marked, shell, until};
use trellis_hooks::{Error, Hook};

/// Runs it and gives its output as text.
async fn said(process: &Process, hook: &Hook) -> Result<String, Error> {
    let output = process.client().run(hook, Full::default()).await?;
    output
        .collect(1 << 20)
        .await
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn a_command_is_never_matched_by_its_last_name() {
    let process = Process::start(json!({}));
    let copy = process.root.path().join("jq");
    fs::copy("/usr/bin/jq", &copy).unwrap();
    let error = said(&process, &hook(copy.to_str().unwrap(), &["."])).await.unwrap_err();
    assert!(
        matches!(&error, Error::NotAllowed(text) if text.contains(copy.to_str().unwrap())),
        "{error:?}"
    );
    for command in ["./jq", "../bin/jq", "usr/bin/jq", "/usr/bin/../../tmp/jq", ""] {
        let error = said(&process, &hook(command, &["."])).await.unwrap_err();
        assert!(matches!(error, Error::NotAllowed(_)), "{command}: {error:?}");
    }
    assert_eq!(said(&process, &hook("/usr/bin/jq", &["-n", "1"])).await.unwrap(), "1\n");
}

#[tokio::test]
async fn a_bare_name_is_found_in_the_fixed_path_only() {
    let process = Process::start(json!({}));
    let error = said(
        &process,
        &Hook {
            env: [("PATH".into(), "/tmp".into())].into(),
            ..hook("jq", &["."])
        },
    )
    .await;
    assert!(matches!(error, Err(Error::Refused(_))), "{error:?}");
    assert_eq!(
        said(&process, &shell("echo $PATH")).await.unwrap(),
        "/usr/local/bin:/usr/bin:/bin\n"
    );
}

#[tokio::test]
async fn a_pin_holds_the_file_to_its_digest() {
    let process = Process::start(json!({ "pins": { "true": "0".repeat(64) } }));
    let error = said(&process, &hook("true", &[])).await.unwrap_err();
    assert!(
        matches!(&error, Error::NotAllowed(text) if text.contains("sha256")),
        "{error:?}"
    );
    assert_eq!(
        said(&process, &hook("false", &[])).await.unwrap_err().to_string(),
        "hook exited with code 1"
    );
}

#[tokio::test]
async fn the_environment_starts_empty() {
    let process = Process::start(json!({}));
    let output = said(
        &process,
        &Hook {
            env: [("TOKEN".into(), "x".into())].into(),
            ..hook("env", &[])
        },
    )
    .await
    .unwrap();
    let mut names: Vec<&str> = output.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "LANG", "PATH", "TMPDIR", "TOKEN"]);
}

#[rstest]
#[tokio::test]
async fn variables_that_steer_programs_are_refused(
    #[values(
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "PATH",
        "BASH_ENV",
        "ENV",
        "IFS",
        "SHELLOPTS",
        "PYTHONPATH"
    )]
    name: &str,
) {
    let process = Process::start(json!({}));
    let hook = Hook {
        env: [(name.to_owned(), "/tmp/x".to_owned())].into(),
        ..hook("true", &[])
    };
    let error = said(&process, &hook).await.unwrap_err();
    assert!(
        matches!(&error, Error::Refused(text) if text.contains(name)),
        "{error:?}"
    );
}

#[tokio::test]
async fn processor_time_is_limited() {
    let process = Process::start(json!({ "cpu": 1 }));
    let error = said(&process, &shell("while :; do :; done")).await.unwrap_err();
    assert!(matches!(error, Error::Failed { code: 137 | 152, .. }), "{error:?}");
}

#[tokio::test]
async fn memory_is_limited() {
    let process = Process::start(json!({ "memory": 256 * 1024 * 1024 }));
    let error = said(&process, &hook("jq", &["-n", "[range(100000000)] | length"]))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Failed { code: 1.., .. }), "{error:?}");
}

#[tokio::test]
async fn files_and_their_size_are_limited() {
    let process = Process::start(json!({ "files": 33, "file_size": 1024 * 1024 }));
    assert_eq!(said(&process, &shell("ulimit -n; ulimit -c")).await.unwrap(), "33\n0\n");
    let error = said(&process, &shell("exec head -c 2000000 /dev/zero > file"))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Failed { code: 1 | 153, .. }), "{error:?}");
}

/// Each file is within its limit; all of them together are not.
#[rstest]
#[case::many_files("for n in 1 2 3 4 5 6; do head -c 900000 /dev/zero > $n; done")]
#[case::in_folders("mkdir -p a/b; head -c 900000 /dev/zero > a/b/1; head -c 900000 /dev/zero > a/2; chmod 0500 a")]
#[case::without_names("for n in 1 2 3; do exec {fd}> x; rm x; head -c 900000 /dev/zero >&$fd; done")]
#[case::out_of_sight("mkdir a; head -c 900000 /dev/zero > a/1; cp a/1 a/2; chmod 0 a")]
#[tokio::test]
async fn what_a_run_writes_is_limited_as_a_whole(
    #[case] script: &str,
    #[values(Kernel::Allows, Kernel::Refuses)] kernel: Kernel,
) {
    let process = kernel.start(json!({ "file_size": 1_000_000 }));
    let mark = mark();
    let error = said(&process, &shell(&format!("{script}; sleep {mark}")))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::TooLarge(text)
            if text.contains("has written more than 1000000 bytes") || text.contains("cannot be counted")),
        "{error:?}"
    );
    assert!(marked(&mark).is_empty());
    until("its directory is gone", || process.folders() == 0).await;
    let within = shell("head -c 900000 /dev/zero > 1; sleep 0.3; rm 1; head -c 900000 /dev/zero > 2; sleep 0.3; ls");
    assert_eq!(said(&process, &within).await.unwrap(), "2\n");
}

#[tokio::test]
async fn the_working_directory_is_private_empty_and_removed() {
    let process = Process::start(json!({}));
    let first = said(&process, &shell("pwd; ls -A; echo x > left; chmod 0500 ."))
        .await
        .unwrap();
    let second = said(&process, &shell("pwd; ls -A")).await.unwrap();
    assert_eq!(
        (first.lines().count(), second.lines().count()),
        (1, 1),
        "{first}{second}"
    );
    assert_ne!(first, second);
    assert!(first.starts_with(process.work.to_str().unwrap()), "{first}");
    until("the directories are gone", || process.folders() == 0).await;
}

#[rstest]
#[tokio::test]
async fn the_network_is_off_where_the_kernel_allows_it(#[values(Kernel::Allows, Kernel::Refuses)] kernel: Kernel) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let process = kernel.start(json!({}));
    assert_eq!(process.isolation["network"], kernel == Kernel::Allows);
    assert_eq!(
        process.isolation["refused"].is_string(),
        kernel == Kernel::Refuses,
        "a refusal is reported"
    );
    let connect = shell(&format!(
        "exec 3<>/dev/tcp/127.0.0.1/{}",
        listener.local_addr().unwrap().port()
    ));
    assert_eq!(said(&process, &connect).await.is_err(), kernel == Kernel::Allows);
}

#[tokio::test]
async fn the_network_can_be_left_on() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let process = Process::start(json!({ "network": "on" }));
    let connect = shell(&format!(
        "exec 3<>/dev/tcp/127.0.0.1/{}",
        listener.local_addr().unwrap().port()
    ));
    said(&process, &connect).await.unwrap();
    assert_eq!(process.isolation["processes"], true);
}

#[test]
fn a_network_that_must_be_off_and_cannot_be_is_a_refusal_to_start() {
    let root = tempfile::tempdir().unwrap();
    let options = json!({ "socket": root.path().join("s"), "work": root.path(), "network": "off" });
    let output = Command::new(support::REFUSING[0])
        .args(&support::REFUSING[1..])
        .arg(env!("CARGO_BIN_EXE_hooks-sidecar"))
        .arg(options.to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains("must not reach the network"),
        "{text}"
    );
}

#[tokio::test]
async fn privileges_cannot_be_gained() {
    let process = Process::start(json!({}));
    assert_eq!(
        said(
            &process,
            &hook(
                "jq",
                &["-Rr", "select(startswith(\"NoNewPrivs\"))", "/proc/self/status"]
            )
        )
        .await
        .unwrap(),
        "NoNewPrivs:\t1\n"
    );
}

#[rstest]
#[case::stdout("yes", "stdout has more than 5000000 bytes")]
#[case::stderr("yes >&2", "stderr has more than 3000000 bytes")]
#[tokio::test]
async fn an_output_bomb_is_stopped_at_its_limit(#[case] script: &str, #[case] part: &str) {
    let process = Process::start(json!({ "stdout": 5_000_000, "stderr": 3_000_000 }));
    let output = process.client().run(&shell(script), Full::default()).await.unwrap();
    let error = output.collect(usize::MAX).await.unwrap_err();
    assert!(
        matches!(&error, Error::TooLarge(text) if text.contains(part)),
        "{error:?}"
    );
    until("the hook has ended", || process.folders() == 0).await;
}

#[tokio::test]
async fn input_is_limited() {
    let process = Process::start(json!({ "stdin": 1000 }));
    let body = Full::from(vec![b'x'; 1001]);
    let output = process.client().run(&hook("cat", &[]), body).await.unwrap();
    let error = output.collect(usize::MAX).await.unwrap_err();
    assert!(
        matches!(&error, Error::TooLarge(text) if text.contains("stdin has more than 1000")),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_end_of_standard_error_is_in_the_message() {
    let process = Process::start(json!({}));
    let script = "head -c 100000 /dev/zero | tr '\\0' x >&2; echo 'the reason' >&2; exit 4";
    let error = said(&process, &shell(script)).await.unwrap_err();
    assert!(
        error.to_string().starts_with("hook exited with code 4: …xxx"),
        "{error}"
    );
    assert!(error.to_string().ends_with("the reason"), "{error}");
    assert!(error.to_string().len() < 1000);
}

#[tokio::test]
async fn runs_at_once_and_the_queue_are_bounded() {
    let process = Process::start(json!({ "at_once": 1, "queue": 1, "patience_ms": 60000 }));
    let (client, mark) = (process.client(), mark());
    let first = client.run(&hook("sleep", &[&mark]), Full::default()).await.unwrap();
    until("the hook runs", || !marked(&mark).is_empty()).await;
    let waiting = [(); 2].map(|()| {
        let client = client.clone();
        tokio::spawn(async move { client.run(&shell("echo mine"), Full::default()).await?.collect(9).await })
    });
    let [mut second, mut third] = waiting;
    // One of both waits, the other is told at once.
    let (told, waits) = tokio::select! {
        told = &mut second => (told, third),
        told = &mut third => (told, second),
    };
    assert!(matches!(told.unwrap(), Err(Error::Busy(_))));
    drop(first);
    assert_eq!(waits.await.unwrap().unwrap(), "mine\n");
}

#[tokio::test]
async fn loopback_needs_the_token_and_is_all_there_is() {
    let process = Process::start(json!({ "token": "0123456789abcdef" }));
    let port = process.port.unwrap();
    assert_eq!(
        process.client().execute(&hook("cat", &[]), b"x").await.unwrap().stdout,
        "x"
    );
    process.client().healthy().await.unwrap();
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let body = r#"{"command":"true"}"#;
    assert_eq!(curl(&process, &["--data-binary", body, &url("/execute")]).0, 401);
    let wrong = [
        "-H",
        "Authorization: Bearer 0123456789abcdeX",
        "--data-binary",
        body,
        &url("/execute"),
    ];
    assert_eq!(curl(&process, &wrong).0, 401);
    assert_eq!(curl(&process, &["-X", "POST", &url("/run")]).0, 401);
    assert_eq!(curl(&process, &[&url("/health")]).0, 200);
    assert!(TcpStream::connect(("127.0.0.2", port)).is_err());
    // The address of another interface, found without sending anything.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    if socket.connect("192.0.2.1:9").is_ok() {
        let address = socket.local_addr().unwrap().ip();
        assert!(TcpStream::connect((address, port)).is_err(), "{address}");
    }
}

#[tokio::test]
async fn the_socket_is_for_owner_and_group_and_has_one_listener() {
    let process = Process::start(json!({}));
    assert_eq!(
        fs::metadata(process.socket()).unwrap().permissions().mode() & 0o777,
        0o660
    );
    let output = Command::new(env!("CARGO_BIN_EXE_hooks-sidecar"))
        .arg(json!({ "socket": process.socket(), "work": process.work }).to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("already listens"), "{text}");
    process.client().healthy().await.unwrap();
}
