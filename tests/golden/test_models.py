# SPDX-License-Identifier: Apache-2.0
"""Every prototxt of caffe-models runs: nets of `deploy` kind forward, nets with data forward and
backward, solvers one iteration, each on random images of the size that the file asks for and a
small batch. Under sanitizers only those that are small."""
import os
import re
import struct
import sys
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import harness

BRIEF = bool(os.environ.get("SHOAL_TEST_BRIEF"))
SMALL = ("lenet",)  # what sanitizers have time for
BATCH = 2


def models():
    """The paths of all prototxt files, solvers last."""
    root = os.path.join(os.path.dirname(harness.goldens), "caffe-models")
    found = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names
             if name.endswith(".prototxt")]
    return sorted(found, key=lambda path: ("solver" in path, path))


def size_of(text):
    """Channels x height x width of a Data layer's images."""
    crop = re.search(r"crop_size: (\d+)", text)
    return "3x%s" % "x".join(crop.groups() * 2) if crop else "1x28x28"


def png(side, number):
    """A square image in colour, another one for each number."""
    rows = b"".join(b"\0" + bytes((x * 5 + y * 3 + c * 70 + number * 50) & 255
                                  for x in range(side) for c in range(3)) for y in range(side))
    chunks = ((b"IHDR", struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0)),
              (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks)


class Models(harness.Case):
    def wanted(self):
        paths = [p for p in models() if not BRIEF or os.path.basename(p).startswith(SMALL)]
        self.assertGreaterEqual(len(paths), 4 if BRIEF else 10)
        return paths

    def small_net(self, path):
        """A copy with a small batch and without a mean file."""
        text = harness.read_text(path)
        text = re.sub(r"\bbatch_size: \d+", "batch_size: %d" % BATCH, text)
        text = re.sub(r"\bmean_file: \"[^\"]*\"", "", text)
        text = re.sub(r"(input_param \{ shape: \{ dim: )\d+", r"\g<1>%d" % BATCH, text)
        name = os.path.basename(path)
        self.write(name, text)
        return name, text

    def test_upgrade(self):
        for path in models():
            with self.subTest(path):
                tool = "solver" if "solver" in os.path.basename(path) else "net"
                name = os.path.basename(path)
                once, twice = self.path("1_" + name), self.path("2_" + name)
                self.run_shoal("upgrade_%s_proto_text" % tool, path, once)
                self.run_shoal("upgrade_%s_proto_text" % tool, once, twice)
                self.assert_same_file(once, twice)

    def test_nets(self):
        for path in self.wanted():
            if "solver" in os.path.basename(path):
                continue
            with self.subTest(path):
                name, text = self.small_net(path)
                data = "data_param" in text
                flags = ["--dummy-data", "--shape=" + size_of(text)] if data else []
                flags += ["--batch=%d" % BATCH] if data else ["--phase=TEST"]
                done = self.run_shoal("time", "--model=" + name, "--iterations=1", *flags)
                self.assertRegex(done.text(), "(?i)forward")

    def test_solvers(self):
        """One iteration of training, as the solver says it, and a snapshot that can be read."""
        for path in self.wanted():
            if "solver" not in os.path.basename(path):
                continue
            with self.subTest(path):
                self.train_once(path)

    def train_once(self, path):
        text = harness.read_text(path)
        source = re.search(r'\bnet: "([^"]*)"', text).group(1)
        folder = os.path.dirname(path)
        beside = os.path.join(folder, os.path.basename(source))
        if not os.path.exists(beside):  # kept as FAMILY_train_val.prototxt
            beside = path.replace("_solver.", "_train_val.")
        name, net = self.small_net(beside)
        images = self.images(size_of(net))
        net = re.sub(r'\bsource: "[^"]*"', 'source: "%s"' % images, net)
        self.write(name, net)
        text = re.sub(r'\bnet: "[^"]*"', 'net: "%s"' % name, text)
        text = re.sub(r"\b(max_iter|test_iter): \d+", r"\1: 1", text)
        text = re.sub(r'\bsnapshot_prefix: "[^"]*"', 'snapshot_prefix: "snap"', text)
        self.write("solver.prototxt", text)
        run = self.train("--solver=solver.prototxt")
        self.assertEqual(len(run.iterations()), 1)
        self.assertTrue(harness.Saved(self.path("snap_iter_1.caffemodel")).blobs)

    def images(self, shape):
        """A dataset with images large enough to be cropped to the shape."""
        if shape.startswith("1x"):
            if not os.path.exists(self.path("digits")):
                harness.make_digits(self, 16)
            return "digits"
        if os.path.exists(self.path("pictures")):
            return "pictures"
        for n in range(4):
            with open(self.path("%d.png" % n), "wb") as f:
                f.write(png(256, n))
        listed = ["%d.png %d\n" % (n, n) for n in range(4)]
        self.write("list.txt", "".join(listed))
        self.run_shoal("convert_imageset", self.path(""), "list.txt", "pictures")
        return "pictures"


if __name__ == "__main__":
    harness.main(needs_goldens=True)
