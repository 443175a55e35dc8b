# SPDX-License-Identifier: Apache-2.0
"""From Caffe's initial weights and the same data: losses, rates, test outputs, gradients, updates,
weights and solver states as real Caffe's; in one process and on clusters, at every kernel level."""
import os
import shutil
import struct

import golden
import harness

WORKERS = (1, 2, 3, 4, 7)
LAYERS = ("ip2", "ip1", "conv2", "conv1")
SWITCHES_MAX = 4  # of a run; a few among some 10^7 choices are rounding


class Training:
    """The tests of one case; the derived classes say which."""

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
            golden.reference(self.name, file), os.path.join(where, file), self.bound, kind
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

    def check_or_switch(self, folder, *flags):
        where, process = self.run_solver(folder, *flags)
        try:
            worst = self.check_run(where, process)
        except AssertionError:
            switches = self.check_parts(folder, flags)
            print("%s: switched: %s" % (" ".join(flags), "; ".join(switches)))
        else:
            print("%s: error %.2g, limit %.2g" % (" ".join(flags), worst, self.bound))

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
        cpu = [flag for flag in flags if flag.startswith("--cpu=")]
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
                        straight, snapshot, LAYERS, self.bound, start + 1, self.iterations
                    )
                except AssertionError as reason:
                    self.fail("%s; and that is no switch: %s" % (error, reason))
            switches.append(what)
            states = [straight(start), straight(start).replace(".caffemodel", ".solverstate")]
            begin = "--resume=" + os.path.basename(states[1])
        self.fail("switches at every turn: %s" % switches)

    # ---- one process ----

    def test_one_process(self):
        for level in self.levels():
            for threads in (3,) if self.slow and level == "c" else (1, 2, 3):
                with self.subTest(level=level, threads=threads):
                    self.check_strictly(
                        "%s-%d" % (level, threads), "--cpu=" + level, "--threads=%d" % threads
                    )

    def test_threads_change_nothing(self):
        for level in self.levels():
            if self.slow and level == "c":
                continue
            places = [
                self.run_solver("%s-%d" % (level, t), "--cpu=" + level, "--threads=%d" % t)[0]
                for t in (1, 2, 3)
            ]
            for ending in (".caffemodel", ".solverstate"):
                for place in places[1:]:
                    self.assert_same_file(
                        os.path.join(places[0], self.file + ending),
                        os.path.join(place, self.file + ending),
                    )

    # ---- clusters ----

    def test_clusters(self):
        for workers in WORKERS:
            with self.subTest(workers=workers):
                self.check_or_switch(
                    "w%d" % workers, "--workers=%d" % workers, "--check_interval=1"
                )

    def test_cluster_levels(self):
        for level in self.levels():
            if self.slow and level == "c":
                continue
            with self.subTest(level=level):
                self.check_or_switch("w2-" + level, "--workers=2", "--cpu=" + level, "--threads=2")

    # ---- the comparison can fail ----

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
                LAYERS,
                self.bound,
                1,
                self.iterations,
            )


class Lenet(Training, harness.Case):
    name, iterations, batch, pixels, slow = "01-lenet-sgd", 20, 32, 24 * 24, False

    def test_gradient(self):
        runs = [("--cpu=" + level,) for level in self.levels()]
        runs += [("--workers=%d" % n,) for n in WORKERS]
        for i, flags in enumerate(runs):
            with self.subTest(flags=flags):
                where, _ = self.run_solver("g%d" % i, *flags, solver="solver_grad.prototxt")
                self.check_file(where, "grad_iter_1.caffemodel", "diff")

    def test_last_update(self):
        for i, flags in enumerate([(), ("--workers=3",)]):
            with self.subTest(flags=flags):
                where, _ = self.run_solver("d%d" % i, *flags, solver="solver_diff.prototxt")
                self.check_file(where, "after_diff_iter_20.caffemodel", "diff")
                self.check_file(where, "after_diff_iter_20.caffemodel", "data")


class LargerLenet(Training, harness.Case):
    name, iterations, batch, pixels, slow = "11-lenet-larger", 40, 64, 24 * 24, True


class LenetL1(Training, harness.Case):
    name, iterations, batch, pixels, slow = "02-lenet-sgd-l1", 20, 32, 24 * 24, False


if __name__ == "__main__":
    harness.main(needs_goldens=True)
