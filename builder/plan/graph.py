"""The plan: what has to happen for a target, as a graph.

A *vertex* is one op with the vertices it needs; an *op* says what is done and which of its values decide the result.
A vertex that makes a file system has a *parent*, the vertex whose file system it changes (None: the empty one), and
*sources*, other vertices it reads from. Vertices are values: two of the same definition are one.
"""

from __future__ import annotations

from builder.cache.key import Ingredient, derive_key
from registry.value import field, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from builder.context.remote import RemoteSource
    from builder.dockerfile.instructions import InlineFile
    from builder.dockerfile.mounts import Device
    from builder.plan.mounts import PlannedMount
    from builder.plan.scan_scope import ScanScope
    from builder.request import NetworkMode
    from builder.source import Span
    from registry.content.image import Image
    from registry.oci.image_config import History, ImageConfig
    from registry.oci.platform import Platform


@frozen
class BaseImage:
    """Start from the layers of an image. *reference* is the text of the Dockerfile."""

    reference: str
    image: Image

    def ingredients(self) -> tuple[Ingredient, ...]:
        """Name what decides the result: the content of the image."""
        return (("op", "image"), *(("diff_id", diff_id) for diff_id in self.image.config.diff_ids))


@frozen
class EmptyFileSystem:
    """Start from nothing: stands for a stage without layers where files are copied from it."""

    def ingredients(self) -> tuple[Ingredient, ...]:
        """Name what decides the result: nothing does."""
        return (("op", "empty"),)


