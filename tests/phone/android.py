# SPDX-License-Identifier: Apache-2.0
"""What the tests on something like an Android phone share: an empty root with nothing but
/data/local/tmp, and the system calls that an app of Android may make."""
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, ".."), os.path.join(HERE, "..", "cluster")]
import common
import harness

ROOT = os.path.join(HERE, "..", "..")  # of the sources
HOME = "/data/local/tmp/shoal"
QEMU = "qemu-aarch64-static"

# What bionic's filter lets an app do on arm64 and on x86_64, in Android 8.0 to 14 and on the main
# branch of March 2025 alike: libc/SYSCALLS.TXT without libc/SECCOMP_BLOCKLIST_{COMMON,APP}.TXT and with
# libc/SECCOMP_ALLOWLIST_{COMMON,APP}.TXT (older releases: BLACKLIST, WHITELIST) of the tags
# android-8.0.0_r1, 8.1.0, 9.0.0, 10.0.0, 11.0.0, 12.0.0, 13.0.0, 14.0.0.
ALLOWED = set(
    """
    accept4 bind brk capget capset chdir clock_getres clock_gettime clock_nanosleep clone close
    connect copy_file_range dup dup3 epoll_create1 epoll_ctl epoll_pwait eventfd2 execve execveat
    exit exit_group faccessat fadvise64 fallocate fchdir fchmod fchmodat fchown fchownat fcntl
    fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex
    getcpu getcwd getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpid
    getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid getsockname
    getsockopt gettid gettimeofday getuid getxattr inotify_add_watch inotify_init1 inotify_rm_watch
    ioctl ioprio_get ioprio_set kill lgetxattr linkat listen listxattr llistxattr lremovexattr lseek
    lsetxattr madvise memfd_create mincore mkdirat mknodat mlock mlock2 mlockall mmap mprotect
    mremap msync munlock munlockall munmap nanosleep newfstatat openat perf_event_open personality
    pipe2 pivot_root ppoll prctl pread64 preadv preadv2 prlimit64 process_vm_readv process_vm_writev
    pselect6 ptrace pwrite64 pwritev pwritev2 quotactl read readahead readlinkat readv recvfrom
    recvmmsg recvmsg removexattr renameat renameat2 restart_syscall rt_sigaction rt_sigpending
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
    sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield seccomp sendfile sendmmsg sendmsg sendto set_tid_address
    setitimer setns setpgid setpriority setresuid setrlimit setsid setsockopt setxattr shutdown
    sigaltstack signalfd4 socket socketpair splice statfs symlinkat sync sync_file_range syncfs
    sysinfo tee tgkill timer_create timer_delete timer_getoverrun timer_gettime timer_settime
    timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlinkat unshare
    utimensat vmsplice wait4 waitid write writev
    """.split()
)

# glibc makes these where it starts the program or a thread, and does without them.
TOLERATED = {"set_robust_list", "rseq", "clone3"}


def skip(why):
    print("skipped: " + why)
    sys.exit(harness.SKIPPED)


def binary(arch):
    """The static program, beside the ordinary one."""
    found = os.path.join(os.path.dirname(os.path.abspath(sys.argv[1])), "phone", "shoal-" + arch)
    if not os.path.exists(found):
        skip("there is no %s; `make phone` builds it" % found)
    return found


def enter():
    """The words before a program that put it into another root; None: not possible here."""
    words = [shutil.which("unshare")] + ([] if os.geteuid() == 0 else ["--user", "--map-root-user"])
    test = subprocess.run(words + ["--root=/", "true"], capture_output=True)
    return None if test.returncode else words


def main():
    """As harness.main; skips where an empty root, or ARM's programs, cannot be had."""
    if len(sys.argv) > 2:
        for arch in ("aarch64", "x86_64"):
            binary(arch)
        if not shutil.which(QEMU):
            skip("there is no %s; scripts/install_deps.sh test-phone installs it" % QEMU)
        if not enter():
            skip("chroot takes root, or user namespaces, which this system refuses")
    harness.main()


class Phone(common.Cluster):
    """A cluster some of whose workers are static programs in roots of their own."""

    def setUp(self):
        super().setUp()
        for arch in ("aarch64", "x86_64"):
            home = self.path(arch + HOME)
            os.makedirs(home)
            shutil.copy(binary(arch), os.path.join(home, "shoal"))
        shutil.copy(shutil.which(QEMU), self.path("aarch64", "qemu"))

    def on_phone(self, arch, *arguments, qemu=(), token=common.TOKEN, **how):
        """Starts the program there: no /tmp, /etc, /dev, /proc, /sys and no HOME."""
        before = enter() + ["--root=" + self.path(arch), "--wd=" + HOME]
        if arch == "aarch64":
            before += ["/qemu", "-cpu", "cortex-a53", *qemu]
        unset = dict.fromkeys(("HOME", "TMPDIR", "PATH", "USER", "LANG", "SHELL", "PWD"))
        return self.start(
            *arguments,
            program=HOME + "/shoal",
            prefix=before,
            environment=dict(unset, SHOAL_TOKEN=token, **how.pop("environment", {})),
            **how
        )

    def run_on_phone(self, arch, *arguments, code=0, **how):
        process = self.on_phone(arch, *arguments, **how)
        self.assertEqual(process.wait(), code, "%s:\n%s" % (arguments, process.text()))
        return process

    def join_from_phone(self, arch, address, *flags, **how):
        flags = ("--join=" + address, "--threads=2", "--name=phone-" + arch) + flags
        return self.on_phone(arch, "worker", *flags, **how)
