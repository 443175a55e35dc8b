# SPDX-License-Identifier: Apache-2.0
"""Every other golden case either trains to Caffe's numbers or is refused with a message that says
what is missing and where; a case that comes to work here belongs into test_training.py."""
import os

import golden
import harness

# What this version lacks, by case: words that its refusal must have.
REFUSED = {
    "02-lenet-adadelta": ("solver.prototxt", '"AdaDelta"'),
    "02-lenet-adagrad": ("solver.prototxt", '"AdaGrad"'),
    "02-lenet-adam": ("solver.prototxt", '"Adam"'),
    "02-lenet-adam-step": ("solver.prototxt", '"Adam"'),
    "02-lenet-rmsprop": ("solver.prototxt", '"RMSProp"'),
    "08-train-jpeg": ("net.prototxt:", "an encoded image"),
    "10-loss-normalization": ("net.prototxt:", "'Reshape'"),
}
# A batch of 16; a 5x5 convolution with stride 2 makes 14x14 of 32x32.
MEANFILE_LIMIT = golden.limit(16, 14 * 14)


class Others(harness.Case):
    def test_refusals(self):
        for name, words in REFUSED.items():
            for flags in ((), ("--workers=2",)):
                with self.subTest(case=name, flags=flags):
                    where = golden.prepare(self, name, name + "-".join(flags))
                    before = sorted(os.listdir(where))
                    process = self.train(
                        "--solver=solver.prototxt",
                        "--weights=init.caffemodel",
                        *flags,
                        code=1,
                        folder=where
                    )
                    for word in words:
                        self.assertIn(word, process.err())
                    made = set(os.listdir(where)) - set(before)
                    self.assertEqual([f for f in made if "_iter_" in f], [])

    def test_mean_file(self):
        name = "08-train-meanfile"
        for i, flags in enumerate([(), ("--workers=2",), ("--workers=3",)]):
            with self.subTest(flags=flags):
                where = golden.prepare(self, name, "m%d" % i)
                process = self.train(
                    "--solver=solver.prototxt", "--weights=init.caffemodel", *flags, folder=where
                )
                golden.check_losses(golden.losses(name), process, MEANFILE_LIMIT)
                golden.check_log(golden.log_lines(name), process, MEANFILE_LIMIT)
                for ending, kind in ((".caffemodel", "data"), (".solverstate", "state")):
                    file = "after_iter_10" + ending
                    golden.check_saved(
                        golden.reference(name, file),
                        os.path.join(where, file),
                        MEANFILE_LIMIT,
                        kind,
                    )


if __name__ == "__main__":
    harness.main(needs_goldens=True)
