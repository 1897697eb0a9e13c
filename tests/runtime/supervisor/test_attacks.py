"""Calls that try to make the supervisor act on what is not the caller's, or to bring it down."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.userns,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="needs the system call numbers of x86_64"),
]

CHOWN, FCHOWN, LCHOWN, FCHOWNAT, STAT, FSTAT, STATX, GETRESUID, SETGROUPS, MKNOD, LISTXATTR = (
    92, 93, 94, 260, 4, 5, 332, 118, 116, 133, 194,
)  # fmt: skip

BAD_CALLS = [
    ("path-is-null", f"call({CHOWN}, 0, 1, 1)", "EFAULT"),
    ("path-is-no-address", f"call({CHOWN}, 1, 1, 1)", "EFAULT"),
    ("path-is-above-memory", f"call({CHOWN}, -1, 1, 1)", "EFAULT"),
    ("path-is-of-the-kernel", f"call({CHOWN}, -0x7fff80000000, 1, 1)", "EFAULT"),
    ("path-ends-in-a-hole", f"call({CHOWN}, edge, 1, 1)", "EFAULT"),
    ("path-is-empty", f"call({CHOWN}, b'', 1, 1)", "ENOENT"),
    ("path-is-missing", f"call({CHOWN}, b'/none', 1, 1)", "ENOENT"),
    ("path-goes-through-a-file", f"call({CHOWN}, b'/f/x', 1, 1)", "ENOTDIR"),
    ("path-is-too-long", f"call({CHOWN}, b'/' + b'x/' * 4096, 1, 1)", "ENAMETOOLONG"),
    ("name-is-too-long", f"call({CHOWN}, b'x' * 256, 1, 1)", "ENAMETOOLONG"),
    ("links-go-in-a-circle", f"call({CHOWN}, b'/circle', 1, 1)", "ELOOP"),
    ("no-such-descriptor", f"call({FCHOWN}, 999, 1, 1)", "EBADF"),
    ("negative-descriptor", f"call({FCHOWN}, -1, 1, 1)", "EBADF"),
    ("no-such-directory", f"call({FCHOWNAT}, 999, b'f', 1, 1, 0)", "EBADF"),
    ("directory-is-a-file", f"call({FCHOWNAT}, opened, b'f', 1, 1, 0)", "ENOTDIR"),
    ("unknown-flags", f"call({FCHOWNAT}, -100, b'/f', 1, 1, 1 << 30)", "EINVAL"),
    ("read-only-mount", f"call({CHOWN}, b'/usr', 1, 1)", "EROFS"),
    ("answer-is-no-address", f"call({STAT}, b'/owned', 1)", "EFAULT"),
    ("answer-is-null", f"call({STAT}, b'/owned', 0)", "EFAULT"),
    ("answer-ends-in-a-hole", f"call({STAT}, b'/owned', edge)", "EFAULT"),
    ("statx-answer-is-no-address", f"call({STATX}, -100, b'/owned', 0, 0x7ff, 1)", "EFAULT"),
    ("ids-are-no-address", f"call({GETRESUID}, 1, 1, 1)", "EFAULT"),
    ("groups-are-no-address", f"call({SETGROUPS}, 4, 1)", "EFAULT"),
    ("too-many-groups", f"call({SETGROUPS}, 65537, 1)", "EINVAL"),
    ("device-is-there", f"call({MKNOD}, b'/f', 0o20644, 0x103)", "EEXIST"),
    ("device-without-name", f"call({MKNOD}, b'/', 0o20644, 0x103)", "EEXIST"),
    ("list-is-too-short", f"call({LISTXATTR}, b'/owned', buffer, 1)", "ERANGE"),
    ("list-is-no-address", f"call({LISTXATTR}, b'/owned', 1, 100)", "EFAULT"),
]
PREPARED = """
import mmap
for name in ("/f", "/owned"): open(name, "w").close()
os.chown("/owned", 3, 4); os.setxattr("/owned", "user.other", b"x")
os.symlink("circle", "/circle"); opened = os.open("/f", os.O_RDONLY); buffer = ctypes.create_string_buffer(64)
libc.mmap.restype = ctypes.c_void_p; libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
area = libc.mmap(None, 8192, 3, 0x22, -1, 0)
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]; libc.munmap(area + 4096, 4096)
ctypes.memset(area, 120, 4096); edge = area + 4090
"""


def test_bad_calls_fail_as_the_kernel_lets_them(run_python):
    """Bad addresses, paths and descriptors give the error of the kernel, and the supervisor lives on."""
    calls = "".join(f"print({name!r}, {call})\n" for name, call, _ in BAD_CALLS)
    step = run_python(PREPARED + calls + "os.chown('/f', 5, 6); print(owner('/f'))")

    *answers, last = step["stdout"].splitlines()
    assert dict(line.split() for line in answers) == {name: expected for name, _, expected in BAD_CALLS}
    assert last == "5:6", step["stderr"]


def test_paths_do_not_leave_the_root(run_python, tmp_path: Path):
    """Neither dots, nor absolute links, nor links of /proc lead to a file of the host."""
    outside = tmp_path / "outside"
    outside.touch()
    step = run_python(f"""
