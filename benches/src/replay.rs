//! `Replay`: what the operator was recorded to send for one object, sent for others by a client that does nothing else.

use http::{Method, Request, header::CONTENT_TYPE};
use kube::Client;
use trellis_testkit::Call;

use crate::Error;

/// The writes for one object, in their order.
#[derive(Debug, Clone)]
pub struct Replay {
    writes: Vec<Write>,
}

#[derive(Debug, Clone)]
struct Write {
    method: Method,
    path: String,
    content_type: String,
    body: String,
    said: String,
}

impl Replay {
    /// These calls, without those that write nothing.
    #[must_use]
    pub fn of(calls: &[Call]) -> Self {
        let writes = calls.iter().filter(|call| call.info.verb.writes()).map(|call| Write {
            method: call.sent.0.clone(),
            path: call.sent.1.clone(),
            content_type: call.content_type.clone(),
            body: String::from_utf8_lossy(&call.body).into_owned(),
            said: format!("{} {}", call.info.verb, call.info.resource),
        });
        Self {
            writes: writes.collect(),
        }
    }

    /// One line per write.
    #[must_use]
    pub fn said(&self) -> Vec<&str> {
        self.writes.iter().map(|write| write.said.as_str()).collect()
    }

    /// The same without creations: patches only.
    #[must_use]
    pub fn patches(&self) -> Self {
        let patches = self.writes.iter().filter(|write| write.method == Method::PATCH);
        Self {
            writes: patches.cloned().collect(),
        }
    }

    /// The same with other words: names, identifiers.
    #[must_use]
    pub fn with(&self, words: &[(&str, &str)]) -> Self {
        let mut other = self.clone();
        for write in &mut other.writes {
            for (from, to) in words {
                write.path = write.path.replace(from, to);
                write.body = write.body.replace(from, to);
            }
        }
        other
    }

    /// Sends one after another, each when the one before is answered.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub async fn send(self, client: Client) -> Result<(), Error> {
        for write in self.writes {
            let request = Request::builder()
                .method(write.method)
                .uri(write.path)
                .header(CONTENT_TYPE, write.content_type)
                .body(write.body.into_bytes())?;
            client.request_text(request).await?;
        }
        Ok(())
    }
}
