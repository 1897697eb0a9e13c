"""The ways steps are kept apart from the builder, best first, and what this place allows of them.

    subids      a user namespace with a range of ids: files have the owners they have in the image
    single-id   a user namespace with one id, for who has no sub-ids
    chroot      no namespaces: uid 0 of a container with its default rights
    none        no steps at all; COPY, ADD and metadata need none of this

A *rung* is one of them. What stands in the way of a rung is told by trying it.

Source: spec, container-matrix and rootless-mechanics.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from runtime import idmap
from runtime.errors import HostUnsupportedError, SandboxError

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.snapshots.snapshotter import SnapshotterName

Rung = Literal["subids", "single-id", "chroot", "none"]

Choice = Literal["auto", Rung]
"""What can be asked for; `auto` takes the best there is."""

RUNGS: Final[tuple[Rung, ...]] = get_args(Rung)
"""All of them, best first."""

CHOICES: Final[tuple[Choice, ...]] = get_args(Choice)
"""All that can be asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What a user namespace of this place offers.

    Attributes:
        uids, gids: how many ids exist in it.
        fresh_proc: whether the kernel lets it have a /proc of its own; else steps see the outer one.
        overlay: whether overlay takes directories of the store; else layers are copied.
    """

    uids: int
    gids: int
    fresh_proc: bool
    overlay: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of trying a rung: *obstacle* is why it cannot be had, None if it can; *inside* is what it offers."""

    rung: Rung
    obstacle: HostUnsupportedError | None = None
    inside: Inside | None = None

    @property
    def snapshotter(self) -> SnapshotterName | None:
        """What shows the layers to steps at this rung; None if no step can be run at it."""
        if self.obstacle is not None or self.rung == "none":
            return None
        return "overlay" if self.inside is not None and self.inside.overlay else "copies"


def try_rung(rung: Rung, folder: Path) -> Trial:
    """Try a rung for real. The process must have one thread.

    Args:
        rung: what to try.
        folder: an existing directory on the file system of the store, where something may be made for a moment.
    """
    match rung:
        case "none":
            return Trial(rung=rung)
        case "chroot":
            from runtime.chroot import find_obstacle  # noqa: PLC0415  only where namespaces are refused

            reason = find_obstacle(folder)
            obstacle = None if reason is None else HostUnsupportedError("steps by chroot", reason)
            return Trial(rung=rung, obstacle=obstacle)
        case _:
            return _try_namespace(rung, folder)


def choose(trials: tuple[Trial, ...]) -> Trial:
    """Return the best rung that can be had."""
    return next(trial for trial in sorted(trials, key=lambda t: RUNGS.index(t.rung)) if trial.obstacle is None)


def _try_namespace(rung: Literal["subids", "single-id"], folder: Path) -> Trial:
    from runtime.namespace import run_in_namespace  # noqa: PLC0415  not to be had for who only wants the names

    reader, writer = os.pipe2(os.O_CLOEXEC)
    with open(reader, "rb") as answer:
        try:
            run_in_namespace(lambda: _look_around(writer, folder), ids="single" if rung == "single-id" else "ranges")
        except HostUnsupportedError as error:
            return Trial(rung=rung, obstacle=error)
        finally:
            os.close(writer)
        found = json.loads(answer.read() or b'{"error": "it ended without a word"}')
    if "error" in found:
        return Trial(rung=rung, obstacle=HostUnsupportedError("what steps are mounted from", found["error"]))
    return Trial(rung=rung, inside=Inside(**found))


def _look_around(writer: int, folder: Path) -> int:
    from runtime.snapshots.overlay import takes_upper  # noqa: PLC0415  as above

    found: dict[str, object]
    try:
        found = {
            "uids": idmap.current_id_map("uid").id_count,
            "gids": idmap.current_id_map("gid").id_count,
            "fresh_proc": os.readlink("/proc/self") == str(os.getpid()),
            "overlay": takes_upper(folder),
        }
    except (SandboxError, OSError) as error:
        found = {"error": str(error)}
    os.write(writer, json.dumps(found).encode())
    return 0
