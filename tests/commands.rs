//! The commands that explain, check and take over, on a living cluster: their texts, their JSON and their exit codes.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{path::Path, process::Output};

use k8s_openapi::api::core::v1::Service;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use trellis_api::ResiliencePolicy;
use trellis_bindings::linkerd::ServiceProfile;
use trellis_testkit::{fixtures::service, operator::binary, plane::Shared};

#[path = "commands/doctor.rs"]
mod doctor;
#[path = "commands/hooks.rs"]
mod hooks;
#[path = "commands/reconcile.rs"]
mod reconcile;
#[path = "commands/source.rs"]
mod source;
#[path = "artifacts/upstream.rs"]
#[expect(dead_code, reason = "some of it only the tests of artifacts need")]
mod upstream;

static PLANE: Shared = trellis_tests::operator_plane();

struct Said {
    code: Option<i32>,
    data: String,
    talk: String,
}

async fn trellis(kubeconfig: &Path, arguments: &[&str]) -> Said {
    let mut command = tokio::process::Command::new(binary().await.unwrap());
    command
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .env("NO_COLOR", "1");
    let Output { status, stdout, stderr } = command.output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said {
        code: status.code(),
        data: text(stdout),
        talk: text(stderr),
    }
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic_with(&format!("{error}: {}", self.data)))
    }
}

