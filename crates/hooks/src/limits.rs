//! `Limits`: how much one run may take.

use serde::{Deserialize, Serialize};

/// How much one run may take. `Default` gives what the sidecar uses unless it is told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Seconds of processor time of each process (`RLIMIT_CPU`). Default 60.
    pub cpu_seconds: u64,
    /// Bytes of address space of each process (`RLIMIT_AS`). Default 1 GiB.
    pub memory: u64,
    /// Open files of each process (`RLIMIT_NOFILE`). Default 256.
    pub files: u64,
    /// Bytes of each written file (`RLIMIT_FSIZE`), and of all files of a run together, which the warden counts several
    /// times a second. Default 1 GiB.
    pub file_size: u64,
    /// Processes of one run, all together. Default 64. Where the run has a user namespace of its own the kernel
    /// enforces it (`RLIMIT_NPROC`); elsewhere the warden counts and ends a run that has more.
    pub processes: u32,
    /// Processes of the sidecar's user id, all together, where a run has no user namespace (`RLIMIT_NPROC`). Default
    /// 1024. The kernel counts those of other Pods of the same user id on the node as well, so it is generous; it
    /// bounds what can be born between two rounds of counting.
    pub user_processes: u32,
    /// Bytes into a streamed run. Default 1 GiB.
    pub stdin: u64,
    /// Bytes out of a streamed run. Default 1 GiB.
    pub stdout: u64,
    /// Bytes of standard error; the run is ended when it says more. Default 16 MiB. Only the end is kept.
    pub stderr: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            cpu_seconds: 60,
            memory: 1024 * MIB,
            files: 256,
            file_size: 1024 * MIB,
            processes: 64,
            user_processes: 1024,
            stdin: 1024 * MIB,
            stdout: 1024 * MIB,
            stderr: 16 * MIB,
        }
    }
}

/// Whether a run may reach the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Network {
    /// Off; where the kernel does not allow that, nothing runs.
    Off,
    /// Off where the kernel allows it. The sidecar logs at its start which of both it is.
    #[default]
    OffWherePossible,
    /// As the sidecar's own.
    On,
}
