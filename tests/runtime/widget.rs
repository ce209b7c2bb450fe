//! A toy controller: a `Widget` owns a map, contributes to a Service, and depends on a Secret and on a `Gadget`.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret, Service},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{CustomResource, CustomResourceExt, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use trellis_api::{CommonStatus, Managed};
use trellis_core::Refusal;
use trellis_runtime::{
    Item, Kinds, Never, Outcome, Part, Permission, Plan, Reconcile, Reference, Reported, Result, Says, World,
};

/// What a test asks for.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "testing.trellis.dev",
    version = "v1",
    kind = "Widget",
    namespaced,
    status = "WidgetStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WidgetSpec {
    /// Written into the map.
    pub(crate) colour: String,
    /// The map that it owns.
    pub(crate) map: Option<String>,
    /// The Service that it annotates.
    pub(crate) service: Option<String>,
    /// The Secret that it needs.
    pub(crate) secret: Option<String>,
    /// Whether it claims to wait for something.
    #[serde(default)]
    pub(crate) waits: bool,
    #[serde(default)]
    pub(crate) suspend: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WidgetStatus {
    #[serde(flatten)]
    pub(crate) common: CommonStatus,
    /// What the Secret says.
    pub(crate) secret: Option<String>,
    /// Whether there is a `Gadget` of the same name.
    #[serde(default)]
    pub(crate) gadget: bool,
}

/// A kind that is not always there.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(group = "testing.trellis.dev", version = "v1", kind = "Gadget", namespaced)]
pub(crate) struct GadgetSpec {}

impl Managed for Widget {
    type Status = WidgetStatus;

    fn suspended(&self) -> bool {
        self.spec.suspend
    }

    fn status(&self) -> Option<&WidgetStatus> {
        self.status.as_ref()
    }

    fn common(status: &WidgetStatus) -> &CommonStatus {
        &status.common
    }

    fn common_mut(status: &mut WidgetStatus) -> &mut CommonStatus {
        &mut status.common
    }
}

/// The CRD, with a spec that takes anything: so a test can store what does not parse.
pub(crate) fn lax_crd() -> CustomResourceDefinition {
    let mut crd = serde_json::to_value(Widget::crd()).unwrap();
    let spec = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec");
    *spec.unwrap() = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    serde_json::from_value(crd).unwrap()
}

pub(crate) struct Widgets;

pub(crate) struct Seen {
    service: Option<Arc<Service>>,
    secret: Option<Arc<Secret>>,
    gadget: bool,
}

/// The colour of which the controller panics.
pub(crate) const DEFECT: &str = "defect";

/// The annotation that a Widget contributes.
pub(crate) const COLOUR: &str = "testing.trellis.dev/colour";

impl Reconcile for Widgets {
    const NAME: &'static str = "widget";
    const COUNTED: &'static str = "widgets";
    const FINALIZER: &'static str = "testing.trellis.dev/finalizer";
    const NEEDS: &'static [Permission] = &[];

    type Object = Widget;
    type Seen = Seen;
    type Act = Never;

    fn kinds(kinds: Kinds) -> Kinds {
        kinds
            .owned::<ConfigMap>(Self::NAME)
            .all::<Service>()
            .named::<Secret>()
            .all_if_served::<Gadget>()
    }

    fn refers(&self, widget: &Widget) -> Vec<Reference> {
        let namespace = widget.namespace();
        let namespace = namespace.as_deref();
        let secret = widget
            .spec
            .secret
            .iter()
            .map(|name| Reference::to::<Secret>(namespace, name));
        let service = widget
            .spec
            .service
            .iter()
            .map(|name| Reference::to::<Service>(namespace, name));
        let gadget = Reference::to::<Gadget>(namespace, &widget.name_any());
        secret.chain(service).chain([gadget]).collect()
    }

    async fn see(&self, world: &World, widget: &Widget) -> Result<Seen> {
        let namespace = widget.namespace();
        let namespace = namespace.as_deref();
        let secret = match &widget.spec.secret {
            Some(name) => world.get::<Secret>(namespace, name).await?,
            None => None,
        };
        let service = match &widget.spec.service {
            Some(name) => world.get::<Service>(namespace, name).await?,
            None => None,
        };
        let gadget = world.get::<Gadget>(namespace, &widget.name_any()).await?.is_some();
        Ok(Seen {
            service,
            secret,
            gadget,
        })
    }

    fn plan(widget: &Widget, seen: &Seen) -> Result<Plan<Never>, Refusal> {
        assert_ne!(widget.spec.colour, DEFECT, "a defect, as asked for");
        if widget.spec.secret.is_some() && seen.secret.is_none() {
            return Err(Refusal::new("SecretNotFound", "there is no such Secret"));
        }
        if widget.spec.service.is_some() && seen.service.is_none() {
            return Err(Refusal::new("ServiceNotFound", "there is no such Service"));
        }
        let mut plan = Plan::nothing();
        if let Some(name) = &widget.spec.map {
            let map = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    namespace: widget.namespace(),
                    ..ObjectMeta::default()
                },
                data: Some(BTreeMap::from([("colour".to_owned(), widget.spec.colour.clone())])),
                ..ConfigMap::default()
            };
            plan = plan.and(Item::own(&map).map_err(|error| Refusal::new("Unserialisable", error.to_string()))?);
        }
        if let Some(service) = &seen.service {
            let annotations = BTreeMap::from([(COLOUR, widget.spec.colour.clone())]);
            plan = plan.and(Part::of(service.as_ref()).annotations(&annotations));
        }
        if widget.spec.waits {
            plan = plan.waiting("Asked", "as the spec says");
        }
        Ok(plan)
    }

    async fn act(&self, _: &Widget, act: &Never, _: &Says) -> Result<()> {
        match *act {}
    }

    fn report(_: &Widget, seen: &Seen, outcome: &Outcome) -> Reported<WidgetStatus> {
        let word = seen.secret.as_ref().and_then(|secret| {
            let data = secret.data.as_ref()?.get("word")?;
            String::from_utf8(data.0.clone()).ok()
        });
        Reported {
            status: WidgetStatus {
                secret: word,
                gadget: seen.gadget,
                ..WidgetStatus::default()
            },
            ready: outcome.ready("Applied", "as asked"),
            conditions: Vec::new(),
        }
    }
}
