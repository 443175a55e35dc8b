# SPDX-License-Identifier: Apache-2.0
"""What the tests of the program share: fresh folders, processes with a time-out, the JSON log, the
files that training writes, and small datasets and nets. Standard library only.

Every test script is run as `test_x.py SHOAL SHARED [unittest's arguments]` (see main): SHOAL is the
binary, SHARED the folder that may hold caffe-goldens/. A test case derives from Case: it works in a
folder of its own, and fails when a process that it started outlives it."""
import array
import contextlib
import json
import math
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import uuid

SKIPPED = 77  # ctest's SKIP_RETURN_CODE
PATIENCE = 240  # seconds after which something hangs; nothing is judged by its speed
SANITIZER = re.compile(r"(Address|Leak|Thread|UndefinedBehavior)Sanitizer|runtime error:")
MARK = "SHOAL_TEST_MARK"  # in the environment of all that a test starts, and of their children

binary = None
goldens = None


def main(needs_goldens=False):
    global binary, goldens
    if len(sys.argv) < 3:
        sys.exit("usage: %s SHOAL SHARED [unittest arguments]" % sys.argv[0])
    binary = os.path.abspath(sys.argv[1])
    goldens = os.path.join(os.path.abspath(sys.argv[2]), "caffe-goldens")
    if needs_goldens and not os.path.isdir(goldens):
        print("skipped: there is no folder %s" % goldens)
        sys.exit(SKIPPED)
    unittest.main(argv=[sys.argv[0]] + sys.argv[3:], verbosity=2)


def is_sanitized():
    """Was the binary built with a sanitizer? Then it is slow, and needs much memory."""
    data = read_bytes(binary)
    return b"__asan_init" in data or b"__tsan_init" in data


def wait_for(what, check, process=None):
    """The first true value of check(); process must not end before."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        value = check()
        if value:
            return value
        if process is not None and process.poll() is not None:
            value = check()
            if value:
                return value
            raise AssertionError(
                "ended with %d before %s:\n%s" % (process.returncode, what, process.text())
            )
        time.sleep(0.01)
    raise AssertionError("no %s within %d s" % (what, PATIENCE))


def read_text(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def read_bytes(path):
    with open(path, "rb") as f:
        return f.read()


class Process:
    """A running `shoal`, or another program, with words before it on request (nsenter ...); its two
    output streams go to one file each."""

    def __init__(self, case, arguments, folder, environment, program=None, prefix=()):
        self.log = os.path.join(folder, "log%d.json" % case.count)
        self.log_events, self.log_read = [], 0
        self.names = [os.path.join(folder, "%s%d" % (s, case.count)) for s in ("out", "err")]
        case.count += 1
        self.arguments = [a.replace("@LOG", self.log) for a in arguments]
        merged = dict(os.environ, **environment)
        merged[MARK] = case.mark
        files = [open(name, "wb") for name in self.names]
        self.popen = subprocess.Popen(
            list(prefix) + [program or binary] + self.arguments,
            cwd=folder,
            env={k: v for k, v in merged.items() if v is not None},
            stdin=subprocess.DEVNULL,
            stdout=files[0],
            stderr=files[1],
            start_new_session=True,
        )
        for f in files:
            f.close()
        self.pid = self.popen.pid

    def poll(self):
        return self.popen.poll()

    @property
    def returncode(self):
        return self.popen.returncode

    def wait(self):
        try:
            return self.popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError("%s hangs:\n%s" % (self.arguments, self.text())) from None

    def out(self):
        return read_text(self.names[0])

    def err(self):
        return read_text(self.names[1])

    def text(self):
        return self.out() + self.err()

    def kill(self, number):
        os.kill(self.pid, number)

    def events(self, kind=None):
        """The complete lines of the JSON log, of one kind or all. It only grows: what was read
        once is not read again."""
        if os.path.exists(self.log):
            with open(self.log, "rb") as f:
                f.seek(self.log_read)
                new = f.read()
            new = new[: new.rfind(b"\n") + 1]
            self.log_read += len(new)
            self.log_events += [json.loads(line) for line in new.decode().splitlines()]
        return [e for e in self.log_events if kind is None or e["event"] == kind]

    def iterations(self):
        return self.events("iteration")

    def wait_iteration(self, number):
        def reached():
            done = self.iterations()
            return done and done[-1]["iter"] >= number

        wait_for("iteration %d" % number, reached, self)

    def workers(self):
        return children_of(self.pid)

    def wait_workers(self, count):
        def all_there():
            found = self.workers()
            return found if len(found) == count else None

        return wait_for("%d workers" % count, all_there, self)


class Case(unittest.TestCase):
    def setUp(self):
        self.mark = uuid.uuid4().hex
        self.folder = tempfile.mkdtemp(prefix="shoal-test-", dir=os.getcwd())
        self.count = 0
        self.running = []

    def tearDown(self):
        left = []
        for process in self.running:
            if process.poll() is None:
                left.append("%d %s" % (process.pid, process.arguments))
                os.kill(process.pid, signal.SIGKILL)
                process.popen.wait()
        sick = [p.text() for p in self.running if SANITIZER.search(p.text())]
        try:
            # Whoever was killed or is going by itself gets a moment to be gone.
            deadline = time.monotonic() + 20
            while marked(self.mark) and time.monotonic() < deadline:
                time.sleep(0.02)
            orphans = marked(self.mark)
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
            self.assertEqual(sick, [], "what a sanitizer found")
            self.assertEqual(left, [], "processes that the test did not wait for")
            self.assertEqual(orphans, [], "orphan processes")
        finally:
            shutil.rmtree(self.folder)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    @contextlib.contextmanager
    def inside(self, name):
        """A folder in the test's own that is its folder meanwhile, with the digits in reach."""
        outer, inner = self.folder, self.make(name)
        os.symlink(os.path.join(outer, "digits"), os.path.join(inner, "digits"))
        self.folder = inner
        try:
            yield
        finally:
            self.folder = outer

    def make(self, name):
        os.makedirs(self.path(name))
        return self.path(name)

    def write(self, name, text):
        with open(self.path(name), "w") as f:
            f.write(text)

    def start(self, *arguments, folder=None, environment=None, **how):
        process = Process(self, list(arguments), folder or self.folder, environment or {}, **how)
        self.running.append(process)
        return process

    def run_shoal(self, *arguments, code=0, **keywords):
        """Runs to the end, which must be with this exit code."""
        process = self.start(*arguments, **keywords)
        self.assertEqual(process.wait(), code, "%s:\n%s" % (arguments, process.text()))
        return process

    def train(self, *arguments, code=0, **keywords):
        return self.run_shoal("train", "--log-json=@LOG", *arguments, code=code, **keywords)

    def start_train(self, *arguments, **keywords):
        return self.start("train", "--log-json=@LOG", *arguments, **keywords)

    def levels(self):
        text = self.run_shoal("device_query").out()
        return re.search(r"Kernel levels:(.*)", text).group(1).split()

    def assert_same_file(self, a, b):
        self.assertTrue(read_bytes(a) == read_bytes(b), "%s and %s differ" % (a, b))


