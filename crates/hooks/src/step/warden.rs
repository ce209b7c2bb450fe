//! The warden: the process that a run cannot outlive.
//!
//! Invariant: it leaves the streams to the command, watches, and writes its report only when the tree has ended, so
//! that no process of the run can have written it.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::Write as _,
    os::unix::process::parent_id,
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, wait};
use tokio::signal::unix::{SignalKind, signal};

use super::{BROKEN, Ended, Order, REPORT, Report, THIS_PROGRAM, broken, first, isolation, space, tree};
use crate::Network;

/// How often the tree is counted and the sidecar looked for.
const ROUND: Duration = Duration::from_millis(50);
/// At least how long after one look at what was written the next one is, as a multiple of what the look took.
const PAUSE: u32 = 10;

pub(super) fn run(order: &Order, program: &OsStr, args: Vec<OsString>) -> ExitCode {
    let isolation = isolation::enter(order.network);
    let ended = if order.network == Network::Off && !isolation.network {
        let why = isolation.refused.as_deref().unwrap_or("no reason given");
        Ended::Broken(format!("the network cannot be kept off: {why}"))
    } else {
        watch(order, isolation.users, program, args).unwrap_or_else(Ended::Broken)
    };
    let code = match &ended {
        Ended::Exited(code) => *code,
        _ => BROKEN,
    };
    let report = Report { ended, isolation };
    match serde_json::to_vec(&report)
        .map_err(|error| error.to_string())
        .and_then(|text| write(&text))
    {
        Ok(()) => ExitCode::from(code),
        Err(error) => broken(&format!("cannot report: {error}")),
    }
}

/// A file of its own in place of whatever the run may have put there.
fn write(text: &[u8]) -> Result<(), String> {
    let place = Path::new("..").join(REPORT);
    let _ = fs::remove_file(&place);
    fs::File::create_new(&place)
        .and_then(|mut file| file.write_all(text))
        .map_err(|error| error.to_string())
}

fn watch(order: &Order, counted_apart: bool, program: &OsStr, args: Vec<OsString>) -> Result<Ended, String> {
    let said = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    set_child_subreaper(Some(getpid())).map_err(|error| said("cannot adopt orphans")(error.into()))?;
    // One thread: namespaces were entered by this one.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(said("cannot start"))?;
    runtime.block_on(async {
        let mut told = signal(SignalKind::terminate()).map_err(said("cannot listen for signals"))?;
        let mut births_and_deaths = signal(SignalKind::child()).map_err(said("cannot listen for signals"))?;
        let command = start(order, counted_apart, program, args)?;
        first::let_go();
        let mut round = tokio::time::interval(ROUND);
        let mut look = Instant::now();
        let ended = loop {
            if let Some(code) = reap(command) {
                break Ended::Exited(code);
            }
            tokio::select! {
                _ = births_and_deaths.recv() => {}
                _ = told.recv() => break Ended::Stopped,
                _ = round.tick() => {
                    if parent_id() != order.parent {
                        break Ended::Stopped;
                    }
                    // `first` is not one of the command's.
                    let tree = tree::below(std::process::id());
                    if tree.len() > order.limits.processes as usize + 1 {
                        break Ended::TooManyProcesses;
                    }
                    if Instant::now() >= look {
                        let start = Instant::now();
                        if let Some(why) = space::excess(Path::new("."), &tree, order.limits.file_size) {
                            break Ended::Wrote(why);
                        }
                        look = Instant::now() + start.elapsed() * PAUSE;
                    }
                }
            }
        };
        tree::end();
        Ok(ended)
    })
}

fn start(order: &Order, counted_apart: bool, program: &OsStr, args: Vec<OsString>) -> Result<Pid, String> {
    let limits = first::Order {
        limits: order.limits,
        counted_apart,
        fence: order.fence.clone(),
    };
    let limits = serde_json::to_string(&limits).map_err(|error| error.to_string())?;
    // The words between the program and `warden` lead here; they lead to the next step as well.
    let lead = std::env::args_os().skip(1).take_while(|word| word != "warden");
    let child = Command::new(THIS_PROGRAM)
        .args(lead)
        .arg("first")
        .arg(limits)
        .arg(program)
        .args(args)
        .spawn()
        .map_err(|error| format!("cannot start the run: {error}"))?;
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| "the process id is not one".to_owned())
}

/// Reaps what has ended; the exit code when the command's step is among it.
fn reap(command: Pid) -> Option<u8> {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == command {
            return Some(first::code(status));
        }
    }
    None
}
