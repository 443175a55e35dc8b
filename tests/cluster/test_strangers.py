# SPDX-License-Identifier: Apache-2.0
"""Strangers at the ports of coordinator and ring, before and during a run: noise, half messages,
huge lengths, silence, many connections. They are shut out and the run does not change."""
import random
import signal
import socket
import struct
import time

import common  # finds harness
import harness
from test_join import Listening


def payloads():
    """Name -> bytes. The control port's frames begin with a length and a type."""
    rng = random.Random(4)
    found = {
        "nothing": b"",
        "a byte": b"\x01",
        "zeros": bytes(4096),
        "ones": b"\xff" * 4096,
        "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "ring magic": struct.pack("<I", 0x48524853) + bytes(60),
        "ring magic, part": struct.pack("<I", 0x48524853) + bytes(20),
        "much": rng.randbytes(1 << 20),
    }
    for i in range(12):
        found["noise %d" % i] = rng.randbytes(rng.choice((3, 8, 12, 16, 64, 300, 5000)))
    for size in (0, 1, 2**16, 2**24, 2**31, 2**32 - 1):
        for form in ("<I", ">I"):
            found["length %s %d" % (form, size)] = struct.pack(form, size) + bytes(12)
    return found


class Stranger:
    def __init__(self, port, data):
        self.socket = socket.create_connection(("127.0.0.1", port), harness.PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.socket.sendall(data)
        except OSError:
            pass  # it was shut out before all was said

    def gone(self):
        """Has the other side closed?"""
        self.socket.settimeout(0.01)
        try:
            return self.socket.recv(65536) == b""
        except socket.timeout:
            return False
        except OSError:
            return True

    def close(self):
        self.socket.close()


def assault(port, keep=False):
    """Every payload, one connection each; those that stay open are returned."""
    open_ones = []
    for data in payloads().values():
        stranger = Stranger(port, data)
        if keep:
            open_ones.append(stranger)
        else:
            stranger.close()
    return open_ones


class Strangers(Listening):
    def sockets(self, pid):
        return sum(t.startswith("socket:") for t in harness.descriptors(pid).values())

    def finish(self, coordinator, workers):
        self.assertEqual(coordinator.wait(), 0, coordinator.text())
        for worker in workers:
            self.assertEqual(worker.wait(), 0, worker.text())
        self.assertEqual(len(coordinator.iterations()), 12)
        files = [self.path(name + "_iter_12.caffemodel") for name in ("calm", "snap")]
        self.assert_same_file(*files)

    def calm_run(self):
        """What comes out when nobody disturbs."""
        self.write("calm.prototxt", harness.solver(12, "calm", test_iter=3, test_interval=6))
        self.train("--solver=calm.prototxt", "--workers=2")

    def test_before_the_run(self):
        """At the coordinator while it waits, and at the ring's port of a worker that waits."""
        self.calm_run()
        coordinator = self.listen()
        address = self.address(coordinator)
        assault(int(address.rpartition(":")[2]))
        workers = [self.join(address)]
        self.joined(coordinator, 1)
        (ring,) = harness.listening_ports(workers[0].pid)
        assault(ring)
        # Two that stay, one with half a greeting: they must not keep the place of the neighbour.
        kept = [Stranger(ring, b""), Stranger(ring, struct.pack("<I", 0x48524853) + bytes(20))]
        assault(int(address.rpartition(":")[2]))
        workers.append(self.join(address))
        self.finish(coordinator, workers)
        for stranger in kept:
            stranger.close()

    def test_many_that_stay_at_the_ring(self):
        """More than it has places for; the neighbour comes through all the same."""
        self.calm_run()
        coordinator = self.listen()
        address = self.address(coordinator)
        workers = [self.join(address)]
        self.joined(coordinator, 1)
        (ring,) = harness.listening_ports(workers[0].pid)
        kept = [Stranger(ring, b"") for _ in range(40)]
        workers.append(self.join(address))
        self.finish(coordinator, workers)
        for stranger in kept:
            stranger.close()

    def test_during_the_run(self):
        coordinator = self.listen(solver="endless.prototxt")
        address = self.address(coordinator)
        port = int(address.rpartition(":")[2])
        workers = [self.join(address), self.join(address)]
        coordinator.wait_iteration(3)
        calm = {p.pid: self.sockets(p.pid) for p in [coordinator] + workers}
        for worker in workers:
            for ring in harness.listening_ports(worker.pid):
                assault(ring)
        assault(port)
        kept = assault(port, keep=True)
        last = coordinator.iterations()[-1]["iter"]
        coordinator.wait_iteration(last + 20)
        for stranger in kept:  # those that say nonsense at once, those that say nothing in time
            harness.wait_for("end of a stranger", stranger.gone, coordinator)
            stranger.close()
        harness.wait_for(
            "the descriptors of before",
            lambda: {p.pid: self.sockets(p.pid) for p in [coordinator] + workers} == calm,
            coordinator,
        )
        last = coordinator.iterations()[-1]["iter"]
        coordinator.wait_iteration(last + 20)
        coordinator.kill(signal.SIGINT)
        self.assertEqual(coordinator.wait(), 0)
        self.assertIn("stopped on request", coordinator.err())
        for worker in workers:
            worker.wait()

    def test_own_workers_during_the_run(self):
        coordinator = self.start_train(
            "--solver=endless.prototxt", "--workers=3", "--check_interval=1"
        )
        coordinator.wait_iteration(3)
        workers = coordinator.wait_workers(3)
        ports = harness.listening_ports(coordinator.pid)
        for worker in workers:
            ports += harness.listening_ports(worker)
        for port in ports:
            assault(port)
        last = coordinator.iterations()[-1]["iter"]
        coordinator.wait_iteration(last + 20)
        self.assertEqual(coordinator.workers(), workers)
        coordinator.kill(signal.SIGINT)
        self.assertEqual(coordinator.wait(), 0)

    def test_a_full_house_of_silent_strangers(self):
        """More than the coordinator takes: workers come in when they are thrown out."""
        self.calm_run()
        coordinator = self.listen()
        address = self.address(coordinator)
        port = int(address.rpartition(":")[2])
        kept = [Stranger(port, b"") for _ in range(100)]
        for stranger in kept:
            harness.wait_for("end of a stranger", stranger.gone, coordinator)
        workers = [self.join(address), self.join(address)]
        self.finish(coordinator, workers)
        for stranger in kept:
            stranger.close()

    def test_a_caught_greeting_is_of_no_use(self):
        """What a real worker said, said again by someone who does not know the token."""
        coordinator = self.listen(solver="endless.prototxt")
        address = self.address(coordinator)
        real = int(address.rpartition(":")[2])
        said, listener = [], socket.socket()
        with listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            worker = self.join("127.0.0.1:%d" % listener.getsockname()[1])
            listener.settimeout(harness.PATIENCE)
            inner, _ = listener.accept()
            outer = socket.create_connection(("127.0.0.1", real), harness.PATIENCE)
            relay(inner, outer, said, lambda: "Worker 1 of" in coordinator.out())
        inner.close()
        outer.close()
        worker.wait()
        replay = Stranger(real, b"".join(said))
        harness.wait_for("end of the replay", replay.gone, coordinator)
        replay.close()
        self.assertEqual(coordinator.out().count("Worker 1 of"), 1)
        self.assertNotIn("Worker 2 of", coordinator.out())
        workers = [self.join(address), self.join(address)]
        coordinator.wait_iteration(3)
        coordinator.kill(signal.SIGINT)
        coordinator.wait()
        for other in workers:
            other.wait()


def relay(inner, outer, said, done):
    """Carries bytes both ways, keeping what inner says, until done()."""
    deadline = time.monotonic() + harness.PATIENCE
    for one in (inner, outer):
        one.settimeout(0.05)
    while not done() and time.monotonic() < deadline:
        for source, target in ((inner, outer), (outer, inner)):
            try:
                data = source.recv(65536)
            except socket.timeout:
                continue
            if not data:
                return
            if source is inner:
                said.append(data)
            target.sendall(data)


if __name__ == "__main__":
    harness.main()
