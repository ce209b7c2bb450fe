//! When a term begins and every hour: stored files of sources that are no more, which nobody would ever remove.
//!
//! ```text
//!  every file (path, age) ─┐
//!  every source served ────┴─▶ orphans: of namespaces that are served, older than an hour ─▶ removed
//! ```
//!
//! A deleted source takes its files along; orphans are what a finalizer that was removed by hand leaves behind, or a
//! namespace that was deleted while the storage was away.
//!
//! Invariant: a file of a source that there is stays, and so does one of a namespace that this operator does not serve.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    time::{Duration, SystemTime},
};

use futures::TryStreamExt as _;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PartialObjectMeta},
};
use trellis_api::ExternalSource;
use trellis_sources::{retention, revision::ROOT};
use trellis_store::{Key, Prefix, Storage, garbage};

/// A source that was made while the sweep looked has no file as old as this.
const OLD: Duration = Duration::from_hours(1);
/// How many sources are listed at once.
const PAGE: u32 = 500;

/// The sweep could not look.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Sources cannot be listed.
    #[error(transparent)]
    List(#[from] kube::Error),
    /// Stored files cannot be listed or removed.
    #[error(transparent)]
    Storage(#[from] trellis_store::Error),
}

/// Sweeps now and every hour, whether or not that succeeds.
pub(super) async fn hourly<F>(sweep: impl Fn() -> F) -> Infallible
where
    F: Future<Output = Result<usize, Error>>,
{
    loop {
        match sweep().await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed stored files of sources that are no more"),
            Err(error) => tracing::warn!(%error, "stored files of former sources were not looked for"),
        }
        tokio::time::sleep(OLD).await;
    }
}

/// Removes the orphans, and says how many there were. Where it cannot look, nothing is removed.
pub(super) async fn sweep(storage: &dyn Storage, client: &Client, namespaces: &[String]) -> Result<usize, Error> {
    let old = files(storage, namespaces).await?;
    if old.is_empty() {
        return Ok(0);
    }
    // After the files: whoever has a file in the list is in this one, unless it is gone.
    let owners = owners(client, namespaces).await?;
    let orphans = retention::orphans(old.iter().map(String::as_str), &owners);
    let keys: Vec<Key> = orphans
        .iter()
        .filter_map(|path| path.to_string().parse().ok())
        .collect();
    let collected = garbage::collect(storage, keys).await;
    if let Some((_, error)) = collected.failures.into_iter().next() {
        return Err(error.into());
    }
    Ok(orphans.len())
}

/// The files that are old enough, of the namespaces that are served.
async fn files(storage: &dyn Storage, namespaces: &[String]) -> Result<Vec<String>, Error> {
    let now = SystemTime::now();
    let folders: Vec<Prefix> = if namespaces.is_empty() {
        ROOT.parse().into_iter().collect()
    } else {
        let folder = |namespace: &String| format!("{ROOT}/{namespace}").parse().ok();
        namespaces.iter().filter_map(folder).collect()
    };
    let mut old = Vec::new();
    for folder in folders {
        let mut entries = storage.list(&folder);
        while let Some(entry) = entries.try_next().await? {
            if now.duration_since(entry.stat.modified).is_ok_and(|age| age > OLD) {
                old.push(entry.key.to_string());
            }
        }
    }
    Ok(old)
}

/// Namespace and name of every source that is served.
async fn owners(client: &Client, namespaces: &[String]) -> Result<BTreeSet<(String, String)>, Error> {
    let apis: Vec<Api<PartialObjectMeta<ExternalSource>>> = if namespaces.is_empty() {
        vec![Api::all(client.clone())]
    } else {
        let within = |namespace: &String| Api::namespaced(client.clone(), namespace);
        namespaces.iter().map(within).collect()
    };
    let mut owners = BTreeSet::new();
    for api in apis {
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api.list(&params).await?;
            owners.extend(
                page.items
                    .iter()
                    .map(|source| (source.namespace().unwrap_or_default(), source.name_any())),
            );
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
    }
    Ok(owners)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn orphans_are_looked_for_every_hour_also_after_a_failure() {
        let sweeps = AtomicU64::new(0);
        let sweep = || {
            std::future::ready(match sweeps.fetch_add(1, Ordering::SeqCst) {
                0 => Err(Error::List(kube::Error::LinesCodecMaxLineLengthExceeded)),
                _ => Ok(1),
            })
        };
        let end = tokio::time::Instant::now() + 2 * OLD + OLD / 2;
        assert!(tokio::time::timeout_at(end, hourly(sweep)).await.is_err());
        assert_eq!(sweeps.load(Ordering::SeqCst), 3);
    }
}
