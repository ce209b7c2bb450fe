//! The routes that are made for a policy.
//!
//! ```text
//!  routes[] ──────────────▶ one route per entry: its matches, the policy's retries and timeouts
//!  where nobody else's route is served ─▶ one more, `rest`, or `rest-<port>` for each port where that is so, that
//!                                         takes all other requests and sets nothing
//!  consumer without routes[] ─▶ one route, `all`
//! ```
//!
//! Invariants: group and kind of the parent are always written, since the API server would fill them with others;
//! there are no backends, so that traffic goes where it went; a name is at most 63 characters long; `rest` comes first,
//! so that it is written before the entries and taken back after them: without it, other requests get 404.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use serde::Serialize;
use trellis_api::{GrpcMatch, HeaderType, HttpMatch, PathType, PolicyRoute, ResiliencePolicy, TargetKind, TargetRef};
use trellis_bindings::gateway::{
    GrpcMethodMatch, GrpcRoute, GrpcRouteMatch, GrpcRouteRule, GrpcRouteSpec, HeaderMatch, HttpRoute, HttpRouteMatch,
    HttpRouteRule, HttpRouteSpec, ParentRef, PathMatch,
};
use trellis_core::Refusal;

use super::{OWNER, Request, Route, expression};
use crate::{Reason, annotations::Annotations, annotations::Place, joined, shortened};

/// A route that is made for a policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Built {
    /// For HTTP.
    Http(HttpRoute),
    /// For gRPC.
    Grpc(GrpcRoute),
}

impl Built {
    /// Whether it takes what fits no entry, and sets nothing.
    pub(crate) fn is_rest(&self, policy: &ResiliencePolicy) -> bool {
        let name = self.as_route().name();
        let mut entries = policy.spec.routes.iter();
        name != name_of(policy, ALL) && !entries.any(|entry| name == name_of(policy, &entry.name))
    }

    /// The route as any other.
    #[must_use]
    pub fn as_route(&self) -> Route<'_> {
        match self {
            Self::Http(route) => Route::Http(route),
            Self::Grpc(route) => Route::Grpc(route),
        }
    }
}

/// Which routes a policy needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// None: it writes to its target.
    Whole,
    /// One for each entry of its routes; and one more before them where requests that fit no entry would get 404.
    Entries {
        /// The ports where nobody else's route is served; `None` stands for all of the target.
        rest: Vec<Option<u16>>,
    },
    /// One for all requests of clients in the policy's namespace to a Service in another one.
    Consumer,
}

/// Name of the entry that takes what fits no other; with a port, where it does not do so at all of the target's.
const REST: &str = "rest";
/// Name of the entry of a consumer without routes.
const ALL: &str = "all";

/// Whether the policy asks for a route of this kind and name, though it may not be made. Which ports need a `rest` is not
/// for the spec to say; a name that was shortened does not tell any more, and is taken to be one.
#[must_use]
pub fn is_asked(policy: &ResiliencePolicy, kind: &str, name: &str) -> bool {
    if kind_of(policy).to_string() != kind {
        return false;
    }
    if policy.spec.routes.is_empty() {
        let outside = policy.spec.target_ref.as_ref().is_some_and(|target| {
            target.kind == TargetKind::Service && target.namespace.is_some() && target.namespace != policy.namespace()
        });
        return outside && name == name_of(policy, ALL);
    }
    let mut entries = policy.spec.routes.iter();
    entries.any(|entry| name == name_of(policy, &entry.name)) || may_be_rest(policy, name)
}

fn may_be_rest(policy: &ResiliencePolicy, name: &str) -> bool {
    let rest = format!("{}-{REST}", policy.name_any());
    let port = |name: &str| name.is_empty() || name.strip_prefix('-').is_some_and(|port| port.parse::<u16>().is_ok());
    let longest = format!("{rest}-65535");
    let cut = shortened(&longest) != longest && name.len() >= rest.len().min(60);
    name.strip_prefix(&rest).is_some_and(port) || cut
}

/// The name of the route for an entry of a policy.
#[must_use]
pub fn name_of(policy: &ResiliencePolicy, entry: &str) -> String {
    joined(&policy.name_any(), entry)
}

