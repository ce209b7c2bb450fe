//! What is compared: everything that the operator left in the namespace, without times and random names.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::{Api, Resource, api::ListParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use trellis_api::ResiliencePolicy;
use trellis_testkit::plane::Isolated;

/// The state of the namespace.
pub(crate) async fn of(isolated: &Isolated) -> Value {
    let services = list(isolated.api::<Service>()).await;
    let policies = list(isolated.api::<ResiliencePolicy>()).await;
    let secrets = list(isolated.api::<Secret>()).await;
    let maps = list(isolated.api::<ConfigMap>()).await;
    let mut state = json!({
        "services": services.iter().map(service).collect::<Value>(),
        "policies": policies.iter().map(policy).collect::<Value>(),
        // Every namespace has the root certificate's map.
        "others": [secrets.len(), maps.iter().filter(|map| !is_root_ca(map)).count()],
    });
    let mut names = vec![(isolated.name().to_owned(), "<ns>".to_owned())];
    for service in &services {
        let name = service.metadata.name.clone().unwrap();
        names.push((service.metadata.uid.clone().unwrap(), format!("<uid of {name}>")));
    }
    rename(&mut state, &names);
    state
}

async fn list<K: Clone + Debug + DeserializeOwned>(api: Api<K>) -> Vec<K> {
    api.list(&ListParams::default()).await.unwrap().items
}

fn is_root_ca(map: &ConfigMap) -> bool {
    map.metadata.name.as_deref() == Some("kube-root-ca.crt")
}

/// Who set which fields, in the order of their names.
fn owners<K: Resource>(object: &K) -> Value {
    let entries = object.meta().managed_fields.clone().unwrap_or_default();
    let mut owners: Vec<Value> = entries
        .into_iter()
        .map(|entry| json!([entry.manager, entry.operation, entry.subresource, entry.fields_v1]))
        .collect();
    owners.sort_by_key(ToString::to_string);
    Value::Array(owners)
}

fn service(service: &Service) -> Value {
    json!({
        "name": service.metadata.name,
        "annotations": service.metadata.annotations,
        "finalizers": service.metadata.finalizers,
        "owners": service.metadata.owner_references,
        "managers": owners(service),
    })
}

fn policy(policy: &ResiliencePolicy) -> Value {
    let mut status = serde_json::to_value(&policy.status).unwrap();
    if let Some(status) = status.as_object_mut() {
        status.remove("lastUpdateTime");
        for condition in status
            .get_mut("conditions")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            condition.as_object_mut().unwrap().remove("lastTransitionTime");
        }
    }
    json!({
        "spec": policy.spec,
        "status": status,
        "finalizers": policy.metadata.finalizers,
        "managers": owners(policy),
    })
}

/// Replaces random names wherever they stand, in keys too.
fn rename(value: &mut Value, names: &[(String, String)]) {
    let shown = |text: &str| {
        names
            .iter()
            .fold(text.to_owned(), |text, (actual, shown)| text.replace(actual, shown))
    };
    match value {
        Value::String(text) => *text = shown(text),
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, names)),
        Value::Object(fields) => {
            *fields = std::mem::take(fields)
                .into_iter()
                .map(|(key, mut value)| {
                    rename(&mut value, names);
                    (shown(&key), value)
                })
                .collect();
        }
        _ => {}
    }
}
