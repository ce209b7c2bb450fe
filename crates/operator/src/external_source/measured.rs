//! Metrics of sources, beside those that every controller has.
//!
//! ```text
//!  round, request, hook, package, store ─▶ counted, by source or by what it was ─▶ /metrics
//!  source goes ─▶ its series go
//! ```
//!
//! The names `externalsource_…` and `gotk_reconcile_duration_seconds` are those that dashboards of such controllers and of
//! Flux ask for.
//!
//! Invariant: a label is the source, or of a closed set, or the name of a hook as a spec writes it; nothing of a source
//! stays when it goes.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter>;
type Times = Family<Labels, Histogram, fn() -> Histogram>;

/// How many names of hooks are told apart: anybody who may make sources makes them up.
const HOOKS: usize = 200;
/// The name of the others.
const OTHERS: &str = "(others)";

/// 10 ms to 164 s: from a server that says that nothing changed to a large file over a slow link.
fn times() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 4.0, 8))
}

/// What a source is counted by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Of<'a> {
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

impl Of<'_> {
    fn labels(self) -> Labels {
        vec![("namespace", self.namespace.to_owned()), ("name", self.name.to_owned())]
    }

    /// As Flux counts its kinds.
    fn flux(self) -> Labels {
        let mut labels = self.labels();
        labels.insert(0, ("kind", "ExternalSource".to_owned()));
        labels
    }

    fn round(self, generator: &str, success: bool) -> Labels {
        let mut labels = self.labels();
        labels.extend([("source_type", generator.to_owned()), ("success", success.to_string())]);
        labels
    }
}

/// What upstream said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// Data of so many bytes.
    Data(u64),
    /// That nothing changed.
    Unchanged,
    /// Nothing of use.
    Nothing,
}

/// What is done to artifacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Package,
    Store,
    Collect,
}

impl Operation {
    fn label(self) -> &'static str {
        match self {
            Self::Package => "package",
            Self::Store => "store",
            Self::Collect => "collect",
        }
    }
}

/// The metrics. Cheap to clone; clones count together.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    rounds: Counters,
    round_times: Times,
    flux_times: Times,
    active: Family<Labels, Gauge>,
    requests: Counters,
    request_times: Times,
    unchanged: Counters,
    bytes: Counters,
    hooks: Counters,
    hook_times: Times,
    hook_names: Arc<Mutex<HashSet<String>>>,
    operations: Counters,
    operation_times: Times,
    sizes: Family<Labels, Gauge>,
    checked: Family<Labels, Gauge<f64, AtomicU64>>,
    failures: Family<Labels, Gauge>,
}

impl Default for Measured {
    fn default() -> Self {
        let family = || Times::new_with_constructor(times as fn() -> Histogram);
        Self {
            rounds: Counters::default(),
            round_times: family(),
            flux_times: family(),
            active: Family::default(),
            requests: Counters::default(),
            request_times: family(),
            unchanged: Counters::default(),
            bytes: Counters::default(),
            hooks: Counters::default(),
            hook_times: family(),
            hook_names: Arc::default(),
            operations: Counters::default(),
            operation_times: family(),
            sizes: Family::default(),
            checked: Family::default(),
            failures: Family::default(),
        }
    }
}

/// A round that is being made.
pub(super) struct Running {
    measured: Measured,
    labels: Labels,
    began: Instant,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.measured.active.get_or_create(&self.labels).dec();
    }
}

