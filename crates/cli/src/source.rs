//! `trellis source`: what a source asks for, and what comes of it, without a cluster.
//!
//! ```text
//!  FILE: sources, and the Secrets that they name ─▶ Order ─┬▶ render: the request and what becomes of its answer
//!                                                          └▶ try: the artifact, made once as the operator makes it
//! ```

mod attempt;
mod given;
mod listing;
mod schema;

use std::{path::PathBuf, process::ExitCode};

use trellis_operator::external_source::Settings;

use crate::out;
use given::Given;

/// Arguments of `trellis source`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show what sources ask for and what becomes of it, without asking anybody
    Render(Render),
    /// Make the artifact of a source once, on this machine
    Try(Box<attempt::Args>),
}

/// Arguments of `trellis source render`.
#[derive(clap::Args)]
struct Render {
    #[command(flatten)]
    files: Files,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Where manifests are.
#[derive(clap::Args)]
struct Files {
    /// Manifests of sources, and of Secrets that they name; - reads stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// More manifests of Secrets
    #[arg(long, value_name = "FILE")]
    secrets: Vec<PathBuf>,
    /// Let sources set insecureSkipVerify, as the operator's flag does
    #[arg(long)]
    allow_insecure_tls: bool,
}

impl Files {
    fn given(&self) -> anyhow::Result<Given> {
        let mut given = Given::default();
        given.add(&self.file)?;
        for file in &self.secrets {
            given.add(file)?;
        }
        Ok(given)
    }

    /// As the operator would be set; hooks are allowed, since nothing is run for a look.
    fn settings(&self) -> Settings {
        let mut settings = Settings::new("http://localhost", std::env::temp_dir());
        settings.allow_insecure_tls = self.allow_insecure_tls;
        settings
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Render(args) => render(args),
        Command::Try(args) => attempt::run(args),
    }
}

/// What an API server would not take.
fn refused(why: &[String]) -> anyhow::Error {
    anyhow::anyhow!("an API server refuses it: {}", why.join("; "))
}

/// Exit code 1 when a source cannot work.
fn render(args: &Render) -> anyhow::Result<ExitCode> {
    let given = args.files.given()?;
    let settings = args.files.settings();
    let mut code = ExitCode::SUCCESS;
    let mut rendered = Vec::new();
    for source in given.sources()? {
        for note in &source.notes {
            out::note(format_args!("{}: {note}", source.name));
        }
        if !source.refused.is_empty() {
            out::note(format_args!("{}:", source.name));
            out::error(&refused(&source.refused));
            code = ExitCode::FAILURE;
            continue;
        }
        match given.order(&source.object, &settings) {
            Ok(order) => rendered.push(serde_json::json!({ "name": source.name, "source": order.rendered() })),
            Err(refusal) => {
                out::note(format_args!("{}:", source.name));
                out::error(&refusal.into());
                code = ExitCode::FAILURE;
            }
        }
    }
    if args.json {
        out::data(serde_json::to_string_pretty(&rendered)?);
    } else {
        for one in &rendered {
            out::data("---");
            out::data(serde_saphyr::to_string(one)?.trim_end());
        }
    }
    Ok(code)
}
