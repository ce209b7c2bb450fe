//! A TCP proxy that breaks connections on demand.
//!
//! A fault is taken by the first request whose head starts with its method, and may be taken several times.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Answers with that status, and takes the request to its end.
    Status(u16),
    /// Closes the connection after that many bytes of the request.
    CutUpload(usize),
    /// Closes the connection after that many bytes of the answer.
    CutDownload(usize),
    /// Passes the answer on in small pieces with a pause between them.
    Slow,
    /// Never answers.
    Hang,
    /// Closes the connection at once.
    Down,
}

struct Fault {
    method: &'static str,
    action: Action,
    times: usize,
}

#[derive(Default)]
struct Plan {
    fault: Option<Fault>,
    taken: usize,
    requests: usize,
    open: CancellationToken,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn before(upstream: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let plan = Arc::new(Mutex::new(Plan::default()));
        let shared = Arc::clone(&plan);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (upstream, plan) = (upstream.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    let open = lock(&plan).open.clone();
                    tokio::select! {
                        () = open.cancelled() => {}
                        () = pass(stream, upstream, plan) => {}
                    }
                });
            }
        });
        Self {
            address,
            plan,
            accepting,
        }
    }

    /// From now on, the next `times` requests of that method fail so. Connections of before are closed.
    pub(crate) fn next(&self, method: &'static str, action: Action, times: usize) {
        let mut plan = lock(&self.plan);
        plan.fault = Some(Fault { method, action, times });
        plan.taken = 0;
        plan.open.cancel();
        plan.open = CancellationToken::new();
    }

    /// How often the fault was taken.
    pub(crate) fn taken(&self) -> usize {
        lock(&self.plan).taken
    }

    /// How many requests came by, with whatever method.
    pub(crate) fn requests(&self) -> usize {
        lock(&self.plan).requests
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock(plan: &Mutex<Plan>) -> std::sync::MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The fault for a request that starts so, if there is one.
fn taken(plan: &Mutex<Plan>, bytes: &[u8]) -> Option<Action> {
    let mut plan = lock(plan);
    let methods: [&[u8]; 5] = [b"GET ", b"HEAD ", b"PUT ", b"POST ", b"DELETE "];
    if !methods.iter().any(|method| bytes.starts_with(method)) {
        return None;
    }
    plan.requests += 1;
    let fault = plan.fault.as_mut()?;
    if fault.times == 0 || !bytes.starts_with(fault.method.as_bytes()) {
        return None;
    }
    fault.times -= 1;
    let action = fault.action;
    plan.taken += 1;
    Some(action)
}

async fn pass(mut client: TcpStream, upstream: String, plan: Arc<Mutex<Plan>>) {
    let Ok(mut server) = TcpStream::connect(upstream).await else {
        return;
    };
    let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let (mut action, mut sent, mut received) = (None, 0, 0);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(read @ 1..) = read else { return };
                if let Some(taken) = taken(&plan, &up[..read]) {
                    (action, sent, received) = (Some(taken), 0, 0);
                }
                match action {
                    Some(Action::Down) => return,
                    Some(Action::Hang) => std::future::pending().await,
                    Some(Action::Status(status)) => return answer(client, status).await,
                    Some(Action::CutUpload(limit)) if sent + read > limit => {
                        let _ = server.write_all(&up[..limit - sent]).await;
                        return;
                    }
                    _ => {}
                }
                sent += read;
                if server.write_all(&up[..read]).await.is_err() { return }
            }
            read = server.read(&mut down) => {
                let Ok(read @ 1..) = read else { return };
                match action {
                    Some(Action::CutDownload(limit)) if received + read > limit => {
                        let _ = client.write_all(&down[..limit - received]).await;
                        return;
                    }
                    Some(Action::Slow) => {
                        for piece in down[..read].chunks(8 * 1024) {
                            tokio::time::sleep(Duration::from_millis(2)).await;
                            if client.write_all(piece).await.is_err() { return }
                        }
                    }
                    _ => if client.write_all(&down[..read]).await.is_err() { return },
                }
                received += read;
            }
        }
    }
}

/// Says the status, then takes what the client still sends, so that it gets to read the answer.
async fn answer(mut client: TcpStream, status: u16) {
    let head = format!("HTTP/1.1 {status} Fault\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let _ = client.write_all(head.as_bytes()).await;
    let _ = client.shutdown().await;
    let mut rest = vec![0; 64 * 1024];
    while let Ok(1..) = client.read(&mut rest).await {}
}
