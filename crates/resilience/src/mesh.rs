//! `Mesh`: what must be known of the installed Linkerd before a policy can be judged.
//!
//! ```text
//!  --linkerd-version ───────────────────▶ Mesh { version, opaque ports, cluster domain }
//!  ConfigMap linkerd-config, key values ─▶
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;
use trellis_core::Refusal;

use crate::{LinkerdVersion, Ports, Reason};

/// Key of the `ConfigMap` `linkerd-config` that holds Linkerd's Helm values, as YAML.
pub const VALUES: &str = "values";

/// Cluster domain where nothing else is said.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// The Linkerd of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    /// Its version.
    pub version: LinkerdVersion,
    /// Ports that it treats as opaque on Services without an annotation of their own.
    pub opaque_ports: Ports,
    /// Domain in the names of Services, such as [`CLUSTER_DOMAIN`].
    pub cluster_domain: String,
    /// How it was found.
    pub source: Source,
}

/// How a [`Mesh`] was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The version was given by flag; the rest is Linkerd's default.
    Flag,
    /// Read from `linkerd-config`.
    ConfigMap,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Values {
    linkerd_version: Option<String>,
    cluster_domain: Option<String>,
    proxy: Option<Proxy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Proxy {
    opaque_ports: Option<String>,
}

impl Mesh {
    /// A Linkerd of this version with default settings, in a cluster of the default domain.
    ///
    /// Refuses with `LinkerdVersionUnknown` or `LinkerdTooOld`.
    pub fn from_flag(version: &str) -> Result<Self, Refusal> {
        Ok(Self {
            version: version.parse()?,
            opaque_ports: Ports::opaque_by_default(),
            cluster_domain: CLUSTER_DOMAIN.into(),
            source: Source::Flag,
        })
    }

    /// A Linkerd of which nothing is known, for finding what was written for one: it reads whatever any of them does.
    #[must_use]
    pub fn unknown(cluster_domain: &str) -> Self {
        Self {
            version: LinkerdVersion::unknown(),
            opaque_ports: Ports::opaque_by_default(),
            cluster_domain: cluster_domain.into(),
            source: Source::Flag,
        }
    }

    /// The Linkerd that wrote this `ConfigMap`. A list of opaque ports that is not one counts as empty, as in Linkerd.
    ///
    /// Refuses with `LinkerdNotFound` when the key [`VALUES`] is missing or unreadable or names no version, with
    /// `LinkerdVersionUnknown` or `LinkerdTooOld` when the version does not do.
    pub fn from_config_map(data: &BTreeMap<String, String>) -> Result<Self, Refusal> {
        let hint = "reinstall or upgrade Linkerd with Helm or its CLI, or start the operator with --linkerd-version";
        let values = data.get(VALUES).ok_or_else(|| {
            Reason::LinkerdNotFound
                .refuse("ConfigMap linkerd-config has no key values")
                .hint(hint)
        })?;
        let values: Values = serde_saphyr::from_str(values).map_err(|error| {
            let first = error.to_string().lines().next().unwrap_or_default().to_owned();
            Reason::LinkerdNotFound
                .refuse(format!("ConfigMap linkerd-config is unreadable: {first}"))
                .hint(hint)
        })?;
        let version = values.linkerd_version.ok_or_else(|| {
            Reason::LinkerdNotFound
                .refuse("ConfigMap linkerd-config names no version")
                .hint(hint)
        })?;
        let version = version.parse().map_err(|refusal: Refusal| {
            if refusal.reason == Reason::LinkerdVersionUnknown.as_str() {
                refusal.hint("start the operator with --linkerd-version, which then decides")
            } else {
                refusal
            }
        })?;
        Ok(Self {
            version,
            opaque_ports: values
                .proxy
                .and_then(|proxy| proxy.opaque_ports)
                .map_or_else(Ports::opaque_by_default, |list| list.parse().unwrap_or_default()),
            cluster_domain: values.cluster_domain.unwrap_or_else(|| CLUSTER_DOMAIN.into()),
            source: Source::ConfigMap,
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn read(values: &str) -> Result<Mesh, Refusal> {
        Mesh::from_config_map(&BTreeMap::from([(VALUES.to_owned(), values.to_owned())]))
    }

    #[test]
    fn a_flag_means_defaults() {
        let mesh = Mesh::from_flag("2.20").unwrap();
        assert_eq!(mesh.version.to_string(), "2.20");
        assert_eq!(mesh.cluster_domain, "cluster.local");
        assert_eq!(mesh.source, Source::Flag);
        assert!(mesh.opaque_ports.contains(3306));
        assert_eq!(Mesh::from_flag("2.10").unwrap_err().reason, "LinkerdTooOld");
    }

    #[test]
    fn the_config_map_is_read() {
        let mesh = read(
            "cliVersion: linkerd/cli edge-26.8.3\nclusterDomain: corp.example\nlinkerdVersion: edge-26.8.3\n\
             policyController:\n  logLevel: info\nproxy:\n  opaquePorts: \"25,4000-4002\"\n  cores: 2\n",
        )
        .unwrap();
        assert_eq!(mesh.version.release(), (2, 20));
        assert_eq!(mesh.cluster_domain, "corp.example");
        assert_eq!(mesh.source, Source::ConfigMap);
        assert!(mesh.opaque_ports.contains(4001));
        assert!(!mesh.opaque_ports.contains(3306));
    }

    #[rstest]
    #[case::absent("linkerdVersion: stable-2.18.1", true)]
    #[case::absent_list("linkerdVersion: stable-2.18.1\nproxy: {}", true)]
    #[case::number("linkerdVersion: '2.18'\nproxy:\n  opaquePorts: 25", false)]
    #[case::empty("linkerdVersion: 2.18.1\nproxy:\n  opaquePorts: ''", false)]
    #[case::invalid("linkerdVersion: 2.18.1\nproxy:\n  opaquePorts: mysql", false)]
    fn opaque_ports_default_only_when_absent(#[case] values: &str, #[case] mysql: bool) {
        let mesh = read(values).unwrap();
        assert_eq!(mesh.version.release(), (2, 18));
        assert_eq!(mesh.cluster_domain, CLUSTER_DOMAIN);
        assert_eq!(mesh.opaque_ports.contains(3306), mysql);
    }

    #[rstest]
    #[case("{}", "LinkerdNotFound", "names no version")]
    #[case("linkerdVersion: [", "LinkerdNotFound", "unreadable")]
    #[case("linkerdVersion: dev-undefined", "LinkerdVersionUnknown", "dev-undefined")]
    #[case("linkerdVersion: dev-undefined", "LinkerdVersionUnknown", "--linkerd-version")]
    #[case("linkerdVersion: stable-2.14.1", "LinkerdTooOld", "stable-2.14.1")]
    fn what_is_no_linkerd_is_refused(#[case] values: &str, #[case] reason: &str, #[case] words: &str) {
        let refusal = read(values).unwrap_err();
        assert_eq!(refusal.reason, reason);
        assert!(refusal.to_string().contains(words), "{refusal}");
        assert!(!refusal.to_string().contains('\n'), "{refusal}");
    }

    #[test]
    fn a_config_map_without_values_is_refused() {
        let refusal = Mesh::from_config_map(&BTreeMap::new()).unwrap_err();
        assert_eq!(refusal.reason, "LinkerdNotFound");
        assert!(refusal.message.contains("values"));
    }
}
