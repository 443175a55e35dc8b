# SPDX-License-Identifier: Apache-2.0
"""200 iterations of a small residual net on real images (MNIST): the loss curves of fused nets, with
and without Winograd's transforms, follow that of the reference level.

Rounding differs, so the runs part, by a little more every iteration: nothing is seen of it in the
log's digits at first, and a thousandth of the loss at the end. The bounds leave five times of what
was seen: 1e-3 for each of the first 20 losses, 1e-2 for the means over 20 iterations, relative to
the loss at the start. A rate that is wrong by a tenth breaks the first of them ten times over, and
so does what is as wrong as that in a gradient."""
import os

import golden
import harness

ITERATIONS, WINDOW = 200, 20


def layer(name, kind, bottom, top, more=""):
    bottoms = "".join(' bottom: "%s"' % b for b in bottom.split())
    return 'layer { name: "%s" type: "%s"%s top: "%s" %s }\n' % (name, kind, bottoms, top, more)


def conv(name, bottom, outputs, stride=1, kernel=3):
    settings = "num_output: %d kernel_size: %d stride: %d pad: %d bias_term: false" % (
        outputs,
        kernel,
        stride,
        kernel // 2,
    )
    filler = 'weight_filler { type: "msra" }'
    return (
        layer(name, "Convolution", bottom, name, "convolution_param { %s %s }" % (settings, filler))
        + layer("bn_" + name, "BatchNorm", name, name)
        + layer("scale_" + name, "Scale", name, name, "scale_param { bias_term: true }")
    )


def relu(name):
    return layer("relu_" + name, "ReLU", name, name)


def block(name, bottom, outputs):
    return (
        conv(name + "a", bottom, outputs)
        + relu(name + "a")
        + conv(name + "b", name + "a", outputs)
        + layer(name, "Eltwise", "%s %sb" % (bottom, name), name)
        + relu(name)
    )


def net(source):
    return (
        'layer { name: "data" type: "Data" top: "data" top: "label" '
        "transform_param { scale: 0.00390625 } "
        'data_param { source: "%s" batch_size: 8 backend: LMDB } }\n' % source
        + conv("c1", "data", 16, 2)
        + relu("c1")
        + block("r1", "c1", 16)
        + conv("c2", "r1", 32, 2)
        + relu("c2")
        + block("r2", "c2", 32)
        + layer("pool", "Pooling", "r2", "pool", "pooling_param { pool: AVE global_pooling: true }")
        + layer(
            "ip",
            "InnerProduct",
            "pool",
            "ip",
            'inner_product_param { num_output: 10 weight_filler { type: "xavier" } }',
        )
        + layer("loss", "SoftmaxWithLoss", "ip label", "loss")
    )


SOLVER = """net: "net.prototxt"
base_lr: %g lr_policy: "poly" power: 1 momentum: 0.9 weight_decay: 0.0005
max_iter: %d snapshot_after_train: false random_seed: 3 display: 1
"""


class Tracking(harness.Case):
    def losses(self, folder, *flags, rate=0.005):
        where = os.path.join(self.folder, folder)
        os.makedirs(where)
        source = golden.reference("data", "mnist256_lmdb")
        for name, text in (
            ("net.prototxt", net(source)),
            ("solver.prototxt", SOLVER % (rate, ITERATIONS)),
        ):
            with open(os.path.join(where, name), "w") as f:
                f.write(text)
        process = self.train("--solver=solver.prototxt", *flags, folder=where)
        return [e["loss"] for e in process.iterations()]

    def means(self, losses):
        self.assertEqual(len(losses), ITERATIONS)
        return [sum(losses[i : i + WINDOW]) / WINDOW for i in range(0, ITERATIONS, WINDOW)]

    def distance(self, want, got):
        """(largest of the first, largest of the means), relative to where the loss began."""
        first = max(abs(a - b) / a for a, b in zip(want[:WINDOW], got[:WINDOW]))
        means = zip(self.means(want), self.means(got))
        return first, max(abs(a - b) for a, b in means) / self.means(want)[0]

    def test_the_curve_is_the_references(self):
        if golden.BRIEF:
            self.skipTest("nothing runs here that other tests do not run too")
        want = self.losses("c", "--cpu=c")
        self.assertLess(self.means(want)[-1], 0.85 * self.means(want)[0])  # it learns
        for level in self.levels():
            if level == "c":
                continue
            for n, flags in enumerate((("--winograd=on",), ("--winograd=off",))):
                with self.subTest(level=level, flags=flags):
                    got = self.losses("%s-%d" % (level, n), "--cpu=" + level, *flags)
                    first, means = self.distance(want, got)
                    print("%s %s: first %.2g, means %.2g" % (level, flags[0], first, means))
                    self.assertLess(first, 1e-3)
                    self.assertLess(means, 1e-2)
        level = self.levels()[-1]
        first, means = self.distance(want, self.losses("wrong", "--cpu=" + level, rate=0.0055))
        print("another rate: first %.2g, means %.2g" % (first, means))
        self.assertGreater(first, 5e-3)


if __name__ == "__main__":
    harness.main(needs_goldens=True)
