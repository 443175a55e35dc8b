# SPDX-License-Identifier: Apache-2.0
"""The reference data of real Caffe (caffe-goldens/README.md) and how closely it must be met.

The limit. Shoal and Caffe do the same sums in different orders, so all they may differ by is
rounding. A float sum of n terms is off by about u * sqrt(n) of its size (a random walk of n
roundings of u = 2^-24 each; u * n, the sure bound, is never seen), and n is largest in the weight
gradient of the first convolution: batch x output height x output width. Errors of later iterations
are independent and add like the updates themselves, so that relative to the whole they do not grow
with the iterations. Two such errors, Caffe's and ours, give

    limit = 2 * 2^-24 * sqrt(batch * output pixels of the first convolution)

which is 1.6e-5 for case 01 and 2.3e-5 for case 11, where 1e-4 was suggested. Seen are at most 1e-6
for weights and 3e-6 for solver states; a wrong rule shows as 1e-3 and more, a single ReLU that
switches as 1e-5 to 1e-3. Losses are sums of fewer terms over the same weights: the same limit,
relative to max(1, loss), for an error of the weights moves a loss absolutely.

A switch. Where two values of a MAX window, or a value and 0 before a ReLU, are equal but for
rounding, another order of summation may pick the other one, and from there on the runs part by more
than rounding. That is no error, but it must be proved (check_switch), and then the run goes on from
the weights of one process, which has to meet the limit without a switch."""
import math
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import harness

# Sets of flags that choose how a net is executed: every case is run under each.
PLANS = (("--plan=plain",), ("--plan=fused",))
# Under sanitizers each way through the code once: the numbers are those of the release build.
BRIEF = bool(os.environ.get("SHOAL_TEST_BRIEF"))
UNIT = 2.0**-24
# Below these sizes an error is taken absolutely (as in tools/compare.py of the goldens).
FLOORS = {"data": 1e-2, "diff": 1e-3, "state": 1e-5}
SIX_DIGITS = 5e-6  # relative: what is lost where the reference is printed with 6 digits


def limit(batch, pixels):
    return 2 * UNIT * math.sqrt(batch * pixels)


def prepare(case, name, folder=None):
    """A copy of the golden case's files in a new folder of the test, with ../data beside it."""
    source = os.path.join(harness.goldens, name)
    target = case.path(folder or name)
    os.makedirs(target)
    for file in os.listdir(source):
        if file.endswith((".prototxt", "init.caffemodel", "weights.caffemodel")):
            shutil.copyfile(os.path.join(source, file), os.path.join(target, file))
    if not os.path.lexists(case.path("data")):
        os.symlink(os.path.join(harness.goldens, "data"), case.path("data"))
    return target


def reference(name, file):
    return os.path.join(harness.goldens, name, file)


def rows(path):
    with open(path, encoding="utf-8") as f:
        return [line.split() for line in f if line.strip() and not line.startswith("#")]


def losses(name):
    """The train loss of each iteration, 9 digits."""
    return [float(row[1]) for row in rows(reference(name, "losses9.txt"))]


def log_lines(name):
    """losses.txt: rates, final loss, and outputs of tests by (iteration, output)."""
    rates, final, tests = {}, None, {}
    for row in rows(reference(name, "losses.txt")):
        if row[0] == "lr":
            rates[int(row[1])] = row[2]
        elif row[0] == "final":
            final = (int(row[1]), float(row[3]))
        elif row[0] == "test":
            tests[int(row[1]), row[4]] = float(row[5])
    return rates, final, tests


def check_losses(want, process, bound, start=0):
    """The train losses from iteration `start` on."""
    want = want[start:]
    got = [e["loss"] for e in process.iterations()]
    assert len(got) == len(want), "%d iterations, not %d" % (len(got), len(want))
    for i, (a, b) in enumerate(zip(want, got)):
        error = abs(a - b) / max(1, abs(a))
        assert error <= bound, "iteration %d: loss %.9g, Caffe's %.9g" % (start + i, b, a)


