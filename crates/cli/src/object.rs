//! One object of ours that a command names: what is asked of it, and what it says once that was carried out.
//!
//! ```text
//!  KIND NAME ─▶ annotation with a new value ─▶ watched until lastHandledReconcileAt is that value ─▶ Told
//! ```
//!
//! Invariants: what an object said before it was asked is never told as the answer; nothing is waited for without an end.

use std::{collections::BTreeMap, fmt::Debug, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, pin_mut};
use jiff::Timestamp;
use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher::watch_object},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::Instant;
use trellis_api::{CommonStatus, ExternalSource, Managed, ResiliencePolicy};
use trellis_core::condition::{READY, RECONCILING};
use trellis_runtime::reason::PROGRESSING;

use crate::{live, out};

/// As whom fields are written that a person sets.
const MANAGER: &str = "trellis-cli";

/// The object that a command is about.
#[derive(clap::Args)]
pub(crate) struct Named {
    /// Its kind
    #[arg(value_enum, ignore_case = true, value_name = "KIND")]
    pub(crate) kind: Kind,
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Its namespace
    #[arg(long, short, default_value = "default", value_name = "NAMESPACE")]
    namespace: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// How long is waited.
#[derive(clap::Args)]
pub(crate) struct Wait {
    /// How long to wait until it is carried out
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "DURATION")]
    pub(crate) timeout: Duration,
}

/// A kind of ours.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// External sources for Flux
    #[value(name = "externalsource", aliases = ["externalsources", "external-source", "extsrc", "externalsource.source.flux.oddkin.co", "externalsources.source.flux.oddkin.co"])]
    ExternalSource,
    /// Resilience policies for Linkerd
    #[value(name = "resiliencepolicy", aliases = ["resiliencepolicies", "resilience-policy", "respol", "resiliencepolicy.resilience.trellis.dev", "resiliencepolicies.resilience.trellis.dev"])]
    ResiliencePolicy,
}

/// A type of ours that is watched and patched.
trait Ours:
    Managed + Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + 'static
{
}

impl<K> Ours for K where
    K: Managed
        + Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static
{
}

/// What is asked of an object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// To be carried out now; with the annotation that asks for everything anew, if the kind has one.
    Reconcile {
        /// That annotation.
        force: Option<&'static str>,
    },
    /// To be left alone.
    Suspend,
    /// To be carried out again.
    Resume,
}

/// What an object says of itself.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    kind: String,
    namespace: String,
    name: String,
    suspended: bool,
    ready: String,
    reason: String,
    message: String,
}

