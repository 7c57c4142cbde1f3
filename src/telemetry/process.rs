//! What the kernel says of this process.

use crate::model::{Clock, SystemClock, Timestamp};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use std::sync::LazyLock;

/// When somebody first asked, which a node does at its start.
static STARTED: LazyLock<Timestamp> = LazyLock::new(|| SystemClock.now());

/// A reading; what cannot be read is not there.
#[derive(Debug, Clone, Copy)]
pub struct ProcessUsage {
    pub cpu_seconds: Option<f64>,
    pub resident_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    pub max_fds: Option<u64>,
}

/// When this process was started.
pub fn started() -> Timestamp {
    *STARTED
}

pub fn usage() -> ProcessUsage {
    ProcessUsage {
        cpu_seconds: cpu_seconds(),
        resident_bytes: resident_bytes(),
        open_fds: open_fds(),
        max_fds: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
    }
}

fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Some(seconds(usage.user_time()) + seconds(usage.system_time()))
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn open_fds() -> Option<u64> {
    let entries = std::fs::read_dir("/proc/self/fd").ok()?;
    // The one that is read with is one of them.
    u64::try_from(entries.count()).ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_what_this_process_uses() {
        let usage = usage();
        assert!(usage.resident_bytes.is_some_and(|bytes| bytes > 1 << 20), "{usage:?}");
        assert!(usage.cpu_seconds.is_some_and(|seconds| seconds > 0.0), "{usage:?}");
        assert!(
            usage
                .open_fds
                .zip(usage.max_fds)
                .is_some_and(|(open, max)| open > 0 && open <= max),
            "{usage:?}"
        );
    }
}
