# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C, SIGTERM and SIGHUP write snapshots; a run that goes on from one with --resume ends
identical to the bit with one that was never stopped; --snapshot starts the data anew, as Caffe. A
coordinator that was killed goes on with what its workers hold."""
import os
import signal

import common
import harness

CLUSTERS = ((), ("--workers=3", "--check_interval=1", common.PATIENT))


class Resume(harness.Case):
    def setUp(self):
        super().setUp()
        self.sums = harness.make_digits(self)

    def place(self, name, net):
        where = self.make(name)
        os.symlink(self.path("digits"), os.path.join(where, "digits"))
        self.write(os.path.join(name, "net.prototxt"), net)
        return where

    def interrupt(self, where, number, flags, **solver):
        """A run without end, asked to stop; returns it and the iteration of its snapshot."""
        text = harness.solver(common.ENDLESS, **solver)
        self.write(os.path.join(where, "endless.prototxt"), text)
        process = self.start_train("--solver=endless.prototxt", *flags, folder=where)
        process.wait_iteration(12)
        os.killpg(process.pid, number)  # as a terminal does it: to all of the group
        self.assertEqual(process.wait(), 0, process.text())
        self.assertIn("stopped on request", process.err())
        self.assertIn("Optimization stopped early.", process.out())
        written = [e["file"] for e in process.events("snapshot")]
        iterations = [e["iter"] for e in process.events("snapshot")]
        self.assertEqual(len(written), 2)
        self.assertEqual(iterations[0], process.iterations()[-1]["iter"] + 1)
        self.assertEqual(
            written, ["snap_iter_%d.%s" % (iterations[0], e) for e in ("caffemodel", "solverstate")]
        )
        return process, iterations[0]

    def check_unbroken(self, flags, number, **solver):
        where = self.place("broken", harness.lenet(24, dropout=True))
        first, at = self.interrupt(where, number, flags, **solver)
        end = at + 15
        self.write("broken/end.prototxt", harness.solver(end, **solver))
        second = self.train(
            "--solver=end.prototxt", "--resume=snap_iter_%d.solverstate" % at, *flags, folder=where
        )
        there = self.place("unbroken", harness.lenet(24, dropout=True))
        self.write("unbroken/end.prototxt", harness.solver(end, **solver))
        whole = self.train("--solver=end.prototxt", *flags, folder=there)

        def told(*processes):
            """By iteration, so a test that was run again at the seam counts once."""
            found = {}
            for e in (e for p in processes for e in p.events()):
                if e["event"] in ("iteration", "final_loss", "test"):
                    key = (e["event"], e["iter"], e.get("net"))
                    said = {n: e[n] for n in ("loss", "lr", "outputs") if n in e}
                    self.assertEqual(found.setdefault(key, said), said)
            return found

        self.assertEqual(told(first, second), told(whole))
        for ending in (".caffemodel", ".solverstate"):
            file = "snap_iter_%d%s" % (end, ending)
            self.assert_same_file(os.path.join(where, file), os.path.join(there, file))

    def test_resume_after_ctrl_c(self):
        for flags in CLUSTERS:
            with self.subTest(flags=flags), self.inside("c" + "-".join(flags)):
                self.check_unbroken(flags, signal.SIGINT, test_iter=3, test_interval=5)

    def test_resume_after_sigterm_with_all_that_has_a_position(self):
        """Several passes an iteration, a rate in steps, clipping."""
        rates = dict(
            lr_policy='"multistep"', stepvalue="5 stepvalue: 10 stepvalue: 2000", gamma=0.8
        )
        for flags in CLUSTERS:
            with self.subTest(flags=flags), self.inside("t" + "-".join(flags)):
                self.check_unbroken(flags, signal.SIGTERM, iter_size=2, clip_gradients=1, **rates)

    def test_where_the_samples_go_on(self):
        """--resume: where they were. --snapshot: at the first record, as in Caffe."""
        batch = 24
        for i, flags in enumerate([(), ("--workers=2", common.PATIENT)]):
            where = self.place("p%d" % i, common.order_net(batch))
            _, at = self.interrupt(where, signal.SIGINT, flags, base_lr=0)
            self.write("p%d/end.prototxt" % i, harness.solver(at + 3, base_lr=0))
            for flag, first in (("--resume", at), ("--snapshot", 0)):
                with self.subTest(flags=flags, flag=flag):
                    process = self.train(
                        "--solver=end.prototxt",
                        "%s=snap_iter_%d.solverstate" % (flag, at),
                        *flags,
                        folder=where
                    )
                    n = len(self.sums)
                    want = [
                        [self.sums[((first + j) * batch + k) % n] for k in range(batch)]
                        for j in range(4)
                    ]
                    done = [e["iter"] for e in process.iterations()]
                    self.assertEqual(done, [at, at + 1, at + 2])
                    self.assertEqual(common.sums_of(process), want)

    def test_sighup_snapshots_and_goes_on(self):
        for i, flags in enumerate([(), ("--workers=2", common.PATIENT)]):
            with self.subTest(flags=flags):
                where = self.place("h%d" % i, harness.lenet(24))
                self.write("h%d/endless.prototxt" % i, harness.solver(common.ENDLESS))
                process = self.start_train("--solver=endless.prototxt", *flags, folder=where)
                process.wait_iteration(3)
                process.kill(signal.SIGHUP)
                harness.wait_for(
                    "a snapshot", lambda: len(process.events("snapshot")) == 2, process
                )
                at = process.events("snapshot")[0]["iter"]
                process.wait_iteration(at + 5)
                process.kill(signal.SIGINT)
                self.assertEqual(process.wait(), 0)
                self.assertEqual(len(process.events("snapshot")), 4)
                # Both can be read, and gone on from.
                self.write("h%d/more.prototxt" % i, harness.solver(at + 2))
                self.train(
                    "--solver=more.prototxt",
                    "--resume=snap_iter_%d.solverstate" % at,
                    folder=where
                )

    def test_ctrl_c_twice_ends_at_once(self):
        where = self.place("twice", harness.lenet(24))
        self.write("twice/endless.prototxt", harness.solver(common.ENDLESS))
        process = self.start_train(
            "--solver=endless.prototxt", "--workers=2", common.PATIENT, folder=where
        )
        process.wait_iteration(3)
        # While it is stopped, two signals of one kind would be one: they must be seen in turn.
        process.kill(signal.SIGINT)
        while process.poll() is None:
            process.kill(signal.SIGINT)
        self.assertIn(process.wait(), (1, 130))

    def test_a_cluster_goes_on_from_one_process_and_back(self):
        where = self.place("mixed", common.smooth_net(24))
        self.write("mixed/a.prototxt", harness.solver(10))
        self.write("mixed/b.prototxt", harness.solver(20))
        self.write("mixed/c.prototxt", harness.solver(30))
        self.train("--solver=a.prototxt", folder=where)
        self.train(
            "--solver=b.prototxt",
            "--resume=snap_iter_10.solverstate",
            "--workers=3",
            common.PATIENT,
            folder=where
        )
        self.train("--solver=c.prototxt", "--resume=snap_iter_20.solverstate", folder=where)
        there = self.place("whole", common.smooth_net(24))
        self.write("whole/c.prototxt", harness.solver(30))
        self.train("--solver=c.prototxt", folder=there)
        for ending, floor in ((".caffemodel", 1e-2), (".solverstate", 1e-5)):
            file = "snap_iter_30" + ending
            common.check_saved_close(
                self, os.path.join(there, file), os.path.join(where, file), floor
            )


class Restarting(common.Cluster):
    """The coordinator is killed, and started again at the same place with --resume."""

    def kill(self, coordinator):
        coordinator.kill(signal.SIGKILL)
        coordinator.wait()
        return coordinator

    def again(self, address, *flags, workers=3, **how):
        return self.listen("--resume", *flags, workers=workers, address=address, **how)


class Restart(Restarting):
    def test_killed_and_resumed(self):
        """Several times; no update is lost or made twice."""
        coordinator, address, workers = self.begin_listening()
        runs = [self.kill(coordinator)]
        for _ in range(3):
            coordinator = self.again(address)
            self.wait_more(coordinator)
            runs.append(self.kill(coordinator))
        coordinator = self.again(address)
        self.wait_crew(coordinator, 3)
        self.wait_more(coordinator)
        self.assertEqual(sorted(self.ranks(coordinator)), sorted(w.pid for w in workers))
        self.stop(coordinator, workers)
        self.check_same(*runs, coordinator)
        for worker in workers:
            self.assertEqual(worker.out().count(", again."), 4)

    def test_killed_with_iterations_of_several_passes(self):
        self.write("solver.prototxt", harness.solver(common.ENDLESS, iter_size=3))
        coordinator, address, workers = self.begin_listening()
        runs = [self.kill(coordinator)]
        coordinator = self.again(address)
        self.wait_more(coordinator)
        self.stop(coordinator, workers)
        self.write("calm.prototxt", harness.solver(self.check_unbroken(*runs, coordinator),
                                                   prefix="calm", iter_size=3))
        calm = self.train("--solver=calm.prototxt", "--threads=1")
        self.check_losses(calm, *runs, coordinator)

    def test_fewer_come_back(self):
        """Those that do are enough: after a while it goes on with them."""
        coordinator, address, workers = self.begin_listening()
        self.kill(coordinator)
        workers[0].kill(signal.SIGKILL)
        workers[0].wait()
        again = self.again(address)
        self.wait_crew(again, 2)
        self.wait_more(again)
        workers.append(self.join(address))
        self.wait_crew(again, 3)
        self.stop(again, workers[1:])
        self.check_same(coordinator, again)

    def test_one_that_was_frozen_holds_an_older_state(self):
        """The newest counts, whoever comes first."""
        coordinator, address, workers = self.begin_listening("--heartbeat_timeout=3000")
        workers[1].kill(signal.SIGSTOP)
        self.wait_lost(coordinator, [workers[1].pid])
        self.wait_more(coordinator)
        self.kill(coordinator)
        for index in (0, 2):
            workers[index].kill(signal.SIGSTOP)
        again = self.again(address)
        workers[1].kill(signal.SIGCONT)
        self.wait_joined(again, 1)
        for index in (0, 2):
            workers[index].kill(signal.SIGCONT)
        self.wait_crew(again, 3)
        self.wait_more(again)
        self.stop(again, workers)
        self.check_same(coordinator, again)

    def test_a_stranger_to_the_run_comes_first(self):
        """A new worker, which holds nothing, is the first one there."""
        coordinator, address, workers = self.begin_listening(workers=2)
        self.kill(coordinator)
        for worker in workers:
            worker.kill(signal.SIGSTOP)
        again = self.again(address)
        new = self.join(address)
        self.wait_joined(again, 1)
        for worker in workers:
            worker.kill(signal.SIGCONT)
        self.wait_crew(again, 3)
        self.wait_more(again)
        self.stop(again, workers + [new])
        self.check_same(coordinator, again)

    def test_resumed_from_an_older_snapshot(self):
        """With a file as well: what workers hold is newer, so that counts."""
        self.write("solver.prototxt", harness.solver(common.ENDLESS, snapshot=5))
        coordinator, address, workers = self.begin_listening()
        harness.wait_for(
            "a snapshot", lambda: len(coordinator.events("snapshot")) >= 2, coordinator
        )
        self.kill(coordinator)
        again = self.listen(
            "--resume=snap_iter_5.solverstate", workers=3, address=address
        )
        self.wait_more(again)
        self.stop(again, workers)
        self.check_same(coordinator, again)

    def test_resumed_from_a_snapshot_that_nobody_has_seen(self):
        """The workers are new: the file counts."""
        self.write("solver.prototxt", harness.solver(common.ENDLESS, snapshot=5))
        coordinator, address, workers = self.begin_listening()
        self.kill(coordinator)
        for worker in workers:
            worker.kill(signal.SIGKILL)
            worker.wait()
        again = self.listen("--resume=snap_iter_5.solverstate", workers=2, address=address)
        workers = [self.join(address), self.join(address)]
        self.wait_more(again)
        updates = self.stop(again, workers)
        self.assertEqual(again.iterations()[0]["iter"], 5)
        _, calm = self.undisturbed(updates)
        self.check_losses(calm, again)

    def test_workers_killed_while_they_wait(self):
        """All but one: that one holds the state."""
        coordinator, address, workers = self.begin_listening(workers=4)
        self.kill(coordinator)
        for worker in workers[:3]:
            worker.kill(signal.SIGKILL)
            worker.wait()
        again = self.again(address, workers=4)
        self.wait_more(again)
        self.stop(again, workers[3:])
        self.check_same(coordinator, again)

    def test_killed_while_busy_with_snapshots_and_tests(self):
        self.write(
            "solver.prototxt",
            harness.solver(common.ENDLESS, snapshot=1, test_iter=4, test_interval=1),
        )
        coordinator, address, workers = self.begin_listening()
        runs = [self.kill(coordinator)]
        for _ in range(3):
            coordinator = self.again(address)
            self.wait_more(coordinator, 3)
            runs.append(self.kill(coordinator))
        coordinator = self.again(address)
        self.wait_more(coordinator, 3)
        self.stop(coordinator, workers)
        self.check_same(*runs, coordinator)


class RestartOrder(Restarting):
    """With a net that tells which samples it got."""

    def net(self):
        return common.order_net(self.batch)

    def rates(self):
        return dict(base_lr=0)

    def check_same(self, *coordinators):
        self.check_unbroken(*coordinators)
        self.check_sums(*coordinators)

    test_killed_and_resumed = Restart.test_killed_and_resumed
    test_fewer_come_back = Restart.test_fewer_come_back

    def test_without_a_random_seed(self):
        """The records go on in the run's own order, whose seed only the workers know."""
        text = harness.solver(common.ENDLESS, base_lr=0).replace("random_seed: 1701\n", "")
        self.assertNotIn("random_seed", text)
        self.write("solver.prototxt", text)
        coordinator, address, workers = self.begin_listening("--shuffle=global")
        self.kill(coordinator)
        again = self.again(address, "--shuffle=global")
        self.wait_more(again, 25)
        self.stop(again, workers)
        self.check_unbroken(coordinator, again)
        seen, n = {}, len(self.sums)
        for run in (coordinator, again):
            for e, sums in zip(run.iterations(), common.sums_of(run)):
                for k, one in enumerate(sums):
                    seen.setdefault((e["iter"] * self.batch + k) // n, []).append(one)
        self.assertGreaterEqual(len(seen), 3)
        for epoch, sums in seen.items():  # each record once at most, and in another order
            self.assertEqual(len(set(sums)), len(sums), "epoch %d" % epoch)
        self.assertNotEqual(seen[0], self.sums[: len(seen[0])])


if __name__ == "__main__":
    harness.main()
