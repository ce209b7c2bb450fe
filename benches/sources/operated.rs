//! `Operated`: the shipped operator with sources alone, its folders, and the sidecar of hooks if there is to be one.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use trellis_benches::{Error, counters, site::Site};
use trellis_testkit::{
    Proxy, eventually,
    operator::{Launch, Operator, Signal},
};

/// The operator; it ends with [`end`](Operated::end).
pub(crate) struct Operated {
    pub(crate) operator: Operator,
    sidecar: Option<Sidecar>,
    _folders: TempDir,
}

/// The sidecar; it ends with this value.
struct Sidecar(Child);

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn launch(folders: &Path, hooked: bool) -> Result<impl FnOnce(Launch) -> Launch, Error> {
    let at = |name: &str| folders.join(name);
    for name in ["artifacts", "spool"] {
        std::fs::create_dir(at(name))?;
    }
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let (artifacts, spool) = (at("artifacts"), at("spool"));
    let (socket, whitelist) = (at("hooks.sock"), at("whitelist.yaml"));
    Ok(move |launch: Launch| {
        let launch = launch
            .flag("storage-backend", "disk")
            .flag("storage-path", &artifacts.to_string_lossy())
            .flag("spool-path", &spool.to_string_lossy())
            .flag("storage-addr", &address)
            .flag("storage-adv-addr", &address)
            .flag("egress-allow-cidr", "127.0.0.0/8");
        if hooked {
            launch
                .flag("hook-endpoint", &format!("unix://{}", socket.display()))
                .flag("hook-whitelist", &whitelist.to_string_lossy())
        } else {
            launch
        }
    })
}

impl Operated {
    /// With hooks or without. It may not lead yet.
    pub(crate) async fn start(site: &Site, hooked: bool) -> Result<Self, Error> {
        let folders = tempfile::tempdir()?;
        let sidecar = if hooked {
            Some(sidecar(site.program(), folders.path()).await?)
        } else {
            None
        };
        let operator = site.alone("external-source", launch(folders.path(), hooked)?).await?;
        // It ends at once when something that it is told cannot be.
        operator.address().await;
        Ok(Self {
            operator,
            sidecar,
            _folders: folders,
        })
    }

    /// Without hooks, and what it says to the API server.
    pub(crate) async fn recorded(site: &Site) -> Result<(Self, Proxy), Error> {
        let folders = tempfile::tempdir()?;
        let started = site
            .alone_recorded("external-source", launch(folders.path(), false)?)
            .await?;
        let (operator, proxy) = started;
        Ok((
            Self {
                operator,
                sidecar: None,
                _folders: folders,
            },
            proxy,
        ))
    }

    /// The most memory that the sidecar ever had.
    pub(crate) fn sidecar_peak(&self) -> Result<Option<u64>, Error> {
        self.sidecar
            .as_ref()
            .map(|sidecar| counters::peak_memory(sidecar.0.id()))
            .transpose()
    }

    /// Hands the Lease over to the next one.
    pub(crate) async fn end(self) {
        self.operator.stop(Signal::Term).await;
    }
}

async fn sidecar(program: &Path, folders: &Path) -> Result<Sidecar, Error> {
    let (socket, whitelist) = (folders.join("hooks.sock"), folders.join("whitelist.yaml"));
    std::fs::write(&whitelist, "commands:\n  cat:\n    allowed: true\n")?;
    let mut command = Command::new(program);
    command
        .arg("hooks")
        .arg("--socket")
        .arg(&socket)
        .arg("--whitelist")
        .arg(&whitelist);
    // What this program says on its standard output is figures alone.
    let sidecar = Sidecar(command.stdout(Stdio::null()).spawn()?);
    eventually("the sidecar listens", async || {
        if socket.exists() {
            Ok(())
        } else {
            Err("there is no socket")
        }
    })
    .await;
    Ok(sidecar)
}
