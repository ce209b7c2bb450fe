//! The client against real servers in this process: conditions, limits, hostile answers, redirects, TLS, proxies, S3.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what serves the tests fails like a test"
)]

mod body;
mod conditional;
mod connections;
mod leaks;
mod proxies;
mod redirects;
mod s3;
mod support;
mod tls;
