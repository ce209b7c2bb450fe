//! Where domain meets mechanism: one short file per controller, and what runs them.
//!
//! ```text
//!  trellis operator ─▶ run ─▶ Lease ─▶ controllers ─▶ runtime
//!  xtask gen, dev up ─▶ rbac ─▶ what exactly these controllers may do
//! ```
//!
//! Invariant: a controller that is not chosen neither watches nor has permissions.

pub mod external_source;
pub mod rbac;
pub mod resilience;
pub mod run;

mod registry;

pub use registry::{Controller, permissions};
pub use run::{Options, run};
