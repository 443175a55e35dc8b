# SPDX-License-Identifier: Apache-2.0
"""A coordinator that listens, and workers that are started by hand: tokens, refusals, who comes
late, who goes and returns, what happens when too few are left, or none."""
import os
import re
import signal
import socket
import time

import common
import harness
from common import TOKEN


class Join(common.Cluster):
    """Runs of twelve iterations that end by themselves."""

    def setUp(self):
        super().setUp()
        self.write("short.prototxt", harness.solver(12, test_iter=3, test_interval=6))

    def listen(self, *flags, solver="short.prototxt", **how):
        return super().listen(*flags, solver=solver, **how)

    def check_complete(self, coordinator, workers):
        self.assertEqual(coordinator.wait(), 0, coordinator.text())
        for worker in workers:
            self.assertEqual(worker.wait(), 0, worker.text())
            self.assertIn("Joined the coordinator at", worker.out())
            self.assertIn("The training is complete.", worker.out())
        self.check_unbroken(coordinator)
        self.assertEqual(len(coordinator.iterations()), 12)

    def test_two_workers(self):
        coordinator = self.listen("--balance=off")
        address = self.address(coordinator)
        self.assertNotIn(TOKEN, coordinator.text())  # a given token is not shown again
        workers = [self.join(address, "--cache-size=0")]
        self.wait_joined(coordinator, 1)
        workers.append(self.join(address, "--cache-size=0"))
        self.check_complete(coordinator, workers)
        # The same as with workers of its own, which have no cache that shares would follow.
        self.write("own.prototxt", harness.solver(12, "own", test_iter=3, test_interval=6))
        own = self.train("--solver=own.prototxt", "--workers=2", common.PATIENT)
        self.assertEqual(common.losses_of(own), common.losses_of(coordinator))
        files = [self.path(name + "_iter_12.caffemodel") for name in ("own", "snap")]
        self.assert_same_file(*files)
        self.assertEqual([f for f in os.listdir(self.empty) if not re.match("out|err", f)], [])

    def test_shares_by_speed(self):
        """One that may compute only so much gets less; what comes out is the same."""
        coordinator = self.listen(workers=2, solver="solver.prototxt")
        address = self.address(coordinator)
        workers = [self.join(address, "--pace=100"), self.join(address, "--pace=1000")]
        pids = [w.pid for w in workers]

        def fair():
            shares = {
                common.pid_of(m): m["share"]
                for e in coordinator.iterations()[-1:]
                for m in e["members"]
            }
            return shares and 4 * shares[pids[0]] <= shares[pids[1]]

        harness.wait_for("shares that follow the speeds", fair, coordinator)
        self.stop(coordinator, workers)
        self.check_same(coordinator)

    def test_a_made_up_token_is_shown_and_works(self):
        coordinator = self.listen(token=None)
        address = self.address(coordinator)
        token = re.search(r"SHOAL_TOKEN=(\S+) shoal worker", coordinator.out()).group(1)
        self.assertGreaterEqual(len(token), 16)
        workers = [self.join(address, token=token) for _ in range(2)]
        self.check_complete(coordinator, workers)

    def test_wrong_token(self):
        coordinator = self.listen()
        address = self.address(coordinator)
        stranger = self.join(address, token="another-secret-of-the-tests-9876")
        self.assertEqual(stranger.wait(), 1, stranger.text())
        self.assertIn("token", stranger.err())
        self.assertIn(address, stranger.err())
        self.assertEqual(coordinator.events("joined"), [])
        self.assertIsNone(coordinator.poll())
        self.check_complete(coordinator, [self.join(address) for _ in range(2)])

    def test_no_token_and_short_token(self):
        worker = self.join("127.0.0.1:1", token=None)
        self.assertEqual(worker.wait(), 2)
        self.assertIn("SHOAL_TOKEN", worker.err())
        coordinator = self.listen(token="short")
        self.assertNotEqual(coordinator.wait(), 0)
        self.assertIn("16", coordinator.err())

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
        address = free_address()
        workers = [self.join(address) for _ in range(2)]
        coordinator = self.listen(address=address)
        self.check_complete(coordinator, workers)

    def test_a_worker_leaves_while_others_are_awaited(self):
        """It is forgotten, and its place is free again."""
        coordinator = self.listen(workers=3)
        address = self.address(coordinator)
        first = self.join(address)
        self.wait_joined(coordinator, 1)
        lost = self.join(address)
        self.wait_joined(coordinator, 2)
        lost.kill(signal.SIGKILL)
        lost.wait()
        # The place is free once the coordinator has seen the end of that connection.
        harness.wait_for("end of a connection", lambda: self.connections(coordinator) == 1)
        workers = [first, self.join(address), self.join(address)]
        self.check_complete(coordinator, workers)
        self.check_lost(coordinator, [])

    def connections(self, coordinator):
        found = harness.descriptors(coordinator.pid).values()
        return sum(t.startswith("socket:") for t in found) - 1  # without the one that listens

    def test_waiting_worker_can_be_stopped(self):
        coordinator = self.listen()
        worker = self.join(self.address(coordinator))
        self.wait_joined(coordinator, 1)
        worker.kill(signal.SIGINT)
        worker.wait()
        coordinator.kill(signal.SIGINT)
        self.assertEqual(coordinator.wait(), 0)
        self.assertIn("stopped on request", coordinator.err())

    def test_stopped_coordinator_sends_its_waiting_workers_home(self):
        coordinator = self.listen(workers=3)
        address = self.address(coordinator)
        workers = [self.join(address), self.join(address)]
        self.wait_joined(coordinator, 2)
        coordinator.kill(signal.SIGINT)
        self.assertEqual(coordinator.wait(), 0)
        for worker in workers:
            self.assertEqual(worker.wait(), 1, worker.text())
            self.assertIn("stopped on request", worker.err())

    def test_killed_coordinator_and_no_patience(self):
        """Before the run and in it."""
        for workers, solver in ((3, "short.prototxt"), (2, "solver.prototxt")):
            with self.subTest(workers=workers):
                coordinator = self.listen(workers=workers, solver=solver)
                address = self.address(coordinator)
                joined = [self.join(address, "--rejoin-timeout=0") for _ in range(2)]
                self.wait_joined(coordinator, 2)
                if workers == 2:
                    coordinator.wait_iteration(3)
                coordinator.kill(signal.SIGKILL)
                coordinator.wait()
                for worker in joined:
                    self.assertEqual(worker.wait(), 1, worker.text())
                    self.assertIn("coordinator", worker.err())

    def test_killed_coordinator_and_a_stop(self):
        """Who tries to come back can be stopped."""
        coordinator = self.listen(solver="solver.prototxt")
        address = self.address(coordinator)
        workers = [self.join(address) for _ in range(2)]
        coordinator.wait_iteration(3)
        coordinator.kill(signal.SIGKILL)
        coordinator.wait()
        for worker in workers:
            harness.wait_for(
                "a try", lambda w=worker: "trying to come back" in w.out(), worker
            )
            worker.kill(signal.SIGINT)
            worker.wait()

    def test_a_new_run_at_the_same_place(self):
        """Not resumed: workers that come back begin anew with the others, with another job."""
        coordinator = self.listen(solver="solver.prototxt")
        address = self.address(coordinator)
        workers = [self.join(address) for _ in range(2)]
        coordinator.wait_iteration(3)
        coordinator.kill(signal.SIGKILL)
        coordinator.wait()
        self.write("net.prototxt", common.smooth_net(20, dropout=0.2))
        again = self.listen(address=address)
        self.check_complete(again, workers)
        want = self.train("--solver=short.prototxt", "--threads=1")
        common.check_close(self, common.losses_of(want), common.losses_of(again))

    def test_the_same_run_at_the_same_place_begins_anew(self):
        """Even of the same job, a state counts only with --resume."""
        coordinator = self.listen()
        address = self.address(coordinator)
        # So slow that it does not end before.
        workers = [self.join(address, "--pace=300") for _ in range(2)]
        coordinator.wait_iteration(3)
        coordinator.kill(signal.SIGKILL)
        coordinator.wait()
        again = self.listen(address=address)
        self.check_complete(again, workers)
        want = self.train("--solver=short.prototxt", "--threads=1")
        common.check_close(self, common.losses_of(want), common.losses_of(again))


