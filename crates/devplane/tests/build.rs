//! The builder with a tiny Go module: two at once, interrupted, failing, evicted.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::Notify;
use trellis_devplane::{Builder, Peer, Progress, cache_directory};

#[path = "common/processes.rs"]
mod processes;
use processes::{eventually, naming};

/// Remembers what it was told.
#[derive(Default)]
struct Heard {
    lines: Mutex<Vec<String>>,
    started: Notify,
}

impl Heard {
    fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
    fn count(&self, word: &str) -> usize {
        self.all().iter().filter(|line| line.contains(word)).count()
    }
}

impl Progress for Heard {
    fn started(&self, what: &str) {
        self.lines.lock().unwrap().push(format!("started {what}"));
        self.started.notify_one();
    }
    fn finished(&self, what: &str, _: Duration) {
        self.lines.lock().unwrap().push(format!("finished {what}"));
    }
    fn note(&self, text: &str) {
        self.lines.lock().unwrap().push(text.to_owned());
    }
}

fn tiny(says: &str) -> Peer {
    let mut peer = Peer::new("tiny", "module example.org/tiny\n\ngo 1.24\n", "").binary("tiny", "example.org/tiny");
    let source = format!("package main\n\nfunc main() {{ println(\"{says}\") }}\n");
    peer.sources.push(("main.go".to_owned(), source.into()));
    peer
}

/// A builder over `cache` that shares Go's own caches with everybody, where the runtime is already compiled.
fn builder(cache: &TempDir, heard: &Arc<Heard>) -> Builder {
    Builder::new(cache.path(), heard.clone()).go_caches(cache_directory().unwrap().join("go"))
}

fn run(path: &Path) -> String {
    let output = Command::new(path).output().unwrap();
    String::from_utf8(output.stderr).unwrap().trim().to_owned()
}

fn entries(cache: &Path) -> Vec<PathBuf> {
    let listing = std::fs::read_dir(cache.join("peers")).unwrap();
    listing
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect()
}

#[tokio::test]
async fn two_at_once_build_once() {
    let cache = tempfile::tempdir().unwrap();
    let (heard, other) = (Arc::new(Heard::default()), Arc::new(Heard::default()));
    let (one, two) = (builder(&cache, &heard), builder(&cache, &other));
    let peer = tiny("once");
    let (one, two) = tokio::try_join!(one.build(&peer), two.build(&peer)).unwrap();

    assert_eq!(one.path("tiny").unwrap(), two.path("tiny").unwrap());
    assert_eq!(run(one.path("tiny").unwrap()), "once");
    assert_eq!(
        heard.count("finished building tiny (tiny)") + other.count("finished building tiny (tiny)"),
        1
    );
    assert_eq!(heard.count("another process") + other.count("another process"), 1);
    assert!(one.path("other").unwrap_err().to_string().contains("no program other"));

    let again = Arc::new(Heard::default());
    builder(&cache, &again).build(&peer).await.unwrap();
    assert_eq!(again.all(), [""; 0], "a second build finds the first");
}

#[tokio::test]
async fn a_dropped_build_leaves_nothing_and_can_be_repeated() {
    let cache = tempfile::tempdir().unwrap();
    let heard = Arc::new(Heard::default());
    let builder = builder(&cache, &heard);
    let peer = tiny("dropped");
    tokio::select! {
        biased;
        () = heard.started.notified() => {}
        built = builder.build(&peer) => panic!("built before it was dropped: {built:?}"),
    }
    assert_eq!(heard.count("finished"), 0);
    let place = cache.path().display().to_string();
    eventually("the compiler ended with the future", || naming(&place).is_empty()).await;

    let built = builder.build(&peer).await.unwrap();
    assert_eq!(run(built.path("tiny").unwrap()), "dropped");
    assert_eq!(entries(cache.path()).len(), 1, "what the dropped build left is gone");
}

#[tokio::test]
async fn a_killed_build_ends_its_compiler_and_can_be_repeated() {
    let cache = tempfile::tempdir().unwrap();
    let place = cache.path().display().to_string();
    // Its own Go caches: everything below the program has to be compiled, which takes seconds.
    let mut owner = Command::new(env!("CARGO_BIN_EXE_devplane-owner"))
        .args(["build", &place])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(owner.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "started\n");
    eventually("the compiler runs", || {
        naming(&place).iter().any(|command| command.starts_with("go build"))
    })
    .await;
    owner.kill().unwrap();
    owner.wait().unwrap();
    eventually("nothing of the build runs", || naming(&place).is_empty()).await;

    // Two processes at once: one takes over, the other waits for it.
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_devplane-owner"));
        command.args(["build", &place]).stdout(Stdio::piped()).spawn().unwrap()
    };
    let outputs = [start(), start()].map(|owner| owner.wait_with_output().unwrap());
    let said = outputs.map(|output| String::from_utf8(output.stdout).unwrap());
    let count = |word| {
        said.iter()
            .flat_map(|said| said.lines())
            .filter(|line| line.contains(word))
            .count()
    };
    assert_eq!(
        (count("started"), count("another process is building")),
        (1, 1),
        "{said:?}"
    );
    for said in &said {
        assert_eq!(run(Path::new(said.lines().last().unwrap())), "tiny");
    }
    assert_eq!(entries(cache.path()).len(), 1);
}

#[tokio::test]
async fn a_failed_build_quotes_the_compiler() {
    let cache = tempfile::tempdir().unwrap();
    let heard = Arc::new(Heard::default());
    let mut peer = tiny("");
    peer.sources = vec![(
        "main.go".to_owned(),
        "package main\n\nfunc main() { nonsense() }\n".into(),
    )];
    let error = builder(&cache, &heard).build(&peer).await.unwrap_err().to_string();
    assert!(error.contains("building tiny (tiny) failed"), "{error}");
    assert!(error.contains("undefined: nonsense"), "{error}");
    let log = error.lines().next().unwrap().rsplit("log: ").next().unwrap();
    assert!(std::fs::read_to_string(log).unwrap().contains("nonsense"));
}

#[tokio::test]
async fn the_cache_is_bounded_but_what_is_in_use_stays() {
    let cache = tempfile::tempdir().unwrap();
    let heard = Arc::new(Heard::default());
    let builder = builder(&cache, &heard).peers_limit(1);
    let first = builder.build(&tiny("first")).await.unwrap();
    let second = builder.build(&tiny("second")).await.unwrap();
    assert_eq!(entries(cache.path()).len(), 2, "both are in use");
    assert_eq!(run(first.path("tiny").unwrap()), "first");
    drop((first, second));
    let third = builder.build(&tiny("third")).await.unwrap();
    assert_eq!(entries(cache.path()), [third.path("tiny").unwrap().parent().unwrap()]);
    assert_eq!(heard.count("removed tiny-"), 2);
}

#[test]
fn without_go_it_says_what_to_install() {
    let cache = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_devplane-owner"))
        .args(["build", &cache.path().display().to_string()])
        .env("PATH", cache.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        said.contains("`go` is not on the PATH") && said.contains("hint: install Go"),
        "{said}"
    );
}
