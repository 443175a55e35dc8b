# SPDX-License-Identifier: Apache-2.0
"""A coordinator that listens, and workers that are started by hand: tokens, refusals, who comes
first, who goes first."""
import os
import re
import signal
import socket
import time

import common
import harness

TOKEN = "a-secret-of-the-tests-0123456789"
HAVE_TOKEN = {"SHOAL_TOKEN": TOKEN}


class Listening(harness.Case):
    """A coordinator in the folder, and workers in another one, that has no file."""

    def setUp(self):
        super().setUp()
        harness.make_digits(self)
        self.write("net.prototxt", common.smooth_net(24))
        self.write("solver.prototxt", harness.solver(12, test_iter=3, test_interval=6))
        self.write("endless.prototxt", harness.solver(common.ENDLESS))
        self.empty = self.make("empty")

    def listen(self, workers=2, solver="solver.prototxt", address="127.0.0.1:0", token=TOKEN):
        return self.start_train(
            "--solver=" + solver,
            "--workers=%d" % workers,
            "--listen=" + address,
            "--check_interval=1",
            environment={"SHOAL_TOKEN": token}
        )

    def address(self, coordinator):
        pattern = re.compile(r"Waiting for \d+ workers? at (\S+:\d+)\. ")
        return harness.wait_for(
            "the address", lambda: pattern.search(coordinator.out()), coordinator
        ).group(1)

    def join(self, address, token=TOKEN):
        return self.start(
            "worker",
            "--join=" + address,
            "--threads=1",
            folder=self.empty,
            environment={"SHOAL_TOKEN": token}
        )

    def joined(self, coordinator, number):
        """How many "Worker N of M joined" lines there are."""
        harness.wait_for(
            "worker %d" % number,
            lambda: "Worker %d of " % number in coordinator.out(),
            coordinator,
        )


