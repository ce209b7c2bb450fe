//! `Census`: what the objects of a controller come to, counted at one moment.

use std::collections::BTreeMap;

use kube::{Resource, ResourceExt as _};
use trellis_api::Managed;
use trellis_core::condition::{READY, STALLED};

/// A number that every object of a kind adds to, computed from all of them when it is scraped.
#[derive(Debug)]
pub struct Gauge<K> {
    name: &'static str,
    help: &'static str,
    by_namespace: bool,
    of: fn(&K) -> i64,
}

impl<K> Gauge<K> {
    /// One number, whatever the namespaces. `name` comes after the controller's prefix; `help` is a sentence.
    #[must_use]
    pub const fn total(name: &'static str, help: &'static str, of: fn(&K) -> i64) -> Self {
        Self {
            name,
            help,
            by_namespace: false,
            of,
        }
    }

    /// One number for each namespace that has objects.
    #[must_use]
    pub const fn by_namespace(name: &'static str, help: &'static str, of: fn(&K) -> i64) -> Self {
        Self {
            name,
            help,
            by_namespace: true,
            of,
        }
    }
}

/// What has become of an object: exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// `Ready` is True for the present spec.
    Ready,
    /// It is being carried out, or waits for something.
    Reconciling,
    /// The user has to change something.
    Stalled,
    /// It is suspended.
    Suspended,
    /// It is being deleted.
    Terminating,
    /// It does not have the shape of its kind.
    Unreadable,
}

impl Standing {
    const ALL: [Self; 6] = [
        Self::Ready,
        Self::Reconciling,
        Self::Stalled,
        Self::Suspended,
        Self::Terminating,
        Self::Unreadable,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::Suspended => "Suspended",
            Self::Terminating => "Terminating",
            Self::Unreadable => "Unreadable",
        }
    }

    fn of<K: Managed + Resource>(object: &K) -> Self {
        if object.meta().deletion_timestamp.is_some() {
            return Self::Terminating;
        }
        if object.suspended() {
            return Self::Suspended;
        }
        let common = object.status().map(K::common);
        let Some(common) = common.filter(|common| common.observed_generation == object.meta().generation) else {
            return Self::Reconciling;
        };
        let is_true = |type_| {
            let mut conditions = common.conditions.iter();
            conditions.any(|condition| condition.type_ == type_ && condition.status == "True")
        };
        if is_true(READY) {
            Self::Ready
        } else if is_true(STALLED) {
            Self::Stalled
        } else {
            Self::Reconciling
        }
    }
}

/// What the objects of a controller come to.
pub(crate) struct Census {
    pub(super) counted: &'static str,
    /// Every standing of each namespace that has objects.
    pub(super) standings: BTreeMap<String, BTreeMap<Standing, i64>>,
    pub(super) tallies: Vec<Tally>,
}

/// A [`Gauge`] and what it comes to.
pub(super) struct Tally {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) sum: Sum,
}

pub(super) enum Sum {
    Total(i64),
    ByNamespace(BTreeMap<String, i64>),
}

impl Census {
    /// Of these objects: readable, or known by namespace only.
    pub(crate) fn of<'a, K: Managed + Resource + 'a>(
        counted: &'static str,
        gauges: &[Gauge<K>],
        objects: impl Iterator<Item = Result<&'a K, Option<String>>>,
    ) -> Self {
        let mut standings: BTreeMap<String, BTreeMap<Standing, i64>> = BTreeMap::new();
        let mut tallies: Vec<Tally> = gauges
            .iter()
            .map(|gauge| Tally {
                name: gauge.name,
                help: gauge.help,
                sum: if gauge.by_namespace {
                    Sum::ByNamespace(BTreeMap::new())
                } else {
                    Sum::Total(0)
                },
            })
            .collect();
        for object in objects {
            let (namespace, standing) = match &object {
                Ok(object) => (object.namespace(), Standing::of(*object)),
                Err(namespace) => (namespace.clone(), Standing::Unreadable),
            };
            let namespace = namespace.unwrap_or_default();
            let place = standings
                .entry(namespace.clone())
                .or_insert_with(|| Standing::ALL.map(|standing| (standing, 0)).into());
            *place.entry(standing).or_default() += 1;
            for (gauge, tally) in gauges.iter().zip(&mut tallies) {
                let sum = match &mut tally.sum {
                    Sum::Total(sum) => sum,
                    Sum::ByNamespace(sums) => sums.entry(namespace.clone()).or_default(),
                };
                *sum += object.as_ref().map_or(0, |object| (gauge.of)(object));
            }
        }
        Self {
            counted,
            standings,
            tallies,
        }
    }

    /// With more numbers, which no object adds to.
    pub(crate) fn and(mut self, levels: Vec<(&'static str, &'static str, i64)>) -> Self {
        let tallies = levels.into_iter().map(|(name, help, number)| Tally {
            name,
            help,
            sum: Sum::Total(number),
        });
        self.tallies.extend(tallies);
        self
    }
}
