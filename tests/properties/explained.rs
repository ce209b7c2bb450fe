//! P11: `trellis explain`, the shipped command, says of a living cluster what the independent model says, field by
//! field.
//!
//! objects at rest ─┬─▶ trellis explain service/x -n … --from … --json ─▶ every value, without origins and words ─┐
//!                  └─▶ model ─▶ the same shape ────────────────────────────────────────────────────────────────┴─▶ equal

use std::path::Path;

use futures::{StreamExt as _, stream};
use serde_json::{Map, Value, json};
use tokio::process::Command;
use trellis_model::{Mode, Outlook, RuleOutlook, State, outlook};
use trellis_testkit::{operator::binary, plane::Plane};

use crate::{
    chronicle::Chronicle,
    lifecycle::{Ran, proving},
    property::Property,
    routed::view::View,
};

/// Questions at once.
const AT_ONCE: usize = 4;

/// Asks, for every story of P11 that went well, what the clients of each of its namespaces get from each of its
/// Services; for every other story (in the long form, for one of five), what clients of the last one get from the first.
/// Returns how many questions there were: each reads the whole cluster.
pub(crate) async fn all(plane: &Plane, ran: &mut [Ran], chronicle: &Chronicle) -> usize {
    let kubeconfig = plane.control().kubeconfig();
    let told = ran.iter().map(|ran| {
        let all = chronicle.all(&ran.namespaces);
        let whole = ran.case.property == Property::P11;
        let skipped = !whole && proving() && !ran.case.number.is_multiple_of(5);
        (ran.failure.is_none() && !skipped, whole, ran.namespaces.clone(), all)
    });
    let told: Vec<_> = told.collect();
    let asked = stream::iter(&told)
        .map(async |(asked, whole, namespaces, all)| {
            let mut count = 0;
            if !asked {
                return Ok(count);
            }
            let view = View::of(namespaces, all);
            for (name, service) in &all[0].services {
                let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
                let ports: Vec<i32> = ports.map(|port| port.port).collect();
                for client in namespaces.iter().rev() {
                    let question = Question {
                        state: &view.state,
                        namespace: &namespaces[0],
                        service: name,
                        ports: ports.clone(),
                        client,
                    };
                    question.ask(kubeconfig).await?;
                    count += 1;
                    if !whole {
                        return Ok(count);
                    }
                }
            }
            Ok(count)
        })
        .buffered(AT_ONCE)
        .collect::<Vec<Result<usize, String>>>()
        .await;
    let mut count = 0;
    for (ran, asked) in ran.iter_mut().zip(asked) {
        match asked {
            Ok(asked) => count += asked,
            Err(wrong) => ran.failure = Some(wrong),
        }
    }
    count
}

/// One question: what clients of a namespace get from a Service, at each port that it lists.
struct Question<'a> {
    state: &'a State<'a>,
    namespace: &'a str,
    service: &'a str,
    ports: Vec<i32>,
    client: &'a str,
}

impl Question<'_> {
    /// Asks both.
    async fn ask(&self, kubeconfig: &Path) -> Result<(), String> {
        let mut command = Command::new(binary().await.unwrap());
        command
            .args(["explain", &format!("service/{}", self.service)])
            .args(["-n", self.namespace, "--from", self.client, "--json"])
            .args(["--linkerd-version", trellis_tests::LINKERD.as_str()])
            .env("KUBECONFIG", kubeconfig);
        let output = command.output().await.unwrap();
        let fail = |what: &str| {
            let (namespace, service, client) = (self.namespace, self.service, self.client);
            Err(format!("explain {namespace}/{service} from {client}: {what}"))
        };
        if !output.status.success() {
            return fail(&String::from_utf8_lossy(&output.stderr));
        }
        let told: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        let ports = self.ports.iter();
        let expected: Vec<Value> = ports.map(|port| self.expected(*port)).collect();
        let found: Vec<Value> = told.iter().map(values).collect();
        if found == expected {
            Ok(())
        } else {
            fail(&format!("\n  said  {}\n  model {}", json!(found), json!(expected)))
        }
    }

    fn expected(&self, port: i32) -> Value {
        let found = outlook(self.state, self.namespace, self.service, port, self.client);
        let mut told = json!({
            "service": format!("{}/{}", self.namespace, self.service), "port": port, "from": self.client,
            "protocol": if found.grpc { "grpc" } else { "http" },
            "rules": found.rules.iter().map(rule).collect::<Vec<_>>(), "othersRefused": found.others_refused,
        });
        balancer(&mut told, &found);
        told
    }
}

/// What the model says of endpoints, or why there is nothing to say.
fn balancer(told: &mut Value, found: &Outlook) {
    if let Some(inert) = found.inert {
        told["inert"] = format!("{inert:?}").into();
    }
    if let Some(breaker) = found.breaker {
        told["breaker"] = json!({
            "mode": "consecutive", "maxFailures": breaker.max_failures, "jitterRatio": breaker.jitter,
            "minPenalty": breaker.min_penalty, "maxPenalty": breaker.max_penalty,
        });
        if let Mode::Unified(rate) = breaker.mode {
            told["breaker"]["mode"] = "unified".into();
            told["breaker"]["threshold"] = rate.threshold.into();
            told["breaker"]["window"] = rate.window.into();
            told["breaker"]["minRequests"] = rate.min_requests.into();
            told["breaker"]["honorRetryAfter"] = rate.honor_retry_after.into();
        }
    }
    if let Some(bias) = found.bias {
        told["loadBias"] = json!({ "penalty": bias.penalty, "maxRetryAfter": bias.max_retry_after });
    }
}

/// What the model says of a rule.
fn rule(found: &RuleOutlook) -> Value {
    let mut told = json!({ "index": found.index });
    if let Some(route) = &found.route {
        told["route"] = route.as_str().into();
    }
    if let Some(taker) = &found.taken_by {
        told["takenBy"] = taker.as_str().into();
    }
    if let Some(block) = &found.retry {
        told["retry"] = json!({ "limit": block.retry.limit });
        if !block.retry.statuses.is_empty() {
            told["retry"]["statuses"] = json!(block.retry.statuses);
        }
        if !block.codes.is_empty() {
            told["retry"]["codes"] = json!(block.codes);
        }
        if let Some(timeout) = block.retry.timeout {
            told["retry"]["timeout"] = timeout.into();
        }
    }
    let times = [
        ("request", found.timeouts.request),
        ("response", found.timeouts.response),
        ("idle", found.timeouts.idle),
    ];
    let set: Map<String, Value> = times
        .into_iter()
        .filter_map(|(name, time)| Some((name.to_owned(), time?.into())))
        .collect();
    if !set.is_empty() {
        told["timeouts"] = set.into();
    }
    told
}

/// What the command says, without origins and words.
fn values(told: &Value) -> Value {
    let mut told = told.clone();
    let inert = told["inert"]["reason"].clone();
    let fields = told.as_object_mut().unwrap();
    for words in ["notes", "linkerd", "inert"] {
        fields.remove(words);
    }
    if !inert.is_null() {
        fields.insert("inert".to_owned(), inert);
    }
    let strip = |value: Option<&mut Value>| {
        if let Some(fields) = value.and_then(Value::as_object_mut) {
            fields.remove("origins");
            fields.remove("matches");
        }
    };
    strip(told.get_mut("breaker"));
    strip(told.get_mut("loadBias"));
    for rule in told["rules"].as_array_mut().unwrap() {
        strip(rule.get_mut("retry"));
        strip(rule.get_mut("timeouts"));
        strip(Some(rule));
    }
    told
}
