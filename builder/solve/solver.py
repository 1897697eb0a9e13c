"""What the cache knows of a plan, and what it leaves to be done.

A vertex is answered by *key*. Its cheap key is known from the plan and the content (chain_id) of its parent and
sources alone. Where no record is of the same operation, no key has an answer, and what a COPY takes of a context is not
digested for one.

`probe` answers what it can without any namespace. `run` has the rest carried out (`builder.solve.work`), which asks
here again, vertex by vertex, and tells here what became of each.
"""

from __future__ import annotations

import time
from functools import partial

from builder.cache.key import Ingredient, derive_key
from builder.cache.state import Record
from builder.events import EventSink, VertexCompleted, VertexStarted
from builder.image.assemble import Layer
from builder.plan.graph import BaseImage, CopyFiles, EmptyFileSystem, Plan, RunCommand, Vertex
from builder.plan.platforms import Plans
from builder.solve.filesystem import FileSystem, FileSystems, snapshot_name
from builder.solve.questions import Question, list_stages
from registry.value import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from builder.cache.document import CachedLayer
    from builder.cache.past import PastStep
    from builder.cache.spool import Spool
    from builder.context.local import LocalContext
    from builder.context.named import NamedContexts
    from builder.context.remote import Network, RemoteContext
    from builder.events import CacheAnswer
    from builder.plan.mounts import PlannedMount
    from builder.request import SecretSource, SshSource
    from builder.solve.arrivals import Arrivals
    from builder.solve.devices import Devices
    from builder.solve.explain_cache import CacheExplainer
    from builder.solve.failed_step import FailedStep
    from builder.solve.imported_cache import ImportedCaches
    from builder.solve.layer import LayerMaker
    from builder.solve.taken_files import TakenFiles
    from builder.store import Store
    from registry.oci.digest import Digest
    from runtime.zygote import Zygote


@frozen(kw_only=False)
class Result:
    """What became of a vertex: the file system after it, the layer it made (None for a base image)."""

    layers: FileSystem
    made: Layer | None
    cached: bool


@frozen
class Grants:
    """What the user lets the commands of a build have.

    *secrets* and *ssh* are what `--secret` and `--ssh` gave; *devices* gives steps theirs, None if no step asks for one.
    """

    secrets: tuple[SecretSource, ...]
    ssh: tuple[SshSource, ...]
    devices: Devices | None


