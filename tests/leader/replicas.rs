//! `Replicas`: several operators that compete for one Lease, each behind a proxy of its own.

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use trellis_testkit::{
    Fault, Proxy, Script, WatchEnd,
    audit::replica_of,
    calls, eventually,
    operator::{Operator, Signal},
    plane::{Credentials, Isolated, Plane},
};

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
    account: Credentials,
    namespace: String,
    seconds: u64,
    members: Vec<Replica>,
    started: usize,
}

impl Replicas {
    /// So many replicas for this namespace; a claim lasts so many seconds.
    pub(crate) async fn start(isolated: &Isolated, count: usize, seconds: u64) -> Self {
        let plane = isolated.plane().clone();
        let account = trellis_tests::account(&plane).await.unwrap();
        let mut all = Self {
            client: isolated.client().clone(),
            plane,
            account,
            namespace: isolated.name().to_owned(),
            seconds,
            members: Vec::new(),
            started: 0,
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

    /// Whether this is the name of one of the replicas, present or past.
    pub(crate) fn has(&self, identity: &str) -> bool {
        identity.starts_with(&self.namespace)
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
        let proxy = self.plane.proxy(&self.account, &script).await.unwrap();
        let launch = trellis_tests::launch(proxy.kubeconfig(), &identity, &[&self.namespace])
            .lease(trellis_tests::NAMESPACE, &self.namespace)
            .lease_duration(&format!("{}s", self.seconds));
        Replica {
            operator: launch.start().await.unwrap(),
            identity,
            script,
            _proxy: proxy,
        }
    }
}
