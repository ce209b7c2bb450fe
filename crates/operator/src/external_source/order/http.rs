//! The request that a spec asks for, as long as hooks may still change it.
//!
//! ```text
//!  spec, Secrets ─▶ Draft ─▶ description ─▶ (preRequest hooks) ─▶ Change ─▶ request: checked again as a whole
//! ```
//!
//! Invariant: method, scheme, host and path are those of the spec, whatever hooks say.

use secrecy::{ExposeSecret as _, SecretString};
use trellis_api::external_source::{self as api, HttpGenerator};
use trellis_core::Refusal;
use trellis_fetch::{Identity, Link, Method, Request, Trust, Via};
use trellis_sources::chain::request_change::{Change, Description};

use super::{
    Secrets, refused,
    secret::{secret, text, value, via},
    wrong,
};
use crate::external_source::Settings;

const PATH: &str = "spec.generator.http";

/// A request before hooks.
pub(super) struct Draft {
    link: Link,
    method: Method,
    headers: Vec<(String, SecretString)>,
    body: String,
    trust: Trust,
    identity: Option<Identity>,
    via: Via,
}

impl Draft {
    /// Reads the block.
    pub(super) fn of(http: &HttpGenerator, secrets: &Secrets, settings: &Settings) -> Result<Self, Refusal> {
        let link = Link::parse(&http.url).map_err(|error| wrong(&format!("{PATH}.url"), error.to_string()))?;
        let query = http.query.iter().map(|one| (one.name.as_str(), one.value.as_str()));
        let via = match &http.proxy_secret_ref {
            None => Via::default(),
            Some(reference) => via(secrets, &format!("{PATH}.proxySecretRef"), &reference.name)?,
        };
        Ok(Self {
            link: link.with_query(query),
            method: match http.method {
                api::Method::Get => Method::Get,
                api::Method::Post => Method::Post,
                api::Method::Put => Method::Put,
            },
            headers: headers(http, secrets)?,
            body: http.body.as_ref().map(|body| body.content.clone()).unwrap_or_default(),
            trust: trust(http, secrets, settings)?,
            identity: identity(http, secrets)?,
            via,
        })
    }

    /// What hooks are told of it.
    pub(super) fn description(&self) -> Description {
        let headers = self.headers.iter();
        Description {
            method: self.method().to_owned(),
            url: self.link.without_query().whole().to_owned(),
            query: self.link.query(),
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.expose_secret().to_owned()))
                .collect(),
            body: (self.method != Method::Get).then(|| self.body.clone()),
        }
    }

    /// The method as it is written.
    pub(super) fn method(&self) -> &'static str {
        match self.method {
            Method::Post => "POST",
            Method::Put => "PUT",
            _ => "GET",
        }
    }

    /// Names of the headers.
    pub(super) fn header_names(&self) -> impl Iterator<Item = &str> {
        self.headers.iter().map(|(name, _)| name.as_str())
    }

    /// Names of the query's parameters.
    pub(super) fn query_names(&self) -> impl Iterator<Item = String> {
        self.link.query().into_iter().map(|(name, _)| name)
    }

    /// Bytes of the body.
    pub(super) fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// The request with what hooks changed of it.
    pub(super) fn request(&self, change: &Change) -> Result<Request, Refusal> {
        let link = match &change.query {
            None => self.link.clone(),
            Some(query) => {
                let pairs = query.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                self.link.without_query().with_query(pairs)
            }
        };
        let body = change.body.as_ref().unwrap_or(&self.body);
        let mut request = Request::get(link)
            .method(self.method, body.clone().into_bytes())
            .map_err(refused(PATH))?
            .trust(self.trust.clone())
            .via(self.via.clone());
        if let Some(identity) = &self.identity {
            request = request.identity(identity.clone());
        }
        let changed = change.headers.as_ref().map(|headers| {
            let headers = headers.iter();
            headers
                .map(|(name, value)| (name.clone(), SecretString::from(value.clone())))
                .collect()
        });
        for (name, value) in changed.as_ref().unwrap_or(&self.headers) {
            request = request
                .header(name, value)
                .map_err(refused(&format!("{PATH}.headersSecretRef")))?;
        }
        Ok(request)
    }
}

fn headers(http: &HttpGenerator, secrets: &Secrets) -> Result<Vec<(String, SecretString)>, Refusal> {
    let mut headers = Vec::new();
    if let Some(reference) = &http.headers_secret_ref {
        let field = format!("{PATH}.headersSecretRef");
        for (name, value) in secret(secrets, &field, &reference.name)?.data.iter().flatten() {
            let value = text(&field, &reference.name, name, &value.0)?;
            let value = value.expose_secret().trim_end_matches(['\r', '\n']).to_owned();
            headers.push((name.clone(), value.into()));
        }
    }
    let typed = headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    if let (Some(body), false) = (&http.body, typed) {
        headers.push(("content-type".to_owned(), body.content_type.clone().into()));
    }
    Ok(headers)
}

fn identity(http: &HttpGenerator, secrets: &Secrets) -> Result<Option<Identity>, Refusal> {
    let Some(reference) = &http.cert_secret_ref else {
        return Ok(None);
    };
    let field = format!("{PATH}.certSecretRef");
    let certificate = value(secrets, &field, &reference.name, "tls.crt")?;
    let key = value(secrets, &field, &reference.name, "tls.key")?;
    Ok(Some(Identity::new(certificate, key)))
}

fn trust(http: &HttpGenerator, secrets: &Secrets, settings: &Settings) -> Result<Trust, Refusal> {
    if http.insecure_skip_verify && !settings.allow_insecure_tls {
        return Err(wrong(
            &format!("{PATH}.insecureSkipVerify"),
            "this operator does not allow servers that are not verified",
        )
        .hint("put the server's authority into a Secret and name it in caBundleSecretRef"));
    }
    let mut bundle = Vec::new();
    if let Some(reference) = &http.ca_bundle_secret_ref {
        let field = format!("{PATH}.caBundleSecretRef");
        bundle.extend(value(secrets, &field, &reference.name, &reference.key)?);
    }
    if let Some(reference) = &http.cert_secret_ref
        && let Ok(more) = value(secrets, &format!("{PATH}.certSecretRef"), &reference.name, "ca.crt")
    {
        bundle.push(b'\n');
        bundle.extend(more);
    }
    Ok(match (bundle.is_empty(), http.insecure_skip_verify) {
        (false, _) => Trust::RootsAnd(bundle),
        (true, true) => Trust::Unchecked,
        (true, false) => Trust::default(),
    })
}
