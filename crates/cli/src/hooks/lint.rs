//! `trellis hooks lint`: a whitelist, read as the sidecar reads it, and what it allows and should not.

use std::{fs, io::Read as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use serde_json::json;
use trellis_sources::whitelist::{self, Whitelist};

use crate::out;

/// Arguments of `trellis hooks lint`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The whitelist
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Exit code 1 when it cannot be used. A risk is told and is no failure.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let read = Whitelist::parse(&text(args)?);
    let risks = read.as_ref().map(Whitelist::lint).unwrap_or_default();
    let broken = read.as_ref().err().map(ToString::to_string);
    if args.json {
        let listed: Vec<_> = risks
            .iter()
            .map(|risk| json!({ "command": risk.command, "risk": risk.message }))
            .collect();
        let version = read.as_ref().ok().map(Whitelist::version);
        let told = json!({ "broken": broken, "version": version, "risks": listed });
        out::data(serde_json::to_string_pretty(&told)?);
    } else {
        for risk in &risks {
            out::line(format_args!("risk: {risk}"));
        }
    }
    match broken {
        Some(why) if args.json => out::note(format_args!("it cannot be used: {why}")),
        Some(why) => why.lines().enumerate().for_each(|(number, line)| {
            // The parser quotes the place, on lines of its own.
            out::line(format_args!("{}{line}", if number == 0 { "broken: " } else { "" }));
        }),
        None => out::say(format_args!("it can be used; {} risks", risks.len())),
    }
    Ok(if read.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn text(args: &Args) -> anyhow::Result<String> {
    let mut text = String::new();
    let file = args.file.display();
    fs::File::open(&args.file)
        .and_then(|opened| opened.take(whitelist::LIMIT + 1).read_to_string(&mut text))
        .with_context(|| format!("cannot read {file}"))?;
    if text.len() as u64 > whitelist::LIMIT {
        bail!(
            "{file} has more than {} bytes; the sidecar would not read it",
            whitelist::LIMIT
        );
    }
    Ok(text)
}
