//! Prometheus metrics of the runtime, prefix `trellis_`.
//!
//! Gauges that count objects are computed from the stores when they are scraped, never kept up to date by hand.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric as _},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// How a reconcile ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Verdict {
    /// Something was written.
    Changed,
    /// Nothing had to be written.
    Unchanged,
    /// It waits for something that is watched.
    Waiting,
    /// The user has to change something.
    Refused,
    /// The object is suspended.
    Suspended,
    /// It failed and is tried again.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconciled {
    controller: &'static str,
    result: Verdict,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    controller: &'static str,
}

/// The metrics of one process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    reconciliations: Family<Reconciled, Counter>,
    durations: Family<Of, Histogram>,
    writes: Family<Of, Counter>,
    leader: Gauge,
    objects: Arc<Mutex<Vec<Count>>>,
}

/// Counts objects of a controller by the state of `Ready`, when asked.
type Counts = Arc<dyn Fn() -> Vec<(String, i64)> + Send + Sync>;

#[derive(Clone)]
struct Count {
    controller: &'static str,
    by_ready: Counts,
}

struct Objects(Arc<Mutex<Vec<Count>>>);

impl fmt::Debug for Objects {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Objects")
    }
}

impl Collector for Objects {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let gauge = ConstGauge::new(0_i64);
        let mut metric = encoder.encode_descriptor(
            "trellis_objects",
            "Objects by the state of Ready.",
            None,
            gauge.metric_type(),
        )?;
        for count in counts {
            for (ready, number) in (count.by_ready)() {
                let labels = [("controller", count.controller.to_owned()), ("ready", ready)];
                ConstGauge::new(number).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let reconciliations = Family::default();
        // 1 ms to 16 s: a reconcile is a handful of API calls.
        let durations = Family::<Of, Histogram>::new_with_constructor(|| {
            Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(
                0.001, 2.0, 15,
            ))
        });
        let writes = Family::default();
        let leader = Gauge::default();
        let objects = Arc::default();
        registry.register(
            "trellis_reconciliations",
            "Reconciles by how they ended.",
            reconciliations.clone(),
        );
        registry.register(
            "trellis_reconciliation_duration_seconds",
            "Time per reconcile.",
            durations.clone(),
        );
        registry.register("trellis_writes", "Writes of objects and status.", writes.clone());
        registry.register(
            "trellis_leader",
            "1 while this process holds the Lease.",
            leader.clone(),
        );
        registry.register_collector(Box::new(Objects(Arc::clone(&objects))));
        Self {
            registry: Arc::new(Mutex::new(registry)),
            reconciliations,
            durations,
            writes,
            leader,
            objects,
        }
    }
}

impl Metrics {
    /// The text that Prometheus scrapes, in the `OpenMetrics` format.
    ///
    /// # Errors
    /// When a metric does not encode.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }

    /// Sets whether this process holds the Lease.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    pub(crate) fn reconciled(&self, controller: &'static str, result: Verdict, took: Duration) {
        self.reconciliations
            .get_or_create(&Reconciled { controller, result })
            .inc();
        self.durations
            .get_or_create(&Of { controller })
            .observe(took.as_secs_f64());
    }

    pub(crate) fn wrote(&self, controller: &'static str) {
        self.writes.get_or_create(&Of { controller }).inc();
    }

    /// Counts the objects of a controller until what is returned is dropped.
    #[must_use]
    pub(crate) fn count(&self, controller: &'static str, by_ready: Counts) -> Counting {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.push(Count { controller, by_ready });
        Counting {
            objects: Arc::clone(&self.objects),
            controller,
        }
    }
}

/// A controller's objects are counted while this lives.
pub(crate) struct Counting {
    objects: Arc<Mutex<Vec<Count>>>,
    controller: &'static str,
}

impl Drop for Counting {
    fn drop(&mut self) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.retain(|count| count.controller != self.controller);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_metric() {
        let metrics = Metrics::default();
        metrics.reconciled("toy", Verdict::Changed, Duration::from_millis(3));
        metrics.wrote("toy");
        metrics.leads(true);
        let counting = metrics.count("toy", Arc::new(|| vec![("True".into(), 3)]));
        let text = metrics.render().unwrap();
        for line in [
            "trellis_reconciliations_total{controller=\"toy\",result=\"Changed\"} 1",
            "trellis_writes_total{controller=\"toy\"} 1",
            "trellis_leader 1",
            "trellis_objects{controller=\"toy\",ready=\"True\"} 3",
            "trellis_reconciliation_duration_seconds_count{controller=\"toy\"} 1",
        ] {
            assert!(text.contains(line), "{line} missing in:\n{text}");
        }
        drop(counting);
        assert!(!metrics.render().unwrap().contains("trellis_objects{"));
    }
}
