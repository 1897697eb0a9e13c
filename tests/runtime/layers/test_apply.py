from __future__ import annotations

import io
import os
import socket
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest

from runtime.errors import IdNotMappedError, KernelError, LayerError
from runtime.layers.apply import apply_layer
from runtime.layers.archive import ArchiveWriter, _block, _record
from runtime.layers.entry import Entry, EntryKind
from tests.runtime.inside import run_inside

if TYPE_CHECKING:
    from pathlib import Path

OWN = (os.geteuid(), os.getegid())
CAPABILITY_V2 = bytes.fromhex("0100000200200000000000000000000000000000")
CAPABILITY_V3 = bytes.fromhex("0100000300200000000000000000000000000000e8030000")

Item = tuple[Entry, bytes]


def entry(path: str | bytes, kind: EntryKind = EntryKind.FILE, mode: int = 0o644, **values) -> Entry:
    """Return an entry of this user."""
    return Entry(os.fsencode(path), kind, mode, *OWN, 1000)._replace(**values)


def file(path: str | bytes, content: bytes = b"", mode: int = 0o644, **values) -> Item:
    """Return a file with its content."""
    return entry(path, mode=mode, size=len(content), **values), content


def directory(path: str | bytes, mode: int = 0o755, **values) -> Item:
    """Return a directory."""
    return entry(path, EntryKind.DIRECTORY, mode, **values), b""


def symlink(path: str | bytes, target: str) -> Item:
    """Return a symbolic link."""
    return entry(path, EntryKind.SYMLINK, 0o777, linkname=target.encode()), b""


def hard_link(path: str | bytes, target: str) -> Item:
    """Return a hard link."""
    return entry(path, EntryKind.HARDLINK, linkname=target.encode()), b""


def tar(*items: Item) -> bytes:
    """Return a layer of these."""
    pieces: list[bytes] = []
    writer = ArchiveWriter(pieces.append)
    for header, content in items:
        writer.add(header, content or None)
    writer.finish()
    return b"".join(pieces)


def apply(root: Path, *items: Item) -> list[bytes]:
    """Apply a layer of these; return the paths that were reported."""
    seen: list[bytes] = []
    apply_layer(io.BytesIO(tar(*items)), root, on_entry=lambda found: seen.append(found.path))
    return seen


