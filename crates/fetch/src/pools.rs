//! `Pools`: kept connections, one pool for each way of making them.
//!
//! ```text
//!  (Trust, Identity, Proxy) ─▶ Key (a digest) ─▶ pool ─▶ kept connections by scheme and host
//! ```
//!
//! Invariants: a connection that was made with one certificate, trust or proxy is never used with another; the number of
//! pools has a bound, and what was not used for longest goes first; no key holds a secret in the clear.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};

use crate::{
    connect::{Connector, Route},
    egress::{Egress, Resolve},
    error::Result,
    proxy::Proxy,
    settings::Settings,
    tls::{self, Identity, Trust},
};

/// The HTTP library's client: a pool.
pub(crate) type Pool = legacy::Client<Connector, Full<Bytes>>;

/// All pools of a client.
pub(crate) struct Pools {
    egress: Arc<dyn Egress>,
    resolve: Arc<dyn Resolve>,
    /// The one that was used last is at the end.
    kept: Mutex<Vec<(Key, Pool)>>,
    open: Arc<AtomicUsize>,
    busy: Arc<AtomicUsize>,
}

#[derive(PartialEq, Eq, Clone)]
struct Key {
    tls: Vec<u8>,
    proxy: Option<(crate::link::Link, Option<http::HeaderValue>)>,
}

/// A request that is under way, for the count of connections in use.
pub(crate) struct Busy(Arc<AtomicUsize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pools {
    pub(crate) fn new(egress: Arc<dyn Egress>, resolve: Arc<dyn Resolve>) -> Self {
        Self {
            egress,
            resolve,
            kept: Mutex::default(),
            open: Arc::default(),
            busy: Arc::default(),
        }
    }

    /// What a name resolves to here.
    pub(crate) async fn resolve(&self, host: &str) -> std::io::Result<Vec<std::net::IpAddr>> {
        self.resolve.resolve(host).await
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How many pools there are.
    pub(crate) fn len(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Count a request as under way.
    pub(crate) fn busy(&self) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(self.busy.clone())
    }

    /// The pool for a way of connecting.
    pub(crate) fn get(
        &self,
        settings: &Settings,
        trust: &Trust,
        identity: Option<&Identity>,
        proxy: Option<&Proxy>,
    ) -> Result<Pool> {
        let key = Key {
            tls: tls::fingerprint(trust, identity),
            proxy: proxy.map(|proxy| (proxy.link().clone(), proxy.authorization().cloned())),
        };
        if let Some(pool) = self.touch(settings, &key) {
            return Ok(pool);
        }
        // Certificates are parsed outside of the lock; of two that do so at once, the second one's pool is used no more
        // than once.
        let pool = self.build(settings, trust, identity, proxy)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(other, _)| *other != key);
        kept.push((key, pool.clone()));
        let surplus = kept.len().saturating_sub(settings.max_pools.max(1));
        kept.drain(..surplus);
        Ok(pool)
    }

    fn touch(&self, settings: &Settings, key: &Key) -> Option<Pool> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Letting a pool go closes what it keeps; what is in use ends first. Requests under way are taken off, of which
        // several may share one connection: the bound is on what is kept, and it is approximate.
        let idle = self.open().saturating_sub(self.busy.load(Ordering::Relaxed));
        if idle > settings.max_idle && !kept.is_empty() {
            kept.remove(0);
        }
        let at = kept.iter().position(|(other, _)| other == key)?;
        let found = kept.remove(at);
        let pool = found.1.clone();
        kept.push(found);
        Some(pool)
    }

    fn build(
        &self,
        settings: &Settings,
        trust: &Trust,
        identity: Option<&Identity>,
        proxy: Option<&Proxy>,
    ) -> Result<Pool> {
        let roots = settings.roots.as_deref();
        let proxy = match proxy {
            None => None,
            Some(proxy) => {
                let mut config = tls::config(roots, trust, None)?;
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                Some((proxy.clone(), Arc::new(config)))
            }
        };
        let connector = Connector(Arc::new(Route {
            egress: self.egress.clone(),
            resolve: self.resolve.clone(),
            tls: Arc::new(tls::config(roots, trust, identity)?),
            proxy,
            limit: settings.connect_timeout,
            open: self.open.clone(),
        }));
        Ok(legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(settings.idle_connection_timeout)
            .pool_max_idle_per_host(settings.max_idle_per_host)
            // A window for the throughput of a long way; a body is passed on as it comes, so that this is all it holds.
            .http2_initial_stream_window_size(2 * 1024 * 1024)
            .http2_initial_connection_window_size(4 * 1024 * 1024)
            .http2_keep_alive_interval(settings.idle_timeout)
            .http2_keep_alive_timeout(settings.header_timeout)
            .build(connector))
    }
}
