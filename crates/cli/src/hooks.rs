//! `trellis hooks`: the sidecar that runs the hooks of sources; `trellis hooks lint`: what is wrong with its whitelist.
//!
//! ```text
//!  flags ─▶ Settings ─────────────────▶ Sidecar ─▶ until SIGTERM: every run and whatever it started has ended
//!  whitelist ─▶ Reload ─▶ rules::Rules ──▶ Allow ┘
//! ```
//!
//! Invariants: it listens on a socket file or, with a token, on loopback; without a whitelist that was good once, nothing
//! may run; the inner steps (`hooks-step`) are taken by `main` before any thread is there.

mod lint;
mod rules;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::LazyLock,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use trellis_hooks::{Limits, Listen, Network, Settings, Sidecar, Token, check_passed, parse_duration};
use trellis_runtime::{shutdown, telemetry};

use crate::operator::Log;

/// The hidden first argument by which this program is started again as an inner step.
pub(crate) const STEP: &str = "hooks-step";
/// Where the socket file is when nobody says otherwise.
const SOCKET: &str = "/run/trellis/hooks.sock";
/// Largest file with a token, in bytes.
const TOKEN_LIMIT: u64 = 4096;

/// What the sidecar does unless it is told otherwise.
static DEFAULTS: LazyLock<Settings> = LazyLock::new(|| Settings::new(Listen::Socket(SOCKET.into()), [STEP]));

/// Arguments of `trellis hooks`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    // Much more than the arguments of any other command.
    #[command(flatten)]
    serve: Box<Serve>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Say what is wrong or risky in a whitelist
    Lint(lint::Args),
}

/// Where it listens, what may run, and how much a run may take.
#[derive(clap::Args)]
struct Serve {
    /// Socket file that is shared with the operator's container
    #[arg(long, default_value = SOCKET, value_name = "FILE")]
    socket: PathBuf,
    /// Listen on this port of 127.0.0.1 instead, 8081 when none is named; every request then needs the token
    #[arg(
        long,
        num_args = 0..=1,
        default_missing_value = "8081",
        conflicts_with = "socket",
        requires = "token_file",
        value_name = "PORT"
    )]
    port: Option<u16>,
    /// File with the token that requests to the port must carry
    #[arg(long, env = "HOOK_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// What may run; read again whenever it changes
    #[arg(
        long,
        env = "HOOK_WHITELIST_PATH",
        default_value = "/etc/hooks/whitelist.yaml",
        value_name = "FILE"
    )]
    whitelist: PathBuf,
    /// Directories in which commands without a path are looked for; default: /usr/local/bin, /usr/bin, /bin
    #[arg(long, value_delimiter = ',', value_name = "DIRS")]
    path: Vec<PathBuf>,
    /// Where each run has a directory of its own; default: the system's temporary folder
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Where every run may write beside its own directory, such as a cache; default: nowhere
    #[arg(long, value_delimiter = ',', value_name = "DIRS")]
    writable: Vec<PathBuf>,
    /// Variables of this process that every run gets; default: none
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pass: Vec<String>,
    /// Whether runs may reach the network; off refuses to start where the kernel cannot keep it off
    #[arg(long, value_enum, default_value_t = Reach::OffWherePossible, value_name = "WHETHER")]
    network: Reach,
    /// Runs at the same time
    #[arg(long, default_value_t = DEFAULTS.at_once, value_name = "N")]
    at_once: usize,
    /// Runs that may wait for their turn; more are refused
    #[arg(long, default_value_t = DEFAULTS.queue, value_name = "N")]
    queue: usize,
    /// How long each of them waits; default: 30s
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    patience: Option<Duration>,
    /// Timeout of a request that names none; default: 30s
    #[arg(long, env = "HOOK_DEFAULT_TIMEOUT", value_parser = parse_duration, value_name = "DURATION")]
    default_timeout: Option<Duration>,
    #[command(flatten)]
    limits: RunLimits,
    /// Form of the log lines
    #[arg(long, default_value = "json", value_name = "FORM")]
    log: Log,
}

