# SPDX-License-Identifier: Apache-2.0
"""Caffe's tools besides training: what they write, what they say, and what they refuse. Expected
texts and records were made by BVLC Caffe's own tools (commit 9b8915401)."""

import os
import pty
import shutil
import signal
import struct
import subprocess
import time
import unittest

import harness
from harness import Case, read
from records import fields, records

DATA = os.path.join(os.path.abspath(os.environ.get("SHOAL_SHARED", os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "shared"))), "caffe-goldens",
    "data")
GOLDENS = unittest.skipUnless(os.path.isdir(DATA), "there is no folder " + DATA)


class ConvertImageset(Case):
    @GOLDENS
    def test_same_records_as_caffe(self):
        for flags, images, expected, count in (
                ((), "color_png32", "color256_lmdb", 32),
                (("--encoded",), "color_png32", "png32_encoded_lmdb", 32),
                (("-encoded=true", "-logtostderr"), "jpegmix", "jpegmix64_lmdb", 64),
                (("--resize_height=24", "--resize_width=28"), "jpegmix", "jpegmix64_resized_lmdb",
                 64)):
            shutil.rmtree(self.path("db"), True)
            out = self.succeeds("convert_imageset", *flags, os.path.join(DATA, images) + "/",
                                os.path.join(DATA, images + "_list.txt"), "db").out
            self.assertEqual(out, "Processed %d files.\n" % count)
            self.assertEqual(records(self.path("db")),
                             records(os.path.join(DATA, expected))[:count])

    @GOLDENS
    def test_a_net_reads_what_was_written(self):
        list_file, folder = os.path.join(DATA, "jpegmix_list.txt"), os.path.join(DATA, "jpegmix/")
        self.succeeds("convert_imageset", "--shuffle", "--encoded", folder, list_file, "lmdb")
        self.write("net.prototxt", harness.NET)
        self.write("solver.prototxt", harness.SOLVER)
        self.succeeds("train", "--solver=solver.prototxt")

    @GOLDENS
    def test_images_that_cannot_be_read(self):
        shutil.copy(os.path.join(DATA, "jpegmix", "0000.jpg"), self.path("a b.jpg"))
        self.write("half.jpg", read(self.path("a b.jpg"))[:100])
        self.write("list", "a b.jpg 3\nnone\033[2J.jpg 1\nhalf.jpg 2\n")
        result = self.succeeds("convert_imageset", "", "list", "db")
        self.assertEqual(result.out, "Processed 1 files.\nLeft out 2 that could not be read.\n")
        lines = result.err.splitlines()
        self.assertEqual(len(lines), 2, result.err)
        self.assertTrue(lines[0].startswith("shoal convert_imageset: left out: none"), lines[0])
        self.assertTrue(lines[1].startswith("shoal convert_imageset: left out: half.jpg: "))
        self.assertNotIn("\033", result.err)
        self.assertEqual([key for key, _ in records(self.path("db"))], [b"00000000_a b.jpg"])
        result = self.run_shoal("convert_imageset", "no/", "list", "other")
        self.assertEqual(result.code, 1)
        self.assertIn("error: list: none of the images can be read: no/a b.jpg: ", result.err)
        self.assertNotIn("other", "".join(self.files()))

    def test_wrong_input(self):
        self.write("list", "a.jpg\n")
        self.write("db", "")
        convert = ("convert_imageset", "/", "list")
        self.fails_before_training(convert + ("new",),
                                   "list:1: 'a.jpg' does not end with a blank and a label")
        self.fails_before_training(convert + ("new", "--backend=leveldb"),
                                   "--backend=leveldb: only lmdb is supported", code=2)
        self.fails_before_training(convert + ("new", "--resize_width=4"),
                                   "resize_height is 0 and resize_width 4; give both or none",
                                   code=2)
        self.fails_before_training(convert + ("new", "--encode_type=bmp"),
                                   "encode_type is 'bmp'; there are jpg and png", code=2)
        self.fails_before_training(convert + ("new", "--threads=2000"), "threads is 2000", code=2)
        self.fails_before_training(("convert_imageset", "/", "none", "new"), "none: cannot open")
        self.write("list", "a.jpg 1\n")
        self.fails_before_training(convert + ("db",), "db: exists already")


