# SPDX-License-Identifier: Apache-2.0
"""HDF5: snapshots of both kinds in turn, HDF5Data, HDF5Output; wrong files: an error, never a crash,
never half a file."""

import os
import random
import subprocess
import unittest

from harness import BINARY, NET, SOLVER, TIMEOUT_S, Case, read
from test_weights import limit_files_to, mutated

TOOL = os.path.join(os.path.dirname(BINARY), "tests", "tools", "test_hdf5")
TRAIN = ("train", "--solver=solver.prototxt")
ERROR = "shoal train: error: "
MODEL, STATE = "snap_iter_6.caffemodel", "snap_iter_6.solverstate"
MUTATIONS = 60
HDF5 = SOLVER + "snapshot_format: HDF5\n"

ROWS_NET = """
name: "Rows"
layer {
  name: "rows" type: "HDF5Data" top: "data" top: "label"
  hdf5_data_param { source: "list.txt" batch_size: 6 }
}
layer {
  name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
OUTPUT = """
layer { name: "out" type: "HDF5Output" bottom: "data" bottom: "label"
  hdf5_output_param { file_name: "%s" } }
"""
ROWS_SOLVER = SOLVER.replace("test_iter: 2\ntest_interval: 4\n", "") + "snapshot_format: HDF5\n"


@unittest.skipUnless(os.path.exists(TOOL), "a build without HDF5")
class Hdf5Case(Case):
    def tool(self, *args, numbers=()):
        done = subprocess.run([TOOL, *map(str, args)], cwd=self.folder, check=True,
                              timeout=TIMEOUT_S, stdout=subprocess.PIPE,
                              input=" ".join(map(str, numbers)).encode())
        return done.stdout.decode().split("\n")[:-1]

    def run_with_mutant(self, *args):
        """libhdf5 believes sizes that a damaged file says, and copes when malloc refuses them."""
        options = os.environ.get("ASAN_OPTIONS", "") + ":allocator_may_return_null=1"
        return self.run_shoal(*args, env={"ASAN_OPTIONS": options})

    def make(self, file, name, shape, values, kind="f4", chunk=0):
        self.tool("make", file, name, kind, chunk, *shape, numbers=values)

    def show(self, file, name):
        """Shape and values."""
        shape, *values = self.tool("show", file, name)
        return tuple(map(int, shape.split())), [float(v) for v in values]


class Snapshots(Hdf5Case):
    def setUp(self):
        super().setUp()
        self.small()
        self.succeeds(*TRAIN)  # the unbroken run, in Caffe's binary files
        self.whole = {name: read(self.path(name)) for name in (MODEL, STATE)}
        self.write("hdf5.prototxt", HDF5)

    def forget(self):
        for name in self.files():
            if name.startswith("snap"):
                os.unlink(self.path(name))

    def check_whole(self):
        for name, content in self.whole.items():
            self.assertEqual(read(self.path(name)), content, name)

    def test_go_on(self):
        for flags in ((), ("--workers=2",)):
            with self.subTest(flags):
                self.succeeds(*TRAIN, *flags)
                self.whole = {name: read(self.path(name)) for name in (MODEL, STATE)}
                self.forget()
                self.succeeds("train", "--solver=hdf5.prototxt", *flags)
                self.assertEqual([name for name in self.files() if name.startswith("snap")],
                                 ["snap_iter_%d.%s.h5" % (i, kind) for i in (4, 6)
                                  for kind in ("caffemodel", "solverstate")])
                self.succeeds(*TRAIN, *flags, "--resume=snap_iter_4.solverstate.h5")
                self.check_whole()

    def test_from_a_binary_one(self):
        self.succeeds("train", "--solver=hdf5.prototxt", "--resume=snap_iter_4.solverstate")
        self.succeeds("test", "--model=net.prototxt", "--weights=" + MODEL + ".h5")
        # 6 of 6 iterations are done: what is loaded is saved again.
        self.succeeds(*TRAIN, "--resume=" + STATE + ".h5")
        self.check_whole()

    def test_layout(self):
        self.succeeds("train", "--solver=hdf5.prototxt")
        self.assertEqual(self.tool("list", STATE + ".h5"),
                         ["current_step"] + ["history/%d" % i for i in range(4)] +
                         ["iter", "learned_net"])
        self.assertEqual(self.show(STATE + ".h5", "iter"), ((1,), [6]))
        self.assertEqual(self.tool("list", MODEL + ".h5"),
                         ["data/ip%d/%d" % (i, j) for i in (1, 2) for j in (0, 1)])
        self.assertEqual(self.show(MODEL + ".h5", "data/ip1/0")[0], (12, 36))

    def test_differences_are_stored_too(self):
        self.write("hdf5.prototxt", HDF5 + "snapshot_diff: true\n")
        self.succeeds("train", "--solver=hdf5.prototxt")
        self.assertEqual([n for n in self.tool("list", MODEL + ".h5") if n.startswith("diff")],
                         ["diff/ip%d/%d" % (i, j) for i in (1, 2) for j in (0, 1)])

    def test_the_newest_of_either_kind(self):
        """Whose weights are refused says which one was taken."""
        self.succeeds("train", "--solver=hdf5.prototxt")
        self.write("net.prototxt", NET.replace("num_output: 12", "num_output: 11"))
        for solver, gone, found in (("solver", (), MODEL), ("hdf5", (), MODEL + ".h5"),
                                    ("solver", (STATE,), MODEL + ".h5"),
                                    ("hdf5", (STATE + ".h5",), "snap_iter_4.caffemodel.h5")):
            with self.subTest((solver, gone)):
                for name in gone:
                    os.unlink(self.path(name))
                self.fails_before_training(
                    ("train", "--solver=%s.prototxt" % solver, "--resume", "--workers=2",
                     "--listen=127.0.0.1:0"), ERROR + found + ": layer 'ip1'")

    def test_same_tests(self):
        self.succeeds("train", "--solver=hdf5.prototxt")
        results = [self.succeeds("test", "--model=net.prototxt", "--weights=" + MODEL + ending,
                                 "--iterations=3").out for ending in ("", ".h5")]
        results = [[line for line in text.split("\n") if "=" in line] for text in results]
        self.assertTrue(results[0])
        self.assertEqual(*results)

    def test_names_that_hdf5_cannot_hold(self):
        self.write("net.prototxt", NET.replace('name: "ip1"', 'name: "fc/1"'))
        self.fails_before_training(("train", "--solver=hdf5.prototxt"), "cannot store layer 'fc/1'")

    def test_full_disk(self):
        self.succeeds("train", "--solver=hdf5.prototxt")
        names = [name for name in self.files() if name.endswith(".h5")]
        before = {name: read(self.path(name)) for name in names}
        self.write("hdf5.prototxt", HDF5.replace("base_lr: 0.05", "base_lr: 0.01"))
        for flags in ((), ("--workers=2",)):
            with self.subTest(flags):
                files = self.files()
                self.fails(("train", "--solver=hdf5.prototxt") + flags,
                           "snap_iter_4.caffemodel.h5: cannot write",
                           "File too large; an older file of that name is unchanged",
                           preexec=limit_files_to(1000))
                self.assertEqual(self.files(), files)
                for name, content in before.items():
                    self.assertEqual(read(self.path(name)), content, name)

    # ---- what is no snapshot ----

    def refused(self, flag, *expected):
        return self.fails_before_training(TRAIN + (flag,), ERROR, *expected)

    def test_wrong_files(self):
        self.succeeds("train", "--solver=hdf5.prototxt")
        model, state = MODEL + ".h5", STATE + ".h5"
        self.refused("--weights=nowhere.h5", "nowhere.h5: cannot open: No such file or directory")
        os.mkdir(self.path("folder.h5"))
        self.refused("--weights=folder.h5", "folder.h5: not a regular file")
        for name, content in (("empty.h5", b""), ("text.h5", b"name: 'LeNet'\n"),
                              ("binary.h5", self.whole[MODEL])):
            self.write(name, content)
            for flag in ("--weights=", "--snapshot=", "--resume="):
                self.refused(flag + name, name + ": not an HDF5 file")
        self.write("cut.h5", read(self.path(model))[:-1000])
        self.refused("--weights=cut.h5", "cut.h5: a damaged HDF5 file; is it cut off?")
        self.refused("--weights=" + state, state + ": no group 'data' in it")
        self.refused("--snapshot=" + model, model + ": no dataset 'iter' in it")
        os.rename(self.path(model), self.path("unnamed"))
        self.refused("--weights=unnamed", "it is an HDF5 file, whose name must end in .h5")
        self.refused("--snapshot=" + state, "learned_net", model + ": cannot open")

    def test_wrong_layers(self):
        def refused(*expected):
            self.refused("--weights=x.h5", "x.h5: ", *expected)
            os.unlink(self.path("x.h5"))

        self.make("x.h5", "data", (2,), (1, 2))
        refused("'data'")
        self.tool("make", "x.h5", "data/ip1/0", "f4", 0, 12, 35, numbers=range(12 * 35))
        refused("layer 'ip1'")
        self.make("x.h5", "data/ip1/0", (12, 36), range(12 * 36))
        refused("layer 'ip1': the file has 1 weight blobs, the net needs 2")
        self.make("x.h5", "data/ip1/weights", (12, 36), range(12 * 36))
        refused("layer 'ip1'", "named 0, 1")
        self.make("x.h5", "data/other/0", (2,), (1, 2))
        refused("holds no weights for any layer of this net")

    def test_mutations(self):
        self.succeeds("train", "--solver=hdf5.prototxt")
        whole, seen = read(self.path(MODEL + ".h5")), set()
        for seed in range(MUTATIONS):
            self.write("mutant.h5", mutated(whole, random.Random(seed)))
            with self.subTest(seed):
                result = self.run_with_mutant("test", "--model=net.prototxt",
                                              "--weights=mutant.h5", "--iterations=1",
                                              "--threads=1")
                self.assertIn(result.code, (0, 1), str(result))
                if result.code:
                    self.assertEqual(result.err.count("\n"), 1, str(result))
                    self.assertIn("mutant.h5: ", result.err, str(result))
                seen.add(result.code)
        self.assertEqual(seen, {0, 1})


class Rows(Hdf5Case):
    """Two files of 5 and 8 rows: data[r][c] = r + c / 8, label r % 3."""

    COLUMNS, ROWS = 4, 13

    def setUp(self):
        super().setUp()
        self.write("net.prototxt", ROWS_NET)
        self.write("solver.prototxt", ROWS_SOLVER)
        self.write("list.txt", "a.h5\nb.h5\n")
        self.rows("a.h5", 0, 5)
        self.rows("b.h5", 5, self.ROWS, "f8", "u1", 3)

    def value(self, row, column):
        return row + column / 8

    def rows(self, file, first, end, kind="f4", label_kind="i4", chunk=0):
        self.make(file, "data", (end - first, self.COLUMNS, 1),
                  [self.value(r, c) for r in range(first, end) for c in range(self.COLUMNS)], kind,
                  chunk)
        self.make(file, "label", (end - first,), [r % 3 for r in range(first, end)], label_kind,
                  chunk)

    def test_in_their_order(self):
        """The output is what came in: batch after batch, from the last row to the first again."""
        self.write("net.prototxt", ROWS_NET + OUTPUT % "out.h5")
        self.write("weights.prototxt", ROWS_NET)
        self.write("w.prototxt", ROWS_SOLVER.replace("net.prototxt", "weights.prototxt"))
        self.succeeds("train", "--solver=w.prototxt")
        self.succeeds("test", "--model=net.prototxt", "--weights=" + MODEL + ".h5",
                      "--iterations=5")
        rows = [i % self.ROWS for i in range(5 * 6)]
        self.assertEqual(self.show("out.h5", "data"),
                         ((30, self.COLUMNS, 1, 1),
                          [self.value(r, c) for r in rows for c in range(self.COLUMNS)]))
        self.assertEqual(self.show("out.h5", "label"), ((30, 1, 1, 1), [r % 3 for r in rows]))

    def test_clusters_read_the_same(self):
        weights = []
        for flags in ((), ("--workers=2",)):
            self.succeeds(*TRAIN, *flags)
            weights.append(self.show(MODEL + ".h5", "data/ip/0")[1])
        for a, b in zip(*weights):
            self.assertAlmostEqual(a, b, delta=1e-5 * max(1, abs(a)))

    def test_output_on_workers(self):
        self.write("net.prototxt", ROWS_NET + OUTPUT % "out.h5")
        self.fails_before_training(TRAIN + ("--workers=2",), "layer 'out'", "run it in one process")

    def test_output_cannot_be_written(self):
        self.write("net.prototxt", ROWS_NET + OUTPUT % "nowhere/out.h5")
        self.fails(TRAIN, "layer 'out'", "nowhere/out.h5: cannot create")

    # ---- what is no dataset ----

    def refused(self, *expected):
        self.fails_before_training(TRAIN, ERROR, "list.txt", *expected)

    def test_wrong_lists(self):
        for content, expected in ((b"", "0 names"), (b"\n \n", "0 names"), (b"a\0b", "not a text"),
                                  (b"gone.h5\n", "gone.h5: cannot open"),
                                  (b"list.txt\n", "list.txt: not an HDF5 file")):
            with self.subTest(content):
                self.write("list.txt", content)
                self.refused(expected)
        os.unlink(self.path("list.txt"))
        self.refused("cannot open")

    def test_wrong_files(self):
        def refused(file, *expected):
            self.write("list.txt", "a.h5\n" + file)
            self.refused(file, *expected)

        self.make("lacks.h5", "data", (2, self.COLUMNS, 1), range(8))
        refused("lacks.h5", "no dataset 'label' in it")
        self.make("uneven.h5", "data", (2, self.COLUMNS, 1), range(8))
        self.make("uneven.h5", "label", (3,), range(3))
        refused("uneven.h5", "dataset 'label' has 3 rows, 'data' 2")
        self.make("other.h5", "data", (2, 1, self.COLUMNS), range(8))
        self.make("other.h5", "label", (2,), range(2))
        refused("other.h5", "another shape than those of a.h5")
        self.make("scalar.h5", "data", (), (1,))
        refused("scalar.h5", "has no axis, so no rows")
        self.write("cut.h5", read(self.path("a.h5"))[:-20])
        refused("cut.h5", "damaged")
        self.make("none.h5", "data", (0, self.COLUMNS, 1), ())
        self.make("none.h5", "label", (0,), ())
        self.write("list.txt", "none.h5\n")
        self.refused("the files have no rows")

    def test_mutations(self):
        whole = read(self.path("b.h5"))
        for seed in range(MUTATIONS):
            self.write("b.h5", mutated(whole, random.Random(seed)))
            with self.subTest(seed):
                result = self.run_with_mutant(*TRAIN, "--threads=1")
                self.assertIn(result.code, (0, 1), str(result))
                self.assertLessEqual(result.err.count("\n"), 1, str(result))


if __name__ == "__main__":
    unittest.main()