/// The routes for a policy: `annotations` are those of the sections that it sets on them. None, if there are none.
///
/// Refuses with `Invalid` a regular expression that Linkerd could not read.
pub fn build(policy: &ResiliencePolicy, scope: &Scope, annotations: &Annotations) -> Result<Vec<Built>, Refusal> {
    let Some(target) = policy.spec.target_ref.as_ref().filter(|_| !annotations.is_empty()) else {
        return Ok(Vec::new());
    };
    let maker = Maker { policy, target };
    let (entries, rest) = match scope {
        Scope::Whole => return Ok(Vec::new()),
        Scope::Consumer => {
            let rule = HttpRouteRule {
                matches: vec![everything()],
                ..HttpRouteRule::default()
            };
            return Ok(vec![maker.http(ALL, annotations, rule)]);
        }
        Scope::Entries { rest } => (&policy.spec.routes, rest),
    };
    let mut built = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        built.push(maker.entry(entry, index, annotations)?);
    }
    // An entry for every request leaves none.
    let requests = built.iter().flat_map(|entry| Request::of(entry.as_route())).flatten();
    if !rest.is_empty() && !requests.into_iter().any(|request| request.is_every()) {
        let rests = rest.iter().map(|port| maker.rest(*port, kind_of(policy)));
        built.splice(0..0, rests);
    }
    Ok(built)
}

/// Whether what the policy says of a Service or network in this namespace goes on routes of its own, and not on that.
#[must_use]
pub fn is_on_own(policy: &ResiliencePolicy, namespace: &str) -> bool {
    !policy.spec.routes.is_empty() || policy.namespace().unwrap_or_default() != namespace
}

/// Which kind of route the entries of the policy become.
#[must_use]
pub fn kind_of(policy: &ResiliencePolicy) -> Place {
    if policy.spec.routes.iter().any(|entry| entry.grpc.is_some()) {
        Place::GrpcRoute
    } else {
        Place::HttpRoute
    }
}

struct Maker<'a> {
    policy: &'a ResiliencePolicy,
    target: &'a TargetRef,
}

impl Maker<'_> {
    fn entry(&self, entry: &PolicyRoute, index: usize, annotations: &Annotations) -> Result<Built, Refusal> {
        let path = format!("spec.routes[{index}]");
        match (&entry.http, &entry.grpc) {
            (Some(http), None) => {
                let matches = http.matches.iter().map(|wanted| http_match(&path, wanted));
                let rule = HttpRouteRule {
                    matches: matches.collect::<Result<_, _>>()?,
                    ..HttpRouteRule::default()
                };
                Ok(self.http(&entry.name, annotations, rule))
            }
            (None, Some(grpc)) => {
                let rule = GrpcRouteRule {
                    matches: grpc.matches.iter().map(grpc_match).collect(),
                    ..GrpcRouteRule::default()
                };
                Ok(self.grpc(&entry.name, annotations, rule))
            }
            _ => Err(Reason::Invalid
                .refuse("an entry of routes needs exactly one of http and grpc")
                .field(path)),
        }
    }

    /// All other requests, at this port. A route for each, since the Gateway API's standard channel takes no two
    /// references to one parent.
    fn rest(&self, port: Option<u16>, kind: Place) -> Built {
        let nothing = Annotations::new();
        let name = match port.filter(|_| port != self.target.port) {
            Some(port) => format!("{REST}-{port}"),
            None => REST.to_owned(),
        };
        let rule = HttpRouteRule {
            matches: vec![everything()],
            ..HttpRouteRule::default()
        };
        let mut rest = match kind {
            Place::GrpcRoute => self.grpc(&name, &nothing, GrpcRouteRule::default()),
            _ => self.http(&name, &nothing, rule),
        };
        match &mut rest {
            Built::Http(route) => route.spec.parent_refs = vec![self.parent(port)],
            Built::Grpc(route) => route.spec.parent_refs = vec![self.parent(port)],
        }
        rest
    }

    fn http(&self, entry: &str, annotations: &Annotations, rule: HttpRouteRule) -> Built {
        let spec = HttpRouteSpec {
            parent_refs: vec![self.parent(self.target.port)],
            rules: vec![rule],
            ..HttpRouteSpec::default()
        };
        Built::Http(HttpRoute {
            metadata: self.metadata(entry, annotations),
            spec,
            status: None,
        })
    }

    fn grpc(&self, entry: &str, annotations: &Annotations, rule: GrpcRouteRule) -> Built {
        let spec = GrpcRouteSpec {
            parent_refs: vec![self.parent(self.target.port)],
            rules: vec![rule],
            ..GrpcRouteSpec::default()
        };
        Built::Grpc(GrpcRoute {
            metadata: self.metadata(entry, annotations),
            spec,
            status: None,
        })
    }

    fn parent(&self, port: Option<u16>) -> ParentRef {
        let own = self.policy.namespace();
        let (group, kind) = match self.target.kind {
            TargetKind::EgressNetwork => ("policy.linkerd.io", "EgressNetwork"),
            _ => ("", "Service"),
        };
        ParentRef {
            group: Some(group.into()),
            kind: Some(kind.into()),
            namespace: self
                .target
                .namespace
                .clone()
                .filter(|named| Some(named) != own.as_ref()),
            name: self.target.name.clone(),
            port,
        }
    }

    fn metadata(&self, entry: &str, annotations: &Annotations) -> ObjectMeta {
        let annotations = annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()));
        ObjectMeta {
            name: Some(name_of(self.policy, entry)),
            namespace: self.policy.namespace(),
            labels: Some([(OWNER.to_owned(), shortened(&self.policy.name_any()))].into()),
            annotations: Some(annotations.collect()).filter(|all: &std::collections::BTreeMap<_, _>| !all.is_empty()),
            ..ObjectMeta::default()
        }
    }
}

