# SPDX-License-Identifier: Apache-2.0
"""A cluster computes what one process computes: the same samples in the same order, losses and
weights equal but for rounding, replicas identical to the bit."""
import os

import common
import harness
from common import WORKERS


class Equality(harness.Case):
    def setUp(self):
        super().setUp()
        self.sums = harness.make_digits(self)

    def place(self, name, net, solver):
        """A folder with a net and a solver, and the data in reach."""
        where = self.make(name)
        os.symlink(self.path("digits"), os.path.join(where, "digits"))
        self.write(os.path.join(name, "net.prototxt"), net)
        self.write(os.path.join(name, "solver.prototxt"), solver)
        return where

    def run_at(self, name, net, solver, *flags):
        where = self.place(name, net, solver)
        return where, self.train("--solver=solver.prototxt", *flags, folder=where)

    def check_equal(self, net, solver, last, workers=WORKERS, floor=1e-2):
        """One process against clusters; returns the single one."""
        where, single = self.run_at("single", net, solver, "--threads=1")
        losses = common.losses_of(single)
        self.assertEqual(len(losses), last)
        for n in workers:
            with self.subTest(workers=n):
                there, cluster = self.run_at(
                    "w%d" % n, net, solver, "--workers=%d" % n, "--check_interval=1"
                )
                common.check_close(self, losses, common.losses_of(cluster))
                common.check_tests_close(self, common.tests_of(single), common.tests_of(cluster))
                finals = [[e["loss"] for e in p.events("final_loss")] for p in (single, cluster)]
                common.check_close(self, *finals)
                for ending in (".caffemodel", ".solverstate"):
                    file = "snap_iter_%d%s" % (last, ending)
                    common.check_saved_close(
                        self, os.path.join(where, file), os.path.join(there, file), floor
                    )
                if n == 1:  # one share is the whole: not even rounding
                    self.assertEqual(losses, common.losses_of(cluster))
                    for ending in (".caffemodel", ".solverstate"):
                        file = "snap_iter_%d%s" % (last, ending)
                        self.assert_same_file(
                            os.path.join(where, file), os.path.join(there, file)
                        )
        return single

    def test_sample_order(self):
        for batch in (32, 7, 100):
            solver = harness.solver(6, base_lr=0)
            for n in (0,) + WORKERS:
                with self.subTest(batch=batch, workers=n):
                    flags = ("--workers=%d" % n,) if n else ()
                    _, process = self.run_at(
                        "o%d-%d" % (batch, n), common.order_net(batch), solver, *flags
                    )
                    # Six iterations, then the forward pass after the last one.
                    want = [
                        [self.sums[(i * batch + k) % len(self.sums)] for k in range(batch)]
                        for i in range(7)
                    ]
                    self.assertEqual(common.sums_of(process), want)

    def test_losses_and_weights(self):
        # Tests of 5 batches do not come out even among the workers.
        solver = harness.solver(30, base_lr=0.01, test_iter=5, test_interval=8)
        single = self.check_equal(common.smooth_net(32), solver, 30)
        losses = common.losses_of(single)
        self.assertLess(losses[-1], 0.8 * losses[0])  # it learns

    def test_iter_size_and_clipping(self):
        solver = harness.solver(12, iter_size=2, clip_gradients=0.5, average_loss=3)
        single = self.check_equal(common.smooth_net(16), solver, 12)
        self.assertIn("Gradient clipping", single.out())

    def test_fewer_samples_than_workers(self):
        for batch in (1, 2, 5):
            with self.subTest(batch=batch), self.inside("b%d" % batch):
                solver = harness.solver(15, base_lr=0.002, test_iter=2, test_interval=5)
                self.check_equal(common.smooth_net(batch, test_batch=3), solver, 15, (1, 3, 7))

    def test_lenet_replicas_are_identical(self):
        """MAX and ReLU may switch between cluster sizes, but never between replicas."""
        for n in (2, 3, 7):
            _, process = self.run_at(
                "w%d" % n,
                harness.lenet(30, dropout=True),
                harness.solver(15),
                "--workers=%d" % n,
                "--check_interval=1",
            )
            self.assertEqual(len(common.losses_of(process)), 15)

    def test_threads_of_a_worker_change_nothing(self):
        for n in (1, 3):
            first = None
            for threads in (1, 2, 3):
                where, _ = self.run_at(
                    "w%dt%d" % (n, threads),
                    harness.lenet(32, dropout=True),
                    harness.solver(10),
                    "--workers=%d" % n,
                    "--threads=%d" % threads,
                )
                first = first or where
                for ending in (".caffemodel", ".solverstate"):
                    file = "snap_iter_10" + ending
                    self.assert_same_file(os.path.join(first, file), os.path.join(where, file))

    def test_a_run_is_repeatable(self):
        for i in (1, 2):
            self.run_at("r%d" % i, harness.lenet(32, True), harness.solver(10), "--workers=4")
        for ending in (".caffemodel", ".solverstate"):
            file = "snap_iter_10" + ending
            self.assert_same_file(self.path("r1", file), self.path("r2", file))

    def test_another_seed_is_another_run(self):
        """The comparisons above can fail."""
        losses = []
        for seed in (1701, 1702):
            solver = harness.solver(3, random_seed=seed)
            _, process = self.run_at("s%d" % seed, common.smooth_net(32), solver, "--workers=2")
            losses.append(common.losses_of(process))
        with self.assertRaises(AssertionError):
            common.check_close(self, *losses)


if __name__ == "__main__":
    harness.main()
