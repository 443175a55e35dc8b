# SPDX-License-Identifier: Apache-2.0
"""Wrong nets, solvers and datasets: one exact message, an exit code, nothing trained or written."""

import os
import struct
import unittest

from harness import NET, SOLVER, Case, read

TRAIN = ("train", "--solver=solver.prototxt")
ERROR = "shoal train: error: "


def changed(text, old, new):
    assert old in text, old
    return text.replace(old, new, 1)


class BadNet(Case):
    def refused(self, net, message):
        """Training on `net` is refused with exactly this message, and so is training on workers."""
        self.small(net=net)
        for workers in ((), ("--workers=2",)):
            result = self.fails_before_training(TRAIN + workers)
            self.assertEqual(result.err, ERROR + message + "\n")

    def test_unknown_field(self):
        self.refused(changed(NET, "num_output: 12", "num_output: 12 nonsense: 3"),
                     'net.prototxt:9:40: InnerProductParameter has no field named "nonsense"; '
                     "remove it or correct its name")

    def test_unknown_layer_type(self):
        self.refused(changed(NET, '"ReLU"', '"Relu"'),
                     "net.prototxt:11:1: layer 'relu1': layer type 'Relu' is unknown to this "
                     "version of Shoal")

    def test_missing_bottom(self):
        self.refused(changed(NET, 'bottom: "data"', 'bottom: "dta"'),
                     "net.prototxt:7:1: layer 'ip1': bottom 0, 'dta', is not a top of any layer "
                     "before it in this phase")

    def test_kernel_too_large(self):
        self.refused(changed(NET, "layer { name: \"relu1\" type: \"ReLU\" bottom: \"ip1\"",
                             'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"\n'
                             "  convolution_param { num_output: 2 kernel_size: 9 } }\n"
                             'layer { name: "relu1" type: "ReLU" bottom: "ip1"'),
                     "net.prototxt:11:1: layer 'conv': the kernel's height 9 (9 when dilated by 1) "
                     "is larger than the input's height 6 with pad 0 (6 in all); expected a kernel "
                     "that fits")

    def test_labels_of_another_shape(self):
        self.refused(changed(NET, 'bottom: "label" top: "loss"', 'bottom: "data" top: "loss"'),
                     "net.prototxt:18:1: layer 'loss': labels 'data_mnist_0_split_1' are 8x1x6x6 "
                     "(288), but scores 'ip2' are 8x10 (80) with classes on axis 1; expected 8 "
                     "labels, one for every place but the classes' axis")

    def test_batch_of_nothing(self):
        self.refused(changed(NET, "batch_size: 8", "batch_size: 0"),
                     "net.prototxt:3:1: layer 'mnist': data_param.batch_size is 0; expected 1 to "
                     "2147483647")

    def test_negative_batch(self):
        self.refused(changed(NET, "batch_size: 8", "batch_size: -1"),
                     'net.prototxt:5:43: found "-", expected an integer of 0 or more')

    def test_batch_beyond_all_memory(self):
        self.refused(changed(NET, "batch_size: 8", "batch_size: 2000000000"),
                     "net.prototxt:3:1: layer 'mnist': top 'data': blob 'data' would have more than "
                     "2^31 - 1 values")

    def test_missing_lmdb(self):
        self.refused(changed(NET, '"lmdb"', '"elsewhere"'),
                     "net.prototxt:3:1: layer 'mnist': dataset elsewhere: cannot open: No such "
                     "file or directory; relative paths start at the working folder")

    def test_leveldb(self):
        self.refused(changed(NET, "backend: LMDB", ""),
                     "net.prototxt:3:1: layer 'mnist': data_param has backend LEVELDB (Caffe's "
                     "default when none is given); only LMDB can be read: convert the dataset and "
                     "write `backend: LMDB`")

    def test_unknown_filler(self):
        self.refused(changed(NET, '"xavier"', '"xavierr"'),
                     "net.prototxt:7:1: layer 'ip1': filler type 'xavierr' is unknown; expected "
                     "constant, uniform, gaussian, xavier, msra, positive_unitball or bilinear")

    def test_propagate_down_for_bottoms_that_are_not_there(self):
        self.refused(changed(NET, 'type: "ReLU"',
                             'type: "ReLU" propagate_down: true propagate_down: true'),
                     "net.prototxt:11:1: layer 'relu1' has 2 propagate_down values for 1 bottoms; "
                     "give none or one per bottom")

    def test_shared_weights_of_other_shapes(self):
        net = changed(NET, '"ip1" type', '"ip1" param { name: "w" } type')
        net = changed(net, '"ip2" type', '"ip2" param { name: "w" } type')
        self.refused(net, "net.prototxt: layers 'ip1' and 'ip2' share parameter 'w', but its shapes "
                     "differ: 12x36 (432) and 10x12 (120) (share_mode: PERMISSIVE compares only "
                     "the counts)")

    def test_no_loss(self):
        net = changed(NET, 'type: "SoftmaxWithLoss"', 'include { phase: TEST } '
                      'type: "SoftmaxWithLoss"')
        self.refused(net, "net.prototxt: the net has no loss in phase TRAIN, so it cannot learn; "
                     "add a loss layer (SoftmaxWithLoss) or a loss_weight")

    def test_no_data(self):
        net = NET[NET.index('layer {\n  name: "ip1"'):]
        self.refused(net, "net.prototxt:1:1: layer 'ip1': bottom 0, 'data', is not a top of any "
                     "layer before it in this phase")

    def test_data_that_nobody_brings(self):
        start, end = NET.index("layer {"), NET.index('layer {\n  name: "ip1"')
        net = (NET[:start] + 'layer { name: "in" type: "Input" top: "data" top: "label"\n'
               "  input_param { shape { dim: 4 dim: 3 } shape { dim: 4 } } }\n" + NET[end:])
        self.refused(net, "net.prototxt: layer 'in' (Input) is fed by nobody in a training; use a "
                     "Data layer")

    def test_empty(self):
        self.refused("", "net.prototxt: the net has no layers in phase TRAIN")

    def test_binary(self):
        self.refused(b"\x00\x01\xff", "net.prototxt:1:1: found the byte 0x00, expected text; is "
                     "this a binary file?")


