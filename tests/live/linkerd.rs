//! `live-linkerd`: what no test here can show, on a cluster that has Linkerd: how often a failing request is sent, how
//! many endpoints a breaker takes out, and who has a sidecar.
//!
//! ```text
//!  preflight ─▶ a namespace of its own: servers, policies ─▶ clients ─▶ the proxies' metrics ─▶ table ─▶ gone
//! ```
//!
//! Invariants: nothing is made when the preflight refuses; all that is made is in one namespace, which is deleted at the
//! end, however that comes, by its name and UID. No part of this runs in CI, which has no Linkerd, but for the counting.

#[path = "linkerd/measured.rs"]
mod measured;
#[path = "linkerd/preflight.rs"]
mod preflight;
#[path = "linkerd/prometheus.rs"]
mod prometheus;
#[path = "linkerd/scene.rs"]
mod scene;
#[path = "linkerd/story.rs"]
mod story;

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use kube::Client;
use trellis_runtime::shutdown;

use story::Story;

/// Counts attempts, ejected endpoints and sidecars on a cluster that has Linkerd and a Trellis operator.
///
/// Makes a namespace trellis-live-ID and deletes it at the end. Exit code 0: all is as asked; 1: it is not; 2: the cluster
/// lacks something, and nothing was made.
#[derive(Parser)]
#[command(name = "live-linkerd")]
struct Args {
    /// Only look whether the cluster has what this needs
    #[arg(long)]
    preflight: bool,
    /// An nginx that reads /etc/nginx/conf.d
    #[arg(
        long,
        default_value = "nginxinc/nginx-unprivileged:stable-alpine",
        value_name = "IMAGE"
    )]
    server_image: String,
    /// An image with sh and curl
    #[arg(long, default_value = "curlimages/curl:8.11.1", value_name = "IMAGE")]
    client_image: String,
    /// Requests that each client sends
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(20..=1000), value_name = "NUMBER")]
    requests: u32,
    /// How long any one thing may take, such as pulling an image, in seconds
    #[arg(long, default_value_t = 180, value_name = "SECONDS")]
    timeout: u64,
    /// Leave the namespace behind
    #[arg(long)]
    keep: bool,
}

/// How long a namespace with a dozen Pods may take to go.
const GONE: Duration = Duration::from_mins(2);

/// Something that this program asked for did not come.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no cluster: set KUBECONFIG")]
    Cluster(#[source] kube::config::InferConfigError),
    #[error("cannot {what}")]
    Kubernetes {
        what: String,
        #[source]
        source: kube::Error,
    },
    #[error("{what} after {seconds} s: {last}")]
    Late { what: String, seconds: u64, last: String },
    #[error("{0}")]
    Lacks(preflight::Lack),
    #[error("a manifest of this program is wrong")]
    Manifest(#[from] serde_json::Error),
    #[error("signals cannot be handled")]
    Signals(#[from] std::io::Error),
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    fn kubernetes(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Kubernetes { what, source }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
            for cause in causes {
                eprintln!("  caused by: {cause}");
            }
            if let Error::Lacks(lack) = &error {
                eprintln!("hint: {}", lack.mend());
            }
            ExitCode::from(if matches!(error, Error::Lacks(_) | Error::Cluster(_)) {
                2
            } else {
                1
            })
        }
    }
}

/// Whether all is as asked.
async fn run(args: &Args) -> Result<bool, Error> {
    // The only failure is that a provider is installed already, which cannot be: this is the first use.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = kube::Config::infer().await.map_err(Error::Cluster)?;
    let client = Client::try_from(config).map_err(Error::kubernetes("use the kubeconfig"))?;
    let found = preflight::run(&client).await?;
    eprintln!("{found}");
    if args.preflight {
        return Ok(true);
    }
    let stop = shutdown::token()?;
    let story = Story::begin(&client, args).await?;
    let measured = tokio::select! {
        measured = story.measure() => measured,
        () = stop.cancelled() => Err(Error::Interrupted),
    };
    let ended = if args.keep {
        eprintln!("namespace {} stays", story.namespace());
        Ok(())
    } else {
        story.end(GONE).await
    };
    // What went wrong first is said first.
    let measured = measured?;
    ended?;
    println!("{}", measured.table());
    Ok(measured.holds())
}
