"""What the figures were measured on."""

import os
import pathlib
import platform
import re
import resource
import shutil
import subprocess

from machine.scratch import BenchError


def postgresql_programs():
    """The directory of the newest PostgreSQL's programs, as Debian has them."""
    found = [path.parent for path in pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if not found:
        raise BenchError("PostgreSQL is not installed; run bench/install.sh")
    return max(found, key=lambda path: int(path.parent.name) if path.parent.name.isdigit() else 0)


def program(name):
    """Debian keeps daemons in directories that an ordinary PATH does not have."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not path:
        raise BenchError(f"{name} is not installed; run bench/install.sh")
    return path


def first_line(*command):
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return "not installed"
    return next((line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()), "?")


def describe(postern):
    processor = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return {
        "processor": processor[1] if processor else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory[1]) / 1024 / 1024) if memory else None,
        "kernel": platform.release(),
        "versions": {
            "Postern": first_line(postern, "version"),
            "PostgreSQL": first_line(postgresql_programs() / "postgres", "--version"),
            "pgbouncer": first_line(program("pgbouncer"), "--version"),
            "haproxy": re.sub(r" - http.*", "", first_line(program("haproxy"), "-v")),
            "OpenSSL": first_line("openssl", "version"),
            "Python": platform.python_version(),
        },
    }


def raise_file_limit(needed):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise BenchError(f"{needed} open files are needed and the hard limit is {hard}; raise it with `ulimit -Hn {needed}`")
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def load():
    return os.getloadavg()[0]
