# SPDX-License-Identifier: Apache-2.0
"""A stand-in for adb's server, for the real `adb` client: speaks what adb's SERVICES.TXT and SYNC.TXT
say (github.com/aosp-mirror/platform_system_core, adb/), as far as `devices`, `shell` and `push` need
it. Its devices are folders: what a shell does below /data/local/tmp, and what it asks with getprop,
it does and asks there. Standard library only."""
import os
import signal
import socket
import struct
import subprocess
import threading

# The client ends a server whose version is not its own: 41 is that of all clients that call
# themselves 1.0.41 (adb.h, ADB_SERVER_VERSION; 2018 until now).
VERSION = 41
FEATURES = b"shell_v2,cmd"
ADB_FOLDER = "/data/local/tmp"
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)  # packets of the shell protocol

GETPROP = """#!/bin/sh
case $1 in
ro.product.cpu.abilist) echo %(abi)s ;;
ro.product.model) echo %(model)s ;;
esac
"""


class Device:
    """state: what `adb devices` says. modern: with the shell protocol (Android 7 and later); else
    one stream, with "\\r\\n" and without exit codes. hangs: a command never ends. full: no file
    can be sent. breaks: so many commands lose their connection."""

    def __init__(self, serial, folder, state="device", abi="x86_64", model="Phone", modern=True,
                 hangs=False, full=False, breaks=0, boot=None):
        self.serial, self.state, self.modern = serial, state, modern
        self.hangs, self.full, self.breaks = hangs, full, breaks
        self.root = os.path.join(folder, "device-" + serial.replace(":", "_"))
        self.home = self.root + ADB_FOLDER
        self.tools = os.path.join(self.root, "bin")
        self.commands, self.pushes = [], []
        os.makedirs(self.home)
        os.makedirs(self.tools)
        getprop = os.path.join(self.tools, "getprop")
        with open(getprop, "w", encoding="utf-8") as f:
            f.write(GETPROP % {"abi": abi, "model": "'%s'" % model.replace("'", "'\\''")})
        os.chmod(getprop, 0o755)
        self.boot = os.path.join(self.root, "boot_id")
        with open(self.boot, "w", encoding="utf-8") as f:
            f.write((boot or serial) + "\n")

    def inside(self, text):
        """A command, or a path, of the device, for this machine."""
        text = text.replace("/proc/sys/kernel/random/boot_id", self.boot)
        return text.replace(self.home, ADB_FOLDER).replace(ADB_FOLDER, self.home)

    def file(self, name):
        return os.path.join(self.home, "shoal", name)

    def start(self, command):
        """In a session of its own, as adbd does."""
        environment = {"PATH": self.tools + ":" + os.environ["PATH"]}
        for name in ("SHOAL_TEST_MARK", "ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"):
            if name in os.environ:
                environment[name] = os.environ[name]
        return subprocess.Popen(["sh", "-c", self.inside(command)], cwd=self.root,
                                env=environment, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                start_new_session=True)


class Gone(Exception):
    """The client has closed the connection."""


