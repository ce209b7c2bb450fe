//! On whose behalf is applied, and what of the cluster belongs to it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::Value;
use trellis_api::status::InventoryEntry;

use super::{OWNER_ANNOTATION, uid};
use crate::owned;

/// The object on whose behalf is applied.
pub(super) struct Owner {
    pub(super) reference: OwnerReference,
    pub(super) namespace: Option<String>,
    pub(super) manager: String,
}

impl Owner {
    /// Ours is what has fields of our manager and is recorded as created by us, never what only has the right name.
    ///
    /// Until it is recorded, its marks have to do, and nobody else may have a field of it: a crash between our apply
    /// and the discovery that somebody else created the object in the same moment leaves our marks on theirs.
    pub(super) fn owns(&self, living: &Value, inventory: &[InventoryEntry]) -> bool {
        let mine = self.reference.uid.as_str();
        let path = format!("/metadata/annotations/{}", OWNER_ANNOTATION.replace('/', "~1"));
        let marked = living.pointer(&path).and_then(Value::as_str) == Some(self.path().as_str());
        let owners = living.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        let mut controllers = owners
            .into_iter()
            .flatten()
            .filter(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))
            .map(|owner| owner.get("uid").and_then(Value::as_str));
        let controlled = match controllers.next() {
            Some(controller) if controller != Some(mine) => return false,
            controller => controller.is_some(),
        };
        if !owned::owns_any(living, &self.manager) {
            return false;
        }
        let uid = uid(living);
        let mut recorded = inventory.iter().filter(|entry| !entry.part);
        recorded.any(|entry| entry.uid.as_deref() == Some(uid)) || (controlled || marked) && self.is_alone_on(living)
    }

    /// Whether nobody else has a field of an object that we meant to create. A status is always another's.
    pub(super) fn is_alone_on(&self, created: &Value) -> bool {
        let text = |entry: &Value, field: &str| entry.get(field).and_then(Value::as_str).map(ToOwned::to_owned);
        let managers = created.pointer("/metadata/managedFields").and_then(Value::as_array);
        managers
            .into_iter()
            .flatten()
            .filter(|entry| text(entry, "subresource").is_none_or(|subresource| subresource.is_empty()))
            .all(|entry| text(entry, "manager").as_deref() == Some(self.manager.as_str()))
    }

    pub(super) fn path(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.reference.name),
            None => self.reference.name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const ME: &str = "trellis-test/ns/w";

    fn owner() -> Owner {
        Owner {
            reference: OwnerReference {
                name: "w".into(),
                uid: "mine".into(),
                ..OwnerReference::default()
            },
            namespace: Some("ns".into()),
            manager: ME.into(),
        }
    }

    /// An object with uid `u`: who controls it, whether it is annotated, and who has fields of it.
    fn living(controller: Option<&str>, annotated: bool, managers: &[&str]) -> Value {
        let fields = |manager: &&str| json!({ "manager": manager, "operation": "Apply", "fieldsV1": { "f:data": {} } });
        let mut managers: Vec<_> = managers.iter().map(fields).collect();
        managers.push(
            json!({ "manager": "else", "operation": "Update", "subresource": "status",
                              "fieldsV1": { "f:status": {} } }),
        );
        let controllers = controller.map(|uid| json!({ "uid": uid, "controller": true }));
        let annotation = if annotated { "ns/w" } else { "ns/other" };
        json!({ "metadata": { "uid": "u", "annotations": { OWNER_ANNOTATION: annotation }, "managedFields": managers,
                              "ownerReferences": controllers.into_iter().collect::<Vec<_>>() } })
    }

    #[rstest]
    #[case::with_every_mark(Some("mine"), true, &[ME], None, true)]
    #[case::controlled_only(Some("mine"), false, &[ME], None, true)]
    #[case::annotated_only(None, true, &[ME], None, true)]
    #[case::without_a_mark(None, false, &[ME], None, false)]
    #[case::without_a_mark_but_recorded(None, false, &[ME], Some("u"), true)]
    #[case::shared_and_recorded(Some("mine"), true, &["kubectl", ME], Some("u"), true)]
    #[case::shared_and_not_recorded(Some("mine"), true, &["kubectl", ME], None, false)]
    #[case::shared_and_another_is_recorded(Some("mine"), true, &["kubectl", ME], Some("before"), false)]
    #[case::made_again(Some("mine"), true, &[ME], Some("before"), true)]
    #[case::of_another_controller(Some("theirs"), true, &[ME], Some("u"), false)]
    #[case::without_our_fields(Some("mine"), true, &["kubectl"], Some("u"), false)]
    fn ours_is_what_we_have_fields_of_and_created(
        #[case] controller: Option<&str>,
        #[case] annotated: bool,
        #[case] managers: &[&str],
        #[case] recorded: Option<&str>,
        #[case] expected: bool,
    ) {
        let entry = InventoryEntry {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            namespace: Some("ns".into()),
            name: "one".into(),
            uid: recorded.map(Into::into),
            part: false,
        };
        let living = living(controller, annotated, managers);
        assert_eq!(owner().owns(&living, &[entry]), expected);
    }
}
