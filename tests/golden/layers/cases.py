# SPDX-License-Identifier: Apache-2.0
"""The nets of layer_cases: one layer each, with its inputs (README.md says what the words mean).

`python3 cases.py > FILE` prints them all. A layer that is no loss is followed by the sum of the
squares of its tops, halved, as the loss, so that the diff of each top is the top itself."""
import struct

CASES = []


def net_input(name, shape):
    dims = " ".join("dim: %d" % d for d in shape)
    return (
        'layer { name: "in_%s" type: "Input" top: "%s" input_param { shape { %s } } }'
        % (name, name, dims)
    )


def squares(top):
    return (
        'layer { name: "loss_%s" type: "Reduction" bottom: "%s" top: "loss_%s" loss_weight: 1\n'
        "  reduction_param { operation: SUMSQ coeff: 0.5 } }" % (top, top, top)
    )


def case(name, inputs, kind, more="", tops=("y",), graded=None, loss=False, phase="TRAIN",
         weights="smooth", after="", save=False, learn=None):
    """inputs: "name 2x3 kind ..."; graded: the tops that the loss is made of (all); learn: the
    inputs that get a gradient, where others must not: by a Scale between (all, by
    force_backward)."""
    lines = ["case %s %s" % (name, phase)]
    body = ['name: "%s"' % name] + (["force_backward: true"] if learn is None else [])
    names = []
    for text in inputs:
        word = text.split()
        names.append(word[0])
        lines.append("input %s %s" % (word[0], " ".join(word[2:]) or "smooth"))
        body.append(net_input(word[0], [int(d) for d in word[1].split("x")]))
        if learn and word[0] in learn:
            names[-1] += "_scaled"
            body.append('layer { name: "scale_%s" type: "Scale" bottom: "%s" top: "%s" }'
                        % (word[0], word[0], names[-1]))
    ends = ['bottom: "%s"' % b for b in names] + ['top: "%s"' % t for t in tops]
    body.append('layer { name: "it" type: "%s" %s\n  %s }' % (kind, " ".join(ends), more))
    body += [after] if after else []
    if not loss and phase == "TRAIN":
        body += [squares(top) for top in (tops if graded is None else graded)]
    lines += ["weights " + weights] + (["save"] if save else []) + ["net"] + body + ["end"]
    CASES.append((name, "\n".join(lines) + "\n"))


def each(prefix, inputs, kind, options, **more):
    for i, option in enumerate(options):
        case("%s_%d" % (prefix, i), inputs, kind, option, **more)


def param(kind):
    return lambda text: "%s_param { %s }" % (kind, text)


CUBE = ["x 2x3x2x4"]


# After what normalises: the sum of squares of its tops is constant, and its gradient rounding.
BENT = dict(graded=("z",), after='layer { name: "bend" type: "Exp" bottom: "y" top: "z" }')


def elementwise():
    for kind in ("AbsVal", "BNLL", "Sigmoid", "TanH", "ReLU", "ELU", "Swish", "Power", "Exp"):
        case(kind.lower(), CUBE, kind)
    # Caffe's BNLL and Power read what they overwrote when they work in place: no reference.
    for kind in ("Sigmoid", "TanH", "ReLU", "ELU"):
        case(kind.lower() + "_in_place", CUBE, "Scale", "scale_param { bias_term: true }",
             after='layer { name: "act" type: "%s" bottom: "y" top: "y" }' % kind)
    case("relu_slope", CUBE, "ReLU", "relu_param { negative_slope: 0.3 }")
    case("elu_alpha", CUBE, "ELU", "elu_param { alpha: 0.4 }")
    case("swish_beta", CUBE, "Swish", "swish_param { beta: 1.7 }")
    each("power_p", ["x 2x7 positive"], "Power", [
        "power_param { power: %s scale: %s shift: %s }" % v
        for v in ((2, 0.5, -0.3), (0.5, 1, 0.2), (-1.5, 2, 0.1), (0, 2, 3), (1, -2, 3), (3, 0, 2))])
    each("exp_p", CUBE, "Exp", ["exp_param { base: 2 }",
                                "exp_param { base: 3.5 scale: 0.7 shift: -0.2 }"])
    each("log_p", ["x 2x7 positive"], "Log", ["", "log_param { base: 2 scale: 1.5 shift: 0.3 }",
                                              "log_param { base: 10 }"])
    each("clip_p", CUBE, "Clip", ["clip_param { min: -0.25 max: 0.5 }"])
    case("threshold", CUBE, "Threshold", "threshold_param { threshold: 0.1 }", phase="TEST",
         learn=())
    case("dropout_test", CUBE, "Dropout", "dropout_param { dropout_ratio: 0.3 }", phase="TEST")
    each("prelu_p", CUBE, "PReLU", ["", "prelu_param { channel_shared: true }"], save=True)
    case("prelu_flat", ["x 4x6"], "PReLU")
    for kind in ("AbsVal", "ReLU", "ELU", "Power"):
        case(kind.lower() + "_zero", ["x 2x6 list 0 1 -1 0 0.5"], kind)
    case("prelu_zero", ["x 2x6 list 0 1 -1 0 0.5"], "PReLU")
    case("clip_edges", ["x 2x6 list 0 1 -1 2 0.5 -3"], "Clip", "clip_param { min: -1 max: 1 }")
    case("prelu_in_place", CUBE, "Scale", after=(
        'layer { name: "act" type: "PReLU" bottom: "y" top: "y" }'))