def names(root: Path) -> set[str]:
    """Return all paths below a root."""
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.fixture
def root(tmp_path) -> Path:
    """An empty root directory beside a file that no layer may touch."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("untouched")
    path = tmp_path / "root"
    path.mkdir()
    return path


def assert_outside_untouched(root: Path) -> None:
    """Check that nothing beside the root was made, changed, linked or removed."""
    assert names(root.parent / "outside") == {"secret"}
    secret = root.parent / "outside/secret"
    assert secret.read_text() == "untouched"
    assert secret.stat().st_nlink == 1
    assert {path.name for path in root.parent.iterdir()} == {"outside", "root"}


def test_apply_makes_every_kind(root: Path):
    """Files, directories, links, and FIFOs appear with content, mode and time."""
    old = os.umask(0o077)

    try:
        seen = apply(
            root,
            directory("d", 0o1775, mtime=5),
            file("d/f", b"content", 0o6755, mtime=7),
            hard_link("d/h", "d/f"),
            symlink("d/s", "../../x"),
            (entry("d/p", EntryKind.FIFO, 0o622, mtime=-9), b""),
            file(b"d/\xff\xfe", b"raw"),
        )
    finally:
        os.umask(old)

    status = {name: os.lstat(root / name) for name in ("d", "d/f", "d/h", "d/s", "d/p")}
    assert stat.S_IMODE(status["d"].st_mode) == 0o1775
    assert status["d"].st_mtime == 5
    assert (stat.S_IMODE(status["d/f"].st_mode), status["d/f"].st_mtime) == (0o6755, 7)
    assert (root / "d/f").read_bytes() == b"content"
    assert os.path.samestat(status["d/f"], status["d/h"])
    assert os.readlink(root / "d/s") == "../../x"
    assert status["d/s"].st_mtime == 1000
    assert (stat.S_IFMT(status["d/p"].st_mode), stat.S_IMODE(status["d/p"].st_mode)) == (stat.S_IFIFO, 0o622)
    assert status["d/p"].st_mtime == -9
    assert (root / os.fsdecode(b"d/\xff\xfe")).read_bytes() == b"raw"
    assert seen == [b"d", b"d/f", b"d/h", b"d/s", b"d/p", b"d/\xff\xfe"]


def test_apply_keeps_holes_of_sparse_files(root: Path):
    """A sparse file takes no room for its holes."""
    records = _record(b"GNU.sparse.size", b"%d" % (1 << 30)) + _record(b"GNU.sparse.map", b"1048576,4")
    header = _block(b"x", size=len(records), flag=b"x") + records.ljust(512, b"\0")
    data = header + _block(b"f", mode=0o644, uid=OWN[0], gid=OWN[1], size=4, flag=b"0") + b"data".ljust(512, b"\0")

    apply_layer(io.BytesIO(data), root)

    status = (root / "f").stat()
    assert status.st_size == 1 << 30
    assert status.st_blocks * 512 < 1 << 20
    with open(root / "f", "rb") as opened:
        opened.seek(1048574)
        assert opened.read(8) == b"\0\0data\0\0"


def test_apply_replaces_what_is_there(root: Path):
    """An entry replaces what is no directory, a file replaces a whole tree, a directory keeps its content."""
    apply(
        root,
        file("file", b"old"),
        symlink("link", "/somewhere"),
        directory("tree"),
        directory("tree/sub"),
        file("tree/sub/f"),
        directory("kept", 0o700),
        file("kept/f", b"below"),
        file("was-file"),
        symlink("was-link", "kept"),
    )

    apply(
        root,
        file("file", b"new"),
        file("link", b"a file now"),
        file("tree", b"a file too"),
        directory("kept", 0o751),
        directory("was-file"),
        directory("was-link"),
        file("was-link/f", b"inside"),
    )

    assert (root / "file").read_bytes() == b"new"
    assert (root / "link").read_bytes() == b"a file now"
    assert not (root / "link").is_symlink()
    assert (root / "tree").read_bytes() == b"a file too"
    assert stat.S_IMODE((root / "kept").stat().st_mode) == 0o751
    assert (root / "kept/f").read_bytes() == b"below"
    assert (root / "was-file").is_dir()
    assert not (root / "was-link").is_symlink()
    assert names(root / "kept") == {"f"}


def test_apply_replacing_a_file_leaves_its_other_names_alone(root: Path):
    """A new file is a new object; hard links of the old one keep the old content."""
    apply(root, file("a", b"old"), hard_link("b", "a"))

    apply(root, file("a", b"new"))

    assert ((root / "a").read_bytes(), (root / "b").read_bytes()) == (b"new", b"old")


def test_apply_whiteout_deletes_what_is_below(root: Path):
    """A deletion removes a file or a tree; what is missing already is no error."""
    apply(root, directory("d"), file("d/f"), file("d/g"), directory("t"), directory("t/u"), file("t/u/f"))

    seen = apply(root, file("d/.wh.f"), file(".wh.t"), file("d/.wh.missing"), file("no/such/.wh.f"), file("d/g/.wh.x"))

    assert names(root) == {"d", "d/g"}
    assert seen == [b"d/.wh.f", b".wh.t", b"d/.wh.missing", b"no/such/.wh.f", b"d/g/.wh.x"]


@pytest.mark.parametrize("marker_first", [True, False])
def test_apply_whiteout_spares_what_its_own_layer_wrote(root: Path, marker_first: bool):
    """Removed and added again in one layer, in either order, the new one is there and the old content is not."""
    apply(root, directory("d"), file("d/old"), file("f", b"old"))
    marker = [file(".wh.d"), file(".wh.f")]
    new = [directory("d"), file("d/new"), file("f", b"new")]

    apply(root, *(marker + new if marker_first else new + marker))

    assert names(root) == {"d", "d/new", "f"}
    assert (root / "f").read_bytes() == b"new"


@pytest.mark.parametrize("place", [1, 2, 4], ids=["first", "between", "last"])
def test_apply_opaque_directory_loses_what_is_below(root: Path, place: int):
    """An opaque directory keeps what its own layer wrote, wherever the marker stands."""
    apply(root, directory("d"), directory("d/sub"), file("d/sub/old"), file("d/old"), directory("d/gone"), file("kept"))
    items = [directory("d"), directory("d/sub"), file("d/sub/new"), file("d/new")]
    items.insert(place, file("d/.wh..wh..opq"))

    apply(root, *items)

    assert names(root) == {"d", "d/sub", "d/sub/new", "d/new", "kept"}


def test_apply_opaque_directory_is_found_through_links(root: Path):
    """What the layer wrote through a symbolic link is its own too."""
    apply(root, directory("usr"), directory("usr/lib"), file("usr/lib/old"), symlink("lib", "usr/lib"))

    apply(root, file("lib/new"), file("usr/lib/.wh..wh..opq"))

    assert names(root / "usr/lib") == {"new"}


def test_apply_opaque_root(root: Path):
    """The root itself can be emptied."""
    apply(root, file("old"), directory("d"), file("d/old"))

    apply(root, file("new"), file(".wh..wh..opq"))

    assert names(root) == {"new"}


def test_apply_never_makes_marker_files(root: Path):
    """Whiteouts, aufs bookkeeping and devices that overlay takes for deletions leave nothing behind."""
    device = entry("dev", EntryKind.CHARACTER, device=(0, 0)), b""

    apply(root, file(".wh..wh.aufs"), directory(".wh..wh.plnk"), file(".wh..wh.plnk/1.2"), file(".wh.x"), device)

    assert names(root) == set()


@pytest.mark.parametrize("path", [".wh.", ".wh..", ".wh...", "d/.wh.."])
def test_apply_refuses_whiteouts_of_nothing(root: Path, path: str):
    """A whiteout without a name, or of a directory's own entries, is damage."""
    with pytest.raises(LayerError, match="whiteout deletes nothing"):
        apply(root, directory("d"), file(path))


