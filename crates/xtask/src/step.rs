//! One command of a test group or a claim.

use std::cell::OnceCell;

use anyhow::{Result, ensure};

use crate::built::{Built, TestProgram};
use crate::workspace::{Workspace, succeed};

/// One command.
#[derive(Clone, Copy)]
pub(crate) enum Step {
    /// The tests inside the libraries and binaries of every package.
    Unit,
    /// The tests in the documentation of every package.
    Doc,
    /// The files in `tests/` of these packages, if they have any.
    Packages(&'static [&'static str]),
    /// Files in `tests/` of a package; there must be some.
    Tests {
        package: &'static str,
        /// Names of the files; empty: all of them.
        targets: &'static [&'static str],
    },
    /// The binary `trellis` with these arguments.
    Trellis(&'static [&'static str]),
    /// Another task of xtask.
    Task(fn(&Workspace) -> Result<()>),
}

impl Step {
    /// Whether this step runs the program.
    pub(crate) fn runs(&self, program: &TestProgram) -> bool {
        match self {
            Self::Unit => !program.integration,
            Self::Packages(packages) => program.integration && packages.contains(&program.package.as_str()),
            Self::Tests { package, targets } => {
                program.integration
                    && program.package == *package
                    && (targets.is_empty() || targets.contains(&program.target.as_str()))
            }
            Self::Doc | Self::Trellis(_) | Self::Task(_) => false,
        }
    }
}

/// Takes steps; builds once, when the first step needs it.
pub(crate) struct Walk<'a> {
    workspace: &'a Workspace,
    built: OnceCell<Built>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(workspace: &'a Workspace) -> Self {
        Self {
            workspace,
            built: OnceCell::new(),
        }
    }

    /// What cargo built, building it now if need be.
    pub(crate) fn built(&self) -> Result<&Built> {
        if let Some(built) = self.built.get() {
            return Ok(built);
        }
        let built = Built::build(self.workspace)?;
        Ok(self.built.get_or_init(|| built))
    }

    /// Takes one step, with extra environment for what it starts.
    pub(crate) fn take(&self, step: &Step, environment: &[(&str, &str)]) -> Result<()> {
        match step {
            Step::Doc => succeed(
                self.workspace
                    .cargo(["test", "--quiet", "--workspace", "--doc"])
                    .envs(environment.iter().copied()),
            ),
            Step::Trellis(arguments) => self.built()?.trellis(self.workspace, arguments, environment),
            Step::Task(task) => task(self.workspace),
            Step::Unit | Step::Packages(_) => self.run(step, environment),
            Step::Tests { package, targets } => {
                let any = self.built()?.programs().iter().any(|program| step.runs(program));
                ensure!(any, "{package} has no tests {}", targets.join(" "));
                self.run(step, environment)
            }
        }
    }

    fn run(&self, step: &Step, environment: &[(&str, &str)]) -> Result<()> {
        let built = self.built()?;
        let mut chosen = built.programs().iter().filter(|program| step.runs(program));
        chosen.try_for_each(|program| built.test(program, environment))
    }
}
