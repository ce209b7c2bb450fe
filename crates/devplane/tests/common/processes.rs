//! What several tests look at.

use std::time::{Duration, Instant};

/// The command lines of living processes that name `text`.
pub(crate) fn naming(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        // A zombie has no command line.
        if command.contains(text) && entry.file_name() != std::process::id().to_string().as_str() {
            found.push(command);
        }
    }
    found
}

/// Waits up to ten seconds for a condition.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(
            since.elapsed() < Duration::from_secs(10),
            "not within ten seconds: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
