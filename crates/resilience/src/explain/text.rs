//! Which requests a rule is for, in words.

use trellis_bindings::gateway::{GrpcRouteMatch, HeaderMatch, HttpRouteMatch};

use crate::route::Route;

pub(super) fn matches(route: Route<'_>, index: usize) -> Vec<String> {
    let http_rule = route.http_rules().get(index);
    let grpc_rule = route.grpc_rules().get(index);
    let http = http_rule.into_iter().flat_map(|rule| &rule.matches).map(http);
    let grpc = grpc_rule.into_iter().flat_map(|rule| &rule.matches).map(grpc);
    let texts: Vec<String> = http.chain(grpc).collect();
    if texts.is_empty() {
        vec!["every request".into()]
    } else {
        texts
    }
}

fn http(wanted: &HttpRouteMatch) -> String {
    let mut parts: Vec<String> = wanted.method.iter().cloned().collect();
    let path = wanted.path.as_ref();
    let value = path.and_then(|path| path.value.as_deref()).unwrap_or("/");
    match path.and_then(|path| path.type_.as_deref()).unwrap_or("PathPrefix") {
        "PathPrefix" if value == "/" => {}
        "PathPrefix" => parts.push(format!("{}/*", value.trim_end_matches('/'))),
        "RegularExpression" => parts.push(format!("path ~ {value}")),
        _ => parts.push(value.into()),
    }
    parts.extend(wanted.headers.iter().map(|header| equation("header", header)));
    parts.extend(wanted.query_params.iter().map(|parameter| equation("query", parameter)));
    if parts.is_empty() {
        "every request".into()
    } else {
        parts.join(" ")
    }
}

fn grpc(wanted: &GrpcRouteMatch) -> String {
    let mut parts = Vec::new();
    if let Some(method) = &wanted.method {
        let (service, name) = (method.service.as_deref(), method.method.as_deref());
        parts.push(format!("/{}/{}", service.unwrap_or("*"), name.unwrap_or("*")));
    }
    parts.extend(wanted.headers.iter().map(|header| equation("header", header)));
    if parts.is_empty() {
        "every request".into()
    } else {
        parts.join(" ")
    }
}

fn equation(what: &str, wanted: &HeaderMatch) -> String {
    let sign = if wanted.type_.as_deref() == Some("RegularExpression") {
        "~"
    } else {
        "="
    };
    format!("{what} {} {sign} {}", wanted.name, wanted.value)
}
