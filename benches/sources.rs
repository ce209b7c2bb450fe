//! What `ExternalSource` costs, beside what is physically there in the same run: a bare client of the API server and of
//! upstream, a pipe of `curl`, `gzip` and `sha256sum`, a copy of a file, a bare HTTP client.
//!
//! `cargo bench -p trellis-benches --bench sources [-- --json]`. It fails only when something does not become Ready.

#[path = "sources/change.rs"]
mod change;
#[path = "sources/checks.rs"]
mod checks;
#[path = "sources/crowd.rs"]
mod crowd;
#[path = "sources/large.rs"]
mod large;
#[path = "sources/operated.rs"]
mod operated;
#[path = "sources/rest.rs"]
mod rest;
#[path = "sources/storage.rs"]
mod storage;
#[path = "sources/upstream.rs"]
mod upstream;

use clap::{Parser, ValueEnum};
use kube::CustomResourceExt as _;
use serde_json::{Value, json};
use trellis_benches::{Error, figures::Figures, site::Site};
use trellis_bindings::flux::ExternalArtifact;
use trellis_testkit::plane::apply;

use upstream::Upstream;

/// What `ExternalSource` costs.
#[derive(Parser)]
struct Args {
    /// How many sources there are
    #[arg(long, default_value_t = 1000)]
    sources: usize,
    /// With how many sources a change is timed
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1000])]
    counts: Vec<usize>,
    /// How often the operator and what it is compared with do the same, in turns
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How many changes are timed
    #[arg(long, default_value_t = 200)]
    changes: usize,
    /// How many seconds are watched at rest; a source is checked once a minute
    #[arg(long, default_value_t = 130)]
    window: u64,
    /// How many MiB a large artifact has
    #[arg(long, default_value_t = 100)]
    large: usize,
    /// How many hooks its data goes through
    #[arg(long, default_value_t = 2)]
    hooks: usize,
    /// How many checks without a controller are timed
    #[arg(long, default_value_t = 20_000)]
    checks: usize,
    /// These alone; all otherwise
    #[arg(long, value_delimiter = ',')]
    only: Vec<Row>,
    /// Small numbers, to see that each works
    #[arg(long)]
    quick: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Row {
    /// From creation to Ready
    Ready,
    /// What is done while nothing changes
    Rest,
    /// From a request to its answer
    Change,
    /// A large artifact
    Large,
    /// Storage without a controller
    Storage,
    /// Checks without a controller
    Checks,
}

impl Args {
    fn measures(&self, row: Row) -> bool {
        self.only.is_empty() || self.only.contains(&row)
    }

    fn sized(mut self) -> Self {
        if self.quick {
            (self.sources, self.counts, self.runs, self.changes) = (20, vec![5, 10], 1, 10);
            (self.window, self.large, self.checks) = (3, 8, 500);
        }
        self
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    if std::env::args().nth(1).as_deref() == Some(upstream::FLAG) {
        return upstream::serve().await;
    }
    let args = Args::parse().sized();
    let upstream = Upstream::start()?;
    let mut figures = Figures::default();
    if args.measures(Row::Checks) {
        figures
            .figures
            .extend(checks::figures(&upstream, args.checks, args.runs).await?);
    }
    if args.measures(Row::Storage) {
        figures.figures.extend(storage::figures(args.quick, args.runs).await?);
    }
    if [Row::Ready, Row::Rest, Row::Change, Row::Large]
        .into_iter()
        .any(|row| args.measures(row))
    {
        let site = Site::start().await?;
        apply(&site.admin(), &[artifacts()?]).await?;
        if args.measures(Row::Ready) {
            figures
                .figures
                .extend(crowd::figures(&site, &upstream, args.sources, args.runs).await?);
        }
        if args.measures(Row::Rest) {
            figures
                .figures
                .extend(rest::figures(&site, &upstream, args.sources, args.window).await?);
        }
        if args.measures(Row::Change) {
            figures
                .figures
                .extend(change::figures(&site, &upstream, &args.counts, args.changes).await?);
        }
        if args.measures(Row::Large) {
            let large = large::Large {
                mebibytes: args.large,
                hooks: args.hooks,
                runs: args.runs,
            };
            figures.figures.extend(large.figures(&site, &upstream).await?);
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        print!("{}", figures.table());
    }
    Ok(())
}

/// The definition of artifacts without their schema, which Flux has: nobody consumes any here.
fn artifacts() -> Result<Value, Error> {
    let mut definition = serde_json::to_value(ExternalArtifact::crd())?;
    let any = json!({ "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
    let versions = definition.pointer_mut("/spec/versions").and_then(Value::as_array_mut);
    for version in versions.into_iter().flatten().filter_map(Value::as_object_mut) {
        version.insert("schema".to_owned(), any.clone());
    }
    Ok(definition)
}
