# SPDX-License-Identifier: Apache-2.0
"""Flags, manuals, and the small commands."""

import os
import re
import socket
import unittest

from harness import Case, read

COMMANDS = ("train", "worker", "deploy", "doctor", "test", "time", "init", "convert_imageset",
            "convert_mnist_data", "convert_cifar_data", "compute_image_mean", "extract_features",
            "upgrade_net_proto_text", "upgrade_net_proto_binary", "upgrade_solver_proto_text",
            "device_query", "version")
CSI = "\033["


class Flags(Case):
    def wrong(self, args, message):
        result = self.fails_before_training(args, code=2)
        self.assertEqual(result.err, message + "\n")

    def test_three_ways_to_write_one(self):
        self.small()
        seen = []
        for flags in (("--solver=solver.prototxt", "--threads=1"),
                      ("--solver", "solver.prototxt", "--threads", "1"),
                      ("-solver", "solver.prototxt", "-threads", "1"),
                      ("-solver=solver.prototxt", "-threads=1")):
            result = self.succeeds("train", *flags)
            out = re.sub(r"(?m)^I\d+ [\d:.]+ +\d+ ", "", result.out)
            seen.append(re.sub(r"[0-9.e+]+ images/s", "", out))
        self.assertEqual(len(set(seen)), 1)
        self.assertIn("Optimization Done.", seen[0])

    def test_wrong_ones(self):
        see = "; see: shoal train --help"
        self.small()
        solver = "--solver=solver.prototxt"
        self.wrong(("train",), "shoal train: error: --solver=FILE is missing")
        self.wrong(("train", "--nope"), "shoal train: unknown flag: --nope" + see)
        self.wrong(("train", solver, "-x"), "shoal train: unknown flag: -x" + see)
        self.wrong(("train", "--solver"), "shoal train: a value is missing after --solver" + see)
        self.wrong(("train", solver, "more"), "shoal train: unexpected argument: more" + see)
        self.wrong(("train", solver, solver), "shoal train: given twice: --solver" + see)
        for value in ("two", "", "-1", "1.5", "1e3", "99999999999", "3x"):
            self.wrong(("train", solver, "--workers=" + value),
                       "shoal train: --workers=%s: a whole number is expected" % value + see)
        self.wrong(("train", solver, "--workers=5000"),
                   "shoal train: error: workers is 5000; 1 to 4096 work")
        self.wrong(("train", solver, "--threads=5000"),
                   "shoal train: error: threads is 5000; 1 to 1024 work")
        self.wrong(("train", solver, "--token=short", "--workers=2"),
                   "shoal train: error: the token has 5 characters; expected 16 to 4096 (random "
                   "ones: whoever guesses it may join)")
        self.wrong(("train", solver, "--snapshot=a", "--resume=b"),
                   "shoal train: error: give --snapshot or --resume, not both")
        self.wrong(("train", solver, "--snapshot=a", "--weights=b"),
                   "shoal train: error: give a snapshot to go on from or weights to start from, "
                   "not both")
        self.wrong(("train", solver, "--workers=2", "--listen=127.0.0.1:0", "--announce=maybe"),
                   "shoal train: error: announce is 'maybe'; there are on and off")
        self.wrong(("test", "--model=net.prototxt"), "shoal test: error: --weights=FILE is missing")
        self.wrong(("test", "--weights=w"), "shoal test: error: --model=FILE is missing")
        self.wrong(("time",), "shoal time: error: --model=FILE is missing")
        self.wrong(("worker", "--token=0123456789abcdef"),
                   "shoal worker: error: --join=ADDR:PORT is missing (or --discover, to look for a "
                   "coordinator on this network)")
        self.wrong(("worker", "--join=127.0.0.1:1"),
                   "shoal worker: error: the cluster's secret is missing: give --token or set "
                   "SHOAL_TOKEN to what the coordinator printed")
        self.wrong(("convert_mnist_data", "images.idx", "labels.idx"),
                   "shoal convert_mnist_data: missing arguments: IMAGES LABELS LMDB; see: shoal "
                   "convert_mnist_data --help")
        self.wrong(("convert_mnist_data", "--backend=leveldb", "images.idx", "labels.idx", "new"),
                   "shoal convert_mnist_data: error: --backend=leveldb: only lmdb is supported")
        self.wrong(("compute_image_mean",),
                   "shoal compute_image_mean: missing arguments: INPUT_LMDB [OUTPUT_FILE]; see: "
                   "shoal compute_image_mean --help")
        self.wrong(("compute_image_mean", "a", "b", "c"),
                   "shoal compute_image_mean: unexpected argument: c; see: shoal "
                   "compute_image_mean --help")
        self.wrong(("trian",), "shoal: unknown command: trian; see: shoal --help")

    def test_wrong_ones_of_clusters(self):
        see = "; see: shoal train --help"
        self.small()
        solver = "--solver=solver.prototxt"
        for flag in ("min-workers", "max-failures-per-hour", "stall-timeout", "heartbeat_timeout"):
            self.wrong(("train", solver, "--%s=few" % flag),
                       "shoal train: --%s=few: a whole number is expected" % flag + see)
        for value in ("", "maybe", "2", "True"):
            self.wrong(("train", solver, "--encrypt=" + value),
                       "shoal train: --encrypt=%s: true or false is expected, or nothing" % value +
                       see)
        for flag, value in (("collective", "gossip"), ("balance", "maybe"), ("wire", "fp8"), ("shuffle", "some")):
            self.fails_before_training(("train", solver, "--workers=2", "--%s=%s" % (flag, value)),
                                       value, code=2)

    def test_wrong_ones_of_workers(self):
        worker = ("worker", "--join=127.0.0.1:1", "--token=0123456789abcdef")
        see = "; see: shoal worker --help"
        for value in ("", "K", "many", "-1", "1.5G", "1MB", "2T", "9223372036854775808",
                      "9007199254740992K", "8796093022208M", "8589934592G"):
            self.wrong(worker + ("--cache-size=" + value,),
                       "shoal worker: --cache-size=%s: a size is expected, such as 512M or 2G" %
                       value + see)
        for value in ("0", "1", "64k", "512M", "2G", "9007199254740991K", "9223372036854775807"):
            # It is read, so what comes after it is found wrong.
            self.wrong(worker + ("--cache-size=" + value, "--pace=fast"),
                       "shoal worker: --pace=fast: a whole number is expected" + see)
        self.wrong(worker + ("--rejoin-timeout=soon",),
                   "shoal worker: --rejoin-timeout=soon: a whole number is expected" + see)
        self.wrong(worker + ("--rest-when=used,asleep",),
                   "shoal worker: error: --rest-when=used,asleep: there are used and unplugged")
        for flag in ("--charge-limit=101", "--min-battery=101"):
            self.wrong(worker + (flag,), "shoal worker: error: a battery's charge goes from 0 to "
                                         "100 percent")
        self.wrong(worker + ("--discover",),
                   "shoal worker: error: give the coordinator's address or discover, not both")
        self.wrong(worker + ("--rejoin-timeout=2147484",),
                   "shoal worker: error: --rejoin-timeout=2147484: at most 2147483 seconds work")

    def test_dashes_and_underscores(self):
        for one, other in (("check_interval", "check-interval"), ("min-workers", "min_workers"),
                           ("max-failures-per-hour", "max_failures-per_hour"),
                           ("heartbeat_timeout", "heartbeat-timeout"), ("log-json", "log_json")):
            for flags in ((one, other), (other, one)):
                self.wrong(("train",) + tuple("--%s=1" % flag for flag in flags),
                           "shoal train: given twice: --%s; see: shoal train --help" % one)
        # In values they are what they are.
        self.small()
        os.rename(self.path("solver.prototxt"), self.path("a_b-c.prototxt"))
        self.succeeds("train", "--solver", "a_b-c.prototxt", "--log_json", "-log_of-it")
        self.assertTrue(os.path.exists(self.path("-log_of-it")))

    def test_short_forms(self):
        self.small()
        self.succeeds("train", "--sol=solver.prototxt", "-thr", "1")
        see = "; see: shoal train --help"
        self.wrong(("train", "--s=1"), "shoal train: several flags begin like --s=1" + see)
        self.wrong(("train", "--=1"), "shoal train: unknown flag: --=1" + see)
        self.wrong(("train", "-"), "shoal train: unexpected argument: -" + see)
        self.assertTrue(self.succeeds("train", "-h").out.startswith("usage: shoal train"))

    def test_switches_as_gflags_has_them(self):
        convert = ("convert_imageset", "no/", "list", "db")
        see = "; see: shoal convert_imageset --help"
        for flag in ("--gray", "-gray", "--gray=true", "--gray=1", "--gray=y", "--nogray",
                     "--gray=false", "--gray=no", "--nocheck_size", "--nocheck-size"):
            self.fails_before_training(convert + (flag,), "list: cannot open")
        self.wrong(convert + ("--nogray", "--gray"),
                   "shoal convert_imageset: given twice: --gray" + see)
        for flag in ("--nogray=true", "--noseed", "--nogra", "--no"):
            self.wrong(convert + (flag,), "shoal convert_imageset: unknown flag: " + flag + see)

    def test_flags_of_caffe_that_are_ignored(self):
        self.dataset("db")
        quiet = self.succeeds("compute_image_mean", "db").out
        for flags, said in ((("--logtostderr",), "--logtostderr"),
                            (("-logtostderr=1",), "-logtostderr=1"),
                            (("--nologtostderr",), "--nologtostderr"),
                            (("--alsologtostderr",), "--alsologtostderr"),
                            (("--gpu=all",), "--gpu=all"), (("-gpu", "0,1"), "-gpu 0,1"),
                            (("--minloglevel", "2"), "--minloglevel 2"),
                            (("--v=1",), "--v=1"), (("-log-dir=/tmp",), "-log-dir=/tmp")):
            result = self.succeeds("compute_image_mean", *flags, "db")
            self.assertEqual(result.err,
                             "shoal compute_image_mean: %s is ignored\n" % said)
            self.assertEqual(result.out, quiet)
        see = "; see: shoal %s --help"
        self.wrong(("compute_image_mean", "--gp=0", "db"),
                   "shoal compute_image_mean: unknown flag: --gp=0" + see % "compute_image_mean")
        # Others than Caffe's commands know nothing of them.
        self.wrong(("worker", "--gpu=0"), "shoal worker: unknown flag: --gpu=0" + see % "worker")

    def test_operands_among_flags(self):
        self.dataset("one")
        self.succeeds("convert_mnist_data", "images.idx", "--backend=lmdb", "labels.idx", "two")
        self.succeeds("convert_mnist_data", "images.idx", "--", "labels.idx", "--three")
        self.assertEqual(read(self.path("one/data.mdb")), read(self.path("--three/data.mdb")))

    def test_resume(self):
        """A flag that has a value or not."""
        see = "; see: shoal train --help"
        self.small()
        solver = "--solver=solver.prototxt"
        alone = ("shoal train: error: --resume without a file goes on from what workers hold: give "
                 "--resume=FILE, or --listen=ADDR:PORT and --workers=N")
        self.wrong(("train", solver, "--resume"), alone)
        self.wrong(("train", "--resume", solver), alone)  # no value: it begins with '-'
        self.wrong(("train", "--resume", "--nope"), "shoal train: unknown flag: --nope" + see)
        self.wrong(("train", solver, "--resume", "a", "b"),
                   "shoal train: unexpected argument: b" + see)
        self.wrong(("train", solver, "--resume", "--resume=a"),
                   "shoal train: given twice: --resume" + see)
        self.wrong(("train", solver, "--resume", "--snapshot=a"),
                   "shoal train: error: give --snapshot or --resume, not both")
        for flags in (("--resume=",), ("--resume", "")):  # a variable of the shell that is empty
            self.fails_before_training(("train", solver) + flags)
        self.succeeds("train", solver)
        whole = read(self.path("snap_iter_6.caffemodel"))
        for flags in (("--resume=snap_iter_4.solverstate",),
                      ("--resume", "snap_iter_4.solverstate"),
                      ("-resume", "snap_iter_4.solverstate")):
            os.remove(self.path("snap_iter_6.caffemodel"))
            out = self.succeeds("train", *flags, solver).out
            self.assertNotIn("Iteration 2,", out)
            self.assertEqual(read(self.path("snap_iter_6.caffemodel")), whole)

    def test_cpu_levels(self):
        self.small()
        result = self.fails_before_training(("train", "--solver=solver.prototxt", "--cpu=sse"),
                                            "unknown CPU level 'sse'; this CPU runs: c", code=2)
        self.fails_before_training(("train", "--solver=solver.prototxt", "--cpu=sse",
                                    "--workers=2"), "unknown CPU level 'sse'", code=2)
        self.fails_before_training(("train", "--solver=solver.prototxt"),
                                   "'sse'", code=2, env={"SHOAL_CPU": "sse"})
        self.succeeds("train", "--solver=solver.prototxt", "--cpu=c")
        self.assertEqual(result.out, "")

    def test_no_command(self):
        result = self.run_shoal()
        self.assertEqual(result.code, 2)
        self.assertEqual(result.out, "")
        self.assertEqual(result.err, self.succeeds("--help").out)

    def test_log_that_cannot_be_written(self):
        self.small()
        result = self.fails_before_training(
            ("train", "--solver=solver.prototxt", "--log-json=no/such/log"))
        self.assertEqual(result.err, "shoal train: error: no/such/log: cannot write the log: No "
                         "such file or directory\n")


