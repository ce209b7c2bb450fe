//! `Request`: which requests a match is for, in one form, so that matches for the same requests are equal.
//!
//! What the API server fills in is filled in here, too: no type is `Exact` or `PathPrefix`, no path is the prefix `/`.
//! Names of headers are compared in lower case, and their order does not matter.

use std::{cmp::Ordering, collections::BTreeSet};

use trellis_bindings::gateway::{GrpcRouteMatch, HeaderMatch, HttpRouteMatch};

use super::Route;

/// The requests of one match.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Request {
    path: Path,
    /// Of HTTP; `None`: any.
    method: Option<String>,
    headers: BTreeSet<(String, bool, String)>,
    parameters: BTreeSet<(String, bool, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Path {
    Prefix(String),
    Exact(String),
    Expression(String),
    /// gRPC: service and method, each `None` for any; and whether they are expressions.
    Call(Option<String>, Option<String>, bool),
}

impl Request {
    /// The requests of each rule of a route, match by match. A rule without matches has one, for every request.
    pub(crate) fn of(route: Route<'_>) -> Vec<Vec<Self>> {
        let http = route.http_rules().iter().map(|rule| match rule.matches.as_slice() {
            [] => vec![Self::http(&HttpRouteMatch::default())],
            matches => matches.iter().map(Self::http).collect(),
        });
        let grpc = route.grpc_rules().iter().map(|rule| match rule.matches.as_slice() {
            [] => vec![Self::grpc(&GrpcRouteMatch::default())],
            matches => matches.iter().map(Self::grpc).collect(),
        });
        http.chain(grpc).collect()
    }

    fn http(wanted: &HttpRouteMatch) -> Self {
        let path = wanted.path.as_ref();
        let value = path.and_then(|path| path.value.clone()).unwrap_or_else(|| "/".into());
        Self {
            path: match path.and_then(|path| path.type_.as_deref()) {
                Some("Exact") => Path::Exact(value),
                Some("RegularExpression") => Path::Expression(value),
                _ => Path::Prefix(value),
            },
            method: wanted.method.clone(),
            headers: equations(&wanted.headers),
            parameters: equations(&wanted.query_params),
        }
    }

    fn grpc(wanted: &GrpcRouteMatch) -> Self {
        let named = |name: Option<&String>| name.filter(|name| !name.is_empty()).cloned();
        let method = wanted.method.as_ref();
        let service = named(method.and_then(|method| method.service.as_ref()));
        let call = named(method.and_then(|method| method.method.as_ref()));
        let expression = method.is_some_and(|method| method.type_.as_deref() == Some("RegularExpression"));
        let any = service.is_none() && call.is_none();
        Self {
            path: Path::Call(service, call, expression && !any),
            method: None,
            headers: equations(&wanted.headers),
            parameters: BTreeSet::new(),
        }
    }

    /// Whether it is for every request.
    pub(crate) fn is_every(&self) -> bool {
        let path = match &self.path {
            Path::Prefix(prefix) => prefix == "/",
            Path::Call(service, method, _) => service.is_none() && method.is_none(),
            Path::Exact(_) | Path::Expression(_) => false,
        };
        path && self.method.is_none() && self.headers.is_empty() && self.parameters.is_empty()
    }

    /// Whether it is surely for every request that the other is for.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let within = |ours: &Option<String>, theirs: &Option<String>| ours.is_none() || ours == theirs;
        let path = match (&self.path, &other.path) {
            (Path::Prefix(prefix), Path::Prefix(path) | Path::Exact(path)) => below(prefix, path),
            (Path::Prefix(prefix), Path::Expression(_)) => prefix == "/",
            (Path::Call(None, None, _), Path::Call(..)) => true,
            (Path::Call(service, method, false), Path::Call(others, call, false)) => {
                within(service, others) && within(method, call)
            }
            (ours, theirs) => ours == theirs,
        };
        path && within(&self.method, &other.method)
            && self.headers.is_subset(&other.headers)
            && self.parameters.is_subset(&other.parameters)
    }

    /// Whether a request that is meant by both surely goes to this one, which is the more specific.
    pub(crate) fn beats(&self, other: &Self) -> bool {
        let path = if self.path == other.path {
            Ordering::Equal
        } else {
            match (&self.path, &other.path) {
                (Path::Exact(_), Path::Prefix(_)) => Ordering::Greater,
                (Path::Prefix(a), Path::Prefix(b)) => a.len().cmp(&b.len()),
                (Path::Call(service, method, false), Path::Call(others, call, false)) => {
                    (service.is_some(), method.is_some()).cmp(&(others.is_some(), call.is_some()))
                }
                _ => Ordering::Less,
            }
        };
        let rest = |request: &Self| {
            (
                request.method.is_some(),
                request.headers.len(),
                request.parameters.len(),
            )
        };
        path.then_with(|| rest(self).cmp(&rest(other))) == Ordering::Greater
    }

    /// Whether some request may be meant by both; when in doubt, yes.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        let differ = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
        if differ(&self.method, &other.method) {
            return false;
        }
        match (&self.path, &other.path) {
            (Path::Exact(a), Path::Exact(b)) => a == b,
            (Path::Prefix(prefix), Path::Exact(path)) | (Path::Exact(path), Path::Prefix(prefix)) => {
                below(prefix, path)
            }
            (Path::Prefix(a), Path::Prefix(b)) => below(a, b) || below(b, a),
            (Path::Call(service, method, false), Path::Call(others, call, false)) => {
                !differ(service, others) && !differ(method, call)
            }
            _ => true,
        }
    }
}