/// How much one run may take.
#[derive(clap::Args)]
struct RunLimits {
    /// Seconds of processor time of each process of a run
    #[arg(long = "limit-cpu-seconds", default_value_t = DEFAULTS.limits.cpu_seconds, value_name = "SECONDS")]
    cpu_seconds: u64,
    /// Address space of each process of a run
    #[arg(long = "limit-memory", default_value_t = DEFAULTS.limits.memory, value_name = "BYTES")]
    memory: u64,
    /// Open files of each process of a run
    #[arg(long = "limit-files", default_value_t = DEFAULTS.limits.files, value_name = "N")]
    files: u64,
    /// Size of each file that a run writes, and of all of them together
    #[arg(long = "limit-file-size", default_value_t = DEFAULTS.limits.file_size, value_name = "BYTES")]
    file_size: u64,
    /// Processes of a run
    #[arg(long = "limit-processes", default_value_t = DEFAULTS.limits.processes, value_name = "N")]
    processes: u32,
    /// Processes of this user id on the node, where a run cannot be counted by itself
    #[arg(long = "limit-user-processes", default_value_t = DEFAULTS.limits.user_processes, value_name = "N")]
    user_processes: u32,
    /// Standard input of a streamed run
    #[arg(long = "limit-stdin", default_value_t = DEFAULTS.limits.stdin, value_name = "BYTES")]
    stdin: u64,
    /// Standard output of a streamed run
    #[arg(long = "limit-stdout", default_value_t = DEFAULTS.limits.stdout, value_name = "BYTES")]
    stdout: u64,
    /// Standard error of a run
    #[arg(long = "limit-stderr", default_value_t = DEFAULTS.limits.stderr, value_name = "BYTES")]
    stderr: u64,
}

/// Whether runs may reach the network.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Reach {
    Off,
    OffWherePossible,
    On,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(Command::Lint(args)) => lint::run(&args),
        None => serve(*args.serve),
    }
}

fn serve(args: Serve) -> anyhow::Result<ExitCode> {
    let (format, whitelist) = (args.log.format(), args.whitelist.clone());
    let settings = args.settings()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let _telemetry = telemetry::init(format, None)?;
        let stop = shutdown::token()?;
        let rules = rules::Rules::follow(&whitelist)?;
        Sidecar::bind(settings, rules).await?.serve(stop).await;
        Ok(ExitCode::SUCCESS)
    })
}

impl Serve {
    fn settings(self) -> anyhow::Result<Settings> {
        let hidden = self.port.and(self.token_file.clone());
        let listen = match (self.port, &self.token_file) {
            (None, _) => Listen::Socket(self.socket),
            (Some(_), None) => bail!("--port needs --token-file"),
            (Some(port), Some(file)) => Listen::Loopback {
                port,
                token: token(file)?,
            },
        };
        let mut settings = Settings::new(listen, [STEP]);
        if !self.path.is_empty() {
            if let Some(relative) = self.path.iter().find(|folder| !folder.is_absolute()) {
                bail!("--path has {}, which is no absolute path", relative.display());
            }
            settings.path = self.path;
        }
        if let Some(work) = self.work {
            settings.work = work;
        }
        if let Some(relative) = self.writable.iter().find(|folder| !folder.is_absolute()) {
            bail!("--writable has {}, which is no absolute path", relative.display());
        }
        settings.writable = self.writable;
        settings.hidden = hidden.into_iter().collect();
        settings.passed = passed(self.pass)?;
        settings.network = match self.network {
            Reach::Off => Network::Off,
            Reach::OffWherePossible => Network::OffWherePossible,
            Reach::On => Network::On,
        };
        if self.at_once == 0 {
            bail!("--at-once=0 would run nothing");
        }
        (settings.at_once, settings.queue) = (self.at_once, self.queue);
        settings.patience = self.patience.unwrap_or(settings.patience);
        settings.default_timeout = self.default_timeout.unwrap_or(settings.default_timeout);
        settings.limits = self.limits.limits();
        Ok(settings)
    }
}

impl RunLimits {
    fn limits(self) -> Limits {
        Limits {
            cpu_seconds: self.cpu_seconds,
            memory: self.memory,
            files: self.files,
            file_size: self.file_size,
            processes: self.processes,
            user_processes: self.user_processes,
            stdin: self.stdin,
            stdout: self.stdout,
            stderr: self.stderr,
        }
    }
}

/// The token in a file. What is in the file is in no message.
pub(crate) fn token(file: &Path) -> anyhow::Result<Token> {
    let mut text = String::new();
    let read = fs::File::open(file).and_then(|opened| opened.take(TOKEN_LIMIT + 1).read_to_string(&mut text));
    let read = read.with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(
        u64::try_from(read).is_ok_and(|read| read <= TOKEN_LIMIT),
        "{} is no file with a token: it has more than {TOKEN_LIMIT} bytes",
        file.display()
    );
    Token::new(&text).with_context(|| format!("{} holds no token", file.display()))
}

/// The variables of this process by these names; one that is not set is left out.
fn passed(names: Vec<String>) -> anyhow::Result<BTreeMap<String, OsString>> {
    let mut passed = BTreeMap::new();
    for name in names {
        let value = std::env::var_os(&name).unwrap_or_default();
        check_passed(&name, &value.to_string_lossy()).map_err(|error| anyhow!("--pass: {error}"))?;
        if !value.is_empty() {
            passed.insert(name, value);
        }
    }
    Ok(passed)
}

#[cfg(test)]
mod tests;
