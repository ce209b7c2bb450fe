//! `Cell`: three namespaces of one story, with a stand-in for Linkerd's policy controller, in which policies make
//! routes: for some requests, for the clients of a namespace, for gRPC, and on routes of users.
//!
//! step ─▶ API server ─▶ the operator and the stand-in answer each other ─▶ settled: verdict by the model

#[path = "routed/causes.rs"]
mod causes;
#[path = "routed/laws.rs"]
pub(crate) mod laws;
#[path = "routed/steps.rs"]
pub(crate) mod steps;
#[path = "routed/verdict.rs"]
mod verdict;
#[path = "routed/view.rs"]
pub(crate) mod view;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use trellis_bindings::linkerd::ServiceProfile;
use trellis_testkit::plane::Isolated;

use self::{
    laws::OWNER,
    steps::{Step, THEIRS, THERE},
    view::View,
};
use crate::{
    chronicle::{Chronicle, Now, route},
    doorman::refused,
    property::{Case, Property},
    stand_in::{Linkerd, Says, StandIn},
    steps::SECTIONS,
    story::{SOON, Story, by},
    verdict::{condition, owned},
};

/// On every route of users; nobody ever changes it.
pub(crate) const SACRED: (&str, &str) = ("example.com/owner", "the shop team");
const AUTHOR: &str = "author";
const EDITOR: &str = "kubectl-annotate";

/// What happens in the namespaces of one story.
struct Cell<'a> {
    namespaces: Vec<String>,
    stories: Vec<Story<'a>>,
    client: Client,
    chronicle: &'a Chronicle,
    linkerd: StandIn,
    /// By place and route of users: the annotations that somebody else than the operator owned after the last write of a
    /// user.
    ledger: BTreeMap<(usize, String), BTreeMap<String, String>>,
}

/// Whether what is in the namespaces is as it has to be at the end of a story.
pub(crate) fn at_rest(namespaces: &[String], all: &[Now]) -> Result<(), String> {
    let view = View::of(namespaces, all);
    view.judge()?;
    laws::owners(&view)
}

/// The steps, then what the property asks at their end. Who spoke for Linkerd speaks on as long as it is kept: the
/// operator may still have something to do.
pub(crate) async fn tell(
    case: &Case,
    steps: &[Step],
    places: &[Isolated],
    linkerd: &Linkerd,
    client: &Client,
    chronicle: &Chronicle,
) -> StandIn {
    let mut cell = Cell::new(places, linkerd, client, chronicle);
    for step in steps {
        cell.take(step).await;
    }
    match case.property {
        Property::P1 => again(&mut cell).await,
        Property::P6 => all_go(&mut cell, case.number).await,
        Property::P9 => everything_off(&mut cell).await,
        _ => {
            cell.settle().await;
        }
    }
    cell.linkerd
}

/// P1: asked again and again, nothing changes.
async fn again(cell: &mut Cell<'_>) {
    // What Linkerd says of a route makes a version too.
    let versions = |all: &[Now]| -> Vec<_> {
        let services = all.iter().flat_map(|now| now.services.values());
        let services = services.map(|service| (service.uid(), service.resource_version(), BTreeMap::new()));
        let routes = all.iter().flat_map(|now| now.routes.values());
        let routes = routes.map(|route| {
            let generation = route.metadata.generation.map(|generation| generation.to_string());
            (route.uid(), generation, route.annotations().clone())
        });
        services.chain(routes).collect()
    };
    // What Linkerd still has to say has consequences, and the last step may not have been looked at when the statuses
    // happen to be true already: somewhen, nothing changes any more.
    cell.linkerd.says(Says::TheTruth);
    let mut last = None;
    for round in ["1", "2", "3", "4", "5", "6", "7", "8"] {
        for (place, name, _) in policies(&cell.settle().await) {
            cell.stories[place].request(&name, round).await;
        }
        let now = versions(&cell.settle().await);
        if last.replace(now.clone()) == Some(now) {
            return;
        }
    }
    panic!("asked again and again, something is written: {last:?}");
}

/// P6: every policy goes, in any state; some come back under their names. No route is left of those that went.
async fn all_go(cell: &mut Cell<'_>, number: u32) {
    let there = policies(&cell.chronicle.all(&cell.namespaces));
    for (place, name, _) in &there {
        cell.stories[*place].delete_policy(name).await;
    }
    let reborn = number.is_multiple_of(3);
    for (place, name, spec) in there.iter().filter(|_| reborn) {
        cell.gone(*place, name).await;
        cell.stories[*place].policy(name, spec).await;
    }
    let all = cell.settle().await;
    let routes = all.iter().flat_map(|now| now.routes.values());
    let left = routes.filter(|route| route.labels().contains_key(OWNER)).count();
    assert!(left == 0 || reborn, "{left} routes are left");
}

