//! Mechanism: the sidecar that runs allowed commands, and its client.
//!
//! ```text
//!  Client ──unix socket or loopback──▶ Sidecar ──Allow──▶ the file to run ──▶ run ──▶ warden ▶ first ▶ command
//!   bytes ─────────────────────────────▶ stdin                        stdout ──────────────────────────▶ bytes
//! ```
//!
//! Invariants: only a file that [`Allow`] permits is started, found by its place and never by its last name alone;
//! a run ends with its command, and whatever the command started ends with it; no stream is held in memory whole,
//! except in the JSON request that is bounded; the sidecar listens on nothing but a socket file or loopback.

mod allow;
mod client;
mod duration;
mod environment;
mod limits;
mod reload;
mod resolve;
mod run;
mod server;
mod settings;
mod slots;
mod step;
mod wire;

pub use allow::{Allow, Asked, Denied, Permit, Program};
pub use client::{Answer, Client, Endpoint, EndpointError, Error, Hook, Output};
pub use duration::{BadDuration, parse as parse_duration, text as duration_text};
pub use environment::{BadVariable, check as check_environment, check_passed};
pub use limits::{Limits, Network};
pub use reload::{Kept, Reload, ReloadError, Report};
pub use resolve::Unresolved;
pub use server::{ServeError, Sidecar, serve};
pub use settings::{Listen, Settings, Token, WeakToken};
pub use step::{Isolation, step};
pub use wire::{EXECUTE_LIMIT, MAX_TIMEOUT};
