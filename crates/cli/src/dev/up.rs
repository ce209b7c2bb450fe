//! `trellis dev up`.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use kube::api::DynamicObject;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use trellis_devplane::{
    ControlPlane, Kubernetes, PlaneError, Process,
    peers::flux::{Controller, Flux},
};
use trellis_runtime::shutdown;

use super::{
    controllers,
    examples::{self, Example, Need},
    line::{self, Line},
    progress,
    record::{self, Held, Record},
    table,
    upstream::Upstream,
};
use crate::out;

/// How long the operator may take to finish what it does.
const GRACE: Duration = Duration::from_secs(5);
/// The exit code of a process that ended by Ctrl-C before it was done.
const INTERRUPTED: u8 = 130;

/// Arguments of `trellis dev up`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Stop when every example is Ready, or is known not to be: exit code 0 or 1
    #[arg(long, conflicts_with = "detach")]
    once: bool,
    /// Return when everything is up; `trellis dev down` stops it
    #[arg(long)]
    detach: bool,
    /// Folder with examples; `none` applies none
    #[arg(long, default_value = "examples", value_name = "DIR")]
    examples: PathBuf,
    /// Folder whose state survives a restart; default: everything goes when it stops
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Peers to run beside Kubernetes
    #[arg(long, value_delimiter = ',', value_name = "PEERS")]
    with: Vec<Need>,
    /// Minor version of Kubernetes
    #[arg(long, default_value_t, value_name = "VERSION")]
    kubernetes: Kubernetes,
    /// The Linkerd for which policies are written; none runs here
    #[arg(long, default_value = "2.20", value_name = "VERSION")]
    linkerd_version: String,
    /// How long the examples may take to be Ready, in seconds
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
    /// The table as JSON
    #[arg(long)]
    json: bool,
}

/// What stands when `up` is up.
struct Up {
    /// First field: it ends before what it works on.
    flux: Option<Flux>,
    plane: ControlPlane,
    operator: Process,
    upstream: Upstream,
    record: Record,
    held: Held,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    trellis_resilience::Mesh::from_flag(&args.linkerd_version)?;
    if args.detach {
        return detach(args);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = shutdown::token()?;
        let (chosen, left_out) = choose(args)?;
        // What is dropped when a stop comes first ends every process that was started so far.
        let up = tokio::select! {
            up = start(args, &chosen) => up?,
            () = stop.cancelled() => return Ok(ExitCode::from(INTERRUPTED)),
        };
        let result = tokio::select! {
            result = serve(args, &up, &chosen, &left_out, &stop) => result,
            error = up.plane.died() => Err(error.into()),
            error = up.operator.died() => Err(error.into()),
            error = flux_died(up.flux.as_ref()) => Err(error.into()),
        };
        up.operator.stop(GRACE).await;
        drop(up.flux);
        up.plane.stop().await?;
        result
    })
}

