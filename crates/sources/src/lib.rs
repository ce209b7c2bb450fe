//! Domain: external sources as Flux artifacts. Pure: no client, no clock, no randomness, no environment.
//!
//! ```text
//!  Link, EgressPolicy ─▶ (fetch) ─▶ transform ─▶ shape ─▶ archive ─▶ Revision ─▶ (store, publish) ─▶ retention
//!  pipeline: is anything to do?      failure: what does an error mean, and when is it tried again?
//! ```
//!
//! Invariants: the same payload and the same shaping give the same bytes; nothing is trusted because of its name; what a
//! message shows holds no secret.

pub mod archive;
mod canonical;
pub mod chain;
pub mod destination;
pub mod egress;
pub mod failure;
pub mod interval;
pub mod link;
pub mod measure;
pub mod path;
pub mod pipeline;
pub mod reason;
pub mod redact;
pub mod retention;
pub mod revision;
pub mod shape;
pub mod transform;
mod value;
pub mod whitelist;
