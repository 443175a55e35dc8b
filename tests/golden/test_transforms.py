# SPDX-License-Identifier: Apache-2.0
"""Training from an LMDB of JPEGs: Caffe's numbers, in one process and on workers. (Of the transforms
themselves tests/unit/data/test_feed.c compares every value with Caffe's, to the bit.) An ImageData
layer over the same files trains to the same bits, and a WindowData layer to the same on workers."""
import os

import golden
import harness

NAME = "08-train-jpeg"
# A batch of 16; a 5x5 convolution with stride 2 makes 14x14 of 32x32.
LIMIT = golden.limit(16, 14 * 14)
NET = """
layer { name: "data" top: "data" top: "label" %s
  transform_param { mean_value: 110 crop_size: 32 mirror: true } }
layer { name: "c" type: "Convolution" bottom: "data" top: "c"
  convolution_param { num_output: 8 kernel_size: 5 stride: 2 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "c" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "%s_net.prototxt" base_lr: 1e-6 lr_policy: "fixed" max_iter: 8 display: 1 random_seed: 3
snapshot_after_train: false
"""


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

    def losses_of(self, name, source, *flags):
        with open(self.path(name + "_net.prototxt"), "w", encoding="utf-8") as f:
            f.write(NET % source)
        with open(self.path(name + ".prototxt"), "w", encoding="utf-8") as f:
            f.write(SOLVER % name)
        process = self.train("--solver=%s.prototxt" % name, *flags, folder=self.path(""))
        return [e["loss"] for e in process.iterations()]

    def test_image_data(self):
        data = os.path.join(harness.goldens, "data")
        lmdb = 'type: "Data" data_param { source: "%s/jpegmix64_lmdb" batch_size: 9 backend: LMDB }'
        files = (
            'type: "ImageData" image_data_param { source: "%s/jpegmix_list.txt" '
            'root_folder: "%s/jpegmix/" batch_size: 9 }'
        )
        want = self.losses_of("lmdb", lmdb % data)
        self.assertEqual(len(set(want)), 8)
        self.assertEqual(self.losses_of("files", files % (data, data)), want)
        shared = self.losses_of("shared", files % (data, data), "--workers=2")
        for a, b in zip(want, shared):
            self.assertLess(abs(a - b), 1e-5)

    def test_window_data(self):
        with open(self.path("windows.txt"), "w", encoding="utf-8") as f:
            for i in range(8):
                f.write("# %d\n%04d.jpg\n3\n40\n48\n3\n" % (i, i))
                f.write(
                    "%d 0.9 2 3 %d 30\n0 0.1 0 0 20 %d\n3 0.4 1 1 47 39\n" % (1 + i, 20 + i, 9 + i)
                )
        source = (
            'type: "WindowData" window_data_param { source: "windows.txt" root_folder: '
            '"%s/data/jpegmix/" batch_size: 9 fg_fraction: 0.34 context_pad: 4 }' % harness.goldens
        )
        want = self.losses_of("one", source)
        self.assertEqual(len(set(want)), 8)
        for a, b in zip(want, self.losses_of("two", source, "--workers=2")):
            self.assertLess(abs(a - b), 1e-5)


if __name__ == "__main__":
    harness.main(needs_goldens=True)