@frozen
class RunCommand:
    """Run a command on the parent's file system.

    *environ* is ordered and complete but for HOME; *hidden_environ* (the proxy variables) is given to the command and
    enters neither the key nor the history. *user* is as written, *platform* the one the command is made for. *network* is
    what was asked for, whatever the machine then has for it. *files* are mounted read-only under `/dev/pipes`
    (here-documents that are programs), as name and content. *mounts* read from the sources of the vertex. *insecure*
    lifts the restrictions of the sandbox. *devices* are asked for; which there are is known later. *build_args* says
    which names of *environ* are those of build arguments, for messages.
    """

    args: tuple[str, ...]
    environ: tuple[tuple[str, str], ...]
    hidden_environ: tuple[tuple[str, str], ...] = ()
    cwd: str
    user: str
    platform: str = ""
    network: NetworkMode
    hostname: str
    add_hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int
    ulimits: tuple[tuple[str, int, int], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    mounts: tuple[PlannedMount, ...] = ()
    insecure: bool = False
    devices: tuple[Device, ...] = ()
    build_args: frozenset[str] = frozenset()

    def ingredients(self) -> tuple[Ingredient, ...]:
        """Name what decides the result; the addresses of extra hosts do not, their names do."""
        return (
            ("op", "run"),
            *(("argument", word) for word in self.args),
            *((f"environment {name}", value) for name, value in self.environ),
            ("working directory", self.cwd),
            ("user", self.user),
            ("platform", self.platform),
            ("network", self.network),
            ("hostname", self.hostname),
            *(("extra host", name) for name, _ in self.add_hosts),
            ("shared memory", str(self.shm_size)),
            *((f"limit {name}", f"{soft}:{hard}") for name, soft, hard in self.ulimits),
            *((f"file {name}", content) for name, content in self.files),
            *(ingredient for mount in self.mounts for ingredient in mount.ingredients()),
            *((("security", "insecure"),) if self.insecure else ()),
            *((f"device {device.name}", "required" if device.required else "optional") for device in self.devices),
        )


@frozen
class CopyFiles:
    """Copy files onto the parent's file system, from the context or from the first source vertex.

    *paths* are expanded source arguments, *inline* files whose text is expanded; *destination* is absolute, with its trailing slash if it was written with
    one; *unpack* is ADD's treatment of local archives. *link* makes a layer that knows nothing of those below it.
    *epoch* is the time, in seconds, of what is made new; None is the present. *instruction* is "COPY" or "ADD", for
    messages. *remotes* come from the network. *context* names the named context that *paths* are in, None is the
    build context.
    """

    instruction: str
    paths: tuple[str, ...]
    inline: tuple[InlineFile, ...] = ()
    destination: str
    chown: str | None = None
    chmod: str | None = None
    exclude: tuple[str, ...] = ()
    parents: bool = False
    unpack: bool = False
    link: bool = False
    epoch: int | None = None
    remotes: tuple[RemoteSource, ...] = ()
    context: str | None = None

    def identity(self) -> tuple[Ingredient, ...]:
        """Name what tells it from another op whatever the content is."""
        return (
            *(("path", path) for path in self.paths),
            *(("remote", repr(remote)) for remote in self.remotes),
            *(() if self.context is None else (("context", self.context),)),
        )

    def ingredients(self) -> tuple[Ingredient, ...]:
        """Name what decides the result beside the content that is copied."""
        return (
            ("op", "copy"),
            *(("source", path.rstrip("/").rpartition("/")[2]) for path in self.paths),
            *((f"file {file.name}", file.text) for file in self.inline),
            ("destination", self.destination),
            ("chown", self.chown or ""),
            ("chmod", self.chmod or ""),
            *(("exclude", pattern) for pattern in self.exclude),
            ("parents", str(self.parents)),
            ("unpack", str(self.unpack)),
            *((("link", str(self.link)),) if self.link else ()),
            *(() if self.epoch is None else (("epoch", str(self.epoch)),)),
        )


@frozen
class MakeDirectory:
    """Make a working directory where it is missing, owned by *user* (as written in USER, empty for root).

    *epoch* is its time in seconds; None is the present.
    """

    path: str
    user: str
    epoch: int | None = None

    def ingredients(self) -> tuple[Ingredient, ...]:
        """Name what decides the result."""
        epoch = () if self.epoch is None else (("epoch", str(self.epoch)),)
        return (("op", "directory"), ("path", self.path), ("user", self.user), *epoch)


Op = BaseImage | EmptyFileSystem | RunCommand | CopyFiles | MakeDirectory
"""What a vertex can do."""


@frozen(eq=False)
class Vertex:
    """One node of the plan.

    *name* is for people (`[build 2/5] RUN make`), *text* the instruction without the numbers, which stays the same
    when steps come and go before it. *platform* is that of the image it is for, where there are several. *no_cache*
    asks that it be done whatever the cache says.
    """

    op: Op
    parent: Vertex | None = None
    sources: tuple[Vertex, ...] = ()
    name: str
    text: str
    stage: str
    platform: str = ""
    span: Span | None = None
    no_cache: bool = False
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        inputs = [("parent", self.parent.digest if self.parent else ""), *(("source", s.digest) for s in self.sources)]
        paths = list(self.op.identity()) if isinstance(self.op, CopyFiles) else []
        paths += [("mount", mount.identity()) for mount in self.op.mounts] if isinstance(self.op, RunCommand) else []
        definition = [*self.op.ingredients(), *paths, *inputs]
        object.__setattr__(self, "digest", f"sha256:{derive_key(definition)}")

    @property
    def inputs(self) -> tuple[Vertex, ...]:
        """The vertices this one needs, parent first."""
        return (self.parent, *self.sources) if self.parent else self.sources


@frozen
class HistoryDraft:
    """A history entry of the image to be: *vertex* made its layer, or is None for an entry without one."""

    created_by: str
    vertex: Vertex | None = None


@frozen
class Plan:
    """What has to happen for a target, and the image that comes of it.

    *config* holds everything but `created`, `history` and `rootfs`; *base_history* are the entries of the base image
    as they stand, *history* those of this build in order. *vertex* None is the empty file system. *epoch* stands for
    the present, in seconds; None leaves the clock in charge. *platform* is the one that was asked for. *scope* is what
    a list of software takes in beside the result, and *scan* the vertex that makes one; None if none is wanted.
    """

    vertex: Vertex | None
    config: ImageConfig
    base: Image | None
    base_history: tuple[History, ...]
    history: tuple[HistoryDraft, ...]
    platform: Platform
    epoch: int | None = None
    scope: ScanScope | None = None
    scan: Vertex | None = None

    def vertices(self) -> tuple[Vertex, ...]:
        """List every vertex that the result needs once, inputs before those that need them."""
        return list_vertices([self.vertex])


def list_vertices(tops: Iterable[Vertex | None]) -> tuple[Vertex, ...]:
    """List every vertex that some need, once, inputs before those that need them; themselves too, and None for none."""
    ordered: dict[str, Vertex] = {}
    for top in tops:
        if top is not None:
            for vertex in _walk(top):
                ordered.setdefault(vertex.digest, vertex)
    return tuple(ordered.values())


def _walk(target: Vertex) -> Iterator[Vertex]:
    """Depth first without recursion: plans of thousands of steps are legal."""
    seen: set[str] = set()
    stack: list[tuple[Vertex, bool]] = [(target, False)]
    while stack:
        vertex, expanded = stack.pop()
        if expanded:
            yield vertex
        elif vertex.digest not in seen:
            seen.add(vertex.digest)
            stack.append((vertex, True))
            stack.extend((needed, False) for needed in reversed(vertex.inputs))
