"""The part of a command that runs inside the namespace."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.store import Store
    from runtime.zygote import Isolation, Zygote


ISOLATION_VARIABLE = "PYBUILD_ISOLATION"
"""Names how steps are parted from the builder: auto (what works), namespaces, chroot."""


def run_inside(store: Store, body: Callable[[Zygote], int]) -> int:
    """Run *body* inside a user, mount and PID namespace, or where there are none without, and return its exit code.

    Errors that *body* raises are reported in there, since nothing but an exit code comes out. The process must have
    one thread, and nothing of *store* in use.

    Raises:
        SandboxError: steps can be run neither way.
    """
    from runtime.errors import HostUnsupportedError  # noqa: PLC0415  not for builds that are cached
    from runtime.namespace import run_in_namespace, run_in_place  # noqa: PLC0415  as above

    wanted = os.environ.get(ISOLATION_VARIABLE, "auto")
    store.before_fork()
    if wanted == "chroot":
        obstacle = _find_obstacle(store)
        if obstacle is not None:
            raise HostUnsupportedError("the isolation `chroot`", obstacle)
        return run_in_place(lambda: _work(store, body, "chroot"))
    try:
        return run_in_namespace(lambda: _work(store, body, "namespaces"))
    except HostUnsupportedError:
        if wanted != "auto" or _find_obstacle(store) is not None:
            raise
    return run_in_place(lambda: _work(store, body, "chroot"))


def _find_obstacle(store: Store) -> str | None:
    from runtime.chroot import find_obstacle  # noqa: PLC0415  as above

    return find_obstacle(store.temporary)


def _work(store: Store, body: Callable[[Zygote], int], isolation: Isolation) -> int:
    from builder.cli.main import report_error  # noqa: PLC0415  main imports the verbs
    from builder.cli.report import TerminatedError  # noqa: PLC0415  only here
    from runtime.chroot import give_up_nodes  # noqa: PLC0415  as in run_inside
    from runtime.snapshots.overlay import takes_upper  # noqa: PLC0415  as in run_inside
    from runtime.zygote import Zygote  # noqa: PLC0415  as in run_inside

    try:
        with Zygote(isolation) as zygote:
            if isolation == "chroot":
                give_up_nodes()
                store.copy_snapshots()
            elif not takes_upper(store.temporary):
                store.copy_snapshots()
            store.sweep()
            return body(zygote)
    except SystemExit:  # how the process is ended by SIGTERM and the like
        return report_error(TerminatedError())
    except BaseException as error:  # noqa: BLE001  the boundary of the process
        return report_error(error)
    finally:
        store.close()
