//! What a round tells while it lasts: a condition that says what it is at, once it lasts long enough to be looked at.
//!
//! ```text
//!  steps ─▶ stage (the last one counts) ─▶ after 2 s: Fetching │ ExecutingHooks │ Storing, then whenever it is another
//! ```
//!
//! Invariants: a quick round tells nothing, since each telling is a write; what is told is what goes on when it is told;
//! the runtime takes it back when the round is over.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use trellis_api::external_source::{EXECUTING_HOOKS, FETCHING, STORING};
use trellis_runtime::Says;
use trellis_sources::reason::Reason;

use super::super::production::{Progress, Step};

/// How long a round goes on before it is told what it is at.
const WORTH_TELLING: Duration = Duration::from_secs(2);

/// What a round is at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Stage {
    #[default]
    Begun,
    Hook(String),
    /// With the announced bytes.
    Fetching(Option<u64>),
    /// Shaping and packing too: what is stored comes of it.
    Storing(String),
}

/// Where a round says what it is at.
#[derive(Debug, Clone)]
pub(super) struct Tells(Arc<watch::Sender<Stage>>);

/// Somebody to tell, and what passes it on; that never ends by itself.
pub(super) fn teller(says: &Says, shown: String) -> (Tells, impl Future<Output = Infallible>) {
    let (sender, stages) = watch::channel(Stage::default());
    (Tells(Arc::new(sender)), pass_on(says.clone(), shown, stages))
}

impl Tells {
    /// Takes the steps of a production.
    pub(super) fn progress(&self) -> Progress {
        let tells = self.clone();
        Arc::new(move |step| {
            tells.at(match step {
                Step::Hook(name) => Stage::Hook(name.to_owned()),
                Step::Fetching(transferred) => Stage::Fetching(transferred.total),
                other => Stage::Storing(other.to_string()),
            });
        })
    }

    /// The artifact goes to the storage.
    pub(super) fn storing(&self, bytes: u64) {
        self.at(Stage::Storing(format!("storing {bytes} bytes")));
    }

    fn at(&self, stage: Stage) {
        self.0.send_if_modified(|now| {
            let other = *now != stage;
            *now = stage;
            other
        });
    }
}

async fn pass_on(says: Says, shown: String, mut stages: watch::Receiver<Stage>) -> Infallible {
    tokio::time::sleep_until(Instant::now() + WORTH_TELLING).await;
    loop {
        let stage = stages.borrow_and_update().clone();
        let told = match stage {
            Stage::Begun => None,
            Stage::Hook(name) => Some((EXECUTING_HOOKS, format!("running hook {name}"))),
            Stage::Fetching(None) => Some((FETCHING, format!("fetching {shown}"))),
            Stage::Fetching(Some(total)) => Some((FETCHING, format!("fetching {shown} ({total} bytes)"))),
            Stage::Storing(what) => Some((STORING, what)),
        };
        if let Some((condition, message)) = told {
            says.now(condition, Reason::Progressing.as_str(), message);
        }
        if stages.changed().await.is_err() {
            // Nothing more is told; the round goes on.
            std::future::pending::<()>().await;
        }
    }
}
