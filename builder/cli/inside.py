"""The part of a command that runs inside the namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.store import Store
    from runtime.zygote import Zygote


def run_inside(store: Store, body: Callable[[Zygote], int]) -> int:
    """Run *body* inside a user, mount and PID namespace, and return its exit code.

    Errors that *body* raises are reported in there, since nothing but an exit code comes out. The process must have
    one thread, and nothing of *store* in use.
    """
    from builder.cli.main import report_error  # noqa: PLC0415  main imports the verbs
    from builder.cli.report import TerminatedError  # noqa: PLC0415  only here
    from runtime.namespace import run_in_namespace  # noqa: PLC0415  not for builds that are cached
    from runtime.zygote import Zygote  # noqa: PLC0415  as above

    def inside() -> int:
        try:
            with Zygote() as zygote:
                store.sweep()
                return body(zygote)
        except SystemExit:  # how the namespace ends its process on SIGTERM and the like
            return report_error(TerminatedError())
        except BaseException as error:  # noqa: BLE001  the boundary of the process
            return report_error(error)
        finally:
            store.close()

    store.before_fork()
    return run_in_namespace(inside)