fn everything() -> HttpRouteMatch {
    HttpRouteMatch {
        path: Some(PathMatch {
            type_: Some("PathPrefix".into()),
            value: Some("/".into()),
        }),
        ..HttpRouteMatch::default()
    }
}

fn http_match(entry: &str, wanted: &HttpMatch) -> Result<HttpRouteMatch, Refusal> {
    if let Some(path) = wanted
        .path
        .as_ref()
        .filter(|path| path.type_ == PathType::RegularExpression)
    {
        expression(entry, &path.value)?;
    }
    for header in wanted
        .headers
        .iter()
        .filter(|header| header.type_ == HeaderType::RegularExpression)
    {
        expression(entry, &header.value)?;
    }
    let path = wanted.path.as_ref().map(|path| PathMatch {
        type_: Some(
            match path.type_ {
                PathType::Exact => "Exact",
                PathType::PathPrefix => "PathPrefix",
                PathType::RegularExpression => "RegularExpression",
            }
            .into(),
        ),
        value: Some(path.value.clone()),
    });
    let headers = wanted.headers.iter().map(|header| HeaderMatch {
        type_: Some(
            match header.type_ {
                HeaderType::Exact => "Exact",
                HeaderType::RegularExpression => "RegularExpression",
            }
            .into(),
        ),
        name: header.name.clone(),
        value: header.value.clone(),
    });
    Ok(HttpRouteMatch {
        // The API server fills an absent path with the prefix `/`; written, it is ours, and no apply ever differs.
        path: path.or_else(|| everything().path),
        headers: headers.collect(),
        query_params: Vec::new(),
        method: wanted.method.map(|method| method.as_str().into()),
    })
}

fn grpc_match(wanted: &GrpcMatch) -> GrpcRouteMatch {
    GrpcRouteMatch {
        method: Some(GrpcMethodMatch {
            type_: Some("Exact".into()),
            service: wanted.service.clone(),
            method: wanted.method.clone(),
        }),
        headers: Vec::new(),
    }
}

fn expression(entry: &str, text: &str) -> Result<(), Refusal> {
    expression::check(text).map_err(|why| {
        Reason::Invalid
            .refuse(format!(
                "{text:?} is not a regular expression that Linkerd reads: {why}"
            ))
            .field(format!("{entry}.http.matches"))
    })
}
