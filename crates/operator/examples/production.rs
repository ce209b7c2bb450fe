//! How fast a source with hooks becomes a packed file, beside `curl | gzip | sha256sum` over the same data, and how much
//! memory that takes.
//!
//! `cargo run --release -p trellis-operator --example production [MIB] [HOOKS]`
#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on ends")]

use std::{
    io::Write as _,
    path::Path,
    process::{Command, ExitCode},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{io::AsyncReadExt as _, io::AsyncWriteExt as _, net::TcpListener};
use tokio_util::sync::CancellationToken;
use trellis_fetch::{Client, Egress, Generators};
use trellis_hooks::{Asked, Denied, Endpoint, Listen, Permit, Program, Sidecar};
use trellis_operator::external_source::{
    HooksSettings, Known, Order, Product, Production, Progress, Secrets, Settings,
};

/// The upstream is on this machine.
struct Anywhere;

impl Egress for Anywhere {
    fn host(&self, _: &str, _: &str, _: u16) -> Result<(), trellis_fetch::Denied> {
        Ok(())
    }

    fn address(&self, _: &str, _: std::net::IpAddr) -> Result<(), trellis_fetch::Denied> {
        Ok(())
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|word| word == "hooks-step").is_some() {
        return trellis_hooks::step(arguments);
    }
    if arguments.next_if(|word| word == "sidecar").is_some() {
        let folder = arguments.next().unwrap();
        runtime().block_on(sidecar(Path::new(&folder)));
        return ExitCode::SUCCESS;
    }
    let mut numbers = arguments.map(|word| word.into_string().unwrap().parse::<usize>().unwrap());
    let (mib, hooks) = (numbers.next().unwrap_or(100), numbers.next().unwrap_or(2));
    runtime().block_on(measure(mib, hooks));
    ExitCode::SUCCESS
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

async fn sidecar(folder: &Path) {
    let allow = |asked: &Asked<'_>| {
        let permit = Permit {
            program: Program::Named(asked.command.to_owned()),
            sha256: None,
        };
        Ok::<_, Denied>(permit)
    };
    let mut settings = trellis_hooks::Settings::new(Listen::Socket(folder.join("s")), ["hooks-step"]);
    settings.work = folder.join("work");
    let sidecar = Sidecar::bind(settings, allow).await.unwrap();
    sidecar.serve(CancellationToken::new()).await;
}

async fn measure(mib: usize, hooks: usize) {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    std::fs::create_dir(place.join("work")).unwrap();
    std::fs::write(place.join("whitelist.yaml"), "commands: { cat: { allowed: true } }").unwrap();
    let mut data = std::fs::File::create(place.join("data")).unwrap();
    for _ in 0..mib {
        let random: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(1 << 20).collect();
        data.write_all(&random).unwrap();
    }
    drop(data);
    let url = serve(place.join("data")).await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("sidecar")
        .arg(place)
        .spawn()
        .unwrap();
    let client = trellis_hooks::Client::new(Endpoint::Socket(place.join("s")));
    while client.healthy().await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let cats: Vec<_> = (0..hooks)
        .map(|number| json!({ "name": format!("cat-{number}"), "command": "cat" }))
        .collect();
    let source = serde_json::from_value(json!({
        "metadata": { "name": "measured", "namespace": "default" },
        "spec": {
            "interval": "1h", "generator": { "type": "http", "http": { "url": url, "maxBytes": 4_u64 << 30 } },
            "hooks": { "postRequest": cats },
        },
    }))
    .unwrap();
    let mut settings = Settings::new("http://localhost", place);
    settings.max_bytes = 4 << 30;
    settings.hooks = Some(HooksSettings::open(client, place.join("whitelist.yaml")).unwrap());
    let order = Order::of(&source, &Secrets::new(), &settings).unwrap();
    let fetch = Client::new(trellis_fetch::Settings::default(), Arc::new(Anywhere));
    let production = Production::new(&settings, Generators::standard(&fetch));
    let quiet: Progress = Arc::new(|_| {});
    for _ in 0..5 {
        let began = Instant::now();
        let piped = format!("curl -sS '{url}' | gzip -6 | sha256sum");
        let done = tokio::task::spawn_blocking(move || Command::new("bash").args(["-c", &piped]).output());
        assert!(done.await.unwrap().unwrap().status.success());
        let pipe = began.elapsed();
        let began = Instant::now();
        let made = production.make(&order, &Known::default(), &quiet).await.unwrap();
        let ours = began.elapsed();
        let Product::Packed(packed) = made else { break };
        println!(
            "{mib} MiB, {hooks} hooks: pipe {pipe:.2?}, ours {ours:.2?}, ratio {:.2}; {} bytes; peak {} MiB, sidecar {} MiB",
            pipe.as_secs_f64() / ours.as_secs_f64(),
            packed.measure.size,
            peak(std::process::id()) >> 10,
            peak(child.id()) >> 10
        );
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Peak of resident memory of a process, in KiB.
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Serves a file to whoever asks; its address.
async fn serve(file: std::path::PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let file = file.clone();
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let mut file = tokio::fs::File::open(file).await.unwrap();
                let size = file.metadata().await.unwrap().len();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = tokio::io::copy(&mut file, &mut stream).await;
            });
        }
    });
    format!("http://{address}/data.bin")
}
