//! What users and other controllers may do to a namespace, and random sequences of it.
//!
//! Property ─▶ Mix (which steps, how often) ─▶ strategy ─▶ steps of one case

use proptest::{collection::vec, option, prelude::*, sample::select, strategy::BoxedStrategy};
use serde_json::{Value, json};

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A manifest of the policy is applied: created, or replaced.
    Policy(&'static str, Value),
    /// A section is switched.
    Toggle(&'static str, &'static str, bool),
    /// The policy names another Service, port or both.
    Retarget(&'static str, &'static str, Option<u16>),
    DeletePolicy(&'static str),
    /// A manifest of the Service is applied: created, or changed.
    Service(&'static str, Shape),
    DeleteService(&'static str),
    /// Deleted and created again, with another uid.
    RecreateService(&'static str, Shape),
    /// Another manager sets or removes an annotation, as `kubectl annotate --overwrite` does.
    Annotate(&'static str, &'static str, Option<&'static str>),
    /// Another manager applies whatever Linkerd annotations stand there, so that it owns them too.
    CoOwn(&'static str),
    /// That manager applies nothing.
    Release(&'static str),
    /// Waits until every status tells the truth.
    Settle,
}

/// A Service's ports (with appProtocol) and its list of opaque ports.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) ports: Vec<(u16, Option<&'static str>)>,
    pub(crate) opaque: Option<&'static str>,
}

/// What a property's sequences are made of.
#[derive(Clone, Copy)]
pub(crate) struct Mix {
    /// The policies that there may be.
    pub(crate) policies: &'static [&'static str],
    /// The sections that they may have.
    pub(crate) sections: &'static [&'static str],
    /// The keys that others write, each with its values.
    pub(crate) foreign: &'static [(&'static str, &'static [&'static str])],
    /// How often: a manifest, a toggle, a retarget, a deletion, the Service, others' edits, shared ownership.
    pub(crate) weights: [u32; 7],
    /// Whether Services may be such that Linkerd ignores them.
    pub(crate) inert: bool,
}

pub(crate) const SERVICES: &[&str] = &["web", "api"];
pub(crate) const BREAKER: &str = "circuitBreaker";
pub(crate) const RETRY: &str = "retry";
pub(crate) const TIMEOUT: &str = "timeout";
pub(crate) const SECTIONS: &[&str] = &[BREAKER, RETRY, TIMEOUT];

type Keys = &'static [(&'static str, &'static [&'static str])];

/// Keys that only look like ours: whoever writes by prefix, or whole maps, touches them.
pub(crate) const LOOKALIKES: Keys = &[
    (
        "balancer.linkerd.io/failure-accrual-consecutive-max-failure",
        &["1", "x"],
    ),
    ("config.linkerd.io/failure-accrual", &["consecutive"]),
    ("balancer.alpha.linkerd.io/penalize-failures", &["true"]),
    ("retry.linkerd.io/limits", &["3"]),
    ("retry.linkerd.io/http-status-codes", &["5xx,429"]),
    ("retry.linkerd.io/grpc", &["unavailable", "nonsense"]),
    ("timeout.linkerd.io/request-timeout", &["0s"]),
    ("resilience.trellis.dev/policy", &["mine"]),
    ("example.com/timeout.linkerd.io", &["é", ""]),
];

/// Our own keys, as others write them: good, bad, and in the way.
pub(crate) const BREAKER_KEYS: Keys = &[
    ("balancer.linkerd.io/failure-accrual", &["unified", "Consecutive"]),
    (
        "balancer.linkerd.io/failure-accrual-consecutive-max-failures",
        &["101", "many"],
    ),
    (
        "balancer.linkerd.io/failure-accrual-consecutive-min-penalty",
        &["2s", "90s", "1m30s", "0"],
    ),
    (
        "balancer.linkerd.io/failure-accrual-consecutive-max-penalty",
        &["70s", "1ms", "0s", "60"],
    ),
    (
        "balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio",
        &["0.125", "NaN", " 1", "101"],
    ),
];
pub(crate) const RETRY_KEYS: Keys = &[
    ("retry.linkerd.io/limit", &["99", " 3", "many"]),
    ("retry.linkerd.io/http", &["418", "4xx", "5xx, 429"]),
    ("retry.linkerd.io/timeout", &["77ms", "1.5s", "0", "10"]),
];
pub(crate) const TIMEOUT_KEYS: Keys = &[
    ("timeout.linkerd.io/request", &["77s", "1m30s"]),
    ("timeout.linkerd.io/response", &["78s", "10"]),
    ("timeout.linkerd.io/idle", &["79s", "1.5s", " 5s "]),
];

