//! `Settings`: how a sidecar is set up. Defaults are in one place, `Settings::new`.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::constant_time::verify_slices_are_equal;

use crate::{Limits, Network, step::Fence};

/// Where the sidecar listens. There is no way to name another address.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Listen {
    /// A socket file that the operator's container shares, made with mode 0660.
    Socket(PathBuf),
    /// 127.0.0.1 at this port (0: a free one); each request but `GET /health` needs the token.
    Loopback {
        /// The port.
        port: u16,
        /// What `Authorization: Bearer` must carry.
        token: Token,
    },
}

/// A shared secret; never shown.
#[derive(Clone)]
pub struct Token(String);

/// A token that could be guessed or not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token has at least 16 letters, digits or signs, without spaces")]
pub struct WeakToken;

impl Token {
    /// A token of at least 16 visible ASCII characters; white space around it is dropped.
    pub fn new(text: &str) -> Result<Self, WeakToken> {
        let text = text.trim();
        if text.len() < 16 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(WeakToken);
        }
        Ok(Self(text.to_owned()))
    }

    /// The value of the header that carries it.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Whether the header carries it; takes the same time for any wrong header of its length.
    pub(crate) fn is_in(&self, header: &[u8]) -> bool {
        verify_slices_are_equal(self.header().as_bytes(), header).is_ok()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token(…)")
    }
}

/// How a sidecar is set up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// Where it listens.
    pub listen: Listen,
    /// The words between this program's name and the arguments of [`crate::step`]: the hidden subcommand.
    pub step: Vec<OsString>,
    /// Where bare names are looked up, in this order. Default `/usr/local/bin`, `/usr/bin`, `/bin`.
    pub path: Vec<PathBuf>,
    /// Where runs have their private directories; an emptyDir. Default: the system's directory for temporary files.
    pub work: PathBuf,
    /// What no run may open, beside `work` and the directory of the socket file, where the kernel can keep it from that:
    /// where the token came from. Default none.
    pub hidden: Vec<PathBuf>,
    /// Where runs may write beside their own directory, and what is there is for all runs: a cache. Default none. Where
    /// the kernel cannot keep them apart, they may write wherever the sidecar may.
    pub writable: Vec<PathBuf>,
    /// Variables of the sidecar's own environment that every run gets. Default none.
    pub passed: BTreeMap<String, OsString>,
    /// How much one run may take.
    pub limits: Limits,
    /// Whether runs may reach the network. Default [`Network::OffWherePossible`].
    pub network: Network,
    /// How many runs there are at once. Default 4. Runs that stream into each other hold one slot each.
    pub at_once: usize,
    /// How many may wait for a slot. Default 64.
    pub queue: usize,
    /// How long each of them waits. Default 30 s.
    pub patience: Duration,
    /// Timeout of a request that names none. Default 30 s.
    pub default_timeout: Duration,
}

impl Settings {
    /// The defaults for a sidecar that listens there, and whose program leads to [`crate::step`] by those words.
    #[must_use]
    pub fn new(listen: Listen, step: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            listen,
            step: step.into_iter().map(Into::into).collect(),
            path: ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from).into(),
            work: std::env::temp_dir(),
            hidden: Vec::new(),
            writable: Vec::new(),
            passed: BTreeMap::new(),
            limits: Limits::default(),
            network: Network::default(),
            at_once: 4,
            queue: 64,
            patience: Duration::from_secs(30),
            default_timeout: Duration::from_secs(30),
        }
    }

    /// What a run may open.
    pub(crate) fn fence(&self) -> Fence {
        let socket = match &self.listen {
            Listen::Socket(file) => Some(surroundings(file)),
            Listen::Loopback { .. } => None,
        };
        let own = [self.work.clone()].into_iter().chain(socket);
        Fence {
            hidden: own.chain(self.hidden.iter().map(|file| surroundings(file))).collect(),
            writable: self.writable.clone(),
        }
    }
}

/// The directory of a file, with which the file is hidden under any other name there, too; the file alone where that
/// directory is one of the root's, such as `/etc` or `/run`.
fn surroundings(file: &Path) -> PathBuf {
    let folder = file.parent().filter(|folder| folder.components().count() > 2);
    folder.unwrap_or(file).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_a_file_hides_no_part_of_the_system() {
        let mut settings = Settings::new(Listen::Socket("/run/trellis/hooks.sock".into()), ["x"]);
        settings.work = "/var/spool/hooks".into();
        settings.hidden = vec!["/etc/hooks-token/token".into(), "/etc/token".into(), "/token".into()];
        let expected = [
            "/var/spool/hooks",
            "/run/trellis",
            "/etc/hooks-token",
            "/etc/token",
            "/token",
        ];
        assert_eq!(settings.fence().hidden, expected.map(PathBuf::from));
    }

    #[test]
    fn a_token_is_strong_and_never_shown() {
        assert_eq!(Token::new("short").unwrap_err(), WeakToken);
        assert_eq!(Token::new("with a space in the middle").unwrap_err(), WeakToken);
        let token = Token::new("0123456789abcdef\n").unwrap();
        assert!(!format!("{token:?}").contains("0123"));
        assert!(token.is_in(b"Bearer 0123456789abcdef"));
        assert!(!token.is_in(b"Bearer 0123456789abcdeg"));
        assert!(!token.is_in(b"0123456789abcdef"));
    }
}
