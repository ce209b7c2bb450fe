//! Ground: foreign kinds, as far as we read them.
//!
//! ```text
//!  cluster ─▶ lenient type (only the fields that decide something) ─▶ domain
//! ```
//!
//! Invariants: reading never fails because of a field that we do not use; what others wrote is never
//! written back whole; objects of our own are written with these types.

pub mod flux;
pub mod gateway;
mod lenient;
pub mod linkerd;
