//! `View`: what the model makes of a cell for one policy.
//!
//! stored Services, routes and verdicts ─▶ model: what clients of each namespace get ─▶ does a section act there?

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Service;
use kube::{ResourceExt as _, api::DynamicObject};
use serde_json::json;
use trellis_api::{ResiliencePolicy, TargetKind};
use trellis_model::{Outlook, Route, RuleOutlook, State, outlook};
use trellis_tests::LINKERD_RELEASE;

use super::laws::OWNER;
use crate::{
    asked::{Asked, REQUEST},
    chronicle::Now,
    verdict::{manager, owned, profiles, sections},
};

/// What a policy is for.
pub(super) enum Form {
    /// A Service of its namespace, as a whole.
    Whole,
    /// Routes of its own: the names of their entries, and whether they are for gRPC.
    Own(Vec<String>, bool),
    /// A route of a user, as `HTTPRoute name`.
    Theirs(String),
}

/// The namespaces of a cell at one time.
pub(crate) struct View<'a> {
    pub(super) namespaces: &'a [String],
    pub(super) all: &'a [Now],
    pub(crate) state: State<'a>,
}

/// A policy, and what it is about.
pub(super) struct Subject<'a> {
    pub(super) policy: &'a ResiliencePolicy,
    pub(super) place: usize,
    pub(super) form: Form,
    pub(super) asked: Asked,
    /// Sections of it that an older policy decides.
    pub(super) lost: Vec<&'static str>,
}

