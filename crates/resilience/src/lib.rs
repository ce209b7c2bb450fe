//! Domain: resilience policies as Linkerd reads them. Pure: no client, no clock.
//!
//! ```text
//!  policies, Services, routes, …: Cluster ─▶ attach: who decides what ─▶ enact: what a policy writes, and why not
//!  what is stored ─▶ effect ─▶ explain │ lint │ diff          migrate, adopt: from other forms to policies
//! ```
//!
//! Invariants: nothing is emitted that Linkerd does not parse; a policy that would have no effect is refused, and the
//! refusal says why; annotations of others are read, never planned.

pub mod adopt;
pub mod annotations;
pub mod attach;
pub mod cluster;
mod codes;
pub mod diff;
mod duration;
pub mod effect;
pub mod egress;
pub mod enact;
pub mod explain;
pub mod lint;
pub mod mesh;
pub mod migrate;
mod name;
pub mod owner;
mod ports;
pub mod project;
pub mod ratelimit;
pub mod reason;
pub mod route;
mod served;
pub mod shown;
pub mod siblings;
pub mod target;
mod text;
pub mod version;

pub use cluster::{Cluster, Gateway, Listed};
pub use enact::{Enacted, Enactment, Standing, enact};
pub use explain::{Explanation, explain};
pub use mesh::Mesh;
pub use name::{PolicyName, joined, shortened};
pub use ports::Ports;
pub use reason::Reason;
pub use text::{summary, warning};
pub use version::LinkerdVersion;
