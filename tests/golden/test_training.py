# SPDX-License-Identifier: Apache-2.0
"""From Caffe's initial weights and the same data: losses, rates, test outputs, gradients, updates,
weights and solver states as real Caffe's; in one process and on clusters, at every kernel level."""
import os
import shutil
import struct

import golden
import harness

WORKERS = (3,) if golden.BRIEF else (1, 2, 3, 4, 7)
SWITCHES_MAX = 4  # of a run; a few among some 10^7 choices are rounding


class Training:
    """The tests of one case in one process, under each set of flags in PLANS; the derived classes
    say which case."""

    slow = False
    zeros = {}  # see golden.check_saved

    def setUp(self):
        super().setUp()
        self.bound = golden.limit(self.batch, self.pixels)
        self.file = "after_iter_%d" % self.iterations

    def run_solver(self, folder, *flags, solver="solver.prototxt"):
        where = golden.prepare(self, self.name, folder)
        process = self.train(
            "--solver=" + solver, "--weights=init.caffemodel", *flags, folder=where
        )
        return where, process

    def check_file(self, where, file, kind):
        return golden.check_saved(
            golden.reference(self.name, file),
            os.path.join(where, file),
            self.bound,
            kind,
            self.zeros,
        )

    def check_run(self, where, process, start=0):
        golden.check_losses(golden.losses(self.name), process, self.bound, start)
        golden.check_log(golden.log_lines(self.name), process, self.bound, start)
        worst = self.check_file(where, self.file + ".caffemodel", "data")
        return max(worst, self.check_file(where, self.file + ".solverstate", "state"))

    def check_strictly(self, folder, *flags):
        where, process = self.run_solver(folder, *flags)
        worst = self.check_run(where, process)
        print("%s: error %.2g, limit %.2g" % (" ".join(flags), worst, self.bound))
        return where

    # ---- one process ----

    def levels_and_threads(self, plan):
        """The reference level knows no fused layers."""
        return [
            (level, threads)
            for level in self.levels()
            if level != "c" or (plan == golden.PLANS[0] and not (golden.BRIEF and self.slow))
            for threads in ((3,) if golden.BRIEF or (self.slow and level == "c") else (1, 2, 3))
        ]

    def test_one_process(self):
        """As Caffe's, and the same to the bit for any number of threads."""
        for n, plan in enumerate(golden.PLANS):
            first = {}
            for level, threads in self.levels_and_threads(plan):
                with self.subTest(plan=plan, level=level, threads=threads):
                    flags = plan + ("--cpu=" + level, "--threads=%d" % threads)
                    place = self.check_strictly("%d-%s-%d" % (n, level, threads), *flags)
                    first.setdefault(level, place)
                    for ending in (".caffemodel", ".solverstate"):
                        self.assert_same_file(
                            os.path.join(first[level], self.file + ending),
                            os.path.join(place, self.file + ending),
                        )

    def gradient_flags(self):
        return [plan + ("--cpu=" + level,) for plan in golden.PLANS for level in self.levels()]

    def test_gradient(self):
        if not os.path.exists(golden.reference(self.name, "grad_iter_1.caffemodel")):
            self.skipTest("the case has none")
        for i, flags in enumerate(self.gradient_flags()):
            with self.subTest(flags=flags):
                where, _ = self.run_solver("g%d" % i, *flags, solver="solver_grad.prototxt")
                error = self.check_file(where, "grad_iter_1.caffemodel", "diff")
                print("%s: gradient %.2g, limit %.2g" % (" ".join(flags), error, self.bound))

    def update_flags(self):
        return list(golden.PLANS)

    def test_last_update(self):
        file = "after_diff_iter_%d.caffemodel" % self.iterations
        if not os.path.exists(golden.reference(self.name, file)):
            self.skipTest("the case has none")
        for i, flags in enumerate(self.update_flags()):
            with self.subTest(flags=flags):
                where, _ = self.run_solver("d%d" % i, *flags, solver="solver_diff.prototxt")
                self.check_file(where, file, "diff")
                self.check_file(where, file, "data")