def weighted():
    each("bias_p", CUBE, "Bias", ["", "bias_param { axis: 0 num_axes: 2 }",
                                  "bias_param { axis: -1 }", "bias_param { num_axes: 0 }",
                                  "bias_param { axis: 2 num_axes: -1 }"], save=True)
    case("bias_two", ["x 2x3x4x5", "b 3x4"], "Bias")
    each("scale_p", CUBE, "Scale", [
        "scale_param { %s }" % s for s in ("", "bias_term: true", "axis: 0 num_axes: 3",
                                           "axis: -2 num_axes: 1 bias_term: true", "num_axes: 0")])
    case("scale_two", ["x 2x3x4x5", "s 3x4"], "Scale")
    case("scale_two_bias", ["x 2x3x4", "s 2x3"], "Scale", "scale_param { axis: 0 bias_term: true }")
    each("inner_p", ["x 3x2x5"], "InnerProduct", [
        "inner_product_param { num_output: 4 %s }" % s
        for s in ("", "bias_term: false", "axis: 2", "axis: -1 transpose: true",
                  "transpose: true")])
    each("embed_p", ["x 2x5 labels 7"], "Embed", [
        "embed_param { num_output: 3 input_dim: 7 }",
        "embed_param { num_output: 4 input_dim: 7 bias_term: false }"], save=True,
         learn=())
    for kind in ("Scale", "Bias", "BatchNorm"):
        case(kind.lower() + "_in_place", CUBE, "TanH", graded=("z",), weights="positive", after=(
            'layer { name: "more" type: "%s" bottom: "y" top: "y" }\n'
            'layer { name: "bend" type: "Exp" bottom: "y" top: "z" }' % kind))
    case("shared_weights", ["x 3x4"], "InnerProduct",
         'param { name: "w" } param { name: "b" } inner_product_param { num_output: 4 }',
         graded=("z",), after=(
             'layer { name: "more" type: "InnerProduct" bottom: "y" top: "z" param { name: "w" }\n'
             '  param { name: "b" } inner_product_param { num_output: 4 } }'))
    case("parameter", [], "Parameter", "parameter_param { shape { dim: 2 dim: 3 } }", save=True)
    each("conv_p", ["x 2x4x7x6"], "Convolution", [
        "convolution_param { num_output: 6 %s }" % s
        for s in ("kernel_size: 3", "kernel_size: 3 pad: 1 stride: 2",
                  "kernel_size: 1 bias_term: false", "kernel_size: 3 group: 2 dilation: 2 pad: 2",
                  "kernel_h: 2 kernel_w: 3 pad_h: 1 pad_w: 0 stride_h: 1 stride_w: 2")])
    case("conv_two", ["a 2x3x5x5", "b 2x3x5x5"], "Convolution",
         "convolution_param { num_output: 2 kernel_size: 3 }", tops=("y", "z"))
    each("deconv_p", ["x 2x4x3x4"], "Deconvolution", [
        "convolution_param { num_output: 6 %s }" % s
        for s in ("kernel_size: 3", "kernel_size: 4 pad: 1 stride: 2",
                  "kernel_size: 2 group: 2 stride: 3 bias_term: false",
                  "kernel_size: 3 dilation: 2 pad: 1", "kernel_size: 1")], save=True)
    case("deconv_depthwise", ["x 1x3x3x3"], "Deconvolution",
         "convolution_param { num_output: 3 group: 3 kernel_size: 4 stride: 2 pad: 1 }")
    each("im2col_p", ["x 2x2x5x4"], "Im2col", [
        "convolution_param { %s }" % s for s in ("kernel_size: 3 pad: 1 stride: 2",
                                                 "kernel_size: 2 dilation: 2")])
    for phase in ("TRAIN", "TEST"):
        case("batch_norm_" + phase.lower(), ["x 4x3x2x3"], "BatchNorm", "", phase=phase,
             weights="positive", **BENT)
    case("batch_norm_global", ["x 4x3x2x3"], "BatchNorm",
         "batch_norm_param { use_global_stats: true eps: 0.01 }", weights="positive")
    case("batch_norm_fraction", ["x 5x4"], "BatchNorm",
         "batch_norm_param { moving_average_fraction: 0.7 }", weights="positive", **BENT)


