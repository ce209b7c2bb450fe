//! `Order`: what is asked of upstream, and what becomes of the answer: the spec and its Secrets, read into types. Pure.
//!
//! Invariant: no secret is in what an order shows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use secrecy::SecretString;
use serde::{Serialize, Serializer};
use trellis_api::external_source::{
    ExternalSource, ExternalSourceSpec, GeneratorBlock, HttpGenerator, Output, OutputForm, S3Generator,
};
use trellis_core::{Digest, Refusal};
use trellis_fetch::{Identity, Link, Method, Proxy, Request, S3Key, S3Object, Source, Trust, Via};
use trellis_sources::{
    destination::Destination,
    interval::{self, Interval},
    path::EntryPath,
    reason::Reason,
    shape::{Shape, Wrap},
};

use super::Settings;

/// The Secrets that a spec names, by name; none: there is no such Secret.
pub(super) type Secrets = BTreeMap<String, Option<Arc<Secret>>>;

/// What is asked, and what becomes of the answer. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Order(Arc<Inner>);

pub(crate) struct Inner {
    pub(super) source: Source,
    /// What is asked, without anything secret.
    pub(super) shown: String,
    pub(super) link: trellis_sources::link::Link,
    pub(super) interval: Interval,
    pub(super) destination: Destination,
    pub(super) shape: Shape,
    pub(super) unpack: Unpack,
    pub(super) kustomization: bool,
    pub(super) checksum: Option<Digest>,
    pub(super) max_bytes: u64,
    pub(super) timeout: Option<Duration>,
}

/// How an archive is taken apart.
#[derive(Debug, Clone, Default)]
pub(super) struct Unpack {
    pub(super) strip: usize,
    pub(super) below: Option<EntryPath>,
}

impl std::ops::Deref for Order {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.shown)
    }
}

impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.shown == other.shown
    }
}

impl Serialize for Order {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.shown)
    }
}

/// The Secrets that a spec names.
pub(super) fn secrets(spec: &ExternalSourceSpec) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    match spec.generator.block() {
        Some(GeneratorBlock::Http(http)) => {
            let refs = [&http.headers_secret_ref, &http.cert_secret_ref, &http.proxy_secret_ref];
            names.extend(refs.into_iter().flatten().map(|secret| secret.name.as_str()));
            names.extend(http.ca_bundle_secret_ref.iter().map(|bundle| bundle.name.as_str()));
        }
        Some(GeneratorBlock::S3(s3)) => {
            let refs = [&s3.secret_ref, &s3.proxy_secret_ref];
            names.extend(refs.into_iter().flatten().map(|secret| secret.name.as_str()));
            names.extend(s3.ca_bundle_secret_ref.iter().map(|bundle| bundle.name.as_str()));
        }
        _ => {}
    }
    names
}

fn wrong(field: &str, message: impl Into<String>) -> Refusal {
    Reason::ConfigurationError.refuse(message).field(field)
}

