//! `S3Settings`: which bucket, where, and with which credentials.
//!
//! ```text
//!  "minio:9000" + use_ssl ─▶ https://minio:9000 ─▶ path style: /bucket below it | else: bucket.minio:9000
//! ```
//!
//! Invariants: a scheme that is written beats `use_ssl`; the environment is not read here.

use std::{net::IpAddr, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    client::Certificate,
};
use secrecy::{ExposeSecret as _, SecretString};

use super::answer::Connector;
use crate::error::{Error, Result};

/// Who asks.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum S3Credentials {
    /// A pair of keys.
    Static {
        /// `S3_ACCESS_KEY_ID`.
        access_key_id: String,
        /// `S3_SECRET_ACCESS_KEY`.
        secret_access_key: SecretString,
        /// Of temporary credentials.
        session_token: Option<SecretString>,
    },
    /// A ServiceAccount token that AWS exchanges for a role's credentials (IRSA).
    WebIdentity {
        /// The file of the token, `AWS_WEB_IDENTITY_TOKEN_FILE`.
        token_file: String,
        /// `AWS_ROLE_ARN`.
        role_arn: String,
    },
    /// Those of the machine, asked of its metadata address.
    Instance,
}

/// A bucket. The names in capitals are those of the environment variables that existing deployments use.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// `S3_ENDPOINT`, with or without scheme; none: AWS.
    pub endpoint: Option<String>,
    /// `S3_BUCKET`.
    pub bucket: String,
    /// `S3_REGION`; default `us-east-1`.
    pub region: String,
    /// `S3_ACCESS_KEY_ID`, `S3_SECRET_ACCESS_KEY`; default: those of the machine.
    pub credentials: S3Credentials,
    /// `S3_USE_SSL`, for an endpoint without scheme; default true.
    pub use_ssl: bool,
    /// `S3_PATH_STYLE`: the bucket in the path instead of the host's name; default false. An endpoint that is an IP
    /// address has it always, as no name can be put before it.
    pub path_style: bool,
    /// Certificates (PEM) that are trusted beside those of the system.
    pub ca_bundle: Option<Vec<u8>>,
    /// How often a request is tried again after 5xx, 408, 429 or a broken connection; default 5. The waits double, with
    /// jitter, from 100 ms to 5 s.
    pub retries: usize,
    /// How long one try of a request may take, that of a part of 8 MiB included, and how long a body may stall while
    /// somebody waits for it; default 60 s.
    pub request_timeout: Duration,
}

impl S3Settings {
    /// The defaults for that bucket.
    #[must_use]
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            endpoint: None,
            bucket: bucket.into(),
            region: "us-east-1".to_owned(),
            credentials: S3Credentials::Instance,
            use_ssl: true,
            path_style: false,
            ca_bundle: None,
            retries: 5,
            request_timeout: Duration::from_mins(1),
        }
    }

    /// Where the bucket's requests go, as `object_store` wants it: with the bucket before the host unless it stands in
    /// the path. The second says whether it stands in the path.
    fn endpoint(&self) -> Result<(Option<String>, bool)> {
        let Some(endpoint) = self.endpoint.as_deref().map(str::trim) else {
            return Ok((None, self.path_style));
        };
        let (scheme, host) = match endpoint.split_once("://") {
            Some((scheme @ ("http" | "https"), host)) => (scheme, host),
            Some(_) => return Err(invalid("the endpoint is neither http nor https")),
            None => (if self.use_ssl { "https" } else { "http" }, endpoint),
        };
        let host = host.trim_end_matches('/');
        let uri: http::Uri = format!("{scheme}://{host}")
            .parse()
            .map_err(|_| invalid("the endpoint is not the address of a service"))?;
        let named = uri
            .host()
            .filter(|host| !host.is_empty() && !host.contains(char::is_whitespace));
        let named = named.ok_or_else(|| invalid("the endpoint names no host"))?;
        if uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err(invalid(
                "the endpoint holds a user name; credentials have their own settings",
            ));
        }
        let numeric = named.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let path_style = self.path_style || numeric;
        let url = if path_style {
            format!("{scheme}://{host}")
        } else {
            format!("{scheme}://{}.{host}", self.bucket)
        };
        Ok((Some(url), path_style))
    }

    /// A client whose requests take at most that long, or as long as they take.
    pub(super) fn client(&self, timeout: Option<Duration>) -> Result<AmazonS3> {
        if self.bucket.is_empty() || self.bucket.contains(['/', '?', '#', '@', ':']) {
            return Err(invalid("the bucket's name is not one"));
        }
        let (endpoint, path_style) = self.endpoint()?;
        let mut options = ClientOptions::new()
            .with_allow_http(endpoint.as_ref().is_some_and(|url| url.starts_with("http://")))
            .with_connect_timeout(Duration::from_secs(5));
        options = match timeout {
            Some(timeout) => options.with_timeout(timeout),
            None => options.with_timeout_disabled(),
        };
        if let Some(bundle) = &self.ca_bundle {
            let certificates = Certificate::from_pem_bundle(bundle).map_err(|error| refused("the CA bundle", error))?;
            if certificates.is_empty() {
                return Err(invalid("the CA bundle holds no certificate"));
            }
            for certificate in certificates {
                options = options.with_root_certificate(certificate);
            }
        }
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&self.bucket)
            .with_region(&self.region)
            .with_virtual_hosted_style_request(!path_style)
            .with_disable_bulk_delete(true)
            .with_client_options(options)
            .with_http_connector(Connector::default())
            .with_retry(RetryConfig {
                backoff: BackoffConfig {
                    init_backoff: Duration::from_millis(100),
                    max_backoff: Duration::from_secs(5),
                    base: 2.0,
                },
                max_retries: self.retries,
                // A body may be resumed after a long time of slow reading; tries are what is bounded.
                retry_timeout: timeout.map_or(Duration::from_hours(24), |timeout| timeout * 3),
            });
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        builder = match &self.credentials {
            S3Credentials::Static {
                access_key_id,
                secret_access_key,
                session_token,
            } => {
                let builder = builder
                    .with_access_key_id(access_key_id)
                    .with_secret_access_key(secret_access_key.expose_secret());
                match session_token {
                    Some(token) => builder.with_token(token.expose_secret()),
                    None => builder,
                }
            }
            S3Credentials::WebIdentity { token_file, role_arn } => builder
                .with_config(object_store::aws::AmazonS3ConfigKey::WebIdentityTokenFile, token_file)
                .with_config(object_store::aws::AmazonS3ConfigKey::RoleArn, role_arn),
            S3Credentials::Instance => builder,
        };
        builder.build().map_err(|error| refused("the S3 client", error))
    }
}

