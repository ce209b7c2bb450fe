//! What a candidate has seen of the Lease, and how long it has to leave it alone.
//!
//! ```text
//!  seen with a holder ─▶ its whole duration ─▶ free
//!  gone under a holder ─▶ its whole duration, from when that was seen ─▶ free
//!  given back, or never there ─▶ free
//! ```
//!
//! Invariant: time is reckoned on our clock, from when a version was first seen.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;

use crate::fence::Moment;

/// A Lease as it was last seen, since when we have seen it so.
pub(super) struct Observed {
    pub(super) lease: Option<Lease>,
    since: Moment,
    /// Of a Lease that is gone: how long its last holder may still believe in its claim.
    rest: Duration,
}

impl Observed {
    /// What is known after another look. A Lease counts as renewed when its version changed; its own times come from
    /// another clock and are not read.
    pub(super) fn next(known: Option<Self>, lease: Option<Lease>, own: &str, default: Duration) -> Self {
        let version = |lease: &Option<Lease>| lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        let rest = match known {
            Some(known) if version(&known.lease) == version(&lease) => return known,
            // Deleted under its holder, who notices at its next renewal only.
            Some(known) if lease.is_none() => known.claimed(own, default),
            _ => Duration::ZERO,
        };
        Self {
            lease,
            since: Moment::now(),
            rest,
        }
    }

    /// How long the claim holds for its holder, from when it was seen; nothing when it is nobody's or our own: taken
    /// by this very process, which never heard so.
    fn claimed(&self, own: &str, default: Duration) -> Duration {
        let Some(lease) = &self.lease else { return self.rest };
        if holder(lease).is_none_or(|name| name == own) {
            return Duration::ZERO;
        }
        let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        let seconds = seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .filter(|seconds| *seconds > 0);
        seconds.map_or(default, Duration::from_secs)
    }

    /// How long it still belongs to its holder.
    pub(super) fn until_free(&self, own: &str, default: Duration) -> Duration {
        self.claimed(own, default).saturating_sub(self.since.elapsed())
    }
}

/// Who holds a Lease, if anybody does.
pub(super) fn holder(lease: &Lease) -> Option<&str> {
    lease
        .spec
        .as_ref()?
        .holder_identity
        .as_deref()
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta};

    use super::*;

    const OWN: &str = "me_1";
    const DEFAULT: Duration = Duration::from_secs(10);

    #[expect(clippy::unnecessary_wraps, reason = "as looks find it")]
    fn lease(holder: &str, version: u64) -> Option<Lease> {
        let spec = LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(60),
            ..LeaseSpec::default()
        };
        let metadata = ObjectMeta {
            resource_version: Some(version.to_string()),
            ..ObjectMeta::default()
        };
        Some(Lease {
            metadata,
            spec: Some(spec),
        })
    }

    /// How long the Lease is not free after these were seen, one after the other.
    fn left(looks: impl IntoIterator<Item = Option<Lease>>) -> Duration {
        let mut observed = None;
        for lease in looks {
            observed = Some(Observed::next(observed.take(), lease, OWN, DEFAULT));
        }
        observed.unwrap().until_free(OWN, DEFAULT)
    }

    #[test]
    fn a_lease_is_free_when_nobody_may_believe_to_hold_it() {
        let nearly = |left: Duration| left > Duration::from_secs(50) && left <= Duration::from_mins(1);
        assert_eq!(left([None]), Duration::ZERO, "it never was");
        assert_eq!(left([lease("", 1)]), Duration::ZERO, "given back");
        assert_eq!(left([lease(OWN, 1)]), Duration::ZERO, "our own");
        assert!(nearly(left([lease("a", 1)])), "held");
        assert!(nearly(left([lease("a", 1), None])), "deleted under its holder");
        assert_eq!(
            left([lease("", 1), None]),
            Duration::ZERO,
            "deleted after it was given back"
        );
        assert_eq!(left([lease(OWN, 1), None]), Duration::ZERO, "deleted under ourselves");
        assert_eq!(left([lease("a", 1), None, lease("", 2)]), Duration::ZERO, "made again");
    }

    #[test]
    fn another_look_at_the_same_does_not_begin_anew() {
        for seen in [lease("a", 1), None] {
            let first = Observed {
                lease: seen.clone(),
                since: Moment::now(),
                rest: DEFAULT,
            };
            let since = first.since;
            std::thread::yield_now();
            assert_eq!(Observed::next(Some(first), seen, OWN, DEFAULT).since, since);
        }
    }
}