class BadSolver(Case):
    def refused(self, solver, message):
        self.small(solver=solver)
        result = self.fails_before_training(TRAIN)
        self.assertEqual(result.err, ERROR + message + "\n")

    def replaced(self, old, new, message):
        self.refused(changed(SOLVER, old, new), "solver.prototxt: " + message)

    def test_unknown_field(self):
        self.refused(SOLVER + "  nonsense: 1\n",
                     'solver.prototxt:13:3: SolverParameter has no field named "nonsense"; remove '
                     "it or correct its name")

    def test_number_out_of_range(self):
        self.refused(changed(SOLVER, "max_iter: 6", "max_iter: 99999999999"),
                     'solver.prototxt:9:11: found 99999999999 for "max_iter", expected an integer '
                     "from -2147483648 to 2147483647")

    def test_counts(self):
        for old, new, least in (("test_iter: 2", "test_iter: 0", 1),
                                ("test_iter: 2", "test_iter: -2", 1),
                                ("max_iter: 6", "max_iter: -6", 0),
                                ("display: 2", "display: -2", 0),
                                ("snapshot: 4", "snapshot: -4", 0),
                                ("test_interval: 4", "test_interval: -4", 0),
                                ("display: 2", "iter_size: 0", 1),
                                ("display: 2", "iter_size: -1", 1),
                                ("display: 2", "average_loss: 0", 1)):
            with self.subTest(new):
                name, value = new.split(": ")
                self.replaced(old, new, "%s is %s; it must be at least %d" % (name, value, least))
                self.doCleanups()
                self.setUp()

    def test_numbers_that_are_none(self):
        for old, new, shown in (("momentum: 0.9", "momentum: nan", "nan"),
                                ("display: 2", "weight_decay: inf", "inf"),
                                ("display: 2", "gamma: nan", "nan"),
                                ("display: 2", "power: -inf", "-inf"),
                                ("display: 2", "clip_gradients: nan", "nan")):
            with self.subTest(new):
                self.replaced(old, new, "%s is %s; it must be a finite number"
                              % (new.split(":")[0], shown))
                self.doCleanups()
                self.setUp()

    def test_rate(self):
        self.replaced("base_lr: 0.05", "base_lr: nan", "base_lr must be given and not be negative")

    def test_no_rate(self):
        self.replaced("base_lr: 0.05", "", "base_lr must be given and not be negative")

    def test_policy(self):
        self.replaced('"fixed"', '"cosine"', 'lr_policy "cosine" is unknown; use fixed, step, exp, '
                      "inv, multistep, poly, sigmoid or multifixed")

    def test_policy_without_its_fields(self):
        self.replaced('"fixed"', '"step" gamma: 0.1', 'lr_policy "step" needs a stepsize above 0')

    def test_later_version(self):
        self.replaced("display: 2", 'momentum_policy: "poly"',
                      "momentum_policy (NVCaffe) is not in this version; leave it out")

    def test_unknown_type(self):
        self.replaced("display: 2", 'type: "SDG"',
                      'solver type "SDG" is unknown; use "SGD", "Nesterov", "AdaGrad", "RMSProp", '
                      '"AdaDelta" or "Adam"')

    def test_no_net(self):
        self.replaced('net: "net.prototxt"', "", "exactly one of net, net_param, train_net, "
                      "train_net_param must be given, found 0")

    def test_two_nets(self):
        self.replaced("display: 2", 'train_net: "net.prototxt"', "exactly one of net, net_param, "
                      "train_net, train_net_param must be given, found 2")

    def test_missing_net(self):
        self.refused(changed(SOLVER, "net.prototxt", "nets.prototxt"),
                     "nets.prototxt: cannot open: No such file or directory")

    def test_test_iter_without_interval(self):
        self.replaced("test_interval: 4", "", "test_iter is given, but test_interval is not above "
                      "0")

    def test_states_for_other_nets(self):
        self.replaced("display: 2", "test_state { } test_state { }", "2 test_state values for 1 "
                      "test nets; give one per test net")

    def test_snapshot_folder_is_missing(self):
        self.refused(changed(SOLVER, '"snap"', '"no/such/snap"'),
                     'snapshot_prefix "no/such/snap": cannot write there: No such file or '
                     "directory; make the folder, or change snapshot_prefix in the solver")

    def test_empty(self):
        self.refused("", "solver.prototxt: lr_policy is missing; use fixed, step, exp, inv, "
                     "multistep, poly, sigmoid or multifixed")

    def test_not_a_file(self):
        self.small()
        os.mkfifo(self.path("pipe"))
        for name, why in (("lmdb", "not a regular file; give the name of a file"),
                          ("/dev/null", "not a regular file; give the name of a file"),
                          ("pipe", "not a regular file; give the name of a file"),
                          ("nowhere", "cannot open: No such file or directory")):
            result = self.fails_before_training(("train", "--solver=" + name))
            self.assertEqual(result.err, ERROR + name + ": " + why + "\n")


