//! `Allow`: who decides what may run. The rules themselves live elsewhere; this crate only obeys.
//!
//! ```text
//!  Asked { namespace, command, args, env } ─▶ Allow ─▶ Permit { program, sha256 } │ Denied
//! ```
//!
//! Invariant: a permit names a program, never a pattern; which file that is, is settled afterwards by its place.

use std::path::PathBuf;

/// What somebody asks to run.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Namespace of the object whose hook this is; `None` when the caller did not say.
    pub namespace: Option<&'a str>,
    /// The command as it was written: a bare name or a path.
    pub command: &'a str,
    /// Its arguments.
    pub args: &'a [String],
    /// Names of the variables that it sets.
    pub env: &'a [&'a str],
}

/// The program that a permit is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// A bare name, found in the fixed path of the sidecar. A command asked for by path must be that very file.
    Named(String),
    /// Exactly this absolute path. A command asked for by path must be that file; a bare name is taken for it.
    File(PathBuf),
}

/// Leave to run one program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    /// The program.
    pub program: Program,
    /// SHA-256 that the file must have, in lower-case hexadecimal; `None`: any.
    pub sha256: Option<String>,
}

/// Why a command may not run, in one sentence that names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(pub String);

/// Decides what may run. Asked for every request, so a reloaded rule counts from the next request on.
pub trait Allow: Send + Sync + 'static {
    /// Leave to run what is asked, or why not.
    fn allow(&self, asked: &Asked<'_>) -> Result<Permit, Denied>;
}

impl<F> Allow for F
where
    F: Fn(&Asked<'_>) -> Result<Permit, Denied> + Send + Sync + 'static,
{
    fn allow(&self, asked: &Asked<'_>) -> Result<Permit, Denied> {
        self(asked)
    }
}
