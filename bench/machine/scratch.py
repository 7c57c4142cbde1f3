"""What a run has on the machine while it lasts: two directories, and processes. Nothing of them stays, however the run ends."""

import ctypes
import os
import pathlib
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

PREFIX = "postern-bench."
# Below the ports that the kernel gives to outgoing connections (32768 and up), so that one that is free now stays free.
PORTS = (15_000, 32_000)
# How long a process may take to end in order before it is killed, in seconds.
END_WITHIN = 20
# How long whatever is waited for may take. A loaded machine starts PostgreSQL in a few seconds.
PATIENCE = 60

# By which a run is ended.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class BenchError(Exception):
    """Why there is no figure, in words for whoever runs the bench."""


def tail(path, lines=20):
    try:
        return "\n".join(pathlib.Path(path).read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


class Process:
    """A process of this run, with its log. `stop` is the signal by which it ends in order."""

    def __init__(self, name, popen, log, stop):
        self.name, self.popen, self.log, self.stop = name, popen, log, stop

    @property
    def pid(self):
        return self.popen.pid

    def is_running(self):
        return self.popen.poll() is None

    def check(self):
        if not self.is_running():
            raise BenchError(f"{self.name} has ended with {self.popen.returncode}; its log ends with:\n{tail(self.log)}")

    def end(self):
        if self.is_running():
            self.popen.send_signal(self.stop)
            try:
                self.popen.wait(END_WITHIN)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()


class Scratch:
    """`directory` is on disk, `memory` in /dev/shm. Processes end with the run, also when the run is killed."""

    def __init__(self):
        sweep()
        self.directory = self._directory(os.environ.get("TMPDIR", "/tmp"))
        self.memory = self._directory("/dev/shm")
        self.processes = []

    @staticmethod
    def _directory(parent):
        path = pathlib.Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        # PostgreSQL and pgbouncer run as another account, and have to reach their files.
        path.chmod(0o755)
        (path / "pid").write_text(str(os.getpid()))
        return path

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # A second Ctrl-C does not keep the first from being carried out.
        handlers = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
        for process in reversed(self.processes):
            process.end()
        for directory in (self.directory, self.memory):
            shutil.rmtree(directory, ignore_errors=True)
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def start(self, name, command, stop=signal.SIGTERM, account=None, env=None, **more):
        """Starts what runs on; standard output and error go to a log of its own."""
        log = self.directory / f"{name}.log"
        with open(log, "ab") as output:
            popen = spawn(command, stop, account, env=env, stdout=more.pop("stdout", output), stderr=output, **more)
        process = Process(name, popen, log, stop)
        self.processes.append(process)
        return process

    def forget(self, process):
        """Ends a process before the run does."""
        process.end()
        self.processes.remove(process)


def spawn(command, stop=signal.SIGTERM, account=None, **more):
    """A child that dies with us, and does not get the terminal's Ctrl-C: we end it in our own order."""

    def prepare():
        # What we ignore, or whoever started us, would be ignored by the child.
        for number in ENDING:
            signal.signal(number, signal.SIG_DFL)
        # It comes after the change of account, which would clear it: prctl(2).
        LIBC.prctl(PR_SET_PDEATHSIG, int(stop))

    if account:
        entry = pwd.getpwnam(account)
        more.update(user=entry.pw_uid, group=entry.pw_gid, extra_groups=[])
        more.setdefault("cwd", "/")
    more.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.Popen([str(part) for part in command], start_new_session=True, preexec_fn=prepare, **more)


def run(command, account=None, env=None, timeout=PATIENCE, text_in=None):
    """Runs to the end. Standard output, or BenchError with what it said."""
    feed = subprocess.DEVNULL if text_in is None else subprocess.PIPE
    popen = spawn(command, signal.SIGKILL, account, env=env, stdin=feed, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    what = " ".join(str(part) for part in command)[:200]
    try:
        output, error = popen.communicate(text_in, timeout)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{what}: not within {timeout} s") from None
    finally:
        if popen.poll() is None:
            popen.kill()
            popen.communicate()
    if popen.returncode:
        raise BenchError(f"{what}: ended with {popen.returncode}: {(error or output).strip()[-2000:]}")
    return output, error


def until(what, attempt, patience=PATIENCE, watched=()):
    """Waits for `attempt` to give something true; a BenchError of it counts as not yet, and is told in the end."""
    deadline, last = time.monotonic() + patience, None
    while time.monotonic() < deadline:
        for process in watched:
            process.check()
        try:
            found = attempt()
            if found:
                return found
        except BenchError as error:
            last = error
        time.sleep(0.1)
    logs = "".join(f"\n--- the log of {process.name} ends with:\n{tail(process.log)}" for process in watched)
    raise BenchError(f"{what}: not within {patience} s" + (f": {last}" if last else "") + logs)


def free_port():
    for _ in range(1000):
        port = random.randrange(*PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass
    raise BenchError(f"no free port between {PORTS[0]} and {PORTS[1]}")


def account_for_postgresql():
    """PostgreSQL and pgbouncer refuse to run as root; None where we are not root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        raise BenchError("there is no account postgres to run PostgreSQL as; run bench/install.sh") from None


def give_to(account, *paths):
    for path in paths:
        if account:
            shutil.chown(path, account, account)


def sweep():
    """Removes the directories of runs that were killed."""
    for parent in (os.environ.get("TMPDIR", "/tmp"), "/dev/shm"):
        for left in pathlib.Path(parent).glob(PREFIX + "*"):
            if left.is_symlink() or left.stat().st_uid != os.geteuid():
                continue
            try:
                os.kill(int((left / "pid").read_text()), 0)
            except (OSError, ValueError):
                shutil.rmtree(left, ignore_errors=True)
