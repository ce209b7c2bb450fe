//! `LeaseHistory`: who held a Lease when, and which writes came from somebody else.
//!
//! audited Lease writes, in the order of their resourceVersion ─▶ claims ─▶ tenures ─▶ violations
//!
//! Invariants: a tenure begins and ends when the write that begins or ends it reached the API server; the order of
//! claims is the order in which etcd took them, not the order of the log; a deletion, which has no version, stands
//! where its time puts it.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;

use super::Event;

/// One successful write of the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The replica that holds it; `None` after a release or when the Lease was deleted.
    pub holder: Option<String>,
    /// When the write reached the API server.
    pub received: Timestamp,
    /// `renewTime`, by the holder's clock.
    pub renewed: Option<Timestamp>,
    /// `leaseDurationSeconds`.
    pub duration: SignedDuration,
}

impl Claim {
    /// When the claim ends unless it is renewed, by the API server's clock, since the holder's may be wrong: before it,
    /// nobody else takes the Lease. `None` when nobody holds it.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        let received = self.holder.as_ref().map(|_| self.received)?;
        received.checked_add(self.duration).ok()
    }
}

/// One holder's time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// Who held the Lease.
    pub holder: String,
    /// When the first claim reached the API server.
    pub from: Timestamp,
    /// When the write that ended it (a release or another's claim) reached the API server; `None` while it lasts.
    pub until: Option<Timestamp>,
    /// The claims, first to last; never empty.
    pub claims: Vec<Claim>,
}

/// One change of hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// The holder before.
    pub from: String,
    /// The holder after.
    pub to: String,
    /// When the old holder last claimed or released the Lease.
    pub left: Timestamp,
    /// When the new holder's claim reached the API server.
    pub taken: Timestamp,
}

/// Who held a Lease when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseHistory {
    claims: Vec<Claim>,
}

impl LeaseHistory {
    /// The history of one Lease. Needs events at level `RequestResponse`; others are ignored.
    #[must_use]
    pub fn of(events: &[Event], namespace: &str, name: &str) -> Self {
        let mut claims: Vec<(Option<u64>, Claim)> = events
            .iter()
            .filter(|event| {
                let info = event.info();
                event.succeeded()
                    && info.verb.writes()
                    && info.resource == "leases"
                    && info.namespace.as_deref() == Some(namespace)
                    && info.name.as_deref() == Some(name)
            })
            .filter_map(claim)
            .collect();
        claims.sort_by_key(|(version, claim)| (*version, claim.received));
        let (ends, claims): (Vec<_>, Vec<_>) = claims.into_iter().partition(|(version, _)| version.is_none());
        let mut claims: Vec<Claim> = claims.into_iter().map(|(_, claim)| claim).collect();
        for (_, end) in ends {
            let before = claims.iter().rposition(|claim| claim.received <= end.received);
            claims.insert(before.map_or(0, |last| last + 1), end);
        }
        Self { claims }
    }

    /// Every successful write, in order.
    #[must_use]
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// Who held it, first to last.
    #[must_use]
    pub fn tenures(&self) -> Vec<Tenure> {
        let mut tenures: Vec<Tenure> = Vec::new();
        for claim in &self.claims {
            if let Some(last) = tenures.last_mut().filter(|last| last.until.is_none()) {
                if claim.holder.as_ref() == Some(&last.holder) {
                    last.claims.push(claim.clone());
                    continue;
                }
                last.until = Some(claim.received);
            }
            if let Some(holder) = &claim.holder {
                let from = claim.received;
                tenures.push(Tenure {
                    holder: holder.clone(),
                    from,
                    until: None,
                    claims: vec![claim.clone()],
                });
            }
        }
        tenures
    }

    /// Every change from one holder to another.
    #[must_use]
    pub fn takeovers(&self) -> Vec<Takeover> {
        let tenures = self.tenures();
        let pairs = tenures.iter().zip(tenures.iter().skip(1));
        pairs
            .filter(|(old, new)| old.holder != new.holder)
            .map(|(old, new)| Takeover {
                from: old.holder.clone(),
                to: new.holder.clone(),
                left: self.last_word(&old.holder, new.from).unwrap_or(old.from),
                taken: new.from,
            })
            .collect()
    }

    /// The holder's last claim or release before `end`.
    fn last_word(&self, holder: &str, end: Timestamp) -> Option<Timestamp> {
        let before = self.claims.iter().filter(|claim| claim.received < end);
        before
            .filter(|claim| claim.holder.as_deref().is_none_or(|other| other == holder))
            .map(|claim| claim.received)
            .max()
    }
}