impl Running {
    /// How long it has been made.
    pub(super) fn took(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Measured {
    /// Shows them.
    pub(super) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("externalsource");
        let mut counters = |name: &str, help: &str, family: &Counters| registry.register(name, help, family.clone());
        counters(
            "reconciliation",
            "Rounds of a source, from request to stored file",
            &self.rounds,
        );
        counters("source_request", "Requests to upstreams", &self.requests);
        counters(
            "source_not_modified",
            "Requests that upstream answered with: as before",
            &self.unchanged,
        );
        counters("source_received_bytes", "Data received from upstreams", &self.bytes);
        counters("hook_execution", "Hooks that were run, each try", &self.hooks);
        counters(
            "artifact_operation",
            "Artifacts packed, stored, and old ones removed",
            &self.operations,
        );
        let mut times = |name: &str, help: &str, family: &Times| {
            registry.register_with_unit(name, help, Unit::Seconds, family.clone());
        };
        times("reconciliation_duration", "Time per round", &self.round_times);
        times(
            "source_request_duration",
            "Time per request, its data included",
            &self.request_times,
        );
        times("hook_execution_duration", "Time per hook", &self.hook_times);
        times(
            "artifact_operation_duration",
            "Time per package, store or removal",
            &self.operation_times,
        );
        registry.register(
            "active_reconciliations",
            "Rounds that are being made",
            self.active.clone(),
        );
        registry.register(
            "artifact_size_bytes",
            "Size of the artifact that is served",
            self.sizes.clone(),
        );
        registry.register(
            "last_success_timestamp_seconds",
            "When upstream was last asked with success, since the epoch",
            self.checked.clone(),
        );
        registry.register("consecutive_failures", "Failures in a row", self.failures.clone());
    }

    /// Shows what Flux's own dashboards ask for.
    pub(super) fn register_for_flux(&self, registry: &mut Registry) {
        let help = "Time per round, as Flux's controllers name it";
        registry.register_with_unit("gotk_reconcile_duration", help, Unit::Seconds, self.flux_times.clone());
    }

    /// A round begins.
    pub(super) fn round(&self, of: Of<'_>) -> Running {
        let labels = of.labels();
        self.active.get_or_create(&labels).inc();
        Running {
            measured: self.clone(),
            labels,
            began: Instant::now(),
        }
    }

    /// It ended, after so many failures in a row; with none it was a success.
    pub(super) fn ended(&self, of: Of<'_>, generator: &str, running: &Running, failures: u32, now: Timestamp) {
        let (labels, took) = (of.round(generator, failures == 0), running.took().as_secs_f64());
        self.rounds.get_or_create(&labels).inc();
        self.round_times.get_or_create(&labels).observe(took);
        self.flux_times.get_or_create(&of.flux()).observe(took);
        self.failures.get_or_create(&of.labels()).set(i64::from(failures));
        if failures == 0 {
            self.checked
                .get_or_create(&of.labels())
                .set(now.as_duration().as_secs_f64());
        }
    }

    /// Upstream was asked.
    pub(super) fn asked(&self, generator: &str, said: Said, took: Duration) {
        let kind = ("source_type", generator.to_owned());
        let labels = vec![kind.clone(), ("success", (said != Said::Nothing).to_string())];
        self.requests.get_or_create(&labels).inc();
        self.request_times.get_or_create(&labels).observe(took.as_secs_f64());
        match said {
            Said::Data(bytes) => drop(self.bytes.get_or_create(&vec![kind]).inc_by(bytes)),
            Said::Unchanged => drop(self.unchanged.get_or_create(&vec![kind]).inc()),
            Said::Nothing => {}
        }
    }

    /// A hook was run.
    pub(super) fn hook(&self, name: &str, policy: &'static str, success: bool, took: Duration) {
        let mut names = self.hook_names.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.contains(name) || (names.len() < HOOKS && names.insert(name.to_owned()));
        drop(names);
        let name = if known { name } else { OTHERS };
        let labels = vec![
            ("hook_name", name.to_owned()),
            ("retry_policy", policy.to_owned()),
            ("success", success.to_string()),
        ];
        self.hooks.get_or_create(&labels).inc();
        self.hook_times.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// An artifact was packed or stored, or old ones were removed.
    pub(super) fn worked(&self, operation: Operation, success: bool, took: Duration) {
        let labels = vec![
            ("operation", operation.label().to_owned()),
            ("success", success.to_string()),
        ];
        self.operations.get_or_create(&labels).inc();
        self.operation_times.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// The artifact that is served has this size.
    pub(super) fn serves(&self, of: Of<'_>, size: u64) {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        self.sizes.get_or_create(&of.labels()).set(size);
    }

    /// This replica leads no more: what it knew of sources is another one's to say.
    pub(super) fn end(&self) {
        self.rounds.clear();
        self.round_times.clear();
        self.flux_times.clear();
        self.active.clear();
        self.sizes.clear();
        self.checked.clear();
        self.failures.clear();
    }

    /// The source is gone.
    pub(super) fn forget(&self, of: Of<'_>) {
        for generator in ["http", "s3"] {
            for success in [true, false] {
                let labels = of.round(generator, success);
                self.rounds.remove(&labels);
                self.round_times.remove(&labels);
            }
        }
        self.flux_times.remove(&of.flux());
        let labels = of.labels();
        self.active.remove(&labels);
        self.sizes.remove(&labels);
        self.checked.remove(&labels);
        self.failures.remove(&labels);
    }
}

#[cfg(test)]
mod tests;
