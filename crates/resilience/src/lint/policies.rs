//! Policies that do not do what they say.

use super::{
    Finding, Rule,
    Severity::{Error, Hint, Warning},
};
use crate::{
    Cluster, PolicyName,
    enact::{Standing, enact},
    warning,
};

pub(super) fn lint(cluster: &Cluster, findings: &mut Vec<Finding>) {
    for policy in &cluster.policies {
        let object = format!("ResiliencePolicy {}", PolicyName::of(policy));
        let enactment = enact(policy, cluster);
        let mut say = |severity, rule, refusal: &trellis_core::Refusal, at: &str| {
            let finding = Finding::new(
                severity,
                rule,
                &object,
                format!("{at}{} ({})", refusal.message, refusal.reason),
            );
            findings.push(match &refusal.hint {
                Some(hint) => finding.hint(hint),
                None => finding,
            });
        };
        if let Some(refusal) = &enactment.refusal {
            say(Error, Rule::InertPolicy, refusal, "");
        }
        for enacted in &enactment.targets {
            let at = format!(
                "{} {}/{}: ",
                enacted.target.place, enacted.target.namespace, enacted.target.name
            );
            for (section, standing) in &enacted.sections {
                match standing {
                    Standing::Inert(refusal) => say(Error, Rule::InertPolicy, refusal, &format!("{at}{section}: ")),
                    Standing::Pending(refusal) => say(Hint, Rule::InertPolicy, refusal, &format!("{at}{section}: ")),
                    Standing::Won | Standing::Overridden(_) => {}
                }
            }
        }
        for enacted in &enactment.targets {
            for (section, standing) in &enacted.sections {
                if let Standing::Overridden(by) = standing {
                    let message = format!("{section} of {} is decided by policy {by}", enacted.target.name);
                    findings.push(Finding::new(Hint, Rule::OverriddenPolicy, &object, message));
                }
            }
        }
        if let Some(text) = warning(&policy.spec) {
            findings.push(Finding::new(Warning, Rule::RetryTimeout, &object, text));
        }
    }
}
