"""Processes and directories of a run, what the kernel says of them, and what strace and pgbench print."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest

from machine import callgrind, profile, syscalls
from machine.process import cpu_seconds, resident_kib
from machine.scratch import BenchError, Scratch, run, until
from work.statements import read_log

BENCH = pathlib.Path(__file__).resolve().parent.parent
STRACE = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000600           3       200           sendto
 40.00    0.000400           2       180        17 recvfrom
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000           2       380        17 total
"""
# As `perf script` prints them: the innermost frame first.
SAMPLES = """\
worker-0   71
\t    7f21 tcp_sendmsg_locked ([kernel.kallsyms])
\t    7f20 do_writev ([kernel.kallsyms])
\t    7f1f do_syscall_64 ([kernel.kallsyms])
\t      9f __writev (/usr/lib/libc.so.6)

worker-1   72
\t      10 yamux::connection::Connection<T>::poll_next_inbound (/usr/bin/postern)

audit-spool   72
\t    7f21 ext4_sync_file ([kernel.kallsyms])
\t    7f20 __x64_sys_fdatasync ([kernel.kallsyms])

tokio rt worker   72
\t      11 <postern::policy::role::Role as core::fmt::Debug>::fmt (/usr/bin/postern)
"""


def lives(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Scratches(unittest.TestCase):
    def test_what_was_started_is_ended_and_what_was_made_is_removed(self):
        with Scratch() as scratch:
            process = scratch.start("sleeper", ["sleep", "600"])
            directories = (scratch.directory, scratch.memory)
        self.assertFalse(lives(process.pid))
        self.assertFalse(any(directory.exists() for directory in directories))

    def test_an_interrupted_run_leaves_nothing(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self.assertEqual(self.left_after(number), [])

    def test_the_processes_of_a_killed_run_die_and_the_next_run_removes_its_directories(self):
        left = self.left_after(signal.SIGKILL)
        self.assertTrue(left)
        with Scratch():
            self.assertFalse(any(path.exists() for path in left))

    def left_after(self, number):
        """The directories that a run leaves which gets this signal; its process is gone, or this waits for it in vain."""
        script = textwrap.dedent("""
            import time
            import run
            from machine.scratch import Scratch
            run.heed_signals()
            try:
                with Scratch() as scratch:
                    print(scratch.start("sleeper", ["sleep", "600"]).pid, scratch.directory, scratch.memory, flush=True)
                    time.sleep(600)
            except KeyboardInterrupt:
                pass
        """)
        driver = subprocess.Popen([sys.executable, "-B", "-c", script], cwd=BENCH, stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            pid, *directories = driver.stdout.readline().split()
            driver.send_signal(number)
            driver.wait(30)
        finally:
            driver.kill()
            driver.wait()
            driver.stdout.close()
        until("the process is gone", lambda: not lives(pid), 10)
        return [path for path in map(pathlib.Path, directories) if path.exists()]

    def test_a_sample_is_counted_by_its_thread_its_call_and_its_function(self):
        found = profile.parse(SAMPLES)
        wanted = {(71, profile.SENDING): 1, (72, profile.MULTIPLEXER): 1, (72, profile.AUDIT): 1, (72, profile.DECISION): 1}
        self.assertEqual(dict(found), wanted)

    def test_perf_without_samples_is_an_error(self):
        with self.assertRaisesRegex(BenchError, "no sample"):
            profile.parse("\n")

    def test_the_cryptography_of_either_library_counts_as_such(self):
        functions = ["ring_core_0_17_14__aes_gcm_enc_update_vaes_avx2", "ring::aead::aes_gcm::seal", "aws_lc_0_47_0_ecp_nistz256_avx2_select_w7", "aes_gcm_enc_update"]
        found = [profile.group_of("worker-0", [(function, "/usr/local/bin/postern")]) for function in functions]
        self.assertEqual(found, [profile.CRYPTOGRAPHY] * len(functions))

    def test_the_relay_of_a_connection_counts_as_such_and_the_start_of_one_as_an_actors(self):
        def group_of(function):
            return profile.group_of("worker-0", [(function, "/usr/local/bin/postern")])

        for side in ("connection::Connection", "upstream::Upstream"):
            self.assertEqual(group_of(f"postern::actors::{side}::relay::{{{{closure}}}}"), profile.RELAY)
            self.assertEqual(group_of(f"postern::actors::{side}::relay"), profile.ACTORS)

    def test_a_program_that_fails_is_an_error_with_its_words(self):
        with self.assertRaisesRegex(BenchError, "ended with 3: no such thing"):
            run(["sh", "-c", "echo no such thing >&2; exit 3"])

    def test_a_program_that_hangs_is_ended(self):
        with self.assertRaisesRegex(BenchError, "not within 0.2 s"):
            run(["sleep", "600"], timeout=0.2)

    def test_waiting_for_a_process_that_has_ended_says_so_with_its_log(self):
        with Scratch() as scratch:
            process = scratch.start("short", ["sh", "-c", "echo its last words"])
            with self.assertRaisesRegex(BenchError, "its last words"):
                until("never", lambda: False, watched=[process])


class Kernel(unittest.TestCase):
    def test_cpu_and_memory_of_another_process_are_read(self):
        with Scratch() as scratch:
            busy = scratch.start("busy", ["sh", "-c", "while :; do :; done"])
            before, began = cpu_seconds([busy]), time.monotonic()
            until("it has worked", lambda: cpu_seconds([busy]) - before > 0.1, 30)
            self.assertLessEqual(cpu_seconds([busy]) - before, time.monotonic() - began + 0.1)
            self.assertGreater(resident_kib(busy), 100)

    def test_a_process_that_has_ended_has_no_figure(self):
        with Scratch() as scratch:
            ended = scratch.start("ended", ["true"])
            ended.popen.wait()
            with self.assertRaisesRegex(BenchError, "has ended"):
                cpu_seconds([ended])


class Texts(unittest.TestCase):
    def test_calls_are_read_with_and_without_errors(self):
        self.assertEqual(syscalls.parse(STRACE), {"sendto": 200, "recvfrom": 180})

    def test_a_table_without_calls_is_an_error(self):
        with self.assertRaises(BenchError):
            syscalls.parse("")

    def test_a_transaction_that_pgbench_did_not_do_is_an_error(self):
        with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
            log.write("0 1 250 0 1700000000 1\n0 2 skipped 0 1700000000 2\n")
            log.flush()
            with self.assertRaises(BenchError):
                list(read_log(log.name))


class CallsOfAProcess(unittest.TestCase):
    @unittest.skipUnless(os.geteuid() == 0 and pathlib.Path("/usr/bin/strace").exists(), "takes root and strace")
    def test_the_calls_of_a_process_are_counted(self):
        with Scratch() as scratch:
            process = scratch.start("caller", ["sh", "-c", "while :; do kill -0 $$; done"])
            calls = syscalls.count(scratch, [process], lambda: time.sleep(0.2))
            self.assertGreater(calls["kill"], 1)


class Instructions(unittest.TestCase):
    def test_a_dump_ends_with_its_total(self):
        self.assertEqual(callgrind.total("summary: 12\nfn=(1)\n3 4\ntotals: 4711\n"), 4711)
        self.assertEqual(callgrind.total("events: Ir\nsummary: 12\n"), 12)

    def test_a_dump_without_one_is_told(self):
        with self.assertRaisesRegex(BenchError, "no total"):
            callgrind.total("fn=(1)\n3 4\n")

    def test_only_a_node_is_started_under_callgrind(self):
        with Scratch() as scratch:
            program = scratch.directory / "a program"
            program.write_text('#!/bin/sh\necho "$@"\n')
            program.chmod(0o755)
            watched = callgrind.watched(scratch, program)
            self.assertEqual(run([watched, "ctl", "status"])[0], "ctl status\n")
            self.assertIn(f"exec valgrind -q --tool=callgrind --callgrind-out-file={scratch.directory}/instructions.%p '{program}'", watched.read_text())