impl Takeover {
    /// How long nobody was seen to hold it.
    #[must_use]
    pub fn gap(&self) -> SignedDuration {
        self.taken.duration_since(self.left)
    }
}

/// The replica behind a `holderIdentity`, which is its name and, after an underscore, what tells its processes apart;
/// none when nobody holds the Lease.
#[must_use]
pub fn replica_of(holder: &str) -> Option<&str> {
    holder.split('_').next().filter(|name| !name.is_empty())
}

/// A claim with the version that it gave the Lease; a deletion answers with none.
fn claim(event: &Event) -> Option<(Option<u64>, Claim)> {
    let received = event.request_received_timestamp;
    if event.verb == "delete" {
        return Some((
            None,
            Claim {
                holder: None,
                received,
                renewed: None,
                duration: SignedDuration::ZERO,
            },
        ));
    }
    let lease: Lease = serde_json::from_value(event.response_object.clone()?).ok()?;
    let version = lease.metadata.resource_version?.parse().ok()?;
    let spec = lease.spec.unwrap_or_default();
    Some((
        Some(version),
        Claim {
            holder: spec.holder_identity.as_deref().and_then(replica_of).map(Into::into),
            received,
            renewed: spec.renew_time.map(|time| time.0),
            duration: SignedDuration::from_secs(spec.lease_duration_seconds.unwrap_or_default().into()),
        },
    ))
}

/// What is wrong with a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// It reached the API server while somebody else, or nobody, held the Lease.
    NotHolder,
    /// Its sender was the last holder, but the claim's time had run out.
    Expired,
}

/// A write that fencing should have stopped.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What is wrong.
    pub breach: Breach,
    /// Who wrote.
    pub writer: String,
    /// Who held the Lease then.
    pub holder: Option<String>,
    /// The write.
    pub event: Event,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holder = self.holder.as_deref().unwrap_or("nobody");
        match self.breach {
            Breach::NotHolder => write!(f, "{} wrote while {holder} held the lease: {}", self.writer, self.event),
            Breach::Expired => write!(f, "{} wrote after its claim had run out: {}", self.writer, self.event),
        }
    }
}