impl<'a> View<'a> {
    pub(crate) fn of(namespaces: &'a [String], all: &'a [Now]) -> Self {
        let stored = all.iter().flat_map(|now| now.routes.values());
        Self {
            namespaces,
            all,
            state: State {
                version: *LINKERD_RELEASE,
                services: all.iter().flat_map(|now| now.services.values().cloned()).collect(),
                routes: stored.map(|route| Route::read(&json!(route))).collect(),
                profiles: all.iter().flat_map(|now| profiles(&now.profiles)).collect(),
                http: vec!["v1"],
                grpc: vec!["v1"],
            },
        }
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = (&'a String, &'a Now)> {
        self.namespaces.iter().zip(self.all)
    }

    pub(super) fn subject(&self, place: usize, policy: &'a ResiliencePolicy) -> Subject<'a> {
        let target = policy.spec.target_ref.clone().unwrap_or_default();
        let form = |policy: &ResiliencePolicy| {
            let target = policy.spec.target_ref.clone().unwrap_or_default();
            let entries: Vec<String> = policy.spec.routes.iter().map(|entry| entry.name.clone()).collect();
            match target.kind {
                TargetKind::HttpRoute => Form::Theirs(format!("HTTPRoute {}", target.name)),
                TargetKind::GrpcRoute => Form::Theirs(format!("GRPCRoute {}", target.name)),
                _ if !entries.is_empty() => {
                    Form::Own(entries, policy.spec.routes.iter().any(|entry| entry.grpc.is_some()))
                }
                _ if target.namespace.is_some() && target.namespace != policy.namespace() => {
                    Form::Own(vec!["all".to_owned()], false)
                }
                _ => Form::Whole,
            }
        };
        let age = |policy: &ResiliencePolicy| {
            let created = policy.metadata.creation_timestamp.clone().map(|time| time.0);
            (created, policy.name_any())
        };
        let contends = |other: &&ResiliencePolicy| {
            let theirs = other.spec.target_ref.clone().unwrap_or_default();
            let same = (theirs.kind, &theirs.name) == (target.kind, &target.name);
            same && !matches!(form(other), Form::Own(..))
                && other.metadata.deletion_timestamp.is_none()
                && age(other) < age(policy)
        };
        let form_of_it = form(policy);
        let contested = !matches!(form_of_it, Form::Own(..));
        let rivals = self.all[place].policies.values().filter(contends).filter(|_| contested);
        let taken: Vec<&str> = rivals.flat_map(sections).map(|(name, _)| name).collect();
        let own = sections(policy).into_iter().map(|(name, _)| name);
        Subject {
            policy,
            place,
            form: form_of_it,
            asked: Asked::of(&policy.spec),
            lost: own.filter(|name| taken.contains(name)).collect(),
        }
    }

    pub(super) fn service(&self, subject: &Subject<'_>) -> Option<&'a Service> {
        match &subject.form {
            Form::Theirs(_) => self.all[0].services.get("web"),
            _ => self.all[0].services.get(&subject.policy.spec.target_ref.as_ref()?.name),
        }
    }

    pub(super) fn target_is_there(&self, subject: &Subject<'_>) -> bool {
        match &subject.form {
            Form::Theirs(name) => self.all[subject.place].routes.contains_key(name),
            _ => self.service(subject).is_some(),
        }
    }

    /// What clients of a place get at each port that the policy is about.
    pub(super) fn outlooks(&self, subject: &Subject<'_>, client: usize) -> Vec<Outlook> {
        let looked = self.outlooks_at(subject, client).into_iter();
        looked.map(|(_, outlook)| outlook).collect()
    }

    /// The same, each with its port.
    fn outlooks_at(&self, subject: &Subject<'_>, client: usize) -> Vec<(i32, Outlook)> {
        let Some(service) = self.service(subject) else {
            return Vec::new();
        };
        let named = subject.policy.spec.target_ref.as_ref().and_then(|target| target.port);
        let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        let listed: BTreeSet<i32> = ports.map(|port| port.port).collect();
        let meant = listed
            .into_iter()
            .filter(|port| named.is_none_or(|named| i32::from(named) == *port));
        let name = service.name_any();
        meant
            .map(|port| {
                let client = &self.namespaces[client];
                (port, outlook(&self.state, &self.namespaces[0], &name, port, client))
            })
            .collect()
    }

    /// The full names of the routes that carry what the policy asks for.
    pub(super) fn carriers(&self, subject: &Subject<'_>) -> Vec<String> {
        let namespace = &self.namespaces[subject.place];
        match &subject.form {
            Form::Whole => Vec::new(),
            Form::Theirs(name) => {
                let (kind, name) = name.split_once(' ').unwrap_or_default();
                vec![format!("{kind} {namespace}/{name}")]
            }
            Form::Own(entries, _) => entries.iter().map(|entry| self.full(subject, entry)).collect(),
        }
    }

    /// The full name of the route for an entry.
    pub(super) fn full(&self, subject: &Subject<'_>, entry: &str) -> String {
        let kind = if matches!(subject.form, Form::Own(_, true)) {
            "GRPCRoute"
        } else {
            "HTTPRoute"
        };
        let (namespace, name) = (&self.namespaces[subject.place], subject.policy.name_any());
        format!("{kind} {namespace}/{name}-{entry}")
    }

    /// Whether clients of the policy's namespace get what a section asks for, at some port.
    pub(super) fn acts(&self, subject: &Subject<'_>, section: &str) -> bool {
        let carriers = self.carriers(subject);
        let us = manager(&self.namespaces[subject.place], &subject.policy.name_any());
        let ports = self.rest(subject);
        self.outlooks_at(subject, subject.place).iter().any(|(port, outlook)| {
            if outlook.inert.is_some() {
                return false;
            }
            // What an older route takes does not reach the rule.
            let fits = |rule: &RuleOutlook, open: &BTreeSet<String>| {
                rule.taken_by.is_none() && subject.asked.acts(section, outlook, rule, open)
            };
            let needed = ports.iter().find(|wanted| wanted.is_none_or(|wanted| wanted == *port));
            let rest = needed.map(|at| self.full(subject, &Self::rest_name(subject, *at)));
            if carriers.is_empty() {
                return outlook.rules.iter().any(|rule| fits(rule, &BTreeSet::new()));
            }
            let served = |carrier: &str| of(outlook, carrier).next().is_some();
            rest.is_none_or(|rest| served(&rest))
                && carriers.iter().all(|carrier| {
                    let open = self.open(carrier, &us);
                    let mut rules = of(outlook, carrier).peekable();
                    rules.peek().is_some() && rules.all(|rule| fits(rule, &open))
                })
        })
    }

    /// What others than this manager say on a route, by key: its annotations, and what the field for timeouts stands for.
    pub(super) fn open(&self, carrier: &str, us: &str) -> BTreeSet<String> {
        let Some(route) = self.stored(carrier) else {
            return BTreeSet::new();
        };
        let mut open = owned(&route.metadata, |by| by != us);
        if route.data.pointer("/spec/rules/0/timeouts/request").is_some() {
            open.insert(REQUEST.to_owned());
        }
        open
    }

    /// The ports at which the policy needs a route for the requests that fit no entry, which Linkerd would refuse: where
    /// it serves no route of a user. `None` stands for all.
    pub(super) fn rest(&self, subject: &Subject<'_>) -> Vec<Option<i32>> {
        let Form::Own(_, grpc) = subject.form else {
            return Vec::new();
        };
        if subject.policy.spec.routes.is_empty() {
            return Vec::new();
        }
        let kind = if grpc { "GRPCRoute " } else { "HTTPRoute " };
        let users = |rule: &RuleOutlook| {
            let route = rule.route.as_deref().filter(|route| route.starts_with(kind));
            let stored = route.and_then(|route| self.stored(route));
            stored.is_some_and(|route| !route.labels().contains_key(OWNER))
        };
        let mut looked = self.follow(subject, grpc);
        let all = looked.len();
        looked.retain(|(_, outlook)| !outlook.rules.iter().any(users));
        if looked.len() == all {
            let target = subject.policy.spec.target_ref.as_ref();
            return vec![target.and_then(|target| target.port).map(i32::from)];
        }
        // At a port that a GRPCRoute names it takes none for HTTP.
        looked.retain(|(port, _)| grpc || !self.grpc_names(subject, *port));
        looked.into_iter().map(|(port, _)| Some(port)).collect()
    }

    /// Whether its routes for gRPC would end HTTP at a second port: they name none, and several would follow them.
    pub(super) fn spreads(&self, subject: &Subject<'_>) -> bool {
        let named = subject.policy.spec.target_ref.as_ref().and_then(|target| target.port);
        if named.is_some() || !matches!(subject.form, Form::Own(_, true)) {
            return false;
        }
        self.follow(subject, true).len() > 1
    }

    /// The ports at which routes of this kind count, with what clients of the policy's namespace get there.
    fn follow(&self, subject: &Subject<'_>, grpc: bool) -> Vec<(i32, Outlook)> {
        let mut looked = self.outlooks_at(subject, subject.place);
        looked.retain(|(_, outlook)| outlook.inert.is_none());
        // Linkerd ignores routes for gRPC at a port of HTTP/1.
        looked.retain(|(port, _)| !grpc || !self.speaks_http_1(subject, *port));
        looked
    }

    /// Name of the entry that takes what fits no other at this port.
    pub(super) fn rest_name(subject: &Subject<'_>, port: Option<i32>) -> String {
        let target = subject.policy.spec.target_ref.as_ref();
        let own = target.and_then(|target| target.port).map(i32::from);
        match port.filter(|_| port != own) {
            Some(port) => format!("rest-{port}"),
            None => "rest".to_owned(),
        }
    }

    fn speaks_http_1(&self, subject: &Subject<'_>, port: i32) -> bool {
        let spec = self.service(subject).and_then(|service| service.spec.as_ref());
        let mut ports = spec.into_iter().flat_map(|spec| spec.ports.iter().flatten());
        ports.any(|listed| listed.port == port && listed.app_protocol.as_deref() == Some("http"))
    }

    fn grpc_names(&self, subject: &Subject<'_>, port: i32) -> bool {
        let Some(service) = self.service(subject) else {
            return false;
        };
        let parent = |route: &DynamicObject| {
            let parents = route
                .data
                .pointer("/spec/parentRefs")
                .and_then(serde_json::Value::as_array);
            parents.into_iter().flatten().any(|parent| {
                let namespace = parent["namespace"]
                    .as_str()
                    .map(str::to_owned)
                    .or_else(|| route.namespace());
                parent["name"] == service.name_any() && namespace == service.namespace() && parent["port"] == port
            })
        };
        let mut routes = self.all.iter().flat_map(|now| &now.routes);
        routes.any(|(name, route)| name.starts_with("GRPCRoute ") && parent(route))
    }

    pub(super) fn stored(&self, full: &str) -> Option<&'a DynamicObject> {
        let (kind, path) = full.split_once(' ')?;
        let (namespace, name) = path.split_once('/')?;
        let (_, now) = self.places().find(|(known, _)| *known == namespace)?;
        now.routes.get(&format!("{kind} {name}"))
    }
}

/// What the rules of a route come to.
pub(super) fn of<'o>(outlook: &'o Outlook, carrier: &str) -> impl Iterator<Item = &'o RuleOutlook> {
    let carrier = carrier.to_owned();
    outlook
        .rules
        .iter()
        .filter(move |rule| rule.route.as_ref() == Some(&carrier))
}
