//! The command lines of a plane's four processes.

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::{Options, PlaneError};
use crate::pki::{FRONT_PROXY, Pki, SERVICE_RANGE};
use crate::{Binaries, port};

/// Loopback, the only address that anything listens on.
const HOST: &str = "127.0.0.1";
/// What the API server says its address is. It must be given, since the default needs a network route, and must not be
/// loopback, which an Endpoints object refuses; this one is reserved for documentation and never routed.
const ADVERTISED: &str = "192.0.2.1";

/// The ports of a plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ports {
    pub(crate) etcd: u16,
    etcd_peer: u16,
    pub(crate) apiserver: u16,
    controller_manager: u16,
    scheduler: u16,
}

impl Ports {
    /// Free ports; those of `previous` that still are.
    pub(crate) fn find(previous: Option<Self>) -> Result<Self, PlaneError> {
        let free = |port: fn(&Self) -> u16| port::free(previous.as_ref().map(port)).map_err(PlaneError::Ports);
        Ok(Self {
            etcd: free(|ports| ports.etcd)?,
            etcd_peer: free(|ports| ports.etcd_peer)?,
            apiserver: free(|ports| ports.apiserver)?,
            controller_manager: free(|ports| ports.controller_manager)?,
            scheduler: free(|ports| ports.scheduler)?,
        })
    }
}

/// Everything that the command lines refer to.
pub(crate) struct Commands<'a> {
    pub(crate) options: &'a Options,
    pub(crate) root: &'a Path,
    pub(crate) pki: &'a Pki,
    pub(crate) ports: Ports,
    pub(crate) etcd: &'a Binaries,
    pub(crate) kubernetes: &'a Binaries,
}

