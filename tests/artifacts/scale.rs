//! Many sources at once: one request for each, nothing at rest, few connections, and a storm of failures that stays small.

use std::collections::BTreeMap;

use futures::future::join_all;
use kube::{ResourceExt as _, api::ListParams};
use serde_json::json;
use trellis_api::{
    ExternalSource,
    external_source::{FETCHING, STORING},
};
use trellis_bindings::flux::ExternalArtifact;
use trellis_testkit::{Verb, eventually, record::Place};

use crate::{
    archive::{config_map, sha256},
    site::{Setup, Site, said},
};

/// How many there are.
const MANY: usize = 120;
/// Most rounds at once, and so most requests.
const AT_ONCE: usize = 64;

fn name(index: usize) -> String {
    format!("source-{index}")
}

/// The controller with an address for its files that is the same after every start.
fn setup() -> Setup {
    Setup {
        change: |settings| "http://artifacts.test".clone_into(&mut settings.base),
        ..Setup::default()
    }
}

/// Creates or changes one of them. Its data lies at `destination`.
async fn source(site: &Site, index: usize, destination: &str) {
    let name = name(index);
    let more = json!({ "destinationPath": destination });
    site.source(&name, &format!("{name}.yaml"), more).await;
}

async fn all(site: &Site) -> Vec<ExternalSource> {
    site.namespace.api().list(&ListParams::default()).await.unwrap().items
}

/// Waits until all of them are as they should be.
async fn all_are(site: &Site, what: &str, is: impl Fn(&ExternalSource) -> bool) -> Vec<ExternalSource> {
    eventually(&format!("{MANY} sources are {what}"), async || {
        let found = all(site).await;
        let left: Vec<_> = found.iter().filter(|source| !is(source)).collect();
        if found.len() == MANY && left.is_empty() {
            return Ok(found);
        }
        let first = left.first().map(|source| (source.name_any(), said(source, "Ready")));
        Err(format!("{} of {} are not, such as {first:?}", left.len(), found.len()))
    })
    .await
}

fn is_ready(source: &ExternalSource) -> bool {
    let conditions = source.status.iter().flat_map(|status| &status.common.conditions);
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready.any(|ready| ready.observed_generation == source.metadata.generation)
}

/// What the controller wrote after this place, by resource, but for what it told of work that took long on a busy machine.
fn written(site: &Site, after: Place) -> BTreeMap<String, usize> {
    let mut written = BTreeMap::new();
    for call in site.recording.since(after) {
        let body = String::from_utf8_lossy(&call.body);
        let slow = [FETCHING, STORING]
            .iter()
            .any(|word| body.contains(&format!("\"{word}\"")));
        if Verb::WRITES.contains(&call.info.verb) && !slow {
            *written.entry(call.info.resource).or_default() += 1;
        }
    }
    written
}

/// Every artifact that is published is stored, at its digest.
async fn are_stored(site: &Site) {
    let published = site
        .namespace
        .api::<ExternalArtifact>()
        .list(&ListParams::default())
        .await
        .unwrap();
    assert_eq!(published.items.len(), MANY);
    for found in published.items {
        let artifact = found.status.unwrap().artifact.unwrap();
        let bytes = std::fs::read(site.storage.path().join(&artifact.path)).unwrap();
        assert_eq!(format!("sha256:{}", sha256(&bytes)), artifact.digest);
    }
}

/// From creation to Ready each costs upstream one request and the API server seven writes. Checks that find nothing new, as
/// many as in several intervals, write nothing, and share connections.
#[tokio::test(flavor = "multi_thread")]
async fn many_sources_cost_one_request_each_and_nothing_at_rest() {
    let mut site = Site::with("many", setup()).await;
    site.upstream.serves("1", config_map("one", "number", "1"));
    join_all((0..MANY).map(|index| source(&site, index, "app.yaml"))).await;
    all_are(&site, "Ready", is_ready).await;
    let each = site.upstream.each_after(0);
    assert_eq!(each.len(), MANY);
    assert!(each.values().all(|times| *times == 1), "{each:?}");
    assert!(
        site.upstream.connections() <= AT_ONCE,
        "{}",
        site.upstream.connections()
    );
    let events = trellis_testkit::calls().resource("events");
    site.recording.ended(&events, 2 * MANY).await;
    let per_source = [
        // Of the source, and of its artifact.
        ("events", 2 * MANY),
        ("externalartifacts", MANY),
        ("externalartifacts/status", MANY),
        ("externalsources", MANY),
        // Before the artifact, which it is to be found by, and after it.
        ("externalsources/status", 2 * MANY),
    ];
    let per_source: BTreeMap<_, _> = per_source.map(|(resource, times)| (resource.to_owned(), times)).into();
    assert_eq!(written(&site, Place::default()), per_source);
    are_stored(&site).await;

    // A new process checks each: an interval's worth of checks at once.
    for _ in 0..3 {
        site.stop().await;
        let (place, asked, connected) = (
            site.recording.place(),
            site.upstream.told().len(),
            site.upstream.connections(),
        );
        site.launch(setup()).await;
        site.upstream.asked(asked + MANY).await;
        // One after another they find a connection that is kept. The echo of the request is what is written.
        let warm = site.upstream.connections();
        for index in 0..10 {
            let word = format!("after {asked}");
            site.request(&name(index), &word).await;
            site.handled(&name(index), &word).await;
        }
        assert_eq!(site.upstream.connections(), warm);
        assert!(warm - connected <= AT_ONCE, "{}", warm - connected);
        assert_eq!(site.upstream.told()[asked..], [304; MANY + 10]);
        assert_eq!(
            written(&site, place),
            BTreeMap::from([("externalsources/status".to_owned(), 10)])
        );
    }
}

