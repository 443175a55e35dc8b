# SPDX-License-Identifier: Apache-2.0
"""Real processes that die or freeze: the others go on, no update is lost or made twice, each sample
is taken at its place, and nobody is left over."""
import os
import signal
import time

import common
import harness


class Faults(common.Cluster):
    def test_killed_workers(self):
        for index in range(3):
            with self.subTest(index=index), self.inside("rank%d" % index):
                self.copy_run()
                process, workers = self.begin()
                os.kill(workers[index], signal.SIGKILL)
                self.wait_lost(process, [workers[index]])
                self.wait_more(process)
                self.assertEqual(
                    self.ranks(process), [w for w in workers if w != workers[index]]
                )
                self.stop(process)
                self.check_recovered(process)
                self.check_same(process)

    def copy_run(self):
        """The files of a run into the folder that is the test's at present."""
        self.write("net.prototxt", self.net())
        self.write("solver.prototxt", harness.solver(common.ENDLESS, **self.rates()))

    def check_recovered(self, process, losses=1):
        """After every loss a generation, and the first iteration that it completes."""
        kinds = [e["event"] for e in process.events()]
        self.assertEqual(kinds.count("recovered"), losses)
        at = kinds.index("lost")
        self.assertLess(at, kinds.index("recovered"))
        self.assertIn("generation", kinds[at : kinds.index("recovered")])
        self.assertRegex(process.out(), r"Worker lost: iteration \d+: worker \d+ ")
        self.assertIn("Going on with ", process.out())

    def test_two_killed_at_once(self):
        process, workers = self.begin(workers=4)
        gone = [workers[0], workers[2]]
        for pid in gone:
            os.kill(pid, signal.SIGKILL)
        self.wait_lost(process, gone)
        self.wait_more(process)
        self.assertEqual(self.ranks(process), [workers[1], workers[3]])
        self.stop(process)
        self.check_same(process)

    def test_all_but_one_killed(self):
        process, workers = self.begin(workers=4)
        for pid in workers[:3]:
            os.kill(pid, signal.SIGKILL)
        self.wait_lost(process, workers[:3])
        self.wait_more(process)
        self.assertEqual(self.ranks(process), workers[3:])
        self.stop(process)
        self.check_same(process)

    def test_killed_one_after_the_other(self):
        process, workers = self.begin(workers=5)
        for count, index in ((4, 4), (3, 0), (2, 2), (1, 1)):
            os.kill(workers[index], signal.SIGKILL)
            self.wait_crew(process, count)
            self.wait_more(process, 3)
        self.check_lost(process, [workers[i] for i in (4, 0, 2, 1)])
        self.assertEqual(self.ranks(process), [workers[3]])
        self.stop(process)
        self.check_recovered(process, 4)
        self.check_same(process)

    def test_killed_while_the_others_recover(self):
        """A second one at any moment of the first recovery."""
        for pause in (0.002, 0.01, 0.03):
            with self.subTest(pause=pause), self.inside("p%g" % pause):
                self.copy_run()
                process, workers = self.begin(workers=5)
                for pid in workers[1:4]:
                    os.kill(pid, signal.SIGKILL)
                    time.sleep(pause)
                self.wait_lost(process, workers[1:4])
                self.wait_more(process)
                self.assertEqual(self.ranks(process), [workers[0], workers[4]])
                self.stop(process)
                self.check_same(process)

    def test_killed_near_the_end(self):
        """The last iterations, the last snapshot and the forward pass after it are made up for."""
        self.write("solver.prototxt", harness.solver(9, snapshot=3))
        where, calm = self.undisturbed(9, "--cpu=avx2" if "avx2" in self.levels() else "--cpu=c")
        for number in range(8):
            with self.subTest(number=number), self.inside("n%d" % number):
                self.copy_run()
                self.write("solver.prototxt", harness.solver(9, snapshot=3))
                process = self.start_train("--solver=solver.prototxt", "--workers=3", common.PATIENT)
                process.wait_iteration(number)
                for pid in process.workers()[:1]:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass  # the run was faster
                self.assertEqual(process.wait(), 0, process.text())
                self.check_unbroken(process)
                self.check_losses(calm, process)
                finals = [[e["loss"] for e in p.events("final_loss")] for p in (calm, process)]
                common.check_close(self, *finals)
                for ending in (".caffemodel", ".solverstate"):
                    file = "snap_iter_9" + ending
                    common.check_saved_close(
                        self, os.path.join(where, file), self.path(file), 1e-2
                    )

    def test_frozen_worker(self):
        for index in (0, 2):
            with self.subTest(index=index), self.inside("f%d" % index):
                self.copy_run()
                process, workers = self.begin("--heartbeat_timeout=3000")
                os.kill(workers[index], signal.SIGSTOP)
                self.wait_lost(process, [workers[index]], "no sign of life for 3000 ms")
                self.wait_more(process)
                # It wakes, finds that it is out, and comes back as a new one.
                os.kill(workers[index], signal.SIGCONT)
                self.wait_crew(process, 3)
                self.assertEqual(sorted(self.ranks(process)), sorted(workers))
                self.wait_more(process)
                self.stop(process)
                self.check_same(process)

    def test_frozen_for_a_moment(self):
        """Shorter than the time-out: nobody is lost."""
        process, workers = self.begin()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.3)
            os.kill(pid, signal.SIGCONT)
            self.wait_more(process)
        self.assertEqual(self.ranks(process), workers)
        self.stop(process)
        self.check_lost(process, [])
        self.check_same(process)

    def test_frozen_coordinator(self):
        """It stands still for longer than the time-out: the silence is its own, not the workers'."""
        process, workers = self.begin("--heartbeat_timeout=2000")
        process.kill(signal.SIGSTOP)
        time.sleep(3)
        process.kill(signal.SIGCONT)
        self.wait_more(process)
        self.assertEqual(self.ranks(process), workers)
        self.stop(process)
        self.check_lost(process, [])
        self.check_same(process)

    def test_all_frozen_for_a_moment(self):
        """A laptop that sleeps: coordinator and workers alike."""
        process, workers = self.begin("--heartbeat_timeout=2000")
        everybody = workers + [process.pid]
        for number, pause in ((signal.SIGSTOP, 3), (signal.SIGCONT, 0)):
            for pid in everybody:
                os.kill(pid, number)
            time.sleep(pause)
        self.wait_more(process)
        self.stop(process)
        self.check_lost(process, [])
        self.check_same(process)

    def test_worker_asked_to_end(self):
        """SIGTERM to a worker is a lost worker, and it is gone at once."""
        process, workers = self.begin()
        os.kill(workers[1], signal.SIGTERM)
        self.wait_lost(process, [workers[1]])
        self.wait_more(process)
        self.assertEqual(self.ranks(process), [workers[0], workers[2]])
        self.stop(process)
        self.check_same(process)

    def test_only_worker_killed(self):
        process, workers = self.begin(workers=1)
        os.kill(workers[0], signal.SIGKILL)
        self.assertEqual(process.wait(), 1, process.text())
        self.assertRegex(
            process.err(),
            r"only 0 of 1 workers are left \(the last one ended with signal 9\); "
            "no snapshot was written before",
        )
        self.check_lost(process, workers)
        self.check_unbroken(process)

    def test_fewer_than_min_workers(self):
        """Own workers do not come back: the run ends, and its message names the way on."""
        self.write("solver.prototxt", harness.solver(common.ENDLESS, snapshot=5))
        process, workers = self.begin("--min-workers=3", workers=4)
        os.kill(workers[2], signal.SIGKILL)
        self.wait_lost(process, [workers[2]])
        self.wait_more(process)
        self.assertIsNone(process.poll())
        os.kill(workers[0], signal.SIGKILL)
        self.assertEqual(process.wait(), 1, process.text())
        state = [e for e in process.events("snapshot") if e["file"].endswith(".solverstate")][-1]
        self.assertRegex(
            process.err(),
            r"only 2 of 4 workers are left \(the last one ended with signal 9\); "
            "go on with --resume=%s" % state["file"],
        )
        self.check_snapshots(process)
        # The rest of the run, from there.
        at = state["iter"]
        self.write("more.prototxt", harness.solver(at + 20, prefix="more"))
        more = self.train(
            "--solver=more.prototxt", "--resume=" + state["file"], "--workers=3", common.PATIENT
        )
        _, calm = self.undisturbed(at + 20)
        common.check_close(self, common.losses_of(calm)[at:], common.losses_of(more))

    def check_snapshots(self, process):
        """All that was announced can be read, and nothing half written is beside it."""
        events = process.events("snapshot")
        self.assertGreaterEqual(len(events), 2)
        for event in events[-4:]:
            saved = harness.Saved(self.path(event["file"]))
            self.assertEqual(len(saved.blobs), 8)
            for blob in saved.blobs.values():
                self.assertTrue(blob.data)
        named = {e["file"] for e in events}
        left = [f for f in os.listdir(self.folder) if f.startswith("snap") and f not in named]
        for name in left:  # only what was complete before its announcement could be written
            self.assertRegex(name, r"^snap_iter_\d+\.(caffemodel|solverstate)$")

    def test_killed_before_the_begin(self):
        """A worker that cannot even start: told with how it ended. Or it had joined already."""
        process = self.start_train("--solver=solver.prototxt", "--workers=2", common.PATIENT)
        workers = process.wait_workers(2)
        os.kill(workers[0], signal.SIGKILL)
        harness.wait_for("either", lambda: process.poll() is not None or process.iterations())
        if process.iterations():
            self.wait_lost(process, workers[:1])
            self.wait_more(process)
            self.stop(process)
        else:
            self.assertEqual(process.wait(), 1, process.text())
            self.assertRegex(process.err(), "signal 9")

    def test_killed_coordinator(self):
        process, workers = self.begin()
        process.kill(signal.SIGKILL)
        process.wait()
        harness.wait_for("end of all workers", lambda: not harness.marked(self.mark))

    def test_killed_coordinator_while_a_worker_is_frozen(self):
        process, workers = self.begin()
        os.kill(workers[1], signal.SIGSTOP)
        process.kill(signal.SIGKILL)
        process.wait()
        harness.wait_for("end of all workers", lambda: not harness.marked(self.mark))

    def test_a_flipped_bit(self):
        """A weight that only one worker holds changed: that one is named and dropped, and comes back
        with what the others hold."""
        value = 0.123456791  # of a blob that never changes
        net = self.net().replace(
            "param { lr_mult: 2 decay_mult: 0 } inner_product_param { num_output: 10",
            "param { lr_mult: 0 decay_mult: 0 } inner_product_param { "
            'bias_filler { type: "constant" value: %.9g } num_output: 10' % value,
        )
        self.assertIn("bias_filler", net)
        self.write("net.prototxt", net)
        process, workers = self.begin(workers=4)
        if not self.change(workers[1], value, value + 1e-7):
            self.stop(process)
            self.skipTest("the memory of a child cannot be written here")
        self.wait_lost(process, [workers[1]], "holds other weights than the rest after iteration")
        self.wait_crew(process, 4)
        self.assertEqual(sorted(self.ranks(process)), sorted(workers))
        self.wait_more(process)
        self.stop(process)
        self.check_lost(process, [workers[1]])
        # What it had added until the comparison was right: only the blob was not.
        self.check_same(process)

    def change(self, pid, value, other):
        """A float of a stopped process; False: not allowed here."""
        os.kill(pid, signal.SIGSTOP)
        try:
            found = common.poke(
                pid, harness.struct.pack("<f", value) * 10, harness.struct.pack("<f", other)
            )
        except PermissionError:
            return False
        finally:
            os.kill(pid, signal.SIGCONT)
        self.assertGreater(found, 0)
        return True

    def test_no_zombies_and_no_growing_descriptors(self):
        process, workers = self.begin()

        def sockets():
            found = harness.descriptors(process.pid).values()
            return len([t for t in found if t.startswith("socket")])

        before, own = {pid: len(harness.descriptors(pid)) for pid in workers}, sockets()
        self.wait_more(process, 60)
        self.assertEqual({p: len(harness.descriptors(p)) for p in workers}, before)
        self.assertEqual(sockets(), own)
        self.assertEqual(harness.zombies_of(process.pid), [])
        os.kill(workers[2], signal.SIGKILL)
        self.wait_more(process, 60)
        self.assertEqual(sockets(), own - 1)
        for pid in workers[:2]:
            self.assertLessEqual(len(harness.descriptors(pid)), before[pid])
        self.stop(process)