def test_apply_refuses_entries_below_a_whiteout(root: Path):
    """A whiteout is no directory."""
    with pytest.raises(LayerError, match=r"lies below a whiteout: `\.wh\.d/f`"):
        apply(root, file(".wh.d/f"))


def test_apply_add_remove_add_leaves_the_last(root: Path):
    """A file that three layers add, remove and add again is there."""
    apply(root, file("f", b"1"))
    apply(root, file(".wh.f"))
    apply(root, file("f", b"3"))

    assert (root / "f").read_bytes() == b"3"


def links_out(target: str) -> list[list[Item]]:
    """Return layers that try to reach *target* through links."""
    return [
        [symlink("l", target), file("l/new", b"x")],
        [symlink("l", target), file("l/secret", b"x")],
        [symlink("l", target + "/secret"), file("l", b"x")],
        [symlink("l", target + "/secret"), hard_link("h", "l"), file("h", b"x")],
        [symlink("l", target), hard_link("h", "l/secret")],
        [symlink("l", target), file("l/.wh.secret")],
        [symlink("l", target), file("l/.wh..wh..opq")],
        [symlink("l", target), directory("l", 0o777)],
        [symlink("l", target), directory("l/new")],
        [symlink("l", target), symlink("l/new", "x")],
        [symlink("l", target), symlink("m", "l"), file("m/new")],
        [symlink("l", target), file(".wh.l")],
    ]


@pytest.mark.parametrize("form", ["relative", "absolute", "up"])
@pytest.mark.parametrize("case", range(12))
def test_apply_never_leaves_the_root_through_links(root: Path, case: int, form: str):
    """No order of links and entries reads, writes or removes anything outside; an error is as good as a detour."""
    if os.geteuid() == 0:
        targets = {
            "relative": "../outside",
            "absolute": str(root.parent / "outside"),
            "up": "../" * 40 + str(root.parent)[1:] + "/outside",
        }
    else:
        # Missing directories that the links lead to belong to root, which only root can arrange.
        targets = {"relative": "../outside", "absolute": "/outside", "up": "../" * 40 + "outside"}
        apply(root, directory("outside"))

    try:
        apply(root, *links_out(targets[form])[case])
    except LayerError as error:
        assert error.entry  # noqa: PT017 - either outcome is right

    assert_outside_untouched(root)


@pytest.mark.parametrize("name", ["../outside/new", "/../outside/new", "d/../../outside/new", "./../outside/new"])
@pytest.mark.parametrize("kind", ["name", "hard-link"])
def test_apply_refuses_names_that_go_up(root: Path, name: str, kind: str):
    """`..` above the root is an error, in names and in targets of hard links."""
    link = kind == "hard-link"
    block = _block(
        b"h" if link else name.encode(), flag=b"1" if link else b"0", linkname=name.encode() if link else b""
    )

    with pytest.raises(LayerError, match="leaves the root"):
        apply_layer(io.BytesIO(block), root)

    assert_outside_untouched(root)


