//! `Executor`: runs a hook in the sidecar, if the operator's own whitelist has it.
//!
//! ```text
//!  hook ─▶ whitelist (ours) ─▶ a place ─▶ sidecar, which asks its own ─▶ output
//! ```
//!
//! Invariants: nothing that our whitelist does not have is ever sent; no more is asked at once than the sidecar has places
//! for, so that who waits does so here and not against a limit of time there.

use std::{
    io::{self, Cursor},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    fs::File,
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};
use trellis_core::Refusal;
use trellis_hooks::{Client, Error, Kept, Reload, Report};
use trellis_sources::{failure::HookCause, reason::Reason, redact::Redaction, whitelist::Whitelist};

use super::{
    super::{Order, measured::Measured, order::Hook, settings::HooksSettings},
    chain::Fault,
};

/// The sidecar reads the same file as we do, a moment later or earlier: so long it may be behind.
const BEHIND: Duration = Duration::from_secs(2);

/// Runs hooks.
#[derive(Debug, Clone)]
pub(in crate::external_source) struct Executor {
    client: Client,
    whitelist: Arc<Reload<Whitelist>>,
    places: Arc<Semaphore>,
    measured: Measured,
}

impl Executor {
    pub(super) fn new(settings: &HooksSettings, measured: Measured) -> Self {
        Self {
            client: settings.client.clone(),
            whitelist: Arc::clone(&settings.whitelist),
            places: Arc::new(Semaphore::new(settings.at_once.clamp(1, Semaphore::MAX_PERMITS))),
            measured,
        }
    }

    /// The rules that count now, and how their file stands.
    pub(in crate::external_source) fn rules(&self) -> Kept<Whitelist> {
        self.whitelist.kept()
    }

    /// Told when the rules change.
    pub(in crate::external_source) fn changes(&self) -> tokio::sync::watch::Receiver<Kept<Whitelist>> {
        self.whitelist.changes()
    }

    /// Whether every hook of an order may run.
    pub(in crate::external_source) fn allows(&self, order: &Order) -> Result<(), Refusal> {
        let order = order.inner();
        let lists = [("preRequest", &order.pre_request), ("postRequest", &order.post_request)];
        for (list, hooks) in lists {
            for (place, hook) in hooks.iter().enumerate() {
                self.allowed(hook)
                    .map_err(|refusal| refusal.field(format!("spec.hooks.{list}[{place}]")))?;
            }
        }
        Ok(())
    }

    fn allowed(&self, hook: &Hook) -> Result<(), Refusal> {
        let rules = self.rules();
        let Some(whitelist) = rules.good else {
            let why = match rules.report {
                Report::Broken(why) => format!("is broken: {why}"),
                _ => "is missing".to_owned(),
            };
            return Err(Reason::AccessDenied
                .refuse(format!(
                    "no hook is allowed, because the operator's whitelist of hooks {why}"
                ))
                .hint("whoever runs the operator has to correct it"));
        };
        let asked = &hook.asked;
        let allowed = whitelist.allows(asked.namespace.as_deref(), &asked.command, &asked.args);
        allowed.map(drop)
    }

    /// Runs a hook from one file to another of at most so many bytes, and says how many there are; what `hidden` hides is
    /// in no message.
    pub(super) async fn pipe(
        &self,
        hook: &Hook,
        hidden: &Redaction,
        (from, to): (&Path, &Path),
        most: u64,
    ) -> Result<u64, Fault> {
        let mut asked = self
            .once(hook, hidden, (open(from).await?, &mut create(to).await?), most)
            .await;
        if self.may_be_behind(&asked).await {
            asked = self
                .once(hook, hidden, (open(from).await?, &mut create(to).await?), most)
                .await;
        }
        asked
    }

    /// Runs a hook on a few bytes, and gives back at most so many.
    pub(super) async fn ask(&self, hook: &Hook, hidden: &Redaction, bytes: &[u8], most: u64) -> Result<Vec<u8>, Fault> {
        let input = || Cursor::new(bytes.to_vec());
        let mut output = Vec::new();
        let mut asked = self.once(hook, hidden, (input(), &mut output), most).await;
        if self.may_be_behind(&asked).await {
            output.clear();
            asked = self.once(hook, hidden, (input(), &mut output), most).await;
        }
        asked.map(|_| output)
    }

    async fn once<R, W>(
        &self,
        hook: &Hook,
        hidden: &Redaction,
        (from, to): (R, &mut W),
        most: u64,
    ) -> Result<u64, Fault>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin,
    {
        self.allowed(hook).map_err(Fault::NotAllowed)?;
        let _place = self.places.acquire().await;
        let began = Instant::now();
        let done = self.client.pipe(&hook.asked, from, to, most).await;
        self.measured
            .hook(&hook.name, hook.policy(), done.is_ok(), began.elapsed());
        done.map_err(|error| fault(hook, hidden, error))
    }

    /// Waits, and says so, when the sidecar does not allow what we do.
    async fn may_be_behind(&self, asked: &Result<u64, Fault>) -> bool {
        let behind = matches!(asked, Err(Fault::Denied(_)));
        if behind {
            tokio::time::sleep(BEHIND).await;
        }
        behind
    }
}

async fn open(file: &Path) -> Result<File, Fault> {
    File::open(file).await.map_err(Fault::Spool)
}

async fn create(file: &Path) -> Result<File, Fault> {
    File::create(file).await.map_err(Fault::Spool)
}

fn fault(hook: &Hook, hidden: &Redaction, error: Error) -> Fault {
    let cause = match error {
        Error::NotAllowed(sentence) => {
            let refusal = Reason::AccessDenied.refuse(hook.hidden.hide(&sentence));
            return Fault::Denied(refusal.hint("whoever runs the operator can add it to the whitelist of hooks"));
        }
        Error::Refused(sentence) => {
            return Fault::NotAllowed(Reason::ConfigurationError.refuse(hook.hidden.hide(&sentence)));
        }
        Error::Kept(error) => return Fault::Spool(error),
        Error::Input(why) => return Fault::Spool(io::Error::other(why)),
        Error::Failed { code, .. } => HookCause::Exit(code),
        Error::TimedOut { .. } => HookCause::Timeout,
        Error::TooLarge(_) => HookCause::Output,
        _ => HookCause::Unreachable,
    };
    Fault::Failed {
        cause,
        told: error.told(&hook.name, |text| hidden.hide(text)),
    }
}