class Addresses(Case):
    def test_port_in_use(self):
        self.small()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            where = "127.0.0.1:%d" % taken.getsockname()[1]
            self.fails_before_training(("train", "--solver=solver.prototxt", "--workers=1",
                                        "--listen=" + where),
                                       "cannot listen on %s: another program uses this port; stop "
                                       "it or choose another port" % where)

    def test_no_address(self):
        self.small()
        for where in ("nope", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:", ":4710"):
            with self.subTest(where):
                self.fails_before_training(
                    ("train", "--solver=solver.prototxt", "--listen=" + where),
                    "address '%s': expected ADDR:PORT" % where, code=2)
                self.fails(("worker", "--token=0123456789abcdef", "--join=" + where),
                           "address '%s': expected ADDR:PORT" % where, code=2)

    def test_address_of_another_machine(self):
        self.small()
        self.fails_before_training(("train", "--solver=solver.prototxt", "--workers=1",
                                    "--listen=192.0.2.1:4710"), "192.0.2.1:4710")

    def test_no_coordinator(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))  # taken, but nobody listens
            where = "127.0.0.1:%d" % free.getsockname()[1]
            result = self.fails(("worker", "--token=0123456789abcdef", "--join=" + where))
            self.assertEqual(result.err, "shoal worker: error: cannot connect to %s: Connection "
                             "refused; is the coordinator running there?\n" % where)