def recurrent():
    steps = ["x 4x2x3", "cont 4x2 list 0 0 1 1 1 0 1 1"]
    for kind in ("LSTM", "RNN"):
        option = "recurrent_param { num_output: 4 %s }"
        low = kind.lower()
        case(low, steps, kind, option % "", save=True)
        case(low + "_static", steps + ["s 2x5"], kind, option % "")
        state = ["h 1x2x4"] + (["c 1x2x4"] if kind == "LSTM" else [])
        ends = ("y", "hn", "cn")[:1 + len(state)]
        case(low + "_hidden", steps + state, kind, option % "expose_hidden: true", tops=ends,
             graded=("y",))
        case(low + "_hidden_static", steps + ["s 2x5"] + state, kind,
             option % "expose_hidden: true", tops=ends, graded=("y",))
        case(low + "_hidden_graded", steps + state, kind, option % "expose_hidden: true", tops=ends)
        case(low + "_one_step", ["x 1x3x2", "cont 1x3 list 1 0 1"], kind, option % "")
        case(low + "_test", steps, kind, option % "", phase="TEST")
    case("lstm_unit", ["c 1x3x2", "x 1x3x8", "cont 1x3 list 1 0 1"], "LSTMUnit", "",
         tops=("cn", "hn"))


def pools():
    option = param("pooling")
    sizes = ("kernel_size: 2 stride: 2", "kernel_size: 3 stride: 2 pad: 1", "global_pooling: true",
             "kernel_h: 2 kernel_w: 3 stride_h: 3 stride_w: 1 pad_h: 1 pad_w: 2",
             "kernel_size: 3 stride: 2 round_mode: FLOOR")
    for mode in ("MAX", "AVE"):
        each("pool_" + mode.lower(), ["x 1x3x6x5"], "Pooling",
             [option("pool: %s %s" % (mode, s)) for s in sizes])
    for mode in ("MAX", "AVE"):
        case("pool_ties_" + mode.lower(), ["x 1x2x5x5 list 1 1 2 2"], "Pooling",
             option("pool: %s kernel_size: 3 stride: 1 pad: 1" % mode))
    case("pool_mask", ["x 1x3x6x5"], "Pooling", option("pool: MAX kernel_size: 3 stride: 2"),
         tops=("y", "mask"), graded=("y",))
    each("lrn_p", ["x 2x6x4x5"], "LRN", [
        "lrn_param { %s }" % s
        for s in ("", "local_size: 3 alpha: 0.5 beta: 0.6 k: 2",
                  "norm_region: WITHIN_CHANNEL local_size: 3 alpha: 0.5")])
    each("spp_p", ["x 2x2x7x6"], "SPP", ["spp_param { pyramid_height: %d %s }" % s for s in (
        (1, ""), (2, ""), (3, ""), (3, "pool: AVE"))])
    each("mvn_p", ["x 2x3x3x4"], "MVN", ["mvn_param { %s }" % s for s in (
        "", "normalize_variance: false", "across_channels: true eps: 0.01",
        "across_channels: true normalize_variance: false")], **BENT)


