//! The chart's Pod, as it stands in real Kubernetes, lived here: its containers with their own arguments, volumes and token.
//!
//! ```text
//!  Deployment, ConfigMaps ─▶ Pod ─▶ hooks, operator (as the ServiceAccount, by the chart's roles, under its policy)
//!  upstream ─▶ ExternalSource with a hook ─▶ Ready ─▶ ExternalArtifact ─▶ downloaded from the Pod's port ─▶ deleted
//! ```
//!
//! No kubelet is there: the containers are processes of this machine, and their paths are folders of it.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
    runtime::{conditions, wait},
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use trellis_api::ExternalSource;
use trellis_devplane::{ControlPlane, Process, Signal};

use super::{NAMESPACE, admission, arguments, installed::RELEASE, pod::Pod};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_mins(2);
/// What upstream has, and what its hook makes of it.
const DATA: (&str, &str) = ("hello\n", "HELLO\n");
/// Whether there are hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hooks {
    /// A sidecar runs them.
    On,
    /// A source with hooks would be refused.
    Off,
}

/// Where the source is.
const PLACE: &str = "default";

/// Runs what the release's Deployment says, with artifacts served on that port, until a source has come and gone: one with
/// a hook where hooks are on.
pub(super) async fn run(plane: &ControlPlane, binary: &Path, port: u16, hooks: Hooks) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(plane.client(), NAMESPACE);
    let deployment = serde_json::to_value(deployments.get(RELEASE).await?)?;
    let spec = deployment.pointer("/spec/template/spec").context("no Pod")?;
    let maps: Api<ConfigMap> = Api::namespaced(plane.client(), NAMESPACE);
    let maps = maps.list(&ListParams::default()).await?.items.into_iter();
    let maps = maps.map(|map| Ok(json!({"kind": "ConfigMap", "metadata": {"name": map.name_any()}, "data": map.data})));
    let pod = Pod::lay_out(spec, &maps.collect::<Result<Vec<Value>>>()?)?;
    let kubeconfig = pod.root().join("kubeconfig");
    std::fs::write(&kubeconfig, plane.token_kubeconfig_text(NAMESPACE, RELEASE).await?)?;

    let mut running = Vec::new();
    for (kind, sign) in [("initContainers", arguments::SERVES), ("containers", "\"listening\"")] {
        for container in pod.containers(kind) {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
            let log = pod.root().join(format!("{name}.log"));
            let mut command = arguments::command(binary, &pod.start(container)?);
            command.env("KUBECONFIG", &kubeconfig);
            let process = Process::spawn(name, &command, &log)?;
            says(&process, sign).await?;
            running.push(process);
        }
    }
    let operator = running.pop().context("no container")?;
    ensure!(
        running.len() == usize::from(hooks == Hooks::On),
        "hooks are {hooks:?}, and there are {} sidecars",
        running.len()
    );
    let came = tokio::select! {
        came = tokio::time::timeout(PATIENCE, a_source(plane, port, hooks)) => {
            came.context("a source did not come and go in time").and_then(|came| came)
        }
        died = operator.died() => Err(died.into()),
    };
    if let Err(error) = came {
        let sidecars: Vec<_> = running.iter().map(Process::tail).collect();
        bail!(
            "{error:#}; the containers said: {}\n{}",
            sidecars.join("\n"),
            operator.tail()
        );
    }
    for process in std::iter::once(operator).chain(running) {
        process.signal(Signal::Term);
        let ended = tokio::time::timeout(PATIENCE, process.exited()).await;
        let ended = ended.with_context(|| format!("told to end, {} does not", process.name()))?;
        ensure!(ended.success(), "told to end, {} ended with {ended}", process.name());
    }
    Ok(())
}

async fn says(process: &Process, sign: &str) -> Result<()> {
    let said = async {
        while process.running()
            && !std::fs::read_to_string(process.log())
                .unwrap_or_default()
                .contains(sign)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, said).await;
    ensure!(
        waited.is_ok() && process.running(),
        "{} does not start: {}",
        process.name(),
        process.tail()
    );
    Ok(())
}