impl Named {
    /// Asks it, waits where there is something to wait for, and shows what it says. Exit code 1 when it is not ready.
    pub(crate) fn ask(&self, ask: Ask, patience: Duration) -> anyhow::Result<ExitCode> {
        let told = crate::wait_for(async {
            let client = live::client().await?;
            match self.kind {
                Kind::ExternalSource => self.ask_of::<ExternalSource>(client, ask, patience).await,
                Kind::ResiliencePolicy => self.ask_of::<ResiliencePolicy>(client, ask, patience).await,
            }
        })?;
        if self.json {
            out::data(serde_json::to_string_pretty(&told)?);
        } else {
            out::line(&told);
        }
        Ok(if told.suspended || told.ready == "True" {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    async fn ask_of<K: Ours>(&self, client: Client, ask: Ask, patience: Duration) -> anyhow::Result<Told> {
        let api: Api<K> = Api::namespaced(client, &self.namespace);
        let (kind, name, namespace) = (K::kind(&()), &self.name, &self.namespace);
        let found = api.get_opt(name).await;
        let found = found.with_context(|| format!("cannot read {kind} {name} in namespace {namespace}"))?;
        let found = found.with_context(|| format!("there is no {kind} {name} in namespace {namespace}"))?;
        if matches!(ask, Ask::Reconcile { .. }) && found.suspended() {
            bail!("{kind} {namespace}/{name} is suspended: nothing is carried out until trellis resume");
        }
        let token = Timestamp::now().to_string();
        let asked = api
            .patch(
                name,
                &PatchParams::apply(MANAGER),
                &Patch::Merge(patch::<K>(ask, &token)),
            )
            .await
            .with_context(|| format!("cannot change {kind} {name} in namespace {namespace}"))?;
        if ask == Ask::Suspend {
            return Ok(told(&asked));
        }
        out::note(format_args!("{kind} {namespace}/{name}: asked at {token}"));
        let handled = tokio::time::timeout_at(Instant::now() + patience, handled(&api, &asked, &token)).await;
        let Ok(handled) = handled else {
            let last = api.get(name).await.map(|last| told(&last).to_string());
            bail!(
                "not carried out within {patience:?}; is an operator running that serves {namespace}? Last seen: {}",
                last.unwrap_or_else(|error| error.to_string())
            );
        };
        handled
    }
}

/// The change that asks.
fn patch<K: Ours>(ask: Ask, token: &str) -> Value {
    let asked: BTreeMap<&str, &str> = match ask {
        Ask::Suspend => return json!({ "spec": { "suspend": true } }),
        Ask::Reconcile { force: Some(force) } => [(K::REQUESTED_AT, token), (force, token)].into(),
        Ask::Reconcile { force: None } | Ask::Resume => [(K::REQUESTED_AT, token)].into(),
    };
    if ask == Ask::Resume {
        json!({ "metadata": { "annotations": asked }, "spec": { "suspend": false } })
    } else {
        json!({ "metadata": { "annotations": asked } })
    }
}

/// Watches until what was asked is carried out, and says on the way what goes on.
async fn handled<K: Ours>(api: &Api<K>, asked: &K, token: &str) -> anyhow::Result<Told> {
    let name = asked.name_any();
    let objects = watch_object(api.clone(), &name).default_backoff();
    pin_mut!(objects);
    let mut shown = String::new();
    while let Some(seen) = objects.next().await {
        // A watch that broke is begun again.
        let Ok(seen) = seen else { continue };
        let Some(object) = seen.filter(|object| object.uid() == asked.uid()) else {
            bail!("{} {name} was deleted meanwhile", K::kind(&()));
        };
        if object.annotations().get(K::REQUESTED_AT).map(String::as_str) != Some(token) {
            bail!("somebody else asked {} {name} meanwhile; ask again", K::kind(&()));
        }
        match progress(&object, token) {
            Progress::Settled => return Ok(told(&object)),
            Progress::Under(way) if way != shown => {
                out::note(&way);
                shown = way;
            }
            Progress::Under(_) => {}
        }
    }
    bail!("{} {name} cannot be watched", K::kind(&()))
}

/// How far what was asked is.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// Under way, and what is said of it; empty when nothing is.
    Under(String),
    /// It was carried out, well or not.
    Settled,
}

fn progress<K: Ours>(object: &K, token: &str) -> Progress {
    let Some(common) = object.status().map(K::common) else {
        return Progress::Under(String::new());
    };
    let current = common.observed_generation == object.meta().generation;
    if !current || common.last_handled_reconcile_at.as_deref() != Some(token) {
        return Progress::Under(String::new());
    }
    let ready = condition(common, READY).filter(|ready| ready.status != "Unknown");
    let under_way = condition(common, RECONCILING).filter(|under_way| under_way.status == "True");
    match (ready, under_way) {
        // One that waits to be tried again has been tried, and says why.
        (Some(_), under_way) if under_way.is_none_or(|under_way| under_way.reason != PROGRESSING) => Progress::Settled,
        (_, under_way) => Progress::Under(under_way.map(|under_way| under_way.message.clone()).unwrap_or_default()),
    }
}

fn condition<'a>(common: &'a CommonStatus, type_: &str) -> Option<&'a Condition> {
    common.conditions.iter().find(|condition| condition.type_ == type_)
}

fn told<K: Ours>(object: &K) -> Told {
    let ready = object.status().and_then(|status| condition(K::common(status), READY));
    let text = |field: fn(&Condition) -> &String, missing: &str| {
        ready.map_or_else(|| missing.to_owned(), |ready| field(ready).clone())
    };
    Told {
        kind: K::kind(&()).into_owned(),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        suspended: object.suspended(),
        ready: text(|ready| &ready.status, "Unknown"),
        reason: text(|ready| &ready.reason, "NotReported"),
        message: text(|ready| &ready.message, "no controller has reported on it yet"),
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let suspended = if self.suspended { " (suspended)" } else { "" };
        write!(
            out,
            "{} {}/{}{suspended}: Ready={} {}: {}",
            self.kind, self.namespace, self.name, self.ready, self.reason, self.message
        )
    }
}

