//! The operator runtime: everything a controller needs that is not its own domain.
//!
//! ```text
//!  watches ─▶ World ─▶ see ─▶ plan ─▶ apply ─▶ act ─▶ report ─▶ status
//!             (indexed)        (pure)  (fenced, server-side apply)  (one write, only on a change)
//! ```
//!
//! Invariants: no write leaves the process without a valid claim of the Lease; nothing is polled that
//! Kubernetes can tell us; a reconcile that finds nothing to change sends nothing; whatever is written
//! was recorded in the object's inventory first, so that a crash never leaves an orphan.

pub mod apply;
pub mod client;
pub mod controller;
pub mod crds;
pub mod error;
pub mod events;
pub mod fence;
pub mod health;
pub mod index;
pub mod lease;
pub mod metrics;
pub mod notify;
pub mod owned;
pub mod permission;
pub mod plan;
pub mod reason;
pub mod reconcile;
pub mod shutdown;
pub mod telemetry;
pub mod world;

mod driver;
mod peers;
mod retries;
mod retry_after;
mod shelf;
mod written;

pub use error::{Class, Error, Result};
pub use index::Reference;
pub use permission::Permission;
pub use plan::{End, Item, Never, Outcome, Part, Plan};
pub use reconcile::{Reconcile, Reported, Says};
pub use world::{Kinds, World};