class ConvertCifar(Case):
    def test_records(self):
        for name in ["data_batch_%d" % i for i in range(1, 6)] + ["test_batch"]:
            self.write(name + ".bin", b"".join(
                bytes([label]) + bytes((label + i) % 256 for i in range(3072))
                for label in (3, 9)))
        result = self.succeeds("convert_cifar_data", ".", ".", "lmdb")
        self.assertEqual(result.out, "")
        self.assertEqual(result.err.count("holds 2 records; CIFAR-10 has 10000 in each file"), 6)
        train = records(self.path("cifar10_train_lmdb"))
        self.assertEqual([key for key, _ in train],
                         [b"%05d" % (file * 10000 + i) for file in range(5) for i in range(2)])
        self.assertEqual(fields(train[1][1]), [
            (1, 3), (2, 32), (3, 32), (4, bytes((9 + i) % 256 for i in range(3072))), (5, 9)])
        self.assertEqual(records(self.path("cifar10_test_lmdb")), train[:2])
        self.fails_before_training(("convert_cifar_data", ".", ".", "lmdb"), "exists already")

    def test_wrong_input(self):
        self.fails_before_training(("convert_cifar_data", ".", ".", "leveldb"),
                                   "DB_TYPE leveldb: only lmdb is supported", code=2)
        self.fails_before_training(("convert_cifar_data", ".", ".", "lmdb"), "data_batch_1.bin")
        self.fails_before_training(("convert_cifar_data", ".", "no/such", "lmdb"), "no/such")


class ComputeImageMean(Case):
    @GOLDENS
    def test_same_file_as_caffe(self):
        out = self.succeeds("compute_image_mean", os.path.join(DATA, "color256_lmdb"), "mean").out
        self.assertEqual(out, "Number of channels: 3\nmean_value channel [0]: 117.89\n"
                              "mean_value channel [1]: 117.199\nmean_value channel [2]: 118.928\n")
        self.assertEqual(read(self.path("mean")),
                         read(os.path.join(DATA, "color256_mean.binaryproto")))

    def test_wrong_input(self):
        self.dataset("db")
        self.fails_before_training(("compute_image_mean", "none"), "none")
        self.fails_before_training(("compute_image_mean", "db", "no/mean"), "no/mean")
        self.fails_before_training(("compute_image_mean", "--backend=leveldb", "db"),
                                   "only lmdb", code=2)


class ExtractFeatures(Case):
    def features(self, name):
        """(key, shape, values) of each record."""
        found = []
        for key, value in records(self.path(name)):
            parts = fields(value)
            self.assertEqual([number for number, _ in parts[:3]], [1, 2, 3])
            self.assertEqual({number for number, _ in parts[3:]}, {6})
            found.append((key, tuple(v for _, v in parts[:3]),
                          [struct.unpack("<f", v)[0] for _, v in parts[3:]]))
        return found

    def setUp(self):
        super().setUp()
        self.small(solver=harness.SOLVER.replace("base_lr: 0.05", "base_lr: 1e-5"))
        self.succeeds("train", "--solver=solver.prototxt")

    def extract(self, *arguments):
        return ("extract_features", "snap_iter_6.caffemodel", "net.prototxt") + arguments

    def test_records(self):
        """An input, a blob that is changed in place, a loss and a label; more images than there
        are."""
        result = self.succeeds(*self.extract("data,ip1,ip2,loss,label", "a,b,c,d,e", "6", "lmdb",
                                             "GPU", "DEVICE_ID=1"))
        self.assertEqual(result.err, "shoal extract_features: GPU is ignored\n" + "".join(
            "shoal extract_features: Extracted features of %d query images for feature blob %s\n" %
            pair for pair in ((48, "data"), (48, "ip1"), (48, "ip2"), (6, "loss"),
                              (48, "label"))))
        data, ip1, ip2, loss, label = (self.features(name) for name in "abcde")
        self.assertEqual([key for key, _, _ in data], [b"%010d" % i for i in range(48)])
        self.assertEqual({shape for _, shape, _ in data}, {(1, 6, 6)})
        pixels = read(self.path("images.idx"))[16:]
        for i, (_, _, values) in enumerate(data):
            self.assertEqual(values, list(pixels[i % 40 * 36:i % 40 * 36 + 36]))
        self.assertEqual([values for _, _, values in label], [[i % 40 % 10] for i in range(48)])
        self.assertEqual({shape for _, shape, _ in ip1}, {(12, 1, 1)})
        self.assertGreaterEqual(min(min(values) for _, _, values in ip1), 0)  # after the ReLU
        self.assertGreater(max(max(values) for _, _, values in ip1), 0)
        self.assertEqual({(shape, len(values)) for _, shape, values in ip2}, {((10, 1, 1), 10)})
        self.assertEqual([ip1[i][2] for i in range(8)], [ip1[i + 40][2] for i in range(8)])
        out = self.succeeds("test", "--model=net.prototxt", "--weights=snap_iter_6.caffemodel",
                            "--iterations=6").out
        for i, (_, shape, values) in enumerate(loss):
            self.assertEqual(shape, (1, 1, 1))
            self.assertIn("Batch %d, loss = %g\n" % (i, values[0]), out)

    def test_plans_agree(self):
        self.succeeds(*self.extract("ip2", "plain", "2", "lmdb", "--plan=plain"))
        self.succeeds(*self.extract("ip2,ip2", "fused,twice", "2", "lmdb", "--plan=fused"))
        for (key, shape, one), other in zip(self.features("plain"), self.features("fused")):
            self.assertEqual((key, shape), other[:2])
            for x, y in zip(one, other[2]):
                self.assertAlmostEqual(x, y, delta=1e-4 * max(1, abs(x)))
        self.assertEqual(self.features("fused"), self.features("twice"))

    def test_wrong_input(self):
        for arguments, message, code in (
                (("nope", "a", "1", "lmdb"), "net.prototxt: no layer has a top 'nope'", 1),
                (("ip1,ip2", "a", "1", "lmdb"), "2 blobs and 1 datasets", 2),
                (("ip1,", "a,b", "1", "lmdb"), "an empty name", 2),
                (("ip1", "a", "0", "lmdb"), "NUM_BATCHES is '0'", 2),
                (("ip1", "a", "1x", "lmdb"), "NUM_BATCHES is '1x'", 2),
                (("ip1", "a", "1", "leveldb"), "DB_TYPE leveldb: only lmdb", 2),
                (("ip1", "a", "1", "lmdb", "TPU"), "'TPU' is neither CPU nor GPU", 2),
                (("ip1,ip2", "a,a", "1", "lmdb"), "a.tmp: another process is writing", 1),
                (("ip1", "lmdb", "1", "lmdb"), "lmdb: exists already", 1),
                (("ip1,ip2", "a,no/b", "1", "lmdb"), "no/b", 1)):
            self.fails_before_training(self.extract(*arguments), message, code=code)