def check_log(want, process, bound, start=0):
    """Rates to all six digits; the final loss and tests within the limit and six digits."""
    rates, final, tests = want
    rates = {i: rate for i, rate in rates.items() if i >= start}
    tests = {key: value for key, value in tests.items() if key[0] >= start}
    got = {e["iter"]: "%g" % e["lr"] for e in process.iterations()}
    assert got == rates, "rates %s, Caffe's %s" % (got, rates)
    bound += SIX_DIGITS
    if final:
        events = process.events("final_loss")
        assert [e["iter"] for e in events] == [final[0]], events
        error = abs(events[0]["loss"] - final[1])
        assert error <= bound * max(1, final[1]), "final loss %s, Caffe's %s" % (events, final)
    seen = {(e["iter"], k): v for e in process.events("test") for k, v in e["outputs"].items()}
    assert sorted(seen) == sorted(tests), "tests %s, Caffe's %s" % (sorted(seen), sorted(tests))
    for key, value in tests.items():
        error = abs(seen[key] - value)
        assert error <= bound * max(1, value), "test %s: %s, Caffe's %s" % (key, seen[key], value)


def check_saved(want_path, got_path, bound, kind="data", zeros=None):
    """Two .caffemodel or .solverstate: one structure (names, types, shapes, parameters, size), and
    blobs within the limit. Returns the worst error. zeros: diffs that are 0 but for rounding,
    name -> another blob whose diff has the size of what cancels; the limit is relative to that. So
    it is for their momentum, which holds nothing but weight decay and what rounding added up."""
    want, got = harness.Saved(want_path), harness.Saved(got_path)
    assert want.layers == got.layers, "layers %s, Caffe's %s" % (got.layers, want.layers)
    assert list(want.blobs) == list(got.blobs), "blobs %s, Caffe's %s" % (
        list(got.blobs),
        list(want.blobs),
    )
    for name in want.blobs:
        a, b = want.blobs[name].shape, got.blobs[name].shape
        assert a == b, "%s: shape %s, Caffe's %s" % (name, b, a)
    assert sorted(map(repr, want.skeleton)) == sorted(map(repr, got.skeleton)), "other fields"
    assert want.size == got.size, "%d bytes, Caffe's %d" % (got.size, want.size)
    field = "diff" if kind == "diff" else "data"
    worst = 0
    for name in want.blobs:
        a, b = getattr(want.blobs[name], field), getattr(got.blobs[name], field)
        assert len(a), "%s has no %s" % (name, field)
        floor = FLOORS[kind]
        if kind != "data" and name in (zeros or {}):
            beside = getattr(want.blobs[zeros[name]], field)
            floor = harness.norm(beside) / math.sqrt(len(beside))
        if kind == "diff" and name in (zeros or {}):
            assert harness.norm(a) <= 1e-3 * floor * math.sqrt(len(a)), name + " is not 0"
        error = harness.blob_error(a, b, floor)
        assert error <= bound, "%s: error %.3g, limit %.3g" % (name, error, bound)
        worst = max(worst, error)
    return worst


def check_switch(straight, switched, layers, bound, first, last, kind="data"):
    """Proves that two runs part by a switch: straight(i) and switched(i) are the snapshots after i
    iterations, first to last, layers the learning ones, top first. At the first iteration where
    they differ by more than rounding, all of the topmost layer that differs must be one output of
    it (one filter, one row); not of the very top, which has nothing that switches above it. A wrong
    rule or share touches all outputs. Returns that iteration and a text. kind "state": by the
    momentum, which shows what is lost in weights that are large beside their updates; each layer
    must have weights and a bias."""
    rounding = bound / (32 if kind == "data" else 8)

    def load(path):
        if kind == "data":
            blobs = harness.Saved(path).blobs
            return [blobs[n + "[0]"] for n in layers]
        blobs = harness.Saved(path.replace(".caffemodel", ".solverstate")).blobs
        return [blobs["history[%d]" % (2 * i)] for i in reversed(range(len(layers)))]

    for iteration in range(first, last + 1):
        a, b = load(straight(iteration)), load(switched(iteration))
        errors = [harness.blob_error(x.data, y.data, FLOORS[kind]) for x, y in zip(a, b)]
        if max(errors) > rounding:
            break
    else:
        raise AssertionError("no difference in the weights")
    top = next(i for i, error in enumerate(errors) if error > rounding)
    assert top > 0, "iteration %d: %s differs" % (iteration, layers[0])
    x, y = a[top], b[top]
    size = len(x.data) // x.shape[0]
    parts = [
        harness.norm([p - q for p, q in zip(x.data[i : i + size], y.data[i : i + size])]) ** 2
        for i in range(0, len(x.data), size)
    ]
    assert max(parts) >= 0.99 * sum(parts), "iteration %d: more than one output of %s differs" % (
        iteration,
        layers[top],
    )
    what = "output %d of %s, iteration %d" % (parts.index(max(parts)), layers[top], iteration)
    return iteration, what
