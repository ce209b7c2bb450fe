use clap::Parser as _;

use super::*;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn settings(line: &[&str]) -> anyhow::Result<Settings> {
    let words = ["hooks"].iter().chain(line);
    Line::try_parse_from(words)?.args.serve.settings()
}

#[test]
fn without_flags_it_is_the_sidecar_as_its_crate_defines_it() {
    let settings = settings(&[]).unwrap();
    assert_eq!(format!("{settings:?}"), format!("{:?}", *DEFAULTS));
}

#[test]
fn every_flag_reaches_its_setting() {
    let settings = settings(&[
        "--socket=/s",
        "--path=/a,/b",
        "--work=/w",
        "--writable=/c,/d",
        "--network=off",
        "--at-once=2",
        "--queue=3",
        "--patience=4s",
        "--default-timeout=1m30s",
        "--limit-cpu-seconds=11",
        "--limit-memory=12",
        "--limit-files=13",
        "--limit-file-size=14",
        "--limit-processes=15",
        "--limit-user-processes=16",
        "--limit-stdin=17",
        "--limit-stdout=18",
        "--limit-stderr=19",
    ])
    .unwrap();
    assert!(matches!(&settings.listen, Listen::Socket(file) if file.as_os_str() == "/s"));
    assert_eq!(settings.path, ["/a", "/b"].map(PathBuf::from));
    assert_eq!(settings.work, PathBuf::from("/w"));
    assert_eq!(settings.writable, ["/c", "/d"].map(PathBuf::from));
    assert_eq!(settings.network, Network::Off);
    assert_eq!((settings.at_once, settings.queue), (2, 3));
    assert_eq!(settings.patience, Duration::from_secs(4));
    assert_eq!(settings.default_timeout, Duration::from_secs(90));
    let limits = Limits {
        cpu_seconds: 11,
        memory: 12,
        files: 13,
        file_size: 14,
        processes: 15,
        user_processes: 16,
        stdin: 17,
        stdout: 18,
        stderr: 19,
    };
    assert_eq!(settings.limits, limits);
}

#[test]
fn a_port_is_on_loopback_and_needs_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "0123456789abcdef\n").unwrap();
    let token = format!("--token-file={}", file.display());
    for (port, expected) in [(vec!["--port"], 8081), (vec!["--port", "8082"], 8082)] {
        let line: Vec<&str> = port.into_iter().chain([token.as_str()]).collect();
        let listen = settings(&line).unwrap().listen;
        assert!(matches!(listen, Listen::Loopback { port, .. } if port == expected));
    }
    assert!(
        settings(&["--port", "8082"]).is_err(),
        "anybody in the Pod could ask it"
    );
    assert!(settings(&["--port", "8082", "--socket=/s", &token]).is_err());
    fs::write(&file, "guess me").unwrap();
    let error = format!("{:#}", settings(&["--port", &token]).unwrap_err());
    assert!(error.contains("at least 16") && !error.contains("guess me"), "{error}");
}

#[test]
fn what_would_run_nothing_or_anything_is_refused() {
    for (line, named) in [
        ("--at-once=0", "--at-once"),
        ("--path=bin", "--path"),
        ("--writable=cache", "--writable"),
        ("--pass=LD_PRELOAD", "LD_PRELOAD"),
        ("--patience=soon", "soon"),
    ] {
        let error = format!("{:#}", settings(&[line]).unwrap_err());
        assert!(error.contains(named), "{error}");
    }
}