impl Commands<'_> {
    /// etcd, with client certificates required. Without a data directory nothing waits for the disk.
    pub(crate) fn etcd(&self) -> Result<Command, PlaneError> {
        let mut command = Command::new(self.etcd.path("etcd")?);
        let client = format!("https://{HOST}:{}", self.ports.etcd);
        let peer = format!("https://{HOST}:{}", self.ports.etcd_peer);
        flag(&mut command, "name", "trellis");
        flag(&mut command, "data-dir", self.root.join("etcd"));
        flag(&mut command, "listen-client-urls", &client);
        flag(&mut command, "advertise-client-urls", &client);
        flag(&mut command, "listen-peer-urls", &peer);
        flag(&mut command, "initial-advertise-peer-urls", &peer);
        flag(&mut command, "initial-cluster", format!("trellis={peer}"));
        for side in ["", "peer-"] {
            flag(&mut command, &format!("{side}client-cert-auth"), "true");
            flag(
                &mut command,
                &format!("{side}trusted-ca-file"),
                self.pki.certificate("etcd-ca"),
            );
            flag(&mut command, &format!("{side}cert-file"), self.pki.certificate("etcd"));
            flag(&mut command, &format!("{side}key-file"), self.pki.key("etcd"));
        }
        if self.options.data.is_none() {
            flag(&mut command, "unsafe-no-fsync", "true");
        }
        Ok(command)
    }

    /// The API server.
    pub(crate) fn apiserver(&self) -> Result<Command, PlaneError> {
        let mut command = Command::new(self.kubernetes.path("kube-apiserver")?);
        flag(&mut command, "bind-address", HOST);
        flag(&mut command, "advertise-address", ADVERTISED);
        flag(&mut command, "secure-port", self.ports.apiserver.to_string());
        flag(&mut command, "cert-dir", self.root.join("apiserver"));
        flag(&mut command, "tls-cert-file", self.pki.certificate("serving"));
        flag(&mut command, "tls-private-key-file", self.pki.key("serving"));
        flag(&mut command, "client-ca-file", self.pki.certificate("ca"));
        flag(
            &mut command,
            "etcd-servers",
            format!("https://{HOST}:{}", self.ports.etcd),
        );
        flag(&mut command, "etcd-cafile", self.pki.certificate("etcd-ca"));
        flag(&mut command, "etcd-certfile", self.pki.certificate("etcd"));
        flag(&mut command, "etcd-keyfile", self.pki.key("etcd"));
        flag(&mut command, "service-account-issuer", "https://kubernetes.default.svc");
        flag(
            &mut command,
            "service-account-signing-key-file",
            self.pki.key("service-account"),
        );
        flag(
            &mut command,
            "service-account-key-file",
            self.pki.service_account_public(),
        );
        flag(&mut command, "service-cluster-ip-range", SERVICE_RANGE);
        flag(&mut command, "authorization-mode", "RBAC");
        flag(&mut command, "allow-privileged", "true");
        flag(
            &mut command,
            "requestheader-client-ca-file",
            self.pki.certificate("front-proxy-ca"),
        );
        flag(&mut command, "requestheader-allowed-names", FRONT_PROXY);
        flag(&mut command, "requestheader-username-headers", "X-Remote-User");
        flag(&mut command, "requestheader-group-headers", "X-Remote-Group");
        flag(&mut command, "requestheader-extra-headers-prefix", "X-Remote-Extra-");
        flag(
            &mut command,
            "proxy-client-cert-file",
            self.pki.certificate("front-proxy"),
        );
        flag(&mut command, "proxy-client-key-file", self.pki.key("front-proxy"));
        if self.options.audit {
            flag(&mut command, "audit-policy-file", self.root.join("audit-policy.yaml"));
            flag(&mut command, "audit-log-path", self.root.join("audit.log"));
            flag(&mut command, "audit-log-mode", "blocking");
            // One file: readers of the log do not follow rotation.
            flag(&mut command, "audit-log-maxsize", "4096");
        }
        command.args(&self.options.apiserver_flags);
        Ok(command)
    }

    /// The controller manager, which also signs certificate requests.
    pub(crate) fn controller_manager(&self) -> Result<Command, PlaneError> {
        let mut command = self.client(
            "kube-controller-manager",
            "controller-manager",
            self.ports.controller_manager,
        )?;
        flag(
            &mut command,
            "service-account-private-key-file",
            self.pki.key("service-account"),
        );
        flag(&mut command, "use-service-account-credentials", "true");
        flag(&mut command, "root-ca-file", self.pki.certificate("ca"));
        flag(&mut command, "cluster-signing-cert-file", self.pki.certificate("ca"));
        flag(&mut command, "cluster-signing-key-file", self.pki.key("ca"));
        // The default of 20 requests a second makes its controllers start one after the other, over five seconds.
        flag(&mut command, "kube-api-qps", "1000");
        flag(&mut command, "kube-api-burst", "1000");
        command.args(&self.options.controller_manager_flags);
        Ok(command)
    }

    /// The scheduler.
    pub(crate) fn scheduler(&self) -> Result<Command, PlaneError> {
        self.client("kube-scheduler", "scheduler", self.ports.scheduler)
    }

    fn client(&self, program: &str, user: &str, port: u16) -> Result<Command, PlaneError> {
        let mut command = Command::new(self.kubernetes.path(program)?);
        let kubeconfig = self.root.join(format!("{user}.kubeconfig"));
        flag(&mut command, "kubeconfig", &kubeconfig);
        flag(&mut command, "authentication-kubeconfig", &kubeconfig);
        flag(&mut command, "authorization-kubeconfig", &kubeconfig);
        flag(&mut command, "leader-elect", "false");
        flag(&mut command, "bind-address", HOST);
        flag(&mut command, "secure-port", port.to_string());
        flag(&mut command, "tls-cert-file", self.pki.certificate("serving"));
        flag(&mut command, "tls-private-key-file", self.pki.key("serving"));
        Ok(command)
    }
}

fn flag(command: &mut Command, name: &str, value: impl AsRef<std::ffi::OsStr>) {
    let mut argument = std::ffi::OsString::from(format!("--{name}="));
    argument.push(value);
    command.arg(argument);
}
