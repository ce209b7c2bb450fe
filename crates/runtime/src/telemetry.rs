//! Logs, and traces behind the feature `otlp`.
//!
//! One `info` line per change, `debug` per reconcile; fields instead of prose; never a secret. The filter comes from
//! `RUST_LOG`; by default `info`, and of the client only what is wrong and not said by the runtime already.

use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// What is logged when nothing else is asked for.
const FILTER: &str = "info,kube=warn,kube_runtime=error";

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `RUST_LOG` is no filter.
    #[error("RUST_LOG={text:?} cannot be read")]
    Filter {
        /// What it is set to.
        text: String,
        /// Why not.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// A second set-up in one process.
    #[error("logging is set up already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    /// The exporter of traces refused its settings.
    #[cfg(feature = "otlp")]
    #[error("traces cannot be exported")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Keeps what was set up alive; dropped last, it sends what is left.
#[must_use = "traces that are not sent yet are lost when this is dropped early"]
pub struct Guard {
    #[cfg(feature = "otlp")]
    provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

/// Sets logging up for the whole process; lines go to stderr. With the feature `otlp`, spans are exported to `collector`
/// by OTLP over gRPC without TLS, such as `http://collector:4317`; a build without it says so.
///
/// # Errors
/// [`Error`] when `RUST_LOG` is no filter, it is done twice, or the collector's address is unusable.
pub fn init(format: Format, collector: Option<&str>) -> Result<Guard, Error> {
    let asked = std::env::var_os(EnvFilter::DEFAULT_ENV);
    let filter = filter(asked.as_ref().map(|text| text.to_string_lossy()).as_deref())?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        Format::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed(),
        Format::Text => lines.compact().boxed(),
    };
    let registry = tracing_subscriber::registry().with(filter).with(lines);
    #[cfg(feature = "otlp")]
    {
        let provider = collector.map(exporter).transpose()?;
        let traces = provider.as_ref().map(|provider| {
            use opentelemetry::trace::TracerProvider as _;
            tracing_opentelemetry::layer().with_tracer(provider.tracer("trellis"))
        });
        registry.with(traces).try_init()?;
        Ok(Guard { provider })
    }
    #[cfg(not(feature = "otlp"))]
    {
        registry.try_init()?;
        if let Some(collector) = collector {
            tracing::warn!(
                collector,
                "no traces are sent: this program was built without the feature otlp"
            );
        }
        Ok(Guard {})
    }
}

fn filter(asked: Option<&str>) -> Result<EnvFilter, Error> {
    let text = asked.filter(|text| !text.trim().is_empty()).unwrap_or(FILTER);
    EnvFilter::try_new(text).map_err(|source| Error::Filter {
        text: text.to_owned(),
        source,
    })
}

#[cfg(feature = "otlp")]
fn exporter(collector: &str) -> Result<opentelemetry_sdk::trace::SdkTracerProvider, Error> {
    use opentelemetry_otlp::WithExportConfig as _;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(collector)
        .build()?;
    let resource = opentelemetry_sdk::Resource::builder()
        .with_service_name("trellis")
        .build();
    Ok(opentelemetry_sdk::trace::SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build())
}

#[cfg(feature = "otlp")]
impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = &self.provider
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "traces were not sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_filter_is_an_error_and_not_another_filter() {
        assert_eq!(filter(Some("debug")).unwrap().to_string(), "debug");
        for nothing in [None, Some(""), Some(" ")] {
            let default = filter(nothing).unwrap().to_string();
            assert!(default.contains("kube_runtime=error"), "{default}");
        }
        let error = filter(Some("info,kube=loud")).unwrap_err().to_string();
        assert!(error.contains("kube=loud"), "{error}");
    }
}
