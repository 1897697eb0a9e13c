"""What a step sees and runs, as a value that can be sent to the process that starts it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runtime.devices import DeviceNode
from runtime.mounts import BindMount, FileMount, LayersMount, TmpfsMount

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runtime.network import Network

DEFAULT_SHM_SIZE: Final = 64 * 1024 * 1024
"""Limit of /dev/shm in bytes, as docker's."""


class Ulimit(NamedTuple):
    """A resource limit. Args: name as docker spells it (`nofile`); soft and hard limits, -1 for none."""

    name: str
    soft: int
    hard: int


class SandboxSpec(NamedTuple):
    """What a step sees and runs.

    Args:
        args: the command; the first is looked up in PATH of `environ` unless it has a slash.
        environ: exactly what the command gets, and HOME from passwd if it is not among them; the last of a name counts.
        cwd: absolute inside the root; made for the user, mode 0755, if missing.
        user: as in USER, empty for root.
        lowers: trees of the layers, base first.
        upper, work: where changes go, both on one file system; None for a read-only root.
        tree: all that *lowers* and *upper* show, as a directory to be written to, where that is no overlay; else None.
        hostname: of the step.
        hosts, resolv_conf: contents of /etc/hosts and /etc/resolv.conf, read-only for the step.
        network: `host` for the one of the build, `none` for only a loopback interface, `private` for one that is joined.
        binds, layer_mounts, tmpfs, files, nodes: further mounts, done in the order of the depth of their targets; of two
            on one target the later in this order is seen.
        shm_size: limit of /dev/shm in bytes.
        interactive: stay in the session of the terminal instead of a new one.
        foreground: take the foreground of the terminal that is the standard input, so that its keys reach the command and
            nobody else; only with `interactive`.
        ulimits: set in order.
        groups: supplementary groups of the command beside those of its user.
        keep_groups: leave the command the supplementary groups of this process, which name nobody in the namespace,
            instead of its own; for a node that only they may open.
        privileged: give root every capability of the namespace, no system call filter, and /proc and /sys as they are.
        skeleton: what `stubs.make_skeleton` has made, to lie below the layers of an overlay; None for none.
    """

    args: tuple[str, ...]
    environ: tuple[tuple[str, str], ...]
    lowers: tuple[Path, ...]
    upper: Path | None
    work: Path | None
    hosts: bytes
    resolv_conf: bytes
    hostname: str = "buildkitsandbox"
    cwd: str = "/"
    user: str = ""
    network: Network = "host"
    binds: tuple[BindMount, ...] = ()
    layer_mounts: tuple[LayersMount, ...] = ()
    tmpfs: tuple[TmpfsMount, ...] = ()
    files: tuple[FileMount, ...] = ()
    nodes: tuple[DeviceNode, ...] = ()
    shm_size: int = DEFAULT_SHM_SIZE
    interactive: bool = False
    foreground: bool = False
    ulimits: tuple[Ulimit, ...] = ()
    groups: tuple[int, ...] = ()
    keep_groups: bool = False
    privileged: bool = False
    tree: Path | None = None
    skeleton: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values from which `from_json` makes an equal spec."""
        values = self._asdict()
        values["hosts"] = self.hosts.decode("latin-1")
        values["resolv_conf"] = self.resolv_conf.decode("latin-1")
        values["lowers"] = [str(path) for path in self.lowers]
        values["upper"] = None if self.upper is None else str(self.upper)
        values["work"] = None if self.work is None else str(self.work)
        values["tree"] = None if self.tree is None else str(self.tree)
        values["skeleton"] = None if self.skeleton is None else str(self.skeleton)
        values["binds"] = [
            [str(b.source), b.target, b.read_only, b.inside, b.restrictions, b.moves] for b in self.binds
        ]
        values["layer_mounts"] = [
            [[str(path) for path in m.lowers], m.source, m.target, m.read_only, _text(m.upper), _text(m.work)]
            for m in self.layer_mounts
        ]
        values["tmpfs"] = [[t.target, t.size, t.read_only] for t in self.tmpfs]
        values["files"] = [[f.target, f.content.decode("latin-1"), f.mode, f.uid, f.gid] for f in self.files]
        values["nodes"] = [[str(n.source), n.target, n.format, n.major, n.minor] for n in self.nodes]
        values["ulimits"] = [[u.name, u.soft, u.hard] for u in self.ulimits]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SandboxSpec:
        """Return the spec that `to_json` described."""
        return cls(
            **{
                **values,
                "args": tuple(values["args"]),
                "environ": tuple((name, value) for name, value in values["environ"]),
                "hosts": values["hosts"].encode("latin-1"),
                "resolv_conf": values["resolv_conf"].encode("latin-1"),
                "lowers": tuple(Path(text) for text in values["lowers"]),
                "upper": None if values["upper"] is None else Path(values["upper"]),
                "work": None if values["work"] is None else Path(values["work"]),
                "tree": None if values.get("tree") is None else Path(values["tree"]),
                "skeleton": None if values.get("skeleton") is None else Path(values["skeleton"]),
                "binds": tuple(_bind(*bind) for bind in values["binds"]),
                "layer_mounts": tuple(_layers(*layers) for layers in values["layer_mounts"]),
                "tmpfs": tuple(_tmpfs(*tmpfs) for tmpfs in values["tmpfs"]),
                "files": tuple(
                    FileMount(target=t, content=c.encode("latin-1"), mode=m, uid=u, gid=g)
                    for t, c, m, u, g in values.get("files", ())
                ),
                "nodes": tuple(
                    DeviceNode(source=Path(s), target=t, format=f, major=a, minor=i)
                    for s, t, f, a, i in values.get("nodes", ())
                ),
                "groups": tuple(values.get("groups", ())),
                "ulimits": tuple(Ulimit(name=n, soft=s, hard=h) for n, s, h in values["ulimits"]),
            }
        )


def _bind(
    source: str,
    target: str,
    read_only: bool,  # noqa: FBT001 - fields of JSON
    inside: str = "",
    restrictions: Sequence[str] = (),
    moves: bool = False,  # noqa: FBT001, FBT002 - as above
) -> BindMount:
    return BindMount(
        source=Path(source),
        target=target,
        read_only=read_only,
        inside=inside,
        moves=moves,
        restrictions=tuple(restrictions),
    )


def _layers(
    lowers: Sequence[str],
    source: str,
    target: str,
    read_only: bool,  # noqa: FBT001 - fields of JSON
    upper: str | None = None,
    work: str | None = None,
) -> LayersMount:
    return LayersMount(
        lowers=tuple(Path(text) for text in lowers),
        source=source,
        target=target,
        read_only=read_only,
        upper=None if upper is None else Path(upper),
        work=None if work is None else Path(work),
    )


def _tmpfs(target: str, size: int | None, read_only: bool = False) -> TmpfsMount:  # noqa: FBT001, FBT002 - as above
    return TmpfsMount(target=target, size=size, read_only=read_only)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
