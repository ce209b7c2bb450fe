//! What is done while nothing changes: checks, and nothing else.

use std::time::Duration;

use trellis_benches::{
    Error,
    counters::{processor, written},
    figures::Figure,
    site::Site,
};

use crate::{
    crowd::{Crowd, lead, ratio},
    operated::Operated,
    upstream::Upstream,
};

/// How long nothing may have been written before: Events follow the status, and files that went are looked for once.
const SETTLED: Duration = Duration::from_secs(2);
/// What belongs to sources; nobody else writes any here.
const THEIRS: [&str; 3] = ["externalsources", "externalartifacts", "events"];

/// With so many sources, for so many seconds.
pub(crate) async fn figures(site: &Site, upstream: &Upstream, size: usize, window: u64) -> Result<Vec<Figure>, Error> {
    let operated = Operated::start(site, false).await?;
    lead(site, upstream, "rest-first").await?;
    let crowd = Crowd::new(site, "rest", size, upstream.url("now")).await?;
    crowd.operated().await?;
    let mut before = written(&site.admin(), &THEIRS).await?;
    loop {
        tokio::time::sleep(SETTLED).await;
        let now = written(&site.admin(), &THEIRS).await?;
        if now - before < 0.5 {
            break;
        }
        before = now;
    }
    let process = operated.operator.pid().to_string();
    let (asked, took) = (upstream.counted().await?, processor(&process)?);
    tokio::time::sleep(Duration::from_secs(window)).await;
    let (now, took) = (upstream.counted().await?, processor(&process)? - took);
    let writes = written(&site.admin(), &THEIRS).await? - before;
    let checks = now.requests - asked.requests;
    // The counters themselves are asked for over a connection of their own.
    let connections = (now.connections - asked.connections).saturating_sub(1);
    let resident = megabytes(operated.operator.memory()?);
    crowd.delete().await?;
    operated.end().await;
    let each = ratio(checks, 1);
    let per_second = if took > 0.0 { each / took } else { 0.0 };
    let title = format!("{size} sources at rest, {window} s: API writes");
    Ok(vec![
        Figure::new(title, writes, "").at_most(0.0),
        Figure::new("checks in that time", each, ""),
        Figure::new("connections opened for them", ratio(connections, 1), ""),
        Figure::new("checks per second of the operator's processor", per_second, "/s"),
        Figure::new("resident memory then", resident, "MB"),
    ])
}

#[expect(clippy::cast_precision_loss, reason = "kilobytes suffice")]
pub(crate) fn megabytes(bytes: u64) -> f64 {
    (bytes / 1000) as f64 / 1000.0
}
