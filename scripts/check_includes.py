#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds the sources against the dependency law.

    scripts/check_includes.py [ROOT]       checks a source tree (default: this one)
    scripts/check_includes.py --self-test  checks the checker on small trees with one fault each

The law is what the shoal_room() lines of CMakeLists.txt say: a room (a folder of src/) includes
itself, include/shoal and the rooms after DEPENDS, and nothing else; src/cli includes any room. The
table of ARCHITECTURE.md must say the same, and its third column says which rooms touch files,
sockets and the clock. Intrinsics stay in kernels/{neon,avx2,avx512}. What protoc-c generates stays
out of the tree.
"""
import os
import re
import sys
import tempfile

LEVELS = ("neon", "avx2", "avx512")
INTRINSICS = re.compile(r"^(\w*intrin|arm_\w+|cpuid)\.h$")
OUTSIDE_HEADERS = re.compile(
    r"^(sys/(socket|stat|mman|file|ioctl|epoll|eventfd|timerfd|time|un|uio|wait|select|statvfs"
    r"|sendfile|inotify|random)\.h|net/.*|netinet/.*|arpa/.*|(fcntl|poll|dirent|netdb|time|unistd"
    r"|ftw|glob|spawn|aio|utime|syslog|termios|lmdb|sodium|jansson)\.h)$")
OUTSIDE_CALLS = (
    "accept accept4 access bind chdir chmod chown clock clock_gettime clock_nanosleep close connect"
    " creat dup dup2 execv execve fdopen fopen fork freopen fstat fsync getaddrinfo getentropy"
    " getrandom gettimeofday ioctl kill link listen lseek lstat mkdir mkstemp mmap nanosleep open"
    " openat opendir pipe pipe2 poll popen pread pwrite read readdir readlink recv recvfrom recvmsg"
    " remove rename rmdir select send sendmsg sendto sleep socket socketpair stat symlink system"
    " time timespec_get tmpfile truncate unlink unlinkat usleep waitpid write writev").split()
# A processor describes itself in these; they are no files on a disk.
SYSTEM_DESCRIPTIONS = ('"/proc/', '"/sys/')
COMMENT_OR_TEXT = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"]+)"|<([^>]+)>)', re.M)
CALL = re.compile(r"(?<![\w.>])(%s)[ \t]*\(" % "|".join(OUTSIDE_CALLS))


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def rooms_of_cmake(text):
    """{room: set of rooms it depends on}, in the order of the file."""
    rooms = {}
    for body in re.findall(r"^shoal_room\(([^)]*)\)", re.sub(r"#[^\n]*", "", text), re.M):
        name, *words = body.split()
        depends, keyword = set(), ""
        for word in words:
            if word in ("DEPENDS", "LIBRARIES", "PROTOS"):
                keyword = word
            elif keyword == "DEPENDS":
                depends.add(word)
        rooms[name] = depends
    return rooms


def rooms_of_table(text):
    """{room: (set of rooms, touches the outside)} of the table in ARCHITECTURE.md."""
    rooms = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        match = re.fullmatch(r"`src/(\w+)/`", cells[0])
        if line.startswith("|") and match and len(cells) >= 3:
            depends = set(re.findall(r"\w+", cells[1]))
            rooms[match.group(1)] = (depends, cells[2].startswith("yes"))
    return rooms


def check_law(rooms, table, problems):
    seen = set()
    for room, depends in rooms.items():
        for below in sorted(depends - seen):
            problems.append("CMakeLists.txt: room %s depends on %s, which is not below it" %
                            (room, below))
        seen.add(room)
    expected = dict(rooms, cli=set(rooms))
    for room in sorted(set(expected) | set(table)):
        if room not in table:
            problems.append("ARCHITECTURE.md: the table has no row for src/%s/" % room)
        elif room not in expected:
            problems.append("ARCHITECTURE.md: src/%s/ is no room of CMakeLists.txt" % room)
        elif room != "cli" and table[room][0] != expected[room]:
            problems.append("ARCHITECTURE.md: src/%s/ may include {%s}, but CMakeLists.txt says {%s}"
                            % (room, " ".join(sorted(table[room][0])),
                               " ".join(sorted(expected[room]))))


def sources(root):
    for folder, folders, names in os.walk(os.path.join(root, "src")):
        folders.sort()
        for name in sorted(names):
            if name.endswith((".c", ".h")):
                yield os.path.relpath(os.path.join(folder, name), root)


def line_of(text, at):
    return text.count("\n", 0, at) + 1


def blank(text, keep_texts):
    """Comments (and texts) replaced by spaces, so that places stay the same."""
    def replace(match):
        if keep_texts and match.group()[0] in "\"'":
            return match.group()
        return re.sub(r"[^\n]", " ", match.group())
    return COMMENT_OR_TEXT.sub(replace, text)


def exists(root, header):
    folders = [os.path.join(root, "src", header), os.path.join(root, "include", header)]
    if header.endswith(".pb-c.h"):
        folders = [os.path.join(root, "src", header[:-len(".pb-c.h")] + ".proto")]
    return any(os.path.isfile(path) for path in folders)


def check_project_include(root, path, header, allowed, problem):
    if "/" not in header or ".." in header.split("/"):
        problem('"%s": write the path from src/ or include/ ("room/file.h")' % header)
    elif not exists(root, header):
        problem('"%s": there is no such header' % header)
    elif header.split("/")[0] not in allowed:
        problem('"%s": src/%s/ may include only: %s' %
                (header, path.split("/")[1], " ".join(sorted(allowed))))


def check_file(root, path, allowed, outside, problems):
    text = read(os.path.join(root, path))
    parts = path.split("/")
    code = blank(text, keep_texts=True)
    project = []
    for match in INCLUDE.finditer(code):
        def problem(what, at=match.start()):
            problems.append("%s:%d: %s" % (path, line_of(text, at), what))
        header, system = match.groups()
        if header:
            check_project_include(root, path, header, allowed, problem)
            project.append(header)
        elif INTRINSICS.match(system) and not (parts[1] == "kernels" and parts[2] in LEVELS):
            if not (system == "cpuid.h" and parts[1] == "cpu"):
                problem("<%s>: only kernels/{%s} use intrinsics" % (system, ",".join(LEVELS)))
        elif OUTSIDE_HEADERS.match(system) and not outside:
            if not (system == "unistd.h" and parts[1] == "cpu"):
                problem("<%s>: src/%s/ touches no files, sockets or clock" % (system, parts[1]))
    if not outside:
        check_calls(path, text, blank(text, keep_texts=False), problems)
    return project


def check_calls(path, text, code, problems):
    for match in CALL.finditer(code):
        argument = text[match.end():match.end() + 64]
        if path.startswith("src/cpu/") and argument.startswith(SYSTEM_DESCRIPTIONS):
            continue
        problems.append("%s:%d: %s(): src/%s/ touches no files, sockets or clock" %
                        (path, line_of(text, match.start()), match.group(1), path.split("/")[1]))


def check_header_cycles(includes, problems):
    """includes: {header: headers it includes}, as written in includes."""
    state = {}

    def visit(header, trail):
        if state.get(header) == "done":
            return
        if header in trail:
            problems.append("headers include each other: " +
                            " -> ".join(trail[trail.index(header):] + [header]))
            return
        for below in includes.get(header, ()):
            visit(below, trail + [header])
        state[header] = "done"

    for header in sorted(includes):
        visit(header, [])


def check_generated(root, problems):
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith((".", "build", "demo"))]
        for name in sorted(names):
            if re.search(r"\.pb-c\.[ch]$|\.pb\.(cc|h)$|_pb2\.py$", name):
                problems.append("%s: generated code belongs into the build folder" %
                                os.path.relpath(os.path.join(folder, name), root))


def check(root):
    """All that is wrong with a tree, as lines of text."""
    problems = []
    rooms = rooms_of_cmake(read(os.path.join(root, "CMakeLists.txt")))
    table = rooms_of_table(read(os.path.join(root, "ARCHITECTURE.md")))
    check_law(rooms, table, problems)
    includes = {}
    for path in sources(root):
        room = path.split("/")[1]
        if room != "cli" and room not in rooms:
            problems.append("%s: src/%s/ is no room of CMakeLists.txt" % (path, room))
            continue
        depends = set(rooms) if room == "cli" else rooms[room]
        outside = table[room][1] if room in table else True
        project = check_file(root, path, depends | {room, "shoal"}, outside, problems)
        if path.endswith(".h"):
            includes[path[len("src/"):]] = project
    check_header_cycles(includes, problems)
    check_generated(root, problems)
    return problems


# ---- self-test ----

GOOD = {
    "CMakeLists.txt": "shoal_room(base)\nshoal_room(cpu DEPENDS base)\n"
                      "shoal_room(kernels DEPENDS base\n  cpu LIBRARIES m)  # a remark\n",
    "ARCHITECTURE.md": "| folder | may include | outside |\n|---|---|---|\n"
                       "| `src/base/` | | yes |\n| `src/cpu/` | base | no |\n"
                       "| `src/kernels/` | base, cpu | no |\n| `src/cli/` | all of them | yes |\n",
    "include/shoal/shoal.h": "",
    "src/base/file.h": "#include <fcntl.h>\n",
    "src/cpu/cpu.h": "#include <stddef.h>\n",
    "src/cpu/cpu.c": '#include "base/file.h"\nint f(void) { return fopen("/proc/cpuinfo") != 0; }\n',
    "src/kernels/a.h": '#include "cpu/cpu.h"\n',
    "src/kernels/a.c": '/* open("x") */ const char *t = "time(0)"; int n = x->read(y);\n',
    "src/kernels/avx2/b.c": '#include <immintrin.h>\n#include "kernels/a.h"\n',
    "src/cli/main.c": '#include "kernels/a.h"\n#include "shoal/shoal.h"\n#include <time.h>\n',
}
# What is put into the good tree (None: removed) and what the checker must say.
BAD = [
    ({"src/base/up.c": '#include "cpu/cpu.h"\n'}, "may include only: base shoal"),
    ({"src/base/up.c": '#  include  "kernels/a.h" // x\n'}, "may include only: base shoal"),
    ({"src/base/plain.c": '#include "file.h"\n'}, "write the path from src/"),
    ({"src/cpu/none.c": '#include "base/none.h"\n'}, "there is no such header"),
    ({"src/cpu/cli.c": '#include "cli/cli.h"\n', "src/cli/cli.h": ""}, "may include only"),
    ({"src/kernels/c.c": "#include <immintrin.h>\n"}, "use intrinsics"),
    ({"src/kernels/c.c": "#include <arm_neon.h>\n"}, "use intrinsics"),
    ({"src/kernels/c.c": "#include <sys/socket.h>\n"}, "touches no files"),
    ({"src/kernels/c.c": "#include <netinet/in.h>\n"}, "touches no files"),
    ({"src/kernels/c.c": "void f(void) { clock_gettime(0, 0); }\n"}, "clock_gettime(): src/kernels"),
    ({"src/kernels/c.c": "int t = time (0);\n"}, "time(): src/kernels"),
    ({"src/cpu/d.c": 'void f(void) { fopen("x", "r"); }\n'}, "fopen(): src/cpu"),
    ({"src/other/e.c": ""}, "src/other/ is no room"),
    ({"src/cpu/x.h": '#include "cpu/y.h"\n', "src/cpu/y.h": '#include "cpu/x.h"\n'},
     "headers include each other: cpu/x.h -> cpu/y.h -> cpu/x.h"),
    ({"src/cpu/m.pb-c.h": ""}, "generated code"),
    ({"CMakeLists.txt": "shoal_room(base DEPENDS cpu)\nshoal_room(cpu DEPENDS base)\n"
                        "shoal_room(kernels DEPENDS base cpu)\n"}, "which is not below it"),
    ({"ARCHITECTURE.md": GOOD["ARCHITECTURE.md"].replace("base, cpu", "base")},
     "src/kernels/ may include {base}"),
    ({"ARCHITECTURE.md": "nothing\n"}, "no row for src/base/"),
    ({"ARCHITECTURE.md": GOOD["ARCHITECTURE.md"] + "| `src/gone/` | base | no |\n"},
     "src/gone/ is no room"),
]


def problems_of(files):
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            os.makedirs(os.path.join(root, os.path.dirname(path)), exist_ok=True)
            with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                file.write(text)
        return check(root)


def self_test():
    failures = ["the good tree: " + problem for problem in problems_of(GOOD)]
    for change, expected in BAD:
        found = problems_of({**GOOD, **change})
        # A change of the law itself may break it in more than one place.
        alone = len(found) == 1 or "CMakeLists.txt" in change or "ARCHITECTURE.md" in change
        if not alone or not any(expected in problem for problem in found):
            failures.append("%s: expected one problem with '%s', got %s" % (change, expected, found))
    return failures


def main(arguments):
    if arguments == ["--self-test"]:
        problems = self_test()
    elif len(arguments) <= 1:
        here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        problems = check(arguments[0] if arguments else here)
    else:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    for problem in problems:
        print(problem)
    print("%d problems" % len(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
