# SPDX-License-Identifier: Apache-2.0
"""`shoal deploy --ssh`: real sshds on loopback, each with its own port and home, so that each looks
like a host of its own. They are ordinary processes of the test; the system's are not touched."""
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys

from common import STUB, TOKEN, Deployment, harness

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
USER = pwd.getpwuid(os.getuid()).pw_name
JOIN = "--join=127.0.0.1:9"  # the stub does not connect

SERVER = """
ListenAddress 127.0.0.1
Port %(port)d
HostKey %(key)s
AuthorizedKeysFile %(authorized)s
PidFile none
StrictModes no
UsePAM %(pam)s
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv HOME=%(home)s %(mark)s
MaxStartups 100
"""

CLIENT = """
Host *
IdentityFile %(identity)s
IdentitiesOnly yes
UserKnownHostsFile %(known)s
GlobalKnownHostsFile /dev/null
StrictHostKeyChecking yes
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def make_key(path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True,
                   stdin=subprocess.DEVNULL)
    return harness.read_text(path + ".pub")


class Ssh(Deployment):
    def setUp(self):
        super().setUp()
        self.servers = []
        self.host_key = make_key(self.path("host_key"))
        self.write("authorized", make_key(self.path("key")))
        self.write("known", "")
        self.set_key("key")
        tools = self.make("tools")
        with open(os.path.join(tools, "ssh"), "w", encoding="utf-8") as f:
            f.write("#!/bin/sh\nexec %s -F '%s' \"$@\"\n"
                    % (shutil.which("ssh"), self.path("client")))
        os.chmod(os.path.join(tools, "ssh"), 0o755)
        self.environment["PATH"] = tools + ":" + os.environ["PATH"]

    def tearDown(self):
        for server in self.servers:
            server.terminate()
            server.wait()
        super().tearDown()

    def set_key(self, name):
        self.write("client", CLIENT % {"identity": self.path(name), "known": self.path("known")})

    def know(self, port, key=None):
        with open(self.path("known"), "a", encoding="utf-8") as f:
            f.write("[127.0.0.1]:%d %s" % (port, key or self.host_key))

    def serve(self, known=True):
        """A host; returns how it is named, and its home."""
        port, name = free_port(), "home-%d" % len(self.servers)
        home = self.make(name)
        mark = " ".join("%s=%s" % (n, v) for n, v in (
            (harness.MARK, self.mark), ("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS"))) if v)
        self.write("sshd-%d" % port, SERVER % {
            "port": port, "key": self.path("host_key"), "authorized": self.path("authorized"),
            "home": home, "mark": mark, "pam": "yes" if os.getuid() == 0 else "no"})
        log = open(self.path("sshd-log-%d" % port), "wb")
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", self.path("sshd-%d" % port)],
                                  stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        self.servers.append(server)

        def ready():
            if server.poll() is not None:
                raise AssertionError(harness.read_text(self.path("sshd-log-%d" % port)))
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return True
            except OSError:
                return False

        harness.wait_for("sshd", ready)
        if known:
            self.know(port)
        return "%s@127.0.0.1:%d" % (USER, port), os.path.join(home, ".shoal")

    def pid(self, folder):
        return int(harness.read_text(os.path.join(folder, "pid")).split()[0])

    def test_life_of_a_worker(self):
        """A whole training by workers that came by ssh."""
        self.use_binary()
        hosts = dict(self.serve() for _ in range(3))
        coordinator = self.listen(workers=3)
        join = "--join=" + self.address(coordinator)
        self.write("hosts", "# all of them\n\n" + "\n".join(hosts) + "\n")
        told = self.deploy("--ssh=@" + self.path("hosts"), join, "--", "--threads=1")
        self.assertEqual(self.states(told), {host: "started" for host in hosts})
        self.wait_joined(coordinator, 3)
        names = ",".join(hosts)
        pids = {host: self.pid(folder) for host, folder in hosts.items()}
        for host, folder in hosts.items():
            self.assertEqual(stat.S_IMODE(os.stat(folder).st_mode), 0o700)
            token = os.path.join(folder, "token")
            self.assertEqual(harness.read_text(token), TOKEN)
            self.assertEqual(stat.S_IMODE(os.stat(token).st_mode), 0o600)
            self.assertNotIn(TOKEN, harness.read_text("/proc/%d/cmdline" % pids[host]))
            targets = [os.readlink("/proc/%d/fd/%d" % (pids[host], n)) for n in range(3)]
            log = os.path.join(folder, "log")
            self.assertEqual(targets, ["/dev/null", log, log])

        # Nothing is done twice.
        told = self.deploy("--ssh=" + names, join, "--", "--threads=1")
        self.assertEqual(self.states(told), {host: "runs" for host in hosts})
        self.assertEqual({h: self.pid(f) for h, f in hosts.items()}, pids)

        # The end of sshd and of its sessions is not that of the worker.
        gone = self.servers.pop()
        gone.kill()
        gone.wait()
        self.wait_more(coordinator)
        self.assertEqual(coordinator.iterations()[-1]["workers"], 3)
        self.assertEqual(coordinator.events("lost"), [])

        last = list(hosts)[-1]
        told = self.deploy("--ssh=" + names, "--status", token=False, code=1)
        self.assertEqual(self.states(told),
                         {host: "failed" if host == last else "runs" for host in hosts})
        self.assertIn("nothing listens there", told[last]["text"])
        here = [host for host in hosts if host != last]
        told = self.deploy("--ssh=" + ",".join(here), "--logs", token=False)
        for host in here:
            self.assertIn("oin", told[host]["output"])
        told = self.deploy("--ssh=" + here[0], "--stop", token=False)
        self.assertEqual(self.states(told), {here[0]: "stopped"})
        self.check_gone(pids[here[0]])
        self.wait_crew(coordinator, 2)
        told = self.deploy("--ssh=" + here[0], join, "--", "--threads=1")
        self.assertEqual(self.states(told), {here[0]: "started"})
        self.wait_crew(coordinator, 3)
        self.stop(coordinator)
        told = self.deploy("--ssh=" + ",".join(here), "--stop", token=False)
        self.assertNotIn("failed", self.states(told).values())

    def test_a_session_that_is_cut(self):
        """The session that starts a worker is killed; the worker is not."""
        slow = STUB.replace('echo "Joined with $#: $*"; ', "")  # says nothing: the start waits
        self.use_binary(slow)
        host, folder = self.serve()
        process = self.start("deploy", "--ssh=" + host, JOIN, "--binaries=" + self.binaries,
                             environment=self.environment)
        path = os.path.join(folder, "pid")
        harness.wait_for("a worker", lambda: os.path.exists(path) and harness.read_text(path),
                         process)
        pid = self.pid(folder)
        sessions = harness.children_of(process.pid)
        self.assertEqual(len(sessions), 1)
        process.kill(signal.SIGKILL)
        process.popen.wait()
        os.kill(sessions[0], signal.SIGKILL)
        self.servers[0].kill()
        self.servers.pop().wait()
        self.assertEqual(self.pid(folder), pid)
        state = harness.stat_of(pid)
        self.assertTrue(state and state[0] != "Z", state)
        harness.wait_for("the stamp", lambda: os.path.exists(os.path.join(folder, "stamp")))
        os.kill(pid, signal.SIGKILL)

    def test_what_goes_wrong(self):
        self.use_binary(STUB)
        stranger, _ = self.serve(known=False)
        changed, _ = self.serve(known=False)
        self.know(int(changed.rpartition(":")[2]), make_key(self.path("other_host_key")))
        good, folder = self.serve()
        closed = "%s@127.0.0.1:%d" % (USER, free_port())
        nobody = "nobody-of-that-name.invalid"
        told = self.deploy("--ssh=" + ",".join((stranger, changed, good, closed, nobody)), JOIN,
                           code=1)
        for host, text in ((stranger, "its host key is not known yet"),
                           (changed, "is not the one that is known"),
                           (closed, "nothing listens there"), (nobody, "no such host")):
            self.assertEqual(told[host]["state"], "failed")
            self.assertIn(text, told[host]["text"])
        self.assertEqual(told[good]["state"], "started")
        pid = self.pid(folder)
        make_key(self.path("other_key"))
        self.set_key("other_key")
        told = self.deploy("--ssh=" + good, "--stop", token=False, code=1)
        self.assertIn("ssh-copy-id -p", told[good]["text"])
        self.set_key("key")
        told = self.deploy("--ssh=" + good, "--stop", token=False)
        self.assertEqual(told[good]["state"], "stopped")
        self.check_gone(pid)

    def test_port_for_all(self):
        self.use_binary(STUB)
        host, _ = self.serve()
        name, _, port = host.rpartition(":")
        told = self.deploy("--ssh=" + name, "--ssh-port=" + port, "--status", token=False)
        self.assertEqual(told[name]["state"], "idle")
        self.assertIn("nothing was deployed", told[name]["text"])
        process = self.start("deploy", "--ssh=" + host, "--doctor", "--binaries=" + self.binaries,
                             environment=self.environment)
        self.assertEqual(process.wait(), 0, process.text())
        self.assertIn("verdict", process.out())
        self.assertIn("94 Mbit/s", process.out())
        self.assertIn("fix: another adapter", process.out())


if __name__ == "__main__":
    if not SSHD or not shutil.which("ssh") or not shutil.which("ssh-keygen"):
        print("skipped: there is no sshd or ssh (Debian: openssh-server, openssh-client)")
        sys.exit(harness.SKIPPED)
    if os.getuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)  # sshd insists, and only root may make it
    harness.main()
