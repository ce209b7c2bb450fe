//! From a request to reconcile to its answer, with few and with many sources. The limit is a bare client that does the
//! same with an object that nobody reconciles: a write, a request to upstream, a write, each write seen by a watch.

use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
    runtime::watcher,
};
use serde_json::json;
use trellis_api::{ExternalSource, external_source::REQUESTED_AT};
use trellis_benches::{
    Error,
    figures::{Figure, at, milliseconds},
    site::Site,
};

use crate::{
    crowd::{Crowd, PATIENCE, lead},
    operated::Operated,
    upstream::{ETAG, Upstream, asked, bare},
};

/// For each count of sources.
pub(crate) async fn figures(
    site: &Site,
    upstream: &Upstream,
    counts: &[usize],
    changes: usize,
) -> Result<Vec<Figure>, Error> {
    let mut figures = Vec::new();
    let operated = Operated::start(site, false).await?;
    lead(site, upstream, "change-first").await?;
    for count in counts {
        let crowd = Crowd::new(site, &format!("change-{count}"), *count, upstream.url("now")).await?;
        crowd.operated().await?;
        let ours = milliseconds(&answered(&crowd, *count, changes).await?);
        let raw = milliseconds(&bare_changes(site, upstream, changes).await?);
        crowd.delete().await?;
        for (name, share) in [("median", 0.5), ("p99", 0.99)] {
            let title = format!("one check with {count} sources, {name}, ÷ a bare client");
            let (ours, raw) = (at(&ours, share), at(&raw, share));
            let figure = Figure::new(title, ours / raw, "");
            figures.push(figure.of("operator ms", &[ours]).of("bare client ms", &[raw]));
        }
    }
    operated.end().await;
    Ok(figures)
}

/// The next object that a watch shows and that is as wanted.
async fn shown<T>(
    watch: &mut (impl Stream<Item = Result<watcher::Event<T>, watcher::Error>> + Unpin),
    is: impl Fn(&T) -> bool,
) -> Result<(), Error> {
    let seen = async {
        while let Some(event) = watch.try_next().await? {
            if let watcher::Event::Apply(object) | watcher::Event::InitApply(object) = event
                && is(&object)
            {
                return Ok(());
            }
        }
        Err("the watch ended".into())
    };
    tokio::time::timeout(PATIENCE, seen).await?
}

/// One after another, from the request sent until a watch shows its echo.
async fn answered(crowd: &Crowd, count: usize, changes: usize) -> Result<Vec<Duration>, Error> {
    let sources = crowd.sources();
    let mut watch = watcher(sources.clone(), watcher::Config::default()).boxed();
    while !matches!(watch.try_next().await?, Some(watcher::Event::InitDone)) {}
    let mut times = Vec::with_capacity(changes);
    for change in 0..changes {
        let (name, word) = (format!("source-{}", change % count), format!("change-{change}"));
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { REQUESTED_AT: word } } }));
        let began = Instant::now();
        sources.patch_metadata(&name, &PatchParams::default(), &patch).await?;
        let handled = |source: &ExternalSource| {
            let status = source.status.as_ref();
            source.name_any() == name
                && status.is_some_and(|status| status.common.last_handled_reconcile_at.as_deref() == Some(&word))
        };
        shown(&mut watch, handled).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

async fn bare_changes(site: &Site, upstream: &Upstream, changes: usize) -> Result<Vec<Duration>, Error> {
    let (maps, http): (Api<ConfigMap>, _) = (Api::namespaced(site.admin(), "default"), bare());
    let name = "bare";
    let map: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
    if maps.get_opt(name).await?.is_none() {
        maps.create(&PostParams::default(), &map).await?;
    }
    let only = watcher::Config::default().fields("metadata.name=bare");
    let mut watch = watcher(maps.clone(), only).boxed();
    while !matches!(watch.try_next().await?, Some(watcher::Event::InitDone)) {}
    let mut times = Vec::with_capacity(changes);
    for change in 0..changes {
        let began = Instant::now();
        for (key, ask) in [("asked", true), ("answered", false)] {
            let word = format!("{key}-{change}-{changes}");
            let patch = Patch::Merge(json!({ "data": { key: word } }));
            maps.patch(name, &PatchParams::default(), &patch).await?;
            let has = |map: &ConfigMap| map.data.as_ref().and_then(|data| data.get(key)) == Some(&word);
            shown(&mut watch, has).await?;
            if ask {
                asked(&http, &upstream.url("now/bare.yaml"), Some(ETAG)).await?;
            }
        }
        times.push(began.elapsed());
    }
    Ok(times)
}
