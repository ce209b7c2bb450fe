//! Ground: what every other crate may say: 'the user is wrong', and what a condition becomes next.
//!
//! ```text
//!  domain ──▶ Refusal ──▶ Draft ──▶ settle ──▶ status.conditions
//! ```
//!
//! Invariants: nothing here reads a clock, a cluster or the environment; equal input gives equal output.

pub mod condition;
pub mod digest;
pub mod manager;
mod refusal;

pub use digest::Digest;
pub use refusal::Refusal;
