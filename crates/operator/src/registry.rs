//! The controllers of this binary.

use std::{collections::BTreeMap, fmt, str::FromStr};

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trellis_runtime::{Permission, Reconcile as _, controller, metrics::Metrics};

use crate::{
    external_source::{Artifacts, ExternalSources},
    resilience::{Linkerd, Resilience},
    run::{Error, Options},
};

/// One controller of this binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Controller {
    /// `ExternalSource` as Flux artifacts.
    ExternalSource,
    /// `ResiliencePolicy` as Linkerd annotations.
    Resilience,
}

/// A name that no controller has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no controller {given:?}; there are: {}", names().join(", "))]
pub struct UnknownController {
    given: String,
}

impl Controller {
    /// Every controller, in the order in which they are listed.
    pub const ALL: &'static [Self] = &[Self::ExternalSource, Self::Resilience];

    /// The name, as in `--controllers`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ExternalSource => ExternalSources::NAME,
            Self::Resilience => Resilience::NAME,
        }
    }

    /// Everything that the controller may do.
    #[must_use]
    pub fn needs(self) -> &'static [Permission] {
        match self {
            Self::ExternalSource => ExternalSources::NEEDS,
            Self::Resilience => Resilience::NEEDS,
        }
    }

    /// What the controller has for all terms of this process.
    pub(crate) async fn prepare(self, options: &Options) -> Result<Prepared, Error> {
        Ok(match self {
            Self::ExternalSource => {
                let place = options.sources.backend.to_string();
                let opened = Artifacts::open(options.sources.clone()).await;
                Prepared::ExternalSource(Box::new(opened.map_err(|source| Error::Storage { place, source })?))
            }
            Self::Resilience => Prepared::Resilience(options.linkerd.clone()),
        })
    }
}

/// A controller with what it has for all terms of this process.
pub(crate) enum Prepared {
    ExternalSource(Box<Artifacts>),
    Resilience(Linkerd),
}

impl Prepared {
    /// Shows the controller's own metrics.
    pub(crate) fn show(&self, metrics: &Metrics) {
        match self {
            Self::ExternalSource(artifacts) => artifacts.show(metrics),
            Self::Resilience(_) => {}
        }
    }

    /// Runs the controller for one term, until `stop`.
    pub(crate) fn run(&self, context: controller::Context, stop: CancellationToken) -> BoxFuture<'static, ()> {
        match self {
            Self::ExternalSource(artifacts) => Box::pin(artifacts.run(context, stop)),
            Self::Resilience(linkerd) => Box::pin(controller::run(Resilience::new(linkerd), context, stop)),
        }
    }

    /// Serves what the controller serves, beside its terms, until `stop`.
    pub(crate) async fn serve(&self, leading: watch::Receiver<bool>, stop: CancellationToken) -> Result<(), Error> {
        match self {
            Self::ExternalSource(artifacts) => Ok(artifacts.serve(leading, stop).await?),
            Self::Resilience(_) => Ok(()),
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Controller {
    type Err = UnknownController;

    fn from_str(given: &str) -> Result<Self, UnknownController> {
        let found = Self::ALL.iter().find(|controller| controller.name() == given);
        found.copied().ok_or_else(|| UnknownController {
            given: given.to_owned(),
        })
    }
}

/// What each controller may do, by its name.
#[must_use]
pub fn permissions() -> BTreeMap<&'static str, &'static [Permission]> {
    Controller::ALL
        .iter()
        .map(|controller| (controller.name(), controller.needs()))
        .collect()
}

fn names() -> Vec<&'static str> {
    Controller::ALL.iter().map(|controller| controller.name()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_a_wrong_one_lists_them() {
        for controller in Controller::ALL {
            assert_eq!(controller.to_string().parse(), Ok(*controller));
        }
        let error = "resilence".parse::<Controller>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no controller \"resilence\"; there are: external-source, resilience"
        );
    }
}
