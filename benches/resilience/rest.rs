//! What is written when there is nothing to do.

use std::time::Duration;

use trellis_benches::{
    Error,
    counters::{sum, written},
    figures::Figure,
    site::Site,
};
use trellis_testkit::operator::Operator;

/// How long it is watched.
const WINDOW: Duration = Duration::from_secs(10);
/// How long nothing may have been counted before: the last Events follow the last status.
const SETTLED: Duration = Duration::from_secs(1);

/// Writes of policies, Services and Events, as the API server counts them: nobody else writes any here. The operator
/// counts its own.
pub(crate) async fn figures(site: &Site, operator: &Operator) -> Result<Vec<Figure>, Error> {
    let mut before = server(site).await?;
    loop {
        tokio::time::sleep(SETTLED).await;
        let now = server(site).await?;
        if now - before < 0.5 {
            break;
        }
        before = now;
    }
    let own = owned(operator).await?;
    tokio::time::sleep(WINDOW).await;
    let (server, own) = (server(site).await? - before, owned(operator).await? - own);
    let seconds = WINDOW.as_secs();
    Ok(vec![
        Figure::new(
            format!("writes in {seconds} s at rest, as the API server counts"),
            server,
            "",
        )
        .at_most(0.0),
        Figure::new("as the operator counts", own, "").at_most(0.0),
    ])
}

async fn server(site: &Site) -> Result<f64, Error> {
    written(&site.admin(), &["resiliencepolicies", "services", "events"]).await
}

async fn owned(operator: &Operator) -> Result<f64, Error> {
    let (_, text) = operator.get("/metrics").await?;
    Ok(sum(text
        .lines()
        .filter(|line| line.starts_with("resilience_operator_writes_total{"))))
}
