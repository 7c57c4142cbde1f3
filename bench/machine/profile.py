"""Where processes spend their CPU, by `perf record` on the CPU's clock: samples by what they were doing.

A sample counts for the first of GROUPS that it fits: by its thread, then by the function that it was in, in the kernel by the system
call that had led there.
"""

import re
import signal
import time
from collections import Counter

from machine.host import program
from machine.scratch import BenchError, run, spawn

# A thousand a second and core: a per cent of ten seconds on two cores is two hundred samples.
SAMPLES_A_SECOND = 1000
READ_WITHIN = 120

AUDIT, PROTOCOL, RELAY, MULTIPLEXER = "audit trail", "PostgreSQL's messages (framing)", "relay", "yamux"
DECISION, ACTORS, TELEMETRY = "certificates read, decisions", "actors", "records, gauges, metrics"
TLS, CRYPTOGRAPHY, RUNTIME, MEMORY = "rustls", "cryptography", "tokio, futures", "malloc, memcpy"
SENDING, RECEIVING, WAKING, CONNECTING = "kernel: sending", "kernel: receiving", "kernel: waiting, waking up", "kernel: opening, closing sockets"
FILES, PAGES, KERNEL = "kernel: files", "kernel: pages of memory", "kernel: the rest"
OTHER = "the rest"
ORDER = [
    SENDING, RECEIVING, WAKING, CONNECTING, FILES, PAGES, KERNEL, CRYPTOGRAPHY, TLS, MULTIPLEXER, RUNTIME, MEMORY, RELAY, PROTOCOL, AUDIT, ACTORS, DECISION,
    TELEMETRY, OTHER,
]  # fmt: skip

# Threads with one task.
THREADS = {"audit-spool": AUDIT}
# What only the audit trail of a statement needs: its crates, and the formatting of its lines.
FUNCTIONS = [
    (AUDIT, r"postern::(audit|actors::(audit|result_event|trail))|^<?(jiff|crc32fast|serde_json|itoa|core::(fmt|str)|alloc::(string|fmt)|std::io::read_until)"),
    (PROTOCOL, r"postern::protocol|postern::actors::session_taps"),
    (MULTIPLEXER, r"yamux|postern::net::(mux|deferred_flush)"),
    (TLS, r"rustls|webpki|postern::net::(tls|upstream_tls|big_reads)"),
    (RELAY, r"postern::net|postern::actors::(relay|(connection::Connection|upstream::Upstream)::relay::\{\{closure)"),
    (TELEMETRY, r"postern::telemetry|tracing"),
    (DECISION, r"postern::(policy|pki)|\bder::|x509_cert|spki"),
    (ACTORS, r"postern::|actix|bincode|serde"),
    (CRYPTOGRAPHY, r"^(ring_core|<?ring::|aws_lc|_?_?aes|aead|gcm|_?_?ecp|L?curve|Lp256|L?p256|L?bignum|EVP|CRYPTO|sha\d|bn_|beeu|asn1|cbs|cbb)|aws_lc_rs"),
    (RUNTIME, r"tokio|futures|parking_lot|std::|core::|^<&?mut|epoll|pthread|syscall|__libc|writev|recv|send|clock_gettime|<.*as core::(future|ops)"),
    (MEMORY, r"malloc|free|calloc|realloc|unlink_chunk|mem(move|cpy|set|cmp)|alloc::|hashbrown"),
]
CALLS = [
    # A call that ends in another function's is not on the stack itself.
    (SENDING, r"sys_(sendto|sendmsg|write)$|do_writev$"),
    (RECEIVING, r"sys_(recvfrom|recvmsg|read)$|do_readv$"),
    (CONNECTING, r"sys_(connect|socket|accept4|close|shutdown|[gs]etsockopt|getpeername|getsockname|fcntl)$"),
    (WAKING, r"^exit_to_user_mode_loop$|reschedule_ipi$"),
    (PAGES, r"exc_page_fault$|sys_(mmap|munmap|madvise|mprotect|brk)$"),
    (WAKING, r"sys_(epoll_\w+|futex|poll|sched_yield|nanosleep|clock_nanosleep)$"),
    (FILES, r"sys_(fdatasync|fsync|pwrite64|pread64|openat|rename\w*|unlink\w*|ftruncate|newfstatat|lseek)$"),
]
FUNCTIONS = [(group, re.compile(pattern)) for group, pattern in FUNCTIONS]
CALLS = [(group, re.compile(pattern)) for group, pattern in CALLS]


def group_of(thread, frames):
    """`frames`: function and object of each, the innermost first."""
    if thread in THREADS:
        return THREADS[thread]
    function, of = frames[0]
    if "kernel" in of or of.startswith("[k"):
        for frame, _ in frames:
            for group, pattern in CALLS:
                if pattern.search(frame):
                    return group
        return KERNEL
    return next((group for group, pattern in FUNCTIONS if pattern.search(function)), OTHER)


def parse(script):
    """The samples of `perf script -F comm,pid,ip,sym,dso` by process and group: a line with the thread's name and the process, then a
    line for each frame.
    """
    found = Counter()
    for block in script.split("\n\n"):
        lines = block.strip("\n").splitlines()
        frames = [(match[1], match[2]) for line in lines[1:] if (match := re.match(r"\s+[0-9a-f]+ (.*) \((.*)\)$", line))]
        if frames:
            thread, pid = lines[0].rsplit(None, 1)
            found[int(pid), group_of(thread, frames)] += 1
    if not found:
        raise BenchError("perf has taken no sample")
    return found


def shares(scratch, processes, what):
    """The share of each group in the CPU of all these processes while `what` runs, for each process by itself."""
    data = scratch.directory / "perf.data"
    command = [program("perf"), "record", "-q", "-F", SAMPLES_A_SECOND, "-e", "cpu-clock", "-g", "-o", data,
               "-p", ",".join(str(process.pid) for process in processes)]  # fmt: skip
    perf = spawn(command, signal.SIGINT)
    try:
        # It says nothing when it is attached; what it misses of ten seconds is no matter.
        time.sleep(0.5)
        if perf.poll() is not None:
            raise BenchError("perf does not attach; it takes root and a kernel that allows it (kernel.perf_event_paranoid)")
        what()
    finally:
        perf.send_signal(signal.SIGINT)
        perf.wait()
    script = run([program("perf"), "script", "-i", data, "-F", "comm,pid,ip,sym,dso"], timeout=READ_WITHIN)[0]
    data.unlink()
    samples = parse(script)
    return [{group: round(samples[process.pid, group] / samples.total(), 4) for group in ORDER} for process in processes]
