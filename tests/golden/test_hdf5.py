# SPDX-License-Identifier: Apache-2.0
"""HDF5Data, HDF5Output and snapshots in HDF5 against real Caffe. The files in hdf5/ are of BVLC Caffe
9b8915401 (CPU, OpenBLAS with one thread): o_iter_6.* of `caffe train -solver solver.prototxt -weights
init.caffemodel`, on_iter_12.* of that solver with snapshot_format: BINARYPROTO and -snapshot
o_iter_6.solverstate.h5; losses.txt is what both printed, with_diffs.txt the datasets of o_iter_6 with
snapshot_diff: true, written.h5 of `caffe test -model out.prototxt -weights init.caffemodel -iterations
1`. init.caffemodel is Caffe's own beginning (max_iter: 0), a.h5 and b.h5 are random rows. Three layers
of the net share weights, which HDF5 files hold once."""
import os
import shutil
import subprocess
import sys

import golden
import harness

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hdf5")
LIMIT = 2e-5  # printed losses have 6 digits
MODEL, STATE = "o_iter_6.caffemodel.h5", "o_iter_6.solverstate.h5"
INPUTS = (
    "a.h5",
    "b.h5",
    "list.txt",
    "net.prototxt",
    "solver.prototxt",
    "out.prototxt",
    "init.caffemodel",
)
PROGRAM = os.path.join(os.path.dirname(os.path.abspath(sys.argv[1])), "tests", "tools", "test_hdf5")
FLAGS = ((), ("--plan=plain",), ("--workers=2",))


def tool(*arguments):
    """Lines of a program that reads HDF5 by itself."""
    text = subprocess.run((PROGRAM,) + arguments, check=True, stdout=subprocess.PIPE).stdout
    return text.decode().splitlines()


class Hdf5(harness.Case):
    def prepare(self, name, *more):
        where = self.make(name)
        for file in INPUTS + more:
            shutil.copy(os.path.join(HERE, file), where)
        return where

    def change_solver(self, where, *pairs):
        path = os.path.join(where, "solver.prototxt")
        text = harness.read_text(path)
        for old, new in pairs:
            self.assertIn(old, text)
            text = text.replace(old, new)
        with open(path, "w") as f:
            f.write(text)

    def check_losses(self, process, name):
        lines = harness.read_text(os.path.join(HERE, "losses.txt")).splitlines()
        want = [float(v) for v in next(l for l in lines if l.startswith(name + " ")).split()[1:]]
        got = [e["loss"] for e in process.iterations()]
        got += [e["loss"] for e in process.events("final_loss")]
        self.assertEqual(len(got), len(want))
        for a, b in zip(want, got):
            self.assertLess(abs(a - b), LIMIT * max(1, abs(a)))

    def check_same(self, file, where):
        """One structure, numbers within the limit."""
        want, got = os.path.join(HERE, file), os.path.join(where, file)
        names = tool("list", want)
        self.assertEqual(tool("list", got), names)
        for name in names:
            if name == "learned_net":
                continue
            (shape, *a), (other, *b) = tool("show", want, name), tool("show", got, name)
            self.assertEqual(other, shape, name)
            error = harness.blob_error(list(map(float, a)), list(map(float, b)), 1e-5)
            self.assertLess(error, LIMIT, name)

    def test_from_the_beginning(self):
        for flags in FLAGS:
            with self.subTest(flags=flags):
                where = self.prepare("-".join(("b",) + flags))
                process = self.train(
                    "--solver=solver.prototxt", "--weights=init.caffemodel", *flags, folder=where
                )
                self.check_losses(process, "whole")
                self.check_same(MODEL, where)
                self.check_same(STATE, where)

    def test_go_on_from_caffes(self):
        for flags in FLAGS:
            with self.subTest(flags=flags):
                where = self.prepare("-".join(("g",) + flags), MODEL, STATE)
                self.change_solver(
                    where, ("HDF5", "BINARYPROTO"), ("snapshot: 6\n", ""), ('"o"', '"on"')
                )
                process = self.train(
                    "--solver=solver.prototxt", "--snapshot=" + STATE, *flags, folder=where
                )
                self.check_losses(process, "from_6")
                for file, kind in (
                    ("on_iter_12.caffemodel", "data"),
                    ("on_iter_12.solverstate", "state"),
                ):
                    golden.check_saved(
                        os.path.join(HERE, file), os.path.join(where, file), LIMIT, kind
                    )

    def test_diffs(self):
        where = self.prepare("d")
        self.change_solver(where, ("snapshot: 6\n", "snapshot: 6\nsnapshot_diff: true\n"))
        self.train("--solver=solver.prototxt", "--weights=init.caffemodel", folder=where)
        want = harness.read_text(os.path.join(HERE, "with_diffs.txt")).splitlines()
        self.assertEqual(tool("list", os.path.join(where, MODEL)), want)

    def test_output(self):
        where = self.prepare("o")
        self.run_shoal(
            "test",
            "--model=out.prototxt",
            "--weights=init.caffemodel",
            "--iterations=1",
            folder=where,
        )
        self.check_same("written.h5", where)


if __name__ == "__main__":
    if not os.path.exists(PROGRAM):
        sys.exit(harness.SKIPPED)  # a build without HDF5
    harness.main()