def shapes():
    three = ["a 2x3x4", "b 2x3x4", "c 2x3x4"]
    case("concat", ["a 2x3x4", "b 2x1x4", "c 2x2x4"], "Concat")
    case("concat_axis", ["a 2x3x4", "b 2x3x1"], "Concat", "concat_param { axis: -1 }")
    case("concat_zero", ["a 2x3", "b 1x3"], "Concat", "concat_param { axis: 0 }")
    case("concat_one", ["a 2x3"], "Concat")
    case("slice", ["x 2x6x3"], "Slice", "", tops=("a", "b", "c"))
    case("slice_points", ["x 2x6x3"], "Slice",
         "slice_param { axis: -2 slice_point: 1 slice_point: 4 }", tops=("a", "b", "c"))
    case("slice_zero", ["x 4x2"], "Slice", "slice_param { axis: 0 }", tops=("a", "b"))
    each("eltwise_p", three, "Eltwise", ["eltwise_param { %s }" % s for s in (
        "", "operation: SUM coeff: 0.5 coeff: -2 coeff: 1", "operation: PROD",
        "operation: PROD stable_prod_grad: false", "operation: MAX")])
    case("eltwise_ties", ["a 2x6 list 1 2 3", "b 2x6 list 1 3 2 1"], "Eltwise",
         "eltwise_param { operation: MAX }")
    each("flatten_p", CUBE, "Flatten", ["", "flatten_param { axis: 2 }",
                                        "flatten_param { axis: 0 end_axis: -2 }"])
    each("reshape_p", ["x 2x3x4"], "Reshape", ["reshape_param { %s }" % s for s in (
        "shape { dim: 0 dim: -1 }", "shape { dim: 4 dim: 6 }",
        "shape { dim: 2 dim: -1 } axis: 1", "shape { dim: 3 dim: 1 } axis: 1 num_axes: 1",
        "shape { dim: 1 } axis: -1 num_axes: 0")])
    each("tile_p", ["x 2x3x2"], "Tile", ["tile_param { tiles: 3 }",
                                         "tile_param { axis: -1 tiles: 2 }",
                                         "tile_param { axis: 0 tiles: 2 }"])
    each("crop_p", ["x 2x4x5x6", "r 2x3x3x4"], "Crop", ["crop_param { %s }" % s for s in (
        "offset: 1", "axis: 1 offset: 1 offset: 2 offset: 0", "axis: -1 offset: 2")])
    each("reduction_p", CUBE, "Reduction", [
        "reduction_param { operation: %s %s }" % s
        for s in (("SUM", "axis: 1 coeff: 2"), ("ASUM", "axis: -1"),
                  ("SUMSQ", "axis: 2 coeff: 0.5"), ("MEAN", "axis: 1 coeff: -3"))])
    each("reduction_all", CUBE, "Reduction", [
        "loss_weight: 0.5 reduction_param { operation: %s coeff: 3 }" % s
        for s in ("SUM", "ASUM", "SUMSQ", "MEAN")], loss=True)
    case("split", CUBE, "Split", "", tops=("y", "z"))
    case("shared_bottom", CUBE, "TanH", "", after=(
        'layer { name: "more" type: "Sigmoid" bottom: "x" top: "z" }\n' + squares("z")))
    case("silence", CUBE, "Silence", "", tops=(), after=(
        'layer { name: "more" type: "TanH" bottom: "x" top: "z" }\n' + squares("z")))
    case("filter", ["x 4x3", "z 4x2x2", "s 4 list 1 0 1 1"], "Filter", "", tops=("y", "w"),
         learn=("x", "z"))
    case("filter_one", ["x 4x3", "s 4x1 list 0 0 1 0"], "Filter", learn=("x",))
    case("batch_reindex", ["x 3x2x2", "i 5 list 2 0 0 1 2"], "BatchReindex", learn=("x",))
    each("arg_max_p", ["x 2x5x3"], "ArgMax", ["argmax_param { %s }" % s for s in (
        "", "out_max_val: true", "top_k: 3 out_max_val: true", "axis: 1 top_k: 2",
        "axis: -1 out_max_val: true")], phase="TEST", learn=())
    case("dummy", [], "DummyData", (
        'dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 4 }\n'
        '  data_filler { type: "constant" value: 2.5 } }'), tops=("y", "z"), graded=("y",))