# ---- processes ----


def stat_of(pid):
    """(state, parent), or None when it is gone."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            rest = f.read().rpartition(")")[2].split()
    except OSError:
        return None
    return rest[0], int(rest[1])


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def children_of(parent):
    """Living children (no zombies), lowest pid first."""
    found = [(p, stat_of(p)) for p in sorted(pids())]
    return [p for p, s in found if s and s[1] == parent and s[0] != "Z"]


def zombies_of(parent):
    found = [(p, stat_of(p)) for p in pids()]
    return [p for p, s in found if s and s[1] == parent and s[0] == "Z"]


def marked(mark):
    """Processes that carry a test's mark in their environment."""
    found = []
    for pid in pids():
        try:
            with open("/proc/%d/environ" % pid, "rb") as f:
                if ("%s=%s" % (MARK, mark)).encode() in f.read():
                    found.append(pid)
        except OSError:
            pass
    return found


def descriptors(pid):
    """What the process has open: number -> target."""
    folder = "/proc/%d/fd" % pid
    found = {}
    for name in os.listdir(folder):
        try:
            found[int(name)] = os.readlink(os.path.join(folder, name))
        except OSError:
            pass
    return found


def listening_ports(pid):
    """TCP ports (IPv4) at which the process listens."""
    inodes = {t[8:-1] for t in descriptors(pid).values() if t.startswith("socket:[")}
    ports = []
    with open("/proc/net/tcp") as f:
        for line in f.readlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                ports.append(int(words[1].rpartition(":")[2], 16))
    return sorted(ports)