class Connection:
    def __init__(self, server, sock):
        self.server, self.sock = server, sock

    def read(self, n):
        data = b""
        while len(data) < n:
            more = self.sock.recv(n - len(data))
            if not more:
                raise Gone()
            data += more
        return data

    def request(self):
        return self.read(int(self.read(4), 16)).decode("utf-8", "surrogateescape")

    def okay(self, text=None):
        data = b"OKAY"
        if text is not None:
            data += b"%04x" % len(text) + text
        self.sock.sendall(data)

    def fail(self, text):
        text = text.encode()
        self.sock.sendall(b"FAIL%04x" % len(text) + text)

    # ---- the host's services ----

    def serve(self):
        device = None
        while True:
            request = self.request()
            if device is not None:
                return self.device_service(device, request)
            if request == "host:version":
                return self.okay(b"%04x" % VERSION)
            if request in ("host:features", "host:host-features"):
                return self.okay(FEATURES)
            if request in ("host:devices", "host:devices-l"):
                return self.okay(self.server.list(request.endswith("-l")))
            if request.startswith("host-serial:"):
                serial, _, what = request[len("host-serial:"):].rpartition(":")
                device = self.server.find(serial)
                if what == "features" and isinstance(device, Device):
                    return self.okay(FEATURES if device.modern else b"")
                return self.fail(device if isinstance(device, str) else "unknown host service")
            for start, answer in (("host:tport:serial:", b"\1\0\0\0\0\0\0\0"),
                                  ("host:transport:", b"")):
                if request.startswith(start):
                    device = self.server.find(request[len(start):])
                    if isinstance(device, str):
                        return self.fail(device)
                    self.sock.sendall(b"OKAY" + answer)
                    break
            else:
                return self.fail("unknown host service")

    # ---- a device's services ----

    def device_service(self, device, request):
        if request == "sync:":
            self.okay()
            return self.sync(device)
        service, _, command = request.partition(":")
        if service.split(",")[0] not in ("shell", "exec") or not command:
            return self.fail("unknown service")
        if device.breaks > 0:
            device.breaks -= 1
            return self.fail("closed")
        self.okay()
        with self.server.lock:
            device.commands.append(command)
        if device.hangs:
            try:
                while self.sock.recv(4096):
                    pass
            except OSError:
                pass
            return None
        return self.shell(device, command, "v2" in service)

    def shell(self, device, command, v2):
        process = device.start(command)
        lock = threading.Lock()

        def pump(stream, kind):
            for data in iter(lambda: os.read(stream.fileno(), 8192), b""):
                try:
                    with lock:
                        if v2:
                            self.sock.sendall(struct.pack("<BI", kind, len(data)) + data)
                        else:
                            self.sock.sendall(data.replace(b"\n", b"\r\n"))
                except OSError:
                    pass

        pumps = [threading.Thread(target=pump, args=a)
                 for a in ((process.stdout, STDOUT), (process.stderr, STDERR))]
        for thread in pumps:
            thread.start()
        for thread in pumps:
            thread.join()
        code = process.wait()
        process.stdout.close()
        process.stderr.close()
        # The session is over: what still belongs to its group goes with it, as when adbd ends.
        try:
            os.killpg(process.pid, signal.SIGHUP)
        except ProcessLookupError:
            pass
        if v2:
            self.sock.sendall(struct.pack("<BIB", EXIT, 1, code & 255))

    # ---- files ----

    def sync(self, device):
        while True:
            kind, size = struct.unpack("<4sI", self.read(8))
            if kind == b"QUIT":
                return
            path = self.read(size).decode()
            if kind == b"STAT":
                self.stat(device, path)
            elif kind == b"SEND":
                self.send(device, path)
            else:
                return self.sync_fail("unknown sync request %r" % kind)

    def sync_fail(self, text):
        text = text.encode()
        self.sock.sendall(struct.pack("<4sI", b"FAIL", len(text)) + text)

    def stat(self, device, path):
        try:
            found = os.lstat(device.inside(path))
            numbers = found.st_mode, found.st_size & 0xffffffff, int(found.st_mtime)
        except OSError:
            numbers = 0, 0, 0
        self.sock.sendall(struct.pack("<4sIII", b"STAT", *numbers))

    def send(self, device, name):
        path, _, mode = name.rpartition(",")
        mode = int(mode, 0) & 0o777
        mode |= mode >> 3 & 0o070  # adbd copies the user's bits (file_sync_service.cpp)
        mode |= mode >> 3 & 0o007
        path, data = device.inside(path), bytearray()
        while True:
            kind, size = struct.unpack("<4sI", self.read(8))
            if kind == b"DONE":
                break
            data += self.read(size)
        with self.server.lock:
            device.pushes.append((os.path.basename(path), mode))
        if device.full:
            return self.sync_fail("couldn't create file: No space left on device")
        try:
            with open(path, "wb") as f:
                f.write(data)
            os.chmod(path, mode)
        except OSError as problem:
            return self.sync_fail("couldn't create file: %s" % problem.strerror)
        self.sock.sendall(struct.pack("<4sI", b"OKAY", 0))


class Server:
    def __init__(self, devices):
        self.devices, self.lock = devices, threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.acceptor = threading.Thread(target=self.accept, daemon=True)
        self.acceptor.start()

    def environment(self):
        return {"ADB_SERVER_SOCKET": "tcp:127.0.0.1:%d" % self.port,
                "ANDROID_ADB_SERVER_PORT": str(self.port)}

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        with sock:
            try:
                Connection(self, sock).serve()
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):
                    pass
            except (OSError, Gone, ValueError):
                pass

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.acceptor.join()

    def list(self, long):
        lines = []
        for i, device in enumerate(self.devices):
            more = " usb:1-%d product:x model:x device:x transport_id:%d" % (i, i + 1)
            lines.append("%-22s %s%s\n" % (device.serial, device.state, more if long else ""))
        return "".join(lines).encode()

    def find(self, serial):
        for device in self.devices:
            if device.serial == serial:
                if device.state == "device":
                    return device
                return "device " + device.state
        return "device '%s' not found" % serial
