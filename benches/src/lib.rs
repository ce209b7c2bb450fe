//! What benchmarks share.
//!
//! ```text
//!  Site: a plane, the operator's account ─┬─▶ the shipped binary        ─┐
//!                                         └─▶ Replay: a bare client      ─┴─▶ Figures: a table, or JSON
//! ```
//!
//! Invariant: the raw limit is what the operator itself was recorded to send, sent again by a client that does nothing
//! else, as the same user.

pub mod counters;
pub mod figures;
pub mod replay;
pub mod site;
pub mod throng;

/// Any error of a benchmark.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Calls that are under way at once: as many as the operator's reconciles.
pub const CONCURRENCY: usize = 16;