name = {str(outside)!r}
os.makedirs("/a/b"); os.symlink("../" * 40 + name, "/a/b/up"); os.symlink(name, "/a/b/absolute")
os.chdir("/a/b")
for path in ("../" * 40 + name, "up", "absolute", "/proc/self/root" + name, "/proc/self/root/../../.." + name,
             "/proc/self/cwd/" + "../" * 40 + name, "/proc/1/root" + name, "/proc/thread-self/root" + name):
    for change in (os.chown, lambda p, u, g: os.stat(p)):
        try: change(path, 3, 4); print("reached", path)
        except OSError as error: assert error.errno == errno.ENOENT, (path, error)
""")

    assert (step["status"], step["stdout"]) == (0, ""), step["stderr"]
    assert os.listxattr(outside) == []


def test_links_of_proc_lead_to_what_the_caller_has(run_python):
    """Paths through /proc to open files work, of the caller and of others in the step."""
    step = run_python("""
fd = os.open("/f", os.O_CREAT | os.O_RDWR)
os.mkdir("/d"); open("/d/g", "w").close(); os.chdir("/d")
os.chown(f"/proc/self/fd/{fd}", 3, 4); print(owner("/f"), owner(f"/proc/self/fd/{fd}"), owner(f"/dev/fd/{fd}"))
os.chown(f"/proc/{os.getpid()}/fd/{fd}", 5, 6); print(owner("/f"))
os.chown("/proc/self/cwd/g", 7, 8); print(owner("/d/g"))
os.chown("/proc/thread-self/root/f", 9, 1); print(owner("/f"))
os.unlink("/f"); os.chown(f"/proc/self/fd/{fd}", 1, 2); print(owner(fd))
os.chown("/dev/stdout", 1, 2)
""")

    assert step["stdout"].split() == ["3:4", "3:4", "3:4", "5:6", "7:8", "9:1", "1:2"], step["stderr"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to hide a part of /proc")
def test_outer_proc_leads_to_no_other_process(run_steps):
    """Where steps see the /proc around them, owners are kept, and links of other processes lead nowhere."""
    script = """
touch a; chown 3:4 a; stat -c %u:%g a; exec 5> b; chown 5:6 /proc/self/fd/5; stat -c %u:%g b
for place in $(grep -l '^pybuild-' /proc/[0-9]*/comm); do
  place=${place%/comm}; echo found; for link in root cwd fd/0 fd/3; do chown 7 $place/$link && echo reached $link; done
done
"""
    (step,) = run_steps({"args": ["sh", "-c", script]}, single_id=True, hidden_proc=True)

    assert step["stdout"].split()[:2] == ["3:4", "5:6"]
    assert set(step["stdout"].split()[2:]) == {"found"}


def test_changed_root_is_the_root_of_paths(run_python):
    """After chroot, names and absolute links mean files below the new root."""
    step = run_python("""
os.mkdir("/r"); open("/r/f", "w").close(); open("/f", "w").close(); os.symlink("/f", "/r/l")
if not (child := os.fork()):
    os.chroot("/r"); os.chdir("/")
    os.chown("/l", 3, 4); os.chown("../../f", -1, 5); print(owner("/l"), owner("f"), flush=True); os._exit(0)
