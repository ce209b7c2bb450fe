//! Leader election by a Lease, in which a claim is worth no more than its time.
//!
//! ```text
//!        renew sent        fence closes     others may take over
//!  ──────────┼───────────────────┼─────────────────┼──────▶
//!            │◀── 4/5 duration ─▶│                 │
//!            │◀──────────── duration (as others see it, from when they saw the renewal) ──▶│
//! ```
//!
//! The holder reckons from before it sent a renewal, everybody else from after they saw it, each on its own
//! steady clock: no clocks are compared. The holder's fence closes a fifth of the duration before anybody else
//! may take over. Follows the Lease fields of client-go's leader election, so that both can take part.
//!
//! Invariants: at most one process passes its fence at any time; on shutdown the Lease is given back after the
//! last write; without an answer from the API server a claim runs out by itself.

mod observed;

use std::time::Duration;

use futures::{Stream, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::PostParams,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, watch_object},
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    fence::{Fence, Moment},
    shelf::Complaint,
};
use observed::{Observed, holder};

/// Where and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Name of this replica, as the Lease and the user agent show it.
    pub identity: String,
    /// How long a claim holds without renewal. Whole seconds, at least 1 s; default 10 s.
    pub duration: Duration,
}

impl Options {
    /// A claim of 10 s: another replica leads less than 15 s after the holder died.
    pub const DURATION: Duration = Duration::from_secs(10);

    fn renew_every(&self) -> Duration {
        self.duration / 5
    }

    fn margin(&self) -> Duration {
        self.duration / 5
    }

    /// How long a claim is worth anything to us.
    fn valid(&self) -> Duration {
        self.duration.saturating_sub(self.margin())
    }
}

/// One candidate.
pub struct Elector {
    leases: Api<Lease>,
    options: Options,
    /// The identity and what tells this process from an earlier, or a second, one of the same name: two that share an
    /// identity by mistake must not share a claim.
    holder: String,
}

/// A term of leadership. The fence is open until the claim runs out.
pub struct Term {
    /// Closes by itself when the claim is not renewed in time.
    pub fence: Fence,
    lease: Lease,
}

impl Elector {
    /// A candidate. `client` is not fenced: it writes the Lease and nothing else.
    #[must_use]
    pub fn new(client: Client, options: Options) -> Self {
        let holder = format!("{}_{}", options.identity, uuid::Uuid::new_v4().simple());
        Self {
            leases: Api::namespaced(client, &options.namespace),
            options,
            holder,
        }
    }

