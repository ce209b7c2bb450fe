//! `Calls`: which calls a rule, a filter or a count is about.

use crate::request::{RequestInfo, Verb};

use super::{Fault, Rule};

/// A set of calls; empty conditions match everything.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    verbs: Vec<Verb>,
    resources: Vec<String>,
    except: Vec<String>,
    namespace: Option<String>,
    name: Option<String>,
    parameter: Option<(String, String)>,
}

/// Every call; narrow it down with the methods of [`Calls`].
#[must_use]
pub fn calls() -> Calls {
    Calls::default()
}

impl Calls {
    /// Only this verb; several calls mean any of them.
    #[must_use]
    pub fn verb(mut self, verb: Verb) -> Self {
        self.verbs.push(verb);
        self
    }

    /// Only verbs that can change what is stored. Access and token reviews are creations that store nothing, so they
    /// are left out.
    #[must_use]
    pub fn writes(mut self) -> Self {
        self.verbs.extend(Verb::WRITES);
        for review in [
            "tokenreviews",
            "subjectaccessreviews",
            "localsubjectaccessreviews",
            "selfsubjectaccessreviews",
            "selfsubjectrulesreviews",
            "selfsubjectreviews",
        ] {
            self = self.except(review);
        }
        self
    }

    /// What an operator writes for its users: [`writes`](Self::writes) without Leases and Events.
    #[must_use]
    pub fn work(self) -> Self {
        self.writes().except("leases").except("events")
    }

    /// Only this plural resource, with its subresource if it is about one (`services`, `resiliencepolicies/status`);
    /// several calls mean any of them.
    #[must_use]
    pub fn resource(mut self, resource: &str) -> Self {
        self.resources.push(resource.to_owned());
        self
    }

    /// Not this resource.
    #[must_use]
    pub fn except(mut self, resource: &str) -> Self {
        self.except.push(resource.to_owned());
        self
    }

    /// Only inside this namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Only the object of this name.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Only with this query parameter, for instance `fieldManager`.
    #[must_use]
    pub fn parameter(mut self, key: &str, value: &str) -> Self {
        self.parameter = Some((key.to_owned(), value.to_owned()));
        self
    }

    /// Whether a request is one of these calls.
    #[must_use]
    pub fn matches(&self, info: &RequestInfo) -> bool {
        (self.verbs.is_empty() || self.verbs.contains(&info.verb))
            && (self.resources.is_empty() || self.resources.contains(&info.resource))
            && !self.except.contains(&info.resource)
            && (self.namespace.is_none() || self.namespace == info.namespace)
            && (self.name.is_none() || self.name == info.name)
            && self
                .parameter
                .as_ref()
                .is_none_or(|(key, value)| info.parameter(key).as_ref() == Some(value))
    }

    /// Of these calls only the `n`-th, counted from 1.
    #[must_use]
    pub fn nth(self, n: u64) -> Chosen {
        Chosen {
            calls: self,
            which: Which::Nth(n),
        }
    }

    /// Of these calls the first `n`.
    #[must_use]
    pub fn first(self, n: u64) -> Chosen {
        Chosen {
            calls: self,
            which: Which::First(n),
        }
    }

    /// Of these calls the `k`-th, the `2k`-th and so on.
    #[must_use]
    pub fn every(self, k: u64) -> Chosen {
        Chosen {
            calls: self,
            which: Which::Every(k),
        }
    }

    /// A rule: each of these calls meets `fault`.
    #[must_use]
    pub fn then(self, fault: Fault) -> Rule {
        Chosen {
            calls: self,
            which: Which::All,
        }
        .then(fault)
    }
}

/// Some of a set of calls, chosen by their place in the order of arrival.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub(super) calls: Calls,
    pub(super) which: Which,
}

impl Chosen {
    /// A rule: each chosen call meets `fault`.
    #[must_use]
    pub fn then(self, fault: Fault) -> Rule {
        Rule { chosen: self, fault }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Which {
    All,
    Nth(u64),
    First(u64),
    Every(u64),
}

impl Which {
    /// Whether the `seen`-th matching call (from 1) is chosen.
    pub(super) fn takes(self, seen: u64) -> bool {
        match self {
            Self::All => true,
            Self::Nth(n) => seen == n,
            Self::First(n) => seen <= n,
            Self::Every(k) => k > 0 && seen.is_multiple_of(k),
        }
    }
}