/// P9: with every section off, no route is left, and nothing of ours on those of users.
async fn everything_off(cell: &mut Cell<'_>) {
    for (place, name, spec) in policies(&cell.chronicle.all(&cell.namespaces)) {
        for section in SECTIONS.iter().filter(|section| spec[**section].is_object()) {
            let patch = json!({ "spec": { *section: { "enabled": false } } });
            cell.stories[place].edit(&name, patch).await;
        }
    }
    let all = cell.settle().await;
    for now in &all {
        // A policy that is refused keeps what is in place.
        let refused = now.policies.values().any(|policy| {
            let ready = condition(policy, "Ready");
            ready.is_none_or(|ready| ready.status != "True")
        });
        for (name, route) in now.routes.iter().filter(|_| !refused) {
            let ours = owned(&route.metadata, |by| by.starts_with("trellis-"));
            assert!(ours.is_empty(), "{name} keeps {ours:?}");
        }
    }
}

/// Place, name and spec of every policy.
fn policies(all: &[Now]) -> Vec<(usize, String, Value)> {
    let there = all.iter().enumerate().flat_map(|(place, now)| {
        let policies = now.policies.iter();
        policies.map(move |(name, policy)| (place, name.clone(), json!(policy.spec)))
    });
    there.collect()
}

impl<'a> Cell<'a> {
    fn new(places: &[Isolated], linkerd: &Linkerd, client: &Client, chronicle: &'a Chronicle) -> Self {
        let namespaces: Vec<String> = places.iter().map(|place| place.name().to_owned()).collect();
        let names: Vec<&str> = namespaces.iter().map(String::as_str).collect();
        Self {
            linkerd: linkerd.speak_in(&names),
            stories: places
                .iter()
                .map(|place| Story::new(place, client, chronicle))
                .collect(),
            client: client.clone(),
            chronicle,
            ledger: BTreeMap::new(),
            namespaces,
        }
    }

    /// Waits until every status tells the truth.
    async fn settle(&self) -> Vec<Now> {
        let check = |all: &[Now]| at_rest(&self.namespaces, all).map(|()| all.to_vec());
        let all = self.chronicle.until_all(&self.namespaces, SOON, check).await;
        self.stories[0].check_ledger(&all[0]);
        self.check_ledger(&all);
        all
    }

    /// Does one step, and waits until the chronicle shows it.
    async fn take(&mut self, step: &Step) {
        match step {
            Step::Policy(place, name, spec) => {
                let spec = self.placed(spec);
                self.stories[*place].policy(name, &spec).await;
            }
            Step::Toggle(place, name, section, on) => {
                let patch = json!({ "spec": { *section: { "enabled": on } } });
                self.stories[*place].edit(name, patch).await;
            }
            Step::DeletePolicy(place, name) => self.stories[*place].delete_policy(name).await,
            Step::RecreatePolicy(place, name, spec) => {
                self.stories[*place].delete_policy(name).await;
                self.gone(*place, name).await;
                let spec = self.placed(spec);
                self.stories[*place].policy(name, &spec).await;
            }
            Step::Service(name, shape) => self.stories[0].service(name, shape).await,
            Step::DeleteService(name) => self.stories[0].delete_service(name).await,
            Step::RecreateService(name, shape) => {
                self.stories[0].delete_service(name).await;
                self.stories[0].service(name, shape).await;
            }
            Step::Route(place, number, port, annotation) => {
                self.route(*place, THEIRS[*number], *port, *annotation).await;
            }
            Step::DeleteRoute(place, number) => self.delete_route(*place, THEIRS[*number]).await,
            Step::Profile(place, there) => self.profile(*place, *there).await,
            Step::Meddle(rank, key, value) => self.meddle(*rank, key, value).await,
            Step::Says(says) => self.linkerd.says(*says),
            Step::Settle => {
                self.settle().await;
            }
        }
    }

    /// Waits until a policy is gone.
    async fn gone(&self, place: usize, name: &str) {
        let namespace = &self.namespaces[place];
        let gone = |now: &Now| match now.policies.get(name) {
            Some(policy) if policy.metadata.deletion_timestamp.is_some() => Err(format!("{name} is still there")),
            _ => Ok(()),
        };
        self.chronicle.until(namespace, SOON, gone).await;
    }

    /// The spec with the Services' namespace in its place.
    fn placed(&self, spec: &Value) -> Value {
        let mut spec = spec.clone();
        if spec["targetRef"]["namespace"] == THERE {
            spec["targetRef"]["namespace"] = self.namespaces[0].as_str().into();
        }
        spec
    }