/// A duration that the API server admits.
pub(crate) fn duration() -> BoxedStrategy<String> {
    prop_oneof![
        (1..=9999u32).prop_map(|n| format!("{n}ms")),
        (1..=600u32).prop_map(|n| format!("{n}s")),
        (1..=90u32).prop_map(|n| format!("{n}m")),
        (1..=24u32).prop_map(|n| format!("{n}h")),
        Just("1d".to_owned()),
    ]
    .boxed()
}

fn breaker() -> BoxedStrategy<Value> {
    let penalties = prop_oneof![
        Just(json!({})),
        (1..=60u32).prop_map(|n| json!({ "minPenalty": format!("{n}s") })),
        (1..=90u32).prop_map(|n| json!({ "maxPenalty": format!("{n}m") })),
        (1..=5000u32, 5..=600u32)
            .prop_map(|(min, max)| json!({ "minPenalty": format!("{min}ms"), "maxPenalty": format!("{max}s") })),
    ];
    (option::weighted(0.9, 1..=100u32), penalties, option::of(0..=400u32))
        .prop_map(|(threshold, mut section, jitter)| {
            if let Some(threshold) = threshold {
                section["failureThreshold"] = threshold.into();
            }
            if let Some(quarters) = jitter {
                section["jitterRatio"] = (f64::from(quarters) / 4.0).into();
            }
            section
        })
        .boxed()
}

/// An item of a list of statuses.
pub(crate) fn item() -> BoxedStrategy<String> {
    prop_oneof![
        2 => Just("5xx".to_owned()),
        1 => Just("gateway-error".to_owned()),
        2 => (100..=599u16).prop_map(|code| code.to_string()),
        1 => (100..=599u16, 0..=99u16).prop_map(|(low, more)| format!("{low}-{}", (low + more).min(599))),
    ]
    .boxed()
}

fn retry() -> BoxedStrategy<Value> {
    (
        option::weighted(0.9, 1..=10u32),
        option::weighted(0.9, vec(item(), 1..=4)),
        option::of(duration()),
    )
        .prop_map(|(attempts, codes, timeout)| {
            let mut section = json!({});
            if let Some(attempts) = attempts {
                section["maxAttempts"] = attempts.into();
            }
            if let Some(codes) = codes {
                section["retryableStatusCodes"] = codes.join(",").into();
            }
            if let Some(timeout) = timeout {
                section["retryTimeout"] = timeout.into();
            }
            section
        })
        .boxed()
}

fn timeout() -> BoxedStrategy<Value> {
    (duration(), duration(), duration(), 1..=7u8)
        .prop_map(|(request, response, idle, which)| {
            let mut section = json!({});
            for (bit, name, time) in [
                (1, "requestTimeout", request),
                (2, "responseTimeout", response),
                (4, "idleTimeout", idle),
            ] {
                if which & bit != 0 {
                    section[name] = time.into();
                }
            }
            section
        })
        .boxed()
}

/// The spec of a policy with some of these sections, at least one.
pub(crate) fn spec(sections: &'static [&'static str]) -> BoxedStrategy<Value> {
    let target = prop_oneof![3 => Just("web"), 1 => Just("api")];
    let port = prop_oneof![6 => Just(None), 2 => Just(Some(80u16)), 1 => Just(Some(8080))];
    let chosen = (1..(1u8 << sections.len()), vec(prop::bool::weighted(0.85), 3));
    (target, port, chosen, breaker(), retry(), timeout())
        .prop_map(move |(target, port, (which, enabled), breaker, retry, timeout)| {
            let mut spec = json!({ "targetRef": { "name": target } });
            if let Some(port) = port {
                spec["targetRef"]["port"] = port.into();
            }
            for (bit, (name, on)) in sections.iter().zip(enabled).enumerate() {
                if which & (1 << bit) != 0 {
                    spec[name] = match *name {
                        BREAKER => breaker.clone(),
                        RETRY => retry.clone(),
                        _ => timeout.clone(),
                    };
                    spec[name]["enabled"] = on.into();
                }
            }
            spec
        })
        .boxed()
}

