"""The networks of RUN steps: lent by the runtime where the machine has what that needs, else the host's."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from builder.events import EventSink, Warned
from runtime.networks import NO_NAMESPACES, PrivateNetworks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.plan.graph import RunCommand
    from runtime.network import Network
    from runtime.networks import NetworkLack, PrivateNetwork
    from runtime.zygote import Zygote


class StepNetworks:
    """Gives steps their networks, and says once if they have to share the host's.

    Args:
        sink: takes that warning.
        pool: what networks come from.
    """

    def __init__(self, sink: EventSink, pool: PrivateNetworks) -> None:
        self._sink = sink
        self._pool = pool
        self._guard = threading.Lock()
        self._told = False

    def prepare(self) -> None:
        """Have the first network made while other things are done."""
        self._pool.prepare()

    @contextlib.contextmanager
    def lent(self, op: RunCommand) -> Iterator[PrivateNetwork | None]:
        """Give the private network of a step for the time of the block; None if it has none, or shares the host's."""
        if op.network != "default":
            yield None
            return
        lack = self._pool.find_lack()
        if lack is not None:
            self._tell(lack)
            yield None
            return
        # A step with all capabilities may leave its network in any state.
        with self._pool.lent(own=op.insecure) as network:
            yield network

    def close(self) -> None:
        """End what carries the traffic."""
        self._pool.close()

    def _tell(self, lack: NetworkLack) -> None:
        with self._guard:
            told, self._told = self._told, True
        if not told:
            self._sink(Warned(vertex=None, message=describe_lack(lack, "steps run"), time=time.time()))


def network_for(wanted: str, lent: PrivateNetwork | None) -> Network:
    """Say which network a command is started in.

    Args:
        wanted: `none`, or anything else for one that leads out.
        lent: what it was lent; None if it has to share the host's.
    """
    if wanted == "none":
        return "none"
    return "host" if lent is None else "private"


def networks_of(zygote: Zygote | None) -> PrivateNetworks:
    """Make the pool for steps of a zygote: one of nothing where it runs them without namespaces."""
    is_confined = zygote is None or zygote.isolation == "namespaces"
    return PrivateNetworks(lack=None if is_confined else NO_NAMESPACES)


def describe_lack(lack: NetworkLack, who: str) -> str:
    """Say that *who* has the host's network, why, and what to do about it. One line."""
    return f"{who} on the network of this machine, with its loopback addresses in reach: {lack.reason}; {lack.remedy}"
