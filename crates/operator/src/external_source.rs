//! `ExternalSource`: data of an HTTP server or an object store as an artifact that Flux consumes.
//!
//! ```text
//!  spec, Secrets, ExternalArtifact ─┐
//!  stored file, last round ─────────┼─ see ─▶ plan: ExternalArtifact, acts ─▶ apply ─▶ act ─▶ report
//!  clock ───────────────────────────┘                                          │
//!             round: Production (hooks, fetch, pack) ─▶ store ◀─ when due or changed ┤
//!                        collect: stored files that nobody needs any more ◀──────┘
//! ```
//!
//! Invariants: a file can be downloaded before an `ExternalArtifact` names it, and goes after none does; what was published
//! last is served through every failure; while nothing changes, nothing is written.

mod artifacts;
mod due;
mod measured;
mod news;
mod order;
mod policy;
mod production;
mod publish;
mod report;
mod round;
mod run;
mod see;
mod settings;
mod sweep;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream, stream::BoxStream};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Secret, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::ResourceExt as _;
use serde::{Serialize, Serializer};
use tokio::sync::watch;
use trellis_api::external_source::{
    EXECUTING_HOOKS, ExternalSource, ExternalSourceStatus, FETCHING, FINALIZER, STORING,
};
use trellis_bindings::flux::ExternalArtifact;
use trellis_core::Refusal;
use trellis_hooks::Report;
use trellis_runtime::{
    Error, Item, Kinds, Outcome, Permission, Plan, Reconcile, Reference, Reported, Result, Says, World,
    permission::{Place, READ},
};
use trellis_sources::{
    failure::Next,
    pipeline::{PipelineHash, Stored},
    reason::Reason,
    retention::{self, Retention},
    revision::ArtifactPath,
};
use trellis_store::Storage;

use self::{
    news::{News, Teller},
    round::{Came, Record, Round, Rounds},
    see::Away,
};

pub use artifacts::{Artifacts, Backend, Options};
pub use order::{Order, Rendered, RenderedHook, RenderedRequest, Secrets, secrets};
pub use policy::Policy;
pub use production::{Failed, Known, Packed, Product, Production, Progress, Step};
pub use settings::{HooksSettings, Settings};

/// Fetches, packages and publishes.
pub struct ExternalSources {
    settings: Settings,
    production: Production,
    storage: Arc<dyn Storage>,
    rounds: Rounds,
    teller: Teller,
}

/// Everything planning may know.
pub struct Seen {
    /// What is asked of upstream, or why it cannot be asked.
    order: Result<Order, Refusal>,
    /// What makes the artifact, beside upstream's body.
    pipeline: PipelineHash,
    /// What the user should know of what decides about the source.
    notes: Vec<String>,
    /// What is published.
    published: Option<Arc<ExternalArtifact>>,
    /// What is to be published: of the last round, or as the status says.
    record: Option<Record>,
    /// Its file; as it was when the storage is away.
    stored: Stored,
    /// Why the storage does not answer, if it does not.
    away: Option<Away>,
    /// The last round of this process.
    round: Option<Round>,
    /// The stored files, if they have to be looked through.
    files: Option<Vec<retention::Stored>>,
    retention: Retention,
    /// Failures in a row until it is left to the interval.
    attempts: u32,
    /// Address below which stored files are served, without a slash at its end.
    base: String,
    now: Timestamp,
}

/// What is no object.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Act {
    /// Ask upstream, and store what it has.
    Round(Box<Asked>),
    /// Remove these stored files.
    Collect(Vec<String>),
    /// Tell users of the artifact.
    Tell(Box<Told>),
}

/// News, and the artifact that they are about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Told {
    news: News,
    #[serde(skip)]
    about: Arc<ExternalArtifact>,
}

/// A round to make.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Asked {
    /// What is asked.
    order: Order,
    /// What upstream said before, if that decides.
    #[serde(serialize_with = "conditional")]
    known: Option<Known>,
    /// The artifact that there is.
    #[serde(skip)]
    record: Option<Record>,
    #[serde(skip)]
    pipeline: PipelineHash,
    /// Failures in a row before this round.
    failures: u32,
}

