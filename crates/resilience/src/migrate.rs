//! From a legacy `ServiceProfile` to policies.
//!
//! ```text
//!  routes[] ─▶ condition ─▶ matches            isRetryable ─▶ retry, timeout ─▶ requestTimeout
//!           ─▶ routes with the same settings ─▶ one policy with an entry for each
//! ```
//!
//! Invariant: what cannot be said is told in a note, never guessed.

use kube::{ResourceExt as _, core::Resource as _};
use serde::Serialize;
use serde_json::{Value, json};
use trellis_api::{ResiliencePolicy, ResiliencePolicySpec};
use trellis_bindings::linkerd::ServiceProfile;
use trellis_core::Refusal;

use crate::{
    Reason,
    adopt::sections::spelt,
    shortened,
    shown::{VALUE, cut},
};

mod condition;
mod go_duration;

pub(crate) use go_duration::milliseconds as go_milliseconds;

/// Most entries and most matches of a policy.
const MOST: usize = 8;

/// Most notes about two routes that may fit the same request: there is one for each pair.
const PAIRS: usize = 20;

/// Policies in place of a profile.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Migration {
    /// The policies, in the profile's namespace.
    pub policies: Vec<ResiliencePolicy>,
    /// What has no counterpart, and what to do, one sentence each.
    pub notes: Vec<String>,
}

/// Settings of a route of the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Settings {
    codes: Option<String>,
    timeout: Option<u64>,
}

/// Policies that retry and time out the same requests as the profile.
///
/// Refuses with `Invalid` a profile whose name is not that of a Service in this cluster domain.
pub fn service_profile(profile: &ServiceProfile, cluster_domain: &str) -> Result<Migration, Refusal> {
    let full = profile.name_any();
    let service = full
        .strip_suffix(&format!(".svc.{cluster_domain}"))
        .and_then(|name| name.split_once('.'));
    let Some((name, namespace)) = service else {
        return Err(Reason::Invalid.refuse(format!("{full} is not the name of a Service in {cluster_domain}")));
    };
    let mut notes = Vec::new();
    let mut groups: Vec<(Settings, Vec<Value>)> = Vec::new();
    // Absent matches may fit anything.
    let mut earlier: Vec<(String, Settings, Option<Vec<Value>>)> = Vec::new();
    let mut pairs = 0;
    for (index, route) in profile.spec.routes.iter().flatten().enumerate() {
        let called = route["name"]
            .as_str()
            .map_or_else(|| format!("number {index}"), str::to_owned);
        let called = cut(&called, VALUE);
        let settings = settings(route, &called, &mut notes);
        let found = condition::matches(&route["condition"]).and_then(|matches| {
            let none = "its condition names no request";
            if matches.is_empty() {
                Err(none.to_owned())
            } else {
                Ok(matches)
            }
        });
        if let Ok(matches) = &found {
            // Of a profile's routes the first that fits counts; of an HTTPRoute's the most specific.
            let before = earlier.iter().filter(|(_, other, theirs)| {
                let fits = theirs.as_ref().is_none_or(|theirs| condition::meet(theirs, matches));
                *other != settings && fits
            });
            for (name, ..) in before {
                pairs += 1;
                if pairs <= PAIRS {
                    notes.push(format!(
                        "route {name} comes before route {called} in the profile and has what fits both; of a policy's \
                         routes the more specific one has it: check what fits both, or give it a route of its own"
                    ));
                }
            }
        }
        earlier.push((called.clone(), settings.clone(), found.as_ref().ok().cloned()));
        if settings.codes.is_none() && settings.timeout.is_none() {
            if let Err(why) = found {
                notes.push(format!(
                    "route {called}: {}; it sets nothing, and may have what a later route is for",
                    cut(&why, VALUE)
                ));
            }
            continue;
        }
        match found {
            Ok(matches) => {
                let known = groups.iter().position(|(same, _)| *same == settings);
                if known.is_none() {
                    groups.push((settings, Vec::new()));
                }
                let at = known.unwrap_or(groups.len() - 1);
                let Some((_, entries)) = groups.get_mut(at) else {
                    continue;
                };
                for matches in matches.chunks(MOST) {
                    let entry = format!("{}-{}", slug(&called), entries.len() + 1);
                    entries.push(json!({"name": entry, "http": {"matches": matches}}));
                }
            }
            Err(why) => notes.push(format!(
                "route {called}: {}; write a policy for it by hand",
                cut(&why, VALUE)
            )),
        }
    }
    if pairs > PAIRS {
        notes.push(format!("and {} more routes that come before others", pairs - PAIRS));
    }
    more_notes(profile, &mut notes);

    let policies = policies(profile, name, namespace, &groups)?;
    if !policies.is_empty() {
        notes.push(format!(
            "the policies act once ServiceProfile {full} is deleted; until then they say ServiceProfileShadowed"
        ));
    }
    Ok(Migration { policies, notes })
}

