//! `trellis hooks`: the real binary as a sidecar, asked by `curl` in the known form; and `trellis hooks lint`.

#[path = "hooks/pod.rs"]
mod pod;

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use pod::{FIRST, Pod, SECOND, begun, curl, marked, tree, until};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn the_known_form_is_answered_byte_for_byte_and_only_what_is_listed_runs() {
    let pod = Pod::new().await;
    let _sidecar = pod.start(&[]).await;
    let health = pod.curl(&["http://localhost/health"]);
    assert_eq!(health, (200, r#"{"status":"healthy"}"#.to_owned()));
    let asked = r#"{"command":"tr","args":["a-z","A-Z"],"timeout":"30s","env":{"LANG":"C"},"stdin":"aGVsbG8="}"#;
    let answer = pod.curl(&["--data-binary", asked, "http://localhost/execute"]);
    assert_eq!(
        answer,
        (200, r#"{"stdout":"SEVMTE8=","stderr":"","exitCode":0}"#.to_owned())
    );
    let failed = pod.execute(&json!({ "command": "bash", "args": ["-c", "echo no >&2; exit 3"] }));
    assert_eq!(
        failed,
        (200, r#"{"stdout":"","stderr":"bm8K","exitCode":3}"#.to_owned())
    );

    // Not listed, listed as not allowed, another argument, the same last name elsewhere.
    let elsewhere = pod.file("tr");
    fs::write(&elsewhere, "#!/bin/sh\necho mine\n").unwrap();
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o755)).unwrap();
    let elsewhere = elsewhere.to_str().unwrap();
    for (asked, named) in [
        (json!({ "command": "cat" }), "cat"),
        (json!({ "command": "rm", "args": ["-r"] }), "rm"),
        (json!({ "command": "tr", "args": ["a-z", "A-Z-"] }), "argument 2"),
        (json!({ "command": elsewhere, "args": ["a-z"] }), elsewhere),
    ] {
        let (status, text) = pod.execute(&asked);
        assert!(status == 403 && text.contains(named), "{status} {text}");
    }
    assert!(
        pod.log().contains("a shell that takes -c runs any command"),
        "a risk of the whitelist is told: {}",
        pod.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_whitelist_counts_without_a_restart_and_a_broken_one_does_not() {
    let pod = Pod::new().await;
    let mut sidecar = pod.start(&[]).await;
    let tr = || json!({ "command": "tr", "args": ["a-z", "A-Z"], "stdin": "aGVsbG8=" });
    let wc = || json!({ "command": "wc", "args": ["-c"], "stdin": "aGVsbG8=" });
    assert_eq!((pod.execute(&tr()).0, pod.execute(&wc()).0), (200, 403));

    pod.mount("..2", SECOND);
    pod.status(wc(), 200).await;
    assert_eq!(pod.execute(&tr()).0, 403, "what is listed no more runs no more");

    pod.mount("..3", "commands: { wc: { allowed: true, argumentPatterns: ['('] } }");
    until("the log says that it is broken", || pod.log().contains("\"broken;")).await;
    assert_eq!(
        (pod.execute(&wc()).0, pod.execute(&tr()).0),
        (200, 403),
        "the last good one counts"
    );
    fs::remove_file(pod.file("hooks/..data")).unwrap();
    until("the log says that it is gone", || pod.log().contains("\"missing;")).await;
    assert_eq!(pod.execute(&wc()).0, 200);

    pod.mount("..4", FIRST);
    pod.status(tr(), 200).await;
    assert_eq!(pod.execute(&wc()).0, 403);

    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().code(), Some(0));
    assert!(!pod.file("s").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_whitelist_nothing_runs() {
    let pod = Pod::new().await;
    fs::remove_file(pod.whitelist()).unwrap();
    let _sidecar = pod.start(&[]).await;
    let (status, text) = pod.execute(&json!({ "command": "true" }));
    assert!(status == 403 && text.contains("no whitelist"), "{status} {text}");
    assert!(pod.log().contains("\"missing;"), "{}", pod.log());
    symlink("..data/whitelist.yaml", pod.whitelist()).unwrap();
    pod.status(json!({ "command": "tr", "args": ["a-z"] }), 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_the_end_and_the_death_of_the_sidecar_leave_no_process_of_a_run() {
    let pod = Pod::new().await;
    let id = std::process::id();
    let mut sidecar = pod.start(&[]).await;

    let mark = format!("{id}.71");
    let mut short = tree(&mark);
    short["timeout"] = json!("700ms");
    let (status, text) = pod.execute(&short);
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &answer["exitCode"]), (200, &json!(-1)), "{text}");
    assert_eq!(
        answer["stderr"], "dGltZWQgb3V0IGFmdGVyIDcwMG1zCg==",
        "timed out after 700ms"
    );
    assert_eq!(marked(&mark), 0, "the tree has ended before the answer");

    let mark = format!("{id}.72");
    let asking = begun(&pod, &mark).await;
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().code(), Some(0), "{}", pod.log());
    assert_eq!(marked(&mark), 0);
    asking.join().unwrap();

    let mark = format!("{id}.73");
    let mut sidecar = pod.start(&[]).await;
    let asking = begun(&pod, &mark).await;
    sidecar.signal("KILL");
    assert_eq!(sidecar.ended().code(), None);
    until("the tree of a killed sidecar ends", || marked(&mark) == 0).await;
    asking.join().unwrap();

    let _next = pod.start(&[]).await;
    assert_eq!(
        fs::read_dir(pod.file("work")).unwrap().count(),
        0,
        "what the killed one left is swept away"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn on_loopback_only_who_has_the_token_is_answered() {
    let pod = Pod::new().await;
    let token = pod.file("token");
    fs::write(&token, "0123456789abcdef0123\n").unwrap();
    let _sidecar = pod
        .start(&["--port", "0", "--token-file", token.to_str().unwrap()])
        .await;
    let log = pod.log();
    let served = log.lines().find(|line| line.contains("serving hooks")).unwrap();
    let at = serde_json::from_str::<Value>(served).unwrap()["at"]
        .as_str()
        .unwrap()
        .to_owned();
    let asked = r#"{"command":"tr","args":["a-z","A-Z"],"stdin":"aGVsbG8="}"#;
    let url = format!("{}/execute", at.trim_start_matches("http://"));
    assert_eq!(curl(&["--data-binary", asked, &url]).0, 401);
    let wrong = "Authorization: Bearer 0123456789abcdef0124";
    assert_eq!(curl(&["-H", wrong, "--data-binary", asked, &url]).0, 401);
    let right = "Authorization: Bearer 0123456789abcdef0123";
    let (status, text) = curl(&["-H", right, "--data-binary", asked, &url]);
    assert!(status == 200 && text.contains("SEVMTE8="), "{status} {text}");
    assert!(!pod.log().contains("0123456789abcdef0123"), "{}", pod.log());
}

/// Who ran what, for whom, and how it ended: in the log as it is by default, and no value with it.
#[tokio::test(flavor = "multi_thread")]
async fn every_run_and_every_refusal_is_one_line_in_the_log() {
    let pod = Pod::new().await;
    let _sidecar = pod.start(&[]).await;
    let lines = |message: &str| -> Vec<Value> {
        let log = pod.log();
        let parsed = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.filter(|line| line["message"] == message).collect()
    };
    let ask = |script: &str, namespace: &str, timeout: &str| {
        json!({ "command": "bash", "args": ["-c", script, "an-argument"], "env": { "KEY": "a-variable" }, "stdin": "aGVsbG8=",
            "namespace": namespace, "timeout": timeout })
    };
    assert_eq!(
        pod.execute(&ask("cat; echo some-error >&2; exit 3", "shop", "1m")).0,
        200
    );
    assert_eq!(pod.execute(&ask("sleep 60", "shop", "300ms")).0, 200);
    let ran = lines("hook ran");
    assert_eq!(ran.len(), 2, "{}", pod.log());
    let told = |line: &Value, name: &str| line[name].clone();
    for (name, expected) in [
        ("command", json!("bash")),
        ("namespace", json!("shop")),
        ("exit", json!(3)),
        ("end", json!("exited with code 3")),
        ("stdin", json!(5)),
        ("stdout", json!(5)),
        ("stderr", json!(11)),
    ] {
        assert_eq!(told(&ran[0], name), expected, "{name} in {}", ran[0]);
    }
    assert!(ran[0]["milliseconds"].is_u64(), "{}", ran[0]);
    assert_eq!(ran[1]["end"], "timed out after 300ms");

    assert_eq!(pod.execute(&json!({ "command": "cat", "namespace": "other" })).0, 403);
    assert_eq!(
        pod.execute(&json!({ "command": "tr", "env": { "LUA_INIT": "a-variable" } }))
            .0,
        400
    );
    let refused = lines("hook refused");
    assert_eq!(refused.len(), 2, "{}", pod.log());
    for (name, expected) in [
        ("command", json!("cat")),
        ("namespace", json!("other")),
        ("status", json!(403)),
    ] {
        assert_eq!(told(&refused[0], name), expected, "{name} in {}", refused[0]);
    }
    assert!(
        refused[1]["why"].as_str().unwrap().contains("LUA_INIT"),
        "{}",
        refused[1]
    );
    assert_eq!(
        pod.curl(&[
            "--data-binary",
            "{\"command\": 7, \"a-secret\"",
            "http://localhost/execute"
        ])
        .0,
        400
    );
    assert_eq!(lines("request refused").len(), 1, "{}", pod.log());
    let log = pod.log();
    for part in [
        "an-argument",
        "a-variable",
        "hello",
        "aGVsbG8",
        "some-error",
        "a-secret",
        "sleep 60",
    ] {
        assert!(!log.contains(part), "{part} in {log}");
    }
}

/// A whitelist that has namespaces is not passed by from inside a run, and one run is not open to another.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_reaches_neither_the_sidecar_nor_what_others_wrote() {
    let pod = Pod::new().await;
    pod.mount(
        "..2",
        "commands: { bash: { allowed: true }, tr: { allowed: true } }\nnamespaces: { inside: { commands: [bash] }, outside: { commands: [tr] } }",
    );
    let _sidecar = pod.start(&[]).await;
    assert!(pod.log().contains("\"files_apart\":true"), "{}", pod.log());
    let asked = json!({ "command": "tr", "args": ["a", "b"], "stdin": "YQ==", "namespace": "outside" });
    let (status, text) = pod.execute(&asked);
    assert!(status == 200 && text.contains("Yg=="), "{status} {text}");
    let inside = |script: String| json!({ "command": "bash", "args": ["-c", script], "namespace": "inside" });
    let post = format!(
        "curl -sS --unix-socket {} --data-binary '{asked}' http://localhost/execute",
        pod.file("s").display()
    );
    let (status, text) = pod.execute(&inside(post));
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &answer["stdout"]), (200, &json!("")), "{text}");
    assert_ne!(answer["exitCode"], 0, "{text}");

    let work = pod.file("work");
    let left = format!("echo left > {0}/left; echo left > {0}/../left; ls {0}", work.display());
    let (_, text) = pod.execute(&inside(left));
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["stdout"], "", "{text}");
    until("its directory is gone", || fs::read_dir(&work).unwrap().count() == 0).await;
    assert!(!pod.file("left").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whitelist_is_judged_without_a_sidecar() {
    let pod = Pod::new().await;
    let lint = async |arguments: &[&str]| {
        let file = pod.file("whitelist");
        let all = [&["hooks", "lint", file.to_str().unwrap()], arguments].concat();
        super::trellis(Path::new("/nonexistent"), &all).await
    };
    let said = lint(&[]).await;
    assert!(
        said.code == Some(1) && said.talk.starts_with("error: cannot read"),
        "{}",
        said.talk
    );
    fs::write(pod.file("whitelist"), FIRST).unwrap();
    let said = lint(&[]).await;
    assert_eq!(said.code, Some(0), "{}", said.talk);
    assert!(said.data.contains("risk: command \"bash\": a shell"), "{}", said.data);
    assert!(
        said.data.contains("risk: command \"tr\": it takes any variables"),
        "{}",
        said.data
    );
    let told = lint(&["--json"]).await.json();
    assert_eq!(
        (&told["broken"], &told["risks"][0]["command"]),
        (&Value::Null, &json!("bash"))
    );
    fs::write(pod.file("whitelist"), "commands: { jq: { allowed: yes please } }").unwrap();
    let said = lint(&["--json"]).await;
    assert!(
        said.code == Some(1) && said.json()["broken"].is_string(),
        "{}",
        said.data
    );
    let said = lint(&[]).await;
    assert!(
        said.data
            .starts_with("broken: the whitelist is not understood (a command has allowed")
            && said.code == Some(1),
        "{}",
        said.data
    );
}
