# SPDX-License-Identifier: Apache-2.0
"""`mpirun -n N shoal train --collective=mpi` computes what one process computes, and what the ring
computes; and it ends as one, whatever happens to one of its ranks."""
import os
import signal
import struct
import unittest

import launch
import common
import harness

RANKS = (1, 2, 3, 4)
ENDINGS = (".caffemodel", ".solverstate")


def batch_norm_net(batch):
    """The statistics of a batch normalisation are those of a rank's share."""
    net = common.smooth_net(batch)
    inner = 'layer { name: "ip1" type: "InnerProduct" bottom: "conv2_pool"'
    assert inner in net
    return net.replace(
        inner,
        'layer { name: "bn" type: "BatchNorm" bottom: "conv2_pool" top: "bn" }\n'
        'layer { name: "ip1" type: "InnerProduct" bottom: "bn"',
    )


class Base(launch.Case):
    def setUp(self):
        super().setUp()
        self.sums = harness.make_digits(self)

    def place(self, name, net, **solvers):
        """A folder with a net, its solvers, and the data in reach."""
        where = self.make(name)
        os.symlink(self.path("digits"), os.path.join(where, "digits"))
        self.write(os.path.join(name, "net.prototxt"), net)
        for solver, text in solvers.items():
            self.write(os.path.join(name, solver + ".prototxt"), text)
        return where


@unittest.skipIf(launch.MPIEXEC, "this build has MPI")
class Without(Base):
    def test_it_says_what_is_missing(self):
        where = self.place("w", harness.lenet(8), s=harness.solver(2))
        process = self.train("--solver=s.prototxt", "--collective=mpi", code=1, folder=where)
        self.assertIn("this build has no MPI: build Shoal with -DSHOAL_MPI=ON", process.err())
        process = self.train("--solver=s.prototxt", "--collective=gloo", code=2, folder=where)
        self.assertIn("there are ring and mpi", process.err())


