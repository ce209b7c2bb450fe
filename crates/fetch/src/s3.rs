//! The type `s3`: one object of a bucket.
//!
//! ```text
//!  S3Object ─▶ presigned link (SigV4, object_store, no I/O) ─▶ Client::fetch ─▶ the same policy, limits and conditions
//! ```
//!
//! Invariants: the signing library never connects to anything; a signature is used at once and lives 15 minutes at most;
//! redirects are not followed, since a signature is for one host; the signature is part of the query, which is never shown.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use object_store::{
    ClientOptions,
    aws::AmazonS3Builder,
    client::{HttpClient, HttpConnector},
    path::Path,
    signer::Signer as _,
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    client::Client,
    error::{Error, Result},
    generator::{Fetched, Generator, Order, Sink},
    link::Link,
    proxy::Via,
    registry::{Maker, Source},
    request::Request,
    tls::{Identity, Trust},
};

/// The name of the type.
pub(crate) const KIND: &str = "s3";

/// How long a signature is good. It is checked when the request arrives, not while the body is sent.
const SIGNED_FOR: Duration = Duration::from_mins(15);

/// Static credentials.
#[derive(Debug, Clone)]
pub struct S3Key {
    /// Access key ID.
    pub id: String,
    /// Secret access key.
    pub secret: SecretString,
    /// Session token of temporary credentials.
    pub token: Option<SecretString>,
}

/// One object of a bucket.
#[derive(Debug, Clone)]
pub struct S3Object {
    /// The server. None: `https://s3.REGION.amazonaws.com`.
    pub endpoint: Option<Link>,
    /// The region that signatures are for; servers other than Amazon's mostly take `us-east-1`.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// The object, without a leading `/`.
    pub object: String,
    /// Whether the bucket is part of the path (`https://host/bucket/object`) and not of the host.
    pub path_style: bool,
    /// None: the object is public.
    pub key: Option<S3Key>,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// A client certificate.
    pub identity: Option<Identity>,
    /// Which way the request takes.
    pub via: Via,
}

/// Asks for one object.
pub struct S3Generator {
    client: Client,
    object: S3Object,
    store: object_store::aws::AmazonS3,
    path: Path,
}

impl fmt::Debug for S3Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Generator")
            .field("object", &self.object)
            .finish_non_exhaustive()
    }
}

pub(crate) fn maker(client: &Client) -> Maker {
    let client = client.clone();
    Arc::new(move |source| match source {
        Source::S3(object) => Ok(Box::new(S3Generator::new(client.clone(), *object)?)),
        other => Err(Error::Request {
            what: format!("{} is not {KIND}", other.kind()),
        }),
    })
}

/// The signing library wants a client for credentials that come from elsewhere. Ours are static: it gets none.
#[derive(Debug)]
struct NoIo;

impl HttpConnector for NoIo {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Self))
    }
}

#[async_trait]
impl object_store::client::HttpService for NoIo {
    async fn call(
        &self,
        _: object_store::client::HttpRequest,
    ) -> Result<object_store::client::HttpResponse, object_store::client::HttpError> {
        let kind = object_store::client::HttpErrorKind::Connect;
        Err(object_store::client::HttpError::new(
            kind,
            std::io::Error::from(std::io::ErrorKind::Unsupported),
        ))
    }
}

impl S3Generator {
    /// One that asks for this object.
    ///
    /// # Errors
    /// [`Error::Request`] if bucket, region or object cannot be put into a link.
    pub fn new(client: Client, object: S3Object) -> Result<Self> {
        let bad = |what: &str| Error::Request { what: what.to_owned() };
        let label =
            |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
        if !label(&object.bucket) || !label(&object.region) {
            return Err(bad("bucket and region are made of letters, digits, '-', '.' and '_'"));
        }
        let path = Path::parse(&object.object).map_err(|_| bad("its object is not a key that can be asked for"))?;
        if path.as_ref().is_empty() {
            return Err(bad("it names no object"));
        }
        let mut builder = AmazonS3Builder::new()
            .with_http_connector(NoIo)
            .with_region(&object.region)
            .with_bucket_name(&object.bucket)
            .with_virtual_hosted_style_request(!object.path_style);
        if let Some(endpoint) = &object.endpoint {
            builder = builder.with_endpoint(located(endpoint, &object)?).with_allow_http(true);
        }
        // Without credentials the library would look for some in its surroundings; these sign what is then cut off.
        builder = match &object.key {
            None => builder.with_access_key_id("public").with_secret_access_key("public"),
            Some(key) => builder
                .with_access_key_id(&key.id)
                .with_secret_access_key(key.secret.expose_secret()),
        };
        if let Some(token) = object.key.as_ref().and_then(|key| key.token.as_ref()) {
            builder = builder.with_token(token.expose_secret());
        }
        let store = builder
            .build()
            .map_err(|_| bad("bucket, region and endpoint make no S3 link"))?;
        Ok(Self {
            client,
            object,
            store,
            path,
        })
    }