os.wait(); print(owner("/f"), owner("/r/f"))
""")

    assert step["stdout"].split() == ["3:5", "3:5", "0:0", "3:5"], step["stderr"]


def test_swapped_links_never_lead_outside(run_python, tmp_path: Path):
    """While one process swaps a directory and a link, changes of owners by another stay in the root."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").touch()
    step = run_python(f"""
import time
os.makedirs("/d/x"); open("/d/x/f", "w").close(); os.symlink({str(outside)!r}, "/d/y"); os.symlink("/proc/self/root", "/d/z")
if not (child := os.fork()):
    while True:
        for other in ("y", "z"):
            call(316, -100, b"/d/x", -100, b"/d/" + other.encode(), 2)
            call(316, -100, b"/d/x", -100, b"/d/" + other.encode(), 2)
end = time.monotonic() + 2
done = 0
while time.monotonic() < end:
    try: os.chown("/d/x/f", 3, 4); done += 1
    except OSError: pass
os.kill(child, 9); print(done > 0)
""")

    assert step["stdout"] == "True\n", step["stderr"]
    assert os.listxattr(outside / "f") == []


def test_mounts_of_the_caller_are_read_only_for_the_supervisor_too(run_python, tmp_path: Path):
    """A file of a read-only bind cannot be given away, by path or by descriptor."""
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown/f").touch()
    step = run_python(
        "fd = os.open('/m/f', os.O_RDONLY)\n"
        f"print(call({CHOWN}, b'/m/f', 1, 1), call({FCHOWN}, fd, 1, 1), call({CHOWN}, b'/proc/self/fd/%d' % fd, 1, 1))",
        binds=[["/usr", "/usr", True], [str(tmp_path / "shown"), "/m", True]],
    )

    assert step["stdout"].split() == ["EROFS"] * 3
    assert os.listxattr(tmp_path / "shown/f") == []


def test_many_processes_at_once_keep_their_own_owners(run_python):
    """Processes that make and give away files at the same time do not get each other's ids."""
    step = run_python("""
def work(n):
    os.setresgid(n, n, n); os.setresuid(n, n, n)
    for i in range(60):
        name = f"/tmp/{n}-{i}"; os.close(os.open(name, os.O_CREAT | os.O_EXCL))
        assert owner(name) == f"{n}:{n}" and os.getuid() == n, (owner(name), n, os.getuid())
        os.mkdir(name + "d"); assert owner(name + "d") == f"{n}:{n}"
os.chmod("/tmp", 0o1777)
children = []
for n in range(1, 17):
    if not (child := os.fork()):
        try: work(n); os._exit(0)
        finally: os._exit(1)
    children.append(child)
print(sum(os.waitpid(child, 0)[1] == 0 for child in children))
""")

    assert step["stdout"] == "16\n", step["stderr"]
    assert all(e["owner"] == [int(p.split("/")[1].split("-")[0])] * 2 for p, e in step["layer"].items() if "/" in p)


def test_forged_records_say_nothing(run_python):
    """An attribute that is no record is none; one that is one only changes the layer of the step that wrote it."""
    step = run_python("""
for name, value in (("a", b""), ("b", b"x" * 20), ("c", b"\\xff" * 20), ("d", b"x" * 1000)):
    open(name, "w").close(); os.setxattr(name, "user.pybuild.owner", value); print(owner(name))
""")

    assert step["stdout"].split() == ["0:0"] * 4
    assert {name: step["layer"][name]["owner"] for name in "abcd"} == {key: [0, 0] for key in "abcd"}


def test_timer_slack_of_a_program_gives_root_at_most(run_python):
    """A program that sets its timer slack to a number without meaning is who the step began as."""
    step = run_python("""
os.setresuid(5, 5, 5); call(157, 29, 123456789); print(os.getuid())
call(157, 29, 1); print(os.getuid())
""")

    assert step["stdout"].split() == ["0", "0"]


