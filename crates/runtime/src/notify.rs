//! Notifications of Flux: news about an object, for the notification-controller that sends them on.
//!
//! ```text
//!  News ─▶ queue (bounded) ─▶ one sender ─▶ POST URL, tried again for a while ─▶ accepted │ logged and lost
//! ```
//!
//! The form is that of `event.toolkit.fluxcd.io/v1beta1`, which every controller of Flux posts to its `--events-addr`;
//! 429 means that the receiver has had it lately, and is no error.
//!
//! Invariant: who has news never waits for the receiver; when the queue is full, the news is lost and that is logged. The
//! status carries the same.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use serde::Serialize;
use tokio::{sync::mpsc, time::timeout};

/// How many news may wait.
const QUEUE: usize = 256;
/// How long the receiver may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is tried, the first time included.
const TRIES: usize = 5;
/// Longest message, in bytes: that of an Event of Kubernetes.
const MESSAGE: usize = 1024;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// As it should be.
    Info,
    /// Somebody may have to look.
    Error,
}

/// News about an object.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct News {
    /// What it is about: an object of a kind that Alerts know.
    pub involved_object: ObjectReference,
    /// How much it matters.
    pub severity: Severity,
    /// Why, in one word.
    pub reason: String,
    /// What happened, for people.
    pub message: String,
    /// More, such as `source.toolkit.fluxcd.io/revision`.
    pub metadata: BTreeMap<String, String>,
}

/// As it is sent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sent<'a> {
    #[serde(flatten)]
    news: &'a News,
    timestamp: Timestamp,
    reporting_controller: &'a str,
    reporting_instance: &'a str,
}

/// Where a receiver is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(Uri);

/// The address is not one to which news can be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address of a receiver of notifications; write http://HOST[:PORT]/")]
pub struct BadAddress(String);

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let uri: Option<Uri> = text.parse().ok();
        let usable = |uri: &Uri| uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty());
        uri.filter(usable).map(Self).ok_or_else(|| BadAddress(text.to_owned()))
    }
}

/// Sends news. Cheap to clone; it ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Notifier(mpsc::Sender<Waiting>);

/// News in the queue.
#[derive(Debug)]
struct Waiting {
    news: News,
    timestamp: Timestamp,
    identity: String,
}

impl Notifier {
    /// Sends to this address in the name of `trellis-<controller>`.
    #[must_use]
    pub fn start(address: &Address, controller: &str) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let receiver = Receiver {
            news: receiver,
            client: Client::builder(TokioExecutor::new()).build_http(),
            uri: address.0.clone(),
            controller: format!("trellis-{controller}"),
        };
        tokio::spawn(receiver.run());
        Self(sender)
    }

    /// Sends this, soon, in the name of this replica.
    pub fn tell(&self, mut news: News, identity: &str) {
        news.message = crate::events::truncated(&news.message, MESSAGE);
        let waiting = Waiting {
            news,
            timestamp: Timestamp::now(),
            identity: identity.to_owned(),
        };
        if self.0.try_send(waiting).is_err() {
            tracing::warn!("a notification was lost: too many wait for their receiver");
        }
    }
}

/// What stands between the queue and the receiver.
struct Receiver {
    news: mpsc::Receiver<Waiting>,
    client: Client<HttpConnector, Full<Bytes>>,
    uri: Uri,
    controller: String,
}

impl Receiver {
    async fn run(mut self) {
        while let Some(waiting) = self.news.recv().await {
            let news = &waiting.news;
            let sent = Sent {
                news,
                timestamp: waiting.timestamp,
                reporting_controller: &self.controller,
                reporting_instance: &waiting.identity,
            };
            let Ok(body) = serde_json::to_vec(&sent) else { continue };
            if let Err(why) = self.send(body.into()).await {
                tracing::warn!(reason = news.reason, why, "a notification was not accepted");
            }
        }
    }

    /// Sends it, again where that may help.
    async fn send(&self, body: Bytes) -> Result<(), String> {
        let mut waits = ExponentialBuilder::default().with_max_times(TRIES - 1).build();
        loop {
            let request = Request::builder()
                .method(Method::POST)
                .uri(&self.uri)
                .header(CONTENT_TYPE, "application/json")
                .body(Full::new(body.clone()))
                .map_err(|error| error.to_string())?;
            let why = match timeout(PATIENCE, self.client.request(request)).await {
                Ok(Ok(answer)) if answer.status().is_success() => return Ok(()),
                Ok(Ok(answer)) if answer.status() == StatusCode::TOO_MANY_REQUESTS => return Ok(()),
                Ok(Ok(answer)) if answer.status().is_client_error() => return Err(answer.status().to_string()),
                Ok(Ok(answer)) => answer.status().to_string(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it did not answer in time".to_owned(),
            };
            match waits.next() {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(why),
            }
        }
    }
}
