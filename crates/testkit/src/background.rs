//! One runtime that outlives the runtimes of single tests: planes, proxies and clean-ups run in it.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle, Runtime};

/// The handle of the background runtime, started on first use and never ended.
#[expect(
    clippy::expect_used,
    reason = "a test process that cannot start two threads cannot test anything"
)]
pub(crate) fn background() -> &'static Handle {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name("testkit")
                .enable_all()
                .build()
                .expect("the background runtime starts")
        })
        .handle()
}
