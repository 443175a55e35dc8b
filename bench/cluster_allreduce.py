# SPDX-License-Identifier: Apache-2.0
"""Allreduce over shaped links: Shoal's ring beside Gloo, Open MPI and MPICH. See cluster.py."""
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PEERS = os.path.join(HERE, "peers")
PORT = 7000


class Failed(Exception):
    pass


def patience(size):
    """Seconds after which one run of one engine counts as hung; all ranks share a few cores."""
    return 90 + 2 * size


def build(folder, name, words):
    """The path of a peer, which is compiled unless it is there and newer than its source."""
    target, source = os.path.join(folder, name), os.path.join(PEERS, words[-1])
    if os.path.exists(target) and os.path.getmtime(target) > os.path.getmtime(source):
        return target
    if not shutil.which(words[0]):
        raise Failed("there is no %s" % words[0])
    libraries = ["-lgloo", "-pthread"] if source.endswith(".cc") else ["-lm"]
    done = subprocess.run(
        words[:-1] + ["-O3", source, "-o", target] + libraries, capture_output=True, text=True
    )
    if done.returncode:
        raise Failed("it does not compile: " + done.stderr.strip().partition("\n")[0])
    return target


def flags(**values):
    """--name value ..., for all of the programs."""
    return [word for name, value in values.items() for word in ("--" + name, str(value))]


class Engine:
    """One engine on one lab. run() gives [{"seconds", "cpu_seconds"}], one a repetition: the time
    of the slowest rank, and the CPU time of a rank, averaged over all."""

    def __init__(self, name, arguments, peers):
        self.name = name
        self.bytes = int(arguments.bytes)

    def sizes(self, buckets, repeat):
        return flags(bytes=self.bytes, buckets=buckets, repeat=repeat)

    def run(self, lab, folder, size, buckets, repeat):
        """All ranks as processes of ours; each prints its own times."""
        outs = [os.path.join(folder, "out%d" % rank) for rank in range(size)]
        errors = os.path.join(folder, "err")
        with open(errors, "wb") as err:
            started = [
                lab.start(
                    rank,
                    self.words(lab, folder, rank, size, buckets, repeat),
                    stdout=out,
                    stderr=err,
                )
                for rank, out in enumerate(outs)
            ]
        in_time = finish(started, patience(size))
        told = [lines_of(out) for out in outs]
        if any(p.returncode for p in started) or any(len(lines) != repeat for lines in told):
            codes = "exit codes %s" % [p.returncode for p in started]
            raise Failed((first_line(errors) or codes) if in_time else "it hangs")
        return [
            {
                "seconds": max(rank["seconds"] for rank in turn),
                "cpu_seconds": statistics.mean(rank["cpu_seconds"] for rank in turn),
            }
            for turn in zip(*told)
        ]


class Shoal(Engine):
    """shoal, shoal-fp16, shoal-bf16, each also with -encrypt."""

    def __init__(self, name, arguments, peers):
        super().__init__(name, arguments, peers)
        self.program = os.path.join(arguments.build, "bench_collective")
        if not os.path.exists(self.program):
            raise Failed("there is no %s" % self.program)

    def words(self, lab, folder, rank, size, buckets, repeat):
        parts = self.name.split("-")[1:]
        wire = [part for part in parts if part != "encrypt"] or ["fp32"]
        hosts = ",".join(lab.address(n) for n in range(size))
        words = flags(rank=rank, size=size, hosts=hosts, port=PORT, format=wire[0])
        words += ["--encrypt"] if "encrypt" in parts else []
        return [self.program] + words + self.sizes(buckets, repeat)


class Gloo(Engine):
    """gloo, gloo-serial: one bucket at a time."""

    def __init__(self, name, arguments, peers):
        super().__init__(name, arguments, peers)
        self.program = build(peers, "gloo", ["g++", "-std=c++17", "gloo.cc"])

    def words(self, lab, folder, rank, size, buckets, repeat):
        threads = 1 if self.name.endswith("-serial") else 2
        host = lab.address(rank)
        words = flags(rank=rank, size=size, host=host, store=folder, threads=threads)
        return [self.program] + words + self.sizes(buckets, repeat)


