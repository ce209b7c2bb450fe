//! An owner to be killed: the tests start it, wait for a line on standard output, and `kill -9` it.
//!
//! `devplane-owner plane` holds a control plane (prints its directory); `devplane-owner build CACHE` builds a small Go
//! program with everything below it from nothing (prints `started`, then the result's path).

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use trellis_devplane::progress::Lines;
use trellis_devplane::{Builder, ControlPlane, Peer, Progress};

struct Says;

impl Progress for Says {
    fn started(&self, _: &str) {
        println!("started");
    }
    fn finished(&self, _: &str, _: Duration) {}
    fn note(&self, text: &str) {
        println!("{text}");
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["plane"] => plane().await,
        ["build", cache] => build(cache.into()).await,
        _ => Err("usage: devplane-owner plane | build CACHE".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

async fn plane() -> Outcome {
    let plane = ControlPlane::options().progress(Arc::new(Lines)).start().await?;
    println!("{}", plane.directory().display());
    Err(plane.died().await.into())
}

async fn build(cache: PathBuf) -> Outcome {
    let mut peer = Peer::new("tiny", "module example.org/tiny\n\ngo 1.24\n", "").binary("tiny", "example.org/tiny");
    peer.sources.push((
        "main.go".to_owned(),
        "package main\n\nfunc main() { println(\"tiny\") }\n".into(),
    ));
    println!(
        "{}",
        Builder::new(cache, Arc::new(Says))
            .build(&peer)
            .await?
            .path("tiny")?
            .display()
    );
    Ok(())
}
