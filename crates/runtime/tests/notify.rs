//! Notifications, as a receiver gets them.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, http::StatusCode, routing::post};
use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::Value;
use tokio::{net::TcpListener, sync::mpsc};
use trellis_runtime::notify::{Address, News, Notifier, Severity};

/// A receiver that answers with these, then accepts; and what it gets.
async fn receiver(answers: &[u16]) -> (String, mpsc::UnboundedReceiver<Value>) {
    let (got, received) = mpsc::unbounded_channel();
    let answers: VecDeque<StatusCode> = answers
        .iter()
        .map(|code| StatusCode::from_u16(*code).unwrap())
        .collect();
    let answers = Arc::new(Mutex::new(answers));
    let accept = move |body: Bytes| async move {
        got.send(serde_json::from_slice(&body).unwrap()).unwrap();
        answers.lock().unwrap().pop_front().unwrap_or(StatusCode::ACCEPTED)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", post(accept))).await });
    (address, received)
}

fn news(reason: &str) -> News {
    News {
        involved_object: ObjectReference {
            api_version: Some("source.toolkit.fluxcd.io/v1".to_owned()),
            kind: Some("ExternalArtifact".to_owned()),
            name: Some("app".to_owned()),
            namespace: Some("shop".to_owned()),
            ..ObjectReference::default()
        },
        severity: Severity::Info,
        reason: reason.to_owned(),
        message: "é".repeat(1000),
        metadata: BTreeMap::from([(
            "source.toolkit.fluxcd.io/revision".to_owned(),
            "latest@sha256:00".to_owned(),
        )]),
    }
}

#[tokio::test]
async fn news_arrive_in_the_form_of_flux() {
    let (address, mut received) = receiver(&[]).await;
    let notifier = Notifier::start(&address.parse().unwrap(), "external-source");
    notifier.tell(news("NewArtifact"), "one");
    let got = received.recv().await.unwrap();
    assert_eq!(got["involvedObject"]["kind"], "ExternalArtifact");
    assert_eq!(got["involvedObject"]["apiVersion"], "source.toolkit.fluxcd.io/v1");
    assert_eq!(got["severity"], "info");
    assert_eq!(got["reason"], "NewArtifact");
    assert_eq!(got["reportingController"], "trellis-external-source");
    assert_eq!(got["reportingInstance"], "one");
    assert_eq!(got["metadata"]["source.toolkit.fluxcd.io/revision"], "latest@sha256:00");
    assert!(got["message"].as_str().unwrap().len() <= 1024);
    assert!(got["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
}

#[tokio::test]
async fn what_a_receiver_does_not_get_is_sent_again_and_what_it_refuses_is_not() {
    // The first is tried again, the second is known already, the third is wrong.
    let (address, mut received) = receiver(&[500, 202, 429, 400]).await;
    let notifier = Notifier::start(&address.parse().unwrap(), "external-source");
    for reason in ["First", "Second", "Third", "Fourth"] {
        notifier.tell(news(reason), "one");
    }
    let mut reasons = Vec::new();
    for _ in 0..5 {
        reasons.push(received.recv().await.unwrap()["reason"].as_str().unwrap().to_owned());
    }
    assert_eq!(reasons, ["First", "First", "Second", "Third", "Fourth"]);
}

#[tokio::test]
async fn who_has_news_never_waits() {
    // Nobody answers there.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", silent.local_addr().unwrap());
    let notifier = Notifier::start(&address.parse().unwrap(), "external-source");
    for _ in 0..10_000 {
        notifier.tell(news("NewArtifact"), "one");
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_one_is_refused() {
    for address in [
        "notification-controller",
        "https://host/",
        "http:///path",
        "ftp://host",
        "",
    ] {
        let error = address.parse::<Address>().unwrap_err();
        assert!(error.to_string().contains("http://HOST"), "{address}");
    }
}
