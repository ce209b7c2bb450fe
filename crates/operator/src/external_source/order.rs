//! `Order`: what is asked of upstream, and what becomes of the answer: the spec and its Secrets, read into types. Pure.
//!
//! ```text
//!  ExternalSource + its Secrets ─▶ Order ─┬▶ description, source(change) ─▶ the request
//!                                         ├▶ hooks, transforms, shape ─▶ what becomes of the data
//!                                         └▶ rendered: all of it that may be seen
//! ```
//!
//! Invariant: no secret is in what an order shows.

mod hook;
mod http;
mod rendered;
mod s3;
mod secret;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use serde::{Serialize, Serializer};
use trellis_api::external_source::{
    ExternalSource, ExternalSourceSpec, GeneratorBlock, Output, OutputForm, TransformType,
};
use trellis_core::{Digest, Refusal};
use trellis_fetch::{S3Object, Source};
use trellis_sources::{
    chain::request_change::{Change, Description},
    destination::Destination,
    interval::{self, Interval},
    path::EntryPath,
    reason::Reason,
    shape::{Shape, Wrap},
    transform::Transform,
};

use super::Settings;

pub(super) use hook::Hook;
pub use rendered::{Rendered, RenderedHook, RenderedRequest};

/// The Secrets that a spec names, by name; none: there is no such Secret.
pub type Secrets = BTreeMap<String, Option<Arc<Secret>>>;

/// What is asked, and what becomes of the answer. Cheap to clone.
#[derive(Clone)]
pub struct Order(Arc<Inner>);

pub(super) struct Inner {
    asked: Asked,
    /// The namespace of the source.
    pub(super) tenant: Option<String>,
    /// Whether a person asks for everything anew, whatever upstream thinks of it.
    pub(super) insists: bool,
    /// What is asked, without anything secret.
    pub(super) shown: String,
    pub(super) link: trellis_sources::link::Link,
    pub(super) interval: Interval,
    pub(super) pre_request: Vec<Hook>,
    pub(super) post_request: Vec<Hook>,
    pub(super) max_retries: u32,
    pub(super) transforms: Vec<Transform>,
    pub(super) destination: Destination,
    pub(super) shape: Shape,
    pub(super) unpack: Unpack,
    pub(super) kustomization: bool,
    pub(super) checksum: Option<Digest>,
    pub(super) max_bytes: u64,
    /// Whether that is the operator's limit, because the spec has none or a larger one.
    pub(super) capped: bool,
    /// The limit of the spec, where the operator's is smaller.
    pub(super) wanted: Option<u64>,
    pub(super) timeout: Option<Duration>,
}

/// What is asked, as long as hooks may still change it.
enum Asked {
    Http(Box<http::Draft>),
    S3(Box<S3Object>),
}

/// How an archive is taken apart.
#[derive(Debug, Clone, Default)]
pub(super) struct Unpack {
    pub(super) strip: usize,
    pub(super) below: Option<EntryPath>,
}

impl fmt::Debug for Order {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.shown)
    }
}

impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.shown == other.0.shown
    }
}

impl Serialize for Order {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0.shown)
    }
}

/// Names of the Secrets that a spec needs, all in the namespace of its source.
#[must_use]
pub fn secrets(spec: &ExternalSourceSpec) -> BTreeSet<&str> {
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
    let hooks = spec.pre_request().iter().chain(spec.post_request());
    let sources = hooks
        .flat_map(|hook| &hook.env)
        .filter_map(|variable| variable.value_from.as_ref());
    names.extend(sources.map(|source| source.secret_key_ref.name.as_str()));
    names
}

fn wrong(field: &str, message: impl Into<String>) -> Refusal {
    Reason::ConfigurationError.refuse(message).field(field)
}

