//! `S3Generator`: an object in a store that speaks S3.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{CaBundleRef, SecretRef, rules};

/// An object in a store that speaks S3, such as AWS or `MinIO`. It is fetched again only if its `ETag` changed.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct S3Generator {
    /// Name of the bucket.
    #[schemars(length(min = 3, max = 63))]
    #[x_kube(validation = rules::BUCKET)]
    pub bucket: String,

    /// Key of the object in the bucket.
    #[schemars(length(min = 1, max = 1024))]
    pub key: String,

    /// Address of the store: http:// or https:// and a host, with a port if need be. Absent: that of AWS for the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 8, max = 300))]
    #[x_kube(validation = rules::ENDPOINT)]
    pub endpoint: Option<String>,

    /// Region for which requests are signed.
    #[serde(default = "us_east_1")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::REGION)]
    pub region: String,

    /// Names the bucket in the path instead of the host. Absent: true where there is an endpoint, since few stores beside
    /// AWS have a host for each bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub path_style: Option<bool>,

    /// A Secret with credentials in accesskey and secretkey and, for temporary ones, sessiontoken. Absent: requests are
    /// not signed, which only public objects admit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretRef")]
    pub secret_ref: Option<SecretRef>,

    /// Certificates of authorities that are trusted besides those that the operator trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CaBundleRef")]
    pub ca_bundle_secret_ref: Option<CaBundleRef>,

    /// A Secret with the address of a proxy in address and, if it asks for them, username and password. Absent: the
    /// operator's proxy, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretRef")]
    pub proxy_secret_ref: Option<SecretRef>,

    /// Longest time from the request to the last byte of the object, such as 5m; 1s to 1h. Absent: as the operator is
    /// set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 2, max = 16))]
    #[x_kube(validation = Rule::new(rules::fetch_timeout()).message(rules::FETCH_TIMEOUT))]
    pub timeout: Option<String>,

    /// Most bytes of the object; a larger one is refused. Absent: as the operator is set, which also has a limit above
    /// this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 1, max = 10_737_418_240_i64))]
    pub max_bytes: Option<u64>,
}

impl S3Generator {
    /// Whether the bucket is named in the path, written or not.
    #[must_use]
    pub fn in_path(&self) -> bool {
        self.path_style.unwrap_or(self.endpoint.is_some())
    }
}

fn us_east_1() -> String {
    "us-east-1".into()
}
