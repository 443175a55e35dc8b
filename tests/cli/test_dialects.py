# SPDX-License-Identifier: Apache-2.0
"""What Intel Caffe and NVCaffe write into their files and BVLC's Caffe does not know."""

import os
import unittest

from harness import SOLVER, Case, read

HEAD = """
name: "Dialects"
bn_stats_batch_size: 4
multinode {
  model_parallel { layer_from: "ip1" layer_to: "ip2" num_nodes: 2 model_parts: 2 }
  compress_layer_type_list { layer_type: "InnerProduct" }
}
default_forward_type: FLOAT16 default_backward_type: FLOAT16
default_forward_math: FLOAT default_backward_math: FLOAT
global_grad_scale: 1000 global_grad_scale_adaptive: true
default_conv_algos_override: "1,1,1" reduce_buckets: 3 default_cudnn_math_override: 0
eltwise_mem_sharing: false
"""
NET = """
layer {
  name: "mnist" type: "Data" top: "data" top: "label" forward_type: FLOAT backward_type: FLOAT
  transform_param { use_gpu_transform: true scale: 0.01 }
  data_param { source: "lmdb" batch_size: 8 backend: LMDB threads: 2 parser_threads: 1
               cache: true precache: true }
}
layer {
  name: "conv" type: "Convolution" bottom: "data" top: "conv" cudnn_math_override: 1 debug: false
  convolution_param { num_output: 4 kernel_size: 3 cudnn_convolution_algo_seeker: FINDEX
                      conv_algos_override: "0,0,0" weight_filler { type: "xavier" } }
}
layer {
  name: "norm" type: "BatchNorm" bottom: "conv" top: "norm"
  batch_norm_param { scale_bias: true scale_filler { value: 0.5 } engine: MKLDNN }
}
layer {
  name: "pool" type: "Pooling" bottom: "norm" top: "pool"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 ceil_mode: false }
}
layer { name: "drop" type: "Dropout" bottom: "pool" top: "pool" dropout_param { engine: CUDNN } }
layer {
  name: "ip1" type: "InnerProduct" bottom: "pool" top: "ip1" multinode { num_nodes: 2 }
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } engine: MKL2017 }
}
layer {
  name: "sum" type: "Eltwise" bottom: "ip1" bottom: "ip1" top: "sum"
  eltwise_param { operation: SUM engine: MKL2017 }
}
layer { name: "join" type: "Concat" bottom: "sum" top: "join" concat_param { engine: MKLDNN } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "join" bottom: "label" top: "loss" }
"""
FIELDS = "test_offset: 1\nsolver_data_type: FLOAT16\nstore_blobs_in_old_format: true\n"


class Dialects(Case):
    def setUp(self):
        super().setUp()
        self.small(net=HEAD + NET, solver=SOLVER + FIELDS)

    def test_trains(self):
        result = self.succeeds("train", "--solver=solver.prototxt")
        tests = [line for line in result.out.splitlines() if "Testing net" in line]
        self.assertEqual([line.split("Iteration ")[1].split(",")[0] for line in tests],
                         ["1", "5"])
        names = read(self.path("snap_iter_6.caffemodel"))
        self.assertIn(b"norm_scale_bias", names)
        self.assertNotIn(b"scale_filler", names)

    def test_goes_on(self):
        """A snapshot resumed equals an unbroken run, with BatchNorm over parts of the batch."""
        self.succeeds("train", "--solver=solver.prototxt")
        whole = {n: read(self.path(n)) for n in self.files() if n.startswith("snap_iter_6")}
        self.assertEqual(len(whole), 2)
        for name in whole:
            os.unlink(self.path(name))
        self.succeeds("train", "--solver=solver.prototxt", "--resume=snap_iter_4.solverstate")
        for name, content in whole.items():
            self.assertEqual(read(self.path(name)), content, name)

    def test_parts_that_do_not_fit(self):
        self.write("net.prototxt", "bn_stats_batch_size: 3\n" + NET)
        self.fails_before_training(("train", "--solver=solver.prototxt"), "net.prototxt: layer "
                                   "'norm' takes statistics over 3 samples, and the batch has 8; "
                                   "expected a multiple")

    def test_upgrade_keeps_them(self):
        self.succeeds("upgrade_net_proto_text", "net.prototxt", "once.prototxt")
        self.succeeds("upgrade_net_proto_text", "once.prototxt", "twice.prototxt")
        text = read(self.path("once.prototxt")).decode()
        self.assertEqual(read(self.path("twice.prototxt")).decode(), text)
        for field in ("bn_stats_batch_size: 4", "default_forward_type: FLOAT16", "precache: true",
                      "scale_bias: true", "ceil_mode: false", "engine: MKLDNN"):
            self.assertIn(field, text)


if __name__ == "__main__":
    unittest.main()