    async fn request(&self) -> Result<Request> {
        let signed = self
            .store
            .signed_url(http::Method::GET, &self.path, SIGNED_FOR)
            .await
            .map_err(|_| Error::Request {
                what: "it cannot be signed".to_owned(),
            })?;
        let mut signed = signed;
        if self.object.key.is_none() {
            signed.set_query(None);
        }
        let request = Request::get(Link::of(signed).map_err(Error::Link)?)
            .trust(self.object.trust.clone())
            .account(self.object.key.as_ref().map(|key| key.id.as_str()))
            .via(self.object.via.clone());
        Ok(match &self.object.identity {
            None => request,
            Some(identity) => request.identity(identity.clone()),
        }
        .redirects(0))
    }
}

/// The endpoint as the signing library wants it: with the bucket in its host unless that is part of the path.
fn located(endpoint: &Link, object: &S3Object) -> Result<String> {
    let authority = endpoint
        .uri()
        .map_err(Error::Link)?
        .authority()
        .map(ToString::to_string)
        .unwrap_or_default();
    let scheme = endpoint.scheme();
    Ok(if object.path_style {
        format!("{scheme}://{authority}")
    } else {
        format!("{scheme}://{}.{authority}", object.bucket)
    })
}

#[async_trait]
impl Generator for S3Generator {
    async fn generate(&self, order: &Order, sink: &mut Sink<'_>) -> Result<Fetched> {
        self.client.fetch(&self.request().await?, order, sink).await
    }

    fn supports_conditional_fetch(&self) -> bool {
        true
    }

    async fn last_modified(&self) -> Result<Option<String>> {
        Ok(self.client.look(&self.request().await?).await?.last_modified)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::{Denied, Egress, Settings};

    struct Nobody;

    impl Egress for Nobody {
        fn host(&self, _: &str, _: &str, _: u16) -> Result<(), Denied> {
            Err(Denied { rule: String::new() })
        }

        fn address(&self, _: &str, _: std::net::IpAddr) -> Result<(), Denied> {
            Err(Denied { rule: String::new() })
        }
    }

    #[rstest]
    #[case::path(Some("http://s3.test:9000"), true, "http://s3.test:9000/bucket/a/b%20c")]
    #[case::host(Some("https://s3.test"), false, "https://bucket.s3.test/a/b%20c")]
    #[case::amazon(None, true, "https://s3.eu-west-1.amazonaws.com/bucket/a/b%20c")]
    #[case::amazon_host(None, false, "https://bucket.s3.eu-west-1.amazonaws.com/a/b%20c")]
    #[tokio::test]
    async fn links(#[case] endpoint: Option<&str>, #[case] path_style: bool, #[case] link: &str) {
        for (key, signed) in [(None, false), (Some(("id", "geheim")), true)] {
            let object = S3Object {
                endpoint: endpoint.map(|text| Link::parse(text).unwrap()),
                region: "eu-west-1".to_owned(),
                bucket: "bucket".to_owned(),
                object: "a/b c".to_owned(),
                path_style,
                key: key.map(|(id, secret): (&str, &str)| S3Key {
                    id: id.to_owned(),
                    secret: secret.into(),
                    token: Some("token".into()),
                }),
                trust: Trust::Roots,
                identity: None,
                via: Via::Direct,
            };
            let client = Client::new(Settings::default(), Arc::new(Nobody));
            let generator = S3Generator::new(client, object).unwrap();
            assert!(!format!("{generator:?}").contains("geheim"));
            let request = generator.request().await.unwrap();
            assert_eq!(request.link().shown().as_str(), link);
            let sent = request.link().uri().unwrap().query().unwrap_or_default().to_owned();
            assert_eq!(sent.contains("X-Amz-Signature="), signed);
            assert_eq!(sent.contains("X-Amz-Security-Token=token"), signed);
        }
    }
}
