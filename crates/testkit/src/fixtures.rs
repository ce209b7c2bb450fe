//! Objects for tests, as chains that read like the sentence that describes them.
//!
//! `service("web").port(80).app_protocol("kubernetes.io/h2c").headless()` · `policy("web").breaker(5).retry(3, "5xx")`

mod policy;
mod service;

pub use self::{
    policy::{PolicyFixture, policy},
    service::{ServiceFixture, service},
};