    async fn route(
        &mut self,
        place: usize,
        (kind, name): (&str, &str),
        port: Option<u16>,
        annotation: Option<(&str, &str)>,
    ) {
        let mut annotations = BTreeMap::from([SACRED]);
        annotations.extend(annotation);
        let mut parent = json!({ "group": "", "kind": "Service", "name": "web" });
        if place > 0 {
            parent["namespace"] = self.namespaces[0].as_str().into();
        }
        if let Some(port) = port {
            parent["port"] = port.into();
        }
        // A timeout that Linkerd reads since 2.20 only.
        let rule = match kind {
            "HTTPRoute" => json!({ "timeouts": { "request": "8s" } }),
            _ => json!({}),
        };
        let manifest = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
            "metadata": { "name": name, "annotations": annotations },
            "spec": { "parentRefs": [parent], "rules": [rule] },
        });
        self.check_ledger(&self.chronicle.all(&self.namespaces));
        let by = PatchParams::apply(AUTHOR).force();
        let written = match self.api(place, kind).patch(name, &by, &Patch::Apply(manifest)).await {
            Ok(written) => written,
            // The user is told, and nothing changes.
            Err(error) if refused(&error) => return,
            Err(error) => panic!("{name}: {error}"),
        };
        let key = format!("{kind} {name}");
        self.ledger.insert((place, key.clone()), theirs(&written.metadata));
        self.shown(place, &key, &written).await;
    }

    async fn delete_route(&mut self, place: usize, (kind, name): (&str, &str)) {
        match self.api(place, kind).delete(name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => return,
            Err(error) => panic!("{name}: {error}"),
        }
        let key = format!("{kind} {name}");
        self.ledger.remove(&(place, key.clone()));
        let gone = |now: &Now| {
            if now.routes.contains_key(&key) {
                Err(format!("{key} is still there"))
            } else {
                Ok(())
            }
        };
        self.chronicle.until(&self.namespaces[place], SOON, gone).await;
    }

    async fn profile(&self, place: usize, there: bool) {
        let profiles: Api<ServiceProfile> = Api::namespaced(self.client.clone(), &self.namespaces[place]);
        let name = format!("web.{}.svc.cluster.local", self.namespaces[0]);
        if there {
            let manifest = json!({
                "apiVersion": "linkerd.io/v1alpha2", "kind": "ServiceProfile", "metadata": { "name": name },
                "spec": { "routes": [{ "name": "GET /", "condition": { "method": "GET" } }] },
            });
            let by = PatchParams::apply(AUTHOR).force();
            profiles.patch(&name, &by, &Patch::Apply(manifest)).await.unwrap();
        } else if let Err(error) = profiles.delete(&name, &DeleteParams::default()).await {
            assert!(
                matches!(&error, kube::Error::Api(status) if status.code == 404),
                "{error}"
            );
        }
        let shown = |now: &Now| {
            if now.profiles.is_empty() == there {
                Err("not shown yet".to_owned())
            } else {
                Ok(())
            }
        };
        self.chronicle.until(&self.namespaces[place], SOON, shown).await;
    }

    /// Another manager on one of the routes that policies made.
    async fn meddle(&mut self, rank: usize, key: &str, value: &str) {
        let mut made = Vec::new();
        for (place, namespace) in self.namespaces.iter().enumerate() {
            let routes = self.chronicle.now(namespace).routes;
            let ours = routes
                .into_iter()
                .filter(|(_, route)| route.labels().contains_key(OWNER));
            made.extend(ours.map(|(name, _)| (place, name)));
        }
        let Some((place, full)) = made.get(rank) else { return };
        let (kind, name) = full.split_once(' ').unwrap();
        let patch = json!({ "metadata": { "annotations": { key: value } } });
        match self
            .api(*place, kind)
            .patch(name, &by(EDITOR), &Patch::Merge(patch))
            .await
        {
            Ok(written) => self.shown(*place, full, &written).await,
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) if refused(&error) => {}
            Err(error) => panic!("{full}: {error}"),
        }
    }

    fn api(&self, place: usize, kind: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespaces[place], &route(kind))
    }

    /// Waits until the chronicle shows this version, a later one, or none any more.
    async fn shown(&self, place: usize, name: &str, written: &DynamicObject) {
        let version = |route: &DynamicObject| route.resource_version().unwrap().parse::<u64>().unwrap();
        let there = |now: &Now| match now.routes.get(name) {
            Some(route) if version(route) < version(written) => Err("behind".to_owned()),
            None if !written.labels().contains_key(OWNER) => Err("not there yet".to_owned()),
            _ => Ok(()),
        };
        self.chronicle.until(&self.namespaces[place], SOON, there).await;
    }

    /// What others own on users' routes is as they left it.
    fn check_ledger(&self, all: &[Now]) {
        for ((place, name), theirs) in &self.ledger {
            let Some(route) = all[*place].routes.get(name) else {
                continue;
            };
            for (key, value) in theirs {
                let found = route.annotations().get(key);
                assert_eq!(found, Some(value), "{place}/{name}: {key} belongs to a user");
            }
        }
    }
}

/// The annotations that somebody else than the operator owns.
fn theirs(metadata: &ObjectMeta) -> BTreeMap<String, String> {
    let keys = owned(metadata, |manager| !manager.starts_with("trellis-"));
    let all = metadata.annotations.clone().unwrap_or_default().into_iter();
    all.filter(|(key, _)| keys.contains(key)).collect()
}