/// The writes among `events` that did not come from the holder of the Lease, or came after its claim's time.
///
/// Refused attempts count too. Give it the work of the replicas only (`calls().work()`, by user agent or namespace):
/// a writer without a replica's user agent is nobody's holder, so it is a violation.
#[must_use]
pub fn no_write_by_non_holder(events: &[Event], history: &LeaseHistory) -> Vec<Violation> {
    let tenures = history.tenures();
    let check = |event: &Event| {
        let writer = event.identity().unwrap_or(&event.user_agent).to_owned();
        let at = event.request_received_timestamp;
        let tenure = tenures
            .iter()
            .find(|tenure| tenure.from <= at && tenure.until.is_none_or(|until| at < until));
        let holder = tenure.map(|tenure| tenure.holder.clone());
        let violation = |breach| {
            Some(Violation {
                breach,
                writer: writer.clone(),
                holder: holder.clone(),
                event: event.clone(),
            })
        };
        let Some(tenure) = tenure.filter(|tenure| tenure.holder == writer) else {
            return violation(Breach::NotHolder);
        };
        let claim = tenure.claims.iter().rev().find(|claim| claim.received <= at)?;
        if claim.expires().is_some_and(|expiry| at > expiry) {
            violation(Breach::Expired)
        } else {
            None
        }
    };
    events
        .iter()
        .filter(|event| event.info().verb.writes())
        .filter_map(check)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// An instant of the story, in seconds.
    fn at(seconds: f64) -> String {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        format!("{:.6}", start + SignedDuration::from_secs_f64(seconds))
    }

    fn event(identity: &str, verb: &str, resource: &str, received: f64, response: &Value) -> Event {
        serde_json::from_value(json!({
            "auditID": "x", "stage": "ResponseComplete", "verb": verb,
            "requestURI": format!("/apis/x/v1/namespaces/sys/{resource}/trellis"),
            "user": { "username": "system:serviceaccount:sys:trellis" },
            "userAgent": format!("trellis/0.1.0 ({identity})"),
            "objectRef": { "resource": resource, "namespace": "sys", "name": "trellis" },
            "responseStatus": { "code": 200 },
            "responseObject": response,
            "requestReceivedTimestamp": at(received), "stageTimestamp": at(received + 0.01),
        }))
        .unwrap()
    }

    /// A successful Lease write; a claim lasts 2 s.
    fn lease(holder: &str, received: f64, version: u64) -> Event {
        let lease = json!({
            "metadata": { "name": "trellis", "resourceVersion": version.to_string() },
            "spec": { "holderIdentity": holder, "renewTime": at(received - 0.1), "leaseDurationSeconds": 2 },
        });
        event(
            if holder.is_empty() { "a" } else { holder },
            "update",
            "leases",
            received,
            &lease,
        )
    }

    fn write(identity: &str, received: f64) -> Event {
        event(identity, "patch", "services", received, &Value::Null)
    }

    fn breaches(leases: &[Event], writes: &[Event]) -> Vec<(String, Breach, Option<String>)> {
        let history = LeaseHistory::of(leases, "sys", "trellis");
        let violations = no_write_by_non_holder(writes, &history);
        violations
            .into_iter()
            .map(|violation| (violation.writer, violation.breach, violation.holder))
            .collect()
    }

    #[test]
    fn the_holder_may_write_until_its_claim_ends() {
        let leases = [lease("a", 10.0, 1), lease("a", 11.0, 2), lease("b", 14.0, 3)];
        let fine = [write("a", 10.0), write("a", 12.8), write("b", 14.0), write("b", 15.0)];
        assert_eq!(breaches(&leases, &fine), []);
        assert_eq!(
            breaches(&leases, &[write("a", 13.1)]),
            [("a".into(), Breach::Expired, Some("a".into()))]
        );
    }

    #[test]
    fn others_may_not_write() {
        let leases = [lease("a", 10.0, 1), lease("b", 14.0, 3)];
        let wrong = [write("b", 9.0), write("b", 11.0), write("a", 14.0), write("c", 15.0)];
        let expected = [("b", None), ("b", Some("a")), ("a", Some("b")), ("c", Some("b"))];
        let expected = expected.map(|(who, holder)| (who.to_owned(), Breach::NotHolder, holder.map(ToOwned::to_owned)));
        assert_eq!(breaches(&leases, &wrong), expected);
    }

    #[test]
    fn a_release_ends_a_tenure() {
        let leases = [lease("a", 10.0, 1), lease("", 11.0, 2), lease("b", 11.5, 3)];
        assert_eq!(
            breaches(&leases, &[write("a", 11.2)]),
            [("a".into(), Breach::NotHolder, None)]
        );
        let takeovers = LeaseHistory::of(&leases, "sys", "trellis").takeovers();
        assert_eq!(takeovers.len(), 1);
        assert_eq!((takeovers[0].from.as_str(), takeovers[0].to.as_str()), ("a", "b"));
        assert_eq!(takeovers[0].gap(), SignedDuration::from_millis(500));
    }

    #[test]
    fn a_deletion_ends_a_tenure_and_the_next_begins_after_it() {
        let deleted = event("kubectl", "delete", "leases", 11.0, &Value::Null);
        let leases = [deleted, lease("a", 10.0, 1), lease("b", 13.0, 9), lease("b", 14.0, 10)];
        let tenures = LeaseHistory::of(&leases, "sys", "trellis").tenures();
        let holders: Vec<_> = tenures
            .iter()
            .map(|tenure| (tenure.holder.as_str(), tenure.claims.len()))
            .collect();
        assert_eq!(holders, [("a", 1), ("b", 2)]);
        assert_eq!(tenures[0].until, Some(at(11.0).parse().unwrap()));
        assert_eq!(tenures[1].until, None);
        assert_eq!(
            breaches(&leases, &[write("a", 10.5), write("a", 11.5), write("b", 13.5)]),
            [("a".into(), Breach::NotHolder, None)]
        );
    }

    #[test]
    fn the_order_of_etcd_counts_and_failures_do_not() {
        let mut lost = lease("c", 11.0, 9);
        lost.response_status.as_mut().unwrap().code = 409;
        let leases = [lease("b", 14.0, 3), lost, lease("a", 10.0, 1), lease("a", 12.0, 2)];
        let history = LeaseHistory::of(&leases, "sys", "trellis");
        let holders: Vec<_> = history
            .tenures()
            .into_iter()
            .map(|tenure| (tenure.holder, tenure.claims.len()))
            .collect();
        assert_eq!(holders, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        assert_eq!(LeaseHistory::of(&leases, "sys", "other"), LeaseHistory::default());
    }

    #[test]
    fn reads_and_strangers_are_told_apart() {
        let leases = [lease("a", 10.0, 1)];
        let mut stranger = write("a", 11.0);
        stranger.user_agent = "kubectl/1.34".to_owned();
        let events = [event("b", "get", "services", 11.0, &Value::Null), stranger];
        assert_eq!(
            breaches(&leases, &events),
            [("kubectl/1.34".into(), Breach::NotHolder, Some("a".into()))]
        );
    }
}