class Solver:
    """Solves one plan.

    Args:
        plan: what to do; the plans of several platforms.
        store: where layers, snapshots and records are.
        context: the build context.
        open_layers: gives what makes layers, when the first one is to be made.
        sink: takes events.
        grants: what the commands may have.
        named: the named contexts; None if no step reads from one.
        network: gives what fetches the sources of ADD; None if no step needs it.
        imported: what other caches know; None if there are none.
        arrivals: fetches the layers of base images that are not in the store; None if all are.
        explainer: says of each step why the cache had it or not; None if nobody asks.
        wants_all_layers: have the layers of all steps in the store, not only those that something is made of.
    """

    def __init__(
        self,
        plan: Plan | Plans,
        store: Store,
        context: LocalContext | RemoteContext,
        open_layers: Callable[[], LayerMaker],
        sink: EventSink,
        *,
        grants: Grants,
        named: NamedContexts | None = None,
        network: Callable[[], Network] | None = None,
        imported: ImportedCaches | None = None,
        arrivals: Arrivals | None = None,
        explainer: CacheExplainer | None = None,
        wants_all_layers: bool = False,
    ) -> None:
        plans = plan if isinstance(plan, Plans) else Plans((plan,))
        self._vertices = plans.vertices()
        self._results_wanted = plans.tops()
        epochs = {each.epoch for each in plans.plans}
        self._epoch = epochs.pop() if len(epochs) == 1 else None
        self._imported = imported
        self._wants_all_layers = wants_all_layers
        self._explainer = explainer
        self._found: dict[str, tuple[CachedLayer, Record, Spool | None]] = {}
        self._questions: dict[str, Question] = {}
        self._store = store
        self._context = context
        self._open_layers = open_layers
        self._sink = sink
        self._file_systems = FileSystems(store, arrivals)
        self._files = _open_files(self._vertices, store, context, named, network)
        self._results: dict[str, Result] = {}
        self._used: list[str] = []
        self._is_running = False
        self._grants = grants

    @property
    def file_systems(self) -> FileSystems:
        """What is known of file systems in the store."""
        return self._file_systems

    def result(self, vertex: Vertex | None) -> FileSystem:
        """Give the file system after a solved vertex; that of None is empty."""
        return self._results[vertex.digest].layers if vertex else ()

    def made(self) -> Mapping[str, Layer]:
        """Give the layer each vertex made, by vertex digest."""
        return {digest: result.made for digest, result in self._results.items() if result.made}

    def steps(self) -> dict[str, list[PastStep]]:
        """Give the steps of each stage with their keys."""
        return list_stages(self._vertices, self._questions)

    def left(self) -> tuple[Vertex, ...]:
        """Give the vertices that have no answer yet."""
        return tuple(vertex for vertex in self._vertices if vertex.digest not in self._results)

    def is_solved(self, vertex: Vertex) -> bool:
        """Tell whether the result of a vertex is known."""
        return vertex.digest in self._results

    def probe(self) -> bool:
        """Answer every vertex the cache knows; return whether the rest needs the namespace."""
        if self._imported is None:
            self._look_up(self._show)
        else:
            self._look_up_imported()
        left = self.left()
        for vertex in left:
            if isinstance(vertex.op, CopyFiles) and vertex.op.remotes:
                # Here and not when its turn comes: this process has the user's name, keys and one thread.
                self.files.ask_network(vertex, vertex.op)
        return any(isinstance(vertex.op, RunCommand) or vertex.sources for vertex in left)

    def run(
        self,
        zygote: Zygote | None,
        *,
        jobs: int,
        is_limit: bool = True,
        on_layer: Callable[[Vertex, Layer], None] | None = None,
        on_failure: Callable[[FailedStep], None] | None = None,
    ) -> None:
        """Have what is left carried out, up to *jobs* vertices at once.

        The first failure ends the running steps and is raised when all have stopped.

        Args:
            zygote: starts steps; None if none are left.
            jobs: how many vertices at once.
            is_limit: never more than that, also while processors are idle.
            on_layer: told of each layer that is made or found, by the thread that did.
            on_failure: shown the RUN whose failure that is, before it is raised.
        """
        self._is_running = True
        left = self.left()
        if left:
            from builder.solve.work import VertexWork  # noqa: PLC0415  a build that is cached carries nothing out

            work = VertexWork(
                self,
                self._store,
                self._context,
                self._open_layers,
                self._sink,
                grants=self._grants,
                imported=self._imported,
                epoch=self._epoch,
                on_layer=on_layer,
            )
            work.run(left, zygote, jobs=jobs, is_limit=is_limit, on_failure=on_failure)
        if self._used:
            self._store.state.touch_records(self._used)

    def _look_up(self, found: Callable[[Vertex, Result], None]) -> None:
        for vertex in self._vertices:
            if all(needed.digest in self._results for needed in vertex.inputs):
                result = self._answer(vertex)
                if result is not None:
                    self._results[vertex.digest] = result
                    found(vertex, result)

    def _look_up_imported(self) -> None:
        """Look up in imported caches too, anew if one of them turns out not to have a layer that is needed."""
        try:
            self._look_up(lambda *_: None)
            while not self._fetch_imported():
                self._results.clear()
                self._used.clear()
                self._look_up(lambda *_: None)
        finally:
            for vertex in self._vertices:
                if vertex.digest in self._results:
                    self._show(vertex, self._results[vertex.digest])

    def _fetch_imported(self) -> bool:
        """Fetch those layers that were found in other caches and are needed; tell whether all could be had."""
        if self._imported is None or not self._found:
            return True
        found, self._found = self._found, {}
        needed = self._needed_layers()
        wanted = [cached for cached, *_ in found.values() if cached.diff_id in needed]
        if not self._imported.fetch(wanted):
            return False
        for cached, record, listing in found.values():
            if cached.diff_id in needed:
                self._store.state.put_record(record, listing=listing)
        return True

    def _needed_layers(self) -> set[Digest]:
        """List the layers that the results, and the steps that are left, are made of."""
        tops = [self._results[vertex.digest] for vertex in self._results_wanted if vertex and self.is_solved(vertex)]
        for vertex in self._vertices:
            if not self.is_solved(vertex):
                tops += [self._results[needed.digest] for needed in vertex.inputs if self.is_solved(needed)]
        if self._wants_all_layers:
            tops += self._results.values()
        return {layer.diff_id for result in tops for layer in result.layers}

    def _show(self, vertex: Vertex, result: Result) -> None:
        self.tell_started(vertex)
        self.tell_solved(vertex, result)

    def _answer(self, vertex: Vertex) -> Result | None:
        """Find a vertex's result without doing it."""
        if isinstance(vertex.op, EmptyFileSystem | BaseImage):
            return self._start(vertex.op)
        if vertex.no_cache or self.can_copy_first(vertex):
            return None
        return self.recall(vertex, self.question(vertex))

    def _start(self, op: EmptyFileSystem | BaseImage) -> Result:
        if isinstance(op, EmptyFileSystem):
            return Result((), None, cached=True)
        layers = self._file_systems.add_image(op.image, op.reference)
        return Result(layers, None, cached=self._file_systems.has_all(op.image))

    # What is asked of the cache, also by who carries out what is left: from many threads, for one vertex by one at a time

    def question(self, vertex: Vertex) -> Question:
        """Derive the cheap key of a vertex whose inputs are solved, and list the files it is made of."""
        content: list[Ingredient] = []
        match vertex.op:
            case CopyFiles() as op if vertex.sources:
                content.extend(("path", path) for path in op.paths)
                content.append(("source file system", _content(self.result(vertex.sources[0]))))
            case CopyFiles() as op if op.paths or op.remotes:
                content = self.files.ingredients(vertex, op)
            case RunCommand() as op if op.mounts:
                from builder.solve.mount_inputs import cheap_ingredients  # noqa: PLC0415  only with mounts

                self.files.forget(vertex)
                contents = [_content(self.result(source)) for source in vertex.sources]
                content = cheap_ingredients(op, contents, partial(self.digest_mounted, vertex))
            case _:
                pass
        return self.question_with(vertex, content)

    def question_with(self, vertex: Vertex, content: Iterable[Ingredient]) -> Question:
        """Derive a key from what a vertex does, from what it is put on, and from *content*, which is all it takes."""
        ingredients = [*vertex.op.ingredients(), *self._below(vertex), *content]
        return Question(derive_key(ingredients), ingredients)

    def put_question(self, vertex: Vertex, question: Question) -> None:
        """Note what would have been asked for a vertex that is done without asking, or has failed."""
        self._questions[vertex.digest] = question

    def recall(self, vertex: Vertex, question: Question) -> Result | None:
        """Ask the cache for a vertex, and note what was asked."""
        found = self._store.state.find_answer(question.key)
        asked = Question(question.key, question.ingredients, had_record=found is not None)
        self._questions[vertex.digest] = asked
        if found is None or self._file_systems.find_blob(found[0]) is None:
            return self._recall_imported(vertex, question)
        self._used.append(question.key)
        diff_id, created = found
        layer = Layer(diff_id=diff_id, created=created)
        return Result((*self.result(vertex.parent), layer), layer, cached=True)

    def keep(self, vertex: Vertex, question: Question, layer: Layer) -> Result:
        """Keep a layer as the answer to a question; give what it makes of a vertex."""
        record, listing = _record(vertex, question, layer), self._listing(vertex, question)
        self._store.state.put_record(record, listing=listing)
        return Result((*self.result(vertex.parent), layer), layer, cached=False)

    def is_new(self, vertex: Vertex) -> bool:
        """Tell whether no cache can answer a vertex, whatever it is done on and with: no record is of its operation."""
        if vertex.no_cache:
            return True
        return self._imported is None and not self._store.state.knows_op(derive_key(vertex.op.ingredients()))

    def can_copy_first(self, vertex: Vertex) -> bool:
        """Tell whether a vertex copies files of a context whose digest nobody needs before: no record can answer it.

        Not for what an archive may be among, since archives are read by who unpacks them; nor for what is fetched, or
        comes from another vertex.

        Raises:
            ContextError: what it copies is not there.
        """
        op = vertex.op
        if not isinstance(op, CopyFiles) or not op.paths or op.remotes or vertex.sources:
            return False
        files = self.files
        return not files.is_digested(vertex) and self.is_new(vertex) and not files.may_be_archives(vertex, op)

    @property
    def files(self) -> TakenFiles:
        """What steps take from elsewhere. Asked for only if one takes something."""
        if self._files is None:
            raise AssertionError("no step takes files")
        return self._files

    def digest_mounted(self, vertex: Vertex, mount: PlannedMount) -> str:
        """Digest and list what a mount shows of the context, or of the file system of another vertex."""
        return self.files.digest_mounted(
            vertex, mount, lambda number: self._file_systems.opened(self.result(vertex.sources[number]))
        )

    def _recall_imported(self, vertex: Vertex, question: Question) -> Result | None:
        """Find a key in other caches; its layer is fetched at once if steps run already, else when all is looked up."""
        key, ingredients = question.key, question.ingredients
        cached = self._imported.find(key) if self._imported is not None else None
        if self._imported is None or cached is None:
            return None
        self._questions[vertex.digest] = Question(key, ingredients, place=self._imported.place_of(key))
        layer = Layer(diff_id=cached.diff_id, created=cached.created)
        record, listing = _record(vertex, question, layer), self._listing(vertex, question)
        if not self._is_running:
            self._found[key] = (cached, record, listing)
        elif self._imported.fetch([cached]):
            self._store.state.put_record(record, listing=listing)
        else:
            return self._recall_imported(vertex, question)  # another cache may have it
        return Result((*self.result(vertex.parent), layer), layer, cached=True)

    def _below(self, vertex: Vertex) -> list[Ingredient]:
        """Name what a vertex is put on; a linked layer is the same on everything."""
        if isinstance(vertex.op, CopyFiles) and vertex.op.link:
            return []
        return [("below", _content(self.result(vertex.parent)))]

    def _listing(self, vertex: Vertex, question: Question) -> Spool | None:
        """Give the listing to be kept with a key, None if it is not made of files."""
        if all(name not in {"files", "mounted files"} for name, _ in question.ingredients):
            return None
        listing = self.files.list_files(vertex)
        return None if listing is None else listing.pack()

    # What is told of a vertex

    def put_result(self, vertex: Vertex, result: Result) -> None:
        """Make a vertex solved."""
        self._results[vertex.digest] = result

    def tell_started(self, vertex: Vertex) -> None:
        """Tell the sink that a vertex has begun."""
        inputs = tuple(needed.digest for needed in vertex.inputs)
        self._sink(VertexStarted(vertex=vertex.digest, name=vertex.name, inputs=inputs, time=time.time()))

    def tell_solved(self, vertex: Vertex, result: Result) -> None:
        """Tell the sink what became of a vertex, and let go of the list of files in its key."""
        answer = self.explain(vertex, cached=result.cached)
        if self._files is not None:
            self._files.forget(vertex)
        self._sink(VertexCompleted(vertex=vertex.digest, cached=result.cached, answer=answer, time=time.time()))

    @property
    def is_explained(self) -> bool:
        """Whether somebody asks why the cache had a step or not."""
        return self._explainer is not None

    def explain(self, vertex: Vertex, *, cached: bool) -> CacheAnswer | None:
        """Say why the cache had a vertex or not; None if nobody asks, or for what has no key."""
        if self._explainer is None:
            return None
        listing = None if cached or self._files is None else self._files.list_files(vertex)
        listed = () if listing is None else listing.sources()
        return self._explainer.answer(vertex, self._questions, listed, cached=cached)


def _open_files(
    vertices: Sequence[Vertex],
    store: Store,
    context: LocalContext | RemoteContext,
    named: NamedContexts | None,
    network: Callable[[], Network] | None,
) -> TakenFiles | None:
    """Open what steps take from elsewhere; None if none takes anything."""
    ops = [vertex.op for vertex in vertices]
    if not any(isinstance(op, CopyFiles) or (isinstance(op, RunCommand) and op.mounts) for op in ops):
        return None
    from builder.solve.taken_files import TakenFiles  # noqa: PLC0415  only where files are taken

    return TakenFiles(store, context, named=named, network=network)


def _record(vertex: Vertex, question: Question, layer: Layer) -> Record:
    return Record(
        key=question.key,
        op=derive_key(vertex.op.ingredients()),
        diff_id=layer.diff_id,
        created=layer.created or "",
        name=vertex.text,
        ingredients=tuple(question.ingredients),
    )


def _content(layers: FileSystem) -> str:
    """Name a file system by its content, the empty one too."""
    return snapshot_name(layers) if layers else "empty"
