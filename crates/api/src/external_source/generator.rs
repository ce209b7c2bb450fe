//! `Generator`: where data comes from. A type of source is a value of the enum and a block of the same name.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter};

use super::{HttpGenerator, S3Generator, rules};

/// Where data comes from: a type, and the block of that type.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = rules::ONLY_HTTP)]
#[x_kube(validation = rules::ONLY_S3)]
#[serde(rename_all = "camelCase")]
pub struct Generator {
    /// Which of the blocks is used; exactly that one must be there.
    #[serde(rename = "type")]
    pub type_: GeneratorType,

    /// A request to an HTTP server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HttpGenerator")]
    pub http: Option<HttpGenerator>,

    /// An object in a store that speaks S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "S3Generator")]
    pub s3: Option<S3Generator>,
}

impl Generator {
    /// The block that the type names; none in an object that the API server would refuse.
    #[must_use]
    pub fn block(&self) -> Option<GeneratorBlock<'_>> {
        match self.type_ {
            GeneratorType::Http => self.http.as_ref().map(GeneratorBlock::Http),
            GeneratorType::S3 => self.s3.as_ref().map(GeneratorBlock::S3),
        }
    }
}

/// The block of a [`Generator`] that is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GeneratorBlock<'a> {
    /// `generator.http`
    Http(&'a HttpGenerator),
    /// `generator.s3`
    S3(&'a S3Generator),
}

/// Kinds of sources.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Display,
    EnumIter,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[non_exhaustive]
pub enum GeneratorType {
    /// A request to an HTTP server.
    #[default]
    Http,
    /// An object in a store that speaks S3.
    S3,
}