    /// Runs `work` whenever and as long as this process is the leader, until `stop`.
    ///
    /// `work` gets the fence for its client and a token that asks it to finish. When the claim is lost, the fence is
    /// closed already; what does not finish within a fifth of the duration is dropped.
    pub async fn lead<W, F>(&self, stop: &CancellationToken, mut work: W)
    where
        W: FnMut(Fence, CancellationToken) -> F,
        F: Future<Output = ()>,
    {
        while let Some(term) = self.claim(stop).await {
            tracing::info!(identity = self.options.identity, "leading");
            self.serve(term, stop, &mut work).await;
            tracing::info!(identity = self.options.identity, "not leading any more");
            // Work that ends by itself must not make the Lease go round in circles.
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(self.options.renew_every()) => {}
            }
        }
    }

    /// One term: works while the claim is kept. Nothing of the work is left when it returns.
    async fn serve<W, F>(&self, mut term: Term, stop: &CancellationToken, work: &mut W)
    where
        W: FnMut(Fence, CancellationToken) -> F,
        F: Future<Output = ()>,
    {
        let (halt, finished) = (stop.child_token(), CancellationToken::new());
        let mut working = std::pin::pin!(work(term.fence.clone(), halt.clone()));
        let held = {
            let mut keeping = std::pin::pin!(self.keep(&mut term, &finished));
            tokio::select! {
                held = &mut keeping => held,
                () = &mut working => {
                    finished.cancel();
                    keeping.await
                }
            }
        };
        if held {
            self.give_back(term).await;
        } else {
            halt.cancel();
            let _ = tokio::time::timeout(self.options.margin(), working).await;
        }
    }

    /// Waits until the Lease can be read, whether or not it exists: a replica that may not is no candidate, and must
    /// not count as ready. Returns false when stopped before.
    pub async fn readable(&self, stop: &CancellationToken) -> bool {
        let mut complaint = Complaint::default();
        let read = async {
            while let Err(error) = self.read().await {
                complaint.make::<Lease>(&watcher::Error::InitialListFailed(error));
                tokio::time::sleep(self.options.renew_every()).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => false,
            () = read => true,
        }
    }

    /// Waits until this process is the leader, or `stop`.
    pub async fn claim(&self, stop: &CancellationToken) -> Option<Term> {
        tokio::select! {
            () = stop.cancelled() => None,
            term = self.until_taken() => Some(term),
        }
    }

    async fn until_taken(&self) -> Term {
        let mut changes = Box::pin(self.changes());
        let mut observed: Option<Observed> = None;
        let mut complaint = Complaint::default();
        loop {
            let wait = observed
                .as_ref()
                .map(|observed| observed.until_free(&self.holder, self.options.duration));
            let free = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                change = changes.next() => match change {
                    Some(Ok(lease)) => {
                        complaint = Complaint::default();
                        self.observe(&mut observed, lease);
                    }
                    Some(Err(error)) => complaint.make::<Lease>(&error),
                    None => changes = Box::pin(self.changes()),
                },
                // A holder renews more often than this: a watch that stays silent may be dead.
                () = tokio::time::sleep(self.options.duration / 2) => self.look(&mut observed).await,
                () = free => {
                    let lease = observed.as_ref().and_then(|observed| observed.lease.clone());
                    // A connection that died silently must leave time for another one.
                    match tokio::time::timeout(self.options.valid() / 2, self.take(lease)).await {
                        Ok(Ok(term)) => return term,
                        Ok(Err(kube::Error::Api(status))) if status.code == 409 => tracing::debug!("somebody was faster"),
                        Ok(Err(error)) => tracing::warn!(%error, "the Lease cannot be written; trying again"),
                        Err(_) => tracing::warn!("the API server does not answer about the Lease; trying again"),
                    }
                    tokio::time::sleep(self.options.renew_every()).await;
                    self.look(&mut observed).await;
                }
            }
        }
    }

    fn changes(&self) -> impl Stream<Item = Result<Option<Lease>, watcher::Error>> + Send + use<> {
        watch_object(self.leases.clone(), &self.options.name).default_backoff()
    }

    /// Asks for the Lease instead of waiting to hear of it.
    async fn look(&self, observed: &mut Option<Observed>) {
        if let Ok(Ok(lease)) = tokio::time::timeout(self.options.margin(), self.read()).await {
            self.observe(observed, lease);
        }
    }

    fn observe(&self, observed: &mut Option<Observed>, lease: Option<Lease>) {
        *observed = Some(Observed::next(
            observed.take(),
            lease,
            &self.holder,
            self.options.duration,
        ));
    }

    /// Renews the claim until it is lost or `stop`. Returns whether it is still held.
    pub async fn keep(&self, term: &mut Term, stop: &CancellationToken) -> bool {
        loop {
            let pause = self.options.renew_every().min(term.fence.remaining());
            tokio::select! {
                () = stop.cancelled() => return true,
                () = tokio::time::sleep(pause) => {}
            }
            if term.fence.remaining().is_zero() {
                tracing::warn!("the claim of the Lease ran out");
                return false;
            }
            // Half of what is left, so that a connection that died silently leaves time for another one.
            match tokio::time::timeout(term.fence.remaining() / 2, self.renew(term)).await {
                Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
                    // Somebody wrote the Lease: if it was not our own renewal whose answer got lost, it is over.
                    match tokio::time::timeout(term.fence.remaining(), self.read()).await {
                        Ok(Ok(Some(lease))) if holder(&lease) == Some(self.holder.as_str()) => term.lease = lease,
                        _ => {
                            term.fence.close();
                            tracing::warn!("the Lease was taken");
                            return false;
                        }
                    }
                }
                Ok(Err(error)) => tracing::warn!(%error, "the Lease was not renewed; trying again"),
                Ok(Ok(())) | Err(_) => {}
            }
        }
    }

    /// Gives the Lease back, so that another replica need not wait. Call it after the last write.
    pub async fn give_back(&self, mut term: Term) {
        let held = !term.fence.remaining().is_zero();
        term.fence.close();
        if !held {
            return;
        }
        if let Some(spec) = term.lease.spec.as_mut() {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        let params = PostParams::default();
        let replaced = self.leases.replace(&self.options.name, &params, &term.lease);
        match tokio::time::timeout(self.options.margin(), replaced).await {
            Ok(Ok(_)) => tracing::info!("the Lease was given back"),
            Ok(Err(error)) => tracing::debug!(%error, "the Lease was not given back; it expires"),
            Err(_) => tracing::debug!("the Lease was not given back in time; it expires"),
        }
    }

    async fn read(&self) -> Result<Option<Lease>, kube::Error> {
        self.leases.get_opt(&self.options.name).await
    }

    async fn take(&self, lease: Option<Lease>) -> Result<Term, kube::Error> {
        let sent = Moment::now();
        let now = MicroTime(Timestamp::now());
        let lease = match lease {
            None => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.options.name.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(self.spec(None, &now)),
                };
                self.leases.create(&PostParams::default(), &lease).await?
            }
            Some(mut lease) => {
                lease.spec = Some(self.spec(lease.spec.as_ref(), &now));
                self.leases
                    .replace(&self.options.name, &PostParams::default(), &lease)
                    .await?
            }
        };
        let fence = Fence::closed(self.options.margin());
        fence.extend(self.deadline(sent));
        Ok(Term { fence, lease })
    }

    async fn renew(&self, term: &mut Term) -> Result<(), kube::Error> {
        let sent = Moment::now();
        let mut lease = term.lease.clone();
        if let Some(spec) = lease.spec.as_mut() {
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        term.lease = self
            .leases
            .replace(&self.options.name, &PostParams::default(), &lease)
            .await?;
        term.fence.extend(self.deadline(sent));
        Ok(())
    }

    fn deadline(&self, sent: Moment) -> Moment {
        sent + self.options.valid()
    }

    fn spec(&self, before: Option<&LeaseSpec>, now: &MicroTime) -> LeaseSpec {
        let transitions = before.and_then(|spec| spec.lease_transitions);
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: i32::try_from(self.options.duration.as_secs().max(1)).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now.clone()),
            lease_transitions: Some(transitions.map_or(0, |count| count.saturating_add(1))),
            ..LeaseSpec::default()
        }
    }
}