impl Order {
    /// Reads a source.
    ///
    /// Refuses with `ConfigurationError` a spec that cannot work, or a Secret or key that is missing.
    pub(super) fn of(source: &ExternalSource, secrets: &Secrets, settings: &Settings) -> Result<Self, Refusal> {
        let spec = &source.spec;
        let refuse_hooks = !spec.pre_request().is_empty() || !spec.post_request().is_empty();
        if refuse_hooks {
            return Err(wrong("spec.hooks", "this operator runs without a hook executor").hint("remove the hooks"));
        }
        if spec.all_transforms().next().is_some() {
            return Err(wrong("spec.transforms", "this operator runs no transforms yet").hint("remove the transforms"));
        }
        let interval = Interval::parse("spec.interval", &spec.interval)?;
        let destination = Destination::parse(
            "spec.destinationPath",
            spec.destination_path.as_deref().unwrap_or_default(),
        )?;
        let checksum = spec.checksum.as_deref().map(|text| {
            text.parse()
                .map_err(|_| wrong("spec.checksum", "not sha256: and 64 hexadecimal digits"))
        });
        let output = spec.output.clone().unwrap_or_default();
        let (asked, timeout, most, link) = match spec.generator.block() {
            Some(GeneratorBlock::Http(http)) => {
                let path = "spec.generator.http";
                let asked = http_request(http, secrets, settings)?;
                let link = trellis_sources::link::Link::parse(&format!("{path}.url"), &http.url)?;
                (
                    Source::Http(Box::new(asked)),
                    timeout(path, http.timeout.as_deref())?,
                    http.max_bytes,
                    link,
                )
            }
            Some(GeneratorBlock::S3(s3)) => {
                let path = "spec.generator.s3";
                let asked = s3_object(s3, secrets)?;
                let host = s3
                    .endpoint
                    .clone()
                    .unwrap_or_else(|| format!("https://s3.{}.amazonaws.com", s3.region));
                let url = format!("{}/{}/{}", host.trim_end_matches('/'), s3.bucket, s3.key);
                let link = trellis_sources::link::Link::parse(&format!("{path}.endpoint"), &url)?;
                (
                    Source::S3(Box::new(asked)),
                    timeout(path, s3.timeout.as_deref())?,
                    s3.max_bytes,
                    link,
                )
            }
            _ => return Err(wrong("spec.generator", "the block that its type names is missing")),
        };
        Ok(Self(Arc::new(Inner {
            source: asked,
            shown: link.shown(),
            link,
            interval,
            destination,
            shape: shape(&output)?,
            unpack: unpack(&output)?,
            kustomization: output.kustomization,
            checksum: checksum.transpose()?,
            max_bytes: most.unwrap_or(settings.max_bytes).min(settings.max_bytes),
            timeout,
        })))
    }
}

fn shape(output: &Output) -> Result<Shape, Refusal> {
    let wrap = || {
        let object = output
            .object
            .clone()
            .ok_or_else(|| wrong("spec.output.object", "it is missing"))?;
        Ok::<_, Refusal>(Wrap {
            name: object.name,
            namespace: object.namespace,
            key: object.key,
            labels: BTreeMap::new(),
        })
    };
    Ok(match output.as_ {
        OutputForm::Raw => Shape::Raw,
        OutputForm::Manifest => Shape::Manifest,
        OutputForm::ConfigMap => Shape::ConfigMap(wrap()?),
        OutputForm::Secret => Shape::Secret(wrap()?),
        OutputForm::Archive => Shape::Archive,
        _ => return Err(wrong("spec.output.as", "this operator does not know the form")),
    })
}

fn unpack(output: &Output) -> Result<Unpack, Refusal> {
    let Some(archive) = &output.archive else {
        return Ok(Unpack::default());
    };
    let below = archive.path.as_deref().map(|path| {
        EntryPath::parse(path.trim_end_matches('/'))
            .map_err(|error| wrong("spec.output.archive.path", error.to_string()))
    });
    Ok(Unpack {
        strip: usize::try_from(archive.strip_components).unwrap_or(usize::MAX),
        below: below.transpose()?,
    })
}

fn timeout(path: &str, text: Option<&str>) -> Result<Option<Duration>, Refusal> {
    let read = |text: &str| {
        interval::duration(text).ok_or_else(|| wrong(&format!("{path}.timeout"), format!("{text:?} is no duration")))
    };
    text.map(read).transpose()
}

/// What a request of ours is refused for is the user's to change.
fn refused(path: &str) -> impl Fn(trellis_fetch::Error) -> Refusal + '_ {
    move |error| wrong(path, error.to_string())
}

