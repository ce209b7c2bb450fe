//! `Measured`: the metrics of one controller.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{
        MetricType,
        counter::ConstCounter,
        gauge::ConstGauge,
        histogram::{Histogram, exponential_buckets},
    },
};

use super::census::{Census, Sum};

/// How long what was counted in a namespace is shown after the last reconcile there, once it has no objects: long
/// enough for every Prometheus to see the end.
const KEPT: Duration = Duration::from_hours(1);

/// How a reconcile ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Something was written.
    Changed,
    /// Nothing had to be written.
    Unchanged,
    /// It waits for something that is watched.
    Waiting,
    /// The user has to change something, for this reason.
    Refused(&'static str),
    /// The object is suspended.
    Suspended,
    /// It failed for this reason.
    Failed(&'static str),
}

impl Verdict {
    fn label(self) -> &'static str {
        match self {
            Self::Changed => "Changed",
            Self::Unchanged => "Unchanged",
            Self::Waiting => "Waiting",
            Self::Refused(_) => "Refused",
            Self::Suspended => "Suspended",
            Self::Failed(_) => "Failed",
        }
    }
}

/// What was counted in one namespace.
struct Series {
    results: BTreeMap<&'static str, u64>,
    errors: BTreeMap<&'static str, u64>,
    durations: Histogram,
    writes: u64,
    last: Instant,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            results: BTreeMap::new(),
            errors: BTreeMap::new(),
            // 1 ms to 16 s: a reconcile is a handful of API calls.
            durations: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            writes: 0,
            last: Instant::now(),
        }
    }
}

type Take = Arc<dyn Fn() -> Census + Send + Sync>;

/// The metrics of one controller.
pub(crate) struct Measured {
    kept: Duration,
    series: Mutex<BTreeMap<String, Series>>,
    census: Mutex<Option<Take>>,
}

impl Default for Measured {
    fn default() -> Self {
        Self::keeping(KEPT)
    }
}

impl Measured {
    /// Shows what was counted in a namespace without objects for so long.
    pub(super) fn keeping(kept: Duration) -> Self {
        Self {
            kept,
            series: Mutex::default(),
            census: Mutex::default(),
        }
    }

    /// A reconcile has ended.
    pub(crate) fn reconciled(&self, namespace: Option<&str>, verdict: Verdict, took: Duration) {
        let mut all = self.series();
        let series = all.entry(namespace.unwrap_or_default().to_owned()).or_default();
        *series.results.entry(verdict.label()).or_default() += 1;
        if let Verdict::Refused(reason) | Verdict::Failed(reason) = verdict {
            *series.errors.entry(reason).or_default() += 1;
        }
        series.durations.observe(took.as_secs_f64());
        series.last = Instant::now();
    }

    /// An object or a status was written.
    pub(crate) fn wrote(&self, namespace: Option<&str>) {
        let mut all = self.series();
        all.entry(namespace.unwrap_or_default().to_owned()).or_default().writes += 1;
    }

    /// Takes the census at every scrape, until what is returned is dropped.
    #[must_use]
    pub(crate) fn count(self: &Arc<Self>, take: impl Fn() -> Census + Send + Sync + 'static) -> Counting {
        *self.census.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(take));
        Counting(Arc::clone(self))
    }

    fn series(&self) -> MutexGuard<'_, BTreeMap<String, Series>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The objects of a controller are counted while this lives.
pub(crate) struct Counting(Arc<Measured>);

impl Drop for Counting {
    fn drop(&mut self) {
        *self.0.census.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl fmt::Debug for Measured {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Measured")
    }
}

impl Collector for Measured {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let take = self.census.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let census = take.map(|take| take());
        let mut all = self.series();
        let lives = |namespace: &String| {
            let standings = census.as_ref().map(|census| &census.standings);
            standings.is_some_and(|standings| standings.contains_key(namespace))
        };
        all.retain(|namespace, series| lives(namespace) || series.last.elapsed() < self.kept);
        counters(&mut encoder, &all)?;
        census.map_or(Ok(()), |census| gauges(&mut encoder, &census))
    }
}

fn counters(encoder: &mut DescriptorEncoder<'_>, all: &BTreeMap<String, Series>) -> fmt::Result {
    let help = "Reconciles by how they ended.";
    let mut family = encoder.encode_descriptor("reconciliations", help, None, MetricType::Counter)?;
    for (namespace, series) in all {
        for (result, number) in &series.results {
            let labels = [("namespace", namespace.as_str()), ("result", result)];
            ConstCounter::new(*number).encode(family.encode_family(&labels)?)?;
        }
    }
    let help = "Time per reconcile, until its last write is answered.";
    let mut family = encoder.encode_descriptor("reconciliation_duration_seconds", help, None, MetricType::Histogram)?;
    for (namespace, series) in all {
        let labels = [("namespace", namespace.as_str())];
        series.durations.encode(family.encode_family(&labels)?)?;
    }
    let help = "Reconciles that failed or were refused, by reason.";
    let mut family = encoder.encode_descriptor("errors", help, None, MetricType::Counter)?;
    for (namespace, series) in all {
        for (reason, number) in &series.errors {
            let labels = [("namespace", namespace.as_str()), ("type", reason)];
            ConstCounter::new(*number).encode(family.encode_family(&labels)?)?;
        }
    }
    let help = "Writes of objects and status; Events and the Lease are not counted.";
    let mut family = encoder.encode_descriptor("writes", help, None, MetricType::Counter)?;
    for (namespace, series) in all {
        let labels = [("namespace", namespace.as_str())];
        ConstCounter::new(series.writes).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauges(encoder: &mut DescriptorEncoder<'_>, census: &Census) -> fmt::Result {
    let name = format!("{}_total", census.counted);
    let help = format!("The {} that there are, by what has become of them.", census.counted);
    let mut family = encoder.encode_descriptor(&name, &help, None, MetricType::Gauge)?;
    for (namespace, standings) in &census.standings {
        for (standing, number) in standings {
            let labels = [("namespace", namespace.as_str()), ("status", standing.label())];
            ConstGauge::new(*number).encode(family.encode_family(&labels)?)?;
        }
    }
    for tally in &census.tallies {
        let mut family = encoder.encode_descriptor(tally.name, tally.help, None, MetricType::Gauge)?;
        match &tally.sum {
            Sum::Total(sum) => ConstGauge::new(*sum).encode(family)?,
            Sum::ByNamespace(sums) => {
                for (namespace, sum) in sums {
                    let labels = [("namespace", namespace.as_str())];
                    ConstGauge::new(*sum).encode(family.encode_family(&labels)?)?;
                }
            }
        }
    }
    Ok(())
}
