# SPDX-License-Identifier: Apache-2.0
"""Nets and checks of the cluster's tests."""
import math
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import harness

WORKERS = (1, 2, 3, 4, 7)
ENDLESS = 100000000  # iterations of a run that a test ends

# Two sums of one gradient in different orders differ by 2 * 2^-24 * sqrt(n) of its size, n the
# longest reduction (see tests/golden/golden.py): batch 32 x 24 x 24 output pixels. The nets that
# are compared have no MAX and no ReLU, so nothing can switch and grow beyond that.
BOUND = 2 * 2.0**-24 * math.sqrt(32 * 24 * 24)


def smooth_net(batch, dropout=0.3, test_batch=16):
    """Convolution, mean pooling, dropout and inner products: smooth in all its weights."""
    text = harness.lenet(batch, dropout=True).replace("pool: MAX", "pool: AVE")
    text = text.replace("dropout_ratio: 0.4", "dropout_ratio: %g" % dropout)
    text = text.replace(
        'layer { name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }\n', ""
    )
    return text.replace("batch_size: 16", "batch_size: %d" % test_batch)


def order_net(batch):
    """Tells which samples it got: `sum` is the sum of a sample's pixels, one output a sample."""
    return (
        'name: "order"\n'
        + harness.data_layer(batch, scale=1)
        + 'layer { name: "sum" type: "InnerProduct" bottom: "data" top: "sum" '
        "param { lr_mult: 0 } inner_product_param { num_output: 1 bias_term: false "
        'weight_filler { type: "constant" value: 1 } } }\n'
        + harness.inner_product("ip", "data", 10)
        + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" '
        'top: "loss" }\n'
    )


def sums_of(process):
    """What order_net printed: one list an iteration."""
    found, current = [], None
    for line in process.out().splitlines():
        if line.startswith("Iteration ") and "loss" in line:
            current = []
            found.append(current)
        elif line.startswith("    Train net output") and ": sum = " in line:
            current.append(int(float(line.rpartition("= ")[2])))
    return found


def losses_of(process):
    return [e["loss"] for e in process.iterations()]


def check_close(case, want, got, bound=BOUND):
    """Two lists of losses."""
    case.assertEqual(len(want), len(got))
    for i, (a, b) in enumerate(zip(want, got)):
        error = abs(a - b) / max(1, abs(a))
        case.assertLessEqual(error, bound, "%d: %.9g, %.9g in one process" % (i, b, a))


def tests_of(process):
    return [(e["iter"], e["outputs"]) for e in process.events("test")]


def check_tests_close(case, want, got, bound=BOUND):
    case.assertEqual([i for i, _ in want], [i for i, _ in got])
    for (i, a), (_, b) in zip(want, got):
        case.assertEqual(sorted(a), sorted(b))
        for name in a:
            error = abs(a[name] - b[name]) / max(1, abs(a[name]))
            case.assertLessEqual(error, bound, "test %d: %s is %r, not %r" % (i, name, b, a))


def check_saved_close(case, want, got, floor, bound=BOUND):
    a, b = harness.Saved(want), harness.Saved(got)
    case.assertEqual(list(a.blobs), list(b.blobs))
    case.assertEqual(a.size, b.size)
    for name in a.blobs:
        error = harness.blob_error(a.blobs[name].data, b.blobs[name].data, floor)
        case.assertLessEqual(error, bound, name)
