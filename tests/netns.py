# SPDX-License-Identifier: Apache-2.0
"""A laboratory: many machines and the switch between them, on this one, out of network namespaces.

    with netns.Lab(8, mbit=100) as lab:
        a = lab.start(0, ["program", "--listen=%s:4000" % lab.address(0)])
        b = lab.start(1, ["program", "--join=%s:4000" % lab.address(0)])
        lab.link_down(1)

    namespace "switch": bridge br0 with the ports p0 p1 p2 ...
                                                 |  |  |         one veth pair each
    namespaces of the nodes:               eth0 of 0  1  2 ...   10.77.0.1 10.77.0.2 10.77.0.3 ...

The namespaces have no names. They are held by descriptors of this process and by whoever runs in
them, so nothing is left when these are gone, whatever ended them. The host's own network is never
touched. Addresses, MACs and neighbour tables are fixed: with more than about 32 nodes on one bridge
the kernel's table of learned neighbours would overflow.

The calls of a Lab belong in one thread. It needs root (or `unshare --user --map-root-user`), Linux,
and Debian's iproute2; available() tells. Standard library only. cluster/test_lab.py tests it."""
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
WALL = 0x40000000  # waitpid: threads, too

# A packet that is sent there arrives at the switch itself, which drops it.
NOWHERE = "02:4e:ff:ff:ff:ff"
CONGESTION = "ipv4/tcp_congestion_control"
CONGESTION_ALLOWED = "ipv4/tcp_allowed_congestion_control"
LEARNED_MAX = 32  # nodes up to which the kernel may learn the neighbours

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


class LabError(Exception):
    pass


def check(what, result):
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, "%s: %s" % (what, os.strerror(number)))


def available():
    """(True, "") where a Lab can be made, otherwise (False, why not)."""
    try:
        with Lab(2, mbit=1000) as lab:
            lab.ping(0, 1)
    except (LabError, OSError) as error:
        return False, str(error)
    return True, ""


def namespace_of_this_thread():
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def write_sysctl(name, value):
    """False where this kernel has no such setting or refuses the value."""
    try:
        with open("/proc/sys/net/" + name, "w") as f:
            f.write(value)
    except OSError:
        return False
    return True


def read_sysctl(name):
    with open("/proc/sys/net/" + name) as f:
        return f.read().strip()


def allow_congestion(name):
    """Namespaces other than the host's may choose only what the host allows everybody: its default
    (usually cubic) and this list."""
    with contextlib.suppress(OSError):
        allowed = read_sysctl(CONGESTION_ALLOWED).split()
        if name not in allowed:
            write_sysctl(CONGESTION_ALLOWED, " ".join(allowed + [name]))


