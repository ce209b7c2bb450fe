//! How upstreams are connected to.

use std::{num::NonZeroU32, time::Duration};

use anyhow::{Context as _, ensure};
use secrecy::SecretString;
use trellis_sources::failure::LONGEST_WAIT;

use super::{duration, variable};

#[derive(clap::Args)]
#[command(next_help_heading = "External sources: connections")]
pub(super) struct Http {
    /// How long an upstream may take until the headers of its answer
    #[arg(long = "http-timeout", id = "http-timeout", env = "HTTP_TIMEOUT", default_value = "30s", value_parser = duration, value_name = "DURATION")]
    timeout: Duration,
    /// Unused connections that are kept
    #[arg(
        long = "http-max-idle-conns",
        id = "http-max-idle-conns",
        env = "HTTP_MAX_IDLE_CONNS",
        default_value_t = 100,
        value_name = "NUMBER"
    )]
    max_idle_conns: usize,
    /// Unused connections that are kept to one host
    #[arg(
        long = "http-max-idle-conns-per-host",
        id = "http-max-idle-conns-per-host",
        env = "HTTP_MAX_IDLE_CONNS_PER_HOST",
        default_value_t = 10,
        value_name = "NUMBER"
    )]
    max_idle_conns_per_host: usize,
    /// Requests to one host at the same time
    #[arg(
        long = "http-max-conns-per-host",
        id = "http-max-conns-per-host",
        env = "HTTP_MAX_CONNS_PER_HOST",
        default_value_t = 100,
        value_name = "NUMBER"
    )]
    max_conns_per_host: u32,
    /// How long an unused connection is kept
    #[arg(long = "http-idle-conn-timeout", id = "http-idle-conn-timeout", env = "HTTP_IDLE_CONN_TIMEOUT", default_value = "90s", value_parser = duration, value_name = "DURATION")]
    idle_conn_timeout: Duration,
    /// Longest wait that an answer, such as 503 with Retry-After, can ask for; at most 1h
    #[arg(long = "http-longest-hold", id = "http-longest-hold", env = "HTTP_LONGEST_HOLD", default_value = "15m", value_parser = duration, value_name = "DURATION")]
    pub(super) longest_hold: Duration,
    /// Requests to one host in a minute, with bursts of a sixth of it; default: as many as come
    #[arg(
        long = "http-requests-per-minute",
        id = "http-requests-per-minute",
        env = "HTTP_REQUESTS_PER_MINUTE",
        value_name = "NUMBER"
    )]
    requests_per_minute: Option<NonZeroU32>,
    /// User-Agent of requests; default: trellis/VERSION
    #[arg(
        long = "http-user-agent",
        id = "http-user-agent",
        env = "HTTP_USER_AGENT",
        value_name = "TEXT"
    )]
    user_agent: Option<String>,
}

impl Http {
    pub(super) fn settings(self) -> anyhow::Result<trellis_fetch::Settings> {
        ensure!(self.longest_hold <= LONGEST_WAIT, "--http-longest-hold is at most 1h");
        let mut settings = trellis_fetch::Settings {
            longest_hold: self.longest_hold,
            pace: self.requests_per_minute.map(|per_minute| trellis_fetch::Pace {
                per_minute,
                burst: NonZeroU32::new(per_minute.get() / 6).unwrap_or(NonZeroU32::MIN),
            }),
            header_timeout: self.timeout,
            max_idle: self.max_idle_conns,
            max_idle_per_host: self.max_idle_conns_per_host,
            max_connections_per_host: self.max_conns_per_host,
            idle_connection_timeout: self.idle_conn_timeout,
            ..trellis_fetch::Settings::default()
        };
        if let Some(agent) = self.user_agent {
            settings.user_agent = agent;
        }
        let secret = |upper: &str, lower: &str| variable(upper).or_else(|| variable(lower)).map(SecretString::from);
        let exempt = variable("NO_PROXY")
            .or_else(|| variable("no_proxy"))
            .unwrap_or_default();
        settings.proxies = trellis_fetch::Proxies::parse(
            secret("HTTP_PROXY", "http_proxy").as_ref(),
            secret("HTTPS_PROXY", "https_proxy").as_ref(),
            &exempt,
        )
        .context("HTTP_PROXY or HTTPS_PROXY in the environment")?;
        Ok(settings)
    }
}
