//! Spans reach a collector by OTLP. The collector here is a stand-in that answers as the OTLP specification says.
#![cfg(feature = "otlp")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, sync::mpsc};
use trellis_runtime::telemetry::{self, Format};

/// A gRPC answer: an empty message, and that all went well.
fn taken() -> Response<StreamBody<impl futures::Stream<Item = Result<Frame<Bytes>, Infallible>>>> {
    let status = (HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
    let frames = [
        Frame::data(Bytes::from_static(&[0; 5])),
        Frame::trailers(HeaderMap::from_iter([status])),
    ];
    Response::builder()
        .header("content-type", "application/grpc")
        .body(StreamBody::new(stream::iter(frames.map(Ok))))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_and_its_fields_reach_the_collector() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (send, mut received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (connection, _) = listener.accept().await.unwrap();
        let collect = service_fn(move |request: Request<Incoming>| {
            let send = send.clone();
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await?.to_bytes();
                send.send((path, body)).unwrap();
                Ok::<_, hyper::Error>(taken())
            }
        });
        http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(connection), collect)
            .await
    });

    let telemetry = telemetry::init(Format::Json, Some(&address)).unwrap();
    tracing::info_span!("reconcile", controller = "toy", object = "shop/web").in_scope(|| tracing::info!("applied"));
    // Dropping it sends what is left and waits for the answer.
    tokio::task::spawn_blocking(|| drop(telemetry)).await.unwrap();

    let (path, body) = received.recv().await.unwrap();
    assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    let body = String::from_utf8_lossy(&body);
    for text in ["trellis", "reconcile", "controller", "shop/web", "applied"] {
        assert!(body.contains(text), "{text} is missing");
    }
}
