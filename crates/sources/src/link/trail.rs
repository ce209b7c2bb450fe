//! `Trail`: a request on its way through redirects.

use thiserror::Error;

use super::{Link, Scheme};
use crate::egress::Denied;

/// Redirects that are followed when nobody says another number (as curl's and most clients').
pub const HOPS: u8 = 10;

/// Where a request stands, and what it still may carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trail {
    first: Link,
    at: Link,
    hops: u8,
    limit: u8,
    secrets: bool,
    body: bool,
}

/// Why a redirect is not followed. Addresses are shown without their query.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TrailError {
    /// More hops than allowed, usually a loop.
    #[error("{from} redirects more than {limit} times")]
    TooMany {
        /// Where the request started.
        from: String,
        /// How many are allowed.
        limit: u8,
    },
    /// From TLS to clear text.
    #[error("{from} redirects from https to http, to {to}")]
    Downgrade {
        /// The encrypted address.
        from: String,
        /// The one in the clear.
        to: String,
    },
    /// No `Location`, or one that is no address of ours.
    #[error("{from} redirects to an address that cannot be followed: {why}")]
    Unreadable {
        /// Who redirects.
        from: String,
        /// What is wrong with it.
        why: String,
    },
    /// The egress policy does not admit the next hop.
    #[error("{from} redirects where it may not: {denied}")]
    Denied {
        /// Who redirects.
        from: String,
        /// The rule that decides.
        denied: Box<Denied>,
    },
}

impl Trail {
    /// A request that starts.
    #[must_use]
    pub fn new(first: Link, limit: u8) -> Self {
        Self {
            at: first.clone(),
            first,
            hops: 0,
            limit,
            secrets: true,
            body: true,
        }
    }

    /// The address to ask now.
    #[must_use]
    pub fn at(&self) -> &Link {
        &self.at
    }

    /// Hops made so far.
    #[must_use]
    pub fn hops(&self) -> u8 {
        self.hops
    }

    /// Whether the request may still carry what comes from Secrets: headers, body parts and the client certificate.
    #[must_use]
    pub fn carries_secrets(&self) -> bool {
        self.secrets
    }

    /// Whether the request keeps its method and body. If not it goes on as `GET` without one.
    #[must_use]
    pub fn keeps_method(&self) -> bool {
        self.body
    }

    /// Whether a status code is a redirect that can be followed. 300 and 304 to 306 are not.
    #[must_use]
    pub fn is_redirect(status: u16) -> bool {
        matches!(status, 301 | 302 | 303 | 307 | 308)
    }

    /// The trail after one more redirect.
    ///
    /// 301 to 303 turn every method into `GET`, as all clients do; 307 and 308 keep it, but a body is not sent to another
    /// origin: it may hold what belongs to the first.
    ///
    /// # Errors
    /// See [`TrailError`]. The egress policy is the caller's to ask, with the link that this returns.
    pub fn follow(self, status: u16, location: Option<&str>) -> Result<Self, TrailError> {
        let unreadable = |why: &str| TrailError::Unreadable {
            from: self.at.shown(),
            why: why.to_owned(),
        };
        let location = location.ok_or_else(|| unreadable("there is no Location header"))?;
        if location.chars().any(|c| c.is_control() || c == '\\') {
            return Err(unreadable("it has a backslash or a control character"));
        }
        let joined = self
            .at
            .expose()
            .join(location.trim())
            .map_err(|error| unreadable(&error.to_string()))?;
        let to = Link::checked(joined).map_err(unreadable)?;
        if self.hops >= self.limit {
            return Err(TrailError::TooMany {
                from: self.first.shown(),
                limit: self.limit,
            });
        }
        if self.at.scheme() == Scheme::Https && to.scheme() == Scheme::Http {
            return Err(TrailError::Downgrade {
                from: self.at.shown(),
                to: to.shown(),
            });
        }
        let same = self.first.origin() == to.origin();
        Ok(Self {
            secrets: self.secrets && same,
            body: self.body && same && matches!(status, 307 | 308),
            hops: self.hops + 1,
            at: to,
            ..self
        })
    }
}