/// A source of an upstream comes, is Ready, is downloaded, and goes.
async fn a_source(plane: &ControlPlane, port: u16, hooks: Hooks) -> Result<()> {
    let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("http://{}/data.txt", upstream.local_addr()?);
    let (upper, expected) = match hooks {
        Hooks::On => (
            json!([{"name": "upper", "command": "tr", "args": ["a-z", "A-Z"]}]),
            DATA.1,
        ),
        Hooks::Off => (json!([]), DATA.0),
    };
    let source: ExternalSource = serde_json::from_value(json!({
        "apiVersion": "source.flux.oddkin.co/v1alpha1", "kind": "ExternalSource", "metadata": {"name": "lived"},
        "spec": {
            "interval": "1h", "destinationPath": "data.txt",
            "generator": {"type": "http", "http": {"url": url}},
            "hooks": {"postRequest": upper},
        },
    }))?;
    let sources: Api<ExternalSource> = Api::namespaced(plane.client(), PLACE);
    sources.create(&PostParams::default(), &source).await?;
    let ready = wait::await_condition(sources.clone(), "lived", |source: Option<&ExternalSource>| {
        let status = source.and_then(|source| source.status.as_ref());
        let mut conditions = status.into_iter().flat_map(|status| &status.common.conditions);
        // Any end is one: that it is the wrong one is said below.
        conditions.any(|condition| condition.type_ == "Ready" && condition.status != "Unknown")
    });
    let source = tokio::select! {
        ready = ready => ready?.context("the source is gone")?,
        failed = serve(&upstream) => return failed,
    };
    let status = source.status.context("no status")?;
    let artifact = status
        .artifact
        .with_context(|| format!("nothing was published: {:?}", status.common.conditions))?;
    let published = admission::artifacts_of(plane.client(), PLACE).get("lived").await?;
    let told = published.data.pointer("/status/artifact/url").and_then(Value::as_str);
    ensure!(
        told == Some(&artifact.url),
        "Flux is told {told:?}, not {}",
        artifact.url
    );
    let path = artifact.path.context("no path")?;
    let archive = tokio::task::spawn_blocking(move || download(port, &path)).await??;
    let content = unpacked(&archive)?;
    ensure!(content == expected, "the artifact holds {content:?}");

    let uid = source.metadata.uid.unwrap_or_default();
    sources.delete("lived", &DeleteParams::default()).await?;
    wait::await_condition(sources, "lived", conditions::is_deleted(&uid)).await?;
    let left = admission::artifacts_of(plane.client(), PLACE).get_opt("lived").await?;
    ensure!(left.is_none(), "the artifact outlives its source");
    Ok(())
}

/// Answers every request with the data.
async fn serve(upstream: &TcpListener) -> Result<()> {
    loop {
        let (mut client, _) = upstream.accept().await?;
        let mut request = [0; 4096];
        let _ = client.read(&mut request).await?;
        let (data, length) = (DATA.0, DATA.0.len());
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{data}");
        client.write_all(answer.as_bytes()).await?;
    }
}

/// What the file server of the Pod answers for this path.
fn download(port: u16, path: &str) -> Result<Vec<u8>> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("no file server")?;
    server.set_read_timeout(Some(PATIENCE))?;
    write!(
        server,
        "GET /{path} HTTP/1.1\r\nHost: lived\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = answer.split_at(end.map_or(0, |end| end + 4));
    let head = String::from_utf8_lossy(head);
    ensure!(head.starts_with("HTTP/1.1 200 "), "the file server answers: {head}");
    Ok(body.to_vec())
}

/// The one file of an archive, by real tar.
fn unpacked(archive: &[u8]) -> Result<String> {
    let mut tar = Command::new("tar")
        .args(["--extract", "--gzip", "--to-stdout", "--file=-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start tar")?;
    tar.stdin.take().context("tar has no input")?.write_all(archive)?;
    let output = tar.wait_with_output()?;
    ensure!(output.status.success(), "tar cannot read it");
    Ok(String::from_utf8(output.stdout)?)
}
