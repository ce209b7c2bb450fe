//! source-controller reads a bucket of the S3 server of the development plane: sources beside ours work on one plane.

use std::sync::Arc;

use serde_json::json;
use trellis_devplane::{peers::s3::Server, progress::Lines};

use crate::site::{Kind, Site, condition};

/// The credentials count: with others, nothing is read.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_bucket_is_read_with_the_right_credentials() {
    let site = Site::new("bucket").await;
    let product = trellis_tests::S3.parse().unwrap();
    let server = Server::options(product, "access", "a-secret-key").progress(Arc::new(Lines));
    let server = server.start().await.unwrap();
    server.bucket("manifests").unwrap();

    let bucket = json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "Bucket", "metadata": { "name": "app" },
        "spec": {
            "interval": "1m", "provider": "generic", "bucketName": "manifests", "region": "us-east-1",
            "endpoint": server.address(), "insecure": true, "secretRef": { "name": "credentials" },
        },
    });
    let secret = |secret: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "credentials" },
            "stringData": { "accesskey": "access", "secretkey": secret },
        })
    };
    site.namespace.apply(secret("another")).await.unwrap();
    site.namespace.apply(bucket).await.unwrap();
    let refused = |status: &serde_json::Value| condition(status, "Ready").0 == "False";
    let status = site.status(Kind::Bucket, "app", "is refused", refused).await;
    let message = condition(&status, "Ready").2;
    // Versity S3 Gateway says the one, MinIO the other.
    let said = ["Access Denied", "signature we calculated does not match"];
    assert!(said.iter().any(|said| message.contains(said)), "{message}");

    site.namespace.apply(secret("a-secret-key")).await.unwrap();
    // It says Ready before it says where.
    let ready = |status: &serde_json::Value| {
        let url = status["artifact"]["url"].as_str();
        condition(status, "Ready").0 == "True" && url.is_some_and(|url| url.starts_with("http://127.0.0.1:"))
    };
    site.status(Kind::Bucket, "app", "is read", ready).await;
    site.finish(Kind::Bucket, "app").await;
}
