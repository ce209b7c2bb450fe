//! The binary under test: `TRELLIS_BIN`, or built once by the cargo that runs the tests.

use std::{
    env, io,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;
use tokio::{sync::OnceCell, task::spawn_blocking};

/// Why there is no binary.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BinaryError {
    /// `TRELLIS_BIN` names something that is not a file.
    #[error("TRELLIS_BIN={}: no such file", .0.display())]
    Missing(PathBuf),
    /// Cargo could not be started.
    #[error("cargo build -p trellis-cli: {0}")]
    Cargo(String),
    /// Cargo failed, or built no binary of that name; its own messages went to standard error.
    #[error("cargo build -p trellis-cli built no binary `trellis`; its messages are above")]
    NotBuilt,
}

/// The path of the binary. Looked up or built once per test process.
pub async fn binary() -> Result<PathBuf, BinaryError> {
    static BINARY: OnceCell<Result<PathBuf, BinaryError>> = OnceCell::const_new();
    BINARY.get_or_init(|| found("dev")).await.clone()
}

/// The same, built as it is shipped, for what is measured.
pub async fn released() -> Result<PathBuf, BinaryError> {
    found("release").await
}

async fn found(profile: &'static str) -> Result<PathBuf, BinaryError> {
    match env::var_os("TRELLIS_BIN").map(PathBuf::from) {
        Some(path) if path.is_file() => Ok(path),
        Some(path) => Err(BinaryError::Missing(path)),
        None => spawn_blocking(|| build(profile))
            .await
            .map_err(|error| BinaryError::Cargo(error.to_string()))?,
    }
}

fn build(profile: &str) -> Result<PathBuf, BinaryError> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let failed = |error: io::Error| BinaryError::Cargo(error.to_string());
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--package",
        "trellis-cli",
        "--profile",
        profile,
        "--message-format",
        "json-render-diagnostics",
    ]);
    // The tests may run somewhere else than in the workspace.
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.stderr(Stdio::inherit()).output().map_err(failed)?;
    let messages = String::from_utf8_lossy(&output.stdout);
    let built = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|message| {
            let name = message.get("target")?.get("name")?.as_str()?;
            let path = message.get("executable")?.as_str()?;
            (name == "trellis").then(|| PathBuf::from(path))
        });
    if output.status.success() {
        built.ok_or(BinaryError::NotBuilt)
    } else {
        Err(BinaryError::NotBuilt)
    }
}