class Lab:
    """`nodes` machines, numbered from 0. mbit: rate of every link in both directions, in Mbit/s;
    a list has one rate a node; None and 0 mean: as fast as it goes."""

    def __init__(self, nodes, mbit=None, congestion="cubic"):
        self.nodes = nodes
        self.processes = []
        self._switch = None
        self._spaces = []
        self._links = [True] * nodes
        self._cut = set()  # (from, to)
        self._shaped = set()
        # The kernel opens its namespaces by this path for any process of ours, also in children.
        self._path = "/proc/%d/fd/" % os.getpid()
        try:
            self._make(congestion)
            for node in range(nodes):
                rate = mbit[node] if isinstance(mbit, (list, tuple)) else mbit
                if rate:
                    self.shape(node, rate)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- construction ----

    def _make(self, congestion):
        allow_congestion(congestion)
        home = namespace_of_this_thread()
        try:
            self._switch = self._unshare()
            for _ in range(self.nodes):
                self._spaces.append(self._unshare())
                write_sysctl(CONGESTION, congestion)
            self.congestion = read_sysctl(CONGESTION)
        finally:
            if self._switch is not None:
                check("setns", libc.setns(home, CLONE_NEWNET))
            os.close(home)
        lines = [
            "link add br0 address %s type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
            % NOWHERE,
            "link set br0 up",
        ]
        for node, space in enumerate(self._spaces):
            lines.append(
                "link add p%d type veth peer name eth0 address %s netns %s%d"
                % (node, mac_of(node), self._path, space)
            )
            lines.append("link set p%d master br0 up" % node)
        self._batch(self._switch, "ip", lines)
        for node, space in enumerate(self._spaces):
            lines = [
                "link set lo up",
                "addr add %s/16 dev eth0" % self.address(node),
                "link set eth0 up",
            ]
            if self.nodes > LEARNED_MAX:
                lines += [self._neighbour(n, mac_of(n)) for n in range(self.nodes) if n != node]
            self._batch(space, "ip", lines)

    def _unshare(self):
        try:
            check("unshare", libc.unshare(CLONE_NEWNET))
        except OSError as error:
            raise LabError("no network namespaces for this user: %s" % error) from None
        # Nobody speaks IPv6 here; without it no router is looked for and no address is defended.
        write_sysctl("ipv6/conf/all/disable_ipv6", "1")
        write_sysctl("ipv6/conf/default/disable_ipv6", "1")
        return namespace_of_this_thread()

    def _neighbour(self, node, mac):
        return "neigh replace %s lladdr %s nud permanent dev eth0" % (self.address(node), mac)

    def _batch(self, space, program, lines):
        """Runs lines of `ip` or `tc` in a namespace."""
        try:
            done = subprocess.run(
                [program, "-batch", "-"],
                input="".join(line + "\n" for line in lines),
                capture_output=True,
                text=True,
                env=dict(os.environ, PATH=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"),
                preexec_fn=lambda: check("setns", libc.setns(space, CLONE_NEWNET)),
            )
        except FileNotFoundError:
            raise LabError("there is no program `%s` (Debian: iproute2)" % program) from None
        if done.returncode:
            raise LabError("%s: %s" % (program, done.stderr.strip() or "failed"))

    # ---- what runs on the nodes ----

    def address(self, node):
        return "10.77.%d.%d" % ((node + 1) >> 8, (node + 1) & 255)

    def entry(self, node):
        """For subprocess.Popen's preexec_fn: into the node; and die with this process."""
        space, parent = self._spaces[node], os.getpid()

        def enter():
            check("setns", libc.setns(space, CLONE_NEWNET))
            check("prctl", libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
            if os.getppid() != parent:
                os._exit(1)

        return enter

    def command(self, node):
        """Words to put before a command that some other program is to run on the node."""
        return ["nsenter", "--net=%s%d" % (self._path, self._spaces[node]), "--"]

    @contextlib.contextmanager
    def inside(self, node):
        """The calling thread is on the node; sockets that it makes stay there."""
        home = namespace_of_this_thread()
        try:
            check("setns", libc.setns(self._spaces[node], CLONE_NEWNET))
            try:
                yield
            finally:
                check("setns", libc.setns(home, CLONE_NEWNET))
        finally:
            os.close(home)

    def start(self, node, argv, env=None, stdout=None, stderr=None, cwd=None):
        """Starts a program on a node; its Popen, whose pid is the program's own. env is added to
        this process's. stdout, stderr: names of files, or what Popen takes."""
        files = [open(f, "wb") if isinstance(f, str) else f for f in (stdout, stderr)]
        try:
            process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=dict(os.environ, **(env or {})),
                stdin=subprocess.DEVNULL,
                stdout=files[0],
                stderr=files[1],
                preexec_fn=self.entry(node),
            )
        finally:
            for file, name in zip(files, (stdout, stderr)):
                if isinstance(name, str):
                    file.close()
        self.processes = [p for p in self.processes if p.returncode is None] + [process]
        return process

    def inhabitants(self):
        """All processes in this lab, whoever started them."""
        spaces = {os.fstat(space).st_ino for space in self._spaces}
        found = []
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if name.isdigit() and os.stat("/proc/%s/ns/net" % name).st_ino in spaces:
                    found.append(int(name))
        return found

    # ---- what happens to the links ----

    def shape(self, node, mbit):
        """Sets the rate of both directions of a node's link; 0: as fast as it goes."""
        verb = "replace" if mbit else "del"
        if not mbit and node not in self._shaped:
            return
        # A token bucket of at least one segment of 64 KiB and 1 ms, and a queue of 10 ms behind it,
        # but for no fewer than 100 full packets: as a switch has it.
        burst = max(65536 + 2048, mbit * 125)
        limit = burst + max(150000, mbit * 1250)
        how = " tbf rate %gmbit burst %d limit %d" % (mbit, burst, limit) if mbit else ""
        self._batch(self._spaces[node], "tc", ["qdisc %s dev eth0 root%s" % (verb, how)])
        self._batch(self._switch, "tc", ["qdisc %s dev p%d root%s" % (verb, node, how)])
        (self._shaped.add if mbit else self._shaped.discard)(node)

    def link_down(self, node):
        """The cable is pulled: nobody gets a FIN, and the node's own side has no carrier."""
        self._batch(self._switch, "ip", ["link set p%d down" % node])
        self._links[node] = False

    def link_up(self, node):
        self._batch(self._switch, "ip", ["link set p%d up" % node])
        self._links[node] = True

    def drop(self, source, target):
        """What source sends to target is lost from now on; source cannot tell."""
        self._route([(source, target)], True)

    def undrop(self, source, target):
        self._route([(source, target)], False)

    def cut(self, a, b):
        """Two nodes cannot reach each other, while all others reach both."""
        self._route([(a, b), (b, a)], True)

    def heal(self, a, b):
        self._route([(a, b), (b, a)], False)

    def half_open(self, node):
        """Whatever the node sends to anybody is lost; it hears all."""
        self._route([(node, n) for n in range(self.nodes) if n != node], True)

    def mend(self, node):
        """Ends half_open, drop and cut of a node, both ways, and plugs the cable in."""
        self._route([pair for pair in self._cut if node in pair], False)
        if not self._links[node]:
            self.link_up(node)

    def _route(self, pairs, nowhere):
        # A wrong entry of the neighbour table. A packet filter in the node would not do: what it
        # drops on the way out is an error that TCP hears of.
        lines = {}
        for source, target in sorted(pairs):
            mac = NOWHERE if nowhere else mac_of(target)
            lines.setdefault(source, []).append(self._neighbour(target, mac))
            (self._cut.add if nowhere else self._cut.discard)((source, target))
        for source, batch in lines.items():
            self._batch(self._spaces[source], "ip", batch)

    def ping(self, a, b):
        """Raises unless a reaches b by TCP."""
        import socket

        with contextlib.ExitStack() as stack:
            with self.inside(b):
                server = stack.enter_context(socket.create_server((self.address(b), 0)))
            with self.inside(a):
                client = stack.enter_context(socket.socket())
            client.settimeout(2)
            try:
                client.connect(server.getsockname())
            except OSError as error:
                raise LabError("node %d does not reach node %d: %s" % (a, b, error)) from None

    # ---- the end ----

    def close(self):
        """Kills what runs on the nodes and lets the namespaces go. A second call does nothing."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
        # Whoever is left was started by these, or by somebody through command().
        deadline = time.monotonic() + 10
        while self._spaces and time.monotonic() < deadline:
            for process in self.processes:
                process.poll()
            left = [pid for pid in self.inhabitants() if pid != os.getpid()]
            if not left:
                break
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        for process in self.processes:
            process.wait()
        self.processes = []
        for space in self._spaces + ([] if self._switch is None else [self._switch]):
            os.close(space)
        self._spaces, self._switch = [], None


def mac_of(node):
    return "02:4e:00:00:%02x:%02x" % (node >> 8, node & 255)


# ---- single threads ----


def threads(pid):
    """Number -> name of a process's threads."""
    found = {}
    for tid in os.listdir("/proc/%d/task" % pid):
        with contextlib.suppress(OSError), open("/proc/%d/task/%s/comm" % (pid, tid)) as f:
            found[int(tid)] = f.read().strip()
    return found


class FrozenThread:
    """One thread of a process that does not run until thaw(), while the others do."""

    def __init__(self, tid):
        # The tracer is a process of its own: it must reap the thread when the process is killed,
        # or nobody's wait() for that process would ever return.
        self._tracer = subprocess.Popen(
            [sys.executable, "-I", "-S", os.path.abspath(__file__), "--hold", str(tid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        told = self._tracer.stdout.readline().strip()
        if told != "held":
            self._tracer.stdout.close()
            self._tracer.wait()
            raise LabError("thread %d cannot be stopped: %s" % (tid, told or "the tracer failed"))

    def thaw(self):
        """A second call, or one after the process's end, does nothing."""
        if self._tracer.returncode is None:
            self._tracer.terminate()
            self._tracer.wait()
            self._tracer.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.thaw()


def freeze_thread(pid, tid):
    if tid not in threads(pid):
        raise LabError("process %d has no thread %d" % (pid, tid))
    return FrozenThread(tid)


def thaw_thread(frozen):
    frozen.thaw()


def hold(tid):
    """What the tracer does: stops a thread until SIGTERM, its end or the parent's."""

    def ptrace(request):
        check("ptrace", libc.ptrace(request, tid, None, None))

    def let_go(*_):
        with contextlib.suppress(OSError):
            ptrace(PTRACE_DETACH)
        os._exit(0)

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    signal.signal(signal.SIGTERM, let_go)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    try:
        ptrace(PTRACE_SEIZE)
        ptrace(PTRACE_INTERRUPT)
        status = os.waitpid(tid, WALL)[1]
    except OSError as error:
        sys.exit(print(error.strerror))
    if not os.WIFSTOPPED(status):
        sys.exit(print("it has ended"))
    print("held", flush=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    # A stopped thread reports nothing but that the whole process is stopped or gone on, or its end.
    while os.WIFSTOPPED(os.waitpid(tid, WALL)[1]):
        pass


if __name__ == "__main__" and sys.argv[1:2] == ["--hold"]:
    hold(int(sys.argv[2]))
