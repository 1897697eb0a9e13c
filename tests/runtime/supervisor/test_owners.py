"""Files of many owners where only one user id exists: what steps are told, and what their layers say."""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.userns

MADE = [
    ("chown", "touch f; chown 33:44 f", {"f": ("file", "644", [33, 44])}),
    ("chown-user-only", "touch f; chown 1:2 f; chown 33 f", {"f": ("file", "644", [33, 2])}),
    ("chown-group-only", "touch f; chown 1:2 f; chgrp 44 f", {"f": ("file", "644", [1, 44])}),
    ("chown-of-directory", "mkdir d; chown 7:8 d", {"d": ("directory", "755", [7, 8])}),
    ("chown-of-largest-id", "touch f; chown 4294967294:65534 f", {"f": ("file", "644", [4294967294, 65534])}),
    (
        "chown-follows-links",
        "touch f; ln -s f l; chown 3:4 l",
        {"f": ("file", "644", [3, 4]), "l": ("symlink", "777", [0, 0])},
    ),
    ("chown-of-link", "ln -s nowhere l; chown -h 3:4 l", {"l": ("symlink", "777", [3, 4])}),
    ("chown-of-link-twice", "ln -s x l; chown -h 3:4 l; chown -h 5 l", {"l": ("symlink", "777", [5, 4])}),
    ("chown-back-to-root", "touch f; chown 3:4 f; chown 0:0 f", {"f": ("file", "644", [0, 0])}),
    ("fifo", "mkfifo p; chown 3:4 p", {"p": ("fifo", "644", [3, 4])}),
    ("set-id-bits-are-cleared", "cp /bin/busybox f; chmod 6755 f; chown 3:4 f", {"f": ("file", "755", [3, 4])}),
    ("set-id-bits-after-chown", "touch f; chown 3:4 f; chmod 6755 f", {"f": ("file", "6755", [3, 4])}),
    ("locking-bit-stays", "touch f; chmod 2644 f; chown 3 f", {"f": ("file", "2644", [3, 0])}),
    ("set-id-bits-of-directory-stay", "mkdir d; chmod 2755 d; chown 3:4 d", {"d": ("directory", "2755", [3, 4])}),
    ("rename", "touch f; chown 3:4 f; mv f g", {"g": ("file", "644", [3, 4])}),
    ("rename-of-link", "ln -s x l; chown -h 3:4 l; mv l m", {"m": ("symlink", "777", [3, 4])}),
    ("times-of-link", "ln -s x l; chown -h 3:4 l; touch -h l", {"l": ("symlink", "777", [3, 4])}),
    ("hard-link", "touch f; ln f g; chown 3:4 g", {"f": ("file", "644", [3, 4]), "g": ("hardlink", "644", [3, 4])}),
    ("removed-and-made-again", "touch f; chown 3:4 f; rm f; touch f", {"f": ("file", "644", [0, 0])}),
    ("written-after-chown", "touch f; chown 3:4 f; echo x > f", {"f": ("file", "644", [3, 4])}),
    (
        "copied-with-owner",
        "touch f; chown 3:4 f; cp -p f g",
        {"f": ("file", "644", [3, 4]), "g": ("file", "644", [3, 4])},
    ),
    ("copied", "touch f; chown 3:4 f; cp f g", {"f": ("file", "644", [3, 4]), "g": ("file", "644", [0, 0])}),
    ("tar", "mkdir d; touch d/f; chown 3:4 d/f; tar c d | tar x -C /tmp", {"tmp/d/f": ("file", "644", [3, 4])}),
    ("of-what-lay-below", "chown 3:4 /etc/passwd", {"etc/passwd": ("file", "644", [3, 4])}),
]


@pytest.mark.parametrize(("script", "expected"), [row[1:] for row in MADE], ids=[row[0] for row in MADE])
def test_layer_says_what_was_asked_for(run_step, script, expected):
    """The entries of the layer have the owners and modes that a step with all ids would give them."""
    step = run_step(script, single_id=True)

    found = {path: (e["kind"], e["mode"], e["owner"]) for path, e in step["layer"].items()}
    assert {path: found.get(path) for path in expected} == expected


@pytest.mark.parametrize(("kind", "name"), [("c", "character"), ("b", "block")])
def test_device_is_recorded(run_step, kind, name):
    """A device made in a step looks like one to it, and is one in the layer, with what chmod and chown made of it."""
    step = run_step(f"mknod n {kind} 10 65537; chown 0:5 n; chmod 620 n; stat -c '%F %t:%T %a %g' n", single_id=True)

    assert step["stdout"] == f"{name} special file a:10001 620 5\n"
    entry = step["layer"]["n"]
    assert (entry["kind"], entry["device"], entry["mode"], entry["owner"]) == (name, [10, 65537], "620", [0, 5])


def test_whiteout_device_is_refused(run_step):
    """The device that overlay takes for a deletion cannot be made."""
    step = run_step("mknod n c 0 0", single_id=True)

    assert step["status"] != 0
    assert "n" not in step["layer"]


