# SPDX-License-Identifier: Apache-2.0
"""Workers that find their coordinator by themselves: real processes in network namespaces. Also in
company of somebody who answers everything, and always wrong."""
import os
import signal
import socket
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cluster"))
import common  # finds harness and netns
import harness
import netns

PORT = 4710
MDNS = ("224.0.0.251", 5353)
SERVICE = b"\6_shoal\4_tcp\5local\0"
PTR, SRV, A = 12, 33, 1


# ---- packets, written and read here without the program's own code ----


def question(number):
    return struct.pack(">6H", number, 0, 1, 0, 0, 0) + SERVICE + struct.pack(">2H", PTR, 1)


def record(name, kind, data):
    return name + struct.pack(">2HIH", kind, 1, 10, len(data)) + data


def lie(number, address, ports):
    """The answer of somebody at whose address there is no coordinator."""
    packet = struct.pack(">6H", number, 0x8400, 0, 2 * len(ports), 0, 1)
    host = b"\4liar\5local\0"
    for port in ports:
        instance = b"\6%06d" % port + SERVICE
        packet += record(SERVICE, PTR, instance)
        packet += record(instance, SRV, struct.pack(">3H", 0, 0, port) + host)
    return packet + record(host, A, socket.inet_aton(address))


def be_liar(address, ports):
    """Answers every question at once, for ever. At its own address it takes connections and says
    nothing."""
    listeners = [socket.create_server(("", port)) for port in ports]
    assert listeners
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("", MDNS[1]))
        device = struct.pack("4s4si", socket.inet_aton(MDNS[0]), b"", socket.if_nametoindex("eth0"))
        s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, device)
        print("ready", flush=True)
        while True:
            packet, asker = s.recvfrom(9000)
            s.sendto(lie(struct.unpack(">H", packet[:2])[0], address, ports), asker)


