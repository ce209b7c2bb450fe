//! The two chains of hooks: before the request, on its description; and after it, on the data.
//!
//! ```text
//!  description ─▶ hook ─▶ change ─▶ the request is checked as a whole ─▶ description with the change ─▶ next hook
//!  file ─▶ hook ─▶ next file, the one before it goes ─▶ next hook
//! ```

use std::path::{Path, PathBuf};

use trellis_core::Refusal;
use trellis_sources::{
    chain::request_change::{self, Change, Description},
    failure::{Failure, HookCause},
    reason::Reason,
    redact::Redaction,
    shape::Shape,
};

use super::{
    super::{Order, order::Hook},
    Data, Executor, Failed, Progress,
    chain::{Carried, Driven, Fault, drive},
};

/// What hooks before the request came to.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// What they change of it.
    pub(super) change: Change,
    /// Retries that they used.
    pub(super) retries: u32,
    /// A sentence for each that was ignored.
    pub(super) ignored: Vec<String>,
}

/// A source with hooks needs somebody who runs them.
fn executor(executor: Option<&Executor>) -> Result<&Executor, Failed> {
    executor.ok_or_else(|| Failed::of(Failure::Refused(no_executor())))
}

/// Why a source with hooks is refused where nobody runs them.
pub(in crate::external_source) fn no_executor() -> Refusal {
    Reason::ConfigurationError
        .refuse("this operator runs without a hook executor")
        .field("spec.hooks")
        .hint("remove the hooks, or use spec.transforms, which need none")
}

/// Runs the hooks before the request.
pub(super) async fn before(runner: Option<&Executor>, order: &Order, progress: &Progress) -> Result<Before, Failed> {
    let hooks = &order.inner().pre_request;
    if hooks.is_empty() {
        return Ok(Before::default());
    }
    let mut asking = Asking {
        executor: executor(runner)?,
        order,
        description: order.description(),
        change: Change::default(),
    };
    let Driven { retries, ignored } = drive(&mut asking, hooks, order.inner().max_retries, progress).await?;
    Ok(Before {
        change: asking.change,
        retries,
        ignored,
    })
}

/// A request that hooks change.
struct Asking<'a> {
    executor: &'a Executor,
    order: &'a Order,
    description: Description,
    change: Change,
}

impl Asking<'_> {
    /// What no message may repeat: the values that the hook is given on its input.
    fn hidden(&self, hook: &Hook) -> Redaction {
        let given = self.description.headers.iter().chain(&self.description.query);
        let given = Redaction::of(given.map(|(_, value)| value.as_str()));
        given.and(hook.hidden.clone())
    }
}

impl Carried for Asking<'_> {
    async fn through(&mut self, hook: &Hook) -> Result<(), Fault> {
        let hidden = self.hidden(hook);
        let most = request_change::LIMIT as u64;
        let said = self
            .executor
            .ask(hook, &hidden, &self.description.render(), most)
            .await?;
        let unusable = |refusal: &Refusal| Fault::Failed {
            cause: HookCause::Change,
            told: format!("hook {}: {refusal}", hook.name),
        };
        let change = Change::parse(&said).map_err(|refusal| unusable(&refusal))?;
        let whole = self.change.clone().then(change.clone());
        self.order.source(&whole).map_err(|refusal| unusable(&refusal))?;
        self.description = std::mem::take(&mut self.description).with(&change);
        self.change = whole;
        Ok(())
    }
}

/// Hooks after the request.
pub(super) struct After<'a> {
    /// Where their files lie.
    pub(super) folder: &'a Path,
    /// Most bytes of each.
    pub(super) most: u64,
    /// Retries that are left for them.
    pub(super) retries: u32,
}

impl After<'_> {
    /// Runs them. Gives back what they made of the data, and a sentence for each that was ignored.
    pub(super) async fn run(
        self,
        runner: Option<&Executor>,
        order: &Order,
        data: Data,
        progress: &Progress,
    ) -> Result<(Data, Vec<String>), Failed> {
        let hooks = &order.inner().post_request;
        if hooks.is_empty() {
            return Ok((data, Vec::new()));
        }
        let mut file = Files {
            executor: executor(runner)?,
            secret: matches!(order.inner().shape, Shape::Secret(_)),
            folder: self.folder,
            most: self.most,
            data,
            made: 0,
        };
        let driven = drive(&mut file, hooks, self.retries, progress).await?;
        Ok((file.data, driven.ignored))
    }
}

/// Data that goes from file to file.
struct Files<'a> {
    executor: &'a Executor,
    /// Whether it becomes a Secret: programs repeat in their messages what they cannot read.
    secret: bool,
    folder: &'a Path,
    most: u64,
    data: Data,
    made: usize,
}

impl Files<'_> {
    fn next(&mut self) -> PathBuf {
        self.made += 1;
        self.folder.join(format!("hooked-{}", self.made))
    }
}

impl Carried for Files<'_> {
    async fn through(&mut self, hook: &Hook) -> Result<(), Fault> {
        let file = self.next();
        let most = hook.max_output.unwrap_or(self.most).min(self.most);
        let between = (self.data.file.as_path(), file.as_path());
        let hidden = if self.secret {
            Redaction::whole("(what it said is not shown, because the data becomes a Secret)")
        } else {
            hook.hidden.clone()
        };
        let done = self.executor.pipe(hook, &hidden, between, most).await;
        let goes = if done.is_ok() { &self.data.file } else { &file };
        tokio::fs::remove_file(goes).await.map_err(Fault::Spool)?;
        let size = done?;
        self.data = Data { file, size };
        Ok(())
    }
}
