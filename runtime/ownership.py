"""Keep true owners where only one user id exists.

In a user namespace with one id every file belongs to 0:0 as far as the kernel knows. What a file should belong to, and
which device it should be, is then kept beside it. A *record* is that: uid, gid, and for a device its type and number.
A file without a record belongs to whom the kernel says: 0:0. In a namespace with more ids there are no records, and
what looks like one means nothing.

    regular files, directories   the xattr `user.pybuild.owner`
    devices                      the same, on an empty regular file that stands for the device
    links, FIFOs, sockets        the xattr `security.capability`: the kernel takes no `user.*` on them, has no use for
                                 capabilities on what cannot be executed, and keeps 16 bytes of them

Both follow their object through rename, hard links and the copy-up of overlay, without a table beside the tree. Neither
ever stands in a layer, nor is it taken from one. A step may write records of its own files, and so lie about its own
layer, as it may with chown.

Source: xattr(7); capabilities(7), section "File capability extended attribute versioning".
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
import struct
from typing import Any, Final, NamedTuple

RECORD: Final = "user.pybuild.owner"
LINK_RECORD: Final = "security.capability"

LARGEST_ID: Final = 0xFFFF_FFFE

_LAYOUT: Final = struct.Struct("<IIIQ")  # uid, gid, type bits of a device or 0, device number
# struct vfs_cap_data; the kernel makes version 3 of it, which ends in the namespace.
_LINK_LAYOUT: Final = struct.Struct("<IIIII")
_LINK_SIZES: Final = frozenset({20, 24})
_VFS_CAP_REVISION_2: Final = 0x0200_0000
_LINK_MARK: Final = 0x7962_7570
_DEVICE_TYPES: Final = frozenset({stat.S_IFCHR, stat.S_IFBLK})
_NO_RECORD_ERRORS: Final = frozenset({errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENOENT})

Where = int | bytes | str
"""A descriptor that was opened for reading, or a path whose last component is not followed."""


class Record(NamedTuple):
    """Whom a file belongs to, and which device it is.

    Attributes:
        uid, gid: of the owner.
        type: stat.S_IFCHR or stat.S_IFBLK for a device, else 0.
        device: its number as of os.makedev.
    """

    uid: int = 0
    gid: int = 0
    type: int = 0
    device: int = 0


ROOT: Final = Record()
"""What a file without a record is."""


def is_recorded() -> bool:
    """Return whether this namespace has one user id, so that owners are recorded."""
    return _has_one_id(os.getpid())


@functools.cache
def _has_one_id(pid: int) -> bool:  # noqa: ARG001  what the answer holds for: a child may enter another namespace
    """Ask the kernel once a process, not once for each snapshot below each step."""
    from runtime.idmap import current_id_map  # noqa: PLC0415  asked inside only, where it is loaded

    return current_id_map("uid").id_count == 1


def takes_user_xattrs(mode: int) -> bool:
    """Return whether a file of this *mode* may have attributes `user.*`."""
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def decode(value: bytes) -> Record | None:
    """Read the value of `RECORD`; None if it is none."""
    if len(value) != _LAYOUT.size:
        return None
    record = Record(*_LAYOUT.unpack(value))
    if max(record.uid, record.gid) > LARGEST_ID or (record.type and record.type not in _DEVICE_TYPES):
        return None
    return record


def decode_link(value: bytes) -> Record | None:
    """Read the value of `LINK_RECORD` of a link, FIFO or socket; None if it is none."""
    if len(value) not in _LINK_SIZES:
        return None
    _, uid, mark, gid, _ = _LINK_LAYOUT.unpack_from(value)
    return Record(uid, gid) if mark == _LINK_MARK and max(uid, gid) <= LARGEST_ID else None


def find_record(where: Where, mode: int, *, follow: bool = False) -> Record | None:
    """Return the record of a file, None if it has none.

    Args:
        where: the file.
        mode: as the kernel says it is.
        follow: follow the last name of the path after all: a link of /proc to an open file, even to an open link.
    """
    name, read = (RECORD, decode) if takes_user_xattrs(mode) else (LINK_RECORD, decode_link)
    try:
        value = os.getxattr(where, name, follow_symlinks=follow or isinstance(where, int))
    except OSError as error:
        if error.errno in _NO_RECORD_ERRORS:
            return None
        raise
    return read(value)


def write_record(where: Where, mode: int, record: Record, *, follow: bool = False) -> None:
    """Write the record of a file, as `find_record` finds it; that of root is none.

    Nothing happens on a file system that keeps no attributes, such as /dev/shm of older kernels: it is no layer.

    Raises:
        OSError: the file system is full or read-only.
    """
    if takes_user_xattrs(mode):
        name, value = RECORD, _LAYOUT.pack(*record)
    else:
        name = LINK_RECORD
        value = _LINK_LAYOUT.pack(_VFS_CAP_REVISION_2, record.uid, _LINK_MARK, record.gid, 0)
    follow = follow or isinstance(where, int)
    try:
        if record == ROOT:
            os.removexattr(where, name, follow_symlinks=follow)
        else:
            os.setxattr(where, name, value, follow_symlinks=follow)
    except OSError as error:
        if error.errno not in {errno.ENODATA, errno.ENOTSUP}:
            raise


def with_record(status: os.stat_result, record: Record) -> os.stat_result:
    """Return *status* as it would be if the file were what its *record* says."""
    # The ten fields of old as a tuple, the others by name: the only public way to change some.
    reduced: Any = status.__reduce__()
    make, (values, others) = reduced
    values = list(values)
    values[stat.ST_UID], values[stat.ST_GID] = record.uid, record.gid
    if record.type:
        values[stat.ST_MODE] = record.type | stat.S_IMODE(status.st_mode)
        others = {**others, "st_rdev": record.device}
    made: os.stat_result = make(values, others)
    return made


class Owners:
    """How files are given away, and asked whose they are, in one namespace.

    Attributes:
        recorded: whether by records; else the kernel does it.
    """

    __slots__ = ("recorded",)

    def __init__(self, *, recorded: bool) -> None:
        self.recorded = recorded

    @classmethod
    def here(cls) -> Owners:
        """Return how it is done in the namespace of this process."""
        return cls(recorded=is_recorded())

    def true_status(self, status: os.stat_result, name: Where, *, dir_fd: int | None = None) -> os.stat_result:
        """Return what stat(2) would say of a file if all ids existed.

        Args:
            status: what it says.
            name: the file: a descriptor, or a path below *dir_fd* if that is given.
            dir_fd: a directory.
        """
        if not self.recorded:
            return status
        where = name if isinstance(name, int) else _locate(name, dir_fd)
        record = find_record(where, status.st_mode)
        return status if record is None else with_record(status, record)

    def give(self, name: Where, uid: int, gid: int, *, dir_fd: int | None = None) -> None:
        """Give a file away, whatever it belonged to; a link itself, not what it points to. Mode bits may get lost.

        Args:
            name: a descriptor, or a path below *dir_fd* if that is given.
            uid: its new owner.
            gid: its new group.
            dir_fd: a directory.

        Raises:
            OSError: EINVAL where ids are not recorded and the namespace lacks this one.
        """
        if not self.recorded:
            if isinstance(name, int):
                os.fchown(name, uid, gid)
            else:
                os.chown(name, uid, gid, dir_fd=dir_fd, follow_symlinks=False)
            return
        if isinstance(name, int):
            where: Where = name
            mode = os.fstat(name).st_mode
        else:
            where = _locate(name, dir_fd)
            mode = os.lstat(where).st_mode
        old = find_record(where, mode) or ROOT
        new = old._replace(uid=uid, gid=gid)
        if new != old:
            write_record(where, mode, new)

    def make_device(self, name: bytes, mode: int, device: int, *, dir_fd: int) -> None:
        """Make a device node that belongs to root; *mode* holds its type and permissions.

        Raises:
            OSError: EPERM where devices are not recorded and the kernel refuses them.
        """
        if not self.recorded:
            os.mknod(name, mode, device, dir_fd=dir_fd)
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, stat.S_IMODE(mode), dir_fd=dir_fd)
        try:
            write_record(fd, stat.S_IFREG, Record(type=stat.S_IFMT(mode), device=device))
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=dir_fd)
            raise
        finally:
            os.close(fd)


def _locate(name: bytes | str, dir_fd: int | None) -> bytes | str:
    """Return a path of *name* in an open directory, for the calls on attributes, which take no directory."""
    return name if dir_fd is None else b"/proc/self/fd/%d/%s" % (dir_fd, os.fsencode(name))
