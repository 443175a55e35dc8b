# SPDX-License-Identifier: Apache-2.0
"""How the tests start the processes of an MPI job, be it Open MPI's or MPICH's."""
import os
import sys
from unittest import mock

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, ".."), os.path.join(HERE, "..", "cluster")]
import harness

MPIEXEC = os.environ.get("SHOAL_MPIEXEC")

# For Open MPI, which MPICH does not read: tests may run as root, with more ranks than cores. Its
# shared memory asks for a system call that containers forbid. TERM: it gives rank 0 a terminal.
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
    "TERM": "dumb",
}


class Case(harness.Case):
    def start_ranks(self, n, program, *arguments, folder=None):
        with mock.patch.object(harness, "binary", MPIEXEC):
            return self.start(
                "-n", str(n), program, *arguments, folder=folder, environment=ENVIRONMENT
            )

    def start_mpi(self, n, *arguments, folder=None):
        flags = ("train", "--collective=mpi", "--log-json=@LOG")
        return self.start_ranks(n, harness.binary, *flags, *arguments, folder=folder)

    def mpi(self, n, *arguments, code=0, folder=None):
        """Trains with n ranks to the end. code None: any but 0."""
        process = self.start_mpi(n, *arguments, folder=folder)
        self.check_end(process, code)
        return process

    def check_end(self, process, code):
        ended = process.wait()
        good = ended != 0 if code is None else ended == code
        self.assertTrue(good, "%d of %s:\n%s" % (ended, process.arguments, process.text()))

    def ranks(self, process):
        """The pids of the ranks, lowest first, wherever mpiexec has put them below itself."""
        name = os.path.basename(harness.binary)
        found = []
        for pid in sorted(harness.marked(self.mark)):
            try:
                words = harness.read_bytes("/proc/%d/cmdline" % pid).split(b"\0")
            except OSError:
                continue
            if os.path.basename(words[0]).decode() == name and pid != process.pid:
                found.append(pid)
        return found
