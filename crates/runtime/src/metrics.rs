//! Prometheus metrics: those of the process, prefix `trellis_`, and those of each controller, prefix
//! `<controller>_operator_`.
//!
//! ```text
//!  driver ─▶ counters and durations, by namespace ─┐
//!  stores ─▶ census, taken when scraped ───────────┴─▶ /metrics
//! ```
//!
//! Invariants: what counts objects is computed from the stores when it is scraped, never kept up to date by hand; every
//! label is a namespace or of a closed set; a namespace without objects is forgotten.

mod census;
mod measured;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{metrics::gauge::Gauge as Level, registry::Registry};

pub(crate) use census::Census;
pub use census::Gauge;
pub(crate) use measured::{Measured, Verdict};

/// The metrics of one process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    leader: Level,
    controllers: Arc<Mutex<BTreeMap<&'static str, Arc<Measured>>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let leader = Level::default();
        registry.register("trellis_leader", "1 while this process holds the Lease", leader.clone());
        Self {
            registry: Arc::new(Mutex::new(registry)),
            leader,
            controllers: Arc::default(),
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

    /// Shows more than every controller has.
    pub fn add(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Sets whether this process holds the Lease.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Those of one controller, the same ones in every term of leadership.
    pub(crate) fn of(&self, controller: &'static str) -> Arc<Measured> {
        let mut controllers = self.controllers.lock().unwrap_or_else(PoisonError::into_inner);
        let measured = controllers.entry(controller).or_insert_with(|| {
            let measured = Arc::new(Measured::default());
            let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
            registry
                .sub_registry_with_prefix(format!("{}_operator", controller.replace('-', "_")))
                .register_collector(Box::new(Arc::clone(&measured)));
            measured
        });
        Arc::clone(measured)
    }
}

#[cfg(test)]
mod tests;
