//! The connections between nodes that this process holds, tunnels and links: how many streams are open on each, how many wait to
//! be taken, and when its peer was heard last.

use crate::model::Moment;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// Whose connection it is.
#[derive(Debug, Clone)]
pub struct TunnelSpec {
    /// The path of the actor that has it.
    pub path: Arc<str>,
    /// `agent NAME`, `proxy NAME`, or `auth`.
    pub peer: Arc<str>,
}

/// How many streams of the peer's wait to be taken; `None` when the connection is gone.
type Backlog = Box<dyn Fn() -> Option<u32> + Send + Sync>;

/// One connection, as everybody sees it. It is off the list when it is gone.
pub struct Gauge {
    number: u64,
    spec: OnceLock<TunnelSpec>,
    pub since: Moment,
    streams: AtomicU32,
    heard: AtomicU64,
    backlog: Backlog,
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauge")
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Gauges {
    open: BTreeMap<u64, Weak<Gauge>>,
    next: u64,
}

static GAUGES: LazyLock<Mutex<Gauges>> = LazyLock::new(Mutex::default);

fn gauges() -> MutexGuard<'static, Gauges> {
    GAUGES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All connections that somebody has said to be his, in the order of their beginning.
pub fn all() -> Vec<Arc<Gauge>> {
    let open: Vec<_> = gauges().open.values().filter_map(Weak::upgrade).collect();
    let is_seen = |gauge: &Arc<Gauge>| gauge.spec().is_some() && gauge.waiting().is_some();
    open.into_iter().filter(is_seen).collect()
}

impl Gauge {
    pub fn begin(backlog: impl Fn() -> Option<u32> + Send + Sync + 'static) -> Arc<Self> {
        let mut gauges = gauges();
        gauges.next += 1;
        let now = Moment::now();
        let gauge = Arc::new(Self {
            number: gauges.next,
            spec: OnceLock::new(),
            since: now,
            streams: AtomicU32::new(0),
            heard: AtomicU64::new(now.as_nanos()),
            backlog: Box::new(backlog),
        });
        gauges.open.insert(gauge.number, Arc::downgrade(&gauge));
        gauge
    }

    /// From here on it is on the list.
    pub fn belongs_to(&self, path: Arc<str>, peer: Arc<str>) {
        let _first_counts = self.spec.set(TunnelSpec { path, peer });
    }

    pub fn spec(&self) -> Option<&TunnelSpec> {
        self.spec.get()
    }

    /// The peer has said that it lives.
    pub fn hears(&self) {
        self.heard.store(Moment::now().as_nanos(), Ordering::Relaxed);
    }

    pub fn heard(&self) -> Moment {
        Moment::from_nanos(self.heard.load(Ordering::Relaxed))
    }

    /// Streams of both sides that are open here.
    pub fn streams(&self) -> u32 {
        self.streams.load(Ordering::Relaxed)
    }

    /// Streams of the peer's that nobody has taken yet; `None` when the connection is gone.
    pub fn waiting(&self) -> Option<u32> {
        (self.backlog)()
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        gauges().open.remove(&self.number);
    }
}

/// A stream of a connection, for as long as it lives.
#[derive(Debug)]
pub struct OpenStream(Arc<Gauge>);

impl OpenStream {
    pub fn of(gauge: &Arc<Gauge>) -> Self {
        gauge.streams.fetch_add(1, Ordering::Relaxed);
        Self(gauge.clone())
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
