//! Least privilege as code: what a controller may do, from which the chart's RBAC is generated.

/// A verb of the Kubernetes API.
pub type Verb = &'static str;

/// Reads by watch.
pub const READ: &[Verb] = &["get", "list", "watch"];

/// One rule: these verbs on this resource. Follows `rbac.authorization.k8s.io/v1` `PolicyRule`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Plural resource, with its subresource: `services`, `resiliencepolicies/status`.
    pub resource: &'static str,
    /// Object names; empty means every name.
    pub names: &'static [&'static str],
    /// The verbs.
    pub verbs: &'static [Verb],
    /// Where the rule holds.
    pub place: Place,
}

/// Where a permission holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In every namespace that the operator serves.
    Served,
    /// In the operator's own namespace.
    Own,
    /// On cluster-scoped objects, or on objects of any namespace.
    Cluster,
}

impl Permission {
    /// `verbs` on `resource` of `group`, in every namespace that the operator serves.
    #[must_use]
    pub const fn on(group: &'static str, resource: &'static str, verbs: &'static [Verb]) -> Self {
        Self {
            group,
            resource,
            names: &[],
            verbs,
            place: Place::Served,
        }
    }

    /// Only for these object names.
    #[must_use]
    pub const fn named(self, names: &'static [&'static str]) -> Self {
        Self { names, ..self }
    }

    /// Only in this place.
    #[must_use]
    pub const fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }
}

/// What the runtime itself needs, whichever controllers run: the Lease and the Events.
pub const RUNTIME: &[Permission] = &[
    Permission::on(
        "coordination.k8s.io",
        "leases",
        &["get", "list", "watch", "create", "update"],
    )
    .at(Place::Own),
    Permission::on("events.k8s.io", "events", &["create", "patch"]),
];