# ---- protobuf: what .caffemodel and .solverstate are made of ----


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def fields(data):
    """(number, content) of each field; content is bytes, or an int for a varint."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
        else:
            size = {1: 8, 5: 4}.get(kind)
            if kind == 2:
                size, at = varint(data, at)
            if size is None or at + size > len(data):
                raise ValueError("not a protobuf message")
            value = bytes(data[at : at + size])
            at += size
        yield key >> 3, value


class Blob:
    """A BlobProto: shape, data, diff, and `rest`: the message without its floats."""

    def __init__(self, message):
        self.shape, self.data, self.diff, self.rest = [], array.array("f"), array.array("f"), []
        for number, value in fields(message):
            if number in (5, 6):
                (self.data if number == 5 else self.diff).frombytes(value)
                self.rest.append((number, len(value)))
            else:
                self.rest.append((number, value))
            if number == 7:
                for field, dims in fields(value):
                    at = 0
                    while at < len(dims):
                        dim, at = varint(dims, at)
                        self.shape.append(dim)


class Saved:
    """A .caffemodel or .solverstate: `blobs` by name, and `skeleton`: all that is not a float."""

    def __init__(self, path):
        self.blobs, self.skeleton, self.layers = {}, [], []
        data = read_bytes(path)
        self.size = len(data)
        is_state = path.endswith(".solverstate")
        for number, value in fields(data):
            if is_state and number == 3:
                self._add("history[%d]" % len(self.blobs), value)
            elif not is_state and number == 100:
                self._layer(value)
            else:
                self.skeleton.append((number, value))

    def _add(self, name, message):
        blob = Blob(message)
        self.blobs[name] = blob
        self.skeleton.append((name, blob.rest))

    def _layer(self, message):
        name = kind = None
        count = 0
        for number, value in fields(message):
            if number == 1:
                name = value.decode()
            elif number == 2:
                kind = value.decode()
            if number == 7:
                self._add("%s[%d]" % (name, count), value)
                count += 1
            else:
                self.skeleton.append((name, number, value))
        self.layers.append((name, kind))


def norm(values):
    return math.sqrt(math.fsum(v * v for v in values))


def blob_error(want, got, floor):
    """|want - got| / max(|want|, floor * sqrt(n)): the floor is for blobs that are almost zero."""
    if len(want) != len(got):
        return math.inf
    if not want:
        return 0.0
    worst = norm([a - b for a, b in zip(want, got)]) / max(norm(want), floor * math.sqrt(len(want)))
    return worst if worst == worst else math.inf


# ---- small datasets and nets, made on the spot ----


def write_idx(path, shape, values):
    with open(path, "wb") as f:
        f.write(struct.pack(">I%dI" % len(shape), 0x800 + len(shape), *shape) + bytes(values))


def make_digits(case, count=256, seed=1):
    """An LMDB `digits` of 28x28 images in ten classes that can be learned: a pattern per class,
    and noise. The sum of an image's pixels is its own: see SUMS_NET."""
    rng = random.Random(seed)
    patterns = [rng.randbytes(784) for _ in range(10)]
    images, labels, sums = bytearray(), bytearray(), set()
    for _ in range(count):
        label = rng.randrange(10)
        image = bytearray((3 * p + n) >> 2 for p, n in zip(patterns[label], rng.randbytes(784)))
        while sum(image) in sums:
            image[0] = (image[0] + 1) & 255
            image[1] = (image[1] + 3) & 255
        sums.add(sum(image))
        images += image
        labels.append(label)
    write_idx(case.path("images"), (count, 28, 28), images)
    write_idx(case.path("labels"), (count,), labels)
    case.run_shoal("convert_mnist_data", "images", "labels", "digits")
    return [sum(images[i * 784 : (i + 1) * 784]) for i in range(count)]


def data_layer(batch, phase=None, source="digits", scale=0.00390625):
    include = "include { phase: %s } " % phase if phase else ""
    return (
        'layer { name: "data" type: "Data" top: "data" top: "label" %s'
        "transform_param { scale: %.9g } "
        'data_param { source: "%s" batch_size: %d backend: LMDB } }\n'
        % (include, scale, source, batch)
    )


def convolution(name, bottom, outputs):
    return (
        'layer { name: "%s" type: "Convolution" bottom: "%s" top: "%s" '
        "param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 } convolution_param { "
        'num_output: %d kernel_size: 5 weight_filler { type: "xavier" } } }\n'
        'layer { name: "%s_pool" type: "Pooling" bottom: "%s" top: "%s_pool" '
        "pooling_param { pool: MAX kernel_size: 2 stride: 2 } }\n"
        % (name, bottom, name, outputs, name, name, name)
    )


def inner_product(name, bottom, outputs):
    return (
        'layer { name: "%s" type: "InnerProduct" bottom: "%s" top: "%s" '
        "param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 } inner_product_param { "
        'num_output: %d weight_filler { type: "xavier" } } }\n' % (name, bottom, name, outputs)
    )


def lenet(batch, dropout=False):
    """LeNet in small, with a TEST phase; with dropout on request."""
    drop = (
        'layer { name: "drop" type: "Dropout" bottom: "ip1" top: "ip1" '
        "dropout_param { dropout_ratio: 0.4 } }\n"
    )
    return (
        'name: "small-lenet"\n'
        + data_layer(batch, "TRAIN")
        + data_layer(16, "TEST")
        + convolution("conv1", "data", 8)
        + convolution("conv2", "conv1_pool", 16)
        + inner_product("ip1", "conv2_pool", 64)
        + 'layer { name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }\n'
        + (drop if dropout else "")
        + inner_product("ip2", "ip1", 10)
        + 'layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy" '
        "include { phase: TEST } }\n"
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }\n'
    )


def solver(max_iter, prefix="snap", **more):
    """A solver for net.prototxt; its rates do not depend on max_iter."""
    values = dict(
        base_lr=0.02,
        lr_policy='"inv"',
        gamma=0.01,
        power=0.75,
        momentum=0.9,
        weight_decay=0.0005,
        display=1,
        random_seed=1701,
        max_iter=max_iter,
        snapshot_prefix='"%s"' % prefix,
    )
    values.update(more)
    return 'net: "net.prototxt"\n' + "".join("%s: %s\n" % kv for kv in values.items())