impl Order {
    /// The type of the generator, as the spec says it.
    pub(super) fn generator(&self) -> &'static str {
        match &self.0.asked {
            Asked::Http(_) => "http",
            Asked::S3(_) => "s3",
        }
    }

    /// Reads a source, with the Secrets that [`secrets`] names.
    ///
    /// # Errors
    /// `ConfigurationError`: a spec that cannot work, or a Secret or key that is missing.
    pub fn of(source: &ExternalSource, secrets: &Secrets, settings: &Settings) -> Result<Self, Refusal> {
        let spec = &source.spec;
        let namespace = source.namespace();
        let hooks = |which: &str, hooks: &[_]| Hook::all(which, hooks, namespace.as_deref(), secrets);
        let output = spec.output.clone().unwrap_or_default();
        let (asked, timeout, most, link) = asked(spec, secrets, settings)?;
        let checksum = spec.checksum.as_deref().map(|text| {
            text.parse()
                .map_err(|_| wrong("spec.checksum", "not sha256: and 64 hexadecimal digits"))
        });
        let order = Self(Arc::new(Inner {
            asked,
            tenant: namespace.clone(),
            insists: super::see::forced(source),
            shown: link.shown(),
            link,
            interval: Interval::parse("spec.interval", &spec.interval)?,
            pre_request: hooks("spec.hooks.preRequest", spec.pre_request())?,
            post_request: hooks("spec.hooks.postRequest", spec.post_request())?,
            max_retries: spec.max_retries,
            transforms: transforms(spec)?,
            destination: Destination::parse(
                "spec.destinationPath",
                spec.destination_path.as_deref().unwrap_or_default(),
            )?,
            shape: shape(&output)?,
            unpack: unpack(&output)?,
            kustomization: output.kustomization,
            checksum: checksum.transpose()?,
            max_bytes: most.unwrap_or(settings.max_bytes).min(settings.max_bytes),
            capped: most.is_none_or(|most| most > settings.max_bytes),
            wanted: most.filter(|most| *most > settings.max_bytes),
            timeout,
        }));
        order.source(&Change::default())?;
        Ok(order)
    }

    /// What is asked and made, as far as it may be seen: no value of a header, a parameter or a variable.
    #[must_use]
    pub fn rendered(&self) -> Rendered {
        Rendered::of(&self.0)
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }

    /// Whether any hook runs.
    pub(super) fn has_hooks(&self) -> bool {
        !self.0.pre_request.is_empty() || !self.0.post_request.is_empty()
    }

    /// What preRequest hooks are told of the request.
    pub(super) fn description(&self) -> Description {
        match &self.0.asked {
            Asked::Http(draft) => draft.description(),
            Asked::S3(_) => Description {
                method: "GET".to_owned(),
                url: self.0.shown.clone(),
                ..Description::default()
            },
        }
    }

    /// What is asked, with what hooks changed of it: read and checked again as a whole.
    pub(super) fn source(&self, change: &Change) -> Result<Source, Refusal> {
        match &self.0.asked {
            Asked::Http(draft) => Ok(Source::Http(Box::new(draft.request(change)?))),
            Asked::S3(object) if *change == Change::default() => Ok(Source::S3(object.clone())),
            Asked::S3(_) => Err(wrong(
                "spec.hooks.preRequest",
                "the request for an object of a store is signed; hooks cannot change it",
            )),
        }
    }
}

/// What is asked, how long it may take, how much may come, and from where.
type Found = (Asked, Option<Duration>, Option<u64>, trellis_sources::link::Link);

fn asked(spec: &ExternalSourceSpec, secrets: &Secrets, settings: &Settings) -> Result<Found, Refusal> {
    match spec.generator.block() {
        Some(GeneratorBlock::Http(http)) => {
            let path = "spec.generator.http";
            let draft = http::Draft::of(http, secrets, settings)?;
            let link = trellis_sources::link::Link::parse(&format!("{path}.url"), &http.url)?;
            let timeout = timeout(path, http.timeout.as_deref())?;
            Ok((Asked::Http(Box::new(draft)), timeout, http.max_bytes, link))
        }
        Some(GeneratorBlock::S3(s3)) => {
            let path = "spec.generator.s3";
            let object = s3::s3_object(s3, secrets)?;
            let host = s3
                .endpoint
                .clone()
                .unwrap_or_else(|| format!("https://s3.{}.amazonaws.com", s3.region));
            let url = format!("{}/{}/{}", host.trim_end_matches('/'), s3.bucket, s3.key);
            let link = trellis_sources::link::Link::parse(&format!("{path}.endpoint"), &url)?;
            let timeout = timeout(path, s3.timeout.as_deref())?;
            Ok((Asked::S3(Box::new(object)), timeout, s3.max_bytes, link))
        }
        _ => Err(wrong("spec.generator", "the block that its type names is missing")),
    }
}

/// The transforms, ready to run.
fn transforms(spec: &ExternalSourceSpec) -> Result<Vec<Transform>, Refusal> {
    let legacy = spec.transform.is_some();
    let transforms = spec.all_transforms().enumerate();
    let read = transforms.map(|(place, transform)| {
        let (name, field) = if legacy {
            ("spec.transform".to_owned(), "spec.transform".to_owned())
        } else {
            ((place + 1).to_string(), format!("spec.transforms[{place}]"))
        };
        match transform.type_ {
            TransformType::Cel => Transform::cel(&name, &transform.expression)
                .map_err(|refusal| refusal.field(format!("{field}.expression"))),
            _ => Err(wrong(
                &format!("{field}.type"),
                format!(
                    "{} does not run inside the operator, where nothing would bound it",
                    transform.type_
                ),
            )
            .hint("write the expression in CEL, or run jq as a hook in spec.hooks.postRequest")),
        }
    });
    read.collect()
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