class Manuals(Case):
    def test_overview(self):
        out = self.succeeds("--help").out
        self.assertEqual(out, self.succeeds("help").out)
        self.assertEqual(out, self.succeeds("-h").out)
        self.assertTrue(out.startswith("usage: shoal COMMAND [flags]\n"), out)
        listed = re.search(r"\nCommands:\n((?:  .*\n)+)", out).group(1)
        self.assertEqual(tuple(line.split()[0] for line in listed.splitlines()), COMMANDS)
        for word in ("Examples:", "Environment:", "SHOAL_TOKEN", "SHOAL_CPU", "NO_COLOR",
                     "Exit codes:"):
            self.assertIn(word, out)

    def flags_of(self, command):
        out = self.succeeds(command, "--help").out
        return re.findall(r"^  --([a-z_-]+)", out, re.MULTILINE)

    def test_every_command(self):
        for command in COMMANDS:
            with self.subTest(command):
                result = self.succeeds(command, "--help")
                self.assertEqual(result.err, "")
                self.assertEqual(self.succeeds(command, "-help").out, result.out)
                self.assertTrue(result.out.startswith("usage: shoal " + command), result.out)
                self.assertIn("\nFlags (--flag=value or --flag value):\n", result.out)
                self.assertIn("  --help                    print this page\n", result.out)
                for line in result.out.splitlines():
                    self.assertLessEqual(len(line), 92, line)
                    self.assertEqual(line, line.rstrip(), line)

    def test_flags_named_in_the_manuals(self):
        self.assertLessEqual({"solver", "weights", "snapshot", "resume", "workers", "min-workers",
                              "max-failures-per-hour", "listen", "announce", "token", "encrypt", "balance", "collective",
                              "wire", "shuffle", "threads", "heartbeat_timeout", "stall-timeout",
                              "log-json"}, set(self.flags_of("train")))
        self.assertEqual(set(self.flags_of("test")),
                         {"model", "weights", "iterations", "threads", "level", "stage", "cpu",
                          "plan", "winograd", "recompute", "help"})
        self.assertEqual(set(self.flags_of("time")),
                         {"model", "phase", "iterations", "batch", "dummy-data", "shape",
                          "threads", "json", "level", "stage", "cpu", "plan", "winograd",
                          "recompute", "help"})
        self.assertEqual(set(self.flags_of("init")), {"batch", "force", "help"})
        self.assertLessEqual({"join", "discover", "token", "name", "cache-dir", "cache-size",
                              "pace", "max-temp", "max-battery-temp", "min-battery",
                              "charge-limit", "rest-when", "rejoin-timeout", "threads"}, set(self.flags_of("worker")))

    def test_the_manual_page_has_all_flags(self):
        page = read(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs",
                                 "shoal.1")).decode()
        sections = dict(re.findall(r"^\.Ss (\w+)\n(.*?)(?=^\.S[sh] )", page, re.M | re.S))
        for command in set(COMMANDS) - {"version"}:
            self.assertEqual(set(re.findall(r"Fl -([a-z_-]+)", sections[command])),
                             set(self.flags_of(command)) - {"help"}, command)

    def test_every_flag_of_a_manual_is_known(self):
        for command in COMMANDS:
            for flag in self.flags_of(command):
                result = self.run_shoal(command, "--" + flag, "--help")
                self.assertNotIn("unknown flag", result.err)


