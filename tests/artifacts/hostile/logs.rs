//! What this process logs while its controllers meet hostile upstreams, at the lowest level of our crates.
//!
//! Invariant: it is counted and looked through, not kept.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, OnceLock},
};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use super::SECRET;

/// Starts with the first test that asks.
static LOGS: OnceLock<Logs> = OnceLock::new();

/// From now on what is logged is looked through.
pub(super) fn keep() {
    LOGS.get_or_init(Logs::start);
}

/// How many lines there were, and those that hold a secret.
pub(super) fn seen() -> (usize, Vec<String>) {
    LOGS.get().unwrap().0.lock().unwrap().clone()
}

/// Everything that this process logs about sources, counted, and the lines that hold a secret.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<(usize, Vec<String>)>>);

impl Logs {
    fn start() -> Self {
        let logs = Self::default();
        let ours = ["fetch", "operator", "runtime", "sources", "store"].map(|name| format!("trellis_{name}=trace"));
        let filter = EnvFilter::new(format!("info,{}", ours.join(",")));
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(logs.clone());
        subscriber.init();
        logs
    }
}

impl Write for Logs {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut seen = self.0.lock().unwrap();
        seen.0 += 1;
        let text = String::from_utf8_lossy(line);
        if text.contains(SECRET) {
            seen.1.push(text.into_owned());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Logs {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
