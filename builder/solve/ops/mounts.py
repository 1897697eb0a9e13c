"""`RUN --mount`: from the mounts of the plan to those of the runtime, held for the time of a step.

A context is shown directly where the step may only read it and no ignore rule hides anything; else through an overlay
with a layer of whiteouts for what is hidden, and one for what is written, which is thrown away.

Where nothing can be mounted, a step gets copies of contexts, stages and images, and a cache itself, which is moved into
its root (runtime.places); so a cache is then used by one step at a time, also a shared one.

Source: spec, section 1.11 and its corrections in section 6.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from builder.dockerfile.mounts import BindMount, CacheMount, SecretMount, SshMount, TmpfsMount
from builder.errors import BuildError, ContextError, UsageError
from builder.solve.cache_mounts import CacheMounts, PlannedCache, planned_caches
from builder.solve.mount_inputs import select_mounted, selected_of
from builder.solve.secrets import Secrets
from builder.solve.ssh_agent import SshAgents
from builder.store import remove_folder
from registry.value import field, mutable
from runtime import mounts as runtime_mounts
from runtime.layers.whiteouts import make_whiteout, mark_xattr_whiteouts
from runtime.ownership import Owners
from runtime.paths import open_in_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from builder.context.local import LocalContext
    from builder.context.remote import RemoteContext
    from builder.context.root import SourceRoot
    from builder.context.select import Selected
    from builder.dockerfile.mounts import Sharing
    from builder.plan.graph import RunCommand, Vertex
    from builder.plan.mounts import PlannedMount
    from builder.request import SecretSource, SshSource
    from builder.solve.filesystem import FileSystem, FileSystems
    from builder.solve.imported_cache import ImportedCaches
    from builder.store import Store
    from runtime.devices import DeviceNode

SSH_VARIABLE = "SSH_AUTH_SOCK"
DEFAULT_CACHE_MODE = 0o755


@mutable(kw_only=False)
class StepMounts:
    """What a step is given beside its root: mounts and nodes of the runtime, variables, groups."""

    binds: list[runtime_mounts.BindMount] = field(default_factory=list)
    layer_mounts: list[runtime_mounts.LayersMount] = field(default_factory=list)
    tmpfs: list[runtime_mounts.TmpfsMount] = field(default_factory=list)
    files: list[runtime_mounts.FileMount] = field(default_factory=list)
    environ: list[tuple[str, str]] = field(default_factory=list, repr=False)
    nodes: list[DeviceNode] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    keep_groups: bool = False


class Mounts:
    """Prepares the mounts of the steps of one build; close it when done. Used from many threads.

    Args:
        store: where caches and what is thrown away lie.
        context: the build context.
        file_systems: unpacks stages and images.
        secret_sources: what `--secret` gave.
        ssh_sources: what `--ssh` gave.
        is_canceled: asked while waiting for a cache.
        can_mount: whether the steps get mounts, and not copies.
        imported: what other caches know; None if there are none.
    """

    def __init__(
        self,
        store: Store,
        context: LocalContext | RemoteContext,
        file_systems: FileSystems,
        secret_sources: Sequence[SecretSource],
        ssh_sources: Sequence[SshSource],
        is_canceled: Callable[[], bool],
        *,
        can_mount: bool = True,
        imported: ImportedCaches | None = None,
    ) -> None:
        self._store = store
        self._imported = imported
        self._can_mount = can_mount
        self._context = context
        self._file_systems = file_systems
        self._secrets = Secrets(secret_sources)
        self._agents = SshAgents(ssh_sources, store.temporary)
        self._caches = CacheMounts(store.root, store.temporary, is_canceled)
        self._renewed: set[str] = set()
        self._guard = threading.Lock()

    def close(self) -> None:
        """End the agents that were started. Idempotent."""
        self._agents.close()

    @contextlib.contextmanager
    def prepared(self, vertex: Vertex, op: RunCommand, sources: Sequence[FileSystem]) -> Iterator[StepMounts]:
        """Give the mounts of a step for the time of the block. Works only inside the namespace.

        Args:
            vertex: the step.
            op: its command.
            sources: the file systems its mounts read from.

        Raises:
            BuildError: something that is mounted cannot be had.
        """
        ready = StepMounts()
        with ExitStack() as stack:
            self._add_caches(vertex, op, sources, ready, stack)
            for planned in op.mounts:
                match planned.mount:
                    case BindMount() as bind:
                        if planned.source is None:
                            self._add_context(vertex, planned, bind, ready, stack)
                        else:
                            self._add_layers(bind, sources[planned.source], ready, stack)
                    case CacheMount():
                        pass
                    case TmpfsMount() as tmpfs:
                        ready.tmpfs.append(
                            runtime_mounts.TmpfsMount(target=tmpfs.target, size=tmpfs.size, read_only=tmpfs.readonly)
                        )
                    case SecretMount() as secret:
                        self._add_secret(vertex, secret, ready)
                    case SshMount() as ssh:
                        self._add_agent(vertex, op, ssh, ready, stack)
                    case _:
                        assert_never(planned.mount)
            yield ready

    # Files of the context, of stages and images

    def _add_context(
        self, vertex: Vertex, planned: PlannedMount, bind: BindMount, ready: StepMounts, stack: ExitStack
    ) -> None:
        selection = select_mounted(self._context, vertex, planned)
        selected, root = selected_of(selection), selection.root
        if root is None:
            raise AssertionError("a context has a root")
        path = Path(os.readlink(f"/proc/self/fd/{root.fd}"))
        inside = os.fsdecode(selected.item.path)
        hidden = _find_hidden(root, selected) if root.ignore is not None else {}
        if bind.readonly and not hidden:
            ready.binds.append(runtime_mounts.BindMount(source=path, target=bind.target, read_only=True, inside=inside))
            return
        above = (self._hide(root, hidden, stack),) if hidden else ()
        lowers = (path, *above)
        self._add_overlay(lowers, f"/{inside}", bind, ready, stack)

    def _add_layers(self, bind: BindMount, layers: FileSystem, ready: StepMounts, stack: ExitStack) -> None:
        if not self._can_mount:
            view = stack.enter_context(self._file_systems.mounted(layers))
            inside = f"/{bind.source.lstrip('/')}"
            ready.binds.append(runtime_mounts.BindMount(source=view, target=bind.target, read_only=True, inside=inside))
            return
        lowers = self._store.snapshots.lowers(self._file_systems.snapshots(layers))
        self._add_overlay(lowers, f"/{bind.source.lstrip('/')}", bind, ready, stack)

    def _add_overlay(
        self, lowers: tuple[Path, ...], source: str, bind: BindMount, ready: StepMounts, stack: ExitStack
    ) -> None:
        upper = work = None
        if not bind.readonly and self._can_mount:
            active = self._store.snapshots.prepare()
            stack.callback(self._store.snapshots.discard, active)
            upper, work = active.upper, active.work
        ready.layer_mounts.append(
            runtime_mounts.LayersMount(
                lowers=lowers, source=source, target=bind.target, read_only=bind.readonly, upper=upper, work=work
            )
        )

    def _hide(self, root: SourceRoot, hidden: dict[bytes, list[bytes]], stack: ExitStack) -> Path:
        """Make a layer that hides files of the context: the names of *hidden* in each of its directories."""
        layer = self._store.temporary / f"hidden-{secrets.token_hex(8)}"
        layer.mkdir(mode=0o755)
        stack.callback(remove_folder, layer)
        folders = {b""}
        for folder in hidden:
            parts = folder.split(b"/") if folder else []
            folders.update(b"/".join(parts[: depth + 1]) for depth in range(len(parts)))
        top = os.fsencode(layer)
        for folder in sorted(folders):
            if folder:
                os.mkdir(os.path.join(top, folder), 0o700)
            _make_whiteouts(os.path.join(top, folder), top, hidden.get(folder, ()))
        for folder in sorted(folders, reverse=True):
            _copy_metadata(root, folder, os.path.join(top, folder))
        return layer

    # Caches

    def _add_caches(
        self, vertex: Vertex, op: RunCommand, sources: Sequence[FileSystem], ready: StepMounts, stack: ExitStack
    ) -> None:
        """Take the caches of a step, in the order of their keys so that steps never wait for each other in a circle."""
        wanted: dict[str, list[PlannedCache]] = {}
        for cache in planned_caches(op, sources):
            wanted.setdefault(cache.key, []).append(cache)
        for key, group in sorted(wanted.items()):
            first = group[0]
            tree = stack.enter_context(
                self._caches.hold(
                    key,
                    first.id,
                    _strictest([*(cache.mount.sharing for cache in group), *(() if self._can_mount else ("locked",))]),
                    fill=partial(self._fill, vertex, first),
                    renew=vertex.no_cache and first.has_own_mode and self._renew(key),
                )
            )
            for cache in group:
                mount = cache.mount
                ready.binds.append(
                    runtime_mounts.BindMount(
                        source=tree, target=mount.target, read_only=mount.readonly, moves=not mount.readonly
                    )
                )

    def _renew(self, key: str) -> bool:
        """Tell whether a cache is to be emptied: at its first use in this build."""
        with self._guard:
            if key in self._renewed:
                return False
            self._renewed.add(key)
            return True

    def _fill(self, vertex: Vertex, cache: PlannedCache, folder: Path) -> None:
        """Give a new cache what it held elsewhere, else its seed, its owner and its mode."""
        if self._imported is not None and not vertex.no_cache:
            from builder.solve.moved_mounts import restore_mount  # noqa: PLC0415  only with --cache-from

            if restore_mount(cache, folder, self._imported):
                return
        mount = cache.mount
        if cache.seed is not None:
            with self._file_systems.opened(cache.seed) as root_fd:
                self._copy_tree(root_fd, mount.source, folder, vertex)
        if cache.seed is None or cache.has_own_mode:
            uid, gid = mount.uid or 0, mount.gid or 0
            try:
                Owners.here().give(os.fsencode(folder), uid, gid)
            except OSError as error:
                raise _unmapped_owner(mount.target, uid, gid, vertex) from error
            folder.chmod(DEFAULT_CACHE_MODE if mount.mode is None else mount.mode)

    def _copy_tree(self, root_fd: int, source: str, folder: Path, vertex: Vertex) -> None:
        """Copy a directory below *root_fd* with owners, modes and times."""
        from runtime.layers.apply import apply_layer  # noqa: PLC0415  only for caches with a seed
        from runtime.layers.archive import ArchiveWriter  # noqa: PLC0415  as above
        from runtime.layers.diff import write_changes  # noqa: PLC0415  as above

        try:
            fd = open_in_root(root_fd, source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ContextError(
                f"cache mount cannot begin with `{source}`, {os.strerror(error.errno or 0).lower()}",
                hint="name a directory with source=",
                span=vertex.span,
            ) from error
        with ExitStack() as stack:
            stack.callback(os.close, fd)
            archive = stack.enter_context(tempfile.TemporaryFile(dir=self._store.temporary))
            writer = ArchiveWriter(archive.write)
            write_changes(Path(f"/proc/self/fd/{fd}"), (), writer)
            writer.finish()
            archive.seek(0)
            apply_layer(archive, folder)

    # Secrets and agents

    def _add_secret(self, vertex: Vertex, mount: SecretMount, ready: StepMounts) -> None:
        value = self._secrets.find(mount.id, vertex.span)
        if value is None:
            if mount.required:
                raise UsageError(
                    f"secret {mount.id}: not found",
                    hint=f"give it with --secret id={mount.id},src=FILE or --secret id={mount.id},env=NAME",
                    span=vertex.span,
                )
            if mount.env:
                ready.environ.append((mount.env, ""))
            return
        if mount.env:
            if b"\0" in value:
                raise UsageError(
                    f"secret {mount.id} holds a zero byte, which no variable can",
                    hint="mount it as a file: leave out env=",
                    span=vertex.span,
                )
            ready.environ.append((mount.env, value.decode("utf-8", "surrogateescape")))
        if mount.target is not None:
            ready.files.append(
                runtime_mounts.FileMount(
                    target=mount.target, content=value, mode=mount.mode, uid=mount.uid, gid=mount.gid
                )
            )

    def _add_agent(self, vertex: Vertex, op: RunCommand, mount: SshMount, ready: StepMounts, stack: ExitStack) -> None:
        target = mount.target or ""
        forwarded = self._agents.forwarded(mount.id, mode=mount.mode, owner=(mount.uid, mount.gid))
        try:
            path = stack.enter_context(forwarded)
        except OSError as error:
            raise _unmapped_owner(target, mount.uid, mount.gid, vertex) from error
        if path is None and mount.required:
            raise UsageError(
                f"unset ssh forward key {mount.id}",
                hint=f"give an agent with --ssh {mount.id}"
                + ("" if mount.id == "default" else "=SOCKET, or a key with =FILE"),
                span=vertex.span,
            )
        if path is not None:
            ready.binds.append(runtime_mounts.BindMount(source=path, target=target, read_only=True, moves=True))
        # The first one counts, and a variable of the image counts more.
        if SSH_VARIABLE not in dict((*op.environ, *ready.environ)):
            ready.environ.append((SSH_VARIABLE, target))


def _find_hidden(root: SourceRoot, selected: Selected) -> dict[bytes, list[bytes]]:
    """List what lies in the directories a mount shows and is not among what it shows, by directory."""
    if not selected.is_directory:
        return {}
    kept = {found.path for found in selected.below}
    folders = [selected.item.path]
    folders += [found.path for found in selected.below if stat.S_ISDIR(found.stat.st_mode)]
    hidden: dict[bytes, list[bytes]] = {}
    for folder in folders:
        fd = open_in_root(root.fd, folder or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            names = [os.fsencode(name) for name in os.listdir(fd)]
        finally:
            os.close(fd)
        gone = [name for name in names if (folder + b"/" + name if folder else name) not in kept]
        if gone:
            hidden[folder] = gone
    return hidden


def _make_whiteouts(folder: bytes, top: bytes, names: Sequence[bytes]) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        made = [make_whiteout(fd, name) for name in names]
    finally:
        os.close(fd)
    if any(made):
        fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        mark_xattr_whiteouts(fd)
        os.close(fd)


def _copy_metadata(root: SourceRoot, folder: bytes, target: bytes) -> None:
    fd = open_in_root(root.fd, folder or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    with contextlib.suppress(OSError):  # an owner from outside the namespace is shown as nobody anyway
        os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _unmapped_owner(target: str, uid: int, gid: int, vertex: Vertex) -> BuildError:
    error = runtime_mounts.unmapped_owner(target, uid, gid)
    return BuildError(error.message, hint=error.hint, span=vertex.span)


def _strictest(sharings: Sequence[Sharing]) -> Sharing:
    if "private" in sharings:
        return "private"
    return "locked" if "locked" in sharings else "shared"
