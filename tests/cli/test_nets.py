# SPDX-License-Identifier: Apache-2.0
"""`shoal init` and the timing of what it writes."""

import json
import os
import re
import unittest

from harness import Case, read

NETS = ("resnet50", "resnet50_v1", "mobilenet_v1", "alexnet", "lenet")
FILES = ["solver.prototxt", "train_val.prototxt"]
# As small as the windows of each net allow.
SHAPES = {"resnet50": "3x33x33", "resnet50_v1": "3x33x33", "mobilenet_v1": "3x33x33",
          "alexnet": "3x67x67", "lenet": "1x28x28"}


class Init(Case):
    def text(self, *names):
        return read(os.path.join(self.folder, *names)).decode()

    def test_every_net(self):
        manual = self.succeeds("init", "--help").out
        for net in NETS:
            result = self.succeeds("init", net, "nets/" + net)
            self.assertEqual(result.out, "Wrote train_val.prototxt and solver.prototxt to nets/%s\n"
                             % net)
            self.assertRegex(manual, "\n  %s +\\S" % net)
            self.assertEqual(sorted(os.listdir(self.path("nets/" + net))), FILES)
            self.assertIn('\nnet: "nets/%s/train_val.prototxt"\n' % net,
                          self.text("nets", net, "solver.prototxt"))
            self.assertRegex(self.text("nets", net, "train_val.prototxt"), r"\A# .*\n# Data: ")

    def test_folder_names(self):
        self.succeeds("init", "lenet", ".")
        self.assertIn('net: "train_val.prototxt"\n', self.text("solver.prototxt"))
        self.succeeds("init", "lenet", "a/")
        self.assertIn('net: "a/train_val.prototxt"\n', self.text("a", "solver.prototxt"))
        name = 'q"uo\\te'
        self.succeeds("init", "lenet", name)
        self.assertIn('net: "q\\"uo\\\\te/train_val.prototxt"\n',
                      self.text(name, "solver.prototxt"))
        self.succeeds("time", "--model=%s/train_val.prototxt" % name, "--dummy-data",
                      "--shape=1x28x28", "--batch=1", "--iterations=1")

    def test_batch(self):
        self.succeeds("init", "--batch=1024", "resnet50", "big")
        self.assertIn("    batch_size: 1024\n", self.text("big", "train_val.prototxt"))
        solver = self.text("big", "solver.prototxt")
        for line in ("base_lr: 0.4", "warmup_start_lr: 0.1", "warmup_iter: 6256"):
            self.assertIn("\n%s\n" % line, solver)
        self.succeeds("init", "--batch=32768", "resnet50", "huge")
        self.assertIn("\nlocal_lr_auto: true\n", self.text("huge", "solver.prototxt"))
        self.fails(("init", "--batch=65537", "lenet", "a"),
                   "a batch of 65537; give 1 to 65536 images, or 0 for the net's own", code=2)
        self.fails(("init", "--batch=many", "lenet", "a"), "a whole number is expected", code=2)

    def test_nothing_is_overwritten(self):
        for present in FILES:
            with self.subTest(present):
                folder = "has_" + present
                os.mkdir(self.path(folder))
                self.write(folder + "/" + present, "mine")
                result = self.fails(("init", "lenet", folder))
                self.assertEqual(result.err, "shoal init: error: %s/%s: is there already; give "
                                 "--force to replace it, or another folder\n" % (folder, present))
                self.assertEqual(os.listdir(self.path(folder)), [present])
                self.assertEqual(self.text(folder, present), "mine")
                self.succeeds("init", "--force", "lenet", folder)
                self.assertEqual(sorted(os.listdir(self.path(folder))), FILES)
                self.assertNotEqual(self.text(folder, present), "mine")

    def test_wrong_use(self):
        result = self.fails(("init", "vgg", "a"), code=2)
        self.assertEqual(result.err, "shoal init: error: unknown net 'vgg'; there are: %s\n"
                         % ", ".join(NETS))
        self.fails(("init", "lenet"), "missing arguments: NAME DIR", code=2)
        self.fails(("init", "lenet", ""), "the name of the folder is empty", code=2)
        self.fails(("init", "lenet", "a" * 5000), "the name of the folder is too long", code=2)
        self.fails(("init", "lenet", "a\nb"), "has a control character", code=2)
        self.write("file", "")
        self.fails(("init", "lenet", "file"), "file: not a folder")
        self.fails(("init", "lenet", "file/below"), "file/below: ")
        self.assertEqual(self.files(), ["file"])


    def test_lenet_trains(self):
        self.succeeds("init", "lenet", "net")
        self.dataset("net/mnist_train_lmdb", side=28, count=64)
        self.dataset("net/mnist_test_lmdb", side=28, count=20)
        solver = self.text("net", "solver.prototxt")
        for name, value in (("max_iter", 3), ("test_iter", 1), ("display", 1)):
            solver = re.sub(r"^%s: \d+$" % name, "%s: %d" % (name, value), solver, flags=re.M)
        self.write("net/solver.prototxt", solver)
        out = self.succeeds("train", "--solver=net/solver.prototxt").out
        self.assertIn("Optimization Done.", out)
        self.assertTrue(os.path.exists(self.path("net/lenet_iter_3.caffemodel")))


