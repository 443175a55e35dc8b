# SPDX-License-Identifier: Apache-2.0
"""What the tests of the command line share: running the binary, small nets, small datasets.

The binary is named by SHOAL_BINARY. Every test case works in an empty folder of its own.
"""

import os
import random
import re
import shutil
import struct
import subprocess
import tempfile
import unittest

BINARY = os.path.abspath(os.environ.get("SHOAL_BINARY", "build/shoal"))
TIMEOUT_S = 240  # against hanging only

# What a sanitizer prints; none of it may be in any output.
SANITIZER = re.compile(r"AddressSanitizer|LeakSanitizer|runtime error:|ThreadSanitizer")
# Under allocator_may_return_null: that malloc failed, as it does without the sanitizer.
NO_MEMORY = re.compile(r"^==\d+==WARNING: AddressSanitizer failed to allocate .* bytes\n", re.M)

NET = """
name: "Small"
layer {
  name: "mnist" type: "Data" top: "data" top: "label"
  data_param { source: "lmdb" batch_size: 8 backend: LMDB }
}
layer {
  name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param { num_output: 12 weight_filler { type: "xavier" } }
}
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer {
  name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } }
}
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""

SOLVER = """
net: "net.prototxt"
test_iter: 2
test_interval: 4
base_lr: 0.05
momentum: 0.9
lr_policy: "fixed"
display: 2
max_iter: 6
snapshot: 4
snapshot_prefix: "snap"
random_seed: 3
"""


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def __str__(self):
        return "exit code %d\n--- stdout\n%s\n--- stderr\n%s" % (self.code, self.out, self.err)


def run(*args, cwd=None, env=None, preexec=None):
    """Runs the binary to its end; standard output and error as text."""
    full_env = dict(os.environ)
    full_env.pop("SHOAL_TOKEN", None)
    full_env.update(env or {})
    done = subprocess.run([BINARY] + list(args), cwd=cwd, env=full_env, preexec_fn=preexec,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=TIMEOUT_S, check=False)
    return Result(done.returncode, done.stdout.decode("utf-8", "replace"),
                  NO_MEMORY.sub("", done.stderr.decode("utf-8", "replace")))


def write(path, content):
    mode = "wb" if isinstance(content, bytes) else "w"
    with open(path, mode) as file:
        file.write(content)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def idx_files(folder, count=40, side=6, labels=None, seed=1):
    """Writes images.idx and labels.idx: blurred noise whose mean tells the label."""
    rng = random.Random(seed)
    labels = labels if labels is not None else [i % 10 for i in range(count)]
    pixels = bytearray()
    for label in labels:
        pixels += bytes(min(255, 20 * label + rng.randrange(40)) for _ in range(side * side))
    write(os.path.join(folder, "images.idx"),
          struct.pack(">IIII", 2051, len(labels), side, side) + bytes(pixels))
    write(os.path.join(folder, "labels.idx"),
          struct.pack(">II", 2049, len(labels)) + bytes(labels))


class Case(unittest.TestCase):
    """A folder of its own, and assertions about runs."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="shoal-cli-")
        self.addCleanup(shutil.rmtree, self.folder, True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, content):
        write(self.path(name), content)

    def files(self):
        return sorted(os.listdir(self.folder))

    def dataset(self, name="lmdb", **options):
        idx_files(self.folder, **options)
        self.succeeds("convert_mnist_data", "images.idx", "labels.idx", name)

    def small(self, solver=SOLVER, net=NET, **options):
        """A dataset, a net and a solver that train."""
        self.dataset(**options)
        self.write("net.prototxt", net)
        self.write("solver.prototxt", solver)

    def run_shoal(self, *args, **options):
        result = run(*args, cwd=self.folder, **options)
        self.assertIsNone(SANITIZER.search(result.err), str(result))
        self.assertGreaterEqual(result.code, 0, "died of a signal\n" + str(result))
        return result

    def succeeds(self, *args, **options):
        result = self.run_shoal(*args, **options)
        self.assertEqual(result.code, 0, str(result))
        return result

    def fails(self, args, *expected, code=1, **options):
        """The run fails with one line on standard error that holds all of `expected`."""
        result = self.run_shoal(*args, **options)
        self.assertEqual(result.code, code, str(result))
        self.assertEqual(result.err.count("\n"), 1, "not one message\n" + str(result))
        self.assertTrue(result.err.startswith("shoal"), str(result))
        for text in expected:
            self.assertIn(text, result.err, str(result))
        return result

    def fails_before_training(self, args, *expected, **options):
        before = self.files()
        result = self.fails(args, *expected, **options)
        self.assertNotIn("Iteration", result.out, str(result))
        self.assertEqual(self.files(), before, "files were made")
        return result
