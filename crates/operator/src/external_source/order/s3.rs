//! The object of a bucket that a spec asks for.

use trellis_api::external_source::S3Generator;
use trellis_core::Refusal;
use trellis_fetch::{Link, S3Key, S3Object, Trust, Via};

use super::{
    Secrets,
    secret::{text, value, via},
    wrong,
};

pub(super) fn s3_object(s3: &S3Generator, secrets: &Secrets) -> Result<S3Object, Refusal> {
    let path = "spec.generator.s3";
    let endpoint = s3
        .endpoint
        .as_deref()
        .map(|text| Link::parse(text).map_err(|error| wrong(&format!("{path}.endpoint"), error.to_string())));
    let key = match &s3.secret_ref {
        None => None,
        Some(reference) => {
            let field = format!("{path}.secretRef");
            let read = |key: &str| {
                let bytes = value(secrets, &field, &reference.name, key)?;
                text(&field, &reference.name, key, &bytes)
            };
            let id = read("accesskey")?;
            Some(S3Key {
                id: secrecy::ExposeSecret::expose_secret(&id).trim().to_owned(),
                secret: read("secretkey")?,
                token: read("sessiontoken").ok(),
            })
        }
    };
    let trust = match &s3.ca_bundle_secret_ref {
        None => Trust::Roots,
        Some(reference) => {
            let field = format!("{path}.caBundleSecretRef");
            Trust::RootsAnd(value(secrets, &field, &reference.name, &reference.key)?)
        }
    };
    let via = match &s3.proxy_secret_ref {
        None => Via::default(),
        Some(reference) => via(secrets, &format!("{path}.proxySecretRef"), &reference.name)?,
    };
    Ok(S3Object {
        endpoint: endpoint.transpose()?,
        region: s3.region.clone(),
        bucket: s3.bucket.clone(),
        object: s3.key.clone(),
        path_style: s3.in_path(),
        key,
        trust,
        identity: None,
        via,
    })
}