class Timing(Case):
    def time(self, net, *flags):
        self.succeeds("init", net, net)
        return self.succeeds("time", "--model=%s/train_val.prototxt" % net, "--dummy-data",
                             "--iterations=1", "--threads=1", *flags)

    def test_every_net_runs(self):
        for net in NETS:
            with self.subTest(net):
                out = self.time(net, "--batch=2", "--shape=" + SHAPES[net]).out
                self.assertTrue(out.startswith(
                    "Data: random numbers instead of a dataset; images of %s (by --shape)\n\n"
                    % SHAPES[net]), out)
                self.assertRegex(out, r"\nImages per second: \d+\.\d \(batch 2, 1 iterations\)\n")
                for line in out.splitlines():
                    self.assertLessEqual(len(line), 140, line)

    def test_flop_of_others(self):
        """Multiply-adds of recurrent layers and deconvolutions."""
        inputs = "".join('layer { name: "%s" type: "Input" top: "%s" input_param { shape { %s } } }'
                         % (name, name, " ".join("dim: %d" % d for d in shape))
                         for name, shape in (("x", (3, 2, 4)), ("cont", (3, 2)), ("s", (2, 6)),
                                             ("image", (2, 3, 4, 5))))
        recurrent = 'recurrent_param { num_output: 5 weight_filler { type: "xavier" } } }'
        self.write("net.prototxt", inputs +
                   'layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "l" ' +
                   recurrent +
                   'layer { name: "rnn" type: "RNN" bottom: "x" bottom: "cont" bottom: "s" '
                   'top: "r" ' + recurrent +
                   'layer { name: "up" type: "Deconvolution" bottom: "image" top: "up" '
                   'convolution_param { num_output: 7 kernel_size: 2 stride: 2 } }')
        out = self.succeeds("time", "--model=net.prototxt", "--phase=TEST", "--iterations=1",
                            "--threads=1", "--json").out
        layers = {row["name"]: row for row in json.loads(out)["layers"]}
        for name, macs in (("lstm", 3 * 2 * 20 * (4 + 5)),
                           ("rnn", 3 * 2 * 5 * (4 + 5 + 5) + 2 * 5 * 6),
                           ("up", 2 * 3 * 4 * 5 * 7 * 4)):
            self.assertAlmostEqual(layers[name]["forward_gflop"] * 1e9, 2 * macs, delta=1)

    def test_json(self):
        out = self.time("lenet", "--batch=4", "--shape=1x28x28", "--json", "--plan=plain").out
        times = json.loads(out)
        self.assertEqual((times["batch"], times["iterations"], times["threads"]), (4, 1, 1))
        layers = {row["name"]: row for row in times["layers"]}
        self.assertEqual(list(layers), ["data", "conv1", "pool1", "conv2", "pool2", "ip1", "relu1",
                                        "ip2", "loss"])
        # Multiply-adds of a pass: outputs x weights of each. Nothing flows back into the images.
        for name, macs, passes in (("conv1", 20 * 24 * 24 * 25, 1), ("conv2", 50 * 8 * 8 * 500, 2),
                                   ("ip1", 500 * 800, 2), ("ip2", 10 * 500, 2)):
            flop = 2 * 4 * macs
            self.assertAlmostEqual(layers[name]["forward_gflop"] * 1e9, flop, delta=1)
            self.assertAlmostEqual(layers[name]["backward_gflop"] * 1e9, passes * flop, delta=1)
        # In: 4x500 and 10x500 + 10 weights; out: 4x10.
        self.assertAlmostEqual(layers["ip2"]["forward_gb"] * 1e9, 4 * (2000 + 5010 + 40), delta=1)
        self.assertEqual(layers["relu1"]["forward_gflop"], 0)
        self.assertGreater(times["peak_gflops"], 0)
        self.assertGreater(times["peak_resident_bytes"], times["memory_bytes"] / 2)
        self.assertAlmostEqual(times["images_per_s"], 4e3 / times["iteration_ms"], delta=0.1)

    def test_shape_from_the_crop(self):
        out = self.time("mobilenet_v1", "--batch=1").out
        self.assertTrue(out.startswith("Data: random numbers instead of a dataset; images of "
                                       "3x224x224 (by crop_size; 3 channels are assumed)\n"), out)

    def test_wrong_use(self):
        self.succeeds("init", "lenet", "lenet")
        model = "--model=lenet/train_val.prototxt"
        self.fails(("time", model, "--dummy-data"), "the shape of the images of layer 'data' is "
                   "unknown: it has no crop_size and no mean_file; give --shape=CxHxW")
        for shape in ("", "28x28", "1x28x28x1", "0x28x28", "1x-2x3", "axbxc", "1x28x28 "):
            self.fails(("time", model, "--dummy-data", "--shape=" + shape),
                       "--shape=%s: expected channels, height and width" % shape, code=2)
        self.fails(("time", model, "--shape=1x28x28"), "--shape goes with --dummy-data", code=2)
        self.fails(("time", model, "--batch=2000000"), "batch is 2000000; 1 to 1048576 work", code=2)
        self.fails(("time", model), "mnist_train_lmdb: cannot open")

    def test_batch_with_a_dataset(self):
        self.small()
        out = self.succeeds("time", "--model=net.prototxt", "--iterations=1", "--batch=3").out
        self.assertNotIn("random", out)
        self.assertRegex(out, r"\(batch 3, 1 iterations\)")

    def test_more_memory_than_there_is(self):
        # Every layer holds 64x112x112 numbers a sample, 8 GB in all at this batch.
        text = """layer { name: "in" type: "Input" top: "c0"
                    input_param { shape { dim: 2600 dim: 64 dim: 112 dim: 112 } } }"""
        for i in range(200):
            text += """layer { name: "c%d" type: "Convolution" bottom: "c%d" top: "c%d"
                         convolution_param { num_output: 64 kernel_size: 1 } }""" % (i + 1, i, i + 1)
        self.write("net.prototxt", text + """
            layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2600 } } }
            layer { name: "ip" type: "InnerProduct" bottom: "c200" top: "ip"
              inner_product_param { num_output: 4 } }
            layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" }""")
        result = self.fails(("time", "--model=net.prototxt", "--dummy-data"),
                            "shoal time: error: with a batch of 2600 the net needs ")
        match = re.search(r"needs (\d+) MB more for its blobs and samples, but only (\d+) MB of "
                          r"memory are free; a batch of (\d+) fits", result.err)
        needed, free, fitting = (int(word) for word in match.groups())
        # In proportion, about.
        self.assertLess(0.8, fitting / (2600 * free / needed), result.err)
        self.assertLess(fitting / (2600 * free / needed), 1.25, result.err)
        self.assertEqual(result.out, "")

    def test_input_layers(self):
        self.write("net.prototxt", """
            layer { name: "in" type: "Input" top: "x" top: "label"
              input_param { shape { dim: 6 dim: 5 } shape { dim: 6 } } }
            layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
              inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
            layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" }
            """)
        out = self.succeeds("time", "--model=net.prototxt", "--dummy-data", "--iterations=2").out
        self.assertTrue(out.startswith("Data: random numbers; the net has no Data layer\n"), out)
        self.assertIn("(batch 6, 2 iterations)", out)
        out = self.succeeds("time", "--model=net.prototxt", "--dummy-data", "--batch=9").out
        self.assertIn("(batch 9, 50 iterations)", out)


if __name__ == "__main__":
    unittest.main()