OLD_NET = """
name: "old"  # a comment
layers { layer { name: "d" type: "data" source: "db" batchsize: 4 scale: 0.5 cropsize: 8 mirror: true
  meanfile: "m" } top: "data" top: "label" }
layers { layer { name: "p" type: "padding" pad: 2 } bottom: "data" top: "p" }
layers { layer { name: "c" type: "conv" num_output: 3 kernelsize: 5 stride: 2 biasterm: true
  weight_filler { type: "gaussian" std: 0.01 } blobs_lr: 1. blobs_lr: 2. weight_decay: 1.
  weight_decay: 0. } bottom: "p" top: "c" }
layers { layer { name: "r" type: "relu" } bottom: "c" top: "c" }
layers { layer { name: "f" type: "innerproduct" num_output: 10 } bottom: "c" top: "f" }
layers { layer { name: "l" type: "softmax_loss" } bottom: "f" bottom: "label" }
"""

NEW_NET = """name: "old"
layer {
  name: "d"
  type: "Data"
  top: "data"
  top: "label"
  transform_param {
    scale: 0.5
    mirror: true
    crop_size: 8
    mean_file: "m"
  }
  data_param {
    source: "db"
    batch_size: 4
  }
}
layer {
  name: "c"
  type: "Convolution"
  bottom: "data"
  top: "c"
  param {
    lr_mult: 1
    decay_mult: 1
  }
  param {
    lr_mult: 2
    decay_mult: 0
  }
  convolution_param {
    num_output: 3
    bias_term: true
    pad: 2
    kernel_size: 5
    stride: 2
    weight_filler {
      type: "gaussian"
      std: 0.01
    }
  }
}
layer {
  name: "r"
  type: "ReLU"
  bottom: "c"
  top: "c"
}
layer {
  name: "f"
  type: "InnerProduct"
  bottom: "c"
  top: "f"
  inner_product_param {
    num_output: 10
  }
}
layer {
  name: "l"
  type: "SoftmaxWithLoss"
  bottom: "f"
  bottom: "label"
}
"""

OLD_SOLVER = """base_lr: 0.01  net: "x.prototxt"
lr_policy: "fixed" solver_type: NESTEROV momentum: 0.9 max_iter: 10
"""

NEW_SOLVER = """base_lr: 0.01
max_iter: 10
lr_policy: "fixed"
momentum: 0.9
net: "x.prototxt"
type: "Nesterov"
"""