class Clusters:
    """A case whose numbers do not depend on how its batch is shared out."""

    workers = WORKERS
    kind = "data"  # see golden.check_switch

    def straight(self):
        """Flags of the run that parts are compared with; none: the level of the parts."""
        return []

    def check_or_switch(self, folder, *flags):
        where, process = self.run_solver(folder, *flags)
        try:
            worst = self.check_run(where, process)
        except AssertionError:
            switches = self.check_parts(folder, flags)
            print("%s: switched: %s" % (" ".join(flags), "; ".join(switches)))
        else:
            print("%s: error %.2g, limit %.2g" % (" ".join(flags), worst, self.bound))
        return where

    def run_each(self, folder, flags, states=()):
        """A run with a snapshot after each iteration, from a copy of these files of another run;
        returns folder, process, and the name of the snapshot of an iteration."""
        where = golden.prepare(self, self.name, folder)
        for file in states:
            shutil.copy(file, where)
        text = harness.read_text(os.path.join(where, "solver.prototxt"))
        with open(os.path.join(where, "each.prototxt"), "w") as f:
            f.write(text + "snapshot: 1\n")
        process = self.train("--solver=each.prototxt", *flags, folder=where)
        return where, process, lambda i: os.path.join(where, "after_iter_%d.caffemodel" % i)

    def check_parts(self, folder, flags):
        """The run in parts: where it parts from the one of a single process by a switch, and only
        by that, it goes on from the state of the single one. Returns the switches."""
        cpu = self.straight() or [flag for flag in flags if flag.startswith("--cpu=")]
        begin, states = "--weights=init.caffemodel", []
        where, process, straight = self.run_each(folder + "-one", [begin] + cpu)
        self.check_run(where, process)
        start, switches = 0, []
        while len(switches) <= SWITCHES_MAX:
            part = "%s-from%d" % (folder, start)
            where, process, snapshot = self.run_each(part, (begin,) + flags, states)
            try:
                self.check_run(where, process, start)
                return switches
            except AssertionError as error:
                try:
                    start, what = golden.check_switch(
                        straight,
                        snapshot,
                        self.layers,
                        self.bound,
                        start + 1,
                        self.iterations,
                        self.kind,
                    )
                except AssertionError as reason:
                    self.fail("%s; and that is no switch: %s" % (error, reason))
            switches.append(what)
            states = [straight(start), straight(start).replace(".caffemodel", ".solverstate")]
            begin = "--resume=" + os.path.basename(states[1])
        self.fail("switches at every turn: %s" % switches)

    def test_clusters(self):
        for n, plan in enumerate(golden.PLANS):
            for workers in self.workers if n == 0 else (3,):
                with self.subTest(plan=plan, workers=workers):
                    flags = plan + ("--workers=%d" % workers, "--check_interval=1")
                    self.check_or_switch("%d-w%d" % (n, workers), *flags)

    def test_cluster_levels(self):
        for n, plan in enumerate(golden.PLANS):
            for level in self.levels():
                if level == "c" and (self.slow or n > 0):
                    continue
                with self.subTest(plan=plan, level=level):
                    flags = plan + ("--workers=2", "--cpu=" + level, "--threads=2")
                    self.check_or_switch("%d-w2-%s" % (n, level), *flags)

    def gradient_flags(self):
        return super().gradient_flags() + [("--workers=%d" % n,) for n in self.workers]

    def update_flags(self):
        return super().update_flags() + [("--workers=3",)]


