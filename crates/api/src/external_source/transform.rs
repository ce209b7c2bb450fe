//! `Transform`: a program that changes data inside the operator.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter};

/// A program that changes data inside the operator, without a sidecar.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transform {
    /// Language of the expression: cel. jq is read and refused, since nothing would bound it inside the operator; run it as
    /// a hook.
    #[serde(rename = "type")]
    pub type_: TransformType,

    /// The program.
    #[schemars(length(min = 1, max = 16384))]
    pub expression: String,
}

/// Languages of transforms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Display, EnumIter, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[non_exhaustive]
pub enum TransformType {
    /// The Common Expression Language.
    #[default]
    Cel,
    /// The language of jq, which does not run inside the operator.
    Jq,
}

/// The older form of a transform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LegacyTransform {
    /// Language of the expression; only CEL.
    #[serde(rename = "type")]
    pub type_: LegacyTransformType,

    /// The program.
    #[schemars(length(min = 1, max = 16384))]
    pub expression: String,
}

/// Languages of the older form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LegacyTransformType {
    /// The Common Expression Language.
    #[default]
    Cel,
}

impl LegacyTransform {
    /// The same in today's form.
    #[must_use]
    pub fn as_transform(&self) -> Transform {
        match self.type_ {
            LegacyTransformType::Cel => Transform {
                type_: TransformType::Cel,
                expression: self.expression.clone(),
            },
        }
    }
}
