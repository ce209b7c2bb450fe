//! The examples that `dev up` cannot show for want of Linkerd: applied to a real API server with the kinds of the Gateway
//! API and of Linkerd, and the shipped binary under its generated permissions.
//!
//! ```text
//!  examples/*/*/example.yaml with needs ─▶ applied as dev up would ─▶ Linkerd silent: the reason ─▶ it speaks: Ready
//! ```
//!
//! Where Linkerd would speak, a stand-in does: that its proxies act is not shown.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

#[path = "scopes/stand_in.rs"]
#[expect(dead_code, reason = "some of it only the tests of scopes need")]
mod stand_in;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use kube::{Api, ResourceExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use trellis_api::ResiliencePolicy;
use trellis_testkit::{
    eventually,
    plane::{Plane, Shared},
};

use stand_in::Linkerd;

static PLANE: Shared = Shared::new(|plane| {
    Box::pin(async move {
        trellis_tests::install(plane.clone()).await?;
        plane.apply(&trellis_bindings::gateway::crds()?).await?;
        plane.apply(&trellis_bindings::linkerd::policy::crds()).await
    })
});

/// What each policy says as long as Linkerd has said nothing: by example and name.
const SILENT: &[(&str, &str, &str)] = &[
    ("resilience-consumer", "ledger", "RoutePending"),
    ("resilience-egress", "partners", "EgressNetworkNotAccepted"),
    ("resilience-egress", "partners-reports", "EgressNetworkNotAccepted"),
    ("resilience-rate-limit", "checkout-limit", "RateLimitPending"),
    ("resilience-routes", "carts-reads", "RoutePending"),
    ("resilience-routes", "catalog-reads", "RoutePending"),
    ("resilience-routes", "refunds", "RoutePending"),
];

#[derive(Deserialize)]
struct About {
    needs: Vec<String>,
}

/// An example as `dev up` names it, with its manifests in order.
struct Example {
    name: String,
    manifests: Vec<Value>,
}

impl Example {
    /// Those that need Linkerd, in the order of their names. What needs Flux is shown by `dev up --with flux`.
    fn needy() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        let examples = sorted(&root).iter().flat_map(|group| sorted(group)).collect::<Vec<_>>();
        let needy = examples.iter().filter(|folder| {
            let about: About =
                serde_saphyr::from_str(&fs::read_to_string(folder.join("example.yaml")).unwrap()).unwrap();
            about.needs.iter().any(|need| need == "linkerd")
        });
        needy.map(|folder| Self::read(folder)).collect()
    }

    fn read(folder: &Path) -> Self {
        let part = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        let name = format!("{}-{}", part(folder.parent().unwrap()), part(folder));
        let mut manifests = vec![json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })];
        let files = sorted(folder);
        for file in files.iter().filter(|file| part(file) != "example.yaml") {
            let text = fs::read_to_string(file).unwrap();
            manifests.extend(serde_saphyr::from_multiple::<Value>(&text).unwrap());
        }
        for manifest in &mut manifests {
            let metadata = manifest.get_mut("metadata").unwrap().as_object_mut().unwrap();
            metadata.entry("namespace").or_insert_with(|| json!(name));
        }
        Self { name, manifests }
    }

    fn namespaces(&self) -> impl Iterator<Item = &str> {
        let namespaces = self
            .manifests
            .iter()
            .filter(|manifest| manifest.get("kind") == Some(&json!("Namespace")));
        namespaces.filter_map(|manifest| manifest.pointer("/metadata/name")?.as_str())
    }
}

/// What is in a folder, by name; files beside the folders do not count.
fn sorted(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut entries: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_none_or(|kind| kind == "yaml"))
        .collect();
    entries.sort();
    entries
}

/// Of every policy in these namespaces: status and reason of `Ready` for the current spec.
async fn said(plane: &Plane, examples: &[Example]) -> BTreeMap<(String, String), (String, String)> {
    let mut said = BTreeMap::new();
    for example in examples {
        let api: Api<ResiliencePolicy> = Api::namespaced(plane.client().unwrap(), &example.name);
        for policy in api.list(&kube::api::ListParams::default()).await.unwrap() {
            let conditions = policy.status.iter().flat_map(|status| &status.common.conditions);
            let ready = conditions
                .filter(|condition| condition.observed_generation == policy.metadata.generation)
                .find(|condition| condition.type_ == "Ready");
            let ready = ready.map(|ready| (ready.status.as_str().to_owned(), ready.reason.clone()));
            said.insert((example.name.clone(), policy.name_any()), ready.unwrap_or_default());
        }
    }
    said
}

async fn until(plane: &Plane, examples: &[Example], what: &str, wanted: &BTreeMap<(String, String), (String, String)>) {
    eventually(what, async || {
        let found = said(plane, examples).await;
        if found == *wanted {
            Ok(())
        } else {
            Err(format!("{found:#?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_linkerd_waits_for_it_and_is_ready_when_it_speaks() {
    let plane = PLANE.get().await.unwrap();
    let account = trellis_tests::account(plane).await.unwrap();
    let operator = trellis_tests::launch(account.path(), "examples", &[])
        .linkerd_version("2.20")
        .start()
        .await
        .unwrap();
    operator.ready().await;
    let examples = Example::needy();
    for example in &examples {
        plane.apply(&example.manifests).await.unwrap();
    }
    let all = |status: &str, reason: fn(&'static str) -> &'static str| {
        let lines = SILENT.iter().map(|(example, policy, silent)| {
            let key = ((*example).to_owned(), (*policy).to_owned());
            (key, (status.to_owned(), reason(silent).to_owned()))
        });
        lines.collect::<BTreeMap<_, _>>()
    };
    until(
        plane,
        &examples,
        "every policy waits for Linkerd",
        &all("False", |silent| silent),
    )
    .await;
    let namespaces: Vec<&str> = examples.iter().flat_map(Example::namespaces).collect();
    let _linkerd = Linkerd::watch(&plane.client().unwrap(), &namespaces).speak_in(&namespaces);
    until(plane, &examples, "every policy is Ready", &all("True", |_| "Applied")).await;
}
