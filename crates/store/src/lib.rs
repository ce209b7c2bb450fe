//! Mechanism: artifact storage and its file server.
//!
//! ```text
//!  spool file ─▶ Storage::put ─▶ disk | memory | S3 ─▶ Storage::open ─▶ Server ─▶ consumers
//!  or stream        (Key = a/b/<sha256>.tar.gz)            │
//!                                                        Cached: the last files served, while the backend is down
//! ```
//!
//! It knows keys, bytes and digests, and nothing of what they are for: no kinds, no cluster, no environment.
//!
//! Invariants: a [`Key`] names the digest of its bytes, so that a key never has two contents; nothing is visible under
//! a key before all of it is there and durable; no file is ever held in memory as a whole, except by the memory backend
//! and by the bounded [`Cached`].

mod cache;
mod content;
mod disk;
mod error;
pub mod garbage;
mod key;
mod locks;
mod memory;
mod quota;
mod s3;
mod server;
mod storage;

pub use cache::{Cached, Limits};
pub use content::{Content, Reader};
pub use disk::Disk;
pub use error::{Cause, Class, Error, Result};
pub use key::{InvalidKey, Key, Prefix};
pub use memory::Memory;
pub use quota::Quota;
pub use s3::{S3, S3Credentials, S3Settings};
pub use server::{Delivery, Server, ServerError, ServerSettings};
pub use storage::{Body, Entry, Opened, Put, Stat, Storage, Verdict};
pub use trellis_core::digest::{Digest, Hasher};
