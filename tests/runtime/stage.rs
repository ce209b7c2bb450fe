//! `Stage`: the toy controller at work in a namespace of its own, in this process, through the recording layer.

use kube::core::ObjectMeta;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trellis_runtime::{Reconcile, controller, health::Readiness, metrics::Metrics};
use trellis_testkit::{Disturb, Recording, Script, plane::Isolated};

use crate::{
    PLANE,
    widget::{Widget, WidgetSpec, Widgets},
};

/// The controller and its namespace.
pub(crate) struct Stage {
    pub(crate) isolated: Isolated,
    pub(crate) script: Script,
    pub(crate) recording: Recording,
    pub(crate) stop: CancellationToken,
    pub(crate) running: JoinHandle<()>,
}

/// A fresh namespace without a controller.
pub(crate) async fn isolated() -> Isolated {
    PLANE.get().await.unwrap().isolated("widget").await.unwrap()
}

impl Stage {
    pub(crate) async fn up() -> Self {
        Self::serving(isolated().await, &[])
    }

    /// In this namespace and these others.
    pub(crate) fn serving(isolated: Isolated, others: &[&str]) -> Self {
        Self::disturbed(isolated, others, Script::new())
    }

    /// … with this going wrong from the first call on.
    pub(crate) fn disturbed(isolated: Isolated, others: &[&str], script: Script) -> Self {
        Self::of(Widgets, isolated, others, script)
    }

    /// Another controller.
    pub(crate) fn of(controller: impl Reconcile, isolated: Isolated, others: &[&str], script: Script) -> Self {
        let (recording, stop) = (Recording::new(), CancellationToken::new());
        let client = Disturb::new(&script, &recording)
            .client(isolated.plane().config())
            .unwrap();
        let own = std::iter::once(isolated.name());
        let context = controller::Context {
            client,
            namespaces: own.chain(others.iter().copied()).map(ToOwned::to_owned).collect(),
            identity: "test".to_owned(),
            metrics: Metrics::default(),
            readiness: Readiness::awaiting(1),
        };
        let running = tokio::spawn(controller::run(controller, context, stop.clone()));
        Self {
            isolated,
            script,
            recording,
            stop,
            running,
        }
    }

    pub(crate) async fn create(&self, name: &str, spec: WidgetSpec) {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        };
        let widget = Widget {
            metadata,
            spec,
            status: None,
        };
        self.isolated.create_object(widget).await.unwrap();
    }

    pub(crate) async fn change(&self, name: &str, spec: Value) {
        self.isolated
            .merge::<Widget>(name, json!({ "spec": spec }))
            .await
            .unwrap();
    }

    /// Waits until `Ready` of the current generation has this state and reason.
    pub(crate) async fn ready(&self, name: &str, status: &str, reason: &str) -> Widget {
        let what = format!("Ready={status} ({reason})");
        self.isolated
            .until(name, &what, |widget| ready(widget) == Some((status, reason)))
            .await
    }
}

/// State and reason of `Ready` for the current generation.
pub(crate) fn ready(widget: &Widget) -> Option<(&str, &str)> {
    let conditions = &widget.status.as_ref()?.common.conditions;
    let ready = conditions
        .iter()
        .find(|condition| condition.type_ == "Ready" && condition.observed_generation == widget.metadata.generation)?;
    Some((&ready.status, &ready.reason))
}
