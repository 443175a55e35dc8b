# SPDX-License-Identifier: Apache-2.0
"""LSTM with a static input, its state going on from batch to batch, and RNN, against real Caffe: the
files in recurrent/ are of `caffe train -solver solver.prototxt -weights init.caffemodel` (BVLC Caffe
9b8915401, CPU, OpenBLAS with one thread); init.caffemodel is its own beginning (max_iter: 0)."""
import os
import shutil

import golden
import harness

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "recurrent")
LIMIT = 2e-5  # printed losses have 6 digits


class Recurrent(harness.Case):
    def test_training(self):
        want = [float(line) for line in harness.read_text(os.path.join(HERE, "losses.txt")).split()]
        for flags in ((), ("--plan=plain",), ("--workers=3",)):
            with self.subTest(flags=flags):
                where = self.make("-".join(("r",) + flags))
                for name in ("net.prototxt", "solver.prototxt", "init.caffemodel"):
                    shutil.copy(os.path.join(HERE, name), where)
                process = self.train(
                    "--solver=solver.prototxt", "--weights=init.caffemodel", *flags, folder=where
                )
                got = [e["loss"] for e in process.iterations()]
                got += [e["loss"] for e in process.events("final_loss")]
                self.assertEqual(len(got), len(want))
                for a, b in zip(want, got):
                    self.assertLess(abs(a - b), LIMIT * max(1, abs(a)))
                golden.check_saved(
                    os.path.join(HERE, "after_iter_12.caffemodel"),
                    os.path.join(where, "o_iter_12.caffemodel"),
                    LIMIT,
                )


if __name__ == "__main__":
    harness.main()
