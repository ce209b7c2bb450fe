//! Long work shown: a spinner per piece on a terminal, a line per piece elsewhere.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use trellis_devplane::{Progress, progress::Lines};

/// What fits where stderr goes.
pub(crate) fn progress() -> Arc<dyn Progress> {
    if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        Arc::new(Spinners::default())
    } else {
        Arc::new(Lines)
    }
}

#[derive(Default)]
struct Spinners {
    all: MultiProgress,
    running: Mutex<HashMap<String, ProgressBar>>,
}

impl Spinners {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<String, ProgressBar>) -> T) -> T {
        act(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Progress for Spinners {
    fn started(&self, what: &str) {
        let style = ProgressStyle::with_template("{spinner} {prefix} {elapsed:>5} {msg:.dim}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = self.all.add(
            ProgressBar::new_spinner()
                .with_style(style)
                .with_prefix(what.to_owned()),
        );
        bar.enable_steady_tick(Duration::from_millis(120));
        self.with(|running| running.insert(what.to_owned(), bar));
    }

    fn step(&self, what: &str, detail: &str) {
        if let Some(bar) = self.with(|running| running.get(what).cloned()) {
            bar.set_message(detail.to_owned());
        }
    }

    fn finished(&self, what: &str, elapsed: Duration) {
        if let Some(bar) = self.with(|running| running.remove(what)) {
            bar.finish_and_clear();
        }
        self.note(&format!("{what}: done in {:.1} s", elapsed.as_secs_f64()));
    }

    fn note(&self, text: &str) {
        // A terminal that is gone cannot be told so.
        let _ = self.all.println(text);
    }
}
