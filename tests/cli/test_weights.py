# SPDX-License-Identifier: Apache-2.0
"""Wrong weights and states, and disks that are full: an error, never a crash, never half a file."""

import os
import random
import re
import resource
import signal
import subprocess
import unittest

from harness import BINARY, NET, SOLVER, TIMEOUT_S, Case, read

TRAIN = ("train", "--solver=solver.prototxt")
ERROR = "shoal train: error: "
MODEL, STATE = "snap_iter_6.caffemodel", "snap_iter_6.solverstate"
MODEL_MUTATIONS, STATE_MUTATIONS = 200, 60


def mutated(content, rng):
    """One to eight damages: flipped bits, other bytes, bytes cut out or put in, a cut end."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        kind = rng.randrange(5)
        at = rng.randrange(len(content)) if content else 0
        if kind == 0 and content:
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and content:
            content[at] = rng.choice((0, 1, 0x7f, 0x80, 0xff, rng.randrange(256)))
        elif kind == 2:
            del content[at:at + rng.choice((1, 2, 5, 100))]
        elif kind == 3:
            content[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 3, 12))))
        elif rng.randrange(4) == 0:
            del content[at:]
    return bytes(content)


class Trained(Case):
    def setUp(self):
        super().setUp()
        self.small()
        self.succeeds(*TRAIN)

    def refused(self, flag, message):
        result = self.fails_before_training(TRAIN + (flag,))
        self.assertEqual(result.err, ERROR + message + "\n")


class Nameless(Case):
    """Layers without a name all have the name "", as in Caffe."""

    def test_no_names(self):
        self.small(net=re.sub(r'name: "[a-z0-9]+" ', "", NET))
        self.fails(TRAIN, "layer '', weight blob 0: the train net has shape 12x36 (432), this net "
                   "10x12 (120)")
        self.write("solver.prototxt", re.sub("test_.*", "", SOLVER))
        for flags in ((), ("--workers=2",)):
            self.succeeds(*TRAIN, *flags)
        self.succeeds("time", "--model=net.prototxt", "--iterations=1", "--threads=1")
        self.fails(TRAIN + ("--weights=" + MODEL,), "layer '': the file has 2 weight blobs, the net "
                   "needs 0")

    def test_one(self):
        self.small(net=NET.replace('name: "ip2" ', ""))
        self.succeeds(*TRAIN)
        whole = read(self.path(MODEL))
        self.succeeds(*TRAIN, "--snapshot=snap_iter_4.solverstate")
        self.succeeds(*TRAIN, "--resume=snap_iter_4.solverstate")
        self.assertEqual(read(self.path(MODEL)), whole)


class BadWeights(Trained):
    def test_missing(self):
        self.refused("--weights=nowhere", "nowhere: cannot open: No such file or directory")

    def test_empty_name(self):
        for value in ("", "," + MODEL, MODEL + ","):
            self.fails_before_training(TRAIN + ("--weights=" + value,),
                                       "the name of a weights file is empty", code=2)

    def test_not_a_file(self):
        for name in ("lmdb", "/dev/null"):
            self.refused("--weights=" + name,
                         name + ": not a regular file; give the name of a file")

    def test_text(self):
        self.write("text", "name: \"LeNet\"\n")
        self.fails_before_training(TRAIN + ("--weights=text",), "text: not a NetParameter",
                                   "it looks like text, expected a binary file")

    def test_cut(self):
        self.write("cut", read(self.path(MODEL))[:-100])
        self.fails_before_training(TRAIN + ("--weights=cut",), "cut: not a NetParameter",
                                   "is it cut off or damaged?")

    def test_nothing_in_it(self):
        self.write("empty", b"")
        self.refused("--weights=empty", "empty: holds no weights for any layer of this net (0 "
                     "layers in the file); weights go by the names of layers")

    def test_of_other_layers(self):
        self.write("net.prototxt", NET.replace('name: "ip', 'name: "other'))
        self.fails_before_training(TRAIN + ("--weights=" + MODEL,),
                                   MODEL + ": holds no weights for any layer of this net")

    def test_other_shape(self):
        self.write("net.prototxt", NET.replace("num_output: 12", "num_output: 11"))
        self.refused("--weights=" + MODEL,
                     MODEL + ": layer 'ip1', weight blob 0: the file has shape 12x36 (432), the "
                     "net needs 11x36 (396); rename the layer if it is to be trained from scratch")

    def test_other_number(self):
        self.write("net.prototxt", NET.replace("num_output: 12", "num_output: 12 bias_term: false"))
        self.refused("--weights=" + MODEL,
                     MODEL + ": layer 'ip1': the file has 2 weight blobs, the net needs 1")

    def test_in_a_cluster_too(self):
        self.write("net.prototxt", NET.replace("num_output: 12", "num_output: 11"))
        self.fails_before_training(TRAIN + ("--weights=" + MODEL, "--workers=2"),
                                   "weight blob 0: the file has shape 12x36 (432)")

    def test_a_coordinator_does_not_wait_with_weights_that_fit_nobody(self):
        self.write("net.prototxt", NET.replace("num_output: 12", "num_output: 11"))
        wrong = MODEL + ": layer 'ip1', weight blob 0: the file has shape 12x36 (432)"
        self.fails_before_training(
            TRAIN + ("--weights=" + MODEL, "--workers=2", "--listen=127.0.0.1:0"), wrong)

    def test_state_as_weights(self):
        self.fails_before_training(TRAIN + ("--weights=" + STATE,), STATE + ": not a NetParameter")

    def test_mutations(self):
        whole = read(self.path(MODEL))
        seen = set()
        for seed in range(MODEL_MUTATIONS):
            self.write("mutant", mutated(whole, random.Random(seed)))
            with self.subTest(seed):
                result = self.run_shoal("test", "--model=net.prototxt", "--weights=mutant",
                                        "--iterations=1", "--threads=1")
                self.assertIn(result.code, (0, 1), str(result))
                if result.code:
                    self.assertEqual(result.err.count("\n"), 1, str(result))
                    self.assertTrue(result.err.startswith("shoal test: error: mutant: "),
                                    str(result))
                seen.add(result.code)
        self.assertEqual(seen, {0, 1})  # the damages are neither all harmless nor all gross


class BadState(Trained):
    def test_of_another_net(self):
        # The same weights by name, but one layer more that learns.
        more = NET.replace('layer { name: "accuracy"',
                           'layer { name: "ip3" type: "InnerProduct" bottom: "ip1" top: "ip3"\n'
                           "  inner_product_param { num_output: 2 } }\n"
                           'layer { name: "accuracy"')
        self.write("net.prototxt", more)
        for flag in ("--snapshot=", "--resume="):
            self.refused(flag + STATE,
                         STATE + ": the state holds 4 blobs, but SGD needs 6, 1 for each of the "
                         "net's 6 weight blobs; is it from another net or solver type?")

    def test_other_sizes(self):
        learned_net = b"\x12" + bytes([len(MODEL)]) + MODEL.encode()
        state = read(self.path(STATE))
        self.assertEqual(state.count(learned_net), 1)
        self.write("state", state.replace(learned_net, b""))
        self.write("net.prototxt", NET.replace("num_output: 12", "num_output: 11"))
        self.fails_before_training(TRAIN + ("--snapshot=state",), "state: history 0 has 432 values, "
                                   "but weight blob 0 of layer 'ip1' has 396")

    def test_its_weights_are_gone(self):
        os.rename(self.path(MODEL), self.path("moved"))
        self.refused("--snapshot=" + STATE,
                     STATE + ": learned_net (looked up from the working folder): " + MODEL +
                     ": cannot open: No such file or directory")

    def test_cut(self):
        self.write("cut", read(self.path(STATE))[:-100])
        self.fails_before_training(TRAIN + ("--snapshot=cut",), "cut: not a SolverState")

    def test_weights_as_state(self):
        self.fails_before_training(TRAIN + ("--snapshot=" + MODEL,), MODEL + ": not a SolverState")

    def test_empty(self):
        self.write("empty", b"")
        self.fails_before_training(TRAIN + ("--snapshot=empty",), "the state holds 0 blobs")

    def test_mutations(self):
        self.write("solver.prototxt", SOLVER.replace("max_iter: 6", "max_iter: 7")
                   .replace("test_iter: 2\n", "") + "snapshot_after_train: false\n")
        whole = read(self.path(STATE))
        for seed in range(STATE_MUTATIONS):
            self.write("mutant", mutated(whole, random.Random(1000 + seed)))
            with self.subTest(seed):
                result = self.run_shoal("train", "--solver=solver.prototxt", "--snapshot=mutant",
                                        "--threads=1")
                self.assertIn(result.code, (0, 1), str(result))


def limit_files_to(size):
    def preexec():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return preexec


class FullDisk(Trained):
    def full(self, *flags, limit=1000):
        """Trains again over the old snapshots, with room for `limit` bytes a file."""
        before = {name: read(self.path(name)) for name in self.files() if "snap" in name}
        self.assertEqual(len(before), 4)
        self.write("solver.prototxt", SOLVER.replace("base_lr: 0.05", "base_lr: 0.01"))
        files = self.files()
        result = self.run_shoal(*TRAIN, *flags, preexec=limit_files_to(limit))
        self.assertEqual(result.code, 1, str(result))
        self.assertEqual(result.err, ERROR + "snap_iter_4.caffemodel: cannot write %d bytes: File "
                         "too large; an older file of that name is unchanged\n"
                         % len(before["snap_iter_4.caffemodel"]))
        self.assertEqual(self.files(), files)
        for name, content in before.items():
            self.assertEqual(read(self.path(name)), content, name)

    def test_while_writing(self):
        self.full()

    def test_from_the_first_byte(self):
        self.full(limit=0)

    def test_coordinator(self):
        self.full("--workers=2")

    def test_state_alone(self):
        # The weights fit, the state does not: it keeps its old, complete state.
        old = read(self.path("snap_iter_4.solverstate"))
        model = len(read(self.path("snap_iter_4.caffemodel")))
        # A longer prefix makes learned_net longer than all that the model holds besides.
        long = "./" * 200 + "long"
        self.write("solver.prototxt", SOLVER.replace('"snap"', '"%s"' % long))
        self.succeeds(*TRAIN)
        state_name, model_name = long + "_iter_4.solverstate", long + "_iter_4.caffemodel"
        state = read(self.path(state_name))
        self.assertEqual(len(read(self.path(model_name))), model)
        self.assertGreater(len(state), model)
        self.fails(TRAIN, "_iter_4.solverstate: cannot write", preexec=limit_files_to(model))
        self.assertEqual(read(self.path(state_name)), state)
        self.assertEqual(read(self.path("snap_iter_4.solverstate")), old)

    def test_log(self):
        result = self.run_shoal(*TRAIN, "--log-json=/dev/full")
        self.assertEqual(result.code, 1, str(result))
        self.assertEqual(result.err, ERROR + "/dev/full: the log is not complete: No space left on "
                         "device\n")

    def test_dataset(self):
        self.assertLess(1000, os.path.getsize(self.path("lmdb/data.mdb")))
        self.fails_before_training(("convert_mnist_data", "images.idx", "labels.idx", "new"),
                                   "new: cannot write: No space left on device; is the disk "
                                   "full? make room on the disk and start again; nothing was kept",
                                   preexec=limit_files_to(1000))


if __name__ == "__main__":
    unittest.main()