/// A Service's shape; `inert`: perhaps one that Linkerd ignores.
pub(crate) fn shape(inert: bool) -> BoxedStrategy<Shape> {
    if !inert {
        let ports = select(vec![
            vec![(80, None)],
            vec![(80, Some("http")), (8080, None)],
            vec![(8080, None), (80, None), (9000, None)],
        ]);
        let opaque = prop_oneof![8 => Just(None), 1 => Just(Some("9000")), 1 => Just(Some("no list"))];
        return (ports, opaque)
            .prop_map(|(ports, opaque)| Shape { ports, opaque })
            .boxed();
    }
    let protocol = || prop_oneof![5 => Just(None), 1 => select(vec![Some("http"), Some("kubernetes.io/h2c"), Some("grpc"), Some("linkerd.io/opaque")])];
    let ports = vec((select(vec![80u16, 8080, 3306, 9000]), protocol()), 1..=3).prop_map(|mut ports| {
        ports.sort_by_key(|(port, _)| *port);
        ports.dedup_by_key(|(port, _)| *port);
        ports
    });
    let opaque = prop_oneof![6 => Just(None), 3 => select(vec![Some("80"), Some("8080,9000"), Some("1-65535"), Some("no list"), Some("")])];
    (ports, opaque)
        .prop_map(|(ports, opaque)| Shape { ports, opaque })
        .boxed()
}

/// One step of this mix.
fn step(mix: Mix) -> BoxedStrategy<Step> {
    let policy = || select(mix.policies);
    let service = || prop_oneof![3 => Just(SERVICES[0]), 1 => Just(SERVICES[1])];
    let [manifest, toggle, retarget, deletion, services, edits, sharing] = mix.weights;
    let annotate =
        select(mix.foreign).prop_flat_map(|(key, values)| (Just(key), option::weighted(0.7, select(values))));
    prop_oneof![
        manifest => (policy(), spec(mix.sections)).prop_map(|(name, spec)| Step::Policy(name, spec)),
        toggle => (policy(), select(mix.sections), any::<bool>()).prop_map(|(name, section, on)| Step::Toggle(name, section, on)),
        retarget => (policy(), select(vec!["web", "api", "missing"]), option::of(select(vec![80u16, 8080, 9])))
            .prop_map(|(name, target, port)| Step::Retarget(name, target, port)),
        deletion => policy().prop_map(Step::DeletePolicy),
        services => (service(), shape(mix.inert), 0..6u8).prop_map(|(name, shape, how)| match how {
            0 => Step::DeleteService(name),
            1 | 2 => Step::RecreateService(name, shape),
            _ => Step::Service(name, shape),
        }),
        edits => (service(), annotate).prop_map(|(name, (key, value))| Step::Annotate(name, key, value)),
        sharing => (service(), any::<bool>()).prop_map(|(name, own)| if own { Step::CoOwn(name) } else { Step::Release(name) }),
        2 => Just(Step::Settle),
    ]
    .boxed()
}

/// A whole sequence: something to begin with, then anything.
pub(crate) fn sequence(mix: Mix) -> BoxedStrategy<Vec<Step>> {
    let begin = (shape(mix.inert), spec(mix.sections), any::<bool>()).prop_map(move |(shape, spec, service_first)| {
        let mut begin = vec![Step::Service(SERVICES[0], shape), Step::Policy(mix.policies[0], spec)];
        if !service_first {
            begin.reverse();
        }
        begin
    });
    (begin, vec(step(mix), 3..=8))
        .prop_map(|(begin, rest)| [begin, rest].concat())
        .boxed()
}