class Mpi(Engine):
    """openmpi, openmpi-ring (its segmented ring, what it has for slow links); mpich, mpich-ring;
    each also with -serial: one bucket at a time."""

    def __init__(self, name, arguments, peers):
        super().__init__(name, arguments, peers)
        self.kind = name.split("-")[0]
        self.program = build(peers, "mpi_" + self.kind, ["mpicc." + self.kind, "mpi.c"])

    def launcher(self, lab, agent, size, buckets, folder):
        ring = "-ring" in self.name
        hosts = [lab.address(n) for n in range(size)]
        if self.kind == "openmpi":
            settings = {
                "plm_rsh_agent": agent,
                "plm_rsh_no_tree_spawn": "1",
                "plm": "rsh",
                "btl": "tcp,self",
                "btl_tcp_if_include": "eth0",
                "oob_tcp_if_include": "eth0",
                "pml": "ob1",
                "orte_tmpdir_base": folder,
                # There are more ranks than cores here.
                "mpi_yield_when_idle": "1",
            }
            if ring:
                settings.update(
                    coll_tuned_use_dynamic_rules="1",
                    coll_tuned_allreduce_algorithm="5",
                    coll_tuned_allreduce_algorithm_segmentsize="1048576",
                    coll_libnbc_iallreduce_algorithm="1",
                )
            words = "mpirun.openmpi --allow-run-as-root --bind-to none --map-by node".split()
            words += ["--host", ",".join(h + ":1" for h in hosts), "-np", str(size)]
            return words + [w for item in settings.items() for w in ("--mca",) + item], {}
        env = {"UCX_TLS": "tcp,self", "UCX_NET_DEVICES": "eth0", "UCX_WARN_UNUSED_ENV_VARS": "n"}
        if ring:
            env.update(
                MPIR_CVAR_ALLREDUCE_INTRA_ALGORITHM="nb",
                MPIR_CVAR_IALLREDUCE_INTRA_ALGORITHM="tsp_ring",
                MPIR_CVAR_DEVICE_COLLECTIVES="none",
            )
        words = "mpiexec.hydra -launcher ssh -iface eth0 -bind-to none -ppn 1".split()
        words += ["-launcher-exec", agent, "-hosts", ",".join(hosts), "-n", str(size)]
        return words, env

    def run(self, lab, folder, size, buckets, repeat):
        agent, out, errors = (os.path.join(folder, name) for name in ("agent", "out", "err"))
        write_agent(agent, lab)
        words, env = self.launcher(lab, agent, size, buckets, folder)
        # Of one bucket the blocking call is the faster one everywhere.
        inflight = buckets > 1 and not self.name.endswith("-serial")
        words += [self.program] + flags(inflight=int(inflight)) + self.sizes(buckets, repeat)
        process = lab.start(0, words, env=env, stdout=out, stderr=errors)
        # MPICH at times hangs when all is done: what counts is there by then.
        deadline = time.monotonic() + patience(size)
        while (
            process.poll() is None and len(lines_of(out)) < repeat and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        ended = process.poll() is not None
        told = lines_of(out)
        if len(told) == repeat:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
        clear(lab)
        if len(told) != repeat:
            reason = first_line(errors) or "exit code %s" % process.returncode
            raise Failed(reason if ended else "it hangs")
        return told


ENGINES = {"shoal": Shoal, "gloo": Gloo, "openmpi": Mpi, "mpich": Mpi}


def write_agent(path, lab):
    """What MPI's launchers call instead of ssh: [flags] HOST COMMAND..."""
    lines = [
        "#!/bin/sh",
        'while [ "${1#-}" != "$1" ]; do shift; done',
        "host=$1; shift",
        "case $host in",
    ]
    for node in range(lab.nodes):
        lines.append("%s) enter='%s' ;;" % (lab.address(node), " ".join(lab.command(node))))
    with open(path, "w") as f:
        f.write("\n".join(lines + ["esac", 'exec $enter sh -c "$*"', ""]))
    os.chmod(path, 0o755)


def lines_of(path):
    """The complete lines that are JSON."""
    with open(path, encoding="utf-8", errors="replace") as f:
        return [json.loads(line) for line in f.read().split("\n")[:-1] if line.startswith("{")]


def first_line(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        lines = [line.strip() for line in f if line.strip(" -*\n")]
    return lines[0] if lines else ""


def finish(processes, seconds):
    """Waits for all; once one has failed, or time is up, the others are killed. False when so."""
    deadline, in_time = time.monotonic() + seconds, True
    while any(p.poll() is None for p in processes):
        failed = any(p.returncode for p in processes)
        in_time = in_time and (failed or time.monotonic() < deadline)
        if failed or not in_time:
            for process in processes:
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
        time.sleep(0.01)
    return in_time


def clear(lab):
    """Ends all that still runs on the nodes."""
    while True:
        left = [pid for pid in lab.inhabitants() if pid != os.getpid()]
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in lab.processes:
            process.poll()
        time.sleep(0.01)


def make_engines(arguments):
    peers = os.path.join(arguments.build, "peers")
    os.makedirs(peers, exist_ok=True)
    engines = []
    for name in arguments.engines:
        try:
            engines.append(ENGINES[name.split("-")[0]](name, arguments, peers))
        except KeyError:
            raise SystemExit("no engine %s; there are %s" % (name, ", ".join(ENGINES))) from None
        except Failed as failure:
            print("without %s: %s" % (name, failure), flush=True)
    return engines


def in_turn(lab, engines, size, buckets, arguments):
    """{engine: [one measurement a round]}: A B C A B C ... A run's first repetition warms up."""
    found = {engine.name: [] for engine in engines}
    failures = {}
    for _ in range(arguments.repeat):
        for engine in engines:
            if failures.get(engine.name, 0) > 1:
                continue
            with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
                try:
                    found[engine.name] += engine.run(lab, folder, size, buckets, 2)[1:]
                except Failed as failure:
                    failures[engine.name] = failures.get(engine.name, 0) + 1
                    print(
                        "%s, %d nodes, %d buckets: %s" % (engine.name, size, buckets, failure),
                        flush=True,
                    )
                    clear(lab)
    return found


def allreduce(arguments, open_lab):
    engines = make_engines(arguments)
    results = []
    for mbit in arguments.mbit:
        print(
            "\n%.0f MB of gradients at %g Mbit/s a node; %% of the ring's bound"
            % (arguments.bytes / 1e6, mbit)
        )
        print(
            "%5s %7s  %-18s %10s %9s %7s %7s %12s %4s"
            % (
                "nodes",
                "buckets",
                "engine",
                "median s",
                "best s",
                "median",
                "best",
                "CPU s/rank",
                "runs",
            )
        )
        for size in arguments.nodes:
            with open_lab(size, mbit) as lab:
                for buckets in arguments.buckets:
                    for name, runs in in_turn(lab, engines, size, buckets, arguments).items():
                        if runs:
                            results.append(row(name, runs, size, buckets, mbit, arguments.bytes))
    return results


def row(name, runs, size, buckets, mbit, size_bytes):
    bound = 2 * (size - 1) / size * size_bytes * 8 / (mbit * 1e6)
    seconds = [run["seconds"] for run in runs]
    result = {
        "engine": name,
        "nodes": size,
        "mbit": mbit,
        "bytes": size_bytes,
        "buckets": buckets,
        "bound_s": bound,
        "seconds": seconds,
        "median_s": statistics.median(seconds),
        "best_s": min(seconds),
        "cpu_seconds": statistics.median(run["cpu_seconds"] for run in runs),
    }
    print(
        "%5d %7d  %-18s %10.3f %9.3f %6.1f%% %6.1f%% %12.3f %4d"
        % (
            size,
            buckets,
            name,
            result["median_s"],
            result["best_s"],
            100 * bound / result["median_s"],
            100 * bound / result["best_s"],
            result["cpu_seconds"],
            len(runs),
        ),
        flush=True,
    )
    return result
