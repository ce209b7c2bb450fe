//! Starting Flux: build, definitions, processes, readiness.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use super::{Controller, Flux, Options};
use crate::builder::blocking;
use crate::cache::at;
use crate::plane::home::Home;
use crate::ready::{Deadline, answers, listening, local};
use crate::{Binaries, Builder, PlaneError, Process, port};

/// Where the controllers think that they live.
const NAMESPACE: &str = "flux-system";
/// Who applies the definitions and the namespace.
const FIELD_MANAGER: &str = "trellis-devplane";
/// How often a start that lost a port to somebody else is made.
const ATTEMPTS: usize = 3;
/// Between two looks at whether a definition is served.
const POLL: Duration = Duration::from_millis(20);
/// What a controller logs for each kind once it has read what it watches.
const WORKING: &str = "\"Starting workers\"";

pub(super) async fn start(options: Options, cache: PathBuf) -> Result<Flux, PlaneError> {
    let builder = Builder::new(&cache, options.progress.clone());
    // One after the other: they share most of their packages.
    let mut binaries = Vec::new();
    for controller in &options.controllers {
        binaries.push(builder.build(&super::peer(*controller)).await?);
    }

    let since = Instant::now();
    let names: Vec<&str> = options.controllers.iter().map(|controller| controller.name()).collect();
    let what = format!("starting {}", names.join(", "));
    options.progress.started(&what);
    define(&options, &binaries).await?;
    let keep = options.keep_logs;
    let home = blocking(move || {
        let home = Home::passing(&cache, keep)?;
        for folder in ["tmp", "artifacts"] {
            let path = home.path().join(folder);
            fs::create_dir(&path).map_err(at(&path))?;
        }
        Ok(home)
    })
    .await?;
    let mut attempt = 1;
    loop {
        match launch(&options, &home, &binaries).await {
            Ok(processes) => {
                options.progress.finished(&what, since.elapsed());
                return Ok(Flux {
                    controllers: options.controllers.iter().copied().zip(processes).collect(),
                    home,
                    _binaries: binaries,
                });
            }
            Err(PlaneError::Process(error)) if error.port_taken() && attempt < ATTEMPTS => {
                options.progress.note("another process took a port; starting again");
                attempt += 1;
            }
            Err(error) => {
                home.keep_logs();
                return Err(error);
            }
        }
    }
}

