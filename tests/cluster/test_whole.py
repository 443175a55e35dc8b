# SPDX-License-Identifier: Apache-2.0
"""A net that needs its batch whole (its samples meet before the loss) has it on one worker, and
trains to the numbers of one process, to the bit, however many workers there are."""
import os

import common
import harness

MIXED = (
    harness.data_layer(8)
    + harness.inner_product("ip", "data", 6)
    + """
layer { name: "mix" type: "Reshape" bottom: "ip" top: "mix" reshape_param {
  shape { dim: 4 dim: 12 } } }
"""
    + harness.inner_product("out", "mix", 3)
    + """
layer { name: "loss" type: "Reduction" bottom: "out" top: "loss" loss_weight: 1
  reduction_param { operation: SUMSQ coeff: 0.125 } }
layer { name: "rest" type: "Silence" bottom: "label" }
"""
)

# Time by sequences: 4 steps of 2; the state goes on from one batch to the next.
RECURRENT = (
    harness.data_layer(8)
    + """
layer { name: "steps" type: "Reshape" bottom: "data" top: "steps" reshape_param {
  shape { dim: 4 dim: 2 dim: -1 } } }
layer { name: "cont" type: "DummyData" top: "cont" dummy_data_param {
  shape { dim: 4 dim: 2 } data_filler { value: 1 } } }
layer { name: "lstm" type: "LSTM" bottom: "steps" bottom: "cont" top: "lstm" recurrent_param {
  num_output: 5 weight_filler { type: "uniform" min: -0.01 max: 0.01 } } }
layer { name: "flat" type: "Reshape" bottom: "lstm" top: "flat" reshape_param {
  shape { dim: 8 dim: 5 } } }
"""
    + harness.inner_product("ip", "flat", 10)
    + """
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
)


class Whole(harness.Case):
    def setUp(self):
        super().setUp()
        harness.make_digits(self)

    def run_at(self, name, net, *flags):
        where = self.make(name)
        os.symlink(self.path("digits"), os.path.join(where, "digits"))
        self.write(os.path.join(name, "net.prototxt"), net)
        self.write(os.path.join(name, "solver.prototxt"), harness.solver(9, base_lr=0.01))
        return where, self.train("--solver=solver.prototxt", *flags, folder=where)

    def check(self, net):
        where, single = self.run_at("single", net, "--threads=1")
        losses = common.losses_of(single)
        self.assertEqual(len(losses), 9)
        self.assertEqual(len(set(losses)), 9)
        for n in (1, 3):
            with self.subTest(workers=n):
                there, cluster = self.run_at(
                    "w%d" % n, net, "--workers=%d" % n, "--threads=1", "--check_interval=1"
                )
                self.assertEqual(losses, common.losses_of(cluster))
                for ending in (".caffemodel", ".solverstate"):
                    file = "snap_iter_9" + ending
                    self.assert_same_file(os.path.join(where, file), os.path.join(there, file))

    def test_samples_that_meet(self):
        self.check(MIXED)

    def test_state_that_goes_on(self):
        self.check(RECURRENT)


if __name__ == "__main__":
    harness.main()