fn invalid(what: &str) -> Error {
    Error::Settings {
        what: what.to_owned(),
        source: None,
    }
}

fn refused(what: &str, source: object_store::Error) -> Error {
    Error::Settings {
        what: format!("{what} cannot be used"),
        source: Some(source.into()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::bare("minio:9000", true, false, "https://b.minio:9000", false)]
    #[case::bare_plain("minio:9000", false, true, "http://minio:9000", true)]
    #[case::scheme_wins("http://minio:9000/", true, true, "http://minio:9000", true)]
    #[case::scheme_wins_too("https://minio", false, true, "https://minio", true)]
    #[case::virtual_host("https://s3.eu-west-1.example", true, false, "https://b.s3.eu-west-1.example", false)]
    #[case::address("10.0.0.1:9000", false, false, "http://10.0.0.1:9000", true)]
    #[case::address_6("[fd00::1]:9000", true, false, "https://[fd00::1]:9000", true)]
    fn endpoints(
        #[case] endpoint: &str,
        #[case] use_ssl: bool,
        #[case] path_style: bool,
        #[case] url: &str,
        #[case] in_path: bool,
    ) {
        let settings = S3Settings {
            endpoint: Some(endpoint.to_owned()),
            use_ssl,
            path_style,
            ..S3Settings::new("b")
        };
        assert_eq!(settings.endpoint().unwrap(), (Some(url.to_owned()), in_path));
        assert!(settings.client(None).is_ok());
    }

    #[rstest]
    #[case::other_scheme("ftp://minio")]
    #[case::no_host("https://")]
    #[case::user("https://key:secret@minio")]
    #[case::words("not a host")]
    fn endpoints_that_are_none(#[case] endpoint: &str) {
        let settings = S3Settings {
            endpoint: Some(endpoint.to_owned()),
            ..S3Settings::new("b")
        };
        let error = settings.endpoint().unwrap_err();
        assert_eq!(error.reason(), "SettingsInvalid");
        assert!(!error.chain().contains("secret"));
    }

    #[test]
    fn a_bundle_without_certificates_is_refused_and_secrets_are_not_shown() {
        let settings = S3Settings {
            ca_bundle: Some(b"nothing".to_vec()),
            credentials: S3Credentials::Static {
                access_key_id: "id".to_owned(),
                secret_access_key: "very-secret".into(),
                session_token: None,
            },
            ..S3Settings::new("b")
        };
        assert_eq!(settings.client(None).unwrap_err().reason(), "SettingsInvalid");
        assert!(!format!("{settings:?}").contains("very-secret"));
    }
}