/// Applies the definitions that the controllers watch, and their namespace, and waits until the former are served.
async fn define(options: &Options, binaries: &[Binaries]) -> Result<(), PlaneError> {
    let kubeconfig = Kubeconfig::read_from(&options.kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // As in the plane: loopback is never behind a proxy.
    config.proxy_url = None;
    let client = Client::try_from(config)?;
    let mut files = BTreeMap::new();
    for (controller, binaries) in options.controllers.iter().zip(binaries) {
        for (_, file) in controller.definitions() {
            let path = binaries.file(&file)?;
            let text = fs::read(path).map_err(at(path))?;
            files.insert(file, text);
        }
    }
    let text = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}}}}}");
    apply::<Namespace>(&client, &format!("/api/v1/namespaces/{NAMESPACE}"), text.into_bytes()).await?;
    let names: Vec<String> = files.keys().filter_map(|file| definition(file)).collect();
    for (name, text) in names.iter().zip(files.into_values()) {
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        apply::<CustomResourceDefinition>(&client, &path, text).await?;
    }
    let definitions: Api<CustomResourceDefinition> = Api::all(client);
    let since = Instant::now();
    for name in names {
        while !established(&definitions.get(&name).await?) {
            if since.elapsed() > options.deadline {
                return Err(PlaneError::NotEstablished {
                    crd: name,
                    waited: options.deadline,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

/// The name of the definition in a file that is called `<group>_<plural>.yaml`.
fn definition(file: &str) -> Option<String> {
    let (group, plural) = file.strip_suffix(".yaml")?.split_once('_')?;
    Some(format!("{plural}.{group}"))
}

fn established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter());
    conditions
        .flatten()
        .any(|condition| condition.type_ == "Established" && condition.status == "True")
}

/// Server-side apply of YAML as it is.
async fn apply<K: serde::de::DeserializeOwned>(client: &Client, path: &str, yaml: Vec<u8>) -> Result<(), PlaneError> {
    let request = http::Request::patch(format!("{path}?fieldManager={FIELD_MANAGER}&force=true"))
        .header(http::header::CONTENT_TYPE, "application/apply-patch+yaml")
        .body(yaml)
        .map_err(kube::Error::HttpError)?;
    client.request::<K>(request).await?;
    Ok(())
}

/// Starts every controller and waits for each.
async fn launch(options: &Options, home: &Home, binaries: &[Binaries]) -> Result<Vec<Process>, PlaneError> {
    let deadline = Deadline::of(options.deadline);
    let (mut processes, mut places) = (Vec::new(), Vec::new());
    for (controller, binaries) in options.controllers.iter().zip(binaries) {
        let ports = Ports::find(*controller)?;
        let command = command(*controller, options, home, binaries.path(controller.name())?, &ports);
        processes.push(Process::spawn(
            controller.name(),
            &command,
            &home.log(controller.name()),
        )?);
        places.push((*controller, ports));
    }
    for (index, (controller, ports)) in places.iter().enumerate() {
        let client = local(ports.health)?;
        let look = || async {
            answers(&client, "/readyz").await?;
            if let Some(port) = ports.storage {
                listening(port).await?;
            }
            match processes.get(index).map_or(0, |process| process.said(WORKING)) {
                started if started >= controller.kinds() => Ok(()),
                started => Err(format!("{started} of {} kinds have workers", controller.kinds())),
            }
        };
        deadline.until(&processes, index, look).await?;
    }
    Ok(processes)
}

/// The ports of a controller.
struct Ports {
    health: u16,
    metrics: u16,
    storage: Option<u16>,
}

impl Ports {
    fn find(controller: Controller) -> Result<Self, PlaneError> {
        let free = || port::free(None).map_err(PlaneError::Ports);
        Ok(Self {
            health: free()?,
            metrics: free()?,
            storage: (controller == Controller::Source).then(free).transpose()?,
        })
    }
}

/// The command line and environment of a controller.
fn command(controller: Controller, options: &Options, home: &Home, program: &Path, ports: &Ports) -> Command {
    let mut command = Command::new(program);
    command
        .env("KUBECONFIG", &options.kubeconfig)
        .env("RUNTIME_NAMESPACE", NAMESPACE)
        .env("HOME", home.path())
        .env("TMPDIR", home.path().join("tmp"))
        .env("NO_PROXY", "127.0.0.1,localhost")
        .current_dir(home.path())
        .args(["--enable-leader-election=false", "--watch-all-namespaces=true"])
        .args(["--interval-jitter-percentage=0", "--log-level=info"])
        .arg(format!("--metrics-addr=127.0.0.1:{}", ports.metrics))
        .arg(format!("--health-addr=127.0.0.1:{}", ports.health))
        .arg(format!(
            "--events-addr={}",
            options.events.as_deref().unwrap_or_default()
        ));
    if let Some(host) = &options.artifact_host {
        command.env("SOURCE_CONTROLLER_LOCALHOST", host);
    }
    if let Some(port) = ports.storage {
        command
            .arg(format!("--storage-path={}", home.path().join("artifacts").display()))
            .arg(format!("--storage-addr=127.0.0.1:{port}"))
            .arg(format!("--storage-adv-addr=127.0.0.1:{port}"));
    } else {
        // What consumers of artifacts have in common. The defaults (off, 30 s, 9) would make a test wait for minutes.
        command.args([
            "--feature-gates=ExternalArtifact=true",
            "--requeue-dependency=2s",
            "--http-retry=1",
        ]);
    }
    if controller == Controller::Kustomize {
        command.args(["--no-remote-bases=true", "--no-cross-namespace-refs=false"]);
    }
    let flags = options.flags.iter().filter(|(of, _)| *of == controller);
    command.args(flags.map(|(_, flag)| flag));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_named_by_its_file() {
        assert_eq!(
            definition("source.toolkit.fluxcd.io_buckets.yaml").as_deref(),
            Some("buckets.source.toolkit.fluxcd.io")
        );
        for controller in Controller::ALL {
            assert!(
                controller
                    .definitions()
                    .iter()
                    .all(|(_, file)| definition(file).is_some())
            );
        }
    }
}
