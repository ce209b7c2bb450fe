//! What upstream's answers take in memory at most. Each is read by a process of its own: this test binary, started again.

#![expect(
    clippy::disallowed_methods,
    reason = "the crate starts nothing; what it takes is measured in a process of its own"
)]

use std::process::Command;

use rstest::rstest;
use trellis_sources::{
    destination::Destination,
    path::EntryPath,
    shape::{Payload, Shape},
    transform::{Bounds, Transform},
};

/// What the other process is told.
const TASK: &str = "TRELLIS_SOURCES_TEST_TASK";

/// A list of lists, or of objects of one field, in that many bytes: what takes most for its length.
fn dense(item: &str, bytes: usize) -> Vec<u8> {
    let mut text = format!("[{item}");
    while text.len() + item.len() + 2 < bytes {
        text.push(',');
        text.push_str(item);
    }
    text.push(']');
    text.into_bytes()
}

/// Objects with as much text as fits.
fn long(bytes: usize) -> Vec<u8> {
    let text = "x".repeat(bytes - 100);
    format!(r#"{{"apiVersion":"v1","kind":"A","metadata":{{"name":"a"}},"text":"{text}"}}"#).into_bytes()
}

/// The other process's side: reads, tells what came of it and what it took. On its own it does nothing.
#[test]
fn task() {
    let Ok(task) = std::env::var(TASK) else { return };
    let (how, what) = task.split_once(' ').unwrap();
    let bytes = if how == "manifest" { 33_000_000 } else { 16_500_000 };
    let payload = match what {
        "lists" => dense("[]", bytes),
        "objects" => dense(r#"{"a":1}"#, bytes),
        "few" => dense("[]", 1_400_000),
        _ => long(bytes),
    };
    let said = if how == "manifest" {
        let (place, name) = (Destination::default(), EntryPath::parse("a.yaml").unwrap());
        let shaped = Shape::Manifest.shape(&place, &name, None, Payload::Whole(&payload));
        shaped.map(|_| ()).err().map(|refusal| refusal.reason)
    } else {
        let transform = Transform::cel("1", how).unwrap();
        transform
            .run(&payload, &Bounds::default())
            .err()
            .map(|refusal| refusal.reason)
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!(
        "\nsaid {} {}",
        said.unwrap_or("nothing"),
        peak.trim().trim_end_matches(" kB")
    );
}

/// The operator has 256 MiB in the chart, and two of them are read at once, but one where it is large.
#[rstest]
#[case::lists("1", "lists", "SizeLimitExceeded")]
#[case::objects("1", "objects", "SizeLimitExceeded")]
#[case::as_many_as_may_be("body", "few", "nothing")]
#[case::text("body", "long", "nothing")]
#[case::manifest_lists("manifest", "lists", "PermanentError")]
#[case::manifest_objects("manifest", "objects", "PermanentError")]
#[case::manifest_text("manifest", "long", "nothing")]
fn no_answer_takes_the_operator_down(#[case] how: &str, #[case] what: &str, #[case] comes_to: &str) {
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "task", "--nocapture", "--quiet"])
        .env(TASK, format!("{how} {what}"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    let said = text.lines().find_map(|line| line.strip_prefix("said ")).unwrap();
    let (reason, peak) = said.split_once(' ').unwrap();
    let mebibytes = peak.parse::<u64>().unwrap() / 1024;
    eprintln!("{how} {what}: {reason}, {mebibytes} MiB");
    assert_eq!(reason, comes_to);
    assert!(mebibytes < 160, "{mebibytes} MiB");
}
