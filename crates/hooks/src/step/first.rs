//! `first`: sets its own limits, closes its fence, starts the command, and ends with it. In a PID namespace it is process 1.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus, getrlimit, set_parent_process_death_signal, setrlimit, wait,
};
use serde::{Deserialize, Serialize};

use super::{CANNOT_START, Fence, NOT_FOUND, broken, fence};
use crate::Limits;

/// What `first` is asked to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) limits: Limits,
    /// Whether the kernel counts the processes of this run apart from all others of the same user.
    pub(super) counted_apart: bool,
    /// `None` where the kernel has no fences.
    pub(super) fence: Option<Fence>,
}

pub(super) fn run(order: &Order, program: &OsStr, args: impl Iterator<Item = OsString>) -> ExitCode {
    if let Err(error) = limit(order) {
        return broken(&format!("cannot set the limits of the run: {error}"));
    }
    if let Some(fence) = &order.fence
        && let Err(error) = fence::close(fence, program)
    {
        return broken(&error);
    }
    let child = match Command::new(program).args(args).process_group(0).spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("cannot start {}: {error}", program.display());
            let missing = error.kind() == io::ErrorKind::NotFound;
            return ExitCode::from(if missing { NOT_FOUND } else { CANNOT_START });
        }
    };
    let_go();
    let Some(command) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        return broken("the process id is not one");
    };
    loop {
        // Orphans of the run are reaped on the way.
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == command => return ExitCode::from(code(status)),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return broken(&format!("cannot wait for the command: {error}")),
        }
    }
}

fn limit(order: &Order) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::thread::set_no_new_privs(true)?;
    let limits = &order.limits;
    set(Resource::Core, 0)?;
    // One second more until SIGKILL, for a command that ignores SIGXCPU.
    let cpu = Rlimit {
        current: Some(limits.cpu_seconds),
        maximum: Some(limits.cpu_seconds.saturating_add(1)),
    };
    setrlimit(Resource::Cpu, cpu)?;
    set(Resource::Nofile, limits.files)?;
    set(Resource::Fsize, limits.file_size)?;
    // Apart, this step is one of them.
    let processes = if order.counted_apart {
        limits.processes.saturating_add(1)
    } else {
        limits.user_processes
    };
    set(Resource::Nproc, u64::from(processes))?;
    set(Resource::As, limits.memory)
}

/// At most this; a lower limit that the sidecar itself has stays.
fn set(resource: Resource, most: u64) -> io::Result<()> {
    let most = getrlimit(resource)
        .maximum
        .map_or(most, |inherited| inherited.min(most));
    Ok(setrlimit(
        resource,
        Rlimit {
            current: Some(most),
            maximum: Some(most),
        },
    )?)
}

/// Lets go of the streams, so that the other ends see what the command does with them.
pub(super) fn let_go() {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

/// The exit code as shells say it: 128 + signal for a process that a signal ended.
pub(super) fn code(status: WaitStatus) -> u8 {
    let code = status
        .exit_status()
        .or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