class Join(Listening):
    def check_complete(self, coordinator, workers):
        self.assertEqual(coordinator.wait(), 0, coordinator.text())
        for worker in workers:
            self.assertEqual(worker.wait(), 0, worker.text())
            self.assertIn("Joined the coordinator at", worker.out())
            self.assertIn("The training is complete.", worker.out())
        self.assertEqual(len(coordinator.iterations()), 12)

    def test_two_workers(self):
        coordinator = self.listen()
        address = self.address(coordinator)
        self.assertNotIn(TOKEN, coordinator.text())  # a given token is not shown again
        workers = [self.join(address)]
        self.joined(coordinator, 1)
        workers.append(self.join(address))
        self.check_complete(coordinator, workers)
        # The same as with workers of its own.
        self.write("own.prototxt", harness.solver(12, "own", test_iter=3, test_interval=6))
        own = self.train("--solver=own.prototxt", "--workers=2")
        self.assertEqual(common.losses_of(own), common.losses_of(coordinator))
        files = [self.path(name + "_iter_12.caffemodel") for name in ("own", "snap")]
        self.assert_same_file(*files)
        self.assertEqual([f for f in os.listdir(self.empty) if not re.match("out|err", f)], [])

    def test_a_made_up_token_is_shown_and_works(self):
        coordinator = self.listen(token=None)
        address = self.address(coordinator)
        token = re.search(r"SHOAL_TOKEN=(\S+) shoal worker", coordinator.out()).group(1)
        self.assertGreaterEqual(len(token), 16)
        workers = [self.join(address, token) for _ in range(2)]
        self.check_complete(coordinator, workers)

    def test_wrong_token(self):
        coordinator = self.listen()
        address = self.address(coordinator)
        stranger = self.join(address, "another-secret-of-the-tests-9876")
        self.assertEqual(stranger.wait(), 1, stranger.text())
        self.assertIn("token", stranger.err())
        self.assertIn(address, stranger.err())
        self.assertNotIn("Worker 1 of", coordinator.out())
        self.assertIsNone(coordinator.poll())
        self.check_complete(coordinator, [self.join(address) for _ in range(2)])

    def test_no_token_and_short_token(self):
        worker = self.join("127.0.0.1:1", None)
        self.assertEqual(worker.wait(), 2)
        self.assertIn("SHOAL_TOKEN", worker.err())
        coordinator = self.listen(token="short")
        self.assertNotEqual(coordinator.wait(), 0)
        self.assertIn("16", coordinator.err())

    def test_one_too_many(self):
        coordinator = self.listen(solver="endless.prototxt")
        address = self.address(coordinator)
        workers = [self.join(address) for _ in range(2)]
        coordinator.wait_iteration(2)
        third = self.join(address)
        self.assertNotEqual(third.wait(), 0)
        self.assertIn("refuses", third.err())
        self.assertIn("the cluster is complete", third.err())
        last = coordinator.iterations()[-1]["iter"]
        coordinator.wait_iteration(last + 5)
        coordinator.kill(signal.SIGINT)
        self.assertEqual(coordinator.wait(), 0)
        for worker in workers:
            worker.wait()

    def test_port_in_use(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            coordinator = self.listen(address=address)
            self.assertEqual(coordinator.wait(), 1, coordinator.text())
            self.assertIn(address, coordinator.err())
            self.assertIn("another program uses this port", coordinator.err())

    def test_wrong_addresses(self):
        for address in ("127.0.0.1", "127.0.0.1:99999", "nowhere:1x", "", ":", "256.0.0.1:80"):
            with self.subTest(address=address):
                coordinator = self.listen(address=address)
                self.assertNotEqual(coordinator.wait(), 0, coordinator.text())
                self.assertIn("error:", coordinator.err())
                worker = self.join(address)
                self.assertNotEqual(worker.wait(), 0, worker.text())
                self.assertIn("error:", worker.err())

    def test_nobody_there(self):
        with socket.socket() as free:  # bound and not listening: nobody can be there
            free.bind(("127.0.0.1", 0))
            worker = self.join("127.0.0.1:%d" % free.getsockname()[1])
            self.assertEqual(worker.wait(), 1)
            self.assertIn("is the coordinator running there?", worker.err())

    def test_workers_come_first(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = "127.0.0.1:%d" % free.getsockname()[1]
        workers = [self.join(address) for _ in range(2)]
        coordinator = self.listen(address=address)
        self.check_complete(coordinator, workers)

    def test_a_worker_leaves_while_others_are_awaited(self):
        """It is forgotten, and its place is free again."""
        coordinator = self.listen(workers=3)
        address = self.address(coordinator)
        first = self.join(address)
        self.joined(coordinator, 1)
        lost = self.join(address)
        self.joined(coordinator, 2)
        lost.kill(signal.SIGKILL)
        lost.wait()
        # The place is free once the coordinator has seen the end of that connection.
        harness.wait_for("end of a connection", lambda: self.connections(coordinator) == 1)
        workers = [first, self.join(address), self.join(address)]
        self.check_complete(coordinator, workers)

    def connections(self, coordinator):
        found = harness.descriptors(coordinator.pid).values()
        return sum(t.startswith("socket:") for t in found) - 1  # without the one that listens

    def test_coordinator_killed_while_workers_wait(self):
        for number in (signal.SIGKILL, signal.SIGINT):
            with self.subTest(signal=number):
                coordinator = self.listen(workers=3)
                address = self.address(coordinator)
                workers = [self.join(address), self.join(address)]
                self.joined(coordinator, 2)
                coordinator.kill(number)
                self.assertEqual(coordinator.wait(), 0 if number == signal.SIGINT else -number)
                for worker in workers:
                    self.assertEqual(worker.wait(), 1, worker.text())
                    self.assertIn("coordinator", worker.err())

    def test_coordinator_killed_during_the_run(self):
        coordinator = self.listen(solver="endless.prototxt")
        address = self.address(coordinator)
        workers = [self.join(address), self.join(address)]
        coordinator.wait_iteration(3)
        coordinator.kill(signal.SIGKILL)
        coordinator.wait()
        for worker in workers:
            self.assertEqual(worker.wait(), 1, worker.text())
            self.assertIn("coordinator", worker.err())

    def test_snapshots_in_close_succession(self):
        """Several are on their way at a time: each file must hold its own iteration."""
        self.write("endless.prototxt", harness.solver(common.ENDLESS, snapshot=1))
        coordinator = self.listen(workers=3, solver="endless.prototxt")
        address = self.address(coordinator)
        workers = []
        for number in (1, 2, 3):
            workers.append(self.join(address))
            self.joined(coordinator, number)
        coordinator.wait_iteration(3)
        for _ in range(5):
            # While the coordinator stands still, the workers run ahead; then all of what the first
            # one sent is there before the others' reports are read.
            coordinator.kill(signal.SIGSTOP)
            time.sleep(0.1)
            coordinator.kill(signal.SIGCONT)
            coordinator.wait_iteration(coordinator.iterations()[-1]["iter"] + 5)
        coordinator.kill(signal.SIGINT)
        self.assertEqual(coordinator.wait(), 0)
        self.assertIn("stopped on request", coordinator.err())
        for worker in workers:
            self.assertEqual(worker.wait(), 0)
        last = coordinator.iterations()[-1]["iter"] + 1
        self.assertEqual(len(coordinator.events("snapshot")), 2 * last)
        for n in range(1, last + 1):
            saved = harness.Saved(self.path("snap_iter_%d.solverstate" % n))
            state = dict(f for f in saved.skeleton if f[0] in (1, 2))
            self.assertEqual(state[1], n)
            self.assertEqual(state[2].decode(), "snap_iter_%d.caffemodel" % n)

    def test_waiting_worker_can_be_stopped(self):
        coordinator = self.listen()
        worker = self.join(self.address(coordinator))
        self.joined(coordinator, 1)
        worker.kill(signal.SIGINT)
        worker.wait()
        coordinator.kill(signal.SIGINT)
        self.assertEqual(coordinator.wait(), 0)
        self.assertIn("stopped on request", coordinator.err())

    def test_killed_worker_of_another_machine(self):
        coordinator = self.listen(workers=3, solver="endless.prototxt")
        address = self.address(coordinator)
        workers = [self.join(address) for _ in range(3)]
        coordinator.wait_iteration(3)
        workers[1].kill(signal.SIGKILL)
        self.assertEqual(coordinator.wait(), 1)
        self.assertIn("pid %d)" % workers[1].pid, coordinator.err())
        workers[1].wait()
        for worker in (workers[0], workers[2]):
            self.assertEqual(worker.wait(), 1, worker.text())
            # It learns from the coordinator who was lost.
            self.assertIn("pid %d)" % workers[1].pid, worker.err())


if __name__ == "__main__":
    harness.main()