fn http_request(http: &HttpGenerator, secrets: &Secrets, settings: &Settings) -> Result<Request, Refusal> {
    let path = "spec.generator.http";
    let link = Link::parse(&http.url).map_err(|error| wrong(&format!("{path}.url"), error.to_string()))?;
    let query = http.query.iter().map(|one| (one.name.as_str(), one.value.as_str()));
    let link = if http.query.is_empty() {
        link
    } else {
        link.with_query(query)
    };
    let mut request = Request::get(link);
    let method = match http.method {
        trellis_api::external_source::Method::Get => Method::Get,
        trellis_api::external_source::Method::Post => Method::Post,
        trellis_api::external_source::Method::Put => Method::Put,
    };
    let content = http.body.as_ref().map(|body| body.content.clone()).unwrap_or_default();
    request = request.method(method, content.into_bytes()).map_err(refused(path))?;
    let mut typed = false;
    if let Some(reference) = &http.headers_secret_ref {
        let field = format!("{path}.headersSecretRef");
        for (name, value) in secret(secrets, &field, &reference.name)?.data.iter().flatten() {
            typed |= name.eq_ignore_ascii_case("content-type");
            let value = text(&field, &reference.name, name, &value.0)?;
            request = request.header(name, &value).map_err(refused(&field))?;
        }
    }
    if let (Some(body), false) = (&http.body, typed) {
        request = request
            .header("content-type", &body.content_type.clone().into())
            .map_err(refused(path))?;
    }
    if http.insecure_skip_verify {
        if !settings.allow_insecure_tls {
            return Err(wrong(
                &format!("{path}.insecureSkipVerify"),
                "this operator does not allow servers that are not verified",
            )
            .hint("put the server's authority into a Secret and name it in caBundleSecretRef"));
        }
        request = request.trust(Trust::Unchecked);
    }
    let mut bundle = Vec::new();
    if let Some(reference) = &http.ca_bundle_secret_ref {
        let field = format!("{path}.caBundleSecretRef");
        bundle.extend(value(secrets, &field, &reference.name, &reference.key)?);
    }
    if let Some(reference) = &http.cert_secret_ref {
        let field = format!("{path}.certSecretRef");
        let certificate = value(secrets, &field, &reference.name, "tls.crt")?;
        let key = value(secrets, &field, &reference.name, "tls.key")?;
        request = request.identity(Identity::new(certificate, key));
        if let Ok(more) = value(secrets, &field, &reference.name, "ca.crt") {
            bundle.push(b'\n');
            bundle.extend(more);
        }
    }
    if !bundle.is_empty() {
        request = request.trust(Trust::RootsAnd(bundle));
    }
    if let Some(reference) = &http.proxy_secret_ref {
        request = request.via(via(secrets, &format!("{path}.proxySecretRef"), &reference.name)?);
    }
    Ok(request)
}

fn s3_object(s3: &S3Generator, secrets: &Secrets) -> Result<S3Object, Refusal> {
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

fn via(secrets: &Secrets, field: &str, name: &str) -> Result<Via, Refusal> {
    let read = |key: &str| {
        let bytes = value(secrets, field, name, key)?;
        text(field, name, key, &bytes)
    };
    let address = read("address")?;
    let proxy = match (read("username"), read("password")) {
        (Ok(user), Ok(password)) => {
            let address = secrecy::ExposeSecret::expose_secret(&address).trim().to_owned();
            let link = Link::parse(&address).map_err(|error| wrong(field, error.to_string()))?;
            Proxy::with_credentials(link, secrecy::ExposeSecret::expose_secret(&user).trim(), &password)
        }
        _ => Proxy::parse(&address),
    };
    Ok(Via::Proxy(proxy.map_err(refused(field))?))
}

fn secret<'a>(secrets: &'a Secrets, field: &str, name: &str) -> Result<&'a Secret, Refusal> {
    let found = secrets.get(name).and_then(Option::as_deref);
    found.ok_or_else(|| {
        wrong(
            field,
            format!("there is no Secret {name} in the namespace of the source"),
        )
        .hint("create it")
    })
}

fn value(secrets: &Secrets, field: &str, name: &str, key: &str) -> Result<Vec<u8>, Refusal> {
    let data = secret(secrets, field, name)?.data.as_ref();
    let found = data.and_then(|data| data.get(key)).map(|value| value.0.clone());
    found.ok_or_else(|| wrong(field, format!("Secret {name} has no key {key}")).hint("add the key"))
}

fn text(field: &str, name: &str, key: &str, bytes: &[u8]) -> Result<SecretString, Refusal> {
    let text =
        std::str::from_utf8(bytes).map_err(|_| wrong(field, format!("key {key} of Secret {name} is no text")))?;
    Ok(text.to_owned().into())
}