def test_later_step_sees_owners(run_steps):
    """A step sees the owners that earlier ones left, keeps them when it changes files, and loses them by removal."""
    first, second = run_steps(
        {"args": ["sh", "-c", "mkdir d; cd d; touch a b c; ln -s a l; mknod n c 1 3; chown -hR 3:4 ."], "cwd": "/"},
        {
            "args": [
                "sh",
                "-c",
                "cd d; stat -c %n:%u:%g . a l n; find . -user 3 -type f | sort; chmod 600 a; mv l m; rm b; touch b; ln c e",
            ],
        },
        single_id=True,
        stacked=True,
    )

    assert first["status"] == 0
    assert second["stdout"].split() == [".:3:4", "a:3:4", "l:3:4", "n:3:4", "./a", "./b", "./c"]
    owners = {path: entry["owner"] for path, entry in second["layer"].items() if "wh" not in path}
    three, root = [3, 4], [0, 0]
    assert owners == {"d": three, "d/a": three, "d/b": root, "d/c": three, "d/e": three, "d/m": three}


def test_equal_owner_is_no_change(run_steps):
    """A file given away and back is not in the layer."""
    _, second = run_steps(
        {"args": ["sh", "-c", "touch -d 2001-01-01 f; chown 3:4 f; ln -s x l; chown -h 3:4 l"]},
        {"args": ["sh", "-c", "chown 5:6 f; chown 3:4 f; chown -h 5:6 l; chown -h 3:4 l"]},
        single_id=True,
        stacked=True,
    )

    assert second["layer"] == {}


def test_records_are_neither_listed_nor_in_layers(run_python):
    """No program lists the attributes that records are, and no layer has them; other attributes are there."""
    step = run_python("""
open("f", "w").close(); os.setxattr("f", "user.other", b"x"); os.chown("f", 3, 4)
os.symlink("f", "l"); os.lchown("l", 3, 4)
fd = os.open("f", os.O_RDONLY)
print(os.listxattr("f"), os.listxattr(fd), os.listxattr("l", follow_symlinks=False))
""")

    assert step["stdout"] == "['user.other'] ['user.other'] []\n"
    assert (step["layer"]["f"]["xattrs"], step["layer"]["l"]["xattrs"]) == (["user.other"], [])


def test_capability_is_kept_until_chown(run_python):
    """File capabilities travel; chown takes them off, as the kernel does."""
    step = run_python("""
value = bytes.fromhex("0100000200200000000000000000000000000000")
for name in "ab":
    open(name, "w").close(); os.chown(name, 3, 4); os.setxattr(name, "security.capability", value)
os.chown("b", 5, 6)
""")

    assert [step["layer"][name]["xattrs"] for name in "ab"] == [["security.capability"], []]


