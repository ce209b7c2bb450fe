//! What `ResiliencePolicy` costs: time for many, memory, writes at rest, time for one change; and of one policy for a
//! whole namespace, time to its last Service and to the repair of one. The raw limit is a bare client that sends what the
//! operator sends.
//!
//! `cargo bench -p trellis-benches --bench resilience [-- --json]`. It fails only when a policy does not become Ready.

#[path = "resilience/breadth.rs"]
mod breadth;
#[path = "resilience/change.rs"]
mod change;
#[path = "resilience/crowd.rs"]
mod crowd;
#[path = "resilience/rest.rs"]
mod rest;

use clap::Parser;
use trellis_api::MAX_SERVICES;
use trellis_benches::{
    Error,
    figures::{Figure, Figures, at, median},
    site::Site,
};
use trellis_testkit::operator::Signal;

use crowd::Crowd;

/// What `ResiliencePolicy` costs.
#[derive(Parser)]
struct Args {
    /// How many policies, each for a Service of its own
    #[arg(long, default_value_t = 1000)]
    policies: usize,
    /// How many Services one policy is for
    #[arg(long, default_value_t = MAX_SERVICES)]
    services: usize,
    /// How often the operator and the bare client do the same, in turns
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How many changes are timed
    #[arg(long, default_value_t = 100)]
    changes: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args = Args::parse();
    let site = Site::start().await?;
    let replay = crowd::recorded(&site).await?;
    eprintln!("for each policy: {}", replay.said().join(", "));

    let patches = replay.patches();
    let (mut ours, mut raw, mut patched) = (Vec::new(), Vec::new(), Vec::new());
    let (mut memory, mut peak) = (Vec::new(), Vec::new());
    let mut figures = Figures::default();
    let mut rest = Vec::new();
    for run in 0..args.runs {
        for (what, replay, times) in [("raw", &replay, &mut raw), ("patches", &patches, &mut patched)] {
            let crowd = Crowd::new(&site, &format!("{what}-{run}"), args.policies).await?;
            times.push(crowd.raw(&site, replay).await?.as_secs_f64());
            crowd.abandon().await?;
        }
        let crowd = Crowd::new(&site, &format!("operator-{run}"), args.policies).await?;
        let operator = site.operator().await?;
        ours.push(crowd.operated().await?.as_secs_f64());
        peak.push(megabytes(operator.peak_memory()?));
        memory.push(megabytes(operator.memory()?));
        let last = |times: &[f64]| times.last().copied().unwrap_or_default();
        let (bare, patches, operator_s) = (last(&raw), last(&patched), last(&ours));
        eprintln!("run {run}: operator {operator_s:.2} s, bare client {bare:.2} s, its patches alone {patches:.2} s");
        if run + 1 == args.runs {
            rest = rest::figures(&site, &operator).await?;
            rest.extend(change::figures(&site, &crowd, args.changes).await?);
        }
        crowd.delete().await?;
        if run + 1 == args.runs {
            rest.extend(breadth::figures(&site, args.services, args.runs, args.changes).await?);
        }
        // It hands the Lease over to the next one.
        operator.stop(Signal::Term).await;
    }
    let name = format!("{} policies to Ready, ÷ a bare client's patches", args.policies);
    let ratio = Figure::new(name, median(&ours) / median(&patched), "").at_most(1.5);
    figures
        .figures
        .push(ratio.of("operator s", &ours).of("bare client's patches s", &patched));
    let ratio = Figure::new(
        "÷ all that the operator writes, Events too",
        median(&ours) / median(&raw),
        "",
    );
    figures.figures.push(ratio.of("bare client s", &raw));
    let resident = Figure::new("resident memory after that", median(&memory), "MB").at_most(60.0);
    figures.figures.push(resident.of("MB", &memory));
    figures
        .figures
        .push(Figure::new("the most that it ever was", at(&peak, 1.0), "MB"));
    figures.figures.extend(rest);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        print!("{}", figures.table());
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "kilobytes suffice")]
fn megabytes(bytes: u64) -> f64 {
    (bytes / 1000) as f64 / 1000.0
}
