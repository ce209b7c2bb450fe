//! `trellis source try`: the artifact of a source, made once as the operator makes it.
//!
//! ```text
//!  order ─▶ Production (fetch, hooks, transforms, shape, pack) ─▶ what it is ─▶ --out FILE
//!              └ hooks: a sidecar of its own, a child of this process, under --whitelist
//! ```
//!
//! Invariant: nothing is left behind but the file that was asked for.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tempfile::TempDir;
use trellis_devplane::Process;
use trellis_fetch::{Client, Generators, Transferred};
use trellis_hooks::Endpoint;
use trellis_operator::external_source::{
    HooksSettings, Known, Packed, Policy, Product, Production, Progress, Settings, Step,
};

use super::{
    Files,
    listing::{self, Entry},
};
use crate::{operator::Egress, out};

/// How long the sidecar may take to answer.
const START: Duration = Duration::from_secs(10);
/// How many files of an artifact are listed for people.
const LISTED: usize = 40;

/// Arguments of `trellis source try`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    files: Files,
    /// Which source, where there are several
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where the artifact (tar.gz) goes; default: nowhere
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Which commands hooks may run
    #[arg(long, value_name = "FILE")]
    whitelist: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    egress: Egress,
}

/// What came of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    name: String,
    revision: String,
    digest: String,
    size: u64,
    fetched: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_modified: Option<String>,
    warnings: Vec<String>,
    files: Vec<Entry>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let given = args.files.given()?;
    let source = given.one(args.name.as_deref())?;
    for note in &source.notes {
        out::note(note);
    }
    if !source.refused.is_empty() {
        return Err(super::refused(&source.refused));
    }
    let policy = args.egress.policy();
    let spool = tempfile::tempdir().context("no folder for temporary files")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut settings = args.files.settings();
        settings.spool = spool.path().to_owned();
        let hooks = !source.object.spec.pre_request().is_empty() || !source.object.spec.post_request().is_empty();
        let sidecar = if hooks {
            Some(Sidecar::start(args.whitelist.as_deref(), &mut settings).await?)
        } else {
            None
        };
        let order = given.order(&source.object, &settings)?;
        let fetch = trellis_fetch::Settings {
            allow_unchecked: args.files.allow_insecure_tls,
            ..trellis_fetch::Settings::default()
        };
        let client = Client::new(fetch, Arc::new(Policy(policy)));
        let production = Production::new(&settings, Generators::standard(&client));
        let (bar, progress) = progress();
        let known = Known::default();
        let making = production.make(&order, &known, &progress);
        let made = tokio::select! {
            made = making => made,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        };
        bar.finish_and_clear();
        drop(sidecar);
        match made? {
            Product::Packed(packed) => tell(args, &source.name, &packed),
            Product::Unchanged => bail!("upstream says that nothing changed although nothing was known: a defect"),
        }
    })
}

fn tell(args: &Args, name: &str, packed: &Packed) -> anyhow::Result<ExitCode> {
    let files = listing::entries(&packed.file).context("the artifact cannot be read back: a defect")?;
    let made = Made {
        name: name.to_owned(),
        revision: packed.revision().to_string(),
        digest: packed.measure.digest.to_string(),
        size: packed.measure.size,
        fetched: packed.fetched,
        etag: packed.validators.etag.clone(),
        last_modified: packed.validators.last_modified.clone(),
        warnings: packed.warnings.clone(),
        files,
    };
    if let Some(out) = &args.out {
        fs::copy(&packed.file, out).with_context(|| format!("cannot write {}", out.display()))?;
    }
    if args.json {
        out::data(serde_json::to_string_pretty(&made)?);
        return Ok(ExitCode::SUCCESS);
    }
    for warning in &made.warnings {
        out::note(format_args!("warning: {warning}"));
    }
    out::line(format_args!("{:<10} {}", "source", made.name));
    out::line(format_args!("{:<10} {}", "revision", made.revision));
    out::line(format_args!(
        "{:<10} {} bytes, of {} bytes of data",
        "artifact", made.size, made.fetched
    ));
    for (what, said) in [("etag", &made.etag), ("modified", &made.last_modified)] {
        if let Some(said) = said {
            out::line(format_args!("{what:<10} {said}"));
        }
    }
    for entry in made.files.iter().take(LISTED) {
        out::line(format_args!("{:<10} {} ({} bytes)", "file", entry.path, entry.bytes));
    }
    if made.files.len() > LISTED {
        out::line(format_args!("{:<10} {} more", "", made.files.len() - LISTED));
    }
    Ok(ExitCode::SUCCESS)
}

/// A sidecar for this attempt; it ends when this is dropped.
struct Sidecar {
    _process: Process,
    _folder: TempDir,
}

impl Sidecar {
    async fn start(whitelist: Option<&Path>, settings: &mut Settings) -> anyhow::Result<Self> {
        let Some(whitelist) = whitelist else {
            bail!("the source has hooks; say with --whitelist which commands they may run");
        };
        let folder = tempfile::tempdir().context("no folder for the sidecar's socket")?;
        let socket = folder.path().join("hooks.sock");
        let mut command = std::process::Command::new(crate::this_program()?);
        command.args(["hooks", "--log", "text", "--socket"]).arg(&socket);
        command
            .arg("--whitelist")
            .arg(whitelist)
            .arg("--work")
            .arg(folder.path());
        let process = Process::spawn("hooks", &command, &folder.path().join("hooks.log"))?;
        let client = trellis_hooks::Client::new(Endpoint::Socket(socket));
        let answers = async {
            while client.healthy().await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            answered = tokio::time::timeout(START, answers) => {
                answered.with_context(|| format!("the sidecar of hooks did not start:\n{}", process.tail()))?;
            }
            _ = process.exited() => bail!("the sidecar of hooks ended:\n{}", process.tail()),
        }
        settings.hooks = Some(HooksSettings::open(client, whitelist)?);
        Ok(Self {
            _process: process,
            _folder: folder,
        })
    }
}

/// What goes on: a bar on a terminal, nothing elsewhere.
fn progress() -> (ProgressBar, Progress) {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(100));
    let style =
        |template: &str| ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    bar.set_style(style("{spinner} {msg}"));
    let shown = bar.clone();
    let progress: Progress = Arc::new(move |step: Step<'_>| match step {
        Step::Fetching(Transferred {
            bytes,
            total: Some(total),
        }) if total > 0 => {
            if shown.length() != Some(total) {
                shown.set_length(total);
                shown.set_style(style(
                    "{spinner} fetching {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
                ));
            }
            shown.set_position(bytes);
        }
        step => {
            shown.set_style(style("{spinner} {msg}"));
            shown.set_message(step.to_string());
        }
    });
    (bar, progress)
}
