//! `Replicas`: several operators that compete for one Lease, each behind a proxy of its own, and each with an account of
//! its own, so that the API server's audit log tells who wrote.

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    coordination::v1::Lease,
};
use kube::{Api, Client, api::PostParams};
use trellis_operator::{Controller, rbac};
use trellis_testkit::{
    Fault, Proxy, Script, WatchEnd,
    audit::replica_of,
    calls, eventually,
    operator::{Operator, Signal},
    plane::{Credentials, Isolated, Plane},
};

use crate::{chance::Chance, clock::Clocks};

/// One replica and its way to the API server.
pub(crate) struct Replica {
    pub(crate) operator: Operator,
    identity: String,
    script: Script,
    _proxy: Proxy,
}

/// Replicas that compete for one Lease, named after the namespace that they serve.
pub(crate) struct Replicas {
    plane: Plane,
    client: Client,
    namespace: String,
    seconds: u64,
    members: Vec<Replica>,
    started: usize,
    /// Each with a wall clock of its own, if any is wrong.
    clocks: Option<(Clocks, Chance)>,
}

impl Replicas {
    /// So many replicas for this namespace; a claim lasts so many seconds.
    pub(crate) async fn start(isolated: &Isolated, count: usize, seconds: u64) -> Self {
        Self::with(isolated, count, seconds, None).await
    }

    /// The same, each with a wall clock that is off and jumps.
    pub(crate) async fn out_of_step(isolated: &Isolated, count: usize, seconds: u64, chance: Chance) -> Self {
        Self::with(isolated, count, seconds, Some((Clocks::build(), chance))).await
    }

    async fn with(isolated: &Isolated, count: usize, seconds: u64, clocks: Option<(Clocks, Chance)>) -> Self {
        let plane = isolated.plane().clone();
        let mut all = Self {
            client: isolated.client().clone(),
            plane,
            namespace: isolated.name().to_owned(),
            seconds,
            members: Vec::new(),
            started: 0,
            clocks,
        };
        for _ in 0..count {
            let replica = all.another().await;
            all.members.push(replica);
        }
        all
    }

    /// The Lease's name.
    pub(crate) fn lease(&self) -> &str {
        &self.namespace
    }

    /// The replica, present or past, whose account this is.
    pub(crate) fn of_account<'u>(&self, username: &'u str) -> Option<&'u str> {
        let place = format!("system:serviceaccount:{}:", trellis_tests::NAMESPACE);
        let account = username.strip_prefix(&place)?;
        account.starts_with(&self.namespace).then_some(account)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.members.len()
    }

    /// One more.
    pub(crate) async fn grow(&mut self) {
        let replica = self.another().await;
        self.members.push(replica);
    }

    pub(crate) fn at(&self, index: usize) -> &Replica {
        &self.members[index]
    }

    /// The replica that leads; waits until one of those that run does.
    pub(crate) async fn leader(&self) -> usize {
        self.led_by("a replica leads", |_| true).await
    }

    /// Waits until another one than this leads.
    pub(crate) async fn another_than(&self, old: usize) {
        self.led_by("another replica leads", |index| index != old).await;
    }

    async fn led_by(&self, what: &str, wanted: impl Fn(usize) -> bool) -> usize {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), trellis_tests::NAMESPACE);
        eventually(what, async || {
            let lease = leases
                .get_opt(&self.namespace)
                .await
                .map_err(|error| error.to_string())?;
            let holder = lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
            let holder = replica_of(&holder).unwrap_or_default().to_owned();
            let index = self.members.iter().position(|replica| replica.identity == holder);
            index.filter(|index| wanted(*index)).ok_or(holder)
        })
        .await
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self, index: usize) {
        self.members[index].operator.kill9().await;
    }

    /// SIGTERM.
    pub(crate) async fn stop(&mut self, index: usize) {
        let status = self.members[index].operator.stop(Signal::Term).await;
        assert_eq!(
            status.code(),
            Some(0),
            "{}",
            self.members[index].operator.log().unwrap()
        );
    }

    /// A new replica in the place of one that has ended.
    pub(crate) async fn replace(&mut self, index: usize) {
        let new = self.another().await;
        self.members[index] = new;
    }

    /// Cuts a replica off: its connections break, or its requests are never answered.
    pub(crate) fn cut(&self, index: usize, silently: bool) -> trellis_testkit::script::InForce {
        let script = &self.members[index].script;
        let fault = if silently { Fault::hang() } else { Fault::cut_before() };
        let cut = script.add(calls().then(fault));
        if !silently {
            script.end_watches(&calls(), WatchEnd::Cut);
        }
        cut
    }

    async fn another(&mut self) -> Replica {
        self.started += 1;
        let identity = format!("{}-{}", self.namespace, self.started);
        let script = Script::new();
        let account = self.account(&identity).await;
        let proxy = self.plane.proxy(&account, &script).await.unwrap();
        let mut launch = trellis_tests::launch(proxy.kubeconfig(), &identity, &[&self.namespace])
            .lease(trellis_tests::NAMESPACE, &self.namespace)
            .lease_duration(&format!("{}s", self.seconds));
        if let Some((clocks, chance)) = &mut self.clocks {
            launch = clocks.on(launch, chance);
        }
        Replica {
            operator: launch.start().await.unwrap(),
            identity,
            script,
            _proxy: proxy,
        }
    }

    /// A new account with the shipped permissions; waits until they hold.
    async fn account(&self, name: &str) -> Credentials {
        let served = [self.namespace.clone()];
        let manifests = rbac::manifests(Controller::ALL, name, trellis_tests::NAMESPACE, &served);
        self.plane.apply(&manifests).await.unwrap();
        let account = self
            .plane
            .service_account(trellis_tests::NAMESPACE, name)
            .await
            .unwrap();
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        // What is bound last.
        let question = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{}:{name}", trellis_tests::NAMESPACE)),
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(self.namespace.clone()),
                    verb: Some("patch".to_owned()),
                    resource: Some("services".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        eventually("the account has its permissions", async || {
            let answer = reviews.create(&PostParams::default(), &question).await;
            let allowed = answer
                .map_err(|error| error.to_string())?
                .status
                .is_some_and(|status| status.allowed);
            if allowed { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        account
    }
}
