# SPDX-License-Identifier: Apache-2.0
"""Golden cases of special data and losses train to Caffe's numbers; test_training.py has the rest."""
import os

import golden
import harness

# By case: iterations, and the limit. In 08 a 5x5 convolution with stride 2 makes 14x14 of 32x32, and
# the batch is 16; in 10 the losses are sums over up to 3x5x4 places of 6 samples.
CASES = {
    "08-train-meanfile": (10, golden.limit(16, 14 * 14)),
    "08-train-jpeg": (10, golden.limit(16, 14 * 14)),
    "10-loss-normalization": (10, golden.limit(16, 14 * 14)),
}
WAYS = [("--plan=plain",), ("--plan=fused",), ("--workers=2",), ("--workers=3",)]


class Others(harness.Case):
    def check(self, name):
        iterations, limit = CASES[name]
        for i, flags in enumerate(WAYS[1::2] if golden.BRIEF else WAYS):
            with self.subTest(flags=flags):
                where = golden.prepare(self, name, "m%d" % i)
                process = self.train(
                    "--solver=solver.prototxt", "--weights=init.caffemodel", *flags, folder=where
                )
                golden.check_losses(golden.losses(name), process, limit)
                golden.check_log(golden.log_lines(name), process, limit)
                for ending, kind in ((".caffemodel", "data"), (".solverstate", "state")):
                    file = "after_iter_%d%s" % (iterations, ending)
                    golden.check_saved(
                        golden.reference(name, file), os.path.join(where, file), limit, kind
                    )

    def test_mean_file(self):
        self.check("08-train-meanfile")

    def test_encoded_images(self):
        self.check("08-train-jpeg")

    def test_normalization_of_losses(self):
        self.check("10-loss-normalization")


if __name__ == "__main__":
    harness.main(needs_goldens=True)
