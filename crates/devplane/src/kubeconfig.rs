//! Kubeconfig files: one cluster, one user, everything embedded.

use k8s_openapi::ByteString;

/// How a user proves who it is.
pub(crate) enum Proof<'a> {
    /// A client certificate and its key, both PEM.
    Certificate { certificate: &'a str, key: &'a str },
    /// A bearer token.
    Token(&'a str),
}

/// The text of a kubeconfig for `server`, trusted by `ca` (PEM), whose context is in `namespace`.
pub(crate) fn text(server: &str, ca: &str, namespace: &str, user: &str, proof: &Proof<'_>) -> String {
    let proof = match proof {
        Proof::Certificate { certificate, key } => format!(
            "client-certificate-data: {}\n    client-key-data: {}",
            base64(certificate),
            base64(key)
        ),
        Proof::Token(token) => format!("token: {token}"),
    };
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: trellis
  cluster:
    server: {server}
    certificate-authority-data: {}
users:
- name: {user}
  user:
    {proof}
contexts:
- name: trellis
  context:
    cluster: trellis
    user: {user}
    namespace: {namespace}
current-context: trellis
",
        base64(ca)
    )
}

/// Base64 as Kubernetes' own byte strings are written.
fn base64(text: &str) -> String {
    match serde_json::to_value(ByteString(text.as_bytes().to_vec())) {
        Ok(serde_json::Value::String(encoded)) => encoded,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use kube::config::Kubeconfig;

    use super::*;

    #[test]
    fn clients_understand_it() {
        let config = Kubeconfig::from_yaml(&text("https://127.0.0.1:1", "CA", "ns", "me", &Proof::Token("t"))).unwrap();
        assert_eq!(config.current_context.as_deref(), Some("trellis"));
        assert_eq!(
            config.clusters[0].cluster.as_ref().unwrap().server.as_deref(),
            Some("https://127.0.0.1:1")
        );
        assert_eq!(
            config.contexts[0].context.as_ref().unwrap().namespace.as_deref(),
            Some("ns")
        );
        assert_eq!(base64("CA"), "Q0E=");
    }
}
