//! Starting a plane: build, folder, keys, processes, readiness.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde::{Deserialize, Serialize};

use super::commands::{Commands, Ports};
use super::home::Home;
use super::{ControlPlane, Options, PlaneError};
use crate::cache::{CacheError, at};
use crate::kubeconfig::{self, Proof};
use crate::peers::{etcd, kubernetes};
use crate::pki::{self, Pki};
use crate::ready::{Deadline, answers, chain, listening};
use crate::{Binaries, Builder, Kubernetes, Process};

/// What a plane with a data directory remembers.
const STATE: &str = "state.json";
/// How often a start that lost a port to somebody else is made.
const ATTEMPTS: usize = 3;

#[derive(Serialize, Deserialize)]
struct State {
    kubernetes: String,
    ports: Ports,
}

pub(super) async fn start(options: Options, cache: PathBuf) -> Result<ControlPlane, PlaneError> {
    let builder = Builder::new(&cache, options.progress.clone());
    let peers = (etcd::peer(), kubernetes::peer(options.kubernetes));
    let binaries = tokio::try_join!(builder.build(&peers.0), builder.build(&peers.1))?;

    let since = Instant::now();
    let what = format!("starting Kubernetes {}", options.kubernetes);
    options.progress.started(&what);
    let (home, pki) = prepare(options.clone(), cache).await?;
    let mut ports = Ports::find(remembered(&options, home.path())?)?;
    let mut attempt = 1;
    loop {
        match launch(&options, &home, &pki, ports, &binaries).await {
            Ok((processes, config, server)) => {
                options.progress.finished(&what, since.elapsed());
                let ca = Pki::read(&pki.certificate("ca"))?;
                return Ok(ControlPlane {
                    processes,
                    kubernetes: options.kubernetes,
                    kubeconfig: home.path().join("admin.kubeconfig"),
                    audit_log: options.audit.then(|| home.path().join("audit.log")),
                    home,
                    config,
                    server,
                    ca,
                    _binaries: binaries.into(),
                });
            }
            Err(PlaneError::Process(error)) if error.port_taken() && attempt < ATTEMPTS => {
                options.progress.note("another process took a port; starting again");
                ports = Ports::find(None)?;
                attempt += 1;
            }
            Err(error) => {
                home.keep_logs();
                return Err(error);
            }
        }
    }
}

/// The folder and what lies in it before the first process.
async fn prepare(options: Options, cache: PathBuf) -> Result<(Home, Pki), PlaneError> {
    let work = move || {
        let home = match &options.data {
            Some(data) => Home::durable(data)?,
            None => Home::passing(&cache, options.keep_logs)?,
        };
        let pki = Pki::open(&home.path().join("pki"))?;
        if options.audit {
            let path = home.path().join("audit-policy.yaml");
            fs::write(&path, include_str!("audit-policy.yaml")).map_err(at(&path))?;
        }
        Ok((home, pki))
    };
    tokio::task::spawn_blocking(work).await.map_err(CacheError::from)?
}

/// The ports that a data directory was last served on. State that newer programs wrote is refused.
fn remembered(options: &Options, root: &Path) -> Result<Option<Ports>, PlaneError> {
    let path = root.join(STATE);
    let Ok(text) = fs::read_to_string(&path) else {
        return Ok(None);
    };
    let Ok(state) = serde_json::from_str::<State>(&text) else {
        return Ok(None);
    };
    match state.kubernetes.parse::<Kubernetes>() {
        Ok(found) if found > options.kubernetes => Err(PlaneError::Newer {
            data: root.to_owned(),
            found,
            wanted: options.kubernetes,
        }),
        _ => Ok(Some(state.ports)),
    }
}

async fn launch(
    options: &Options,
    home: &Home,
    pki: &Pki,
    ports: Ports,
    (etcd, kubernetes): &(Binaries, Binaries),
) -> Result<(Vec<Process>, Config, String), PlaneError> {
    let root = home.path();
    let server = format!("https://127.0.0.1:{}", ports.apiserver);
    let admin = write_kubeconfigs(root, pki, &server)?;
    let state = State {
        kubernetes: options.kubernetes.to_string(),
        ports,
    };
    if let Ok(text) = serde_json::to_string(&state) {
        pki::write(&root.join(STATE), &text)?;
    }
    let commands = Commands {
        options,
        root,
        pki,
        ports,
        etcd,
        kubernetes,
    };
    let spawn = |name: &str, command: Command| Process::spawn(name, &command, &home.log(name));
    let deadline = Deadline::of(options.deadline);

    let mut processes = vec![spawn("etcd", commands.etcd()?)?];
    deadline.until(&processes, 0, || listening(ports.etcd)).await?;
    processes.push(spawn("kube-apiserver", commands.apiserver()?)?);
    let mut config =
        Config::from_custom_kubeconfig(Kubeconfig::from_yaml(&admin)?, &KubeConfigOptions::default()).await?;
    // Loopback is never behind a proxy, whatever the environment says.
    config.proxy_url = None;
    let client = Client::try_from(config.clone())?;
    deadline.until(&processes, 1, || answers(&client, "/readyz")).await?;
    processes.push(spawn("kube-controller-manager", commands.controller_manager()?)?);
    if options.scheduler {
        processes.push(spawn("kube-scheduler", commands.scheduler()?)?);
    }
    deadline.until(&processes, 2, || account(&client)).await?;
    Ok((processes, config, server))
}

/// Writes a kubeconfig for each user and returns the administrator's.
fn write_kubeconfigs(root: &Path, pki: &Pki, server: &str) -> Result<String, PlaneError> {
    let ca = Pki::read(&pki.certificate("ca"))?;
    let write = |user: &str| {
        let (certificate, key) = (Pki::read(&pki.certificate(user))?, Pki::read(&pki.key(user))?);
        let proof = Proof::Certificate {
            certificate: &certificate,
            key: &key,
        };
        let text = kubeconfig::text(server, &ca, "default", user, &proof);
        pki::write(&root.join(format!("{user}.kubeconfig")), &text)?;
        Ok::<_, PlaneError>(text)
    };
    write("controller-manager")?;
    write("scheduler")?;
    write("admin")
}

async fn account(client: &Client) -> Result<(), String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    match accounts.get_opt("default").await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err("ServiceAccount default/default does not exist yet".to_owned()),
        Err(error) => Err(chain(&error)),
    }
}
