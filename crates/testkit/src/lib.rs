//! The real API server, recorded and disturbed.
//!
//! Nothing here imitates Kubernetes: a [`plane::Plane`] is real etcd, API server and controller-manager, a [`Script`]
//! disturbs the way to it (in process by a [`layer`](layer::Disturb), for the real binary by a [`Proxy`]), a
//! [`Recording`] shows what was said and the [`audit`] log what the server did.
//!
//! ```text
//! Plane ─▶ Isolated namespace ─▶ fixtures        Operator (binary) ─▶ Proxy(Script) ─▶ API server ─▶ audit log
//! ```

pub mod audit;
mod background;
pub mod fixtures;
pub mod layer;
pub mod operator;
pub mod plane;
pub mod proxy;
pub mod record;
mod request;
pub mod script;
mod wait;

use std::sync::{Mutex, MutexGuard, PoisonError};

use self::background::background;
pub use self::{
    audit::Audit,
    layer::Disturb,
    proxy::Proxy,
    record::{Answer, Call, Conversation, Recording},
    request::{RequestInfo, Verb},
    script::{Calls, Fault, Gate, Script, WatchEnd, calls},
    wait::{PATIENCE, eventually, eventually_within, rest},
};

/// Locks; a panic of another test's thread is that test's matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