class BadData(Case):
    def test_label_out_of_range(self):
        labels = [i % 10 for i in range(40)]
        labels[13] = 11
        self.small(solver=changed(SOLVER, "test_iter: 2\ntest_interval: 4\n", ""), labels=labels)
        result = self.fails(TRAIN)
        self.assertEqual(result.err, ERROR + "layer 'loss': label 11 (number 5 of blob 'label') is "
                         "out of range: 'ip2' has 10 classes; expected 0 to 9; check the "
                         "dataset's labels and the num_output of the layer before\n")
        self.assertNotIn("Iteration 2", result.out)
        self.assertEqual([f for f in self.files() if "snap" in f], [])
        result = self.fails(TRAIN + ("--workers=2",), "worker", "label 11", "expected 0 to 9")
        self.assertEqual([f for f in self.files() if "snap" in f], [])

    def test_truncated_lmdb(self):
        # At a few places, page boundaries or not: an error, or (when only free pages or padding
        # are gone) a complete training; never a crash.
        self.small(count=400)
        whole = read(self.path("lmdb/data.mdb"))
        failures = 0
        for size in (0, 1, 100, 4096, 4097, 8192, len(whole) // 2, len(whole) // 2 + 77,
                     len(whole) - 4096, len(whole) - 1):
            with self.subTest(size):
                self.write("lmdb/data.mdb", whole[:size])
                result = self.run_shoal(*TRAIN)
                if result.code == 0:
                    continue
                failures += 1
                self.assertEqual(result.code, 1, str(result))
                self.assertEqual(result.err.count("\n"), 1, str(result))
                self.assertIn("lmdb", result.err)
        self.assertGreaterEqual(failures, 8)

    def test_lmdb_that_is_something_else(self):
        self.small()
        size = os.path.getsize(self.path("lmdb/data.mdb"))
        self.write("lmdb/data.mdb", b"\xa5" * size)
        self.fails_before_training(TRAIN, "net.prototxt:3:1: layer 'mnist': dataset lmdb")

    def test_record_of_another_size(self):
        # The records' second half is 6x6 too, but promises 5x5.
        self.small()
        path = "lmdb/data.mdb"
        data = read(self.path(path))
        head = bytes([8, 1, 16, 6, 24, 6, 34, 36])  # channels 1, height 6, width 6, 36 bytes
        self.assertGreaterEqual(data.count(head), 40)
        at = data.index(head, data.index(head) + 1)
        self.write(path, data[:at] + bytes([8, 1, 16, 5, 24, 6, 34, 36]) + data[at + 8:])
        self.fails(TRAIN, "lmdb", "36")

    def test_bad_idx_files(self):
        self.dataset()
        convert = ("convert_mnist_data", "images.idx", "labels.idx", "new")
        images, labels = read(self.path("images.idx")), read(self.path("labels.idx"))
        for name, content, part in (
                ("images.idx", images[:-1], "bring the file again"),
                ("images.idx", b"", "images.idx"),
                ("images.idx", labels, "magic number 2049"),
                ("labels.idx", images, "magic number 2051"),
                ("labels.idx", labels[:4] + struct.pack(">I", 39) + labels[8:-1],
                 "40 images and labels.idx has 39 labels"),
                ("images.idx", images[:4] + b"\xff" * 12, "not a possible size")):
            with self.subTest(part):
                self.write("images.idx", images)
                self.write("labels.idx", labels)
                self.write(name, content)
                self.fails_before_training(convert, part)

    def test_convert_spares_what_is_there(self):
        self.dataset()
        before = read(self.path("lmdb/data.mdb"))
        result = self.fails(("convert_mnist_data", "images.idx", "labels.idx", "lmdb"))
        self.assertEqual(result.err, "shoal convert_mnist_data: error: lmdb: exists already; "
                         "remove it or choose another name\n")
        self.assertEqual(read(self.path("lmdb/data.mdb")), before)
        self.write("file", "content")
        self.fails(("convert_mnist_data", "images.idx", "labels.idx", "file"), "exists already")
        self.assertEqual(read(self.path("file")), b"content")


if __name__ == "__main__":
    unittest.main()
