//! The storages and their file server, against real peers: the file system, and an S3 service in this process, reached
//! through a proxy that breaks things.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, like tests"
)]

mod backend;
mod cache;
mod child;
mod client;
mod disk;
mod memory;
mod proxy;
mod quota;
mod s3;
mod server;
mod service;
mod suite;