class Discovery(common.Cluster):
    """The coordinator is node 0."""

    def setUp(self):
        super().setUp()
        self.lab = netns.Lab(4)
        self.addCleanup(self.lab.close)

    def listen_at(self, address, *flags, workers=1):
        return self.listen(
            *flags,
            workers=workers,
            address="%s:%d" % (address, PORT),
            prefix=self.lab.command(0)
        )

    def discover(self, node, *flags, token=common.TOKEN):
        return self.start(
            "worker",
            "--discover",
            "--threads=1",
            "--name=node%d" % node,
            *flags,
            folder=self.empty,
            environment={"SHOAL_TOKEN": token},
            prefix=self.lab.command(node)
        )

    def end(self, coordinator):
        """Of one that nobody joined."""
        coordinator.kill(signal.SIGINT)
        self.assertEqual(coordinator.wait(), 0, coordinator.text())

    def start_liar(self, node, address, *ports):
        path = self.path("liar%d" % node)
        process = self.lab.start(
            node,
            [sys.executable, os.path.abspath(__file__), "--liar", address, *map(str, ports)],
            stdout=path,
        )
        harness.wait_for("the liar", lambda: "ready" in harness.read_text(path))
        return process

    def ask(self, node, targets, number=4711, port=0):
        """What comes to a simple resolver within a second; for port 5353: to any other."""
        with self.lab.inside(node):
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.setsockopt(
                socket.IPPROTO_IP,
                socket.IP_MULTICAST_IF,
                socket.inet_aton(self.lab.address(node)),
            )
            s.bind(("", port))
            for target in targets:
                s.sendto(question(number), target)
            s.settimeout(1)
            answers = []
            try:
                while True:
                    answers.append(s.recvfrom(9000))
            except socket.timeout:
                return answers

    def check_found(self, *flags, address=None, workers=2):
        """Workers that know only the token train, as one process would."""
        coordinator = self.listen_at(address or self.lab.address(0), *flags, workers=workers)
        self.address(coordinator)
        joined = []
        for i in range(workers):
            joined.append(self.discover(i + 1))
            self.wait_joined(coordinator, i + 1)
        coordinator.wait_iteration(5)
        self.stop(coordinator, joined)
        self.check_same(coordinator)
        for worker in joined:
            self.assertIn(
                "Joined the coordinator at %s:%d" % (self.lab.address(0), PORT), worker.text()
            )

    def test_found(self):
        self.check_found()

    def test_found_at_any_address(self):
        """The answer has the address of the network that the question came by."""
        self.check_found(address="0.0.0.0")

    def test_worker_begins_first(self):
        """It asks again and again."""
        worker = self.discover(1)
        coordinator = self.listen_at(self.lab.address(0))
        self.wait_joined(coordinator, 1)
        coordinator.wait_iteration(3)
        self.stop(coordinator, [worker])

    def test_wrong_token(self):
        coordinator = self.listen_at(self.lab.address(0))
        self.address(coordinator)
        stranger = self.discover(1, token="another-secret-0123456789")
        self.assertEqual(stranger.wait(), 1, stranger.text())
        self.assertIn("token", stranger.err())
        self.assertEqual(coordinator.events("joined"), [])
        worker = self.discover(2)
        coordinator.wait_iteration(3)
        self.stop(coordinator, [worker])

    def check_liar(self, address, *ports):
        """A worker beside a liar, whose answer is always there, and mostly first."""
        coordinator = self.listen_at(self.lab.address(0))
        self.address(coordinator)
        harness.wait_for("an answer", lambda: self.ask(1, [MDNS]), coordinator)
        liar = self.start_liar(2, address, *ports)
        worker = self.discover(1)
        self.wait_joined(coordinator, 1)
        coordinator.wait_iteration(3)
        self.assertIsNone(liar.poll())
        self.stop(coordinator, [worker])

    def test_liar_with_an_address_of_nobody(self):
        self.check_liar("10.77.3.3", PORT)

    def test_liar_with_many_ports(self):
        self.check_liar("10.77.3.3", *range(5000, 5020))

    def test_liar_that_takes_connections(self):
        self.check_liar(self.lab.address(2), PORT)

    def test_announce_off(self):
        coordinator = self.listen_at(self.lab.address(0), "--announce=off")
        self.address(coordinator)
        worker = self.discover(1)
        self.assertEqual(worker.wait(), 1, worker.text())
        self.assertIn("--join=ADDR:PORT", worker.err())
        self.end(coordinator)

    def test_simple_resolver(self):
        """One answer to whoever asks, by multicast or broadcast, from its own network alone; small,
        with the question's number and the right address; and nothing secret."""
        coordinator = self.listen_at("0.0.0.0")
        self.address(coordinator)
        broadcast = ("10.77.255.255", MDNS[1])

        def asked():
            return self.ask(1, [MDNS])

        harness.wait_for("an answer", asked, coordinator)
        for target in (MDNS, broadcast):
            answers = self.ask(1, [target])
            self.assertEqual(len(answers), 1, answers)
            packet, sender = answers[0]
            self.assertEqual(sender, (self.lab.address(0), MDNS[1]))
            self.assertEqual(struct.unpack(">H", packet[:2])[0], 4711)
            self.assertIn(SERVICE, packet)
            self.assertIn(struct.pack(">H", PORT), packet)
            self.assertIn(socket.inet_aton(self.lab.address(0)), packet)
            self.assertNotIn(common.TOKEN.encode(), packet)
            self.assertLess(len(packet), 300)
        self.end(coordinator)

    def test_whoever_comes_from_elsewhere(self):
        """An address that is not of the network is no asker, but the victim of one."""
        coordinator = self.listen_at("0.0.0.0")
        self.address(coordinator)
        harness.wait_for("an answer", lambda: self.ask(1, [MDNS]), coordinator)
        self.lab._batch(self.lab._spaces[3], "ip", ["addr add 192.0.2.9/24 dev eth0"])
        self.lab._batch(self.lab._spaces[0], "ip", ["route add 192.0.2.0/24 dev eth0"])
        with self.lab.inside(3):
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with s:
            s.bind(("192.0.2.9", 0))
            s.settimeout(1)
            s.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("192.0.2.9")
            )
            s.sendto(question(1), MDNS)
            self.assertRaises(socket.timeout, s.recvfrom, 9000)
        self.assertEqual(len(self.ask(3, [MDNS])), 1)  # by its address that is of the network
        self.end(coordinator)

    def test_flood(self):
        """Few answers for many questions; then answers again."""
        coordinator = self.listen_at("0.0.0.0")
        self.address(coordinator)
        harness.wait_for("an answer", lambda: self.ask(1, [MDNS]), coordinator)
        answers = self.ask(1, [MDNS] * 5000)
        self.assertGreater(len(answers), 0)
        self.assertLess(len(answers), 2500)
        harness.wait_for("an answer", lambda: self.ask(1, [MDNS]), coordinator)
        self.end(coordinator)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--liar"]:
        be_liar(sys.argv[2], [int(port) for port in sys.argv[3:]])
    usable, reason = netns.available()
    if not usable:
        print("skipped: no network namespaces: " + reason)
        sys.exit(harness.SKIPPED)
    harness.main()
