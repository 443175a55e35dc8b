# SPDX-License-Identifier: Apache-2.0
"""Strangers at the ports of coordinator and ring, before and during a run: noise, half messages,
huge lengths, silence, many connections. They are shut out and the run does not change."""
import random
import socket
import struct
import time

import common  # finds harness
import harness

# Some strangers are thrown out only after a while: no more iterations than needed are made.
SLOW = ("--pace=1000",)
RING_MAGIC = struct.pack("<I", 0x48524853)


def payloads():
    """Name -> bytes. The control port's frames begin with a magic, then type and length."""
    rng = random.Random(4)
    found = {
        "nothing": b"",
        "a byte": b"\x01",
        "zeros": bytes(4096),
        "ones": b"\xff" * 4096,
        "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "ring magic": RING_MAGIC + bytes(60),
        "ring magic, part": RING_MAGIC + bytes(20),
        "much": rng.randbytes(1 << 20),
    }
    for i in range(12):
        found["noise %d" % i] = rng.randbytes(rng.choice((3, 8, 12, 16, 64, 300, 5000)))
    for size in (0, 1, 2**16, 2**24, 2**31, 2**32 - 1):
        for form in ("<I", ">I"):
            found["length %s %d" % (form, size)] = struct.pack(form, size) + bytes(12)
        for kind in (0, 1, 3, 7):
            header = struct.pack("<4sHHI", b"SHOL", kind, 0, size)
            found["frame %d of %d" % (kind, size)] = header + bytes(16)
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


def port_of(address):
    return int(address.rpartition(":")[2])


