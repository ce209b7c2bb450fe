//! `trellis hooks`: the real binary as a sidecar, asked by `curl` in the known form; and `trellis hooks lint`.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use trellis_testkit::{eventually, operator::binary};

/// The user of the chart's Pods; limits do not bind root.
const USER: u32 = 65532;
/// A whitelist that takes `tr a-z A-Z` and scripts, and nothing else.
const FIRST: &str = r"
commands:
  tr: { allowed: true, argumentPatterns: ['a-z', 'A-Z'] }
  bash: { allowed: true }
  rm: { allowed: false }
";
/// One that takes `wc -c` only.
const SECOND: &str = "commands: { wc: { allowed: true, argumentPatterns: ['-c'] } }";

/// A folder of a sidecar: a mounted ConfigMap with its whitelist, a folder for its runs, its log.
struct Pod {
    folder: TempDir,
    program: PathBuf,
}

/// The sidecar's process; killed when dropped.
struct Sidecar {
    process: Child,
}

impl Pod {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("trellis");
        let built = binary().await.unwrap();
        // Where it was built, others than its builder may not look.
        if fs::hard_link(&built, &program).is_err() {
            fs::copy(&built, &program).unwrap();
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let pod = Self { folder, program };
        for name in ["work", "hooks"] {
            fs::create_dir(pod.file(name)).unwrap();
            fs::set_permissions(pod.file(name), fs::Permissions::from_mode(0o777)).unwrap();
        }
        symlink("..data/whitelist.yaml", pod.whitelist()).unwrap();
        pod.mount("..1", FIRST);
        pod
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn whitelist(&self) -> PathBuf {
        self.file("hooks/whitelist.yaml")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap()
    }

    /// Puts another text into the mounted ConfigMap, as the kubelet does: a new folder, and `..data` swapped to it.
    fn mount(&self, version: &str, text: &str) {
        let hooks = self.file("hooks");
        fs::create_dir(hooks.join(version)).unwrap();
        fs::write(hooks.join(version).join("whitelist.yaml"), text).unwrap();
        symlink(version, hooks.join("..data_tmp")).unwrap();
        fs::rename(hooks.join("..data_tmp"), hooks.join("..data")).unwrap();
    }

    /// Starts it and waits until it answers.
    async fn start(&self, more: &[&str]) -> Sidecar {
        let log = fs::File::create(self.file("log")).unwrap();
        let mut command = Command::new(&self.program);
        command
            .arg("hooks")
            .args([Path::new("--whitelist"), &self.whitelist()])
            .args([Path::new("--work"), &self.file("work")])
            .args(more)
            .stdin(Stdio::null())
            .stderr(log);
        if more.is_empty() {
            command.args([Path::new("--socket"), &self.file("s")]);
        }
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.uid(USER).gid(USER);
        }
        let sidecar = Sidecar {
            process: command.spawn().unwrap(),
        };
        eventually("the sidecar serves", async || {
            let log = self.log();
            if log.contains("serving hooks") {
                Ok(())
            } else {
                Err(log)
            }
        })
        .await;
        sidecar
    }

    /// What `curl` gets at the socket: status, then body.
    fn curl(&self, arguments: &[&str]) -> (u16, String) {
        curl(&[&["--unix-socket", self.file("s").to_str().unwrap()], arguments].concat())
    }

    fn execute(&self, asked: &Value) -> (u16, String) {
        self.curl(&["--data-binary", &asked.to_string(), "http://localhost/execute"])
    }

    async fn status(&self, asked: Value, wanted: u16) {
        eventually("the rules count", async || match self.execute(&asked) {
            (found, _) if found == wanted => Ok(()),
            (found, text) => Err(format!("{found} {text}; {}", self.log())),
        })
        .await;
    }
}

impl Sidecar {
    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([format!("-{name}"), self.process.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    fn ended(&mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn curl(arguments: &[&str]) -> (u16, String) {
    let output = Command::new("curl")
        .args(["-sS", "-w", "\n%{http_code}"])
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

/// Processes with this argument that are no step of the sidecar.
fn marked(mark: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    all.filter(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.contains(&mark.as_bytes()) && !words.contains(&b"hooks-step".as_slice())
    })
    .count()
}

async fn until(what: &str, so: impl Fn() -> bool) {
    eventually(what, async || if so() { Ok(()) } else { Err("not yet") }).await;
}

/// A run of a tree of three that sleeps for this number of seconds, which no other test does.
fn tree(mark: &str) -> Value {
    let script = format!("setsid sleep {mark} & bash -c 'sleep {mark} & wait' & sleep {mark}");
    json!({ "command": "bash", "args": ["-c", script], "timeout": "2m" })
}

/// Asks for such a run and returns when it is under way.
async fn begun(pod: &Pod, mark: &str) -> std::thread::JoinHandle<(u16, String)> {
    let (socket, asked) = (pod.file("s"), tree(mark).to_string());
    let asking = std::thread::spawn(move || {
        let socket = socket.to_str().unwrap();
        let output = Command::new("curl")
            .args(["-sS", "-w", "\n%{http_code}", "--unix-socket", socket])
            .args(["--data-binary", &asked, "http://localhost/execute"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    });
    until("the run's tree is there", || marked(mark) >= 3).await;
    asking
}

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