@unittest.skipUnless(launch.MPIEXEC, "this build has no MPI")
class Equality(Base):
    def check_same(self, one, two, last, floor=1e-2, bits=False):
        """Two runs: (folder, process)."""
        losses = [common.losses_of(p) for _, p in (one, two)]
        self.assertEqual(len(losses[0]), last)
        common.check_close(self, *losses)
        common.check_tests_close(self, common.tests_of(one[1]), common.tests_of(two[1]))
        common.check_close(
            self, *[[e["loss"] for e in p.events("final_loss")] for _, p in (one, two)]
        )
        for ending in ENDINGS:
            a, b = (os.path.join(w, "snap_iter_%d%s" % (last, ending)) for w, _ in (one, two))
            common.check_saved_close(self, a, b, floor)
            if bits:
                self.assert_same_file(a, b)
        if bits:
            self.assertEqual(*losses)

    def check_all(self, net, solver, last, ranks=RANKS, single=True):
        """One process, rings and MPI; single: shares do not matter."""
        flags = ("--solver=s.prototxt", "--threads=1", "--check_interval=1")
        where = self.place("single", net, s=solver)
        alone = where, self.train(*flags, folder=where)
        for n in ranks:
            with self.subTest(ranks=n):
                there = self.place("mpi%d" % n, net, s=solver)
                mpi = there, self.mpi(n, *flags, folder=there)
                there = self.place("ring%d" % n, net, s=solver)
                ring = there, self.train("--workers=%d" % n, *flags, folder=there)
                if single or n == 1:
                    self.check_same(alone, mpi, last, bits=n == 1)
                self.check_same(ring, mpi, last, bits=n == 1)
        return alone[1]

    def test_losses_and_weights(self):
        # Tests of 5 batches do not come out even among the ranks.
        solver = harness.solver(30, base_lr=0.01, test_iter=5, test_interval=8)
        losses = common.losses_of(self.check_all(common.smooth_net(32), solver, 30))
        self.assertLess(losses[-1], 0.8 * losses[0])  # it learns

    def test_iter_size_and_clipping(self):
        solver = harness.solver(12, iter_size=2, clip_gradients=0.5, average_loss=3)
        single = self.check_all(common.smooth_net(16), solver, 12, (1, 3))
        self.assertIn("Gradient clipping", single.out())

    def test_batch_normalisation(self):
        solver = harness.solver(10, base_lr=0.005, test_iter=3, test_interval=4)
        self.check_all(batch_norm_net(24), solver, 10, (1, 2, 4), single=False)

    def test_fewer_samples_than_ranks(self):
        solver = harness.solver(10, base_lr=0.002, test_iter=2, test_interval=5)
        self.check_all(common.smooth_net(2, test_batch=3), solver, 10, (4,))

    def test_sample_order(self):
        for n in (2, 3):
            with self.subTest(ranks=n):
                where = self.place("o%d" % n, common.order_net(7), s=harness.solver(6, base_lr=0))
                process = self.mpi(n, "--solver=s.prototxt", folder=where)
                want = [
                    [self.sums[(i * 7 + k) % len(self.sums)] for k in range(7)] for i in range(7)
                ]
                self.assertEqual(common.sums_of(process), want)

    def test_ranks_share_a_seed(self):
        """Without random_seed each process makes one up: rank 0's must hold for all. An epoch in
        random order has every record once."""
        solver = harness.solver(7, base_lr=0).replace("random_seed: 1701\n", "")
        self.assertNotIn("random_seed", solver)
        where = self.place("seed", common.order_net(32), s=solver)
        process = self.mpi(3, "--solver=s.prototxt", "--shuffle=global", folder=where)
        seen = sum(common.sums_of(process), [])
        self.assertEqual(sorted(seen), sorted(self.sums))
        self.assertNotEqual(seen, self.sums)

    def test_start_weights(self):
        net = common.smooth_net(24)
        where = self.place("pre", net, s=harness.solver(5))
        self.train("--solver=s.prototxt", folder=where)
        solver = harness.solver(5, random_seed=3)
        flags = ("--solver=s.prototxt", "--weights=../pre/snap_iter_5.caffemodel")
        runs = []
        for n in (0, 3):
            there = self.place("from%d" % n, net, s=solver)
            run = self.mpi(n, *flags, folder=there) if n else self.train(*flags, folder=there)
            runs.append((there, run))
        self.check_same(*runs, 5)

    def test_snapshot_and_resume(self):
        net = common.smooth_net(24)
        steps = {name: harness.solver(n) for name, n in (("a", 10), ("b", 20), ("c", 30))}
        where = self.place("mixed", net, **steps)
        self.mpi(3, "--solver=a.prototxt", folder=where)
        self.mpi(2, "--solver=b.prototxt", "--resume=snap_iter_10.solverstate", folder=where)
        process = self.train(
            "--solver=c.prototxt", "--resume=snap_iter_20.solverstate", folder=where
        )
        there = self.place("whole", net, **steps)
        whole = self.mpi(4, "--solver=c.prototxt", folder=there)
        common.check_close(self, common.losses_of(whole)[20:], common.losses_of(process))
        for ending, floor in ((".caffemodel", 1e-2), (".solverstate", 1e-5)):
            file = "snap_iter_30" + ending
            common.check_saved_close(
                self, os.path.join(there, file), os.path.join(where, file), floor
            )
        # --snapshot begins with the first record again, which makes another run of it.
        again = self.mpi(
            2, "--solver=b.prototxt", "--snapshot=snap_iter_10.solverstate", folder=where
        )
        self.assertEqual(again.iterations()[0]["iter"], 10)
        with self.assertRaises(AssertionError):
            common.check_close(self, common.losses_of(whole)[10:20], common.losses_of(again))


