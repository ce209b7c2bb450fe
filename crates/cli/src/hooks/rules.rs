//! `Rules`: a whitelist file as the one who says what may run.
//!
//! ```text
//!  file ─▶ Reload (last good) ─▶ Whitelist::allows ─▶ Permit │ Denied
//!             └▶ lint ─▶ a warning in the log for each risk
//! ```

use std::path::Path;

use trellis_hooks::{Allow, Asked, Denied, Permit, Program, Reload, ReloadError};
use trellis_sources::whitelist::{self, BadWhitelist, Whitelist};

/// The rules of a file, as they stand.
pub(super) struct Rules {
    file: Reload<Whitelist>,
}

impl Rules {
    /// Reads the file now and at each change. A file that is missing or broken is told in the log.
    pub(super) fn follow(file: &Path) -> Result<Self, ReloadError> {
        let file = Reload::start(file, whitelist::LIMIT, read)?;
        Ok(Self { file })
    }
}

fn read(text: &str) -> Result<Whitelist, BadWhitelist> {
    let whitelist = Whitelist::parse(text)?;
    for warning in whitelist.lint() {
        tracing::warn!(command = warning.command, risk = warning.message, "whitelist");
    }
    Ok(whitelist)
}

impl Allow for Rules {
    fn allow(&self, asked: &Asked<'_>) -> Result<Permit, Denied> {
        let Some(whitelist) = self.file.kept().good else {
            let command = asked.command;
            return Err(Denied(format!(
                "command {command:?} is not allowed: the executor has no whitelist that can be used; its log says why"
            )));
        };
        let allowed = whitelist
            .allows(asked.namespace, asked.command, asked.args)
            .map_err(|refusal| Denied(refusal.to_string()))?;
        whitelist
            .takes(asked.command, asked.env.iter().copied())
            .map_err(|refusal| Denied(refusal.to_string()))?;
        Ok(Permit {
            program: match allowed.program {
                whitelist::Program::Named(name) => Program::Named(name),
                whitelist::Program::File(file) => Program::File(file),
            },
            sha256: allowed.sha256,
        })
    }
}
