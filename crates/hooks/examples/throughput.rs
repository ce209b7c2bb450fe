//! 100 MiB through three `cat` hooks, beside a shell pipe of the same three: the ratio of their times.
//!
//! `cargo run --release -p trellis-hooks --example throughput`

use std::{
    error::Error,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{TryStreamExt as _, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio_util::sync::CancellationToken;
use trellis_hooks::{Asked, Client, Denied, Endpoint, Hook, Listen, Permit, Program, Settings, Sidecar};

const SIZE: usize = 100 * 1024 * 1024;
const CHUNK: usize = 64 * 1024;
const ROUNDS: usize = 5;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|word| word == "hooks-step").is_some() {
        return trellis_hooks::step(arguments);
    }
    let measured = tokio::runtime::Runtime::new()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(measure()));
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure() -> Result<(), Box<dyn Error>> {
    let root = tempfile::tempdir()?;
    let socket = root.path().join("s");
    let mut settings = Settings::new(Listen::Socket(socket.clone()), ["hooks-step"]);
    settings.work = root.path().to_owned();
    let allow = |asked: &Asked<'_>| match asked.command {
        "cat" => Ok(Permit {
            program: Program::Named("cat".to_owned()),
            sha256: None,
        }),
        other => Err(Denied(format!("command {other:?} is not allowed"))),
    };
    let sidecar = Sidecar::bind(settings, allow).await?;
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(sidecar.serve(shutdown.clone()));
    let client = Client::new(Endpoint::Socket(socket));
    let (mut ours, mut shells) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        ours = ours.min(hooks(&client).await?);
        shells = shells.min(shell()?);
    }
    shutdown.cancel();
    served.await?;
    let ratio = shells.as_secs_f64() / ours.as_secs_f64();
    println!("100 MiB through 3 cat, best of {ROUNDS}: hooks {ours:?}, shell pipe {shells:?}, ratio {ratio:.2}");
    Ok(())
}

async fn hooks(client: &Client) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    let cat = Hook {
        command: "cat".to_owned(),
        ..Hook::default()
    };
    let chunk = Bytes::from(vec![0x5a; CHUNK]);
    let chunks = (0..SIZE / CHUNK).map(move |_| Ok::<_, std::io::Error>(Frame::data(chunk.clone())));
    let first = client.run(&cat, StreamBody::new(stream::iter(chunks))).await?;
    let second = client.run(&cat, first.into_body()).await?;
    let mut third = client.run(&cat, second.into_body()).await?;
    let mut total = 0;
    while let Some(bytes) = third.try_next().await? {
        total += bytes.len();
    }
    if total == SIZE {
        Ok(start.elapsed())
    } else {
        Err(format!("{total} bytes came out").into())
    }
}

fn shell() -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    let status = Command::new("sh")
        .args(["-c", &format!("head -c {SIZE} /dev/zero | cat | cat | cat > /dev/null")])
        .status()?;
    if status.success() {
        Ok(start.elapsed())
    } else {
        Err("the pipe failed".into())
    }
}