def test_apply_absolute_names_are_relative_to_the_root(root: Path):
    """Absolute names and hard link targets begin at the root of the image."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, type_, target in (
            ("/d", tarfile.DIRTYPE, ""),
            ("/d/f", tarfile.REGTYPE, ""),
            ("/h", tarfile.LNKTYPE, "/d/f"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = type_, target, 0o755
            info.uid, info.gid = OWN
            archive.addfile(info)

    apply_layer(io.BytesIO(stream.getvalue()), root)

    assert names(root) == {"d", "d/f", "h"}
    assert (root / "h").samefile(root / "d/f")


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([hard_link("h", "missing")], "does not exist: `h`"),
        ([hard_link("h", "later"), file("later")], "does not exist: `h`"),
        ([hard_link("h", "no/such")], "does not exist: `h`"),
        ([directory("d"), hard_link("h", "d")], "points to a directory: `h`"),
        ([hard_link("h", "")], "points to the root"),
        ([symlink("l", "l"), file("l/f")], "too many symbolic links .*: `l/f`"),
        ([file("f"), file("f/g")], "no directory: `f/g`"),
        ([file("n" * 256)], "longer than the kernel allows"),
        ([symlink("s", "")], "without target"),
        ([symlink("s", "x" * 5000)], "longer than the kernel allows"),
        ([file("")], "only a directory can be the root"),
    ],
    ids=[
        "link-to-nothing",
        "forward-link",
        "link-through-nothing",
        "link-to-directory",
        "link-to-root",
        "loop",
        "file-as-parent",
        "long-name",
        "empty-symlink",
        "long-symlink",
        "file-as-root",
    ],
)
def test_apply_refuses_what_cannot_be(root: Path, items: list[Item], message: str):
    """Entries that contradict themselves are errors that name them."""
    with pytest.raises(LayerError, match=message):
        apply(root, *items)


def test_apply_keeps_symlinks_verbatim(root: Path):
    """Text of symbolic links is kept, wherever it points, also to themselves."""
    targets = ["/.", "..", "../../../etc/passwd", "self", "//a//b/", "x" * 4000]

    apply(root, *(symlink(f"s{number}", target) for number, target in enumerate(targets)))

    assert [os.readlink(root / f"s{number}") for number in range(len(targets))] == targets


def test_apply_paths_longer_than_the_kernel_allows(root: Path):
    """Entries in deep directories are reached in steps."""
    parts = ["d" * 200] * 25
    items = [directory("/".join(parts[: depth + 1])) for depth in range(25)]

    apply(root, *items, file("/".join(parts) + "/f", b"deep"))

    fd = os.open(root, os.O_PATH)
    for part in parts:
        below = os.open(part, os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = below
    with open(os.open("f", os.O_RDONLY, dir_fd=fd), "rb") as opened:
        assert opened.read() == b"deep"
    os.close(fd)


def test_apply_follows_three_hundred_directories(root: Path):
    """Many levels are no trouble, and every directory gets its time."""
    paths = ["/".join(["d"] * depth) for depth in range(1, 301)]

    apply(root, *(directory(path, mtime=number) for number, path in enumerate(paths)))

    assert [(root / path).stat().st_mtime for path in paths] == list(range(300))


def test_apply_more_parents_than_are_kept_open(root: Path):
    """Archives that jump between many directories, with hard links across, are unpacked."""
    apply(root, *(directory(f"d{number}") for number in range(200)))
    jumps = [
        item for n in range(200) for item in (file(f"d{n}/f", b"%d" % n), hard_link(f"d{n * 7 % 200}/h{n}", f"d{n}/f"))
    ]

    apply(root, *jumps)

    assert all((root / f"d{n * 7 % 200}/h{n}").read_bytes() == b"%d" % n for n in range(200))


def test_apply_notices_replaced_parents(root: Path):
    """A directory that becomes a link to another in one layer leads the later entries there."""
    apply(root, directory("a"), directory("b"), file("a/1"), file(".wh.none"))

    apply(root, file("a/2"), symlink("a", "b"), file("a/3"))

    assert names(root) == {"a", "b", "b/3"}


def test_apply_root_entry_sets_the_root_alone(root: Path):
    """`./` gives the root directory its mode and time."""
    apply(root, (entry("", EntryKind.DIRECTORY, 0o711, mtime=77), b""), file("f"))

    assert stat.S_IMODE(root.stat().st_mode) == 0o711
    assert root.stat().st_mtime == 77


def test_apply_xattrs_that_travel(root: Path):
    """Data in user.* is set; bookkeeping of overlay and labels of other hosts are not."""
    xattrs = (("security.selinux", b"x"), ("trusted.a", b"x"), ("user.a", b"\0\xff"), ("user.overlay.opaque", b"y"))

    apply(root, directory("d", xattrs=xattrs), file("f", xattrs=xattrs))

    for name in ("d", "f"):
        assert [key for key in os.listxattr(root / name) if not key.startswith("security.")] == ["user.a"]
        assert os.getxattr(root / name, "user.a") == b"\0\xff"


def test_apply_closes_what_it_opened(root: Path):
    """No descriptor stays open, also after an error."""
    before = len(os.listdir("/proc/self/fd"))

    apply(root, directory("d"), file("d/f"))
    with pytest.raises(LayerError):
        apply(root, file("d/g"), hard_link("d/h", "nothing"))

    assert len(os.listdir("/proc/self/fd")) == before


def test_apply_replaces_sockets(root: Path):
    """Whatever lies there gives way."""
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(root)
        listener.bind("s")
        os.chdir(here)

    apply(root, file("s", b"file"))

    assert (root / "s").read_bytes() == b"file"


def test_apply_to_a_missing_root_names_it(tmp_path):
    """The root has to exist."""
    with pytest.raises(KernelError, match="missing"):
        apply(tmp_path / "missing", file("f"))


@pytest.mark.userns
@pytest.mark.subids
def test_apply_inside_a_namespace_gives_files_away(root: Path):
    """As root of a user namespace, owners, setuid bits and file capabilities are what the layer says."""
    run_inside(check_ownership, root)


def check_ownership(root: Path) -> None:
    """Run inside."""
    capability = (("security.capability", CAPABILITY_V2),)
    of_another_namespace = (("security.capability", CAPABILITY_V3),)
    apply_layer(
        io.BytesIO(
            tar(
                file("a/b/f", b"x", 0o6755, uid=33, gid=44),
                directory("d", 0o2775, uid=1, gid=2),
                (entry("s", EntryKind.SYMLINK, linkname=b"f", uid=5, gid=6), b""),
                file("ping", b"x", 0o755, uid=0, gid=0, xattrs=capability),
                file("ping3", b"x", 0o755, uid=0, gid=0, xattrs=of_another_namespace),
                (entry("null", EntryKind.CHARACTER, 0o666, device=(1, 3), uid=0, gid=0), b""),
            )
        ),
        root,
    )

    status = {name: os.lstat(root / name) for name in ("a", "a/b", "a/b/f", "d", "s")}
    assert [(s.st_uid, s.st_gid) for s in status.values()] == [(0, 0), (0, 0), (33, 44), (1, 2), (5, 6)]
    assert stat.S_IMODE(status["a/b/f"].st_mode) == 0o6755
    assert stat.S_IMODE(status["a/b"].st_mode) == 0o755
    assert stat.S_IMODE(status["d"].st_mode) == 0o2775
    assert os.getxattr(root / "ping", "security.capability") == CAPABILITY_V2
    assert os.getxattr(root / "ping3", "security.capability") == CAPABILITY_V2
    if (root / "null").exists():  # only where the kernel lets this root make devices
        assert os.lstat(root / "null").st_rdev == os.makedev(1, 3)


@pytest.mark.userns
@pytest.mark.subids
@pytest.mark.skipif(os.geteuid() == 0, reason="needs an id map that ends, which root's does not")
@pytest.mark.parametrize("kind", ["uid", "gid"])
def test_apply_names_the_id_that_is_not_mapped(root: Path, kind: str):
    """A file of an id beyond the range says which id of which entry, and what to do."""
    run_inside(check_unmapped_uid if kind == "uid" else check_unmapped_gid, root)


def check_unmapped_uid(root: Path) -> None:
    """Run inside."""
    with pytest.raises(IdNotMappedError, match="uid 9000000, to whom `/f`") as caught:
        apply(root, file("f", uid=9000000, gid=0))
    assert caught.value.hint == "give this user at least 9000001 ids in /etc/subuid"


def check_unmapped_gid(root: Path) -> None:
    """Run inside."""
    with pytest.raises(IdNotMappedError, match="gid 9000000, to whom `/s`"):
        apply(root, (entry("s", EntryKind.SYMLINK, linkname=b"x", uid=0, gid=9000000), b""))