class Failures:
    """The comparison can fail."""

    def test_a_changed_weight_is_seen(self):
        where = golden.prepare(self, self.name)
        path = os.path.join(where, "init.caffemodel")
        weight = harness.Saved(path).blobs["conv2[0]"].data
        data = harness.read_bytes(path)
        at = data.index(weight.tobytes()) + 4 * (len(weight) // 2)
        (value,) = struct.unpack_from("<f", data, at)
        with open(path, "wb") as f:
            f.write(data[:at] + struct.pack("<f", value + 0.01) + data[at + 4 :])
        process = self.train("--solver=solver.prototxt", "--weights=init.caffemodel", folder=where)
        with self.assertRaises(AssertionError):
            golden.check_losses(golden.losses(self.name), process, self.bound)
        with self.assertRaises(AssertionError):
            self.check_file(where, self.file + ".caffemodel", "data")
        with self.assertRaises(AssertionError):
            self.check_file(where, self.file + ".solverstate", "state")

    def test_wrong_expectations_are_seen(self):
        where, process = self.run_solver("run")
        wrong = golden.losses(self.name)
        wrong[-1] += 1e-4
        with self.assertRaises(AssertionError):
            golden.check_losses(wrong, process, self.bound)
        with self.assertRaises(AssertionError):
            golden.check_losses(golden.losses(self.name)[:-1], process, self.bound)
        rates, final, tests = golden.log_lines(self.name)
        moved = dict(tests)
        moved[max(moved)] += 1e-4
        with self.assertRaises(AssertionError):
            golden.check_log((rates, final, moved), process, self.bound)
        other = dict(rates)
        other[3] = "0.0123"
        with self.assertRaises(AssertionError):
            golden.check_log((other, final, tests), process, self.bound)

    def test_another_structure_is_seen(self):
        where, _ = self.run_solver("run")
        file = self.file + ".caffemodel"
        reference = golden.reference(self.name, file)
        with self.assertRaises(AssertionError):  # the weights before the training
            golden.check_saved(reference, os.path.join(where, "init.caffemodel"), self.bound)
        path = os.path.join(where, file)
        data = harness.read_bytes(path)
        for old, new in ((b"conv1", b"conv7"), (b"xavier", b"yavier")):
            with open(path, "wb") as f:
                f.write(data.replace(old, new))
            with self.assertRaises(AssertionError):
                golden.check_saved(reference, path, self.bound)

    def test_a_wrong_rule_is_no_switch(self):
        """Another momentum must not pass as one."""
        _, _, right = self.run_each("right", ["--weights=init.caffemodel"])
        where = golden.prepare(self, self.name, "wrong")
        text = harness.read_text(os.path.join(where, "solver.prototxt"))
        with open(os.path.join(where, "each.prototxt"), "w") as f:
            f.write(text.replace("momentum: 0.9", "momentum: 0.901") + "snapshot: 1\n")
        self.train("--solver=each.prototxt", "--weights=init.caffemodel", folder=where)
        with self.assertRaises(AssertionError):
            golden.check_switch(
                right,
                lambda i: os.path.join(where, "after_iter_%d.caffemodel" % i),
                self.layers,
                self.bound,
                1,
                self.iterations,
            )


class LenetCase(Failures, Clusters, Training):
    layers = ("ip2", "ip1", "conv2", "conv1")


class Lenet(LenetCase, harness.Case):
    name, iterations, batch, pixels = "01-lenet-sgd", 20, 32, 24 * 24


class LargerLenet(LenetCase, harness.Case):
    name, iterations, batch, pixels, slow = "11-lenet-larger", 40, 64, 24 * 24, True


class LenetL1(LenetCase, harness.Case):
    name, iterations, batch, pixels = "02-lenet-sgd-l1", 20, 32, 24 * 24


class LenetNesterov(LenetCase, harness.Case):
    name, iterations, batch, pixels = "02-lenet-nesterov", 20, 32, 24 * 24


class Adaptive(Clusters, Training):
    """The types with a rate for each weight."""

    workers = (3,) if golden.BRIEF else (1, 3)
    layers = LenetCase.layers


class LenetAdaGrad(Adaptive, harness.Case):
    name, iterations, batch, pixels = "02-lenet-adagrad", 20, 32, 24 * 24


class LenetRmsProp(Adaptive, harness.Case):
    name, iterations, batch, pixels = "02-lenet-rmsprop", 20, 32, 24 * 24


class LenetAdaDelta(Adaptive, harness.Case):
    name, iterations, batch, pixels = "02-lenet-adadelta", 20, 32, 24 * 24


class LenetAdam(Adaptive, harness.Case):
    """Fused at the highest level, a ReLU or a MAX window switches in the last iterations."""

    name, iterations, batch, pixels = "02-lenet-adam", 20, 32, 24 * 24

    def straight(self):
        return ["--plan=plain", "--cpu=" + self.levels()[-1]]

    def check_strictly(self, folder, *flags):
        if golden.PLANS[0][0] in flags:
            return super().check_strictly(folder, *flags)
        return self.check_or_switch(folder, *flags)


class LenetAdamStep(Adaptive, harness.Case):
    name, iterations, batch, pixels = "02-lenet-adam-step", 20, 32, 24 * 24


class Alexnet(Clusters, Training, harness.Case):
    name, iterations, batch, pixels, slow = "06-alexnet", 20, 16, 31 * 31, True
    workers = (2, 3)
    layers = ("fc7", "fc6b", "fc6a", "conv4", "conv3", "conv2", "conv1")
    kind = "state"

    def straight(self):
        return ["--cpu=" + self.levels()[-1]]

    def check_strictly(self, folder, *flags):
        """The reference sums in double: at iteration 17 a MAX window of pool1 picks another one."""
        if self.straight()[0] in flags:
            return super().check_strictly(folder, *flags)
        return self.check_or_switch(folder, *flags)


class AlexnetWithin(Alexnet):
    name = "06-alexnet-lrn-within"


class Windows(Clusters, Training, harness.Case):
    name, iterations, batch, pixels = "06-pooling", 10, 8, 31 * 31
    workers = (3,)
    layers = ()  # nothing switches


class BatchNorm(Training):
    """Caffe's numbers in one process only: in a cluster every worker normalises by its share."""


class Resnet(BatchNorm, harness.Case):
    name, iterations, batch, pixels = "04-resnet", 20, 8, 16 * 16


class ResnetClusters(harness.Case):
    """The cases with BatchNorm on clusters. Each worker normalises by the statistics of its share, so the losses are
    not those of the whole batch, but they are known."""

    def setUp(self):
        super().setUp()
        self.bound = golden.limit(8, 16 * 16)

    def run_workers(self, workers, *flags, solver="solver.prototxt", name="04-resnet"):
        """--check_interval=1: replicas that differ in a bit, statistics included, end the run."""
        where = golden.prepare(self, name, "-".join((name, "w%d" % workers, solver) + flags))
        process = self.train(
            "--solver=" + solver,
            "--weights=init.caffemodel",
            "--workers=%d" % workers,
            "--check_interval=1",
            *flags,
            folder=where
        )
        return where, process

    def test_two_workers_are_two_sub_batches(self):
        """Two shares of 4 are two sub-batches of 4 (case 04-resnet-itersize2, from the same
        weights): the same losses and weights. Only the running statistics differ: there the
        sub-batches move them one after the other."""
        want = golden.reference("04-resnet-itersize2", "after_iter_20.caffemodel")
        for n, plan in enumerate(golden.PLANS):
            for level in self.levels():
                with self.subTest(plan=plan, level=level):
                    where, process = self.run_workers(2, *plan, "--cpu=" + level)
                    golden.check_losses(golden.losses("04-resnet-itersize2"), process, self.bound)
                    a = harness.Saved(want)
                    b = harness.Saved(os.path.join(where, "after_iter_20.caffemodel"))
                    learning = [name for name in a.blobs if not name.startswith("bn_")]
                    self.assertEqual(len(learning), 6 + 2 * 6 + 2)
                    for name in learning:
                        x, y = a.blobs[name].data, b.blobs[name].data
                        error = harness.blob_error(x, y, golden.FLOORS["data"])
                        self.assertLessEqual(error, self.bound, name)

    def test_statistics_over_parts(self):
        """bn_stats_batch_size: 4 cuts the batch of 8 into the sub-batches of case
        04-resnet-itersize2, in one process and on any number of workers. On workers only the sums
        of BatchNorm differ: those of each worker move once per part that it has."""
        want = harness.Saved(golden.reference("04-resnet-itersize2", "after_iter_20.caffemodel"))
        for n, flags in enumerate([plan + more for plan in golden.PLANS
                                   for more in ((), ("--workers=2",), ("--workers=3",))]):
            with self.subTest(flags=flags):
                where = golden.prepare(self, "04-resnet", "s%d" % n)
                text = harness.read_text(os.path.join(where, "net.prototxt"))
                with open(os.path.join(where, "net.prototxt"), "w") as f:
                    f.write("bn_stats_batch_size: 4\n" + text)
                process = self.train("--solver=solver.prototxt", "--weights=init.caffemodel",
                                     "--check_interval=1", *flags, folder=where)
                golden.check_losses(golden.losses("04-resnet-itersize2"), process, self.bound)
                got = harness.Saved(os.path.join(where, "after_iter_20.caffemodel"))
                names = [b for b in want.blobs if len(flags) == 1 or not b.startswith("bn_")]
                self.assertGreaterEqual(len(names), 20)
                for name in names:
                    x, y = want.blobs[name].data, got.blobs[name].data
                    error = harness.blob_error(x, y, golden.FLOORS["data"])
                    self.assertLessEqual(error, self.bound, name)

    def test_statistics_are_averaged(self):
        """After one iteration the stored mean of the first BatchNorm, which sees the same values as
        in one process, is that of the whole batch, however uneven the shares."""
        want = harness.Saved(golden.reference("04-resnet", "grad_iter_1.caffemodel"))
        for workers in (1, 2, 3, 5, 7):
            with self.subTest(workers=workers):
                where, _ = self.run_workers(workers, solver="solver_grad.prototxt")
                got = harness.Saved(os.path.join(where, "grad_iter_1.caffemodel"))
                for name in ("bn_conv1[0]", "bn_conv1[2]"):
                    x, y = want.blobs[name].data, got.blobs[name].data
                    error = harness.blob_error(x, y, golden.FLOORS["data"])
                    self.assertLessEqual(error, self.bound, name)

    def test_tests_that_move_statistics(self):
        """use_global_stats: false in phase TEST: a test batch moves the sums of the worker that has
        it. The others take them over, so the sum of weights ([2]: it counts the moves) is that of
        one process."""
        weights = []
        for flags in ((), ("--workers=3", "--check_interval=1")):
            where = golden.prepare(self, "04-resnet", "t%d" % len(flags))
            for file, old, new in (
                ("net.prototxt", "use_global_stats: true", "use_global_stats: false"),
                ("solver.prototxt", "test_iter: 4", "test_iter: 1"),
            ):
                text = harness.read_text(os.path.join(where, file))
                self.assertIn(old, text)
                with open(os.path.join(where, file), "w") as f:
                    f.write(text.replace(old, new))
            self.train("--solver=solver.prototxt", "--weights=init.caffemodel", *flags, folder=where)
            saved = harness.Saved(os.path.join(where, "after_iter_20.caffemodel"))
            weights.append(saved.blobs["bn_conv1[2]"].data[0])
        self.assertAlmostEqual(weights[0], weights[1], delta=self.bound * weights[0])

    def test_three_workers_are_close(self):
        """A channel's mean over m of b images is off by s * sqrt(1/m - 1/b), s the spread of single
        images' means; with m = 3 of b = 8 and s about a third of the channel's whole spread that is
        0.15 of what the values are divided by. The logits that follow are about 1 in size, so the
        loss may move by as much, and by more where weights have already gone other ways: 0.3 at
        any time and 0.1 on the average are allowed. Seen are 0.17 and 0.06, and with sub-batches of
        4 0.22 and 0.07. Shares that were left out or counted twice would move it by whole units
        within some iterations."""
        for name in ("04-resnet", "04-resnet-clip", "04-resnet-itersize2",
                     "04-resnet-itersize2-clip", "05-mobilenet"):
            for plan in golden.PLANS:
                with self.subTest(name=name, plan=plan):
                    _, process = self.run_workers(3, *plan, name=name)
                    want = golden.losses(name)
                    moved = [abs(e["loss"] - w) for e, w in zip(process.iterations(), want)]
                    self.assertEqual(len(moved), 20)
                    self.assertLess(max(moved), 0.3)
                    self.assertLess(sum(moved) / 20, 0.1)
                    self.assertGreater(max(moved), self.bound)  # it is by share
                    self.assertEqual(len(process.events("test")), 2)


class ResnetClip(Resnet):
    name = "04-resnet-clip"


class ResnetItersize2(Resnet):
    name = "04-resnet-itersize2"


class ResnetItersize2Clip(Resnet):
    name = "04-resnet-itersize2-clip"


class Mobilenet(BatchNorm, harness.Case):
    name, iterations, batch, pixels = "05-mobilenet", 20, 8, 16 * 16
    # A factor before a ReLU, a depthwise or 1x1 convolution and the next BatchNorm cancels out.
    # The factors of the first and third Scale, and their momentum.
    zeros = {
        "scale_conv1[0]": "scale_conv1[1]",
        "scale_pw2[0]": "scale_pw2[1]",
        "history[4]": "history[5]",
        "history[16]": "history[17]",
    }


if __name__ == "__main__":
    harness.main(needs_goldens=True)