class Order(common.Cluster):
    """A net that tells which samples it got."""

    def net(self):
        return common.order_net(self.batch)

    def rates(self):
        return dict(base_lr=0)

    def test_sample_order(self):
        process, workers = self.begin(workers=4)
        for index in (2, 0):
            os.kill(workers[index], signal.SIGKILL)
            self.wait_more(process, 8)
        os.kill(workers[1], signal.SIGSTOP)
        time.sleep(0.2)
        os.kill(workers[1], signal.SIGCONT)
        self.wait_more(process, 8)
        self.stop(process)
        self.check_unbroken(process)
        self.check_sums(process)


class Busy(common.Cluster):
    """Tests and snapshots at every iteration: the loss falls into any of them."""

    def rates(self):
        return dict(snapshot=1, test_iter=4, test_interval=1)

    def test_killed_while_busy_with_snapshots_and_tests(self):
        process, workers = self.begin(workers=4)
        for count, index in ((3, 0), (2, 3), (1, 1)):
            os.kill(workers[index], signal.SIGKILL)
            self.wait_crew(process, count)
            self.wait_more(process, 4)
        self.stop(process)
        updates = self.check_same(process)
        _, calm = self.undisturbed(updates)
        common.check_tests_close(self, common.tests_of(calm)[:updates], self.told_tests(process))
        # Every snapshot there, of its own iteration, the same as in the undisturbed run.
        files = [e["file"] for e in process.events("snapshot")]
        self.assertEqual(len(set(files)), 2 * updates)
        for n in range(1, updates + 1):
            saved = harness.Saved(self.path("snap_iter_%d.solverstate" % n))
            state = dict(f for f in saved.skeleton if f[0] in (1, 2))
            self.assertEqual(state[1], n)
            self.assertEqual(state[2].decode(), "snap_iter_%d.caffemodel" % n)

    def told_tests(self, process):
        return common.tests_of(process)[: len(process.iterations())]


if __name__ == "__main__":
    harness.main()
