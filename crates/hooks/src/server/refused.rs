//! `Refused`: why a request is answered with a status and a sentence, and nothing was started.

use std::io;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::{Answer, whole};
use crate::{BadVariable, Denied, Unresolved, slots::Busy};

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("{0}")]
    Bad(String),
    #[error(transparent)]
    Variable(#[from] BadVariable),
    #[error("the bearer token is missing or wrong")]
    Stranger,
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    #[error("no such path; there are /execute, /run and /health")]
    Path,
    #[error("method not allowed; use {0}")]
    Method(&'static str),
    #[error("the request has more than {0} bytes; send it to /run")]
    TooLarge(usize),
    #[error(transparent)]
    Busy(#[from] Busy),
    #[error("cannot run hooks now: {0}")]
    Unable(#[from] io::Error),
    /// The hook that was asked for, as the log names it.
    #[error("{why}")]
    Hook {
        command: String,
        namespace: Option<String>,
        why: Box<Refused>,
    },
}

impl Refused {
    fn status(&self) -> StatusCode {
        match self {
            Self::Bad(_) | Self::Variable(_) => StatusCode::BAD_REQUEST,
            Self::Stranger => StatusCode::UNAUTHORIZED,
            Self::Unresolved(Unresolved::Read { .. }) | Self::Unable(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Denied(_) | Self::Unresolved(_) => StatusCode::FORBIDDEN,
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Hook { why, .. } => why.status(),
        }
    }

    /// One line in the log. What was asked may be a secret where it was not understood.
    pub(super) fn tell(&self, path: &str) {
        let (status, path) = (self.status().as_u16(), cut(path));
        let (hook, why) = match self {
            Self::Hook {
                command,
                namespace,
                why,
            } => (Some((command, namespace)), why.as_ref()),
            other => (None, other),
        };
        let why = match why {
            Self::Bad(_) => "the request is not as it must be; the answer says why".to_owned(),
            other => cut(&other.to_string()),
        };
        if let Some((command, namespace)) = hook {
            let namespace = namespace.as_deref().map(cut);
            tracing::info!(path, status, command = cut(command), namespace, why, "hook refused");
        } else {
            tracing::info!(path, status, why, "request refused");
        }
    }

    pub(super) fn answer(&self) -> Response<Answer> {
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        let mut answer = whole(self.status(), kind, Bytes::from(format!("{self}\n")));
        let extra = match self {
            Self::Method(methods) => Some((header::ALLOW, *methods)),
            Self::Busy(_) => Some((header::RETRY_AFTER, "1")),
            Self::Stranger => Some((header::WWW_AUTHENTICATE, "Bearer")),
            Self::Hook { why, .. } if matches!(**why, Self::Busy(_)) => Some((header::RETRY_AFTER, "1")),
            _ => None,
        };
        if let Some((name, value)) = extra {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

/// As much of it as a line of the log may have.
fn cut(text: &str) -> String {
    text.chars().take(256).collect()
}
