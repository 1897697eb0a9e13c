"""Looking at everything below a directory at once, for what lstat(2) says of it.

Two processes do it together where there is a second processor: most of the time goes into a system call for each file,
and threads would spend as long on handing the interpreter to each other. The second one is a fork that looks at its
share of the directories, sends what it saw and ends; it opens nothing but directories, and neither writes nor cleans up
anything. Where it fails, for whatever reason, the first one looks at that share by itself.
"""

from __future__ import annotations

import contextlib
import gc
import marshal
import os
import signal
import threading
from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, NoReturn

from builder.context.batch import from_facts, mark_facts, read_batches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from builder.context.batch import Batch
    from builder.context.root import SourceRoot
    from builder.context.walk import Filter

_WORTH: Final = 2048
"""How many things have to be there for a second process, which costs about as much as looking at a thousand."""
_PARTS: Final = 64
"""How many directories have to be known to share what is below them."""
_MOST_PARTS: Final = 1024
"""As many as a pipe holds the numbers of, however small it is."""
_NUMBER: Final = 2
_READ: Final = 1 << 20


class Look:
    """What was seen.

    Args:
        room: how many things may be remembered.
        as_facts: remember them as what can be sent.

    Attributes:
        mark: a number for all that lstat says, in whatever order it was seen.
        count: how many things there are.
    """

    __slots__ = ("_as_facts", "_facts", "_kept", "_room", "count", "mark")

    def __init__(self, room: int, *, as_facts: bool = False) -> None:
        self.mark = 0
        self.count = 0
        self._room = room
        self._as_facts = as_facts
        self._kept: dict[bytes, list[Batch]] = {}
        self._facts: dict[bytes, list[bytes]] = {}

    @property
    def is_kept(self) -> bool:
        """Whether everything is remembered, so that `batches` gives it."""
        return self.count <= self._room

    def batches(self, folder: bytes) -> Iterable[Batch]:
        """Give what lies directly in a directory."""
        return self._kept.get(folder) or map(from_facts, self._facts.get(folder, ()))

    def below(self, root: SourceRoot, folders: Iterable[bytes], active: Sequence[Filter]) -> None:
        """Look at everything below directories."""
        for folder in folders:
            todo = [folder]
            while todo:
                todo += self.directly(root, todo.pop(), active)

    def directly(self, root: SourceRoot, folder: bytes, active: Sequence[Filter]) -> list[bytes]:
        """Look at what lies directly in a directory, and give the directories in it.

        Args:
            root: where to look.
            folder: the directory.
            active: what is left out.
        """
        folders: list[bytes] = []
        for batch in read_batches(root, folder, active):
            facts = batch.facts()
            self.mark += mark_facts(facts)
            self._count(len(batch.names))
            if self.is_kept and self._as_facts:
                self._facts.setdefault(folder, []).append(facts)
            elif self.is_kept:
                self._kept.setdefault(folder, []).append(batch)
            folders += batch.folders()
        return folders

    def send(self, fd: int) -> None:
        """Write what was seen, if it was remembered as facts; as much of it as the receiver has to know."""
        data = memoryview(marshal.dumps((self.mark, self.count, self._facts)))
        while data:
            data = data[os.write(fd, data) :]

    def receive(self, data: bytes) -> None:
        """Add what another one has sent.

        Raises:
            EOFError, ValueError, TypeError: it is not whole.
        """
        mark, count, facts = marshal.loads(data)  # noqa: S302  from a process of ours
        self.mark += mark
        self._facts.update(facts)
        self._count(count)

    def _count(self, number: int) -> None:
        self.count += number
        if not self.is_kept:
            self._kept.clear()
            self._facts.clear()


def look_below(root: SourceRoot, folder: bytes, active: Sequence[Filter], *, room: int) -> Look:
    """Look at everything below a directory.

    Args:
        root: where to look.
        folder: an existing directory, free of symbolic links.
        active: what is left out.
        room: how many things may be remembered.

    Raises:
        ContextError: something that is selected cannot be read, or went away meanwhile.
    """
    look = Look(room)
    folders = deque([folder])
    while folders and not (look.count >= _WORTH and len(folders) >= _PARTS):
        folders += look.directly(root, folders.popleft(), active)
    if not (folders and _has_second_processor() and _share(look, root, list(folders), active, room)):
        look.below(root, folders, active)
    return look


def _has_second_processor() -> bool:
    # With other threads a fork would have their locks, and they would take the processor.
    return threading.active_count() == 1 and len(os.sched_getaffinity(0)) > 1


def _share(look: Look, root: SourceRoot, folders: Sequence[bytes], active: Sequence[Filter], room: int) -> bool:
    """Look at everything below *folders* with a second process; tells whether there was one."""
    size = -(-len(folders) // _MOST_PARTS)
    parts = [folders[at : at + size] for at in range(0, len(folders), size)]
    with ExitStack() as stack:
        numbers, results, output = _open_pipes(len(parts), stack)
        parent = os.getpid()
        try:
            child = os.fork()
        except OSError:  # there are as many processes as there may be
            return False
        if child == 0:
            _work_apart(root, parts, active, room, numbers, output, parent)
        stack.callback(_end, child)
        os.close(output)
        own: set[int] = set()
        for number in _draw(numbers):
            own.add(number)
            look.below(root, parts[number], active)
        try:
            look.receive(b"".join(iter(lambda: os.read(results, _READ), b"")))
        except (EOFError, ValueError, TypeError):
            for number in set(range(len(parts))) - own:
                look.below(root, parts[number], active)
    return True


def _open_pipes(count: int, stack: ExitStack) -> tuple[int, int, int]:
    """Give a pipe to draw numbers of parts from, and both ends of one for what the second process saw.

    The latter's end for writing is closed by who has no use for it.
    """
    numbers, input_ = os.pipe()
    stack.callback(os.close, numbers)
    os.write(input_, b"".join(number.to_bytes(_NUMBER, "big") for number in range(count)))
    os.close(input_)
    results, output = os.pipe()
    stack.callback(os.close, results)
    return numbers, results, output


def _draw(numbers: int) -> Iterator[int]:
    """Take numbers of parts as long as there are any; each is given to one process only."""
    while number := os.read(numbers, _NUMBER):
        yield int.from_bytes(number, "big")


def _work_apart(
    root: SourceRoot,
    parts: Sequence[Sequence[bytes]],
    active: Sequence[Filter],
    room: int,
    numbers: int,
    output: int,
    parent: int,
) -> NoReturn:
    """Be the second process."""
    status = 1
    try:
        gc.disable()  # a collection would touch, and so copy, every page
        look = Look(room, as_facts=True)
        for number in _draw(numbers):
            if os.getppid() != parent:
                break
            look.below(root, parts[number], active)
        else:
            look.send(output)
            status = 0
    finally:
        # Whatever went wrong is found and told by the first process; nothing of its is cleaned up here.
        os._exit(status)


def _end(child: int) -> None:
    """End the second process, which is over unless the first one failed."""
    os.kill(child, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):  # where SIGCHLD is ignored there is nothing to wait for
        os.waitpid(child, 0)
