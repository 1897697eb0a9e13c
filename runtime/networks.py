"""Private networks: network namespaces that a helper connects, lent to steps one after the other.

A *network* is a namespace, held by a descriptor, with the *helper* that carries its traffic: slirp4netns or pasta, a
process of the building user beside the host's network. The helper takes frames from a tap device inside and makes
ordinary connections of them outside, so the step reaches what the user reaches, except the host's loopback addresses.
The *pool* keeps networks that are free. A step has its network to itself; when every process of the step is dead it is
free for the next one, so a build has as many networks as steps that ran at the same time.

A helper gets an empty environment but for the locale, and the descriptors of the namespace, of a pipe on which it says
that it is ready, and of one for its errors. It is in the PID namespace of the build and ends with that; the step, in
one of its own, cannot see it. Both helpers lock themselves up: own root, no capabilities that matter, seccomp.

Source: slirp4netns(1), pasta(1), network_namespaces(7).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import select
import signal
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from runtime import syscalls
from runtime.errors import HostUnsupportedError, KernelError

if TYPE_CHECKING:
    from collections.abc import Iterator

TUN: Final = "/dev/net/tun"
"""The device that every helper needs."""

_NAMESPACE_FD: Final = 3
_READY_FD: Final = 4
_FIRST_FREE_FD: Final = 10  # above those, so that putting one in its place does not overwrite the other
_PATIENCE_SECONDS: Final = 10.0
_LARGEST_SAYING: Final = 4096
_SHOWN_LINE: Final = 200


class Helper(NamedTuple):
    """A program that connects a network namespace.

    Args:
        name: of the program; it is looked for in PATH.
        args: its arguments; it finds the namespace and the pipe at the descriptors above.
        resolver: the address at which it answers DNS by asking the host's first resolver, wherever that is.
        has_ipv6: whether steps have IPv6 where the host has.
    """

    name: str
    args: tuple[str, ...]
    resolver: str = "10.0.2.3"
    has_ipv6: bool = False


_SLIRP4NETNS: Final = Helper(
    name="slirp4netns",
    args=(
        "--configure",
        "--mtu=65520",
        "--disable-host-loopback",
        "--enable-sandbox",
        "--enable-seccomp",
        f"--ready-fd={_READY_FD}",
        "--netns-type=path",
        f"/proc/self/fd/{_NAMESPACE_FD}",
        "tap0",
    ),
)

_PASTA: Final = Helper(
    name="pasta",
    args=(
        "--config-net",
        "--foreground",
        "--quiet",
        # Own IPv4 addresses instead of a copy of the host's, or the host's services there could not be reached.
        *("-a", "10.0.2.100", "-n", "24", "-g", "10.0.2.2", "--dns-forward", "10.0.2.3"),
        "--no-map-gw",
        *("-t", "none", "-u", "none", "-T", "none", "-U", "none"),
        *("--runas", "0", "--netns-only", "--no-netns-quit"),
        *("--pid", f"/proc/self/fd/{_READY_FD}"),  # written when everything is set up
        *("--netns", f"/proc/self/fd/{_NAMESPACE_FD}"),
    ),
    has_ipv6=True,
)


class NetworkLack(NamedTuple):
    """Why this machine gives no private network: what was seen, and one thing that would help."""

    reason: str
    remedy: str


_OTHERWISE: Final = "choose the network of the host: --network host"
NOT_INSTALLED: Final = NetworkLack(
    reason="neither slirp4netns nor pasta is installed", remedy="install one: sudo apt-get install slirp4netns"
)
"""What to say where there is no helper."""

NO_NAMESPACES: Final = NetworkLack(
    reason="there are no namespaces here, so no networks either", remedy="`pybuild doctor` tells how to get some"
)
"""What to say where steps are run by chroot."""


class _HelperFailedError(Exception):
    """A network could not be made with a helper."""

    def __init__(self, lack: NetworkLack) -> None:
        super().__init__(lack.reason)
        self.lack = lack


class PrivateNetwork:
    """A network namespace with a running helper. Made by `PrivateNetworks`, which owns it.

    Attributes:
        helper: what connects it.
        fd: descriptor of the namespace; a step joins it with setns(2).
    """

    def __init__(self, helper: Helper) -> None:
        """Make the namespace and start the helper, without waiting for it.

        Raises:
            FileNotFoundError: the helper is not installed.
            KernelError: the kernel gives no network namespace.
        """
        self.helper = helper
        self.fd = _make_namespace()
        try:
            self._pid, self._ready, self._errors = _spawn(helper, self.fd)
        except BaseException:
            os.close(self.fd)
            raise

    def await_ready(self) -> None:
        """Return when traffic flows.

        Raises:
            _HelperFailedError: the helper ended, or took too long; the network is closed.
        """
        if self._ready < 0:
            return
        if select.select([self._ready], [], [], _PATIENCE_SECONDS)[0] and os.read(self._ready, 16):
            os.close(self._ready)
            self._ready = -1
            return
        said = _last_line(self._errors) or "no message"
        if self.is_alive() and not select.select([self._ready], [], [], 0)[0]:
            said = f"not ready after {_PATIENCE_SECONDS:.0f} seconds"
        self.close()
        raise _HelperFailedError(NetworkLack(reason=f"{self.helper.name} fails: {said}", remedy=_OTHERWISE))

    def is_alive(self) -> bool:
        """Return whether the helper runs."""
        if self._pid:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(self._pid, os.WNOHANG) == (0, 0):
                    return True
            self._pid = 0
        return False

    def close(self) -> None:
        """End the helper and let go of the namespace. Idempotent."""
        if self.is_alive():
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0
        for fd in (self.fd, self._ready, self._errors):
            if fd >= 0:
                os.close(fd)
        self.fd = self._ready = self._errors = -1


class PrivateNetworks:
    """The pool of the private networks of one build. Any thread may borrow; one closes, when no step runs."""

    def __init__(self, helpers: tuple[Helper, ...] | None = None, *, lack: NetworkLack | None = None) -> None:
        """Make an empty pool.

        Args:
            helpers: what to try, the best first; None for those that pybuild knows.
            lack: why there are no networks, if that is known already.
        """
        self._guard = threading.Lock()
        self._all: list[PrivateNetwork] = []
        self._free: list[PrivateNetwork] = []
        self._failures: list[NetworkLack] = []
        self._attempts = self._start_each(helpers)
        self._works: Helper | None = None
        self._lack = lack

    def prepare(self) -> None:
        """Start making the first network, to have it ready when a step asks. Says nothing of failures."""
        with self._guard:
            if not self._all and self._lack is None:
                self._free.extend(itertools.islice(self._attempts, 1))

    def find_lack(self) -> NetworkLack | None:
        """Return why there are no private networks here, None if there are. Found out once, then remembered."""
        with self._guard:
            if self._works is None and self._lack is None and (network := self._find_first()):
                self._free.append(network)
            return self._lack

    @contextlib.contextmanager
    def lent(self, *, own: bool = False) -> Iterator[PrivateNetwork | None]:
        """Give a network for the time of the block, by whose end every process in it is dead; None if there are none.

        A block that is left by an exception may leave processes; its network is thrown away.

        Args:
            own: a new network, which is thrown away afterwards: for a step that may change its settings.

        Raises:
            HostUnsupportedError: there are networks, but no further one could be made.
        """
        with self._guard:
            network = self._borrow(own=own)
        keep = False
        try:
            yield network
            keep = not own
        finally:
            if network is not None:
                with self._guard:
                    self._take_back(network, keep=keep)

    def close(self) -> None:
        """End every helper. Idempotent."""
        with self._guard:
            for network in self._all:
                network.close()
            self._all.clear()
            self._free.clear()

    # What follows is called with the guard held.

    def _borrow(self, *, own: bool) -> PrivateNetwork | None:
        if self._lack is not None:
            return None
        if self._works is None:
            return self._find_first()
        while self._free and not own:
            network = self._free.pop()
            if network.is_alive():
                return network
            self._drop(network)
        try:
            return self._start(self._works, wait=True)
        except _HelperFailedError as error:  # the host's network in its stead would be a surprise
            raise HostUnsupportedError(
                "a private network for one more step",
                error.lack.reason,
                hint="build with fewer steps at the same time (--jobs), or choose the host's: --network host",
            ) from error

    def _find_first(self) -> PrivateNetwork | None:
        """Find the helper that works by making a network with it, and return that; None if there is a lack."""
        for network in itertools.chain(self._free, self._attempts):
            self._free.clear()
            try:
                network.await_ready()
            except _HelperFailedError as error:
                self._all.remove(network)
                self._failures.append(error.lack)
            else:
                self._works = network.helper
                return network
        self._lack = self._failures[0]
        return None

    def _start_each(self, helpers: tuple[Helper, ...] | None) -> Iterator[PrivateNetwork]:
        """Start a network with one helper after the other; at the end at least one failure is noted."""
        lack = _find_lack_of_tun()
        if lack is not None:
            self._failures.append(lack)
            return
        for helper in known_helpers() if helpers is None else helpers:
            try:
                yield self._start(helper)
            except _HelperFailedError as error:
                self._failures.append(error.lack)
        # What fails is worth more words than what is not there.
        self._failures.sort(key=lambda failure: failure is NOT_INSTALLED)
        if not self._failures:
            self._failures.append(NOT_INSTALLED)

    def _start(self, helper: Helper, *, wait: bool = False) -> PrivateNetwork:
        try:
            network = PrivateNetwork(helper)
            if wait:
                network.await_ready()
        except FileNotFoundError as error:
            raise _HelperFailedError(NOT_INSTALLED) from error
        except OSError as error:
            reason = f"{helper.name} cannot be started: {getattr(error, 'message', error.strerror)}"
            raise _HelperFailedError(NetworkLack(reason=reason, remedy=_OTHERWISE)) from error
        self._all.append(network)
        return network

    def _take_back(self, network: PrivateNetwork, *, keep: bool) -> None:
        if network not in self._all:  # the pool was closed
            return
        if keep and network.is_alive():
            self._free.append(network)
        else:
            self._drop(network)

    def _drop(self, network: PrivateNetwork) -> None:
        network.close()
        self._all.remove(network)


def known_helpers() -> tuple[Helper, ...]:
    """Return what connects this machine; only pasta does where there is no IPv4."""
    return (_SLIRP4NETNS, _PASTA) if _has_ipv4_route() else (_PASTA, _SLIRP4NETNS)


def _has_ipv4_route() -> bool:
    """Return whether a route leads beyond the links of this machine. Source: proc_pid_net(5)."""
    try:
        with open("/proc/self/net/route", encoding="ascii") as file:
            return any(line.split()[1:2] == ["00000000"] for line in file)
    except OSError:
        return True


def _find_lack_of_tun() -> NetworkLack | None:
    try:
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return explain_tun(error.errno or 0)
    return None


def explain_tun(number: int) -> NetworkLack:
    """Say what it means that `TUN` cannot be opened, for the error number."""
    match number:
        case errno.ENOENT | errno.ENXIO | errno.ENODEV:
            remedy = f"give the container {TUN} (docker run --device {TUN}), or on a machine: sudo modprobe tun"
        case errno.EACCES | errno.EPERM:
            remedy = f"let your user use it: sudo chmod 666 {TUN}"
        case _:
            remedy = _OTHERWISE
    return NetworkLack(reason=f"{TUN}: {os.strerror(number).lower()}", remedy=remedy)


def _make_namespace() -> int:
    """Return a descriptor of a new network namespace.

    Made by a thread that ends: only a thread can leave the host's network without the process, and it cannot come back,
    since it has no rights there.
    """
    made: list[int | KernelError] = []

    def make() -> None:
        try:
            syscalls.unshare(syscalls.CLONE_NEWNET)
            made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        except KernelError as error:
            made.append(error)
        except OSError as error:
            made.append(KernelError("open", error.errno or 0, subject="/proc/thread-self/ns/net"))

    thread = threading.Thread(target=make, name="network")
    thread.start()
    thread.join()
    (result,) = made
    if isinstance(result, KernelError):
        raise result
    return result


def _spawn(helper: Helper, namespace: int) -> tuple[int, int, int]:
    """Start a helper; return its pid, and the ends of the pipes of its readiness and of its errors.

    Neither pipe blocks a helper that writes more than anyone reads.
    """
    ready, ready_end = os.pipe2(os.O_CLOEXEC)
    errors, errors_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    passed = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_FD) for fd in (namespace, ready_end, errors_end)]
    os.close(ready_end)
    os.close(errors_end)
    try:
        syscalls.close_range(_NAMESPACE_FD, syscalls.LAST_FD, syscalls.CLOSE_RANGE_CLOEXEC)  # what our caller left open
        pid = os.posix_spawnp(
            helper.name,
            [helper.name, *helper.args],
            {"LC_ALL": "C"},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, passed[2], 1),
                (os.POSIX_SPAWN_DUP2, passed[2], 2),
                (os.POSIX_SPAWN_DUP2, passed[0], _NAMESPACE_FD),
                (os.POSIX_SPAWN_DUP2, passed[1], _READY_FD),
            ],
            setsid=True,  # out of the terminal's reach: an INT is for us to handle
            setsigmask=[],
            setsigdef=[signal.SIGPIPE],  # pasta 2023 takes it for an error that Python ignores it
        )
    except BaseException:
        os.close(ready)
        os.close(errors)
        raise
    finally:
        for fd in passed:
            os.close(fd)
    return pid, ready, errors


def _last_line(fd: int) -> str:
    """Return the last line of what a helper that ended wrote, on one line and not too long."""
    try:
        said = os.read(fd, _LARGEST_SAYING).decode(errors="replace")
    except BlockingIOError:
        return ""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:_SHOWN_LINE] if lines else ""