/// Whether a path is at or below a prefix, which ends where an element ends.
fn below(prefix: &str, path: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn equations(wanted: &[HeaderMatch]) -> BTreeSet<(String, bool, String)> {
    let equation = |wanted: &HeaderMatch| {
        let expression = wanted.type_.as_deref() == Some("RegularExpression");
        (wanted.name.to_lowercase(), expression, wanted.value.clone())
    };
    wanted.iter().map(equation).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn http(wanted: Value) -> Request {
        Request::http(&serde_json::from_value(wanted).unwrap())
    }

    #[rstest]
    #[case(json!({}), json!({"path": {"type": "PathPrefix", "value": "/"}}), true)]
    #[case(json!({"path": {"value": "/x"}}), json!({"path": {"type": "PathPrefix", "value": "/x"}}), true)]
    #[case(json!({"path": {"value": "/x"}}), json!({"path": {"type": "Exact", "value": "/x"}}), false)]
    #[case(json!({"path": {"value": "/x"}}), json!({"path": {"value": "/x"}, "method": "GET"}), false)]
    #[case(json!({"headers": [{"name": "A", "value": "1"}, {"name": "b", "value": "2"}]}), json!({"headers": [{"name": "b", "value": "2", "type": "Exact"}, {"name": "a", "value": "1"}]}), true)]
    #[case(json!({"headers": [{"name": "a", "value": "1"}]}), json!({"queryParams": [{"name": "a", "value": "1"}]}), false)]
    fn equal_matches_are_for_the_same_requests(#[case] a: Value, #[case] b: Value, #[case] expected: bool) {
        assert_eq!(http(a) == http(b), expected);
    }

    /// The order of the Gateway API: exact path, longer prefix, method, more headers.
    #[rstest]
    #[case::prefix(json!({"path": {"value": "/x/y"}}), json!({"path": {"value": "/x"}}))]
    #[case::exact(json!({"path": {"type": "Exact", "value": "/x"}}), json!({"path": {"value": "/x"}}))]
    #[case::method(json!({"method": "GET"}), json!({}))]
    #[case::header(json!({"headers": [{"name": "a", "value": "1"}]}), json!({"path": {"value": "/"}}))]
    fn the_more_specific_has_what_fits_both(#[case] narrow: Value, #[case] wide: Value) {
        let (narrow, wide) = (http(narrow), http(wide));
        assert!(narrow.beats(&wide) && wide.covers(&narrow));
        assert!(!wide.beats(&narrow) && !narrow.covers(&wide));
        assert!(!wide.beats(&wide) && wide.covers(&wide));
    }

    #[test]
    fn a_path_counts_before_a_method() {
        let exact = http(json!({"path": {"type": "Exact", "value": "/x"}}));
        let method = http(json!({"path": {"value": "/x"}, "method": "GET"}));
        assert!(exact.beats(&method) && !method.beats(&exact) && !method.covers(&exact));
    }

    /// Nothing is sure of expressions, but that all paths are below the root.
    #[test]
    fn expressions_are_in_doubt() {
        let expression = http(json!({"path": {"type": "RegularExpression", "value": "/y.*"}}));
        let path = http(json!({"path": {"value": "/y"}}));
        assert!(!expression.beats(&path) && !path.beats(&expression));
        assert!(!expression.covers(&path) && !path.covers(&expression));
        assert!(http(json!({})).covers(&expression));
    }

    #[rstest]
    #[case(json!({}), json!({"path": {"type": "Exact", "value": "/x"}}), true)]
    #[case(json!({"path": {"value": "/x"}}), json!({"path": {"value": "/x/y"}}), true)]
    #[case(json!({"path": {"value": "/x"}}), json!({"path": {"value": "/xy"}}), false)]
    #[case(json!({"path": {"value": "/x"}, "method": "GET"}), json!({"path": {"value": "/x"}, "method": "PUT"}), false)]
    #[case(json!({"path": {"value": "/x"}}), json!({"path": {"type": "RegularExpression", "value": "/y"}}), true)]
    fn matches_meet_unless_no_request_fits_both(#[case] a: Value, #[case] b: Value, #[case] expected: bool) {
        assert_eq!(http(a.clone()).meets(&http(b.clone())), expected);
        assert_eq!(http(b).meets(&http(a)), expected);
    }
}
