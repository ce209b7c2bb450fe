//! Field managers: the names under which we write, so that what was written on behalf of whom can be told apart.
//!
//! Invariant: an object that fits the API server's limit is named in its manager; one that does not is named by UID.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The API server takes at most this many bytes (`metav1validation.FieldManagerMaxLength`).
pub const LIMIT: usize = 128;

/// The manager of what a controller writes to its own objects: finalizers and status.
#[must_use]
pub fn of_controller(controller: &str) -> String {
    format!("trellis-{controller}")
}

/// The manager of everything that a controller writes on behalf of one object: `trellis-<controller>/<namespace>/<name>`,
/// without the namespace when it has none, or `trellis-<controller>/<uid>` where that would exceed [`LIMIT`].
#[must_use]
pub fn of_object(controller: &str, meta: &ObjectMeta) -> String {
    let controller = of_controller(controller);
    let name = meta.name.as_deref().unwrap_or_default();
    let full = match meta.namespace.as_deref() {
        Some(namespace) => format!("{controller}/{namespace}/{name}"),
        None => format!("{controller}/{name}"),
    };
    if full.len() <= LIMIT {
        full
    } else {
        format!("{controller}/{}", meta.uid.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// `trellis-toy/` and `shop/` leave 128 - 17 bytes for a name.
    #[rstest]
    #[case::short(Some("shop"), "web".to_owned(), "trellis-toy/shop/web".to_owned())]
    #[case::of_no_namespace(None, "web".to_owned(), "trellis-toy/web".to_owned())]
    #[case::at_the_limit(Some("shop"), "n".repeat(111), format!("trellis-toy/shop/{}", "n".repeat(111)))]
    #[case::over_it(Some("shop"), "n".repeat(112), "trellis-toy/0a1b".to_owned())]
    fn the_api_server_takes_every_manager(
        #[case] namespace: Option<&str>,
        #[case] name: String,
        #[case] expected: String,
    ) {
        let meta = ObjectMeta {
            namespace: namespace.map(str::to_owned),
            name: Some(name),
            uid: Some("0a1b".to_owned()),
            ..ObjectMeta::default()
        };
        let manager = of_object("toy", &meta);
        assert_eq!(manager, expected);
        assert!(manager.len() <= LIMIT);
    }
}