@unittest.skipUnless(launch.MPIEXEC, "this build has no MPI")
class Ends(Base):
    def check_told_once(self, process, text):
        self.check_end(process, None)
        self.assertEqual(process.text().count("error:"), 1, process.text())
        line = [s for s in process.err().splitlines() if "error:" in s][0]
        self.assertRegex(line, text)

    def endless(self, net=None):
        return self.place("endless", net or harness.lenet(24), s=harness.solver(common.ENDLESS))

    def test_a_bad_solver_is_told_once(self):
        self.write("bad.prototxt", 'net: "nowhere.prototxt"\nbase_lr: what\n')
        for n in (1, 3):
            process = self.start_mpi(n, "--solver=bad.prototxt")
            self.check_told_once(process, r"^shoal train: error: bad\.prototxt:2:")

    def test_what_it_refuses(self):
        where = self.place("no", harness.lenet(8), s=harness.solver(2))
        for flag, text in (
            ("--wire=fp16", "travel as fp32"),
            ("--encrypt", "MPI encrypts nothing"),
            ("--workers=2", "mpirun starts the processes"),
            ("--shuffle=some", "shuffle is 'some'"),
        ):
            with self.subTest(flag=flag):
                process = self.start_mpi(2, "--solver=s.prototxt", flag, folder=where)
                self.check_told_once(process, text)

    def start_different(self, where, n=3):
        """Rank r has a solver of its own, r.prototxt."""
        script = 'exec "%s" train --collective=mpi --solver=${OMPI_COMM_WORLD_RANK:-$PMI_RANK}.%s'
        command = script % (harness.binary, "prototxt")
        return self.start_ranks(n, "sh", "-c", command, folder=where)

    def test_one_rank_that_cannot_begin(self):
        text = harness.solver(2)
        where = self.place("odd", harness.lenet(8), **{"0": text, "2": text})
        self.check_told_once(self.start_different(where), r"error: rank 1 on .*: 1\.prototxt")

    def test_ranks_with_different_jobs(self):
        text = harness.solver(2)
        other = {"0": text, "1": text, "2": harness.solver(2, base_lr=0.3)}
        where = self.place("odd", harness.lenet(8), **other)
        self.check_told_once(self.start_different(where), r"error: rank 2 on .*another job")

    def test_a_snapshot_that_cannot_be_written(self):
        """Only rank 0 can know; the others are on their way to the next sum."""
        solver = harness.solver(common.ENDLESS, prefix="gone/snap")
        where = self.place("no", harness.lenet(24), s=solver)
        self.make("no/gone")
        process = self.start_mpi(3, "--solver=s.prototxt", folder=where)
        process.wait_iteration(3)
        os.rmdir(os.path.join(where, "gone"))
        os.kill(self.ranks(process)[0], signal.SIGHUP)
        self.check_told_once(process, "error: gone/snap_iter_")

    def test_a_record_that_is_damaged(self):
        """Sample 36 is number 12 of the second batch: rank 1 of 3 alone meets it."""
        where = self.place("bad", harness.lenet(24), s=harness.solver(10))
        path = self.path("digits", "data.mdb")
        image = harness.read_bytes(self.path("images"))[16 + 36 * 784 :][:784]
        data = bytearray(harness.read_bytes(path))
        at = data.find(image)
        head = bytes(data[at - 9 : at - 7])
        self.assertEqual(head, b"\x08\x01")  # channels: 1
        data[at - 8] = 2
        with open(path, "wb") as f:
            f.write(data)
        process = self.start_mpi(3, "--solver=s.prototxt", folder=where)
        self.check_told_once(process, "error: rank 1 on .*: record 36 of digits")

    def test_a_rank_that_is_killed(self):
        process = self.start_mpi(3, "--solver=s.prototxt", folder=self.endless())
        process.wait_iteration(3)
        ranks = self.ranks(process)
        self.assertEqual(len(ranks), 3)
        os.kill(ranks[1], signal.SIGKILL)
        self.check_end(process, None)

    def test_a_signal_to_any_rank(self):
        where = self.endless()
        process = self.start_mpi(3, "--solver=s.prototxt", folder=where)
        process.wait_iteration(3)
        ranks = self.ranks(process)
        os.kill(ranks[2], signal.SIGHUP)
        harness.wait_for("a snapshot", lambda: len(process.events("snapshot")) == 2, process)
        at = process.events("snapshot")[0]["iter"]
        process.wait_iteration(at + 5)
        os.kill(ranks[1], signal.SIGINT)
        self.check_end(process, 0)
        self.assertEqual(process.err().count("stopped on request"), 1, process.err())
        self.assertEqual(len(process.events("snapshot")), 4)
        self.write("endless/more.prototxt", harness.solver(at + 2))
        flags = ("--solver=more.prototxt", "--resume=snap_iter_%d.solverstate" % at)
        self.mpi(2, *flags, folder=where)

    def test_a_flipped_bit_is_found(self):
        value = 0.123456791  # of a blob that never changes
        net = common.smooth_net(32).replace(
            "param { lr_mult: 2 decay_mult: 0 } inner_product_param { num_output: 10",
            "param { lr_mult: 0 decay_mult: 0 } inner_product_param { "
            'bias_filler { type: "constant" value: %.9g } num_output: 10' % value,
        )
        self.assertIn("bias_filler", net)
        process = self.start_mpi(
            3, "--solver=s.prototxt", "--check_interval=1", folder=self.endless(net)
        )
        process.wait_iteration(3)
        victim = self.ranks(process)[1]
        os.kill(victim, signal.SIGSTOP)
        try:
            found = common.poke(
                victim, struct.pack("<f", value) * 10, struct.pack("<f", value + 1e-7)
            )
        except PermissionError:
            found = -1
        os.kill(victim, signal.SIGCONT)
        if found < 0:
            os.kill(victim, signal.SIGINT)
            self.check_end(process, 0)
            self.skipTest("the memory of a child cannot be written here")
        self.assertGreater(found, 0)
        self.check_told_once(process, r"iteration \d+: rank \d on .* holds other weights")


if __name__ == "__main__":
    harness.main()
