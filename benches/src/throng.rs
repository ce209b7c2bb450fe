//! Many objects of one kind: until all of them are Ready, and until all of them are gone.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams},
    runtime::{
        wait::{await_condition, conditions::is_deleted},
        watcher,
    },
};
use serde::de::DeserializeOwned;

use crate::Error;

/// The time from the beginning of `work` until a watch has shown that `size` objects are Ready.
///
/// # Errors
/// That of the work or of the watch, and when they are not all Ready within `patience`.
pub async fn until_ready<K>(
    objects: Api<K>,
    size: usize,
    is_ready: impl Fn(&K) -> bool,
    work: impl Future<Output = Result<(), Error>>,
    patience: Duration,
) -> Result<Duration, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut watch = watcher(objects, watcher::Config::default()).boxed();
    while !matches!(watch.try_next().await?, Some(watcher::Event::InitDone)) {}
    let began = Instant::now();
    let all_ready = async {
        let mut ready = BTreeSet::new();
        while ready.len() < size {
            if let Some(watcher::Event::Apply(object)) = watch.try_next().await?
                && is_ready(&object)
            {
                ready.insert(object.name_any());
            }
        }
        Ok::<_, Error>(began.elapsed())
    };
    let done = tokio::time::timeout(patience, futures::future::try_join(work, all_ready)).await;
    match done {
        Ok(done) => Ok(done?.1),
        Err(_) => Err(format!("not every {} was Ready within {patience:?}", K::kind(&())).into()),
    }
}

/// Deletes every object and then its namespace; the operator lets the objects go.
///
/// # Errors
/// That of the API server, and when they are not gone within `patience`.
pub async fn until_gone<K>(objects: &Api<K>, client: &Client, namespace: &str, patience: Duration) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let _ = objects
        .delete_collection(&DeleteParams::default(), &ListParams::default())
        .await?;
    tokio::time::timeout(patience, async {
        while !objects
            .list_metadata(&ListParams::default().limit(1))
            .await?
            .items
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let gone = namespaces.delete(namespace, &DeleteParams::default()).await?;
        let uid = gone.left().and_then(|namespace| namespace.uid()).unwrap_or_default();
        await_condition(namespaces, namespace, is_deleted(&uid)).await?;
        Ok(())
    })
    .await?
}