/// The policies for this Service: one for each settings, more where their entries are too many.
fn policies(
    profile: &ServiceProfile,
    name: &str,
    namespace: &str,
    groups: &[(Settings, Vec<Value>)],
) -> Result<Vec<ResiliencePolicy>, Refusal> {
    let own = profile.namespace().unwrap_or_default();
    let chunks = groups
        .iter()
        .flat_map(|(settings, entries)| entries.chunks(MOST).map(move |entries| (settings, entries)));
    let mut policies = Vec::new();
    for (index, (settings, entries)) in chunks.enumerate() {
        let mut spec = json!({"targetRef": {"name": name}, "routes": entries});
        let fields = spec
            .as_object_mut()
            .ok_or_else(|| Reason::Invalid.refuse("no fields"))?;
        if own != namespace
            && let Some(target) = fields.get_mut("targetRef").and_then(Value::as_object_mut)
        {
            target.insert("namespace".into(), json!(namespace));
        }
        if let Some(codes) = &settings.codes {
            fields.insert("retry".into(), json!({"maxAttempts": 1, "retryableStatusCodes": codes}));
        }
        if let Some(timeout) = settings.timeout {
            fields.insert("timeout".into(), json!({"requestTimeout": spelt(timeout)}));
        }
        let spec: ResiliencePolicySpec = serde_json::from_value(spec)
            .map_err(|error| Reason::Invalid.refuse(format!("the policy cannot be written: {error}")))?;
        let mut policy = ResiliencePolicy::new(&shortened(&format!("{name}-profile-{}", index + 1)), spec);
        policy.meta_mut().namespace = profile.namespace();
        policies.push(policy);
    }
    Ok(policies)
}

fn settings(route: &Value, called: &str, notes: &mut Vec<String>) -> Settings {
    let timeout = route["timeout"]
        .as_str()
        .and_then(|text| match go_duration::milliseconds(text) {
            Some(milliseconds) if (1..=trellis_api::MAX_DURATION_MS).contains(&milliseconds) => Some(milliseconds),
            _ => {
                notes.push(format!(
                    "route {called}: timeout {} has no counterpart",
                    cut(text, VALUE)
                ));
                None
            }
        });
    let retryable = route["isRetryable"] == json!(true);
    let classes = route["responseClasses"].as_array().map_or(&[][..], Vec::as_slice);
    let codes = retryable.then(|| {
        codes(classes).unwrap_or_else(|| {
            notes.push(format!(
                "route {called}: its responseClasses have no counterpart; 5xx is retried"
            ));
            "5xx".to_owned()
        })
    });
    if !classes.is_empty() {
        notes.push(format!(
            "route {called}: responseClasses do not count for breakers and metrics any more"
        ));
    }
    Settings { codes, timeout }
}

/// The statuses that count as failures, if the classes say just that.
fn codes(classes: &[Value]) -> Option<String> {
    if classes.is_empty() {
        return Some("5xx".into());
    }
    let mut ranges = Vec::new();
    for class in classes {
        let condition = class.get("condition")?.as_object()?;
        let status = condition.get("status")?.as_object()?;
        let bound = |name: &str, or: u64| status.get(name).map_or(Some(or), Value::as_u64);
        let (low, high) = (bound("min", 100)?, bound("max", 599)?);
        let simple = condition.len() == 1 && class.get("isFailure") == Some(&json!(true));
        if !simple || low > high || !(100..=599).contains(&low) || !(100..=599).contains(&high) {
            return None;
        }
        ranges.push(format!("{low}-{high}"));
    }
    crate::codes::canonical("responseClasses", &ranges.join(",")).ok()
}

fn more_notes(profile: &ServiceProfile, notes: &mut Vec<String>) {
    let retryable = |route: &Value| route["isRetryable"] == json!(true);
    if profile.spec.routes.iter().flatten().any(retryable) {
        notes.push(
            "a profile's retries have a budget and no count; a policy has a count and no budget: maxAttempts is 1"
                .into(),
        );
    }
    if profile.spec.retry_budget.is_some() {
        notes.push("retryBudget has no counterpart".into());
    }
    if profile.spec.dst_overrides.as_ref().is_some_and(|all| !all.is_empty()) {
        notes.push("dstOverrides have no counterpart in a policy; use backendRefs of an HTTPRoute".into());
    }
}

/// A name as a label of DNS.
fn slug(name: &str) -> String {
    let mapped: String = name
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let parts: Vec<&str> = mapped.split('-').filter(|part| !part.is_empty()).collect();
    let joined: String = parts.join("-").chars().take(40).collect();
    match joined.trim_matches('-') {
        "" => "route".into(),
        // With a number it is the name of a route that a policy makes by itself.
        "rest" => "route-rest".into(),
        trimmed => trimmed.into(),
    }
}
