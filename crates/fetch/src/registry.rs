//! `Generators`: which types of sources there are.
//!
//! ```text
//!  register(type, maker) ─▶ table ◀─ create(Source) ─▶ Generator
//! ```
//!
//! Invariants: a type is registered once; a further one needs its module, a variant of [`Source`] and a line in
//! [`Generators::standard`].

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    client::Client,
    error::{Error, Result},
    http_source, request,
    s3::{self, S3Object},
};

/// A source of any type, with all that is needed to ask it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Source {
    /// An HTTP request.
    Http(Box<request::Request>),
    /// An object in an S3 bucket.
    S3(Box<S3Object>),
}

impl Source {
    /// The name of its type.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Http(_) => http_source::KIND,
            Self::S3(_) => s3::KIND,
        }
    }
}

/// Makes the generator for a source of one type.
pub type Maker = Arc<dyn Fn(Source) -> Result<Box<dyn crate::Generator>> + Send + Sync>;

/// A type cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// There is one of this name.
    #[error("the type {0} is registered already")]
    Taken(&'static str),
}

/// The types of sources. Clones are the same table; it can be used and added to from any thread.
#[derive(Clone, Default)]
pub struct Generators {
    makers: Arc<RwLock<BTreeMap<&'static str, Maker>>>,
}

impl Generators {
    /// All types that are built in.
    #[must_use]
    pub fn standard(client: &Client) -> Self {
        let all: [(&'static str, Maker); 2] = [
            (http_source::KIND, http_source::maker(client)),
            (s3::KIND, s3::maker(client)),
        ];
        Self {
            makers: Arc::new(RwLock::new(all.into())),
        }
    }

    /// Add a type.
    pub fn register(&self, kind: &'static str, maker: Maker) -> Result<(), RegistryError> {
        let mut makers = self.makers.write().unwrap_or_else(PoisonError::into_inner);
        if makers.contains_key(kind) {
            return Err(RegistryError::Taken(kind));
        }
        makers.insert(kind, maker);
        Ok(())
    }

    /// The generator for a source.
    ///
    /// # Errors
    /// [`Error::Request`] if its type is not registered or its maker refuses it.
    pub fn create(&self, source: Source) -> Result<Box<dyn crate::Generator>> {
        let maker = self
            .makers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(source.kind())
            .cloned();
        maker.ok_or_else(|| Error::Request {
            what: format!("there is no generator of type {}", source.kind()),
        })?(source)
    }

    /// The types that are registered, sorted.
    #[must_use]
    pub fn supported_types(&self) -> Vec<&'static str> {
        self.makers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .copied()
            .collect()
    }
}

impl fmt::Debug for Generators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.supported_types()).finish()
    }
}
