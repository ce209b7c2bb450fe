//! A large artifact: memory, and time beside a pipe of `curl`, `gzip -6` and `sha256sum` on the same data.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::{Api, api::PostParams, runtime::wait::await_condition};
use serde_json::json;
use trellis_api::ExternalSource;
use trellis_benches::{
    Error,
    figures::{Figure, at, median},
    site::Site,
};
use trellis_bindings::flux::ExternalArtifact;

use crate::{
    crowd::lead,
    operated::Operated,
    rest::megabytes,
    upstream::{Upstream, asked, bare},
};

/// Most memory that a process may have had, in MB: 64 MiB.
const RESIDENT: f64 = 67.2;
/// Our time may be this share of the pipe's: 70 % of its throughput.
const AS_FAST: f64 = 1.0 / 0.7;
/// How many take the artifact at once, afterwards.
const DOWNLOADS: usize = 10;

/// What is measured.
pub(crate) struct Large {
    pub(crate) mebibytes: usize,
    pub(crate) hooks: usize,
    pub(crate) runs: usize,
}

/// What one run came to.
struct Run {
    took: Duration,
    peak: u64,
    after: u64,
    sidecar: Option<u64>,
}

impl Large {
    /// Numbers, which do not compress, and text, which does.
    pub(crate) async fn figures(&self, site: &Site, upstream: &Upstream) -> Result<Vec<Figure>, Error> {
        let mut figures = Vec::new();
        for kind in ["random", "text"] {
            let url = upstream.url(&format!("large/{kind}/{}", self.mebibytes));
            let (mut ours, mut raw) = (Vec::new(), Vec::new());
            let (mut peak, mut after, mut sidecar) = (Vec::new(), Vec::new(), Vec::new());
            for run in 0..self.runs {
                raw.push(self.piped(&url)?.as_secs_f64());
                let one = self.run(site, upstream, &url, &format!("large-{kind}-{run}")).await?;
                ours.push(one.took.as_secs_f64());
                peak.push(megabytes(one.peak));
                after.push(megabytes(one.after));
                sidecar.extend(one.sidecar.map(megabytes));
            }
            let what = format!("{} MiB of {kind}, {} hooks", self.mebibytes, self.hooks);
            let ratio = Figure::new(
                format!("{what}, to its artifact, ÷ a pipe"),
                median(&ours) / median(&raw),
                "",
            );
            figures.push(ratio.at_most(AS_FAST).of("operator s", &ours).of("pipe s", &raw));
            let most = |name: String, values: &[f64]| Figure::new(name, at(values, 1.0), "MB").at_most(RESIDENT);
            figures.push(most("most memory of the operator, then".to_owned(), &peak));
            figures.push(most(format!("and after {DOWNLOADS} downloads at once"), &after));
            if self.hooks > 0 {
                figures.push(most("most memory of the sidecar".to_owned(), &sidecar));
            }
        }
        Ok(figures)
    }

    /// From the creation of the source until a watch shows its artifact.
    async fn run(&self, site: &Site, upstream: &Upstream, url: &str, namespace: &str) -> Result<Run, Error> {
        let operated = Operated::start(site, self.hooks > 0).await?;
        lead(site, upstream, &format!("{namespace}-first")).await?;
        site.namespace(namespace).await?;
        let sources: Api<ExternalSource> = Api::namespaced(site.admin(), namespace);
        let artifacts: Api<ExternalArtifact> = Api::namespaced(site.admin(), namespace);
        let began = Instant::now();
        sources.create(&PostParams::default(), &self.wanted(url)?).await?;
        let published = |found: Option<&ExternalArtifact>| address(found?);
        await_condition(artifacts.clone(), "large", |found: Option<&ExternalArtifact>| {
            published(found).is_some()
        })
        .await?;
        let took = began.elapsed();
        let peak = operated.operator.peak_memory()?;
        let address = address(&artifacts.get("large").await?).ok_or("no artifact")?;
        let client = bare();
        let downloads = stream::iter(0..DOWNLOADS).map(|_| asked(&client, &address, None));
        let told: Vec<u16> = downloads.buffer_unordered(DOWNLOADS).try_collect().await?;
        if told.iter().any(|status| *status != 200) {
            return Err(format!("the artifact is answered with {told:?}").into());
        }
        let (after, sidecar) = (operated.operator.peak_memory()?, operated.sidecar_peak()?);
        operated.end().await;
        Ok(Run {
            took,
            peak,
            after,
            sidecar,
        })
    }

    fn wanted(&self, url: &str) -> Result<ExternalSource, Error> {
        let hook = |index: usize| json!({ "name": format!("cat-{index}"), "command": "cat", "timeout": "5m" });
        let hooks: Vec<_> = (0..self.hooks).map(hook).collect();
        let spec = json!({
            "interval": "1h", "generator": { "type": "http", "http": { "url": url } }, "destinationPath": "large.bin",
            "hooks": { "postRequest": hooks },
        });
        Ok(ExternalSource::new("large", serde_json::from_value(spec)?))
    }

    /// The same work by the tools that everybody has.
    fn piped(&self, url: &str) -> Result<Duration, Error> {
        let hooks = "cat | ".repeat(self.hooks);
        let line = format!("curl --silent --show-error --fail '{url}' | {hooks} gzip -6 | sha256sum");
        let began = Instant::now();
        let ended = Command::new("sh").args(["-c", &line]).stdout(Stdio::null()).status()?;
        if !ended.success() {
            return Err("the pipe of curl, gzip and sha256sum failed".into());
        }
        Ok(began.elapsed())
    }
}

/// Where an artifact can be downloaded, if it is published.
fn address(artifact: &ExternalArtifact) -> Option<String> {
    Some(artifact.status.as_ref()?.artifact.as_ref()?.url.clone())
}
