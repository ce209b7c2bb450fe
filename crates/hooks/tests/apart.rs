//! What a run could do to other runs and to the sidecar, tried on the real process: under a kernel that allows
//! namespaces and under one that refuses them, as the seccomp profile of a container does.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "a test that cannot go on fails"
)]

#[path = "sidecar/support.rs"]
#[expect(dead_code, reason = "shared by several test binaries")]
mod support;

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use http_body_util::Full;
use rstest::rstest;
use serde_json::json;
use support::{Kernel, Process, curl, mark, marked, shell, until};
use trellis_hooks::Output;

/// What a script says on both of its streams, however it ends.
async fn said(process: &Process, script: &str) -> String {
    let script = format!("{{ {script}\n}} 2>&1; exit 0");
    let output = process.client().run(&shell(&script), Full::default()).await.unwrap();
    let bytes = output.collect(1 << 20).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A run that has written a secret into its directory and goes on, and where that is.
async fn victim(process: &Process) -> (Output, PathBuf, u32) {
    let mark = mark();
    let script = format!("echo precious > secret.txt; sleep {mark}; true");
    let run = process.client().run(&shell(&script), Full::default()).await.unwrap();
    until("it sleeps", || !marked(&mark).is_empty()).await;
    let folder = fs::read_dir(&process.work).unwrap().next().unwrap().unwrap().path();
    (run, folder.join("work"), marked(&mark)[0])
}

#[rstest]
#[tokio::test]
async fn a_run_finds_reads_and_changes_nothing_of_another(#[values(Kernel::Allows, Kernel::Refuses)] kernel: Kernel) {
    let process = kernel.start(json!({}));
    assert_eq!(process.isolation["files"], true, "{}", process.isolation);
    let (run, folder, pid) = victim(&process).await;
    let work = process.work.display();
    // As somebody who knows nothing, who looks around, and who was told where it is.
    let known = folder.display();
    let attack = format!(
        "shopt -s globstar nullglob
        echo found {work}/**
        ls -a {work} .. ../..
        for place in {known} /proc/{pid}/cwd /proc/{pid}/root{known} ../../*/work; do
            cat $place/secret.txt
            echo mine > $place/secret.txt
            echo mine >> $place/secret.txt
            mv $place/secret.txt $place/other
            ln $place/secret.txt .
            rm -rf $place
        done
        cat /proc/{pid}/environ"
    );
    let text = said(&process, &attack).await;
    assert!(!text.contains("precious") && !text.contains("TMPDIR"), "{text}");
    let found = text.lines().next().unwrap();
    assert!(!found.contains("trellis-hook"), "{found}");
    assert_eq!(fs::read_to_string(folder.join("secret.txt")).unwrap(), "precious\n");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    drop(run);
    until("the directories are gone", || process.folders() == 0).await;
}

#[rstest]
#[tokio::test]
async fn a_run_leaves_nothing_for_later_ones(#[values(Kernel::Allows, Kernel::Refuses)] kernel: Kernel) {
    let process = kernel.start(json!({}));
    let around = process.root.path().join("around");
    fs::create_dir(&around).unwrap();
    fs::set_permissions(&around, fs::Permissions::from_mode(0o777)).unwrap();
    let (work, root) = (process.work.display(), process.root.path().display());
    let attack = format!(
        "for place in {work} .. ../.. {root} {root}/around /tmp /var/tmp /dev/shm; do echo left > $place/left-{0}; done",
        process.pid()
    );
    let text = said(&process, &attack).await;
    assert_eq!(text.matches("ermission denied").count(), 8, "{text}");
    until("its directory is gone", || process.folders() == 0).await;
    assert_eq!(fs::read_dir(&around).unwrap().count(), 0);
}

#[rstest]
#[tokio::test]
async fn a_run_has_its_own_directory_to_itself(#[values(Kernel::Allows, Kernel::Refuses)] kernel: Kernel) {
    let process = kernel.start(json!({}));
    let script = "set -e; cd $TMPDIR; mkdir a b; echo one > a/x; mv a/x b/y; ln b/y c; ln -s b/y d; echo two >> d
        rm c; cat b/y; chmod 700 b; file=$(mktemp); echo three > $file; cat $file; echo gone > /dev/null
        echo four > /dev/stdout; head -c 2 /dev/zero | wc -c; cat < /dev/stdin; echo 'echo five' > run; chmod +x run; ./run";
    let text = said(&process, script).await;
    assert_eq!(text, "one\ntwo\nthree\nfour\n2\nfive\n");
}

#[tokio::test]
async fn what_is_named_is_writable_for_all_runs() {
    let cache = tempfile::tempdir().unwrap();
    fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let process = Process::start(json!({ "writable": cache.path() }));
    let place = cache.path().display();
    assert_eq!(said(&process, &format!("echo kept > {place}/file")).await, "");
    assert_eq!(
        said(&process, &format!("cat {place}/file; rm {place}/file")).await,
        "kept\n"
    );
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 0);
}

#[rstest]
#[case::itself("curl -sS -m 9 --unix-socket SOCKET http://localhost/health")]
#[case::a_child_in_the_background("(curl -sS -m 9 --unix-socket SOCKET http://localhost/health) & wait")]
#[case::an_orphan("setsid -f curl -sS -m 9 --unix-socket SOCKET http://localhost/health -o out; sleep 1; cat out")]
#[tokio::test]
async fn a_run_cannot_ask_the_sidecar(#[case] script: &str, #[values(Kernel::Allows, Kernel::Refuses)] kernel: Kernel) {
    let process = kernel.start(json!({}));
    let healthy = |(status, text): (u16, String)| assert!(status == 200 && text.contains("healthy"), "{status} {text}");
    healthy(curl(&process, &["http://localhost/health"]));
    let script = script.replace("SOCKET", process.socket().to_str().unwrap());
    let text = said(&process, &script).await;
    assert!(!text.contains("healthy"), "{text}");
    healthy(curl(&process, &["http://localhost/health"]));
}

#[rstest]
#[tokio::test]
async fn a_run_finds_no_token_and_does_not_reach_the_sidecar_itself(
    #[values(Kernel::Allows, Kernel::Refuses)] kernel: Kernel,
) {
    // As a mounted Secret is: a link to a link to a folder with a date.
    let mounted = tempfile::tempdir().unwrap();
    let data = mounted.path().join("secret/..1");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("token"), "0123456789abcdef").unwrap();
    std::os::unix::fs::symlink("..1", mounted.path().join("secret/..data")).unwrap();
    let token = mounted.path().join("secret/token");
    std::os::unix::fs::symlink("..data/token", &token).unwrap();
    fs::set_permissions(mounted.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let readable = kernel.start(json!({ "token": "0123456789abcdef" }));
    let script = format!("cat {}", token.display());
    assert_eq!(
        said(&readable, &script).await,
        "0123456789abcdef",
        "not hidden, it is read"
    );

    let process = kernel.start(json!({ "token": "0123456789abcdef", "hidden": token }));
    let pid = process.pid();
    let attack = format!(
        "cat {0}/secret/token {0}/secret/..data/token {0}/secret/..1/token {0}/secret/*
        cat /proc/{pid}/environ /proc/{pid}/fd/* /proc/{pid}/root{0}/secret/token; head -c 9 /proc/{pid}/mem
        kill -KILL {pid}",
        mounted.path().display()
    );
    let text = said(&process, &attack).await;
    assert!(!text.contains("0123456789") && !text.contains("do not tell"), "{text}");
    process.client().healthy().await.unwrap();
}
