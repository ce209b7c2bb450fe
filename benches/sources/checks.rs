//! Checks without a controller: how many answers that nothing changed a second of one processor takes, beside a bare HTTP
//! client.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use trellis_benches::{
    Error,
    counters::processor,
    figures::{Figure, median},
};
use trellis_fetch::{Client, Denied, Egress, Fetched, Generators, Link, Order, Request, Settings, Source, Validators};

use crate::{
    crowd::ratio,
    upstream::{ETAG, Upstream, asked, bare},
};

/// How many are under way at once: fewer than the connections that are kept.
const AT_ONCE: usize = 8;
/// How many links there are.
const LINKS: usize = 100;

/// Everything may be asked.
struct Anywhere;

impl Egress for Anywhere {
    fn host(&self, _: &str, _: &str, _: u16) -> Result<(), Denied> {
        Ok(())
    }

    fn address(&self, _: &str, _: std::net::IpAddr) -> Result<(), Denied> {
        Ok(())
    }
}

/// So many checks, in turns with a bare client.
pub(crate) async fn figures(upstream: &Upstream, checks: usize, runs: usize) -> Result<Vec<Figure>, Error> {
    let (mut ours, mut raw, mut connections) = (Vec::new(), Vec::new(), Vec::new());
    let url = |index: usize| upstream.url(&format!("now/{}.yaml", index % LINKS));
    for _ in 0..runs {
        let client = bare();
        let took = processor("self")?;
        let all = stream::iter(0..checks).map(|index| {
            let (client, url) = (client.clone(), url(index));
            async move { asked(&client, &url, Some(ETAG)).await }
        });
        all.buffer_unordered(AT_ONCE)
            .try_for_each(async |status| unchanged(status == 304))
            .await?;
        raw.push(ratio(checks as u64, 1) / (processor("self")? - took));

        let client = Client::new(Settings::default(), Arc::new(Anywhere));
        let generators = Generators::standard(&client);
        let before = upstream.counted().await?.connections;
        let took = processor("self")?;
        let all = stream::iter(0..checks).map(|index| {
            let (generators, url) = (&generators, url(index));
            async move {
                let source = Source::Http(Box::new(Request::get(Link::parse(&url)?)));
                let known = Validators {
                    etag: Some(ETAG.to_owned()),
                    last_modified: None,
                };
                let order = Order {
                    known,
                    ..Order::default()
                };
                let answer = generators
                    .create(source)?
                    .generate(&order, &mut tokio::io::sink())
                    .await?;
                Ok::<_, Error>(answer == Fetched::NotModified)
            }
        });
        all.buffer_unordered(AT_ONCE)
            .try_for_each(async |is| unchanged(is))
            .await?;
        ours.push(ratio(checks as u64, 1) / (processor("self")? - took));
        connections.push(ratio(upstream.counted().await?.connections - before, 1) - 1.0);
    }
    let title = "a 304 without a controller: processor's time ÷ a bare client's";
    let figure = Figure::new(title, median(&raw) / median(&ours), "");
    Ok(vec![
        figure.of("per second of a processor", &ours).of("bare client's", &raw),
        Figure::new(format!("connections for {checks} of them"), median(&connections), ""),
    ])
}

fn unchanged(is: bool) -> Result<(), Error> {
    if is {
        Ok(())
    } else {
        Err("upstream did not say that nothing changed".into())
    }
}
