//! What may happen in a cell, and random sequences of it.
//!
//! place 0: Services, users' routes, policies for them │ places 1 and 2: consumers' policies, users' routes for consumers,
//! policies for those

use std::time::Duration;

use proptest::{collection::vec, option, prelude::*, sample::select, sample::subsequence, strategy::BoxedStrategy};
use serde_json::{Value, json};

use crate::{
    stand_in::Says,
    steps::{RETRY, SERVICES, Shape, TIMEOUT, duration, item, shape},
};

/// Stands in a spec for the name of the Services' namespace.
pub(crate) const THERE: &str = "@";
/// The routes of users: one of each kind beside the Services, and one in each place of consumers. Its name is another
/// one, since of two that were made in the same second the name decides, and their namespaces do not.
pub(crate) const THEIRS: [(&str, &str); 3] = [
    ("HTTPRoute", "theirs"),
    ("GRPCRoute", "theirs-rpc"),
    ("HTTPRoute", "theirs-here"),
];
/// Where there may be which of them: a place, and a number in [`THEIRS`].
const WHERE: [(usize, usize); 4] = [(0, 0), (0, 1), (1, 2), (2, 2)];
/// The policies of a place.
pub(crate) const POLICIES: &[&str] = &["one", "two"];

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A manifest of a policy is applied in a place.
    Policy(usize, &'static str, Value),
    /// A section is switched.
    Toggle(usize, &'static str, &'static str, bool),
    DeletePolicy(usize, &'static str),
    /// Deleted, and created again under the same name as soon as it is gone.
    RecreatePolicy(usize, &'static str, Value),
    Service(&'static str, Shape),
    DeleteService(&'static str),
    RecreateService(&'static str, Shape),
    /// In a place, a user's route of this number, at this port, with this annotation.
    Route(usize, usize, Option<u16>, Option<(&'static str, &'static str)>),
    DeleteRoute(usize, usize),
    /// A profile that rules instead of everything else, for the clients of a place; or none.
    Profile(usize, bool),
    /// Another manager writes an annotation on a route that a policy made: the one of this rank, if there are so many.
    Meddle(usize, &'static str, &'static str),
    /// What Linkerd says from now on.
    Says(Says),
    /// Waits until every status tells the truth.
    Settle,
}

/// How often what happens: policies, their deletions and rebirths, Services, users' routes, meddling, Linkerd's moods.
pub(crate) type Weights = [u32; 6];

/// What users and other managers write on routes: their own, bad values, and ours with other values.
const FOREIGN: &[(&str, &str)] = &[
    ("retry.linkerd.io/limit", "99"),
    ("retry.linkerd.io/timeout", "77ms"),
    ("timeout.linkerd.io/idle", "79s"),
    ("timeout.linkerd.io/response", "1.5s"),
    ("timeout.linkerd.io/request-timeout", "0s"),
    ("example.com/retry.linkerd.io", "theirs"),
];

const GRPC: &[&str] = &[
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// What a policy is for.
#[derive(Clone, Copy, Debug)]
enum Form {
    Whole,
    Http,
    Grpc,
    UsersHttp,
    UsersGrpc,
}

/// Retries and timeouts whose values no policy of another form has.
fn sections(form: Form) -> BoxedStrategy<Value> {
    let whole = matches!(form, Form::Whole);
    let limit = if whole { 1..=3u32 } else { 4..=10 };
    let time = move || duration().prop_map(move |text| own(whole, &text));
    let codes = subsequence(GRPC, 1..=3).prop_map(|codes| codes.join(","));
    let retry = (
        limit,
        option::weighted(0.8, vec(item(), 1..=3)),
        option::of(time()),
        codes,
    )
        .prop_map(move |(limit, statuses, timeout, codes)| {
            let mut section = json!({ "maxAttempts": limit });
            if let Some(timeout) = timeout {
                section["retryTimeout"] = timeout.into();
            }
            match (form, statuses) {
                (Form::Grpc | Form::UsersGrpc, _) => section["retryableGrpcCodes"] = codes.into(),
                (_, Some(statuses)) => section["retryableStatusCodes"] = statuses.join(",").into(),
                _ => {}
            }
            section
        });
    let timeout = (time(), time(), 1..=3u8).prop_map(|(request, idle, which)| {
        let mut section = json!({});
        if which & 1 != 0 {
            section["requestTimeout"] = request.into();
        }
        if which & 2 != 0 {
            section["idleTimeout"] = idle.into();
        }
        section
    });
    (retry, timeout, 1..=3u8, vec(prop::bool::weighted(0.9), 2))
        .prop_map(|(retry, timeout, which, on)| {
            let mut sections = json!({});
            for (bit, name, mut section, on) in [(1, RETRY, retry, on[0]), (2, TIMEOUT, timeout, on[1])] {
                if which & bit != 0 {
                    section["enabled"] = on.into();
                    sections[name] = section;
                }
            }
            sections
        })
        .boxed()
}

/// The time, in milliseconds where it is not for a whole Service.
fn own(whole: bool, text: &str) -> String {
    if whole && !text.ends_with("ms") {
        return text.to_owned();
    }
    let number: String = text.chars().take_while(char::is_ascii_digit).collect();
    if whole {
        format!("{number}s")
    } else {
        format!("{number}1ms")
    }
}

/// The matches of entries.
fn entries(form: Form) -> BoxedStrategy<Value> {
    let http = select(vec![
        json!({ "name": "carts", "http": { "matches": [{ "path": { "value": "/carts" }, "method": "GET" }] } }),
        json!({ "name": "exact", "http": { "matches": [{ "path": { "type": "Exact", "value": "/a/b" } }, { "method": "PUT" }] } }),
        json!({ "name": "beta", "http": { "matches": [{ "headers": [{ "name": "x-beta", "value": "1" }] }] } }),
    ]);
    let grpc = select(vec![
        json!({ "name": "add", "grpc": { "matches": [{ "service": "shop.v1.Carts", "method": "Add" }] } }),
        json!({ "name": "all-carts", "grpc": { "matches": [{ "service": "shop.v1.Carts" }] } }),
    ]);
    let one = if matches!(form, Form::Grpc) { grpc } else { http };
    vec(one, 1..=2)
        .prop_map(|mut entries| {
            entries.dedup_by_key(|entry| entry["name"].clone());
            json!(entries)
        })
        .boxed()
}

/// The spec of a policy in a place.
fn spec(place: usize) -> BoxedStrategy<Value> {
    let form = if place == 0 {
        select(vec![
            Form::Whole,
            Form::Whole,
            Form::Http,
            Form::Http,
            Form::Http,
            Form::Grpc,
            Form::UsersHttp,
            Form::UsersGrpc,
        ])
    } else {
        // For consumers: all requests, some, or those of a route that is theirs.
        select(vec![
            Form::Whole,
            Form::Whole,
            Form::Http,
            Form::Grpc,
            Form::UsersHttp,
            Form::UsersHttp,
        ])
    };
    let service = prop_oneof![4 => Just(SERVICES[0]), 1 => Just(SERVICES[1])];
    // Without one, gRPC is mostly refused.
    let port = |form| {
        let often = if matches!(form, Form::Grpc) { 0.8 } else { 0.4 };
        option::weighted(often, select(vec![80u16, 80, 8080]))
    };
    form.prop_flat_map(move |form| {
        // A consumer has a route of its own, also for all requests.
        let values = if place > 0 && matches!(form, Form::Whole) {
            Form::Http
        } else {
            form
        };
        (Just(form), sections(values), entries(form), service.clone(), port(form))
    })
    .prop_map(move |(form, mut spec, entries, service, port)| {
        spec["targetRef"] = match form {
            Form::UsersHttp => theirs(if place == 0 { 0 } else { 2 }),
            Form::UsersGrpc => theirs(1),
            _ if place > 0 => json!({ "name": service, "namespace": THERE }),
            _ => json!({ "name": service }),
        };
        if let Some(port) = port.filter(|_| spec["targetRef"]["kind"].is_null()) {
            spec["targetRef"]["port"] = port.into();
        }
        if matches!(form, Form::Http | Form::Grpc) {
            spec["routes"] = entries;
        }
        spec
    })
    .boxed()
}

fn theirs(number: usize) -> Value {
    let (kind, name) = THEIRS[number];
    json!({ "kind": kind, "name": name })
}

fn policy() -> BoxedStrategy<(usize, &'static str, Value)> {
    let place = prop_oneof![3 => Just(0usize), 1 => Just(1), 1 => Just(2)];
    (place, select(POLICIES))
        .prop_flat_map(|(place, name)| (Just(place), Just(name), spec(place)))
        .boxed()
}

fn step(weights: Weights) -> BoxedStrategy<Step> {
    let [policies, deletions, services, routes, meddling, moods] = weights;
    let service = || prop_oneof![4 => Just(SERVICES[0]), 1 => Just(SERVICES[1])];
    let named = || {
        (
            prop_oneof![3 => Just(0usize), 1 => Just(1), 1 => Just(2)],
            select(POLICIES),
        )
    };
    let port = option::of(select(vec![80u16, 8080]));
    let theirs = || prop_oneof![3 => select(&WHERE[..2]), 2 => select(&WHERE[2..])];
    let says = select(vec![
        Says::TheTruth,
        Says::TheTruth,
        Says::Late(Duration::from_millis(300)),
        Says::Nothing,
        Says::No("NoMatchingParent"),
        Says::No("RouteReasonConflicted"),
    ]);
    prop_oneof![
        policies * 2 => policy().prop_map(|(place, name, spec)| Step::Policy(place, name, spec)),
        policies => (named(), select(vec![RETRY, TIMEOUT]), any::<bool>())
            .prop_map(|((place, name), section, on)| Step::Toggle(place, name, section, on)),
        deletions => named().prop_map(|(place, name)| Step::DeletePolicy(place, name)),
        deletions => policy().prop_map(|(place, name, spec)| Step::RecreatePolicy(place, name, spec)),
        services => (service(), shape(true), 0..6u8).prop_map(|(name, shape, how)| match how {
            0 => Step::DeleteService(name),
            1 | 2 => Step::RecreateService(name, shape),
            _ => Step::Service(name, shape),
        }),
        routes * 2 => (theirs(), port, option::of(select(FOREIGN)))
            .prop_map(|((place, number), port, annotation)| Step::Route(place, number, port, annotation)),
        routes => theirs().prop_map(|(place, number)| Step::DeleteRoute(place, number)),
        1 => (0..3usize, prop::bool::weighted(0.4)).prop_map(|(place, there)| Step::Profile(place, there)),
        meddling => (0..3usize, select(FOREIGN)).prop_map(|(rank, (key, value))| Step::Meddle(rank, key, value)),
        moods => says.prop_map(Step::Says),
        2 => Just(Step::Settle),
    ]
    .boxed()
}

/// A whole sequence: a Service, a policy that makes routes for it and one of a consumer, for whom a user may have made a
/// route; then anything.
pub(crate) fn sequence(weights: Weights) -> BoxedStrategy<Vec<Step>> {
    let theirs = prop::bool::weighted(0.4);
    let begin = (shape(false), policy(), spec(1), theirs).prop_map(|(shape, (place, name, spec), consumer, theirs)| {
        let mut begin = vec![
            Step::Service(SERVICES[0], shape),
            Step::Policy(place, name, spec),
            Step::Policy(1, "two", consumer),
        ];
        begin.extend(theirs.then_some(Step::Route(1, 2, None, None)));
        begin
    });
    (begin.prop_shuffle(), vec(step(weights), 4..=9))
        .prop_map(|(begin, rest)| [begin, rest].concat())
        .boxed()
}