class TestUsers:
    def test_user_of_a_step_is_who_it_says(self, run_step):
        """A step of a user has its ids and groups, owns what it makes, and holds no rights."""
        script = "id; umask 027; mkdir d; echo x > d/f; ln -s f d/l; mkfifo d/p; grep CapEff /proc/self/status; stat -c %u d/f"
        step = run_step(script, user="app", single_id=True)

        lines = step["stdout"].splitlines()
        assert lines[0] == "uid=1000(app) gid=1001(app) groups=10(wheel),999(docker),1001(app)"
        assert lines[1:] == ["CapEff:\t0000000000000000", "1000"]
        found = {path: (entry["mode"], entry["owner"]) for path, entry in step["layer"].items()}
        app = [1000, 1001]
        assert found == {"d": ("750", app), "d/f": ("640", app), "d/l": ("777", app), "d/p": ("640", app)}

    def test_user_by_number_needs_no_account(self, run_step):
        """A number without an account works."""
        step = run_step("id -u; id -g; touch /tmp/f", user="4711:12", single_id=True)

        assert step["stdout"] == "4711\n12\n"
        assert step["layer"]["tmp/f"]["owner"] == [4711, 12]

    def test_user_cannot_give_files_away(self, run_step):
        """Who is not root may only keep a file, or give it to a group of its own."""
        script = "touch f g; chown 0 f; echo $?; chown 1000 f; echo $?; chgrp 10 f; echo $?; chgrp 5 f; echo $?; chown 1000 /etc/passwd; echo $?"
        step = run_step(script, user="app", single_id=True)

        assert step["stdout"].split() == ["1", "0", "0", "1", "1"]
        assert step["layer"]["f"]["owner"] == [1000, 10]

    def test_user_makes_no_device(self, run_step):
        """Devices are for root."""
        assert run_step("mknod n c 1 3", user="app", single_id=True)["status"] == 1

    def test_working_directory_belongs_to_the_user(self, run_step):
        """A working directory that is missing belongs to the user."""
        step = run_step("stat -c %u:%g .", user="app", cwd="/srv/app", single_id=True)

        assert step["stdout"] == "1000:1001\n"
        assert step["layer"]["srv/app"]["owner"] == [1000, 1001]

    def test_su_becomes_another_user(self, run_steps, image):
        """What root starts as another user is that user, also after the process in between has ended."""
        (image / "etc/shadow").write_text("root:::0:::::\napp:::0:::::\n")
        script = "su app -c '(sleep 0.2; id -u > /tmp/late) & id -u; mkdir /tmp/d; cp /etc/group /tmp/d'; sleep 0.5; cat /tmp/late; id -u"
        (step,) = run_steps({"args": ["sh", "-c", script]}, single_id=True)

        assert step["stdout"].split() == ["1000", "1000", "0"]
        made = {path: entry["owner"] for path, entry in step["layer"].items()}
        assert made == {key: [1000, 1001] for key in ("tmp/d", "tmp/d/group", "tmp/late")} | {"tmp": [0, 0]}

    def test_directory_passes_its_group_on(self, run_step):
        """What is made in a directory with the set-group-id bit has its group, whoever makes it."""
        script = "mkdir d; chown 0:7 d; chmod 2777 d; touch d/a; mkdir d/b; su app -c 'touch d/c'"
        step = run_step("printf 'root:::0:::::\\napp:::0:::::\\n' > /etc/shadow; " + script, single_id=True)

        found = {
            path: (entry["mode"], entry["owner"]) for path, entry in step["layer"].items() if "d" in path.split("/")
        }
        assert found == {
            "d": ("2777", [0, 7]),
            "d/a": ("644", [0, 7]),
            "d/b": ("2755", [0, 7]),
            "d/c": ("644", [1000, 7]),
        }

    def test_dropped_rights_do_not_come_back(self, run_python):
        """Who has become somebody for good cannot become root again, and is told the ids it has."""
        step = run_python("""
os.setgroups([5, 3]); os.setresgid(7, 8, 9); os.setresuid(1, 2, 3)
print(os.getresuid(), os.getresgid(), sorted(os.getgroups()), os.getuid(), os.geteuid(), os.getgid(), os.getegid())
for change in (lambda: os.setuid(0), lambda: os.seteuid(0), lambda: os.setgroups([]), lambda: os.setgid(0)):
    try: change(); print("changed")
    except PermissionError: print("refused")
os.seteuid(3); sys.stdout.flush()
os.execv("/usr/bin/python3", ["python3", "-IBc", "import os; print(os.getresuid())"])
""")

        assert step["stdout"].splitlines() == ["(1, 2, 3) (7, 8, 9) [3, 5] 1 2 7 8", *["refused"] * 4, "(1, 3, 3)"]

    def test_effective_id_can_be_taken_back(self, run_python):
        """Who is somebody only for the time being makes files as that, and is root again afterwards."""
        step = run_python("""
os.seteuid(1000); open("a", "w").close()
os.seteuid(0); open("b", "w").close()
""")

        assert [step["layer"][name]["owner"] for name in "ab"] == [[1000, 0], [0, 0]]

    def test_threads_have_their_own_ids(self, run_python):
        """The system call changes one thread; what that starts is like it."""
        step = run_python(
            """
import platform, threading
number = {"x86_64": 117, "aarch64": 147}[platform.machine()]
def work():
    call(number, 5, 5, 5); print(os.getuid(), os.popen("id -u").read().strip(), flush=True)
thread = threading.Thread(target=work); thread.start(); thread.join(); print(os.getuid())
""",
            environ=[["PATH", "/bin"]],
        )

        assert step["stdout"].split() == ["5", "5", "0"]

    def test_peer_of_a_socket_is_who_it_says(self, run_python):
        """SO_PEERCRED tells the ids of the other end."""
        step = run_python("""
import socket, struct
server = socket.socket(socket.AF_UNIX); server.bind("/tmp/s"); server.listen()
if not (child := os.fork()):
    os.setresgid(6, 6, 6); os.setresuid(5, 5, 5)
    client = socket.socket(socket.AF_UNIX); client.connect("/tmp/s"); client.recv(1); os._exit(0)
connected, _ = server.accept()
os.setresuid(0, 0, 0)
import time; time.sleep(0.2)
pid, uid, gid = struct.unpack("3I", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
print(pid == child, uid, gid)
connected.send(b"x"); os.wait()
""")

        assert step["stdout"] == "True 5 6\n"


def test_privileged_step_is_supervised(run_step):
    """A step with all rights has owners, too."""
    step = run_step("touch f; chown 3:4 f; stat -c %u:%g f", privileged=True, single_id=True)

    assert (step["stdout"], step["layer"]["f"]["owner"]) == ("3:4\n", [3, 4])


def test_records_mean_nothing_where_all_ids_exist(run_step):
    """With sub-ids, or as root, an attribute of that name is not the owner, and is not in the layer."""
    step = run_step("touch f", single_id=False)
    assert step["layer"]["f"]["owner"] == [0, 0]
    assert os.geteuid() == 0 or step["layer"]["f"]["xattrs"] == []