/// A duration as Kubernetes writes it, more than nothing.
fn duration(text: &str) -> Result<Duration, String> {
    let read = trellis_sources::interval::duration(text).filter(|read| !read.is_zero());
    read.ok_or_else(|| "write it with its unit, such as 30s or 5m".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;
    use kube::CustomResourceExt as _;

    use super::*;

    #[test]
    fn a_kind_is_called_as_kubectl_knows_it() {
        for (kind, definition) in [
            (Kind::ExternalSource, ExternalSource::crd()),
            (Kind::ResiliencePolicy, ResiliencePolicy::crd()),
        ] {
            let names = definition.spec.names;
            let (group, singular) = (definition.spec.group, names.kind.to_lowercase());
            let whole = [&singular, &names.plural].map(|name| format!("{name}.{group}"));
            let called = [names.kind, singular, names.plural].into_iter();
            for name in called.chain(names.short_names.into_iter().flatten()).chain(whole) {
                assert!(Kind::from_str(&name, true).is_ok_and(|found| found == kind), "{name}");
            }
        }
    }

    fn source(handled: &str, generation: i64, conditions: &Value) -> ExternalSource {
        serde_json::from_value(json!({
            "apiVersion": "source.flux.oddkin.co/v1alpha1", "kind": "ExternalSource",
            "metadata": { "name": "s", "namespace": "n", "generation": 2 },
            "spec": { "interval": "1m", "generator": { "type": "http", "http": { "url": "https://a.example/" } } },
            "status": { "lastHandledReconcileAt": handled, "observedGeneration": generation, "conditions": conditions },
        }))
        .unwrap()
    }

    fn said(type_: &str, status: &str, reason: &str) -> Value {
        json!({ "type": type_, "status": status, "reason": reason, "message": format!("{type_} {reason}"),
                "lastTransitionTime": "2026-01-01T00:00:00Z" })
    }

    #[test]
    fn an_answer_is_of_this_question_and_this_spec_and_no_state_in_between() {
        let ready = || json!([said("Ready", "True", "Succeeded")]);
        assert_eq!(progress(&source("now", 2, &ready()), "now"), Progress::Settled);
        for (handled, generation) in [("before", 2), ("now", 1)] {
            let progress = progress(&source(handled, generation, &ready()), "now");
            assert_eq!(progress, Progress::Under(String::new()));
        }
        let fetching = json!([
            said("Ready", "True", "Succeeded"),
            said("Reconciling", "True", "Progressing")
        ]);
        let under_way = Progress::Under("Reconciling Progressing".to_owned());
        assert_eq!(progress(&source("now", 2, &fetching), "now"), under_way);
        let first = json!([said("Ready", "Unknown", "Progressing")]);
        assert_eq!(
            progress(&source("now", 2, &first), "now"),
            Progress::Under(String::new())
        );
        let failed = json!([
            said("Ready", "False", "FetchFailed"),
            said("Reconciling", "True", "FetchFailed")
        ]);
        let failed = source("now", 2, &failed);
        assert_eq!(progress(&failed, "now"), Progress::Settled);
        assert_eq!(
            told(&failed).to_string(),
            "ExternalSource n/s: Ready=False FetchFailed: Ready FetchFailed"
        );
    }

    #[test]
    fn each_kind_is_asked_by_its_own_annotation() {
        let force = Ask::Reconcile {
            force: Some("reconcile.fluxcd.io/forceAt"),
        };
        assert_eq!(
            patch::<ExternalSource>(force, "now"),
            json!({ "metadata": { "annotations": {
                "reconcile.fluxcd.io/requestedAt": "now", "reconcile.fluxcd.io/forceAt": "now" } } })
        );
        assert_eq!(
            patch::<ResiliencePolicy>(Ask::Resume, "now"),
            json!({ "metadata": { "annotations": { "reconcile.trellis.dev/requestedAt": "now" } },
                    "spec": { "suspend": false } })
        );
        assert_eq!(
            patch::<ExternalSource>(Ask::Suspend, "now"),
            json!({ "spec": { "suspend": true } })
        );
    }
}
