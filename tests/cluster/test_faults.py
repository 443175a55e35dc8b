# SPDX-License-Identifier: Apache-2.0
"""Real processes that die or freeze: the run ends with an error that names the worker, what was
written before is whole, and nobody is left over."""
import os
import signal

import common
import harness


class Faults(harness.Case):
    def setUp(self):
        super().setUp()
        harness.make_digits(self)
        self.write("net.prototxt", harness.lenet(28, dropout=True))
        self.write("solver.prototxt", harness.solver(common.ENDLESS, snapshot=5))

    def begin(self, *flags, workers=3):
        process = self.start_train("--solver=solver.prototxt", "--workers=%d" % workers, *flags)
        process.wait_iteration(7)
        return process, process.wait_workers(workers)

    def check_snapshots(self, process):
        """All that was announced can be read, and the message names the newest. Goes on from it."""
        events = process.events("snapshot")
        self.assertGreaterEqual(len(events), 2)
        for event in events[-4:]:
            saved = harness.Saved(self.path(event["file"]))
            self.assertEqual(len(saved.blobs), 8)
            for blob in saved.blobs.values():
                self.assertTrue(blob.data)
        states = [e for e in events if e["file"].endswith(".solverstate")]
        self.assertIn("--resume=" + states[-1]["file"], process.err())
        at = states[-1]["iter"]
        self.write("more.prototxt", harness.solver(at + 3, prefix="more"))
        again = self.train(
            "--solver=more.prototxt", "--resume=" + states[-1]["file"], "--workers=3"
        )
        self.assertEqual([e["iter"] for e in again.iterations()], [at, at + 1, at + 2])
        # Nothing half written is left beside them.
        named = {e["file"] for e in events}
        left = [f for f in os.listdir(self.folder) if f.startswith("snap") and f not in named]
        for name in left:  # only what was complete before its announcement could be written
            self.assertRegex(name, r"^snap_iter_\d+\.(caffemodel|solverstate)$")

    def check_lost(self, process, victim, reason):
        self.assertEqual(process.wait(), 1, process.text())
        self.assertRegex(process.err(), r"worker \d+ \([^)]*127\.0\.0\.1, pid %d\)" % victim)
        self.assertRegex(process.err(), reason)

    def test_killed_workers(self):
        for index in range(3):
            with self.subTest(index=index):
                process, workers = self.begin()
                os.kill(workers[index], signal.SIGKILL)
                self.check_lost(process, workers[index], "was lost in round|was lost before round")
                self.check_snapshots(process)

    def test_killed_while_busy_with_snapshots_and_tests(self):
        self.write(
            "solver.prototxt",
            harness.solver(common.ENDLESS, snapshot=1, test_iter=4, test_interval=1),
        )
        for index in range(3):
            with self.subTest(index=index):
                process, workers = self.begin()
                os.kill(workers[index], signal.SIGKILL)
                self.check_lost(process, workers[index], "was lost in round|was lost before round")
                self.check_snapshots(process)

    def test_only_worker_killed(self):
        process, workers = self.begin(workers=1)
        os.kill(workers[0], signal.SIGKILL)
        self.check_lost(process, workers[0], "was lost")
        self.check_snapshots(process)

    def test_two_killed_at_once(self):
        process, workers = self.begin(workers=4)
        os.kill(workers[0], signal.SIGKILL)
        os.kill(workers[2], signal.SIGKILL)
        self.assertEqual(process.wait(), 1)
        named = [pid for pid in workers if "pid %d)" % pid in process.err()]
        self.assertIn(named[0], (workers[0], workers[2]), process.err())
        self.check_snapshots(process)

    def test_frozen_worker(self):
        for index in (0, 2):
            with self.subTest(index=index):
                process, workers = self.begin("--heartbeat_timeout=5000")
                os.kill(workers[index], signal.SIGSTOP)
                self.check_lost(process, workers[index], "no sign of life for 5000 ms")
                self.check_snapshots(process)

    def test_frozen_for_a_moment(self):
        """Shorter than the time-out: nothing is lost."""
        process, workers = self.begin("--heartbeat_timeout=60000", "--check_interval=1")
        os.kill(workers[1], signal.SIGSTOP)
        last = process.iterations()[-1]["iter"]
        os.kill(workers[1], signal.SIGCONT)
        process.wait_iteration(last + 20)
        process.kill(signal.SIGINT)
        self.assertEqual(process.wait(), 0)
        self.assertIn("stopped on request", process.err())

    def test_killed_before_it_joins(self):
        """A worker that cannot even start: told with how it ended."""
        process = self.start_train("--solver=solver.prototxt", "--workers=2")
        workers = process.wait_workers(2)
        os.kill(workers[0], signal.SIGKILL)
        self.assertEqual(process.wait(), 1, process.text())
        self.assertRegex(process.err(), r"signal 9|pid %d\)" % workers[0])

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

    def test_worker_asked_to_end(self):
        """SIGTERM to a worker is a lost worker, told as such."""
        process, workers = self.begin()
        os.kill(workers[1], signal.SIGTERM)
        self.assertEqual(process.wait(), 1, process.text())
        self.assertIn("pid %d)" % workers[1], process.err())
        self.check_snapshots(process)

    def test_no_zombies_and_no_growing_descriptors(self):
        process, workers = self.begin()
        before = {pid: len(harness.descriptors(pid)) for pid in workers}
        own = len([t for t in harness.descriptors(process.pid).values() if t.startswith("socket")])
        last = process.iterations()[-1]["iter"]
        process.wait_iteration(last + 60)
        self.assertEqual({p: len(harness.descriptors(p)) for p in workers}, before)
        now = len([t for t in harness.descriptors(process.pid).values() if t.startswith("socket")])
        self.assertEqual(now, own)
        self.assertEqual(harness.zombies_of(process.pid), [])
        process.kill(signal.SIGINT)
        self.assertEqual(process.wait(), 0)


if __name__ == "__main__":
    harness.main()
