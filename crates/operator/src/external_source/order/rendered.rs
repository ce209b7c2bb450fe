//! `Rendered`: an order as it may be seen, for `trellis source render`.
//!
//! Invariant: names of headers, parameters and variables, never their values.

use serde::Serialize;
use trellis_sources::{destination::default_name, shape::Shape};

use super::{Asked, Hook, Inner};

/// What is asked, and what becomes of the answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rendered {
    /// What is asked, before hooks change it.
    pub request: RenderedRequest,
    /// Seconds between two rounds.
    pub interval_seconds: u64,
    /// What is not as the spec says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Hooks before the request, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pre_request: Vec<RenderedHook>,
    /// Hooks after the request, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub post_request: Vec<RenderedHook>,
    /// Retries of all hooks together.
    pub max_retries: u32,
    /// How many transforms there are.
    pub transforms: usize,
    /// `Raw`, `Manifest`, `ConfigMap`, `Secret` or `Archive`.
    pub output: &'static str,
    /// Where the data lies in the artifact: a file, or a folder that ends in a slash. The name of a file that the spec does
    /// not name may get another ending from what the server says of its data.
    pub path: String,
    /// What the data must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Most bytes of the answer.
    pub max_bytes: u64,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RenderedRequest {
    /// `GET`, `POST` or `PUT`.
    pub method: &'static str,
    /// Scheme, host and path.
    pub url: String,
    /// Names of the parameters in the query.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<String>,
    /// Names of the headers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Bytes of the body.
    pub body_bytes: usize,
}

/// A hook.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RenderedHook {
    /// Its name.
    pub name: String,
    /// Its command.
    pub command: String,
    /// Its arguments, which the spec has in the open.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Names of its variables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// How long it may run.
    pub timeout: String,
    /// `ignore`, `retry` or `fail`.
    pub retry_policy: &'static str,
}

impl Rendered {
    pub(super) fn of(order: &Inner) -> Self {
        let request = match &order.asked {
            Asked::Http(draft) => RenderedRequest {
                method: draft.method(),
                url: order.shown.clone(),
                query: draft.query_names().collect(),
                headers: draft.header_names().map(ToOwned::to_owned).collect(),
                body_bytes: draft.body_bytes(),
            },
            Asked::S3(_) => RenderedRequest {
                method: "GET",
                url: order.shown.clone(),
                query: Vec::new(),
                headers: Vec::new(),
                body_bytes: 0,
            },
        };
        Self {
            request,
            interval_seconds: order.interval.every().as_secs(),
            note: note(order),
            pre_request: order.pre_request.iter().map(RenderedHook::of).collect(),
            post_request: order.post_request.iter().map(RenderedHook::of).collect(),
            max_retries: order.max_retries,
            transforms: order.transforms.len(),
            output: match order.shape {
                Shape::Manifest => "Manifest",
                Shape::ConfigMap(_) => "ConfigMap",
                Shape::Secret(_) => "Secret",
                Shape::Archive => "Archive",
                _ => "Raw",
            },
            path: path(order),
            checksum: order.checksum.map(|digest| digest.to_string()),
            max_bytes: order.max_bytes,
        }
    }
}

fn note(order: &Inner) -> Option<String> {
    let limit = order.wanted.map(|wanted| {
        format!(
            "maxBytes {wanted} is lowered to {}, the operator's --artifact-max-bytes",
            order.max_bytes
        )
    });
    let notes = order.interval.note().map(ToOwned::to_owned).into_iter().chain(limit);
    Some(notes.collect::<Vec<_>>().join("; ")).filter(|notes| !notes.is_empty())
}

fn path(order: &Inner) -> String {
    if order.shape == Shape::Archive {
        let folder = order.destination.folder();
        return folder.map_or_else(|| "./".to_owned(), |folder| format!("{folder}/"));
    }
    let default = default_name(&order.link, None, order.shape.naming());
    // A name that is too long is refused when the artifact is made.
    let file = order.destination.file(&default);
    file.unwrap_or(default).to_string()
}

impl RenderedHook {
    fn of(hook: &Hook) -> Self {
        Self {
            name: hook.name.clone(),
            command: hook.asked.command.clone(),
            args: hook.asked.args.clone(),
            env: hook.asked.env.keys().cloned().collect(),
            timeout: trellis_hooks::duration_text(hook.timeout()),
            retry_policy: hook.policy(),
        }
    }
}