/// Whatever happens to many at once, all come to what upstream has and the spec says.
#[tokio::test(flavor = "multi_thread")]
async fn many_changes_at_once_come_to_one_end() {
    let site = Site::with("stress", setup()).await;
    site.upstream.serves("1", config_map("one", "number", "1"));
    let create = join_all((0..MANY).map(|index| source(&site, index, "app.yaml")));
    // While they come up, upstream changes and users do what they do.
    let disturb = async {
        site.upstream.asked(MANY / 4).await;
        site.upstream.serves("2", config_map("one", "number", "2"));
    };
    tokio::join!(create, disturb);
    let change = |index: usize| {
        let site = &site;
        async move {
            let name = name(index);
            match index % 4 {
                0 => site.request(&name, "now").await,
                1 => source(site, index, "other/app.yaml").await,
                2 => {
                    site.namespace.delete::<ExternalSource>(&name).await.unwrap();
                    site.namespace.gone::<ExternalSource>(&name).await;
                    source(site, index, "app.yaml").await;
                }
                _ => {
                    site.published(&name, "").await;
                    site.namespace.delete::<ExternalArtifact>(&name).await.unwrap();
                    site.request(&name, "now").await;
                }
            }
        }
    };
    join_all((0..MANY).map(change)).await;
    // What was asked before upstream changed is asked again.
    let ask = |index: usize| {
        let site = &site;
        async move {
            site.request(&name(index), "last").await;
            site.handled(&name(index), "last").await;
        }
    };
    join_all((0..MANY).map(ask)).await;
    let sources = all_are(&site, "Ready", is_ready).await;
    let mut revisions = BTreeMap::<_, usize>::new();
    for source in sources {
        let moved = source.spec.destination_path == Some("other/app.yaml".to_owned());
        let artifact = source.status.unwrap().artifact.unwrap();
        *revisions.entry((moved, artifact.revision)).or_default() += 1;
    }
    let counts: Vec<_> = revisions.iter().map(|((moved, _), times)| (*moved, *times)).collect();
    assert_eq!(counts, [(false, MANY * 3 / 4), (true, MANY / 4)], "{revisions:?}");
    are_stored(&site).await;
}

/// While upstream fails for all, each asks it as often as its backoff says and writes once for each try; afterwards all
/// are Ready by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_failures_is_bounded_and_passes() {
    let site = Site::with("storm", setup()).await;
    site.upstream.serves("1", config_map("one", "number", "1"));
    join_all((0..MANY).map(|index| source(&site, index, "app.yaml"))).await;
    all_are(&site, "Ready", is_ready).await;
    let events = trellis_testkit::calls().resource("events");
    site.recording.ended(&events, 2 * MANY).await;

    site.upstream.fails(500);
    let (asked, place) = (site.upstream.told().len(), site.recording.place());
    join_all((0..MANY).map(|index| {
        let site = &site;
        async move { site.request(&name(index), "storm").await }
    }))
    .await;
    let failures = |source: &ExternalSource| source.status.as_ref().map_or(0, |status| status.failures);
    all_are(&site, "failing for the third time", |source| failures(source) >= 3).await;
    let each = site.upstream.each_after(asked);
    // A list is of one moment, requests go on.
    for source in all(&site).await {
        let times = each[&format!("/{}.yaml", source.name_any())];
        let failures = usize::try_from(failures(&source)).unwrap();
        assert!(
            times <= failures + 1,
            "{}: {times} requests, {failures} failures",
            source.name_any()
        );
    }
    let tries = site.upstream.told().len() - asked;
    assert!(tries <= 5 * MANY, "{tries}");
    let statuses = written(&site, place);
    let statuses: usize = statuses
        .iter()
        .filter(|(of, _)| *of != "events")
        .map(|(_, times)| times)
        .sum();
    assert!(statuses <= tries, "{statuses} writes for {tries} tries");

    site.upstream.serves("2", config_map("one", "number", "2"));
    all_are(&site, "Ready again", is_ready).await;
    are_stored(&site).await;
}
