//! The objects that the chart renders, and what must hold for all of them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// What `helm template` wrote.
pub(crate) struct Rendered {
    objects: Vec<Value>,
}

impl Rendered {
    /// Reads the documents; empty ones are dropped.
    pub(crate) fn read(text: &str) -> Result<Self> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("helm did not render YAML")?;
        let objects: Vec<Value> = documents.into_iter().filter(|document| !document.is_null()).collect();
        ensure!(!objects.is_empty(), "nothing was rendered");
        Ok(Self { objects })
    }

    /// How many objects there are.
    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    /// The objects themselves.
    pub(crate) fn objects(&self) -> &[Value] {
        &self.objects
    }

    /// Everything that must hold, whatever the values.
    pub(crate) fn judge(&self) -> Result<()> {
        self.objects_are_distinct()?;
        self.roles_are_narrow()?;
        self.roles_are_bound()?;
        self.pods_are_restricted()?;
        self.one_replica_is_always_there()
    }

    fn of<'a>(&'a self, kinds: &'a [&str]) -> impl Iterator<Item = &'a Value> {
        self.objects
            .iter()
            .filter(|object| kinds.contains(&text(object, "/kind")))
    }

    fn objects_are_distinct(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        for object in &self.objects {
            let identity = ["/kind", "/metadata/namespace", "/metadata/name"].map(|pointer| text(object, pointer));
            ensure!(seen.insert(identity), "two objects are {identity:?}");
            ensure!(
                text(object, "/metadata/labels/app.kubernetes.io~1name") == "trellis",
                "{identity:?} lacks the chart's labels"
            );
        }
        Ok(())
    }

    fn roles_are_narrow(&self) -> Result<()> {
        for role in self.of(&["Role", "ClusterRole"]) {
            let rules = role.get("rules").context("a role without rules")?.to_string();
            let name = text(role, "/metadata/name");
            for wide in ["\"*\"", "\"escalate\"", "\"bind\"", "\"impersonate\""] {
                ensure!(!rules.contains(wide), "{name} grants {wide}");
            }
            for rule in role.get("rules").and_then(Value::as_array).into_iter().flatten() {
                let listed = |key: &str| rule.get(key).map(Value::to_string).unwrap_or_default();
                // Sources name Secrets of their namespaces, which are read and never written.
                let fine = name.contains("external-source") && listed("verbs") == r#"["get","list","watch"]"#;
                ensure!(
                    !listed("resources").contains("\"secrets\"") || fine,
                    "{name} grants {} on secrets",
                    listed("verbs")
                );
            }
        }
        Ok(())
    }

    fn roles_are_bound(&self) -> Result<()> {
        for (role_kind, binding_kind) in [("Role", "RoleBinding"), ("ClusterRole", "ClusterRoleBinding")] {
            let at = |object: &Value, pointer: &str| {
                (
                    text(object, "/metadata/namespace").to_owned(),
                    text(object, pointer).to_owned(),
                )
            };
            let roles: BTreeSet<_> = self.of(&[role_kind]).map(|role| at(role, "/metadata/name")).collect();
            let bound: BTreeSet<_> = self
                .of(&[binding_kind])
                .map(|binding| at(binding, "/roleRef/name"))
                .collect();
            ensure!(roles == bound, "{role_kind}s {roles:?} but bindings to {bound:?}");
        }
        Ok(())
    }

    /// The `restricted` Pod Security Standard for every container, bounds, and the operator's probes on both endpoints.
    fn pods_are_restricted(&self) -> Result<()> {
        let Some(deployment) = self.of(&["Deployment"]).next() else {
            bail!("no Deployment")
        };
        let pod = deployment.pointer("/spec/template/spec").context("no Pod")?;
        let is = |object: &Value, pointer: &str, value: &str| {
            let found = object.pointer(pointer).map(Value::to_string).unwrap_or_default();
            ensure!(found == value, "{pointer} is {found}, not {value}");
            Ok(())
        };
        is(pod, "/securityContext/runAsNonRoot", "true")?;
        is(pod, "/securityContext/runAsUser", "65532")?;
        is(pod, "/securityContext/seccompProfile/type", "\"RuntimeDefault\"")?;
        is(pod, "/containers/0/livenessProbe/httpGet/path", "\"/livez\"")?;
        is(pod, "/containers/0/readinessProbe/httpGet/path", "\"/readyz\"")?;
        let containers = ["/containers", "/initContainers"].iter();
        let containers = containers.filter_map(|kind| pod.pointer(kind)?.as_array()).flatten();
        for container in containers {
            let judged = is(container, "/securityContext/allowPrivilegeEscalation", "false")
                .and_then(|()| is(container, "/securityContext/readOnlyRootFilesystem", "true"))
                .and_then(|()| is(container, "/securityContext/capabilities/drop", "[\"ALL\"]"));
            judged.with_context(|| format!("container {}", text(container, "/name")))?;
            ensure!(
                container.pointer("/resources/limits/memory").is_some(),
                "container {} may take all memory",
                text(container, "/name")
            );
        }
        Ok(())
    }

    /// With more replicas than one: a rollout, a drain and the loss of a node or a zone leave one to take over.
    fn one_replica_is_always_there(&self) -> Result<()> {
        let Some(deployment) = self.of(&["Deployment"]).next() else {
            bail!("no Deployment")
        };
        let replicas = deployment.pointer("/spec/replicas").and_then(Value::as_u64);
        let replicas = replicas.context("a Deployment without a number of replicas")?;
        let budgets: Vec<&Value> = self.of(&["PodDisruptionBudget"]).collect();
        ensure!(
            budgets.len() == usize::from(replicas > 1),
            "{replicas} replicas and {} PodDisruptionBudgets",
            budgets.len()
        );
        for budget in budgets {
            let (theirs, ours) = (budget.pointer("/spec/selector"), deployment.pointer("/spec/selector"));
            ensure!(
                theirs == ours && ours.is_some(),
                "the PodDisruptionBudget is for {theirs:?}, not {ours:?}"
            );
        }
        let spec = |pointer: &str| deployment.pointer(pointer).map(Value::to_string).unwrap_or_default();
        if spec("/spec/strategy/type") == "\"Recreate\"" {
            ensure!(replicas == 1, "a rollout takes all {replicas} replicas away");
            return Ok(());
        }
        let unavailable = spec("/spec/strategy/rollingUpdate/maxUnavailable");
        ensure!(unavailable == "0", "a rollout may take {unavailable} replicas away");
        for spread in [
            "/spec/template/spec/affinity",
            "/spec/template/spec/topologySpreadConstraints/0",
        ] {
            ensure!(!spec(spread).is_empty(), "no {spread}");
        }
        Ok(())
    }

    /// What holds when nobody has set anything: two replicas, a Lease that a dead leader loses within 15 s, preferences
    /// that keep no Pod from being placed, resources, and no dependence on the mesh.
    pub(crate) fn judge_defaults(&self) -> Result<()> {
        let deployment = self.of(&["Deployment"]).next().context("no Deployment")?;
        let pod = "/spec/template/spec";
        let expected = [
            ("/spec/replicas".to_owned(), "2"),
            (format!("{pod}/terminationGracePeriodSeconds"), "30"),
            (
                format!("{pod}/topologySpreadConstraints/0/whenUnsatisfiable"),
                "\"ScheduleAnyway\"",
            ),
            (
                format!(
                    "{pod}/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/0/podAffinityTerm/topologyKey"
                ),
                "\"kubernetes.io/hostname\"",
            ),
            (format!("{pod}/containers/0/resources/requests/cpu"), "\"50m\""),
            (format!("{pod}/containers/0/resources/limits/memory"), "\"256Mi\""),
            (
                "/spec/template/metadata/annotations/linkerd.io~1inject".to_owned(),
                "\"disabled\"",
            ),
        ];
        for (pointer, value) in expected {
            let found = deployment.pointer(&pointer).map(Value::to_string).unwrap_or_default();
            ensure!(found == value, "by default {pointer} is {found}, not {value}");
        }
        let arguments = deployment.pointer(&format!("{pod}/containers/0/args"));
        let arguments = arguments.map(Value::to_string).unwrap_or_default();
        ensure!(
            arguments.contains("\"--lease-duration=10s\""),
            "by default the arguments are {arguments}"
        );
        Ok(())
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_without_a_budget_and_rollouts_without_a_successor_are_named() {
        let deployment = |replicas: u8, unavailable: u8| {
            format!(
                "kind: Deployment\nspec: {{replicas: {replicas}, selector: {{matchLabels: {{a: b}}}}, strategy: {{rollingUpdate: \
                 {{maxUnavailable: {unavailable}}}}}, template: {{spec: {{affinity: {{x: y}}, topologySpreadConstraints: [{{}}]}}}}}}\n"
            )
        };
        let budget = |label: &str| {
            format!("---\nkind: PodDisruptionBudget\nspec: {{selector: {{matchLabels: {{a: {label}}}}}}}\n")
        };
        let judged = |text: &str| Rendered::read(text).unwrap().one_replica_is_always_there();
        assert!(judged(&deployment(1, 0)).is_ok());
        assert!(judged(&(deployment(2, 0) + &budget("b"))).is_ok());
        assert!(judged(&deployment(1, 1).replace("strategy: {", "strategy: {type: Recreate, ")).is_ok());
        for wrong in [
            deployment(2, 0),
            deployment(1, 0) + &budget("b"),
            deployment(2, 0) + &budget("c"),
            deployment(2, 1) + &budget("b"),
            deployment(2, 0).replace("strategy: {", "strategy: {type: Recreate, ") + &budget("b"),
        ] {
            assert!(judged(&wrong).is_err(), "{wrong}");
        }
        let defaults = Rendered::read(&(deployment(3, 0) + &budget("b")))
            .unwrap()
            .judge_defaults();
        assert!(defaults.unwrap_err().to_string().contains("/spec/replicas is 3"));
    }

    #[test]
    fn wide_roles_and_loose_bindings_are_named() {
        let role = "kind: Role\nmetadata: {name: a, namespace: n, labels: {app.kubernetes.io/name: trellis}}\nrules: [{verbs: ['*']}]\n";
        let rendered = Rendered::read(role).unwrap();
        assert!(
            rendered
                .roles_are_narrow()
                .unwrap_err()
                .to_string()
                .contains("a grants")
        );
        let secrets = |name: &str, verbs: &str| {
            let text =
                format!("kind: Role\nmetadata: {{name: {name}}}\nrules: [{{resources: [secrets], verbs: {verbs}}}]\n");
            Rendered::read(&text).unwrap().roles_are_narrow()
        };
        assert!(secrets("trellis-external-source", "[get, list, watch]").is_ok());
        assert!(secrets("trellis-resilience", "[get, list, watch]").is_err());
        assert!(secrets("trellis-external-source", "[get, list, watch, patch]").is_err());
        assert!(rendered.roles_are_bound().is_err());
        assert!(rendered.objects_are_distinct().is_ok());
        assert!(
            Rendered::read(&format!("{role}---\n{role}"))
                .unwrap()
                .objects_are_distinct()
                .is_err()
        );
    }
}