def losses():
    pair = ["x 3x4", "t 3x4"]
    labels = ["x 3x5", "l 3 labels 5"]
    case("euclidean", pair, "EuclideanLoss", "loss_weight: 1", loss=True)
    case("euclidean_weight", pair, "EuclideanLoss", "loss_weight: -2.5", loss=True)
    case("contrastive", ["a 4x3", "b 4x3", "s 4 list 1 0 0 1"], "ContrastiveLoss",
         "contrastive_loss_param { margin: 1.5 }", loss=True)
    case("contrastive_legacy", ["a 4x3", "b 4x3", "s 4 list 1 0 0 1"], "ContrastiveLoss",
         "contrastive_loss_param { margin: 2 legacy_version: true }", loss=True)
    for norm in ("L1", "L2"):
        case("hinge_" + norm.lower(), labels, "HingeLoss", "hinge_loss_param { norm: %s }" % norm,
             loss=True)
    case("multinomial", ["x 3x5 positive", "l 3 labels 5"], "MultinomialLogisticLoss", loss=True)
    maps = ["x 2x3x2x4", "l 2x2x4 labels 3 2"]
    for mode in ("FULL", "VALID", "BATCH_SIZE", "NONE"):
        for ignore in ("", "ignore_label: 2"):
            low = mode.lower() + ("_ignore" if ignore else "")
            option = "loss_param { normalization: %s %s }" % (mode, ignore)
            case("softmax_loss_" + low, maps, "SoftmaxWithLoss", option, loss=True)
            case("sigmoid_loss_" + low, ["x 3x4", "t 3x4 labels 2 2"] if ignore else
                 ["x 3x4", "t 3x4 labels 2"], "SigmoidCrossEntropyLoss", option, loss=True)
    case("softmax_loss_all_ignored", ["x 3x4", "l 3 list 1"], "SoftmaxWithLoss",
         "loss_param { ignore_label: 1 }", loss=True)
    case("softmax_loss_axis", ["x 2x3x4", "l 2x3 labels 4"], "SoftmaxWithLoss",
         "softmax_param { axis: -1 }", loss=True)
    case("softmax_loss_normalize", maps, "SoftmaxWithLoss", "loss_param { normalize: false }",
         loss=True)
    each("softmax_p", ["x 2x5x3"], "Softmax", ["", "softmax_param { axis: -1 }",
                                               "softmax_param { axis: 0 }"])
    for mode in ("FULL", "VALID", "BATCH_SIZE", "NONE"):
        case("infogain_" + mode.lower(), ["x 2x3x2x2", "l 2x2x2 labels 3 2"], "InfogainLoss",
             'infogain_loss_param { source: "infogain.binaryproto" }\n'
             "  loss_param { normalization: %s ignore_label: 2 }" % mode, loss=True)
    case("infogain_bottom", ["x 3x3", "l 3 labels 3", "m 1x1x3x3 positive"], "InfogainLoss",
         loss=True, learn=("x",))
    case("infogain_axis", ["x 2x3x3", "l 2x3 labels 3"], "InfogainLoss",
         'infogain_loss_param { source: "infogain.binaryproto" axis: -1 }', loss=True)
    each("accuracy_p", ["x 4x5", "l 4 labels 5"], "Accuracy", [
        "accuracy_param { %s }" % s for s in ("", "top_k: 2", "ignore_label: 3")],
         phase="TEST", tops=("a",))
    case("accuracy_class", ["x 2x3x4", "l 2x4 labels 3"], "Accuracy", "", tops=("a", "per"),
         phase="TEST")
    case("accuracy_axis", ["x 2x4x3", "l 2x4 labels 3 1"], "Accuracy",
         "accuracy_param { axis: -1 ignore_label: 1 }", tops=("a", "per"), phase="TEST")


for group in (elementwise, weighted, recurrent, pools, shapes, losses):
    group()


def infogain():
    """The matrix of InfogainLoss as a BlobProto: shape 1x1x3x3, packed data."""
    values = struct.pack("<9f", 1, 0.25, -0.5, 0, 2, 0.125, 0.5, -1, 1.5)
    dims = bytes([1, 1, 3, 3])
    shape = b"\x0a" + bytes([len(dims)]) + dims
    return b"\x3a" + bytes([len(shape)]) + shape + b"\x2a" + bytes([len(values)]) + values


if __name__ == "__main__":
    print("".join(text for _, text in CASES), end="")