def field(number, value):
    """A field of a message, encoded: a number, or bytes (of less than 128)."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


class Upgrade(Case):
    def check(self, command, old, new):
        latest = "shoal %s: File already in latest proto format: new\n" % command
        self.write("old", old)
        result = self.succeeds(command, "old", "new")
        self.assertEqual((result.out, result.err), ("", ""))
        expected = new if isinstance(new, bytes) else new.encode()
        self.assertEqual(read(self.path("new")), expected)
        result = self.succeeds(command, "new", "new")  # itself, and what is new stays
        self.assertEqual((result.out, result.err), ("", latest))
        self.assertEqual(read(self.path("new")), expected)

    def test_net_text(self):
        self.check("upgrade_net_proto_text", OLD_NET, NEW_NET)

    def test_solver_text(self):
        self.check("upgrade_solver_proto_text", OLD_SOLVER, NEW_SOLVER)

    def test_net_binary(self):
        weights = field(5, struct.pack("<2f", 1, -2)) + field(7, field(1, b"\x02"))
        old = field(1, b"n") + field(2, field(2, b"a") + field(3, b"b") + field(4, b"r") +
                                     field(5, 14) + field(6, weights))
        new = field(1, b"n")
        layer = (field(1, b"r") + field(2, b"InnerProduct") + field(3, b"a") + field(4, b"b") +
                 field(7, weights))
        new += b"\xa2\x06" + bytes([len(layer)]) + layer  # layer = 100
        self.check("upgrade_net_proto_binary", old, new)

    def test_wrong_input(self):
        self.write("net", OLD_NET)
        self.write("bad", "name: \"x\"\nlayr { }\n")
        self.write("odd", "layers { layer { name: \"l\" type: \"nope\" } }\n")
        self.write("both", "type: \"SGD\" solver_type: SGD\n")
        for command, source, message in (
                ("upgrade_net_proto_text", "none", "none: cannot open"),
                ("upgrade_net_proto_text", "bad", "bad:2:1: "),
                ("upgrade_net_proto_binary", "net", "looks like text, expected a binary file"),
                ("upgrade_solver_proto_text", "net", "net:"),
                ("upgrade_solver_proto_text", "both", "keep type")):
            self.fails_before_training((command, source, "out"), message)
        self.fails_before_training(("upgrade_net_proto_text", "odd", "out"), "odd")
        self.fails_before_training(("upgrade_net_proto_text", "net", "no/out"), "no/out")


class Following(Case):
    """Progress on terminals, and Ctrl-C."""

    def many(self):
        """CIFAR files that keep it busy for a moment; almost all of them are holes."""
        for name in ["data_batch_%d" % i for i in range(1, 6)] + ["test_batch"]:
            self.write(name + ".bin", b"")
            os.truncate(self.path(name + ".bin"), 3073 * 10000)

    def test_progress(self):
        self.many()
        result = self.succeeds("convert_cifar_data", ".", ".", "lmdb")
        self.assertEqual((result.out, result.err), ("", ""))
        for name in ("cifar10_train_lmdb", "cifar10_test_lmdb"):
            shutil.rmtree(self.path(name))
        ours, its = pty.openpty()
        process = subprocess.Popen([harness.BINARY, "convert_cifar_data", ".", ".", "lmdb"],
                                   cwd=self.folder, stderr=its, stdout=its,
                                   stdin=subprocess.DEVNULL)
        os.close(its)
        text = b""
        try:
            while True:
                piece = os.read(ours, 4096)
                if not piece:
                    break
                text += piece
        except OSError:  # the other end is closed
            pass
        os.close(ours)
        self.assertEqual(process.wait(), 0)
        self.assertIn(b"\r\033[K1000 of 60000 records", text)
        self.assertTrue(text.endswith(b"\r\033[K"), text[-40:])

    def stop_early(self):
        """Stops a conversion soon after its begin; returns its exit code and standard error."""
        process = subprocess.Popen([harness.BINARY, "convert_cifar_data", ".", ".", "lmdb"],
                                   cwd=self.folder, stderr=subprocess.PIPE,
                                   stdin=subprocess.DEVNULL)
        while not os.path.exists(self.path("cifar10_test_lmdb.tmp")) and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        err = process.communicate()[1].decode()
        return process.returncode, err

    def test_stopping(self):
        """It ends as a failure, and leaves nothing."""
        self.many()
        for _ in range(20):  # it may be done before it is stopped
            code, err = self.stop_early()
            if code != 0:
                break
            for name in ("cifar10_train_lmdb", "cifar10_test_lmdb"):
                shutil.rmtree(self.path(name))
        self.assertEqual(code, 1, err)
        self.assertEqual(err, "shoal convert_cifar_data: stopped on request; nothing was kept\n")
        self.assertEqual([name for name in self.files() if "lmdb" in name], [])


if __name__ == "__main__":
    unittest.main()
