//! RBAC from the permissions that the chosen controllers declare; the chart's rules and those of `dev up` come from
//! here, and tests run the operator under them.

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};
use trellis_runtime::{
    Permission,
    permission::{Place, RUNTIME},
};

use crate::Controller;

/// Rules of some controllers, by where they hold. Sorted, without duplicates.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    /// On cluster-scoped objects, or on objects of any namespace: a `ClusterRole`, bound in the cluster.
    pub cluster: Vec<PolicyRule>,
    /// In the namespaces that are served: a `ClusterRole`, bound in the cluster or in each of them.
    pub served: Vec<PolicyRule>,
    /// In the operator's own namespace: a `Role`.
    pub own: Vec<PolicyRule>,
}

/// The rules of these controllers, with what the runtime needs for any of them.
#[must_use]
pub fn rules(controllers: &[Controller]) -> Rules {
    let mut needs: Vec<Permission> = controllers
        .iter()
        .flat_map(|controller| controller.needs())
        .chain(RUNTIME)
        .copied()
        .collect();
    needs.sort_unstable();
    needs.dedup();
    let at = |place| needs.iter().filter(|need| need.place == place).map(rule).collect();
    Rules {
        cluster: at(Place::Cluster),
        served: at(Place::Served),
        own: at(Place::Own),
    }
}

fn rule(need: &Permission) -> PolicyRule {
    let strings = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(vec![need.group.to_owned()]),
        resources: Some(vec![need.resource.to_owned()]),
        resource_names: (!need.names.is_empty()).then(|| strings(need.names)),
        verbs: strings(need.verbs),
        ..PolicyRule::default()
    }
}

/// A ServiceAccount `name` in `namespace` with exactly these permissions. With `served` empty, every namespace is
/// served. Order: the account, roles, bindings.
#[must_use]
pub fn manifests(controllers: &[Controller], name: &str, namespace: &str, served: &[String]) -> Vec<Value> {
    const API: &str = "rbac.authorization.k8s.io/v1";
    let rules = rules(controllers);
    let labels = json!({ "app.kubernetes.io/name": "trellis", "app.kubernetes.io/managed-by": "trellis" });
    let subject = json!([{ "kind": "ServiceAccount", "name": name, "namespace": namespace }]);
    let role = |kind: &str, name: &str, namespace: Option<&str>, rules: &[PolicyRule]| {
        json!({ "apiVersion": API, "kind": kind, "rules": rules,
                "metadata": { "name": name, "namespace": namespace, "labels": labels } })
    };
    let binding = |kind: &str, role_kind: &str, name: &str, namespace: Option<&str>| {
        json!({ "apiVersion": API, "kind": kind, "subjects": subject,
                "metadata": { "name": name, "namespace": namespace, "labels": labels },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": name } })
    };
    let (cluster, in_served) = (format!("{name}-cluster"), format!("{name}-served"));
    let mut manifests = vec![
        json!({ "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": { "name": name, "namespace": namespace, "labels": labels } }),
        role("ClusterRole", &cluster, None, &rules.cluster),
        role("ClusterRole", &in_served, None, &rules.served),
        role("Role", name, Some(namespace), &rules.own),
        binding("ClusterRoleBinding", "ClusterRole", &cluster, None),
        binding("RoleBinding", "Role", name, Some(namespace)),
    ];
    if served.is_empty() {
        manifests.push(binding("ClusterRoleBinding", "ClusterRole", &in_served, None));
    } else {
        manifests.extend(
            served
                .iter()
                .map(|place| binding("RoleBinding", "ClusterRole", &in_served, Some(place))),
        );
    }
    manifests
}

#[cfg(test)]
mod tests {
    use trellis_runtime::permission::READ;

    use super::*;

    #[test]
    fn only_sources_read_secrets_and_no_rule_has_a_wildcard() {
        let of = |controllers: &[Controller]| {
            let rules = rules(controllers);
            [rules.cluster, rules.served, rules.own].concat()
        };
        let secrets = |rule: &PolicyRule| rule.resources.iter().flatten().any(|resource| resource == "secrets");
        assert!(!of(&[Controller::Resilience]).iter().any(secrets));
        let read: Vec<_> = of(&[Controller::ExternalSource]).into_iter().filter(secrets).collect();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].verbs, READ);
        for rule in of(Controller::ALL) {
            let resources = rule.resources.unwrap();
            for text in resources.iter().chain(&rule.verbs).chain(&rule.api_groups.unwrap()) {
                assert!(!text.contains('*'), "{text}");
            }
        }
    }

    #[test]
    fn the_service_is_patched_but_never_created_updated_or_deleted() {
        let served = rules(&[Controller::Resilience]).served;
        let services = served
            .iter()
            .find(|rule| rule.resources == Some(vec!["services".to_owned()]))
            .unwrap();
        assert_eq!(services.verbs, ["get", "list", "watch", "patch"]);
    }

    #[test]
    fn only_the_served_namespaces_are_bound() {
        let manifests = manifests(Controller::ALL, "trellis", "trellis-system", &["a".into(), "b".into()]);
        let bound: Vec<_> = manifests
            .iter()
            .filter(|manifest| manifest["roleRef"]["name"] == "trellis-served")
            .map(|manifest| {
                (
                    manifest["kind"].as_str().unwrap(),
                    manifest["metadata"]["namespace"].as_str(),
                )
            })
            .collect();
        assert_eq!(bound, [("RoleBinding", Some("a")), ("RoleBinding", Some("b"))]);
    }
}
