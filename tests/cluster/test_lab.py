# SPDX-License-Identifier: Apache-2.0
"""The laboratory itself: what the other tests in namespaces take for granted."""
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import harness
import netns

# Counts in two threads, into two words of a file that it maps.
COUNTER = """
import mmap, struct, sys, threading, time
with open(sys.argv[1], "r+b") as f:
    words = mmap.mmap(f.fileno(), 16)
def count(place):
    n = 0
    while True:
        n += 1
        struct.pack_into("=Q", words, place, n)
        time.sleep(0.001)
threading.Thread(target=count, args=(8,), daemon=True).start()
count(0)
"""


class Wire:
    """A TCP connection between two nodes, both ends in this process."""

    def __init__(self, lab, a, b):
        with contextlib.ExitStack() as stack:
            with lab.inside(b):
                server = stack.enter_context(socket.create_server((lab.address(b), 0)))
            with lab.inside(a):
                self.a = socket.socket()
            self.a.settimeout(5)
            self.a.connect(server.getsockname())
            self.b = server.accept()[0]
            self.b.settimeout(5)

    def passes(self, forth=True, patience=0.3):
        """Whether a byte arrives. A lost one arrives later, when the link is whole again."""
        source, target = (self.a, self.b) if forth else (self.b, self.a)
        source.send(b"x")
        target.settimeout(patience)
        try:
            return target.recv(1) == b"x"
        except TimeoutError:
            return False

    def close(self):
        self.a.close()
        self.b.close()


class Laboratory(unittest.TestCase):
    def lab(self, *arguments, **keywords):
        lab = netns.Lab(*arguments, **keywords)
        self.addCleanup(lab.close)
        return lab

    def wire(self, lab, a, b):
        wire = Wire(lab, a, b)
        self.addCleanup(wire.close)
        return wire

    def test_a_program_is_on_its_node_and_its_pid_is_its_own(self):
        lab = self.lab(3)
        process = lab.start(2, ["sleep", "1000"])
        with open("/proc/%d/cmdline" % process.pid, "rb") as f:
            self.assertEqual(f.read(), b"sleep\x001000\x00")
        self.assertEqual(lab.inhabitants(), [process.pid])
        with lab.inside(2):
            here = os.readlink("/proc/thread-self/ns/net")
        self.assertEqual(os.readlink("/proc/%d/ns/net" % process.pid), here)
        self.assertNotEqual(os.readlink("/proc/thread-self/ns/net"), here)

    def test_output_and_environment(self):
        lab = self.lab(1)
        with harness.tempfile.TemporaryDirectory() as folder:
            names = [os.path.join(folder, name) for name in ("out", "err")]
            process = lab.start(
                0,
                ["sh", "-c", "echo $WORD; echo no >&2; exit 3"],
                env={"WORD": "yes"},
                stdout=names[0],
                stderr=names[1],
            )
            self.assertEqual(process.wait(), 3)
            self.assertEqual([harness.read_text(name) for name in names], ["yes\n", "no\n"])

    def test_command_for_other_launchers(self):
        lab = self.lab(2)
        done = subprocess.run(
            lab.command(1) + ["ip", "-br", "addr"], capture_output=True, text=True
        )
        self.assertIn(lab.address(1) + "/16", done.stdout)

    def test_the_host_is_left_alone(self):
        lab = self.lab(2)
        seen = {}
        for where in ("host", "node"):
            with lab.inside(0) if where == "node" else contextlib.nullcontext():
                words = ["ip", "-o", "link"], ["ip", "-o", "addr"]
                seen[where] = "".join(subprocess.check_output(w, text=True) for w in words)
        for mark in (netns.mac_of(0), lab.address(0) + "/16"):
            self.assertIn(mark, seen["node"])
            self.assertNotIn(mark, seen["host"])
        self.assertNotIn(netns.NOWHERE, seen["host"])

    def test_congestion_control(self):
        lab = self.lab(1, congestion="reno")
        self.assertEqual(lab.congestion, "reno")
        with lab.inside(0), socket.socket() as s:
            self.assertEqual(
                s.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 5)[:4], b"reno"
            )

    def test_cable(self):
        lab = self.lab(3)
        wire, other = self.wire(lab, 0, 1), self.wire(lab, 0, 2)
        self.assertTrue(wire.passes() and wire.passes(False))
        lab.link_down(1)
        self.assertFalse(wire.passes())
        self.assertFalse(wire.passes(False))
        self.assertTrue(other.passes())
        lab.link_up(1)
        self.assertTrue(wire.passes(patience=20))

    def test_cut_between_two(self):
        lab = self.lab(3)
        ab, ac, bc = (self.wire(lab, *pair) for pair in ((0, 1), (0, 2), (1, 2)))
        lab.cut(0, 1)
        self.assertFalse(ab.passes())
        self.assertFalse(ab.passes(False))
        self.assertTrue(ac.passes() and ac.passes(False) and bc.passes() and bc.passes(False))
        with self.assertRaises(netns.LabError):
            lab.ping(0, 1)
        lab.heal(0, 1)
        self.assertTrue(ab.passes(patience=20) and ab.passes(False, patience=20))
        lab.ping(0, 1)

    def test_half_open(self):
        lab = self.lab(3)
        wire = self.wire(lab, 0, 1)
        lab.half_open(0)
        self.assertFalse(wire.passes())
        self.assertTrue(wire.passes(False))  # it hears, but nobody hears its acknowledgement
        self.assertTrue(self.wire(lab, 1, 2).passes())
        lab.mend(0)
        self.assertTrue(wire.passes(patience=20))

    def test_drop_is_silent(self):
        """The sender's kernel sees no error, and the sender no end of its connection."""
        lab = self.lab(2)
        wire = self.wire(lab, 0, 1)
        lab.drop(0, 1)
        for _ in range(20):
            wire.a.send(b"x" * 1000)
        self.assertEqual(wire.a.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)
        lab.undrop(0, 1)
        got = 0
        wire.b.settimeout(20)
        while got < 20000:
            got += len(wire.b.recv(65536))

    def test_rate_holds_both_ways(self):
        """2 MB at 20 Mbit/s need 0.8 s, less what fits into buckets and queues."""
        lab = self.lab(2, mbit=[20, 0])
        for forth in (True, False):
            wire = self.wire(lab, 0, 1)
            source, target = (wire.a, wire.b) if forth else (wire.b, wire.a)
            start = time.monotonic()
            sender = threading.Thread(target=source.sendall, args=(b"x" * 2000000,))
            sender.start()
            target.settimeout(60)
            got = 0
            while got < 2000000:
                got += len(target.recv(1 << 20))
            sender.join()
            self.assertGreater(time.monotonic() - start, 0.7)

    def test_many(self):
        lab = self.lab(138, mbit=100)
        lab.ping(0, 137)
        lab.ping(137, 69)
        with lab.inside(5):
            self.assertEqual(harness.read_text("/proc/net/arp").count("02:4e:00:00:"), 137)

    def test_nothing_is_left(self):
        with self.assertRaises(ZeroDivisionError):
            with netns.Lab(3) as lab:
                # A grandchild that its parent has left, and one that is stopped.
                lab.start(0, ["sh", "-c", "setsid sleep 1000 & exit 0"]).wait()
                stopped = lab.start(1, ["sleep", "1000"])
                stopped.send_signal(signal.SIGSTOP)
                started = lab.inhabitants()
                self.assertEqual(len(started), 2)
                1 / 0
        self.assertEqual(stopped.returncode, -signal.SIGKILL)
        for pid in started:
            self.assertIn((harness.stat_of(pid) or "Z")[0], "ZX")
        self.assertEqual(lab.inhabitants(), [])
        lab.close()

    def test_processes_die_with_the_lab_s_owner(self):
        code = (
            "import netns, os, signal\nlab = netns.Lab(1)\n"
            "print(lab.start(0, ['sleep', '1000']).pid, flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)"
        )
        folder = os.path.dirname(os.path.abspath(netns.__file__))
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True
        )
        pid = int(done.stdout)
        harness.wait_for("end", lambda: (harness.stat_of(pid) or "Z")[0] == "Z")


