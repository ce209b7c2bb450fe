//! `spec.loadBias` as annotations.

use trellis_api::LoadBias;
use trellis_core::Refusal;

use super::{Annotations, BIAS_MAX_RETRY_AFTER, BIAS_PENALTY, PENALIZE_FAILURES, since_2_20, time};
use crate::LinkerdVersion;

pub(super) fn write(asked: &LoadBias, linkerd: &LinkerdVersion, annotations: &mut Annotations) -> Result<(), Refusal> {
    since_2_20("spec.loadBias", "loadBias", linkerd)?;
    annotations.insert(PENALIZE_FAILURES, "true".into());
    let (penalty, retry_after) = (asked.penalty.as_deref(), asked.max_retry_after.as_deref());
    time("spec.loadBias.penalty", BIAS_PENALTY, penalty, annotations)?;
    time(
        "spec.loadBias.maxRetryAfter",
        BIAS_MAX_RETRY_AFTER,
        retry_after,
        annotations,
    )?;
    Ok(())
}
