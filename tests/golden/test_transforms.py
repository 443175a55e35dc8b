# SPDX-License-Identifier: Apache-2.0
"""Training from an LMDB of JPEGs: Caffe's numbers, in one process and on workers. (Of the transforms
themselves tests/unit/data/test_feed.c compares every value with Caffe's, to the bit.)"""
import os

import golden
import harness

NAME = "08-train-jpeg"
# A batch of 16; a 5x5 convolution with stride 2 makes 14x14 of 32x32.
LIMIT = golden.limit(16, 14 * 14)


class Jpeg(harness.Case):
    def test_training(self):
        for i, flags in enumerate([(), ("--plan=plain",), ("--workers=3",)]):
            with self.subTest(flags=flags):
                where = golden.prepare(self, NAME, "j%d" % i)
                process = self.train(
                    "--solver=solver.prototxt", "--weights=init.caffemodel", *flags, folder=where
                )
                golden.check_losses(golden.losses(NAME), process, LIMIT)
                golden.check_log(golden.log_lines(NAME), process, LIMIT)
                for ending, kind in ((".caffemodel", "data"), (".solverstate", "state")):
                    file = "after_iter_10" + ending
                    golden.check_saved(
                        golden.reference(NAME, file), os.path.join(where, file), LIMIT, kind
                    )


if __name__ == "__main__":
    harness.main(needs_goldens=True)
