"""The part of a command that needs the trees of images: in a namespace, or where there are none without."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from builder.store import Store
    from runtime.isolation import Choice
    from runtime.zygote import Isolation, Zygote

_DOCTOR = "`pybuild doctor` tells what was tried, and what would help"


class InsideOrNot(Protocol):
    """What can be done inside the namespace, and with less to see outside."""

    def __call__(self, *, is_inside: bool) -> int:
        """Do it, and return the exit code."""


def run_inside(store: Store, body: Callable[[Zygote], int], isolation: Choice = "auto") -> int:
    """Run *body* where steps can be run and files of any owner be touched, and return its exit code.

    Errors that *body* raises are reported in there, since nothing but an exit code comes out. The process must have
    one thread, and nothing of *store* in use.

    Args:
        store: whose files are touched.
        body: what to do.
        isolation: the one to take; `auto` takes the best that this place allows.

    Raises:
        SandboxError: this place does not allow it.
    """
    from runtime.errors import HostUnsupportedError  # noqa: PLC0415  not for builds that are cached
    from runtime.namespace import run_in_namespace  # noqa: PLC0415  as above

    store.before_fork()
    work = partial(_work, store, body, "namespaces")
    match isolation:
        case "none":
            raise HostUnsupportedError(
                "what is left to do", "isolation `none` runs no steps and unpacks nothing", hint="leave out --isolation"
            )
        case "chroot":
            return _run_in_place(store, body)
        case "subids":
            return run_in_namespace(work, ids="ranges", meanwhile=_load)
        case "single-id":
            return run_in_namespace(work, ids="single", meanwhile=_load)
        case "auto":
            pass
    try:
        return run_in_namespace(work, meanwhile=_load)
    except HostUnsupportedError as refusal:
        if _find_chroot_obstacle(store.temporary) is not None:
            refusal.hint = (
                f"{refusal.hint}\n      `pybuild doctor` tells what else was tried" if refusal.hint else _DOCTOR
            )
            raise
    return _run_in_place(store, body)


def run_inside_if_possible(store: Store, body: InsideOrNot, isolation: Choice, otherwise: str) -> int:
    """Run *body* as `run_inside` does, or here with a warning where that cannot be; return its exit code.

    Args:
        store: whose files are touched.
        body: what to do, told whether it is inside.
        isolation: the one to take.
        otherwise: what the warning says is left undone.
    """
    from runtime.errors import HostUnsupportedError  # noqa: PLC0415  as in run_inside

    try:
        return run_inside(store, lambda _: body(is_inside=True), isolation)
    except HostUnsupportedError as refusal:
        sys.stderr.write(f"pybuild: warning: {otherwise}: {refusal.message}\n")
        sys.stderr.flush()
    return body(is_inside=False)


def _find_chroot_obstacle(folder: Path) -> str | None:
    """Tell why steps cannot be run by chroot here, None if they can."""
    from runtime.chroot import find_obstacle  # noqa: PLC0415  only where it is asked for or namespaces are refused

    return find_obstacle(folder)


def _run_in_place(store: Store, body: Callable[[Zygote], int]) -> int:
    from runtime.errors import HostUnsupportedError  # noqa: PLC0415  as in run_inside
    from runtime.namespace import run_in_place  # noqa: PLC0415  as in run_inside

    obstacle = _find_chroot_obstacle(store.temporary)
    if obstacle is not None:
        raise HostUnsupportedError("the isolation `chroot`", obstacle, hint=_DOCTOR)
    return run_in_place(partial(_work, store, body, "chroot"))


def _load() -> None:
    """Load what this process and the zygote both need, before there are two, as far as can be without rights."""
    try:
        from runtime import spec, zygote  # noqa: F401, PLC0415  as in run_inside
        from runtime.snapshots import overlay  # noqa: F401, PLC0415  as in run_inside
    except (ImportError, OSError):  # in a folder that only uid 0 may read, once there is one: it is loaded when needed
        import importlib  # noqa: PLC0415  only here

        importlib.invalidate_caches()


def _work(store: Store, body: Callable[[Zygote], int], isolation: Isolation) -> int:
    from builder.cli.main import report_error  # noqa: PLC0415  main imports the verbs
    from builder.cli.report import TerminatedError  # noqa: PLC0415  only here
    from runtime.zygote import Zygote  # noqa: PLC0415  as in run_inside

    try:
        with Zygote(isolation) as zygote:
            # Loaded once the zygote is forked, which loads what it needs meanwhile.
            from builder.collect.sweep import sweep  # noqa: PLC0415

            if not _can_overlay(store, isolation):
                store.copy_snapshots()
            sweep(store, is_inside=True)
            return body(zygote)
    except SystemExit:  # how the process is ended by SIGTERM and the like
        return report_error(TerminatedError())
    except BaseException as error:  # noqa: BLE001  the boundary of the process
        return report_error(error)
    finally:
        store.close()


def _can_overlay(store: Store, isolation: Isolation) -> bool:
    """Tell whether steps run on overlays; where there are none, give up what would be different then."""
    if isolation == "chroot":
        from runtime.chroot import give_up_nodes  # noqa: PLC0415  as in _find_chroot_obstacle

        give_up_nodes()
        return False
    from runtime.snapshots.overlay import takes_upper  # noqa: PLC0415  as in run_inside

    return takes_upper(store.temporary)
