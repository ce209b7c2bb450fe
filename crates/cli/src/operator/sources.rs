//! The flags of external sources, and the environment that says the same where no flag is given.
//!
//! Names of the environment are those that deployments of such controllers have (`S3_*`, `HTTP_*`, `RETRY_*`, `STORAGE_*`).
//! Credentials come from the environment alone: a flag is seen by everyone who lists processes.

mod bucket;
mod egress;
mod hooks;
mod http;

pub(crate) use egress::Egress;

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use clap::builder::BoolishValueParser;
use trellis_operator::external_source::{Backend, Options, Settings};
use trellis_sources::{egress::EgressPolicy, failure::Backoff, interval, retention::Retention};

/// What serves artifacts within a cluster, unless it is called otherwise.
const SERVICE: &str = "trellis-artifacts";

/// Flags of external sources.
#[derive(clap::Args)]
#[command(next_help_heading = "External sources")]
pub(crate) struct Sources {
    /// Where artifacts are kept
    #[arg(long, env = "STORAGE_BACKEND", default_value = "disk", value_name = "KIND")]
    storage_backend: Kind,
    /// Folder of backend disk; default: /data/artifacts
    #[arg(long, env = "STORAGE_PATH", value_name = "DIR")]
    storage_path: Option<PathBuf>,
    /// The folder is the same for every replica, so that each may serve it
    #[arg(long, env = "STORAGE_SHARED", value_parser = BoolishValueParser::new())]
    storage_shared: bool,
    /// Most bytes of all artifacts together in backend disk; default: as many as there is room for
    #[arg(long, env = "STORAGE_MAX_BYTES", value_name = "BYTES")]
    storage_max_bytes: Option<u64>,
    /// Most bytes of all artifacts together in backend memory
    #[arg(long, env = "STORAGE_MEMORY_BYTES", default_value_t = 256 << 20, value_name = "BYTES")]
    storage_memory: u64,
    /// Where artifacts are served; default: 0.0.0.0:9090
    #[arg(long, env = "STORAGE_ADDRESS", value_name = "ADDRESS")]
    storage_addr: Option<SocketAddr>,
    /// Host, and port if it is not 80, by which consumers reach them; default: trellis-artifacts.NAMESPACE.svc.DOMAIN.
    #[arg(long, env = "STORAGE_ADV_ADDR", value_name = "HOST[:PORT]")]
    storage_adv_addr: Option<String>,
    /// Folder for data on its way; default: the system's for temporary files
    #[arg(long, env = "SPOOL_PATH", value_name = "DIR")]
    spool_path: Option<PathBuf>,
    /// Most bytes of data on its way, of large sources together; what does not fit waits
    #[arg(long, env = "SPOOL_MAX_BYTES", default_value_t = 1 << 30, value_name = "BYTES")]
    spool_max_bytes: u64,
    /// How long an artifact stays that is no longer current
    #[arg(long, env = "ARTIFACT_RETENTION_TTL", default_value = "1m", value_parser = duration, value_name = "DURATION")]
    artifact_retention_ttl: Duration,
    /// How many artifacts of a source stay, the current one included
    #[arg(long, env = "ARTIFACT_RETENTION_RECORDS", default_value_t = 2, value_name = "NUMBER")]
    artifact_retention_records: usize,
    /// Most bytes that a source may ask for
    #[arg(long, env = "ARTIFACT_MAX_BYTES", default_value_t = 100 << 20, value_name = "BYTES")]
    artifact_max_bytes: u64,
    /// Let sources set insecureSkipVerify
    #[arg(long, env = "ALLOW_INSECURE_TLS", value_parser = BoolishValueParser::new())]
    allow_insecure_tls: bool,
    /// Where Flux's notification-controller takes events, such as <http://notification-controller.flux-system.svc.cluster.local./>
    #[arg(long, env = "EVENTS_ADDR", value_name = "URL")]
    events_addr: Option<trellis_runtime::notify::Address>,
    #[command(flatten)]
    hooks: hooks::Hooks,
    #[command(flatten)]
    bucket: bucket::S3,
    #[command(flatten)]
    egress: Egress,
    #[command(flatten)]
    http: http::Http,
    #[command(flatten)]
    retry: Retry,
}

