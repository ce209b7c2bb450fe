//! The sidecar as a process of its own, for the tests of sources: a socket file, a whitelist file that is watched.
//!
//! `sources-sidecar SOCKET WORK WHITELIST`: serves until it is killed; says `ready` on standard output once it does.
//! `sources-sidecar hooks-step …`: an inner step.

use std::{error::Error, ffi::OsString, path::PathBuf, process::ExitCode};

use tokio_util::sync::CancellationToken;
use trellis_hooks::{Asked, Denied, Listen, Permit, Program, Reload, Settings, Sidecar};
use trellis_sources::whitelist::{self, Whitelist};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|word| word == "hooks-step").is_some() {
        return trellis_hooks::step(arguments);
    }
    let arguments: Vec<OsString> = arguments.collect();
    let [socket, work, file] = arguments.as_slice() else {
        eprintln!("usage: sources-sidecar SOCKET WORK WHITELIST");
        return ExitCode::FAILURE;
    };
    match serve(socket.into(), work.into(), file.into()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn serve(socket: PathBuf, work: PathBuf, file: PathBuf) -> Result<(), Box<dyn Error>> {
    let rules = Reload::start(file, whitelist::LIMIT, Whitelist::parse)?;
    let allow = move |asked: &Asked<'_>| {
        let rules = rules
            .kept()
            .good
            .ok_or_else(|| Denied("there is no whitelist".to_owned()))?;
        let allowed = rules.allows(asked.namespace, asked.command, asked.args);
        let allowed = allowed.map_err(|refusal| Denied(refusal.to_string()))?;
        Ok(Permit {
            program: match allowed.program {
                whitelist::Program::Named(name) => Program::Named(name),
                whitelist::Program::File(path) => Program::File(path),
            },
            sha256: allowed.sha256,
        })
    };
    // The hooks of these tests leave marks there.
    let marks = socket.parent().map(PathBuf::from);
    let mut settings = Settings::new(Listen::Socket(socket), ["hooks-step"]);
    settings.writable = marks.into_iter().collect();
    settings.work = work;
    let sidecar = Sidecar::bind(settings, allow).await?;
    println!("ready");
    sidecar.serve(CancellationToken::new()).await;
    Ok(())
}
