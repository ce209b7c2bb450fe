//! Real local Kubernetes and real peers, built from pinned Go modules and run as owned processes.
//!
//! ```text
//! Peer (go.mod + one small file) ─▶ Builder (cache) ─▶ Binaries ─▶ Process (owned) ─▶ ControlPlane
//! ```
//!
//! Invariants: nothing is downloaded but Go modules; a process ends with its owner, even on `kill -9`; an interrupted
//! build or start leaves nothing that a later one trips over.
//!
//! ```no_run
//! # async fn example() -> Result<(), trellis_devplane::PlaneError> {
//! use trellis_devplane::ControlPlane;
//!
//! let plane = ControlPlane::options().audit(true).start().await?;
//! println!("export KUBECONFIG={}", plane.kubeconfig().display());
//! plane.stop().await
//! # }
//! ```

mod builder;
mod cache;
mod kubeconfig;
mod peer;
pub mod peers;
mod pki;
mod plane;
mod port;
mod process;
pub mod progress;
mod ready;

pub use builder::{Binaries, BuildError, Builder};
pub use cache::{CacheError, directory as cache_directory};
pub use peer::{Binary, ModuleFile, Peer};
pub use peers::kubernetes::{Kubernetes, UnknownKubernetes};
pub use pki::PkiError;
pub use plane::{ControlPlane, Options, PlaneError};
pub use port::free_port;
pub use process::{Process, ProcessError, Signal};
pub use progress::Progress;
