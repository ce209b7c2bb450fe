//! Mechanism: getting bytes from outside. It knows HTTP, TLS, proxies and S3, and nothing of the product.
//!
//! ```text
//!  Source ─▶ Generators::create ─▶ Generator::generate(Order) ─▶ sink (AsyncWrite) + Fetched │ Error
//!                                       │
//!  Client: Egress::host ─▶ Hosts (gate) ─▶ pool by TLS and proxy ─▶ dial (Egress::address) ─▶ one hop ─▶ redirect? again
//! ```
//!
//! Invariants: the policy is asked for every hop by name, and for every connection with the very address that is
//! connected to; a body is never held in memory; nothing in an error, a `Debug` or a log line shows a query, userinfo, or
//! the value of a header; no environment variable is read.

mod body;
mod client;
mod connect;
mod egress;
mod error;
mod exchange;
mod fault;
mod generator;
mod hosts;
mod http_source;
mod link;
mod pools;
mod proxy;
mod redirect;
mod registry;
mod request;
mod s3;
mod settings;
mod tls;

pub use client::Client;
pub use egress::{Denied, Egress, Resolve, SystemResolver};
pub use error::{ConnectFault, Error, Excess, Hints, RedirectFault, Result, Timeout, TlsFault};
pub use generator::{Body, Fetched, Generator, Order, Progress, Sink, Transferred, Validators};
pub use hosts::{Hosts, Party, Permit};
pub use http_source::HttpGenerator;
pub use link::{BadLink, Link, Shown};
pub use proxy::{Proxies, Proxy, Via};
pub use registry::{Generators, Maker, RegistryError, Source};
pub use request::{Method, Request};
pub use s3::{S3Generator, S3Key, S3Object};
pub use settings::{Pace, Settings};
pub use tls::{Identity, Trust};
