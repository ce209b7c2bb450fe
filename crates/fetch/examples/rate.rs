//! How many unchanged checks (304) a second the client does, beside a bare hyper client that asks the same server.
//!
//! ```text
//!  cargo run --release -p trellis-fetch --example rate
//! ```
//!
//! Server and client share the threads of one runtime; both clients pay for the same server. One check is under way at a
//! time, so that a round trip is what is measured.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpListener;
use trellis_fetch::{Client, Denied, Egress, Fetched, Link, Order, Request, Settings, Validators};

const CHECKS: u32 = 20_000;

struct All;

impl Egress for All {
    fn host(&self, _: &str, _: &str, _: u16) -> Result<(), Denied> {
        Ok(())
    }

    fn address(&self, _: &str, _: IpAddr) -> Result<(), Denied> {
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let answer = service_fn(async |_| {
                let mut response = Response::new(Empty::<Bytes>::new());
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                Ok::<_, std::convert::Infallible>(response)
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(tcp), answer));
        }
    });

    let client = Client::new(Settings::default(), Arc::new(All));
    let request = Request::get(Link::parse(&format!("http://{at}/"))?);
    let order = Order {
        known: Validators {
            etag: Some("\"v\"".to_owned()),
            last_modified: None,
        },
        ..Order::default()
    };
    let bare = legacy::Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();

    for round in 1..=5 {
        let start = Instant::now();
        for _ in 0..CHECKS {
            let message = http::Request::get(format!("http://{at}/"))
                .header("if-none-match", "\"v\"")
                .body(Empty::new())?;
            bare.request(message).await?.into_body().collect().await?;
        }
        let bare = start.elapsed();

        let start = Instant::now();
        for _ in 0..CHECKS {
            if client.fetch(&request, &order, &mut Vec::new()).await? != Fetched::NotModified {
                return Err("the server answered a body".into());
            }
        }
        let ours = start.elapsed();
        let rate = |time: Duration| f64::from(CHECKS) / time.as_secs_f64();
        println!(
            "round {round}: trellis-fetch {:.0}/s, bare hyper {:.0}/s, ratio {:.2}, connections {}",
            rate(ours),
            rate(bare),
            rate(ours) / rate(bare),
            client.connections(),
        );
    }
    Ok(())
}
