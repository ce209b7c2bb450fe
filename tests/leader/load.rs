//! `Load`: users who create and change policies all the time, and remember what they asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::Service;
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use tokio::{task::JoinHandle, time::interval};
use trellis_api::ResiliencePolicy;
use trellis_testkit::{
    eventually,
    fixtures::{policy, service},
    plane::Isolated,
};

use crate::chance::Chance;

/// How many Services and policies there are.
const POLICIES: usize = 6;
/// How often a user changes something: often enough that the leader is always in the middle of work.
const PACE: Duration = Duration::from_millis(40);

const THRESHOLD: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-failures";

/// Users at work until [`Load::settle`].
pub(crate) struct Load {
    policies: Api<ResiliencePolicy>,
    services: Api<Service>,
    changes: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    users: JoinHandle<BTreeMap<String, Option<usize>>>,
}

impl Load {
    pub(crate) async fn start(isolated: &Isolated, mut chance: Chance) -> Self {
        for index in 0..POLICIES {
            let name = format!("web-{index}");
            isolated.create_object(service(&name).port(80).build()).await.unwrap();
        }
        let (changes, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (policies, services) = (isolated.api(), isolated.api());
        let users = {
            let (policies, changes, stop) = (policies.clone(), Arc::clone(&changes), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut asked = BTreeMap::new();
                let mut pace = interval(PACE);
                while !stop.load(Ordering::SeqCst) {
                    pace.tick().await;
                    let name = format!("web-{}", chance.below(POLICIES));
                    let threshold = 1 + chance.below(100);
                    let stays = change(&policies, &name, threshold, chance.below(20) == 0).await;
                    asked.insert(name, stays.then_some(threshold));
                    changes.fetch_add(1, Ordering::SeqCst);
                }
                asked
            })
        };
        Self {
            policies,
            services,
            changes,
            stop,
            users,
        }
    }

    /// Waits until an operator has handled a change that was made after this call.
    pub(crate) async fn progress(&self) {
        let before = self.handled().await;
        eventually("the operator makes progress", async || {
            let now = self.handled().await;
            if now.is_subset(&before) {
                Err(format!("{now:?}"))
            } else {
                Ok(())
            }
        })
        .await;
    }

    /// Ends the users; waits until every policy is Ready as asked for last. Returns how many changes there were.
    pub(crate) async fn settle(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let asked = self.users.await.unwrap();
        eventually("every policy is Ready as asked for last", async || {
            for (name, asked) in &asked {
                let policy = self.policies.get_opt(name).await.map_err(|error| error.to_string())?;
                let service = self.services.get(name).await.map_err(|error| error.to_string())?;
                let written = service.metadata.annotations.unwrap_or_default().get(THRESHOLD).cloned();
                if policy.as_ref().map(is_ready) != asked.map(|_| true) || written != asked.map(|it| it.to_string()) {
                    return Err(format!("{name}: {asked:?} asked for, {written:?} written, {policy:?}"));
                }
            }
            Ok(())
        })
        .await;
        self.changes.load(Ordering::SeqCst)
    }

    /// Every generation of every policy that a status has spoken of by now.
    async fn handled(&self) -> BTreeSet<(Option<String>, Option<i64>)> {
        let policies = self.policies.list(&ListParams::default()).await.unwrap();
        policies
            .into_iter()
            .map(|policy| {
                (
                    policy.metadata.uid,
                    policy.status.and_then(|status| status.common.observed_generation),
                )
            })
            .filter(|(_, generation)| generation.is_some())
            .collect()
    }
}

fn is_ready(policy: &ResiliencePolicy) -> bool {
    let conditions = policy.status.iter().flat_map(|status| &status.common.conditions);
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready.any(|ready| ready.observed_generation == policy.metadata.generation)
}

/// One change by a user; `anew`: the policy is deleted first. Returns whether the policy stays: one that was still
/// going when it was changed goes all the same.
async fn change(policies: &Api<ResiliencePolicy>, name: &str, threshold: usize, anew: bool) -> bool {
    if anew {
        let deleted = policies.delete(name, &DeleteParams::default()).await;
        assert!(
            !matches!(&deleted, Err(error) if !matches!(error, kube::Error::Api(status) if status.code == 404)),
            "{deleted:?}"
        );
    }
    let manifest = policy(name).breaker(u32::try_from(threshold).unwrap()).json();
    let by = PatchParams::apply("load").force();
    let changed = policies.patch(name, &by, &Patch::Apply(&manifest)).await.unwrap();
    changed.metadata.deletion_timestamp.is_none()
}