class Threads(unittest.TestCase):
    def setUp(self):
        self.file = harness.tempfile.NamedTemporaryFile()
        self.file.write(bytes(16))
        self.file.flush()
        self.process = subprocess.Popen([sys.executable, "-c", COUNTER, self.file.name])
        self.addCleanup(self.file.close)
        self.addCleanup(self.process.wait)
        self.addCleanup(self.process.kill)
        harness.wait_for("both threads", lambda: all(self.counts()), self.process)
        self.tids = sorted(netns.threads(self.process.pid))
        self.assertEqual((len(self.tids), self.tids[0]), (2, self.process.pid))

    def counts(self):
        data = harness.read_bytes(self.file.name)
        return [int.from_bytes(data[at : at + 8], sys.byteorder) for at in (0, 8)]

    def check_running(self, *expected):
        """Each thread either counts on or stands still while the others count 50 more."""
        first = self.counts()
        if any(expected):
            runner = expected.index(True)
            harness.wait_for(
                "50 more", lambda: self.counts()[runner] >= first[runner] + 50, self.process
            )
            if all(expected):
                harness.wait_for(
                    "progress", lambda: all(b > a for a, b in zip(first, self.counts()))
                )
        for a, b, runs in zip(first, self.counts(), expected):
            self.assertEqual(b > a, runs)

    def test_freeze_and_thaw(self):
        for which in (0, 1):
            with netns.freeze_thread(self.process.pid, self.tids[which]):
                self.check_running(which == 1, which == 0)
            self.check_running(True, True)

    def test_a_process_with_a_frozen_thread_can_be_killed(self):
        self.kill_with_frozen(1)

    def test_a_process_with_a_frozen_main_thread_can_be_killed(self):
        self.kill_with_frozen(0)

    def kill_with_frozen(self, which):
        frozen = netns.freeze_thread(self.process.pid, self.tids[which])
        self.assertIsNone(self.process.poll())
        self.process.kill()
        self.assertEqual(self.process.wait(20), -signal.SIGKILL)
        frozen.thaw()
        frozen.thaw()

    def test_stopped_and_continued_while_a_thread_is_frozen(self):
        with netns.freeze_thread(self.process.pid, self.tids[1]):
            self.process.send_signal(signal.SIGSTOP)
            harness.wait_for("stop", lambda: harness.stat_of(self.process.pid)[0] in "Tt")
            self.assertIsNone(self.process.poll())
            self.process.send_signal(signal.SIGCONT)
            self.check_running(True, False)
        self.check_running(True, True)

    def test_no_such_thread(self):
        with self.assertRaises(netns.LabError):
            netns.freeze_thread(self.process.pid, 1)


if __name__ == "__main__":
    usable, reason = netns.available()
    if not usable:
        print("skipped: no network namespaces: " + reason)
        sys.exit(harness.SKIPPED)
    harness.main()
