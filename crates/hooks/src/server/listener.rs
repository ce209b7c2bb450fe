//! `Listener`: a socket file, or 127.0.0.1. There is no third.

use std::{
    fmt, fs, io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::ServeError;
use crate::Listen;

/// Owner and group may connect; the operator's container has the same group.
const MODE: u32 = 0o660;

/// Where connections come from.
#[derive(Debug)]
pub(super) enum Listener {
    Socket(UnixListener, SocketFile),
    Loopback(TcpListener, SocketAddr),
}

/// The socket file, removed when it is dropped.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// One connection.
pub(super) enum Incomer {
    Socket(UnixStream),
    Loopback(TcpStream),
}

impl Listener {
    pub(super) async fn bind(listen: &Listen) -> Result<Self, ServeError> {
        match listen {
            Listen::Socket(path) => {
                clear(path).await?;
                let failed = |source| ServeError::Listen {
                    at: path.display().to_string(),
                    source,
                };
                let listener = UnixListener::bind(path).map_err(failed)?;
                let file = SocketFile(path.clone());
                fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(failed)?;
                Ok(Self::Socket(listener, file))
            }
            Listen::Loopback { port, .. } => {
                let at = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
                let failed = |source| ServeError::Listen {
                    at: at.to_string(),
                    source,
                };
                let listener = TcpListener::bind(at).await.map_err(failed)?;
                let at = listener.local_addr().map_err(failed)?;
                Ok(Self::Loopback(listener, at))
            }
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Incomer> {
        match self {
            Self::Socket(listener, _) => Ok(Incomer::Socket(listener.accept().await?.0)),
            Self::Loopback(listener, _) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Incomer::Loopback(stream))
            }
        }
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(..) => None,
            Self::Loopback(_, at) => Some(*at),
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(_, file) => write!(out, "unix://{}", file.0.display()),
            Self::Loopback(_, at) => write!(out, "http://{at}"),
        }
    }
}

/// Removes the socket file of a sidecar that is gone; one that answers, and any other file, stays.
async fn clear(path: &Path) -> Result<(), ServeError> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| ServeError::Listen {
                at: path.display().to_string(),
                source,
            })
        }
        _ => Err(ServeError::InUse(path.to_owned())),
    }
}
