//! What resilience policies need: Linkerd, the routes of the Gateway API, what renews certificates.

use std::collections::BTreeMap;

use anyhow::Context as _;
use kube::{Client, CustomResourceExt as _};
use trellis_api::ResiliencePolicy;
use trellis_resilience::{Mesh, Ports, annotations::Place, mesh::VALUES};

use super::{
    Args, CRDS, Check, Found, State, check, deployed, is_forbidden, kind, kubernetes, leader, listed, room, told,
    versions,
};
use crate::live::{self, Served};

/// Groups whose kinds are asked for.
const GROUPS: [&str; 3] = ["gateway.networking.k8s.io", "cert-manager.io", "resilience.trellis.dev"];

/// What policies need.
pub(super) async fn checks(client: &Client, args: &Args) -> anyhow::Result<Vec<Check>> {
    let mut checks = vec![
        check(
            "Kubernetes 1.30 or newer",
            kubernetes(client).await?,
            "upgrade the cluster",
        ),
        check(
            "4 CPUs and 8 GiB on the nodes",
            room::room(client).await,
            "add nodes: Linkerd, its viz extension and cert-manager run beside your own load",
        ),
    ];
    let config = live::config(client).await;
    let opaque = opaque(config.as_ref());
    let mesh = live::mesh(config, args.linkerd_version.as_deref());
    let mend =
        "install Linkerd (linkerd install --crds, linkerd install), or give --linkerd-version here and to the operator";
    checks.push(match &mesh {
        Ok(mesh) => check(
            "Linkerd 2.16 or newer",
            Ok((State::Fine, mesh.version.to_string())),
            mend,
        ),
        Err(error) => {
            let state = if is_forbidden(error) {
                State::Unknown
            } else {
                State::Missing
            };
            check("Linkerd 2.16 or newer", Ok((state, told(error))), mend)
        }
    });
    checks.push(check(
        "Linkerd's default opaque ports",
        opaque,
        "proxy.opaquePorts of Linkerd's values is a list such as 25,587,4000-4100; without it Linkerd takes its own",
    ));
    checks.push(check(
        "Linkerd's policy controller, for policies with routes",
        deployed(client, "linkerd", "linkerd-destination").await,
        "linkerd check says what is wrong with Deployment linkerd/linkerd-destination",
    ));
    checks.push(check(
        "Linkerd's viz, to see what its proxies do",
        deployed(client, "linkerd-viz", "metrics-api").await,
        "linkerd viz install, or read the proxies' metrics otherwise",
    ));
    let served = live::served(client, &GROUPS).await;
    for (what, place) in [
        (
            "HTTPRoute, for policies with routes or for other namespaces",
            Place::HttpRoute,
        ),
        ("GRPCRoute, for policies with gRPC routes", Place::GrpcRoute),
    ] {
        checks.push(check(
            what,
            routes(place, served.as_ref(), mesh.as_ref().ok()),
            "install the standard channel of the Gateway API in a version that this Linkerd reads and that serves v1: \
             1.1.1, for Linkerd 2.18 or newer also later ones",
        ));
    }
    checks.push(check(
        "cert-manager, to renew Linkerd's certificates",
        cert_manager(client, served.as_ref()).await,
        "install cert-manager, or renew the trust anchor and the issuer by hand; docs/resilience/mtls.md",
    ));
    checks.push(check(
        "ResiliencePolicy",
        kind(&ResiliencePolicy::crd(), served.as_ref()),
        CRDS,
    ));
    checks.push(leader(client, args).await);
    Ok(checks)
}

/// What `linkerd-config` says of ports on which no Service has requests unless it says so itself.
fn opaque(config: Result<&Option<BTreeMap<String, String>>, &anyhow::Error>) -> Found {
    let data = match config {
        Ok(Some(data)) => data,
        Ok(None) => {
            return Ok((
                State::Unknown,
                "there is no ConfigMap linkerd/linkerd-config".to_owned(),
            ));
        }
        Err(error) => return Ok((State::Unknown, told(error))),
    };
    let values = data.get(VALUES).map_or("", String::as_str);
    let values: serde_json::Value = serde_saphyr::from_str(values).context("linkerd-config is unreadable")?;
    Ok(
        match values.pointer("/proxy/opaquePorts").and_then(serde_json::Value::as_str) {
            None => (State::Fine, "those of Linkerd".to_owned()),
            Some(list) if list.parse::<Ports>().is_ok() => (State::Fine, format!("{list:?}")),
            Some(list) => (
                State::Partial,
                format!("{list:?} is no list of ports, so there are none"),
            ),
        },
    )
}

/// They are written as v1, and Linkerd has to read them.
fn routes(place: Place, served: Result<&Served, &anyhow::Error>, mesh: Option<&Mesh>) -> Found {
    let plural = if place == Place::GrpcRoute {
        "grpcroutes"
    } else {
        "httproutes"
    };
    let versions = versions(served, "gateway.networking.k8s.io", plural)?;
    let read = mesh.is_none_or(|mesh| served.is_ok_and(|served| live::gateway(served).seen(place, mesh)));
    let found = listed(&versions);
    Ok(match (versions.contains("v1"), read) {
        (true, true) => (State::Fine, found),
        (true, false) => (State::Partial, format!("{found}; this Linkerd reads none of them")),
        (false, _) => (State::Partial, found),
    })
}

async fn cert_manager(client: &Client, served: Result<&Served, &anyhow::Error>) -> Found {
    let versions = versions(served, "cert-manager.io", "certificates")?;
    if versions.is_empty() {
        return Ok((State::Partial, String::new()));
    }
    let (state, found) = deployed(client, "cert-manager", "cert-manager").await?;
    let found = if found.is_empty() {
        "no Deployment cert-manager/cert-manager".to_owned()
    } else {
        found
    };
    Ok((state, format!("{}, {found}", listed(&versions))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opaque_ports_are_those_of_the_configuration() {
        let config = |values: &str| Some(BTreeMap::from([(VALUES.to_owned(), values.to_owned())]));
        let state = |config: &Option<_>| opaque(Ok(config)).unwrap().0;
        assert_eq!(state(&config("proxy: {opaquePorts: '25,4000-4001'}")), State::Fine);
        assert_eq!(state(&config("proxy: {}")), State::Fine);
        assert_eq!(state(&config("proxy: {opaquePorts: mysql}")), State::Partial);
        assert_eq!(state(&None), State::Unknown);
    }
}