class SmallCommands(Case):
    def test_version(self):
        for args in (("version",), ("--version",)):
            self.assertRegex(self.succeeds(*args).out, r"\Ashoal \d+\.\d+\.\d+\n\Z")
        self.fails(("version", "more"), "unexpected argument: more", code=2)

    def test_device_query(self):
        out = self.succeeds("device_query").out
        self.assertRegex(out, r"\nCores: +[1-9]\d*\n")
        self.assertRegex(out, r"\nMemory: +[1-9]\d* MB, \d+ MB free\n")
        self.assertRegex(out, r"\nKernel levels: c\b")
        self.assertRegex(out, r"\nCluster 0: +[1-9]\d* cores? \([\d,-]+\)")
        self.assertRegex(out, r"\nThreads: +[1-9]\d*, on cores [\d,-]+")
        self.assertRegex(out, r"\nIn use: +\w+: (blocks of \d+ channels; tiles of \d+ x 2 vectors, |"
                         r"plain tensors)")
        out = self.succeeds("device_query", "--cpu=c").out
        self.assertTrue(out.endswith("\nIn use:        c: plain tensors, no tiles\n"), out)

    def test_given_affinity_is_kept(self):
        one = {min(os.sched_getaffinity(0))}
        out = self.succeeds("device_query", preexec=lambda: os.sched_setaffinity(0, one)).out
        self.assertRegex(out, r"\nThreads: +1, on cores %d\b" % min(one))

    def test_time(self):
        self.small()
        out = self.succeeds("time", "--model=net.prototxt", "--iterations=3", "--threads=1").out
        self.assertRegex(out, r"\Alayer +type +forward ms +backward ms +share +GFLOP +GFLOP/s +peak +"
                         r"GB moved +GB/s\n")
        table = out[:out.index("\n\n")]
        rows = re.findall(r"^(\S+) +(\S+) +\d+\.\d{3} +\d+\.\d{3} +\d+\.\d% .*$", table,
                          re.MULTILINE)
        self.assertEqual(rows, [("mnist", "Data"), ("ip1", "InnerProduct"), ("relu1", "ReLU"),
                                ("ip2", "InnerProduct"), ("loss", "SoftmaxWithLoss")])
        for line in (r"Average Forward pass: \d+\.\d+ ms\.", r"Average Backward pass: \d+\.\d+ ms\.",
                     r"Average Forward-Backward: \d+\.\d+ ms\.",
                     r"Average Update: \d+\.\d+ ms\.", r"Average Iteration: \d+\.\d+ ms\.",
                     r"GFLOP of an iteration: 0\.00; .* of the measured peak of \d+\.\d \(level \w+, "
                     r"1 thread\)",
                     r"Images per second: \d+\.\d \(batch 8, 3 iterations\)",
                     r"Memory for weights and blobs: \d+\.\d MB",
                     r"Peak resident memory: \d+\.\d MB"):
            self.assertRegex(out, "\n" + line + "\n")

    def test_test(self):
        self.small()
        self.succeeds("train", "--solver=solver.prototxt")
        out = self.succeeds("test", "--model=net.prototxt", "--weights=snap_iter_6.caffemodel",
                            "--iterations=3").out
        values = {"accuracy": [], "loss": []}
        for number, name, value in re.findall(r"^Batch (\d), (\w+) = (\S+)$", out, re.MULTILINE):
            self.assertEqual(int(number), len(values[name]))
            values[name].append(float(value))
        self.assertEqual([len(v) for v in values.values()], [3, 3])
        mean = re.search(r"^accuracy = (\S+)$", out, re.MULTILINE).group(1)
        self.assertAlmostEqual(float(mean), sum(values["accuracy"]) / 3, places=5)
        mean, loss = re.search(r"^loss = (\S+) \(\* 1 = (\S+) loss\)$", out, re.MULTILINE).groups()
        self.assertAlmostEqual(float(mean), sum(values["loss"]) / 3, places=4)
        self.assertEqual(mean, loss)
        self.assertNotIn(CSI, out)

    def test_convert(self):
        self.dataset("one")
        self.succeeds("convert_mnist_data", "--backend", "lmdb", "images.idx", "labels.idx", "two")
        self.assertEqual(read(self.path("one/data.mdb")), read(self.path("two/data.mdb")))


if __name__ == "__main__":
    unittest.main()
