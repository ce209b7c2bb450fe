//! `Audit`: what the API server did, read from its audit log.
//!
//! audit log (JSON lines) ─▶ events since a mark ─▶ filters in the words of [`Calls`] ─▶ Lease history, violations
//!
//! Invariants: only finished requests count (stage `ResponseComplete` or `Panic`), each once; a line that is still
//! being written is read the next time.

mod event;
mod lease;

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

pub use self::{
    event::{Event, ObjectRef},
    lease::{Breach, Claim, LeaseHistory, Takeover, Tenure, Violation, no_write_by_non_holder, replica_of},
};
use crate::Calls;

/// Why an audit log could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The file is not readable.
    #[error("audit log {}", path.display())]
    Io {
        /// The log.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// A line is not an audit event.
    #[error("audit log {}: {line}", path.display())]
    Line {
        /// The log.
        path: PathBuf,
        /// The line.
        line: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The log is shorter than the mark: it was rotated or replaced.
    #[error("audit log {}: shorter than before, so events are lost", path.display())]
    Rotated {
        /// The log.
        path: PathBuf,
    },
}

/// A place in an audit log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// An API server's audit log.
#[derive(Clone, Debug)]
pub struct Audit {
    path: PathBuf,
}

impl Audit {
    /// The log in this file.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the log ends now; a line that is only half written comes after it.
    pub fn mark(&self) -> Result<Mark, AuditError> {
        self.whole_lines().map(Mark).map_err(|source| self.io(source))
    }

    /// Bytes up to the end of the last line that is whole.
    fn whole_lines(&self) -> io::Result<u64> {
        let mut file = File::open(&self.path)?;
        let mut end = file.metadata()?.len();
        let mut piece = [0; 4096];
        while end > 0 {
            let start = end.saturating_sub(piece.len() as u64);
            let piece = piece.get_mut(..usize::try_from(end - start).unwrap_or_default());
            let piece = piece.unwrap_or_default();
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(piece)?;
            if let Some(newline) = piece.iter().rposition(|byte| *byte == b'\n') {
                return Ok(start + newline as u64 + 1);
            }
            end = start;
        }
        Ok(0)
    }

    /// Every event after `mark`.
    pub fn since(&self, mark: Mark) -> Result<Vec<Event>, AuditError> {
        self.tail(mark).read()
    }

    /// The events after `mark` that are among `which`, for instance `calls().work().namespace("a")`.
    pub fn calls_since(&self, mark: Mark, which: &Calls) -> Result<Vec<Event>, AuditError> {
        let mut events = self.since(mark)?;
        events.retain(|event| which.matches(&event.info()));
        Ok(events)
    }

    /// A reader that goes on where it stopped.
    #[must_use]
    pub fn tail(&self, mark: Mark) -> Tail {
        Tail {
            audit: self.clone(),
            mark,
        }
    }

    fn io(&self, source: io::Error) -> AuditError {
        AuditError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

/// A reader of a growing audit log.
#[derive(Clone, Debug)]
pub struct Tail {
    audit: Audit,
    mark: Mark,
}

impl Tail {
    /// The events since the last call.
    pub fn read(&mut self) -> Result<Vec<Event>, AuditError> {
        let text = self.text().map_err(|source| self.audit.io(source))?;
        let Some(text) = text else {
            return Err(AuditError::Rotated {
                path: self.audit.path.clone(),
            });
        };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut events = Vec::new();
        for line in text
            .get(..whole)
            .unwrap_or_default()
            .lines()
            .filter(|line| !line.is_empty())
        {
            let event: Event = serde_json::from_str(line).map_err(|source| AuditError::Line {
                path: self.audit.path.clone(),
                line: line.chars().take(400).collect(),
                source,
            })?;
            if event.is_finished() {
                events.push(event);
            }
        }
        self.mark.0 += whole as u64;
        Ok(events)
    }

    /// The text after the mark; `None` when the file is shorter than the mark.
    fn text(&self) -> io::Result<Option<String>> {
        let mut file = File::open(&self.audit.path)?;
        if file.metadata()?.len() < self.mark.0 {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(self.mark.0))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // A line that is still being written may end inside a character.
        bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
        String::from_utf8(bytes).map(Some).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Verb, calls};
    use serde_json::json;
    use std::io::Write;

    fn line(stage: &str, verb: &str, uri: &str, object: &serde_json::Value) -> String {
        let event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": "1", "stage": stage,
            "verb": verb, "requestURI": uri, "user": { "username": "admin", "groups": ["g"] }, "sourceIPs": ["::1"],
            "userAgent": "trellis/0.1.0 (a-1) x", "objectRef": object, "responseStatus": { "code": 201 },
            "requestReceivedTimestamp": "2026-01-01T00:00:00.000001Z", "stageTimestamp": "2026-01-01T00:00:00.5Z",
        });
        format!("{event}\n")
    }

    #[test]
    fn a_mark_is_before_a_half_written_line() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let audit = Audit::at(file.path());
        assert_eq!(audit.mark().unwrap(), Mark(0));
        write!(file, "half").unwrap();
        assert_eq!(audit.mark().unwrap(), Mark(0));
        writeln!(file, " of it").unwrap();
        assert_eq!(audit.mark().unwrap(), Mark(11));
        // Longer than what is read at once.
        write!(file, "{}", "x".repeat(10_000)).unwrap();
        assert_eq!(audit.mark().unwrap(), Mark(11));
    }

    #[test]
    fn reads_finished_events_once_and_half_lines_later() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let audit = Audit::at(file.path());
        file.write_all(line("ResponseComplete", "get", "/version", &json!(null)).as_bytes())
            .unwrap();
        let mut tail = audit.tail(audit.mark().unwrap());
        assert!(tail.read().unwrap().is_empty());
        let object =
            json!({ "resource": "policies", "subresource": "status", "namespace": "n", "name": "p", "apiGroup": "g" });
        file.write_all(line("ResponseStarted", "watch", "/x", &object).as_bytes())
            .unwrap();
        let patch = line(
            "ResponseComplete",
            "patch",
            "/apis/g/v1/namespaces/n/policies/p/status?force=true",
            &object,
        );
        let (head, rest) = patch.split_at(60);
        file.write_all(head.as_bytes()).unwrap();
        assert!(tail.read().unwrap().is_empty());
        file.write_all(rest.as_bytes()).unwrap();
        let events = tail.read().unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].identity(), Some("a-1"));
        assert!(events[0].succeeded());
        assert!(
            calls()
                .verb(Verb::Patch)
                .resource("policies/status")
                .namespace("n")
                .name("p")
                .matches(&events[0].info())
        );
        assert!(calls().work().parameter("force", "true").matches(&events[0].info()));
        assert!(tail.read().unwrap().is_empty());
        assert_eq!(audit.since(Mark::default()).unwrap().len(), 2);
        assert!(
            audit
                .calls_since(Mark::default(), &calls().work().namespace("other"))
                .unwrap()
                .is_empty()
        );
        file.as_file().set_len(10).unwrap();
        assert!(matches!(tail.read(), Err(AuditError::Rotated { .. })));
    }
}
