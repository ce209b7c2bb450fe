//! `trellis operator`: the controllers, against the cluster of the current kubeconfig or ServiceAccount.

mod sources;

pub(crate) use sources::Egress;

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use trellis_operator::{Controller, Options, resilience::Linkerd};
use trellis_resilience::Mesh;
use trellis_runtime::{lease, shutdown, telemetry};

/// Arguments of `trellis operator`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Controllers to run; default: all
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    controllers: Vec<Controller>,
    /// Namespaces to serve; default: all
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    namespaces: Vec<String>,
    /// Where /livez, /readyz and /metrics are served; port 0 takes a free one
    #[arg(long, default_value = "0.0.0.0:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Version of Linkerd, such as 2.18; default: read from ConfigMap linkerd/linkerd-config
    #[arg(long, value_name = "VERSION")]
    linkerd_version: Option<String>,
    /// DNS domain of the cluster
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    cluster_domain: String,
    /// Namespace of the Lease that elects the leader
    #[arg(
        long,
        env = "POD_NAMESPACE",
        default_value = "trellis-system",
        value_name = "NAMESPACE"
    )]
    lease_namespace: String,
    /// Name of the Lease
    #[arg(long, default_value = "trellis", value_name = "NAME")]
    lease_name: String,
    /// How long a leader that does not renew still counts as one: whole seconds, 1s to 10m
    #[arg(long, default_value = "10s", value_parser = whole_seconds, value_name = "DURATION")]
    lease_duration: Duration,
    /// Name of this replica; default: the pod's name, else a random one
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    identity: Option<String>,
    /// Form of the log lines
    #[arg(long, default_value = "json", value_name = "FORM")]
    log: Log,
    /// Where spans are sent, such as <http://collector:4317> (OTLP over gRPC; the feature otlp); default: nowhere
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    #[command(flatten)]
    sources: sources::Sources,
}

/// Form of the log lines.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Log {
    Json,
    Text,
}

impl Log {
    /// The same to the runtime.
    pub(crate) fn format(self) -> telemetry::Format {
        match self {
            Self::Json => telemetry::Format::Json,
            Self::Text => telemetry::Format::Text,
        }
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let format = args.log.format();
    let collector = args.otlp_endpoint.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let _telemetry = telemetry::init(format, collector.as_deref())?;
        // Here, since a file that they name is watched from now on.
        let options = options(args)?;
        let stop = shutdown::token()?;
        let config = kube::Config::infer()
            .await
            .context("no cluster: set KUBECONFIG, or run in a pod")?;
        Box::pin(trellis_operator::run(config, options, stop)).await?;
        Ok(ExitCode::SUCCESS)
    })
}

fn options(args: Args) -> anyhow::Result<Options> {
    let mut controllers = args.controllers;
    if controllers.is_empty() {
        controllers = Controller::ALL.to_vec();
    }
    controllers.sort_unstable();
    controllers.dedup();
    let mut namespaces = args.namespaces;
    namespaces.sort_unstable();
    namespaces.dedup();
    if let Some(empty) = namespaces.iter().find(|name| name.trim().is_empty()) {
        bail!("--namespaces has an empty name: {empty:?}");
    }
    let version = args.linkerd_version.as_deref().map(Mesh::from_flag).transpose()?;
    let sources = args.sources.options(&args.lease_namespace, &args.cluster_domain)?;
    Ok(Options {
        controllers,
        namespaces,
        lease: lease::Options {
            namespace: args.lease_namespace,
            name: args.lease_name,
            identity: args.identity.unwrap_or_else(random_identity),
            duration: args.lease_duration,
        },
        listen: args.listen,
        linkerd: Linkerd {
            version,
            cluster_domain: args.cluster_domain,
        },
        sources,
    })
}

/// A duration as people write it (`10s`, `1m 30s`), in the unit that a Lease has.
fn whole_seconds(text: &str) -> Result<Duration, String> {
    let duration: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "write it with its unit, such as 10s".to_owned())?;
    let seconds = u64::try_from(duration.as_secs()).unwrap_or_default();
    if duration.subsec_nanos() != 0 || !(1..=600).contains(&seconds) {
        return Err("a Lease lasts 1s to 10m, in whole seconds".to_owned());
    }
    Ok(Duration::from_secs(seconds))
}

fn random_identity() -> String {
    format!("trellis-{}", uuid::Uuid::new_v4().simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lasts_whole_seconds() {
        assert_eq!(whole_seconds("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(whole_seconds("1m 30s"), Ok(Duration::from_secs(90)));
        for wrong in ["10", "500ms", "0s", "-2s", "11m", "1.5s", "soon"] {
            assert!(whole_seconds(wrong).is_err(), "{wrong}");
        }
    }
}
