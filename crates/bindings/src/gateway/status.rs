//! What controllers say of a route or a policy.

use serde::{Deserialize, Serialize};

use super::ParentRef;
use crate::lenient::list;

/// What controllers say of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// One entry per controller and parent.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<RouteParentStatus>,
}

/// What one controller says of a route at one parent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteParentStatus {
    /// The parent. Linkerd writes the group of a Service as `core`.
    #[serde(default)]
    pub parent_ref: ParentRef,

    /// Who says it, such as `linkerd.io/policy-controller`.
    #[serde(default)]
    pub controller_name: String,

    /// What is said.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A condition, as little of it as Linkerd writes: it never sets a generation, and rarely a message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Such as `Accepted`.
    #[serde(default, rename = "type")]
    pub type_: String,

    /// `True`, `False` or `Unknown`.
    #[serde(default)]
    pub status: String,

    /// Why, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,

    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
