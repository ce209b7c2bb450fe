//! `HttpGenerator`: a request to an HTTP server.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CaBundleRef, SecretRef, rules};

/// A request to an HTTP server. What the server gave last is asked for only if it changed, by `ETag` or Last-Modified.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = rules::BODY_NEEDS_A_METHOD)]
#[x_kube(validation = rules::NO_BUNDLE_WITHOUT_VERIFYING)]
#[x_kube(validation = rules::CERTIFICATE_NEEDS_TLS)]
#[serde(rename_all = "camelCase")]
pub struct HttpGenerator {
    /// Address, beginning with http:// or https://, without user name and password. The operator decides which hosts may
    /// be asked; addresses of the machine itself and of metadata services are refused unless it says otherwise.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = rules::SCHEME)]
    #[x_kube(validation = rules::HOST)]
    #[x_kube(validation = rules::NO_USER)]
    pub url: String,

    /// Method of the request.
    #[serde(default)]
    pub method: Method,

    /// Parameters that are added to the query of the url, encoded, in this order; a name may occur more than once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub query: Vec<QueryParameter>,

    /// What is sent with method POST or PUT. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Body")]
    pub body: Option<Body>,

    /// A Secret of which every key is the name of a header and every value its value. These headers are not sent on to
    /// another host when the server redirects there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretRef")]
    pub headers_secret_ref: Option<SecretRef>,

    /// Certificates of authorities that are trusted besides those that the operator trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CaBundleRef")]
    pub ca_bundle_secret_ref: Option<CaBundleRef>,

    /// A Secret with a client certificate in tls.crt and tls.key; authorities in its ca.crt are trusted, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretRef")]
    pub cert_secret_ref: Option<SecretRef>,

    /// Trusts any server, which lets anybody in between read and replace the data. Refused unless the operator runs with
    /// --allow-insecure-tls.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure_skip_verify: bool,

    /// A Secret with the address of a proxy in address and, if it asks for them, username and password. Absent: the
    /// operator's proxy, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretRef")]
    pub proxy_secret_ref: Option<SecretRef>,

    /// Longest time from the request to the last byte of the answer, redirects included, such as 5m; 1s to 1h. Absent:
    /// as the operator is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 2, max = 16))]
    #[x_kube(validation = Rule::new(rules::fetch_timeout()).message(rules::FETCH_TIMEOUT))]
    pub timeout: Option<String>,

    /// Most bytes of the answer, compressed or not; more is refused. Absent: as the operator is set, which also has a
    /// limit above this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 1, max = 10_737_418_240_i64))]
    pub max_bytes: Option<u64>,
}

/// A method of HTTP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Asks for the data.
    #[default]
    Get,
    /// Sends a body and takes the answer, as APIs for queries want it.
    Post,
    /// The same with PUT.
    Put,
}

impl Method {
    /// As on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
        }
    }
}

/// A parameter of the query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueryParameter {
    /// Name of the parameter, not encoded.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,

    /// Its value, not encoded. Everybody who reads the object sees it.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// What is sent with a request.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Body {
    /// The text that is sent. Everybody who reads the object sees it.
    #[schemars(length(max = 65536))]
    pub content: String,

    /// Media type of the text; it is overruled by a header of headersSecretRef.
    #[serde(default = "json")]
    #[schemars(length(min = 3, max = 255))]
    #[x_kube(validation = rules::MEDIA_TYPE)]
    pub content_type: String,
}

fn json() -> String {
    "application/json".into()
}