#[derive(clap::Args)]
#[command(next_help_heading = "External sources: after failures")]
struct Retry {
    /// Failures in a row until it is left to the interval
    #[arg(
        long = "retry-max-attempts",
        id = "retry-max-attempts",
        env = "RETRY_MAX_ATTEMPTS",
        default_value_t = 10,
        value_name = "NUMBER"
    )]
    max_attempts: u32,
    /// Wait after the first failure; doubles with each further one
    #[arg(long = "retry-base-delay", id = "retry-base-delay", env = "RETRY_BASE_DELAY", default_value = "1s", value_parser = duration, value_name = "DURATION")]
    base_delay: Duration,
    /// Longest wait
    #[arg(long = "retry-max-delay", id = "retry-max-delay", env = "RETRY_MAX_DELAY", default_value = "5m", value_parser = duration, value_name = "DURATION")]
    max_delay: Duration,
    /// How far a wait may be shorter or longer, as a share of it: 0 to 1
    #[arg(
        long = "retry-jitter-factor",
        id = "retry-jitter-factor",
        env = "RETRY_JITTER_FACTOR",
        default_value_t = 0.25,
        value_name = "SHARE"
    )]
    jitter_factor: f64,
}

/// Where artifacts are kept.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// A folder, such as a mounted volume
    #[value(alias = "pvc")]
    Disk,
    /// This process
    Memory,
    /// A bucket of an S3-compatible service
    S3,
}

impl Sources {
    /// What they say, in a namespace of a cluster with this DNS domain.
    ///
    /// # Errors
    /// When they contradict each other, or the environment holds something unusable.
    pub(crate) fn options(self, namespace: &str, domain: &str) -> anyhow::Result<Options> {
        let backend = match self.storage_backend {
            Kind::Disk => Backend::Disk {
                path: self
                    .storage_path
                    .or_else(|| variable("PVC_STORAGE_PATH").map(PathBuf::from))
                    .unwrap_or_else(|| PathBuf::from("/data/artifacts")),
                shared: self.storage_shared,
                limit: self.storage_max_bytes,
            },
            Kind::Memory => Backend::Memory {
                limit: self.storage_memory,
            },
            Kind::S3 => Backend::S3(Box::new(self.bucket.settings()?)),
        };
        let port = || variable("ARTIFACT_SERVER_PORT").map(|text| text.parse::<u16>().context("ARTIFACT_SERVER_PORT"));
        let listen = match self.storage_addr {
            Some(address) => address,
            None => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port().transpose()?.unwrap_or(9090))),
        };
        let advertised = self.storage_adv_addr.unwrap_or_else(|| {
            let service = variable("SERVICE_NAME").unwrap_or_else(|| SERVICE.to_owned());
            format!("{service}.{namespace}.svc.{domain}.")
        });
        let authority: Result<::http::uri::Authority, _> = advertised.parse();
        ensure!(
            authority.is_ok_and(|authority| !authority.as_str().contains('@')),
            "--storage-adv-addr {advertised:?} is no HOST[:PORT]"
        );
        let spool = self.spool_path.unwrap_or_else(env::temp_dir);
        ensure!(
            spool.is_dir(),
            "--spool-path {} is no folder; create it",
            spool.display()
        );
        ensure!(
            (1..=1000).contains(&self.artifact_retention_records),
            "--artifact-retention-records is 1 to 1000"
        );
        let mut settings = Settings::new(format!("http://{advertised}"), spool);
        settings.spool_bytes = self.spool_max_bytes;
        settings.retention = Retention {
            ttl: self.artifact_retention_ttl,
            records: self.artifact_retention_records,
        };
        settings.allow_insecure_tls = self.allow_insecure_tls;
        settings.max_bytes = self.artifact_max_bytes;
        settings.backoff = self.retry.backoff(self.http.longest_hold)?;
        settings.hooks = self.hooks.settings()?;
        settings.events = self.events_addr;
        let mut fetch = self.http.settings()?;
        fetch.max_bytes = self.artifact_max_bytes;
        fetch.allow_unchecked = self.allow_insecure_tls;
        let egress = EgressPolicy {
            guarded: egress::guarded(variable),
            ..self.egress.policy()
        };
        Ok(Options {
            settings,
            fetch,
            egress,
            backend,
            listen,
        })
    }
}

