//! `PolicyRoute`: which requests a policy is for, when not all.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Requests that the policy is for. Each entry becomes a route of the Gateway API that only sets this policy's retries
/// and timeouts; where traffic goes does not change.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = ("has(self.http) != has(self.grpc)", "an entry of routes needs exactly one of http and grpc"))]
#[serde(rename_all = "camelCase")]
pub struct PolicyRoute {
    /// Name of the entry, unique in the policy; part of the route's name.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = (
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && !self.matches('^(all|rest(-[0-9]+)?)$')",
        "must be lower-case letters, digits and inner hyphens; all, rest and rest-PORT are reserved"
    ))]
    pub name: String,

    /// HTTP requests; a request that any of the matches fits is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HttpMatches")]
    pub http: Option<HttpMatches>,

    /// gRPC requests; a request that any of the matches fits is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "GrpcMatches")]
    pub grpc: Option<GrpcMatches>,
}

/// HTTP requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpMatches {
    /// Requests that any of these fits.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub matches: Vec<HttpMatch>,
}

/// One way for an HTTP request to be meant: everything that is given must fit.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = (
    "has(self.path) || has(self.method) || has(self.headers)",
    "a match needs at least one of path, method and headers"
))]
#[serde(rename_all = "camelCase")]
pub struct HttpMatch {
    /// Path of the request. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PathMatch")]
    pub path: Option<PathMatch>,

    /// Method of the request. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HttpMethod")]
    pub method: Option<HttpMethod>,

    /// Headers that the request must have, all of them. Absent: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub headers: Vec<HeaderMatch>,
}

/// A path.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = (
    "self.type == 'RegularExpression' || (self.value.matches('^/([-A-Za-z0-9/._~!$&()*+,;=:@\\']|%[0-9A-Fa-f]{2})*$') \
     && !self.value.matches('//|/\\\\.\\\\.?(/|$)|%2[fF]'))",
    "a path must start with / and have only characters that are legal in a path, without //, /./, /../ and %2F; for \
     patterns, use type RegularExpression"
))]
#[serde(rename_all = "camelCase")]
pub struct PathMatch {
    /// How the value is compared.
    #[serde(default, rename = "type")]
    pub type_: PathType,

    /// The path, its beginning (whole segments), or a regular expression in the syntax of Rust's regex crate.
    #[schemars(length(min = 1, max = 512))]
    pub value: String,
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathType {
    /// The whole path.
    Exact,
    /// Whole segments from the beginning.
    #[default]
    PathPrefix,
    /// A regular expression.
    RegularExpression,
}

/// A method of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the methods of HTTP")]
pub enum HttpMethod {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
}

impl HttpMethod {
    /// As on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
        }
    }
}

/// A header.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    /// Name of the header, in any case.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = (
        "self.matches('^[-A-Za-z0-9!#$%&*+.^_`|~\\']+$')",
        "must be the name of a header: letters, digits and a few signs such as hyphens, without blanks and colons"
    ))]
    pub name: String,

    /// The value, or a regular expression in the syntax of Rust's regex crate.
    #[schemars(length(min = 1, max = 512))]
    pub value: String,

    /// How the value is compared.
    #[serde(default, rename = "type")]
    pub type_: HeaderType,
}

/// How a header is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HeaderType {
    /// The whole value.
    #[default]
    Exact,
    /// A regular expression.
    RegularExpression,
}

/// gRPC requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcMatches {
    /// Requests that any of these fits.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub matches: Vec<GrpcMatch>,
}

/// One way for a gRPC request to be meant.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = (
    "has(self.service) || has(self.method)",
    "a match needs at least one of service and method"
))]
#[serde(rename_all = "camelCase")]
pub struct GrpcMatch {
    /// Full name of the service, such as shop.v1.Carts. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 256))]
    #[x_kube(validation = (
        "self.matches('^[A-Za-z_][A-Za-z_0-9]*([.][A-Za-z_][A-Za-z_0-9]*)*$')",
        "must be the full name of a gRPC service, such as shop.v1.Carts"
    ))]
    pub service: Option<String>,

    /// Name of the method, such as Add. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 256))]
    #[x_kube(validation = (
        "self.matches('^[A-Za-z_][A-Za-z_0-9]*$')",
        "must be the name of a gRPC method, such as Add"
    ))]
    pub method: Option<String>,
}