def test_programs_of_32_bits_are_supervised(run_python):
    """Calls by the numbers of i386 are answered as well; ids of 16 bits are widened and cut."""
    step = run_python("""
import mmap
code = mmap.mmap(-1, 4096, prot=7, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40)
# From the registers of x86_64 to those of i386, with rbx kept: number, three arguments.
code.write(bytes.fromhex("5389f889f34189c989d14489cacd805bc3"))
enter = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint] * 4)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
low = mmap.mmap(-1, 4096, prot=3, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40)
low[:3] = b"/f\\0"
path = ctypes.addressof(ctypes.c_char.from_buffer(low)); assert path < 1 << 32
open("/f", "w").close()
if enter(20, 0, 0, 0) < 0: print("none"); sys.exit()
enter(182, path, 0xffff, 7); enter(182, path, 33, 0xffff); print(owner("/f"))
enter(212, path, 70000, 80000); print(owner("/f"))
enter(195, path, path + 64, 0); print(int.from_bytes(low[88:92], "little"), int.from_bytes(low[92:96], "little"))
enter(213, 70000, 0, 0); print(enter(24, 0, 0, 0), enter(199, 0, 0, 0), os.getuid())
""")

    if step["stdout"] == "none\n" or step["status"] < 0:
        pytest.skip("needs a kernel that runs programs of i386")
    assert step["stdout"].split() == ["33:7", "70000:80000", "70000", "80000", "65534", "70000", "70000"]


class TestSupervisor:
    """The process itself."""

    def test_step_ends_with_its_supervisor(self, run_body):
        """A step whose supervisor is killed fails at once and says why; the next one works."""
        printed = run_body(
            """
def owners():
    found = []
    for name in os.listdir('/proc'):
        if name.isdigit() and open(f'/proc/{name}/comm').read() == 'pybuild-owners\\n':
            found.append(int(name))
    return found
reader, writer = os.pipe()
source, _ = os.pipe()
step = zygote.run(spec('a', 'sh', '-c', 'echo begun; read line'), stdin=source, stdout=writer, stderr=2)
os.read(reader, 10)
(pid,) = owners()
os.kill(pid, 9)
try:
    step.wait()
except SandboxError as error:
    print(error.message)
done = zygote.run(spec('b', 'sh', '-c', 'touch f; chown 3 f'), stdout=2, stderr=2).wait()
print(done.status, owners())
""",
            single_id=True,
        )

        assert printed.splitlines() == ["the process that keeps the owners of files has died", "0 []"]

    def test_killed_step_takes_its_supervisor_along(self, run_body):
        """After a step was killed there is no supervisor of it."""
        printed = run_body(
            """
reader, writer = os.pipe()
step = zygote.run(spec('a', 'sh', '-c', 'echo begun; sleep 4242'), stdout=writer, stderr=2)
os.read(reader, 10); step.kill()
print(step.wait().status, [n for n in os.listdir('/proc') if n.isdigit() and open(f'/proc/{n}/comm').read() == 'pybuild-owners\\n'])
""",
            single_id=True,
        )

        assert printed == "-9 []\n"

    def test_step_does_not_hold_the_listener(self, run_python):
        """A step has its three streams, and sees no process but its own."""
        step = run_python("print(sorted(os.listdir('/proc/self/fd')), [n for n in os.listdir('/proc') if n.isdigit()])")

        assert step["stdout"] == "['0', '1', '2', '3'] ['1']\n"

    def test_second_listener_is_explained(self, run_body):
        """Where the kernel has given away the one listener there can be, the step says so."""
        printed = run_body(
            """
import prctl, struct
from runtime import syscalls
from runtime.zygote import Zygote
zygote.close()
prctl.set_no_new_privs(1)
syscalls.seccomp_set_filter(struct.pack('=HBBI', 0x06, 0, 0, 0x7fff0000), 8)  # allows everything, has a listener
with Zygote() as second:
    try:
        second.run(spec('a', 'true'), stdout=2, stderr=2).wait()
    except HostUnsupportedError as error:
        print(error.message, error.hint)
""",
            single_id=True,
        )

        assert "has a seccomp listener of its own" in printed
        assert "usermod --add-subuids" in printed
