//! The sidecar as a process of its own, for the tests: what the subcommand `trellis hooks` will be.
//!
//! `hooks-sidecar JSON`: serves until SIGTERM; says `ready ADDRESS ISOLATION` on standard output once it does.
//! `hooks-sidecar hooks-step …`: an inner step.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use trellis_hooks::{Asked, Denied, Listen, Network, Permit, Program, Settings, Sidecar, Token};

/// What the tests may run, by bare name; a path must be one of these files.
const NAMES: &[&str] = &[
    "bash",
    "cat",
    "env",
    "false",
    "head",
    "jq",
    "pwd",
    "sh",
    "sha256sum",
    "sleep",
    "true",
    "yes",
];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|word| word == "hooks-step").is_some() {
        return trellis_hooks::step(arguments);
    }
    let text = arguments
        .next()
        .and_then(|text| text.into_string().ok())
        .unwrap_or_default();
    let Ok(options) = serde_json::from_str::<Value>(&text) else {
        eprintln!("options are not JSON: {text}");
        return ExitCode::FAILURE;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let served = match runtime {
        Ok(runtime) => runtime.block_on(serve(&options)),
        Err(error) => Err(error.to_string()),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: &Value) -> Result<(), String> {
    let pins = options.get("pins").cloned().unwrap_or_default();
    let allow = move |asked: &Asked<'_>| {
        let name = asked.command.rsplit('/').next().unwrap_or_default();
        if !NAMES.contains(&name) {
            return Err(Denied(format!("command {:?} is not in the whitelist", asked.command)));
        }
        let sha256 = pins.get(name).and_then(Value::as_str).map(str::to_owned);
        Ok(Permit {
            program: Program::Named(name.to_owned()),
            sha256,
        })
    };
    let sidecar = Sidecar::bind(settings(options)?, allow)
        .await
        .map_err(|error| error.to_string())?;
    let isolation = serde_json::to_string(sidecar.isolation()).map_err(|error| error.to_string())?;
    let address = sidecar
        .address()
        .map_or_else(|| "socket".to_owned(), |at| at.port().to_string());
    println!("ready {address} {isolation}");
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        if let Ok(mut term) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            term.recv().await;
        }
        stop.cancel();
    });
    sidecar.serve(shutdown).await;
    Ok(())
}

fn settings(options: &Value) -> Result<Settings, String> {
    let text = |name: &str| options.get(name).and_then(Value::as_str);
    let number = |name: &str| options.get(name).and_then(Value::as_u64);
    let listen = match (text("socket"), text("token")) {
        (Some(path), _) => Listen::Socket(path.into()),
        (None, Some(token)) => Listen::Loopback {
            port: 0,
            token: Token::new(token).map_err(|error| error.to_string())?,
        },
        (None, None) => return Err("neither a socket nor a token".to_owned()),
    };
    let mut settings = Settings::new(listen, ["hooks-step"]);
    settings.work = PathBuf::from(text("work").unwrap_or_default());
    settings.hidden = text("hidden").map(PathBuf::from).into_iter().collect();
    settings.writable = text("writable").map(PathBuf::from).into_iter().collect();
    settings.network = match text("network") {
        Some("off") => Network::Off,
        Some("on") => Network::On,
        _ => Network::OffWherePossible,
    };
    let limits = &mut settings.limits;
    for (name, limit) in [
        ("cpu", &mut limits.cpu_seconds),
        ("memory", &mut limits.memory),
        ("files", &mut limits.files),
        ("file_size", &mut limits.file_size),
        ("stdin", &mut limits.stdin),
        ("stdout", &mut limits.stdout),
        ("stderr", &mut limits.stderr),
    ] {
        *limit = number(name).unwrap_or(*limit);
    }
    for (name, count) in [
        ("processes", &mut limits.processes),
        ("user_processes", &mut limits.user_processes),
    ] {
        if let Some(number) = number(name) {
            *count = u32::try_from(number).map_err(|error| error.to_string())?;
        }
    }
    for (name, count) in [("at_once", &mut settings.at_once), ("queue", &mut settings.queue)] {
        if let Some(number) = number(name) {
            *count = usize::try_from(number).map_err(|error| error.to_string())?;
        }
    }
    if let Some(millis) = number("patience_ms") {
        settings.patience = Duration::from_millis(millis);
    }
    Ok(settings)
}
