//! `--namespaces`: the operator under namespaced permissions serves one namespace and leaves every other alone.
//!
//! ```text
//!  rbac::manifests(…, served = [ours]) ─▶ operator --namespaces=ours ─▶ ours: Ready │ other: never asked for, never touched
//! ```
//!
//! The audit log is the witness of what was asked, the API server of what would be allowed.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::{
    Api, Client, Config,
    api::{ListParams, Patch, PatchParams},
    config::KubeConfigOptions,
};
use serde_json::json;
use trellis_api::ResiliencePolicy;
use trellis_operator::{Controller, rbac};
use trellis_testkit::{
    audit::Event,
    calls, eventually,
    fixtures::{policy, service},
    operator::Signal,
    plane::{Credentials, Isolated, Plane, Shared},
};
use trellis_tests::{ACCOUNT, NAMESPACE};

/// A plane in which the operator has no permissions yet.
static PLANE: Shared = Shared::new(|plane| Box::pin(install(plane)));

/// Unlike `operator_plane`, which grants everything everywhere.
async fn install(plane: Plane) -> Result<(), trellis_tests::Error> {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    plane.apply(&trellis_api::crds()).await?;
    plane.apply(&[trellis_bindings::linkerd::service_profile_crd()]).await?;
    plane.apply(&[namespace]).await
}

fn is_ready(policy: &ResiliencePolicy) -> bool {
    let conditions = policy.status.iter().flat_map(|status| &status.common.conditions);
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready.any(|ready| ready.observed_generation == policy.metadata.generation)
}

async fn populate(isolated: &Isolated) {
    isolated.create_object(service("web").port(80).build()).await.unwrap();
    isolated.create_object(policy("web").breaker(5).build()).await.unwrap();
}

async fn client(credentials: &Credentials) -> Client {
    let kubeconfig = credentials.kubeconfig().clone();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

fn denied<T>(answer: Result<T, kube::Error>, what: &str) {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 403 => {}
        Err(error) => panic!("{what}: {error}"),
        Ok(_) => panic!("{what} is allowed"),
    }
}

/// What the account may do in a namespace, as the operator would do it.
async fn permissions_end_at(client: &Client, place: &str) {
    let services: Api<Service> = Api::namespaced(client.clone(), place);
    let policies: Api<ResiliencePolicy> = Api::namespaced(client.clone(), place);
    let by = PatchParams::apply("trellis-resilience").force();
    let annotated = json!({ "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "web", "annotations": { "retry.linkerd.io/http": "5xx" } } });
    let status = json!({ "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy",
        "metadata": { "name": "web" }, "status": { "linkerdVersion": "2.18" } });
    denied(services.list(&ListParams::default()).await, "reading Services");
    denied(policies.list(&ListParams::default()).await, "reading policies");
    denied(services.patch("web", &by, &Patch::Apply(&annotated)).await, "a Service");
    denied(
        policies.patch_status("web", &by, &Patch::Apply(&status)).await,
        "a status",
    );
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), place);
    denied(maps.list(&ListParams::default()).await, "reading ConfigMaps");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_served_namespace_is_read_and_written() {
    let plane = PLANE.get().await.unwrap();
    let (served, other) = (
        plane.isolated("served").await.unwrap(),
        plane.isolated("other").await.unwrap(),
    );
    let granted = rbac::manifests(Controller::ALL, ACCOUNT, NAMESPACE, &[served.name().to_owned()]);
    plane.apply(&granted).await.unwrap();
    let account = trellis_tests::account(plane).await.unwrap();
    // First where nobody looks: what is ready over there afterwards is no matter of time.
    populate(&other).await;
    populate(&served).await;

    let identity = served.name().to_owned();
    let since = plane.audit().mark().unwrap();
    let operator = trellis_tests::launch(account.path(), &identity, &[served.name()])
        .start()
        .await
        .unwrap();
    operator.ready().await;
    let policy = served.until("web", "Ready", is_ready).await;
    let status = policy.status.unwrap();
    assert_eq!(status.applied_to_services, [format!("{}/web", served.name())]);
    // A change over there wakes nobody; one here does, and is the later one.
    let slower = json!({ "spec": { "circuitBreaker": { "failureThreshold": 9 } } });
    other.merge::<ResiliencePolicy>("web", slower.clone()).await.unwrap();
    served.merge::<ResiliencePolicy>("web", slower).await.unwrap();
    served.until("web", "Ready with the change", is_ready).await;

    // Of a Service over there nothing can be said, and it is not called missing.
    let outside = json!({
        "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy", "metadata": { "name": "outside" },
        "spec": { "targetRef": { "name": "web", "namespace": other.name() }, "retry": {} },
    });
    served.apply(outside).await.unwrap();
    let told = |policy: &ResiliencePolicy| {
        let conditions = policy.status.iter().flat_map(|status| &status.common.conditions);
        let mut messages = conditions.map(|condition| &condition.message);
        messages.any(|message| message.contains("is not among those that the operator serves"))
    };
    served.until("outside", "it says that nobody looks there", told).await;
    served.delete::<ResiliencePolicy>("outside").await.unwrap();
    served.gone::<ResiliencePolicy>("outside").await;

    // Deleting cleans up under the same permissions.
    served
        .api::<ResiliencePolicy>()
        .delete("web", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    eventually("the policy is gone", async || {
        let left = served.api::<ResiliencePolicy>().get_opt("web").await;
        left.map_err(|error| error.to_string())?
            .map_or(Ok(()), |left| Err(format!("{left:?}")))
    })
    .await;
    let service: Service = served.get("web").await.unwrap();
    assert_eq!(service.metadata.annotations.unwrap_or_default().len(), 0);
    assert_eq!(operator.stop(Signal::Term).await.code(), Some(0));

    let untouched: ResiliencePolicy = other.get("web").await.unwrap();
    assert!(untouched.status.is_none() && untouched.metadata.finalizers.is_none());
    let service: Service = other.get("web").await.unwrap();
    assert!(service.metadata.annotations.is_none());

    let events = plane.audit().since(since).unwrap();
    let asked: Vec<&Event> = events
        .iter()
        .filter(|event| event.identity() == Some(&identity))
        .collect();
    let wrote = asked.iter().filter(|event| calls().work().matches(&event.info()));
    assert!(wrote.count() > 0, "the audit log shows what the operator wrote");
    // Beside the served namespace: its Lease, Linkerd's ConfigMap, and which kinds there are.
    let allowed = [served.name(), NAMESPACE, "linkerd"];
    for event in asked {
        let object = event.object_ref.clone().unwrap_or_default();
        let about_kinds = object.resource.is_empty() || object.resource == "customresourcedefinitions";
        assert!(
            about_kinds || allowed.contains(&object.namespace.as_str()),
            "outside the served namespace: {event}"
        );
        assert_ne!(event.code(), 403, "the chart's permissions are too few: {event}");
    }

    permissions_end_at(&client(&account).await, other.name()).await;
}
