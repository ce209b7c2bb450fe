//! `Pki`: the keys and certificates of one plane.
//!
//! Three authorities, as kubeadm has them: the cluster's, etcd's and the front proxy's. P-256 throughout. Written into a
//! private folder that gets its name by one rename, so a plane finds all of it or none; files are readable by the owner only.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// The first address of [`SERVICE_RANGE`], which the `kubernetes` Service gets.
const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Addresses of Services.
pub(crate) const SERVICE_RANGE: &str = "10.96.0.0/16";
/// The only client that the API server believes as a front proxy.
pub(crate) const FRONT_PROXY: &str = "front-proxy-client";

/// Why keys and certificates could not be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// A certificate could not be made.
    #[error("cannot make the certificate of {name}")]
    Certificate {
        /// Whose certificate.
        name: String,
        /// The cause.
        source: rcgen::Error,
    },
    /// A file could not be written or read.
    #[error("cannot use {} of the plane's keys; to start afresh, use another data directory", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The keys and certificates of a plane, in one folder.
#[derive(Clone, Debug)]
pub(crate) struct Pki {
    folder: PathBuf,
}

impl Pki {
    /// What `folder` holds, made first if it does not exist.
    pub(crate) fn open(folder: &Path) -> Result<Self, PkiError> {
        if !folder.exists() {
            let partial = folder.with_extension("partial");
            let io = |source| PkiError::Io {
                path: partial.clone(),
                source,
            };
            if partial.exists() {
                fs::remove_dir_all(&partial).map_err(io)?;
            }
            DirBuilder::new().mode(0o700).create(&partial).map_err(io)?;
            make(&partial)?;
            fs::rename(&partial, folder).map_err(io)?;
        }
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// The certificate file of `name`.
    pub(crate) fn certificate(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.crt"))
    }

    /// The key file of `name`.
    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.key"))
    }

    /// The public key with which ServiceAccount tokens are checked.
    pub(crate) fn service_account_public(&self) -> PathBuf {
        self.folder.join("service-account.pub")
    }

    /// The text of one of its files.
    pub(crate) fn read(path: &Path) -> Result<String, PkiError> {
        fs::read_to_string(path).map_err(|source| PkiError::Io {
            path: path.to_owned(),
            source,
        })
    }
}

fn make(folder: &Path) -> Result<(), PkiError> {
    let ca = Authority::new("ca", "trellis-ca", folder)?;
    let addresses = [
        "127.0.0.1".to_owned(),
        SERVICE_ADDRESS.to_string(),
        "localhost".to_owned(),
        "kubernetes".to_owned(),
        "kubernetes.default".to_owned(),
        "kubernetes.default.svc".to_owned(),
        "kubernetes.default.svc.cluster.local".to_owned(),
    ];
    ca.issue("serving", "kube-apiserver", None, &addresses)?;
    ca.issue("admin", "kubernetes-admin", Some("system:masters"), &[])?;
    ca.issue("controller-manager", "system:kube-controller-manager", None, &[])?;
    ca.issue("scheduler", "system:kube-scheduler", None, &[])?;

    let etcd = Authority::new("etcd-ca", "trellis-etcd-ca", folder)?;
    etcd.issue("etcd", "etcd", None, &["127.0.0.1".to_owned(), "localhost".to_owned()])?;

    let front = Authority::new("front-proxy-ca", "trellis-front-proxy-ca", folder)?;
    front.issue("front-proxy", FRONT_PROXY, None, &[])?;

    let tokens = key_pair("service-account")?;
    write(&folder.join("service-account.key"), &tokens.serialize_pem())?;
    write(&folder.join("service-account.pub"), &tokens.public_key_pem())
}

struct Authority<'a> {
    issuer: Issuer<'static, KeyPair>,
    folder: &'a Path,
}

impl<'a> Authority<'a> {
    fn new(file: &str, name: &str, folder: &'a Path) -> Result<Self, PkiError> {
        let key = key_pair(name)?;
        let mut params = params(name, None, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = params.self_signed(&key).map_err(certificate_error(name))?;
        write(&folder.join(format!("{file}.crt")), &certificate.pem())?;
        write(&folder.join(format!("{file}.key")), &key.serialize_pem())?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            folder,
        })
    }

    /// A certificate for clients and, with `addresses`, for servers.
    fn issue(&self, file: &str, name: &str, group: Option<&str>, addresses: &[String]) -> Result<(), PkiError> {
        let key = key_pair(name)?;
        let mut params = params(name, group, addresses)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !addresses.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let certificate = params.signed_by(&key, &self.issuer).map_err(certificate_error(name))?;
        write(&self.folder.join(format!("{file}.crt")), &certificate.pem())?;
        write(&self.folder.join(format!("{file}.key")), &key.serialize_pem())
    }
}

fn params(name: &str, group: Option<&str>, addresses: &[String]) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(addresses).map_err(certificate_error(name))?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    // Fixed dates: a clock that is wrong must not make a local plane unusable, and nothing outside trusts these.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    Ok(params)
}

fn key_pair(name: &str) -> Result<KeyPair, PkiError> {
    KeyPair::generate().map_err(certificate_error(name))
}

fn certificate_error(name: &str) -> impl FnOnce(rcgen::Error) -> PkiError {
    move |source| PkiError::Certificate {
        name: name.to_owned(),
        source,
    }
}

/// Writes a file that only the owner can read.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), PkiError> {
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| PkiError::Io {
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_private_and_survive() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("pki");
        fs::create_dir(folder.with_extension("partial")).unwrap();
        let pki = Pki::open(&folder).unwrap();
        let ca = Pki::read(&pki.certificate("ca")).unwrap();
        assert!(ca.starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(
            Pki::read(&pki.service_account_public())
                .unwrap()
                .starts_with("-----BEGIN PUBLIC KEY-----")
        );
        for file in fs::read_dir(&folder).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(Pki::read(&Pki::open(&folder).unwrap().certificate("ca")).unwrap(), ca);
    }
}