/// From everything started to the wish to stop.
async fn serve(
    args: &Args,
    up: &Up,
    chosen: &[Example],
    left_out: &[Example],
    stop: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    let lines = tokio::select! {
        lines = try_examples(up, chosen, Duration::from_secs(args.timeout)) => lines?,
        () = stop.cancelled() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    let all_ready = tell(args, up, &lines, left_out)?;
    if args.once {
        if lines.is_empty() {
            bail!("no example was applied, so nothing was shown; name a folder of examples with --examples");
        }
        return Ok(if all_ready {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    up.held.update(&Record {
        ready: true,
        ..up.record.clone()
    })?;
    out::say(format_args!(
        "Kubernetes {} answers at {}",
        up.record.kubernetes, up.record.server
    ));
    out::say(format_args!("export KUBECONFIG={}", up.record.kubeconfig.display()));
    out::say("Ctrl-C or `trellis dev down` stops it");
    tokio::select! {
        refreshed = controllers::keep_token(&up.plane) => refreshed?,
        () = stop.cancelled() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what became of the examples. Returns whether all are Ready.
fn tell(args: &Args, up: &Up, lines: &[Line], left_out: &[Example]) -> anyhow::Result<bool> {
    if args.json {
        out::data(serde_json::to_string_pretty(lines)?);
    } else if !lines.is_empty() {
        out::data(table::lines(lines));
    }
    for example in left_out {
        let needs: Vec<&str> = example.needs.iter().map(|need| need.said()).collect();
        out::say(format_args!(
            "not applied: {} ({}); needs {}",
            example.name,
            example.description,
            needs.join(" and ")
        ));
    }
    let all_ready = lines.iter().all(Line::is_ready);
    if !all_ready {
        out::say(format_args!(
            "the end of the operator's log, {}:",
            up.operator.log().display()
        ));
        out::say(up.operator.tail());
    }
    Ok(all_ready)
}

async fn start(args: &Args, chosen: &[Example]) -> anyhow::Result<Up> {
    let mut options = ControlPlane::options()
        .kubernetes(args.kubernetes)
        .progress(progress::progress());
    if let Some(data) = &args.data {
        options = options.data(data);
    }
    // A start that fails keeps its logs anyway; here an example may fail on a plane that runs well.
    options = options.keep_logs(args.once);
    let plane = options.start().await?;
    let record = Record {
        pid: std::process::id(),
        kubernetes: plane.kubernetes().to_string(),
        server: plane.server().to_owned(),
        kubeconfig: plane.kubeconfig().to_owned(),
        directory: plane.directory().to_owned(),
        ready: false,
    };
    let held = Held::publish(&record)?;
    let flux = if args.with.contains(&Need::Flux) {
        let options = Flux::options(plane.kubeconfig()).progress(progress::progress());
        let consumers = options.controller(Controller::Kustomize).controller(Controller::Helm);
        Some(consumers.keep_logs(args.once).start().await?)
    } else {
        None
    };
    let upstream = Upstream::start(chosen)
        .await
        .context("cannot serve the examples' files")?;
    controllers::install(&plane.client()).await?;
    let operator = controllers::start(&plane, &args.linkerd_version).await?;
    Ok(Up {
        flux,
        plane,
        operator,
        upstream,
        record,
        held,
    })
}

/// Waits for the end of a controller of Flux; for ever, when there is none.
async fn flux_died(flux: Option<&Flux>) -> PlaneError {
    match flux {
        Some(flux) => flux.died().await,
        None => std::future::pending().await,
    }
}

/// The examples whose needs are met, and the others.
fn choose(args: &Args) -> anyhow::Result<(Vec<Example>, Vec<Example>)> {
    if args.examples.as_os_str() == "none" {
        return Ok((Vec::new(), Vec::new()));
    }
    Ok(examples::find(&args.examples)?
        .into_iter()
        .partition(|example| example.needs.iter().all(|need| args.with.contains(need))))
}

/// Applies the examples and waits for them, no longer than `limit`.
async fn try_examples(up: &Up, chosen: &[Example], limit: Duration) -> anyhow::Result<Vec<Line>> {
    let client = up.plane.client();
    let asked = jiff::Timestamp::now().to_string();
    let mut objects: Vec<(String, DynamicObject)> = Vec::new();
    for example in chosen {
        out::say(format_args!("applying {}: {}", example.name, example.description));
        let ours = examples::apply(&client, example, &up.upstream, &asked).await?;
        objects.extend(ours.into_iter().map(|object| (example.name.clone(), object)));
    }
    let mut lines: Vec<Line> = objects
        .iter()
        .map(|(example, object)| line::line(example, object, &asked))
        .collect();
    let ready = examples::wait(&client, &objects, &asked, &mut lines);
    if tokio::time::timeout(limit, ready).await.is_err() {
        out::say(format_args!("not all Ready after {} s", limit.as_secs()));
    }
    Ok(lines)
}

/// Starts `dev up` as a process of its own and waits until it is up.
fn detach(args: &Args) -> anyhow::Result<ExitCode> {
    use std::os::unix::process::CommandExt as _;
    let folder = record::folder()?;
    remove_old_logs(&folder)?;
    let log = folder.join(format!("{}.log", std::process::id()));
    let output = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
    let mut command = Command::new(crate::this_program()?);
    command
        .args(["dev", "up", "--kubernetes", &args.kubernetes.to_string()])
        .args([
            "--linkerd-version",
            &args.linkerd_version,
            "--timeout",
            &args.timeout.to_string(),
        ])
        .arg("--examples")
        .arg(&args.examples)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0);
    if let Some(data) = &args.data {
        command.arg("--data").arg(data);
    }
    for need in &args.with {
        if let Some(value) = clap::ValueEnum::to_possible_value(need) {
            command.args(["--with", value.get_name()]);
        }
    }
    let mut child = command.spawn().context("cannot start the process that stays")?;
    out::say(format_args!("starting; its output goes to {}", log.display()));
    loop {
        if let Some(status) = child.try_wait()? {
            out::say(std::fs::read_to_string(&log).unwrap_or_default().trim_end());
            bail!("dev up ended ({status})");
        }
        let running = Record::running()?;
        if let Some(record) = running.iter().find(|record| record.pid == child.id() && record.ready) {
            if args.json {
                out::data(json!(record));
            } else {
                out::data(table::records(std::slice::from_ref(record)));
            }
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Logs of earlier supervisors are kept for a day.
fn remove_old_logs(folder: &Path) -> std::io::Result<()> {
    const KEPT: Duration = Duration::from_hours(24);
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let age = path
            .metadata()
            .and_then(|about| about.modified())
            .map(|at| at.elapsed().unwrap_or_default());
        if path.extension().is_some_and(|extension| extension == "log") && age.is_ok_and(|age| age > KEPT) {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}