impl ExternalSources {
    /// A controller that fetches with `generators` and keeps what it fetched in `storage`.
    #[must_use]
    pub fn new(settings: Settings, generators: trellis_fetch::Generators, storage: Arc<dyn Storage>) -> Self {
        Self {
            production: Production::new(&settings, generators),
            teller: Teller::new(settings.events.as_ref(), Self::NAME),
            settings,
            storage,
            rounds: Rounds::default(),
        }
    }
}

impl Seen {
    fn url(&self, path: &ArtifactPath) -> String {
        format!("{}/{path}", self.base)
    }

    /// The record, as long as its file is there.
    fn servable(&self) -> Option<&Record> {
        self.record.as_ref().filter(|_| self.stored == Stored::Verified)
    }
}

impl Reconcile for ExternalSources {
    const NAME: &'static str = "external-source";
    const COUNTED: &'static str = "sources";
    const FINALIZER: &'static str = FINALIZER;
    const NEEDS: &'static [Permission] = &[
        Permission::on(
            "source.flux.oddkin.co",
            "externalsources",
            &["get", "list", "watch", "patch"],
        ),
        Permission::on("source.flux.oddkin.co", "externalsources/status", &["patch"]),
        Permission::on(
            "source.toolkit.fluxcd.io",
            "externalartifacts",
            &["get", "list", "watch", "create", "patch", "delete"],
        ),
        Permission::on("source.toolkit.fluxcd.io", "externalartifacts/status", &["patch"]),
        Permission::on("", "secrets", READ),
        Permission::on("apiextensions.k8s.io", "customresourcedefinitions", READ)
            .named(&["externalartifacts.source.toolkit.fluxcd.io"])
            .at(Place::Cluster),
    ];
    // A round waits for others, mostly.
    const CONCURRENCY: u16 = 64;
    // As Flux does: a suspended source keeps its conditions.
    const TELLS_SUSPENSION: bool = false;
    const PROGRESS: &'static [&'static str] = &[EXECUTING_HOOKS, FETCHING, STORING];

    type Object = ExternalSource;
    type Seen = Seen;
    type Act = Act;

    fn kinds(kinds: Kinds) -> Kinds {
        kinds.owned_if_served::<ExternalArtifact>(Self::NAME).named::<Secret>()
    }

    fn refers(&self, source: &ExternalSource) -> Vec<Reference> {
        let namespace = source.namespace();
        let secrets = order::secrets(&source.spec).into_iter();
        let mut references: Vec<_> = secrets
            .map(|name| Reference::to::<Secret>(namespace.as_deref(), name))
            .collect();
        let definition = "externalartifacts.source.toolkit.fluxcd.io";
        references.push(Reference::to::<CustomResourceDefinition>(None, definition));
        references
    }

    fn outside(&self) -> BoxStream<'static, ()> {
        let Some(executor) = self.production.executor() else {
            return stream::pending().boxed();
        };
        // Of what hooks may run.
        let changed = |mut rules: watch::Receiver<_>| async move {
            rules.changed().await.ok()?;
            Some(((), rules))
        };
        stream::unfold(executor.changes(), changed).boxed()
    }

    fn concerned(&self, source: &ExternalSource) -> bool {
        !source.spec.pre_request().is_empty() || !source.spec.post_request().is_empty()
    }

    fn levels(&self) -> Vec<(&'static str, &'static str, i64)> {
        let executor = self.production.executor().into_iter();
        let good = executor.map(|executor| i64::from(executor.rules().report == Report::Good));
        let help = "1 while the whitelist of hooks is good, 0 while an older one counts or none.";
        good.map(|good| ("hook_whitelist_good", help, good)).collect()
    }

    async fn see(&self, world: &World, source: &ExternalSource) -> Result<Seen> {
        self.look(world, source).await
    }

    fn plan(source: &ExternalSource, seen: &Seen) -> Result<Plan<Act>, Refusal> {
        if let Some(away) = &seen.away {
            // Nothing is taken back because nobody can say whether it is there.
            let message = report::away(seen, &away.why);
            let waiting = Plan::nothing().again(away.again);
            return Ok(waiting.waiting(Reason::StorageOperationFailed.as_str(), message));
        }
        let mut plan = Plan::nothing();
        // What is published stays published, whatever becomes of the rest; without its file it is taken back.
        if seen.record.is_some() {
            let artifact = publish::external_artifact(source, seen, seen.servable());
            let artifact = Item::own_with_status(&artifact);
            plan = plan.and(artifact.map_err(|error| Reason::ConfigurationError.refuse(error.chain()))?);
        }
        let order = match &seen.order {
            Ok(order) => order,
            Err(refusal) => return Ok(plan.refusing(report::refused(seen, refusal))),
        };
        if due::is_due(source, seen) {
            return Ok(plan.act(Act::Round(Box::new(due::asked(source, seen, order)))));
        }
        if let Some(names) = garbage(seen) {
            plan = plan.act(Act::Collect(names));
        }
        let Some(round) = &seen.round else { return Ok(plan) };
        // What is published by this plan is told when the watch shows it.
        if let (Some(news), Some(about)) = (&round.news, &seen.published)
            && news.is_of(about)
        {
            let (news, about) = (news.clone(), Arc::clone(about));
            plan = plan.act(Act::Tell(Box::new(Told { news, about })));
        }
        let next = [round.due, round.collect].into_iter().flatten().min();
        if let Some(next) = next {
            plan = plan.again(until(seen.now, next));
        }
        Ok(match &round.came {
            Came::Done => plan,
            Came::Failed {
                failure, told, next, ..
            } => {
                let message = report::failed(seen, told, *next, round.due);
                match next {
                    Next::In(_) | Next::AtInterval => plan.waiting(failure.reason(), message),
                    Next::GivenUp => plan.refusing(Reason::MaxRetriesExceeded.refuse(message)),
                    _ => plan.refusing(Refusal::new(failure.reason(), message)),
                }
            }
        })
    }

    async fn act(&self, source: &ExternalSource, act: &Act, says: &Says) -> Result<()> {
        match act {
            Act::Round(asked) => self.round(source, asked, says).await,
            Act::Collect(names) => self.collect(source, names).await,
            Act::Tell(told) => {
                self.teller.tell(&told.news, source, &told.about, says).await;
                let (namespace, name) = (source.namespace().unwrap_or_default(), source.name_any());
                self.rounds.told(&namespace, &name, &told.news);
                Ok(())
            }
        }
    }

    async fn forget(&self, source: &ExternalSource) -> Result<()> {
        let (namespace, name) = (source.namespace().unwrap_or_default(), source.name_any());
        self.storage
            .delete_prefix(&see::folder(&namespace, &name)?)
            .await
            .map_err(|error| storage(error.told()))?;
        self.rounds.forget(&namespace, &name);
        self.settings.measured.forget(measured::Of {
            namespace: &namespace,
            name: &name,
        });
        Ok(())
    }

    fn report(source: &ExternalSource, seen: &Seen, outcome: &Outcome) -> Reported<ExternalSourceStatus> {
        report::report(source, seen, outcome)
    }
}

/// In a printed plan: whether upstream may answer that nothing changed.
#[expect(clippy::ref_option, reason = "serde passes the field")]
fn conditional<S: Serializer>(known: &Option<Known>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bool(known.is_some())
}

/// The stored files that go, when they have been looked through.
fn garbage(seen: &Seen) -> Option<Vec<String>> {
    let files = seen.files.as_ref()?;
    let current = seen.servable().map(|record| record.path.to_string());
    Some(seen.retention.garbage(files, current.as_deref(), seen.now))
}

fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default()
}

/// The storage failed: it is asked again.
fn storage(message: String) -> Error {
    Error::Outside {
        what: "the storage",
        reason: Reason::StorageOperationFailed.as_str(),
        message,
    }
}

fn unusable(why: &str) -> Error {
    Reason::StorageOperationFailed.refuse(why).into()
}
