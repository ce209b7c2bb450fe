//! The chart's permissions, from what the controllers declare.
//!
//! ```text
//!  runtime: { own: [rule…], served: [rule…] }
//!  controllers: { NAME: { own, served, cluster: [rule…] } }
//! ```
//!
//! `own` holds in the operator's namespace, `served` in every namespace that it serves, `cluster` everywhere. The
//! chart's template makes a role of each place.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;
use trellis_runtime::permission::{Permission, Place, RUNTIME};

#[derive(Serialize)]
struct Document {
    runtime: Places,
    controllers: BTreeMap<&'static str, Places>,
}

#[derive(Default, Serialize)]
struct Places {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cluster: Vec<Rule>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    served: Vec<Rule>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    own: Vec<Rule>,
}

/// `rbac.authorization.k8s.io/v1` `PolicyRule`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: [&'static str; 1],
    resources: BTreeSet<&'static str>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    resource_names: BTreeSet<&'static str>,
    verbs: Vec<&'static str>,
}

/// The content of `charts/trellis/generated/rbac.yaml`.
pub(crate) fn document() -> Result<Value> {
    let controllers = trellis_operator::permissions()
        .into_iter()
        .map(|(controller, needs)| (controller, places(needs)))
        .collect();
    serde_json::to_value(Document {
        runtime: places(RUNTIME),
        controllers,
    })
    .context("the permissions are not JSON")
}

fn places(needs: &[Permission]) -> Places {
    let mut places = Places::default();
    let needs: BTreeSet<&Permission> = needs.iter().collect();
    for need in needs {
        let rules = match need.place {
            Place::Cluster => &mut places.cluster,
            Place::Served => &mut places.served,
            Place::Own => &mut places.own,
        };
        add(rules, need);
    }
    places
}

/// Adds a permission; what differs only in the resource becomes one rule.
fn add(rules: &mut Vec<Rule>, need: &Permission) {
    let names: BTreeSet<&str> = need.names.iter().copied().collect();
    let same =
        |rule: &&mut Rule| rule.api_groups == [need.group] && rule.resource_names == names && rule.verbs == need.verbs;
    if let Some(rule) = rules.iter_mut().find(same) {
        rule.resources.insert(need.resource);
        return;
    }
    rules.push(Rule {
        api_groups: [need.group],
        resources: BTreeSet::from([need.resource]),
        resource_names: names,
        verbs: need.verbs.to_vec(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn places_are_apart_and_like_rules_are_one() {
        let places = places(&[
            Permission::on("", "services", &["get", "patch"]),
            Permission::on("", "pods", &["get", "patch"]),
            Permission::on("", "configmaps", &["get"])
                .named(&["linkerd-config"])
                .at(Place::Own),
            Permission::on("", "nodes", &["get"]).at(Place::Cluster),
        ]);
        let expected = json!({
            "cluster": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}],
            "served": [{"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["get", "patch"]}],
            "own": [
                {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["linkerd-config"], "verbs": ["get"]},
            ],
        });
        assert_eq!(serde_json::to_value(places).unwrap(), expected);
    }

    #[test]
    fn every_controller_declares_something_and_no_wildcard() {
        let document = document().unwrap();
        for (name, places) in document["controllers"].as_object().unwrap() {
            assert!(!places.as_object().unwrap().is_empty(), "{name}");
        }
        assert!(!document.to_string().contains('*'));
    }
}
