//! The bucket of backend `s3`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{ArgAction, builder::BoolishValueParser};
use trellis_store::{S3Credentials, S3Settings};

use super::variable;

#[derive(clap::Args)]
#[command(next_help_heading = "External sources: storage in a bucket")]
pub(super) struct S3 {
    /// Address of an S3-compatible service, with or without scheme; default: AWS
    #[arg(long = "s3-endpoint", id = "s3-endpoint", env = "S3_ENDPOINT", value_name = "URL")]
    endpoint: Option<String>,
    /// The bucket
    #[arg(long = "s3-bucket", id = "s3-bucket", env = "S3_BUCKET", value_name = "NAME")]
    bucket: Option<String>,
    /// Its region
    #[arg(
        long = "s3-region",
        id = "s3-region",
        env = "S3_REGION",
        default_value = "us-east-1",
        value_name = "NAME"
    )]
    region: String,
    /// Whether an endpoint without scheme has TLS
    #[arg(long = "s3-use-ssl", id = "s3-use-ssl", env = "S3_USE_SSL", default_value = "true", value_parser = BoolishValueParser::new(), action = ArgAction::Set, value_name = "BOOL")]
    use_ssl: bool,
    /// The bucket stands in the path, not before the host
    #[arg(long = "s3-path-style", id = "s3-path-style", env = "S3_PATH_STYLE", default_value = "false", value_parser = BoolishValueParser::new(), action = ArgAction::Set, value_name = "BOOL")]
    path_style: bool,
    /// File with the authorities (PEM) to trust beside those of the system
    #[arg(long = "s3-ca-file", id = "s3-ca-file", env = "S3_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl S3 {
    pub(super) fn settings(self) -> anyhow::Result<S3Settings> {
        let bucket = self
            .bucket
            .context("--storage-backend s3 needs a bucket: --s3-bucket, or S3_BUCKET in the environment")?;
        let mut settings = S3Settings::new(bucket);
        settings.endpoint = self.endpoint;
        settings.region = self.region;
        settings.use_ssl = self.use_ssl;
        settings.path_style = self.path_style;
        settings.credentials = match (variable("S3_ACCESS_KEY_ID"), variable("S3_SECRET_ACCESS_KEY")) {
            (Some(access_key_id), Some(secret)) => S3Credentials::Static {
                access_key_id,
                secret_access_key: secret.into(),
                session_token: variable("S3_SESSION_TOKEN").map(Into::into),
            },
            (None, None) => match (variable("AWS_WEB_IDENTITY_TOKEN_FILE"), variable("AWS_ROLE_ARN")) {
                (Some(token_file), Some(role_arn)) => S3Credentials::WebIdentity { token_file, role_arn },
                _ => S3Credentials::Instance,
            },
            _ => bail!("S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY belong together: set both, or none"),
        };
        if let Some(file) = self.ca_file {
            let read = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()));
            settings.ca_bundle = Some(read?);
        }
        Ok(settings)
    }
}