def free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return "127.0.0.1:%d" % free.getsockname()[1]


class Elastic(common.Cluster):
    """Who is there changes while the training goes on."""

    def test_late_joiners(self):
        coordinator, address, workers = self.begin_listening(workers=2)
        for count in (3, 4):
            workers.append(self.join(address))
            self.wait_crew(coordinator, count)
            self.wait_more(coordinator, 5)
        self.assertEqual(self.ranks(coordinator), [w.pid for w in workers])
        self.stop(coordinator, workers)
        self.check_lost(coordinator, [])
        self.check_same(coordinator)

    def test_many_join_at_once(self):
        coordinator, address, workers = self.begin_listening(workers=1)
        workers += [self.join(address) for _ in range(6)]
        self.wait_crew(coordinator, 7)
        self.wait_more(coordinator, 5)
        self.stop(coordinator, workers)
        self.check_same(coordinator)

    def test_killed_and_returned(self):
        coordinator, address, workers = self.begin_listening()
        for _ in range(3):
            victim = workers.pop(1)
            victim.kill(signal.SIGKILL)
            victim.wait()
            self.wait_crew(coordinator, 2)
            workers.append(self.join(address))
            self.wait_crew(coordinator, 3)
            self.wait_more(coordinator, 5)
        self.assertEqual(self.ranks(coordinator), [w.pid for w in workers])
        self.stop(coordinator, workers)
        self.check_same(coordinator)

    def test_one_leaves_and_one_comes_at_once(self):
        coordinator, address, workers = self.begin_listening()
        for _ in range(4):
            workers.append(self.join(address))
            victim = workers.pop(0)
            victim.kill(signal.SIGKILL)
            victim.wait()
            self.wait_more(coordinator, 5)
            self.wait_crew(coordinator, 3)  # else all who hold the state may go before it is passed on
        self.assertEqual(sorted(self.ranks(coordinator)), sorted(w.pid for w in workers))
        self.stop(coordinator, workers)
        self.check_same(coordinator)

    def test_frozen_and_returned(self):
        """Longer than the time-out: it comes back by itself, as the same process."""
        coordinator, _, workers = self.begin_listening("--heartbeat_timeout=3000")
        workers[1].kill(signal.SIGSTOP)
        self.wait_lost(coordinator, [workers[1].pid], "no sign of life for 3000 ms")
        self.wait_more(coordinator)
        workers[1].kill(signal.SIGCONT)
        self.wait_crew(coordinator, 3)
        self.assertEqual(
            sorted(self.ranks(coordinator)), sorted(w.pid for w in workers)
        )
        self.assertIn("as worker 3, again.", workers[1].out())
        self.wait_more(coordinator)
        self.stop(coordinator, workers)
        self.check_same(coordinator)

    def test_frozen_longer_than_it_takes_to_end(self):
        """The run is over when it wakes: it finds nobody."""
        coordinator, _, workers = self.begin_listening(
            "--heartbeat_timeout=3000", worker_flags=("--rejoin-timeout=1",)
        )
        workers[2].kill(signal.SIGSTOP)
        self.wait_lost(coordinator, [workers[2].pid])
        self.stop(coordinator, workers[:2])
        workers[2].kill(signal.SIGCONT)
        self.assertEqual(workers[2].wait(), 1, workers[2].text())
        self.assertIn("error:", workers[2].err())

    def test_stopped_worker(self):
        """Ctrl-C at a worker: the others go on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(signal=number), self.inside("s%d" % number):
                self.empty = self.make("empty")
                self.write("net.prototxt", self.net())
                self.write("solver.prototxt", harness.solver(common.ENDLESS))
                coordinator, _, workers = self.begin_listening()
                workers[0].kill(number)
                workers[0].wait()
                self.wait_lost(coordinator, [workers[0].pid])
                self.wait_more(coordinator)
                self.stop(coordinator, workers[1:])
                self.check_same(coordinator)

    def test_quarantine(self):
        """A worker that is lost more often than it may has to stay away; others need not."""
        coordinator, address, workers = self.begin_listening("--max-failures-per-hour=2", workers=2)
        for count in (1, 2, 3):
            flapping = self.join(address, "--name=flapping", "--rejoin-timeout=600")
            self.wait_crew(coordinator, 3)
            flapping.kill(signal.SIGKILL)
            flapping.wait()
            self.wait_crew(coordinator, 2)
            self.assertEqual(len(self.lost(coordinator)), count)
        flapping = self.join(address, "--name=flapping")
        self.assertEqual(flapping.wait(), 1, flapping.text())  # within its time to join at first
        self.assertIn("in quarantine: it failed 3 times within an hour", flapping.err())
        workers.append(self.join(address, "--name=steady"))
        self.wait_crew(coordinator, 3)
        self.stop(coordinator, workers)
        self.check_same(coordinator)

    def test_pause_below_min_workers(self):
        coordinator, address, workers = self.begin_listening("--min-workers=2")
        workers[0].kill(signal.SIGKILL)
        self.wait_crew(coordinator, 2)
        workers[2].kill(signal.SIGKILL)
        harness.wait_for("a pause", lambda: coordinator.events("paused"), coordinator)
        self.assertIn(
            "1 worker is left, which is fewer than 2", coordinator.events("paused")[0]["text"]
        )
        self.assertIn("Paused: 1 worker is left", coordinator.out())
        done = len(coordinator.iterations())
        time.sleep(0.3)
        self.assertEqual(len(coordinator.iterations()), done)
        for index in (0, 2):
            workers[index].wait()
        workers = [workers[1], self.join(address)]
        self.wait_crew(coordinator, 2)
        self.wait_more(coordinator)
        self.stop(coordinator, workers)
        self.check_same(coordinator)

    def test_a_pause_can_be_stopped(self):
        coordinator, _, workers = self.begin_listening("--min-workers=2", workers=2)
        workers[1].kill(signal.SIGKILL)
        harness.wait_for("a pause", lambda: coordinator.events("paused"), coordinator)
        coordinator.kill(signal.SIGINT)
        self.assertEqual(coordinator.wait(), 0, coordinator.text())
        for worker in workers:
            worker.wait()

    def lose_all(self, coordinator, workers):
        """Returns the iterations so far."""
        for worker in workers:
            worker.kill(signal.SIGKILL)
        for worker in workers:
            worker.wait()
        harness.wait_for("a pause", lambda: coordinator.events("paused"), coordinator)
        return len(coordinator.iterations())

    def check_from(self, coordinator, done, first):
        """After `done` lines of the log it went on from the state before iteration `first`."""
        told = [e["iter"] for e in coordinator.iterations()]
        self.assertEqual(told[:done], list(range(done)))
        self.assertEqual(told[done:], list(range(first, first + len(told) - done)))
        _, calm = self.undisturbed(max(told) + 1)
        self.check_losses(calm, coordinator)

    def test_all_killed(self):
        """Nobody holds the state: from the last snapshot, or the begin."""
        for flags in ({}, dict(snapshot=5)):
            with self.subTest(flags=flags), self.inside("a%d" % len(flags)):
                self.empty = self.make("empty")
                self.write("net.prototxt", self.net())
                self.write("solver.prototxt", harness.solver(common.ENDLESS, **flags))
                coordinator, address, workers = self.begin_listening(workers=2)
                done = self.lose_all(coordinator, workers)
                saved = [e["iter"] for e in coordinator.events("snapshot")]
                workers = [self.join(address), self.join(address)]
                harness.wait_for(
                    "more", lambda: len(coordinator.iterations()) > done + 20, coordinator
                )
                self.stop(coordinator, workers)
                self.check_from(coordinator, done, saved[-1] if saved else 0)

    def test_only_worker_killed(self):
        coordinator, address, workers = self.begin_listening(workers=1)
        done = self.lose_all(coordinator, workers)
        worker = self.join(address)
        harness.wait_for("more", lambda: len(coordinator.iterations()) > done + 10, coordinator)
        self.stop(coordinator, [worker])
        self.check_from(coordinator, done, 0)

    def test_snapshots_in_close_succession(self):
        """Workers come and go; each file must hold its own iteration."""
        self.write("solver.prototxt", harness.solver(common.ENDLESS, snapshot=1))
        coordinator, address, workers = self.begin_listening()
        for _ in range(4):
            # While the coordinator stands still, the workers run ahead; then all of what the first
            # one sent is there before the others' reports are read.
            coordinator.kill(signal.SIGSTOP)
            time.sleep(0.1)
            coordinator.kill(signal.SIGCONT)
            self.wait_more(coordinator, 5)
            victim = workers.pop(0)
            victim.kill(signal.SIGKILL)
            victim.wait()
            workers.append(self.join(address))
            self.wait_more(coordinator, 5)
        self.stop(coordinator, workers)
        last = self.check_same(coordinator)
        self.assertEqual(len(coordinator.events("snapshot")), 2 * last)
        for n in range(1, last + 1):
            saved = harness.Saved(self.path("snap_iter_%d.solverstate" % n))
            state = dict(f for f in saved.skeleton if f[0] in (1, 2))
            self.assertEqual(state[1], n)
            self.assertEqual(state[2].decode(), "snap_iter_%d.caffemodel" % n)


class Order(common.Cluster):
    """A net that tells which samples it got."""

    def net(self):
        return common.order_net(self.batch)

    def rates(self):
        return dict(base_lr=0)

    def test_sample_order(self):
        coordinator, address, workers = self.begin_listening()
        for _ in range(4):
            victim = workers.pop(1)
            victim.kill(signal.SIGKILL)
            victim.wait()
            self.wait_more(coordinator, 5)
            workers.append(self.join(address))
            self.wait_crew(coordinator, 3)
            self.wait_more(coordinator, 5)
        self.stop(coordinator, workers)
        self.check_unbroken(coordinator)
        self.check_sums(coordinator)


if __name__ == "__main__":
    harness.main()
