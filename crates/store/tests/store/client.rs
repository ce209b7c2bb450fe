//! An HTTP client that sends what it is told, byte by byte, and hides nothing.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

/// An answer without its body.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn length(&self) -> usize {
        self.header("content-length")
            .map_or(0, |length| length.parse().unwrap())
    }
}

/// One connection.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) async fn to(address: SocketAddr) -> Self {
        Self {
            stream: BufReader::new(TcpStream::connect(address).await.unwrap()),
        }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Sends a request with these header lines.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, headers: &[&str]) {
        let lines: String = headers.iter().flat_map(|line| [line, "\r\n"]).collect();
        self.send(&format!("{method} {path} HTTP/1.1\r\nhost: files\r\n{lines}\r\n"))
            .await;
    }

    /// The head of the next answer; none when the connection was closed.
    pub(crate) async fn head(&mut self) -> Option<Head> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines[1..].iter().map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_lowercase(), value.trim().to_owned())
        });
        Some(Head {
            status,
            headers: headers.collect(),
        })
    }

    /// The next bytes of a body.
    pub(crate) async fn take(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        self.stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    /// Whatever still comes until the end of the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.stream.read_to_end(&mut bytes).await;
        bytes
    }

    /// Reads that many bytes and keeps none. Returns their digest.
    pub(crate) async fn digest(&mut self, size: usize) -> trellis_store::Digest {
        let mut hasher = trellis_store::Hasher::default();
        let mut left = size;
        let mut piece = vec![0; 64 * 1024];
        while left > 0 {
            let wanted = left.min(piece.len());
            let read = self.stream.read(&mut piece[..wanted]).await.unwrap();
            assert!(read > 0, "the body was cut {left} bytes before its end");
            hasher.update(&piece[..read]);
            left -= read;
        }
        hasher.finish()
    }
}

/// One request on a connection of its own, and the whole answer.
pub(crate) async fn ask(address: SocketAddr, method: &str, path: &str, headers: &[&str]) -> (Head, Vec<u8>) {
    let mut connection = Connection::to(address).await;
    let lines: Vec<&str> = headers.iter().copied().chain(["connection: close"]).collect();
    connection.ask(method, path, &lines).await;
    let head = connection.head().await.unwrap();
    let body = connection.rest().await;
    (head, body)
}
