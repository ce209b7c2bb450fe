//! `Progress`: what a person waiting for a build or a start is told.

use std::time::Duration;

/// Receives the steps of builds and starts. Calls come from several tasks; none may block for long.
pub trait Progress: Send + Sync {
    /// A piece of work began; `what` names it, for example `building kubernetes-1.34 (kube-apiserver)`.
    fn started(&self, what: &str);
    /// Something small moved inside a piece of work, for example the package being compiled. Often called.
    fn step(&self, what: &str, detail: &str) {
        let _ = (what, detail);
    }
    /// A piece of work ended well.
    fn finished(&self, what: &str, elapsed: Duration);
    /// A sentence worth reading, such as that another process is building the same peer.
    fn note(&self, text: &str);
}

/// Says nothing. The default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn started(&self, _: &str) {}
    fn finished(&self, _: &str, _: Duration) {}
    fn note(&self, _: &str) {}
}

/// One line per event on standard error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lines;

impl Progress for Lines {
    fn started(&self, what: &str) {
        eprintln!("{what} ...");
    }
    fn finished(&self, what: &str, elapsed: Duration) {
        eprintln!("{what}: done in {:.1} s", elapsed.as_secs_f64());
    }
    fn note(&self, text: &str) {
        eprintln!("{text}");
    }
}