class Strangers(common.Cluster):
    def sockets(self, pid):
        return sum(t.startswith("socket:") for t in harness.descriptors(pid).values())

    def await_all(self):
        """A coordinator that waits for two workers, of which one is there."""
        coordinator = self.listen()
        address = self.address(coordinator)
        workers = [self.join(address)]
        self.wait_joined(coordinator, 1)
        (ring,) = harness.listening_ports(workers[0].pid)
        return coordinator, address, workers, ring

    def finish(self, coordinator, workers, kept=()):
        """The run goes on as if nothing had been."""
        self.wait_more(coordinator, 20)
        self.stop(coordinator, workers)
        self.check_lost(coordinator, [])
        self.assertEqual(len(coordinator.events("generation")), 1)
        self.assertEqual(len(coordinator.events("joined")), len(workers))
        self.check_same(coordinator)
        for stranger in kept:
            stranger.close()

    def test_before_the_run(self):
        """At the coordinator while it waits, and at the ring's port of a worker that waits."""
        coordinator, address, workers, ring = self.await_all()
        assault(port_of(address))
        assault(ring)
        # Two that stay, one with half a greeting: they must not keep the place of the neighbour.
        kept = [Stranger(ring, b""), Stranger(ring, RING_MAGIC + bytes(20))]
        assault(port_of(address))
        workers.append(self.join(address))
        self.finish(coordinator, workers, kept)

    def test_many_that_stay_at_the_ring(self):
        """More than it has places for; the neighbour comes through all the same."""
        coordinator, address, workers, ring = self.await_all()
        kept = [Stranger(ring, b"") for _ in range(300)]
        workers.append(self.join(address))
        self.finish(coordinator, workers, kept)

    def test_during_the_run(self):
        coordinator, address, workers = self.begin_listening(workers=2, worker_flags=SLOW)
        calm = {p.pid: self.sockets(p.pid) for p in [coordinator] + workers}
        kept = []
        for worker in workers:
            for ring in harness.listening_ports(worker.pid):
                assault(ring)
                kept += assault(ring, keep=True)
        assault(port_of(address))
        guests = assault(port_of(address), keep=True)
        self.wait_more(coordinator, 20)
        for stranger in guests:  # those that say nonsense at once, those that say nothing in time
            harness.wait_for("end of a stranger", stranger.gone, coordinator)
        for stranger in guests + kept:
            stranger.close()
        harness.wait_for(
            "the descriptors of before",
            lambda: {p.pid: self.sockets(p.pid) for p in [coordinator] + workers} == calm,
            coordinator,
        )
        self.finish(coordinator, workers)

    def test_during_a_change_of_members(self):
        """Who comes and goes finds its neighbours among strangers."""
        coordinator, address, workers = self.begin_listening(workers=3)
        kept = []
        for _ in range(3):
            for worker in workers:
                for ring in harness.listening_ports(worker.pid):
                    kept += [Stranger(ring, b""), Stranger(ring, RING_MAGIC + bytes(20))]
                    kept += [Stranger(ring, b"\xff" * 300) for _ in range(20)]
            kept += [Stranger(port_of(address), b"") for _ in range(20)]
            victim = workers.pop(0)
            victim.kill(harness.signal.SIGKILL)
            victim.wait()
            self.wait_crew(coordinator, 2)
            workers.append(self.join(address))
            self.wait_crew(coordinator, 3)
        self.wait_more(coordinator)
        self.stop(coordinator, workers)
        self.assertEqual(len(self.lost(coordinator)), 3)
        self.check_same(coordinator)
        for stranger in kept:
            stranger.close()

    def test_own_workers_during_the_run(self):
        coordinator, workers = self.begin()
        ports = harness.listening_ports(coordinator.pid)
        for worker in workers:
            ports += harness.listening_ports(worker)
        self.assertEqual(len(ports), 4)
        for port in ports:
            assault(port)
        self.wait_more(coordinator, 20)
        self.assertEqual(self.ranks(coordinator), workers)
        self.stop(coordinator)
        self.check_lost(coordinator, [])
        self.check_same(coordinator)

    def test_slow_drip(self):
        """Valid bytes of a frame, one at a time: shut out when the time for a greeting is over."""
        coordinator, address, workers = self.begin_listening(workers=2, worker_flags=SLOW)
        guest = Stranger(port_of(address), b"")
        frame = struct.pack("<4sHHII", b"SHOL", 1, 0, 4000, 0) + bytes(4000)
        at, deadline = 0, time.monotonic() + harness.PATIENCE
        while not guest.gone():
            self.assertLess(time.monotonic(), deadline)
            try:
                guest.socket.send(frame[at : at + 1])
            except OSError:
                break
            at = min(at + 1, len(frame) - 2)
        guest.close()
        self.finish(coordinator, workers)

    def test_a_full_house_of_silent_strangers(self):
        """More than the coordinator takes: the run goes on, and new workers come in when they are
        thrown out."""
        coordinator, address, workers = self.begin_listening(workers=2, worker_flags=SLOW)
        kept = [Stranger(port_of(address), b"") for _ in range(400)]
        self.wait_more(coordinator, 20)
        for stranger in kept:
            harness.wait_for("end of a stranger", stranger.gone, coordinator)
        workers.append(self.join(address))
        self.wait_crew(coordinator, 3)
        self.stop(coordinator, workers)
        self.check_same(coordinator)
        for stranger in kept:
            stranger.close()

    def test_a_caught_greeting_is_of_no_use(self):
        """What a real worker said, said again by someone who does not know the token."""
        coordinator = self.listen()
        address = self.address(coordinator)
        real = port_of(address)
        said, listener = [], socket.socket()
        with listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            worker = self.join(
                "127.0.0.1:%d" % listener.getsockname()[1], "--rejoin-timeout=0"
            )
            listener.settimeout(harness.PATIENCE)
            inner, _ = listener.accept()
            outer = socket.create_connection(("127.0.0.1", real), harness.PATIENCE)
            relay(inner, outer, said, lambda: coordinator.events("joined"))
        inner.close()
        outer.close()
        worker.wait()
        replay = Stranger(real, b"".join(said))
        harness.wait_for("end of the replay", replay.gone, coordinator)
        replay.close()
        self.assertEqual(len(coordinator.events("joined")), 1)
        workers = [self.join(address), self.join(address)]
        coordinator.wait_iteration(3)
        self.assertEqual(len(coordinator.events("joined")), 3)
        self.stop(coordinator, workers)

    def test_the_coordinator_s_words_are_of_no_use(self):
        """Someone in between who says again what the coordinator said: to a worker that joins anew
        that is not the coordinator."""
        coordinator = self.listen()
        address = self.address(coordinator)
        said, listener = [], socket.socket()
        with listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            false = "127.0.0.1:%d" % listener.getsockname()[1]
            worker = self.join(false, "--rejoin-timeout=0")
            listener.settimeout(harness.PATIENCE)
            inner, _ = listener.accept()
            outer = socket.create_connection(("127.0.0.1", port_of(address)), harness.PATIENCE)
            relay(outer, inner, said, lambda: coordinator.events("joined"))
            inner.close()
            outer.close()
            worker.wait()
            worker = self.join(false, "--rejoin-timeout=0")
            inner, _ = listener.accept()
            inner.sendall(b"".join(said))
            self.assertEqual(worker.wait(), 1, worker.text())
            self.assertNotIn("Joined", worker.out())
            inner.close()
        workers = [self.join(address), self.join(address)]
        coordinator.wait_iteration(3)
        self.stop(coordinator, workers)


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