#[expect(clippy::panic, reason = "helper of tests")]
fn panic_with(text: &str) -> Value {
    panic!("{text}")
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "one cluster, in the order in which a user meets the commands"
)]
async fn a_cluster_is_explained_linted_taken_over_and_migrated() {
    let plane = PLANE.get().await.unwrap();
    let isolated = plane.isolated("commands").await.unwrap();
    let namespace = isolated.name().to_owned();
    let by_hand = service("web")
        .port(80)
        .annotation("retry.linkerd.io/limit", "3")
        .annotation("retry.linkerd.io/http", "5xx,429")
        .annotation("timeout.linkerd.io/request", "10s");
    isolated.create_object(by_hand.build()).await.unwrap();
    let bad = service("bad").port(80).annotation("retry.linkerd.io/http", "3");
    isolated.create_object(bad.build()).await.unwrap();
    isolated
        .create_object(service("legacy").port(80).build())
        .await
        .unwrap();
    let profile: ServiceProfile = serde_json::from_value(json!({
        "apiVersion": "linkerd.io/v1alpha2", "kind": "ServiceProfile",
        "metadata": { "name": format!("legacy.{namespace}.svc.cluster.local") },
        "spec": { "routes": [{ "name": "GET /books", "condition": { "method": "GET", "pathRegex": "/books" },
                               "isRetryable": true, "timeout": "300ms" }],
                  "retryBudget": { "retryRatio": 0.2, "minRetriesPerSecond": 10, "ttl": "10s" } },
    }))
    .unwrap();
    isolated.create_object(profile).await.unwrap();
    let account = trellis_tests::account(plane).await.unwrap();
    let operator = trellis_tests::launch(account.path(), "commands", &[])
        .start()
        .await
        .unwrap();
    operator.ready().await;

    let admin = plane.control().kubeconfig();
    let on = |arguments: &[&str]| {
        let mut all: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        all.extend(["--linkerd-version".to_owned(), "2.18".to_owned()]);
        async move { trellis(admin, &all.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };

    // explain: every value with who said it; what others get; wrong names.
    let before = on(&["explain", "service/web", "-n", &namespace]).await;
    assert_eq!(before.code, Some(0), "{}", before.talk);
    for line in [
        "limit: 3  <- annotation retry.linkerd.io/limit of the Service",
        "statuses: [[500,599],[429,429]]  <- annotation retry.linkerd.io/http of the Service",
        "request: 10000 ms  <- annotation timeout.linkerd.io/request of the Service",
    ] {
        assert!(before.data.contains(line), "{line} missing in:\n{}", before.data);
    }
    let broken = on(&["explain", "svc/bad", "-n", &namespace, "--json"]).await.json();
    assert_eq!(
        broken[0]["rules"][0].get("retry"),
        None,
        "a bad list of statuses is no retry: {broken}"
    );
    let shadowed = on(&["explain", "legacy", "-n", &namespace, "--port", "80"]).await;
    assert!(shadowed.data.contains("(ServiceProfileShadowed)"), "{}", shadowed.data);
    for wrong in [["explain", "pod/web"], ["explain", "service/none"]] {
        let refused = on(&wrong).await;
        assert!(
            refused.code == Some(1) && refused.talk.starts_with("error: "),
            "{}",
            refused.talk
        );
    }

    // lint: exit code 1, the object and the rule.
    let findings = on(&["lint", "--json"]).await;
    assert_eq!(findings.code, Some(1));
    let of_bad = findings.json().as_array().unwrap().iter().any(|finding| {
        finding["object"] == format!("Service {namespace}/bad")
            && finding["rule"] == "invalid-annotation"
            && finding["severity"] == "error"
    });
    assert!(of_bad, "{}", findings.data);
    assert!(on(&["lint"]).await.data.contains("[invalid-annotation]"));

    // migrate: what has no counterpart is said.
    let name = format!("legacy.{namespace}.svc.cluster.local");
    let migrated = on(&["migrate", "serviceprofile", &name, "-n", &namespace, "--json"])
        .await
        .json();
    assert_eq!(migrated["policies"][0]["kind"], "ResiliencePolicy", "{migrated}");
    assert!(
        migrated["notes"].to_string().to_lowercase().contains("budget"),
        "{migrated}"
    );

    // adopt: the policy applies as it is, and calls get the same as before.
    let adopted = on(&["adopt", "service/web", "-n", &namespace, "--json"]).await.json();
    assert_eq!(adopted["policy"]["kind"], "ResiliencePolicy", "{adopted}");
    let policy: ResiliencePolicy = serde_json::from_value(adopted["policy"].clone()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), adopted["policy"].to_string()).unwrap();
    let diff = on(&["diff", "-f", file.path().to_str().unwrap(), "-n", &namespace, "--json"])
        .await
        .json();
    assert_eq!(diff["calls"], json!([]), "{diff}");
    let before = on(&["explain", "service/web", "-n", &namespace, "--json"]).await.json();
    let respelt = adopted["respelt"].as_object().unwrap();
    assert_eq!(
        adopted["respelt"]["retry.linkerd.io/http"],
        json!(["5xx,429", "429,5xx"]),
        "{adopted}"
    );
    let same: serde_json::Map<String, Value> = respelt
        .iter()
        .map(|(key, spelt)| (key.clone(), spelt[1].clone()))
        .collect();
    isolated
        .merge::<Service>("web", json!({ "metadata": { "annotations": same } }))
        .await
        .unwrap();
    let meanwhile = on(&["explain", "service/web", "-n", &namespace, "--json"]).await.json();
    let retry = |told: &Value| told[0]["rules"][0]["retry"]["statuses"].to_string();
    assert!(
        retry(&before).contains("500") && retry(&meanwhile).contains("500"),
        "{before}\n{meanwhile}"
    );
    let name = policy.metadata.name.clone().unwrap();
    isolated.create_object(policy).await.unwrap();
    isolated
        .until::<ResiliencePolicy>(&name, "the adopted policy is Ready", |policy| {
            let conditions = policy.status.iter().flat_map(|status| &status.common.conditions);
            conditions
                .into_iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True")
        })
        .await;
    let after = on(&["explain", "service/web", "-n", &namespace, "--json"]).await.json();
    let then = on(&["explain", "service/web", "-n", &namespace, "--json"]).await.json();
    assert_eq!(after, then, "the same cluster is explained the same way");
    assert_eq!(after[0]["rules"][0]["retry"]["limit"], 3, "{after}");
    assert_eq!(after[0]["rules"][0]["timeouts"]["request"], 10_000, "{after}");
    assert!(
        after.to_string().contains(&format!("{namespace}/{name}")),
        "the policy is named: {after}"
    );

    // explain: what calls cannot reach is an error, not nothing.
    let mut portless = service("portless").build();
    portless.spec.get_or_insert_default().cluster_ip = Some("None".into());
    isolated.create_object(portless).await.unwrap();
    let said = on(&["explain", "service/portless", "-n", &namespace]).await;
    assert_eq!(said.code, Some(1), "{}", said.data);
    assert!(said.talk.contains("lists no port"), "{}", said.talk);

    // diff: an edit does not make a policy younger than its rival.
    let api = service("api").port(80).build();
    isolated.create_object(api).await.unwrap();
    let policy = |name: &str, timeout: &str| {
        json!({
            "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy",
            "metadata": { "name": name, "namespace": namespace },
            "spec": { "targetRef": { "name": "api" }, "timeout": { "requestTimeout": timeout } },
        })
    };
    for (name, timeout) in [("old", "1s"), ("young", "9s")] {
        let made: ResiliencePolicy = serde_json::from_value(policy(name, timeout)).unwrap();
        isolated.create_object(made).await.unwrap();
        isolated
            .until::<Service>("api", "the older one's", |service| {
                let annotations = service.metadata.annotations.iter().flatten();
                annotations.into_iter().any(|(_, value)| value == "1s")
            })
            .await;
    }
    std::fs::write(file.path(), policy("old", "2s").to_string()).unwrap();
    let said = on(&["diff", "-f", file.path().to_str().unwrap()]).await;
    for line in [
        "timeout.linkerd.io/request: 1s -> 2s",
        "rules[0].timeouts.request: 1000 -> 2000",
    ] {
        assert!(said.data.contains(line), "{}{}", said.data, said.talk);
    }

    // doctor: what is missing, and what mends it.
    let checked = on(&["doctor", "--for", "resilience", "--json"]).await;
    let checks = checked.json();
    assert_eq!(checked.code, Some(0), "{checks}");
    let gateway = checks
        .as_array()
        .unwrap()
        .iter()
        .find(|check| check["what"].to_string().contains("HTTPRoute"));
    assert_eq!(gateway.unwrap()["state"], "partial");
    let unknown = trellis(admin, &["doctor", "--for", "resilience"]).await;
    assert!(
        unknown.code == Some(1) && unknown.data.contains("--linkerd-version"),
        "{}",
        unknown.data
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_read_one_namespace_is_told_about_that() {
    let plane = PLANE.get().await.unwrap();
    let isolated = plane.isolated("narrow").await.unwrap();
    let namespace = isolated.name().to_owned();
    let long = "5".repeat(5000);
    let web = service("web")
        .port(80)
        .annotation("retry.linkerd.io/http", "5xx")
        .annotation("timeout.linkerd.io/request", &long);
    isolated.create_object(web.build()).await.unwrap();
    let elsewhere = json!({
        "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy", "metadata": { "name": "far" },
        "spec": { "targetRef": { "name": "kubernetes", "namespace": "default" }, "retry": {} },
    });
    isolated
        .create_object(serde_json::from_value::<ResiliencePolicy>(elsewhere).unwrap())
        .await
        .unwrap();
    let rules = json!([
        { "apiGroups": [""], "resources": ["services"], "verbs": ["get", "list"] },
        { "apiGroups": ["linkerd.io"], "resources": ["serviceprofiles"], "verbs": ["get", "list"] },
        { "apiGroups": ["resilience.trellis.dev"], "resources": ["resiliencepolicies"], "verbs": ["list"] },
    ]);
    let of = |kind: &str| json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": { "name": "narrow" } });
    let (mut role, mut binding) = (of("Role"), of("RoleBinding"));
    role["rules"] = rules;
    binding["roleRef"] = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "narrow" });
    binding["subjects"] = json!([{ "kind": "ServiceAccount", "name": "narrow", "namespace": namespace }]);
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "narrow" } });
    for manifest in [account, role, binding] {
        isolated.apply(manifest).await.unwrap();
    }
    let account = plane.service_account(&namespace, "narrow").await.unwrap();
    let path = account.path();
    let on = |arguments: &[&str]| {
        let mut all: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        all.extend(["--linkerd-version".to_owned(), "2.18".to_owned()]);
        async move { trellis(path, &all.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };

    let told = on(&["explain", "service/web", "-n", &namespace, "--json"]).await;
    assert_eq!(told.code, Some(0), "{}", told.talk);
    let told = told.json();
    assert_eq!(told[0]["rules"][0]["retry"]["limit"], 1, "{told}");
    assert!(
        told[0]["notes"].to_string().contains("may not get configmaps"),
        "{told}"
    );
    let adopted = on(&["adopt", "service/web", "-n", &namespace, "--json"]).await;
    assert_eq!(adopted.code, Some(0), "{}", adopted.talk);
    assert!(
        adopted.data.contains("(5000 characters)") && !adopted.data.contains(&long),
        "{}",
        adopted.data
    );
    let absent = on(&["migrate", "serviceprofile", "none", "-n", &namespace]).await;
    assert!(absent.talk.contains("there is no ServiceProfile"), "{}", absent.talk);

    let elsewhere = on(&["explain", "service/web", "-n", &namespace, "--from", "default"]).await;
    assert_eq!(elsewhere.code, Some(1));
    for words in ["may not list services in namespace default", "hint: "] {
        assert!(elsewhere.talk.contains(words), "{}", elsewhere.talk);
    }
    let everywhere = on(&["lint"]).await;
    for words in ["may not list services in the whole cluster", "--namespace"] {
        assert!(everywhere.talk.contains(words), "{}", everywhere.talk);
    }
    let here = on(&["lint", "-n", &namespace, "--json"]).await;
    assert_eq!(here.code, Some(1), "{}", here.talk);
    let found = here.json();
    let rules: Vec<_> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| &finding["rule"])
        .collect();
    assert!(rules.contains(&&json!("invalid-annotation")), "{found}");
    assert!(rules.contains(&&json!("not-looked-at")), "{found}");
    assert!(
        found.to_string().contains("/far is for another namespace") && !found.to_string().contains("NotFound"),
        "{found}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_does_not_bring_back_a_policy_that_is_being_deleted() {
    let plane = PLANE.get().await.unwrap();
    let isolated = plane.isolated("going").await.unwrap();
    isolated.create_object(service("web").port(80).build()).await.unwrap();
    let mut policy = json!({
        "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy",
        "metadata": { "name": "web", "namespace": isolated.name(), "finalizers": ["example.org/held"] },
        "spec": { "targetRef": { "name": "web" }, "timeout": { "requestTimeout": "1s" } },
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), policy.to_string()).unwrap();
    let diff = [
        "diff",
        "-f",
        file.path().to_str().unwrap(),
        "--json",
        "--linkerd-version",
        "2.18",
    ];
    let admin = plane.control().kubeconfig();
    let new = trellis(admin, &diff).await.json();
    assert!(new.to_string().contains("timeout.linkerd.io/request"), "{new}");

    policy["spec"]["suspend"] = json!(true);
    let made: ResiliencePolicy = serde_json::from_value(policy).unwrap();
    isolated.create_object(made).await.unwrap();
    let policies = isolated.api::<ResiliencePolicy>();
    policies.delete("web", &DeleteParams::default()).await.unwrap();
    let going = trellis(admin, &diff).await.json();
    assert!(
        !going["objects"].to_string().contains("timeout.linkerd.io/request"),
        "{going}"
    );
    assert!(going["notes"].to_string().contains("is being deleted"), "{going}");
    isolated
        .merge::<ResiliencePolicy>("web", json!({ "metadata": { "finalizers": null } }))
        .await
        .unwrap();
}