impl Retry {
    fn backoff(self, patience: Duration) -> anyhow::Result<Backoff> {
        ensure!(
            (0.0..=1.0).contains(&self.jitter_factor),
            "--retry-jitter-factor is 0 to 1"
        );
        ensure!(self.max_attempts > 0, "--retry-max-attempts is 1 or more");
        ensure!(
            self.base_delay <= self.max_delay,
            "--retry-base-delay is more than --retry-max-delay"
        );
        Ok(Backoff {
            base: self.base_delay,
            max: self.max_delay,
            jitter: self.jitter_factor,
            patience,
            attempts: self.max_attempts,
        })
    }
}

/// A variable of the environment that says something.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// A duration as Kubernetes and Go write it (`90s`, `1m30s`), more than nothing.
fn duration(text: &str) -> Result<Duration, String> {
    let read = interval::duration(text).filter(|read| !read.is_zero());
    read.ok_or_else(|| "write it with its unit, such as 30s or 1m30s".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        sources: Sources,
    }

    fn options(words: &[&str]) -> anyhow::Result<Options> {
        let command = Command::try_parse_from(std::iter::once("trellis").chain(words.iter().copied()))?;
        command.sources.options("platform", "cluster.local")
    }

    #[test]
    fn without_a_flag_the_defaults_of_every_part_hold() {
        let options = options(&[]).unwrap();
        assert_eq!(
            options.settings.base,
            "http://trellis-artifacts.platform.svc.cluster.local."
        );
        assert_eq!(options.settings.backoff, Backoff::default());
        assert_eq!(options.settings.retention, Retention::default());
        let egress = EgressPolicy {
            guarded: egress::guarded(variable),
            ..EgressPolicy::default()
        };
        assert_eq!(options.egress, egress);
        let (told, default) = (options.fetch, trellis_fetch::Settings::default());
        assert_eq!(
            format!("{told:?}"),
            format!("{default:?}").replace("exempt: None", "exempt: Some")
        );
        assert!(matches!(
            options.backend,
            Backend::Disk {
                shared: false,
                limit: None,
                ..
            }
        ));
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_what_to_do() {
        for (words, told) in [
            (&["--storage-backend", "s3"][..], "--s3-bucket"),
            (&["--storage-backend", "floppy"], "disk"),
            (&["--storage-adv-addr", "http://host/path"], "HOST[:PORT]"),
            (&["--storage-adv-addr", "user@host"], "HOST[:PORT]"),
            (&["--spool-path", "/nowhere"], "create it"),
            (&["--s3-use-ssl", "perhaps"], "perhaps"),
            (
                &["--hook-endpoint", "http://hooks.example:8082"],
                "always in the same Pod",
            ),
            (
                &[
                    "--hook-endpoint",
                    "unix:///h.sock",
                    "--hook-whitelist",
                    "/nowhere/w.yaml",
                ],
                "/nowhere",
            ),
            (&["--retry-jitter-factor", "2"], "0 to 1"),
            (&["--retry-base-delay", "10m"], "--retry-max-delay"),
            (&["--http-timeout", "30"], "30s"),
            (&["--http-longest-hold", "2h"], "at most 1h"),
            (&["--egress-allow-cidr", "10.0.0.0/40"], "10.0.0.0/40"),
            (&["--egress-schemes", "ftp"], "https"),
            (&["--artifact-retention-records", "0"], "1 to 1000"),
        ] {
            let error = format!("{:#}", options(words).unwrap_err());
            assert!(error.contains(told), "{words:?}: {error}");
        }
    }

    #[test]
    fn patience_and_pace_reach_those_who_keep_them() {
        let options = options(&["--http-longest-hold=5m", "--http-requests-per-minute=60"]).unwrap();
        let five = Duration::from_mins(5);
        assert_eq!(
            (options.fetch.longest_hold, options.settings.backoff.patience),
            (five, five)
        );
        let pace = options.fetch.pace.unwrap();
        assert_eq!((pace.per_minute.get(), pace.burst.get()), (60, 10));
    }

    #[test]
    fn the_old_word_for_a_disk_is_understood() {
        let options = options(&[
            "--storage-backend=pvc",
            "--storage-path=/srv",
            "--storage-shared",
            "--storage-max-bytes=9",
        ])
        .unwrap();
        assert!(
            matches!(options.backend, Backend::Disk { path, shared: true, limit: Some(9) } if path.ends_with("srv"))
        );
    }
}
