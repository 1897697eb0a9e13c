"""Carrying out a plan: what the cache knows, and then the steps that are left.

A vertex is answered by *key*. Its cheap key is known from the plan and the content (chain_id) of its parent and
sources alone. Where no record is of the same operation, what a COPY takes of a context is digested only while it is
copied. A COPY from another stage that misses it gets a second chance by the content of what it selects, so that
a stage that was built again and gave the same files leaves the COPY cached.

`probe` answers what it can without any namespace. `run` does the rest, independent vertices at the same time.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, partial

from builder.cache.key import Ingredient, derive_key
from builder.cache.state import Record
from builder.errors import BuildError, StateDamagedError
from builder.events import EventSink, VertexCompleted, VertexStarted, VertexStatus
from builder.image.assemble import Layer
from builder.plan.graph import BaseImage, CopyFiles, EmptyFileSystem, MakeDirectory, Plan, RunCommand, Vertex
from builder.plan.platforms import Plans
from builder.solve.filesystem import FileSystem, FileSystems, snapshot_name
from builder.solve.questions import Question, list_stages
from registry.value import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import TypeVar

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
    from builder.solve.commands import Commands
    from builder.solve.devices import Devices
    from builder.solve.explain_cache import CacheExplainer
    from builder.solve.failed_step import FailedStep
    from builder.solve.imported_cache import ImportedCaches
    from builder.solve.layer import LayerMaker
    from builder.solve.schedule import Begun, Early, Schedule
    from builder.solve.taken_files import TakenFiles
    from builder.store import Store
    from builder.tree import Tree
    from registry.oci.digest import Digest
    from runtime.zygote import Zygote

    _Done = TypeVar("_Done")


@frozen(kw_only=False)
class Result:
    """What became of a vertex: the file system after it, the layer it made (None for a base image)."""

    layers: FileSystem
    made: Layer | None
    cached: bool


class Solver:
    """Solves one plan.

    Args:
        plan: what to do; the plans of several platforms.
        store: where layers, snapshots and records are.
        context: the build context.
        open_layers: gives what makes layers, when the first one is to be made.
        sink: takes events.
        secrets: what `--secret` gave.
        ssh: what `--ssh` gave.
        named: the named contexts; None if no step reads from one.
        network: gives what fetches the sources of ADD; None if no step needs it.
        devices: gives steps their devices; None if no step asks for one.
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
        secrets: Sequence[SecretSource] = (),
        ssh: Sequence[SshSource] = (),
        named: NamedContexts | None = None,
        network: Callable[[], Network] | None = None,
        devices: Devices | None = None,
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
        self._devices = devices
        self._file_systems = FileSystems(store, arrivals)
        self._files = _open_files(self._vertices, store, context, named, network)
        self._results: dict[str, Result] = {}
        self._used: list[str] = []
        self._canceled = False
        self._is_running = False
        self._on_layer: Callable[[Vertex, Layer], None] | None = None
        self._secrets = secrets
        self._ssh = ssh
        self._commands: Commands | None = None

    @cached_property
    def _layers(self) -> LayerMaker:
        return self._open_layers()

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

    def probe(self) -> bool:
        """Answer every vertex the cache knows; return whether the rest needs the namespace."""
        if self._imported is None:
            self._look_up(self._show)
        else:
            self._look_up_imported()
        left = [vertex for vertex in self._vertices if vertex.digest not in self._results]
        for vertex in left:
            if isinstance(vertex.op, CopyFiles) and vertex.op.remotes:
                # Here and not when its turn comes: this process has the user's name, keys and one thread.
                self._needed_files().ask_network(vertex, vertex.op)
        return any(isinstance(vertex.op, RunCommand) or vertex.sources for vertex in left)

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

    def left(self) -> tuple[Vertex, ...]:
        """Give the vertices that have no answer yet."""
        return tuple(vertex for vertex in self._vertices if vertex.digest not in self._results)

    def run(
        self,
        zygote: Zygote | None,
        *,
        jobs: int,
        is_limit: bool = True,
        on_layer: Callable[[Vertex, Layer], None] | None = None,
        on_failure: Callable[[FailedStep], None] | None = None,
    ) -> None:
        """Carry out what is left, up to *jobs* vertices at once.

        The first failure ends the running steps and is raised when all have stopped.

        Args:
            zygote: starts steps; None if none are left.
            jobs: how many vertices at once.
            is_limit: never more than that, also while processors are idle.
            on_layer: told of each layer that is made or found, by the thread that did.
            on_failure: shown the RUN whose failure that is, before it is raised.
        """
        self._is_running = True
        self._on_layer = on_layer
        left = self.left()
        if left:
            from builder.solve.idle import IdleProcessors  # noqa: PLC0415  a build that is cached carries nothing out
            from builder.solve.schedule import Schedule  # noqa: PLC0415  as above

            schedule = Schedule(left, self, jobs=jobs, idle=None if is_limit else IdleProcessors())
            self._run_left(left, schedule, zygote, on_failure)
        if self._used:
            self._store.state.touch_records(self._used)

    def _run_left(
        self,
        left: Sequence[Vertex],
        schedule: Schedule,
        zygote: Zygote | None,
        on_failure: Callable[[FailedStep], None] | None,
    ) -> None:
        ops = [vertex.op for vertex in left if isinstance(vertex.op, RunCommand)]
        try:
            if ops:
                self._commands = self._open_commands(zygote, len(ops), keeps_failed=on_failure is not None)
                if any(op.network == "default" for op in ops):
                    self._commands.prepare_networks()
            schedule.run()
        except BuildError as error:
            failed = self._commands.find_failed(error) if self._commands is not None else None
            if failed is not None and on_failure is not None:
                on_failure(failed)
            raise
        finally:
            if self._commands is not None:
                self._commands.close()

    def cancel(self) -> None:
        """End the running steps and start no more."""
        self._canceled = True
        self._file_systems.cancel()
        if self._commands is not None:
            self._commands.cancel()

    def _open_commands(self, zygote: Zygote | None, steps: int, *, keeps_failed: bool) -> Commands:
        if zygote is None:
            raise AssertionError("probe() said that no namespace is needed")
        zygote.expect(steps)
        from builder.solve.commands import Commands  # noqa: PLC0415  a build that is cached runs nothing

        return Commands(
            self._store,
            self._context,
            self._file_systems,
            self._layers,
            zygote,
            self._sink,
            secrets=self._secrets,
            ssh=self._ssh,
            devices=self._devices,
            imported=self._imported,
            epoch=self._epoch,
            keeps_failed=keeps_failed,
        )

    # What the schedule asks for

    def is_solved(self, vertex: Vertex) -> bool:
        """Tell whether the result of a vertex is known."""
        return vertex.digest in self._results

    def begin(self, vertex: Vertex, early: Early | None) -> Begun | None:
        """Answer or carry out a vertex, of a RUN the command alone; see `schedule.Work`."""
        self._sink(_started(vertex, time.time()))
        with self._telling(vertex, early):
            outcome = _repeat(lambda: self._work(vertex, early))
        if not isinstance(outcome, Result):
            return outcome
        self._finish(vertex, outcome)
        return None

    def begins_early(self, vertex: Vertex, below: Begun) -> bool:
        """Tell whether a vertex can have no answer in the cache, so that its key is not needed before it is carried out.

        That is so if no record is of its operation. What its mounts show of the context is part of the key as well, and
        has to be digested before the command sees it.
        """
        op = vertex.op
        if self._imported is not None or below.command.upper is None:
            return False
        if not isinstance(op, RunCommand) or vertex.sources or any(mount.reads_context for mount in op.mounts):
            return False
        return self._is_new(vertex)

    def finish(self, begun: Begun) -> None:
        """Make the layer of a command; see `schedule.Work`."""
        vertex = begun.vertex
        with begun.held:
            if begun.below is not None:
                begun.below.over.wait()
                if vertex.parent is None or not self.is_solved(vertex.parent):
                    self._sink(VertexCompleted(vertex=vertex.digest, canceled=True, time=time.time()))
                    return
            with self._telling(vertex, None):
                self._finish(vertex, self._make_layer(vertex, begun))

    @contextmanager
    def _telling(self, vertex: Vertex, early: Early | None) -> Iterator[None]:
        """Tell the sink of an error of the block, once what the vertex began on is over."""
        try:
            with self._store.telling_when_full():
                yield
        except BaseException as error:
            if early is not None:
                early.below.over.wait()
                self._ask(vertex)
            canceled = self._canceled
            text = None if canceled else getattr(error, "message", str(error))
            answer = self._explain(vertex, cached=False)
            self._sink(
                VertexCompleted(vertex=vertex.digest, error=text, canceled=canceled, answer=answer, time=time.time())
            )
            if isinstance(error, BuildError) and error.span is None:
                error.span = vertex.span
            raise

    def _ask(self, vertex: Vertex) -> None:
        """Note the key of a vertex that failed before it was known, for who explains it."""
        if self._explainer is not None and vertex.parent is not None and self.is_solved(vertex.parent):
            self._questions[vertex.digest] = Question(*self._key(vertex))

    def _work(self, vertex: Vertex, early: Early | None) -> Result | Begun:
        """Answer a vertex or carry it out, once among all builds that want it at the same time."""
        if isinstance(vertex.op, EmptyFileSystem | BaseImage):
            return self._start(vertex.op)
        if early is not None:
            return self._run_early(vertex, early)
        if isinstance(vertex.op, CopyFiles) and self._can_copy_first(vertex):
            made = self._copy_first(vertex, vertex.op)
            if made is not None:
                return made
        key, ingredients = self._key(vertex)
        with ExitStack() as held:
            if not vertex.no_cache:
                known = self._recall(vertex, key, ingredients)
                if known is not None:
                    return known
                tell = partial(self._sink, _waiting(vertex))
                held.enter_context(self._file_systems.turns.taken(key, tell=tell))
                known = self._recall(vertex, key, ingredients)
                if known is not None:
                    return known
            return self._carry_out(vertex, key, ingredients, held)

    def _show(self, vertex: Vertex, result: Result) -> None:
        self._sink(_started(vertex, time.time()))
        self._finish(vertex, result)

    def _finish(self, vertex: Vertex, result: Result) -> None:
        self._results[vertex.digest] = result
        if self._on_layer is not None and result.made is not None:
            self._on_layer(vertex, result.made)
        answer = self._explain(vertex, cached=result.cached)
        if self._files is not None:
            self._files.forget(vertex)
        self._sink(VertexCompleted(vertex=vertex.digest, cached=result.cached, answer=answer, time=time.time()))

    def _explain(self, vertex: Vertex, *, cached: bool) -> CacheAnswer | None:
        if self._explainer is None:
            return None
        listing = None if cached or self._files is None else self._files.list_files(vertex)
        listed = () if listing is None else listing.sources()
        return self._explainer.answer(vertex, self._questions, listed, cached=cached)

    # Answers

    def _answer(self, vertex: Vertex) -> Result | None:
        """Find a vertex's result without doing it."""
        if isinstance(vertex.op, EmptyFileSystem | BaseImage):
            return self._start(vertex.op)
        if vertex.no_cache or self._can_copy_first(vertex):
            return None
        key, ingredients = self._key(vertex)
        return self._recall(vertex, key, ingredients)

    def _recall(self, vertex: Vertex, key: str, ingredients: list[Ingredient]) -> Result | None:
        found = self._store.state.find_answer(key)
        self._questions[vertex.digest] = Question(key, ingredients, had_record=found is not None)
        if found is None or self._file_systems.find_blob(found[0]) is None:
            return self._recall_imported(vertex, key, ingredients)
        self._used.append(key)
        diff_id, created = found
        layer = Layer(diff_id=diff_id, created=created)
        return Result((*self.result(vertex.parent), layer), layer, cached=True)

    def _recall_imported(self, vertex: Vertex, key: str, ingredients: list[Ingredient]) -> Result | None:
        """Find a key in other caches; its layer is fetched at once if steps run already, else when all is looked up."""
        cached = self._imported.find(key) if self._imported is not None else None
        if self._imported is None or cached is None:
            return None
        self._questions[vertex.digest] = Question(key, ingredients, place=self._imported.place_of(key))
        layer = Layer(diff_id=cached.diff_id, created=cached.created)
        record, listing = _record(vertex, key, ingredients, layer), self._listing(vertex, ingredients)
        if not self._is_running:
            self._found[key] = (cached, record, listing)
        elif self._imported.fetch([cached]):
            self._store.state.put_record(record, listing=listing)
        else:
            return self._recall_imported(vertex, key, ingredients)  # another cache may have it
        return Result((*self.result(vertex.parent), layer), layer, cached=True)

    def _start(self, op: EmptyFileSystem | BaseImage) -> Result:
        if isinstance(op, EmptyFileSystem):
            return Result((), None, cached=True)
        layers = self._file_systems.add_image(op.image, op.reference)
        return Result(layers, None, cached=self._file_systems.has_all(op.image))

    def _key(self, vertex: Vertex) -> tuple[str, list[Ingredient]]:
        """Derive the cheap key of a vertex whose inputs are solved, and list the files it is made of."""
        ingredients = [*vertex.op.ingredients(), *self._below(vertex)]
        match vertex.op:
            case CopyFiles() as op if vertex.sources:
                ingredients.extend(("path", path) for path in op.paths)
                ingredients.append(("source file system", _content(self.result(vertex.sources[0]))))
            case CopyFiles() as op if op.paths or op.remotes:
                ingredients += self._needed_files().ingredients(vertex, op)
            case RunCommand() as op if op.mounts:
                from builder.solve.mount_inputs import cheap_ingredients  # noqa: PLC0415  only with mounts

                self._needed_files().forget(vertex)
                contents = [_content(self.result(source)) for source in vertex.sources]
                ingredients += cheap_ingredients(op, contents, partial(self._digest_mounted, vertex))
            case _:
                pass
        return derive_key(ingredients), ingredients

    def _below(self, vertex: Vertex) -> list[Ingredient]:
        """Name what a vertex is put on; a linked layer is the same on everything."""
        if isinstance(vertex.op, CopyFiles) and vertex.op.link:
            return []
        return [("below", _content(self.result(vertex.parent)))]

    def _tree(self, op: CopyFiles, parent: FileSystem) -> Tree:
        """Give the tree that files are copied onto."""
        from builder.tree import EmptyTree  # noqa: PLC0415  a build that is cached does no work

        return EmptyTree() if op.link else self._file_systems.tree(parent)

    def _digest_mounted(self, vertex: Vertex, mount: PlannedMount) -> str:
        """Digest and list what a mount shows of the context, or of the file system of another vertex."""
        return self._needed_files().digest_mounted(
            vertex, mount, lambda number: self._file_systems.opened(self.result(vertex.sources[number]))
        )

    def _needed_files(self) -> TakenFiles:
        if self._files is None:
            raise AssertionError("no step takes files")
        return self._files

    # Work

    def _carry_out(self, vertex: Vertex, key: str, ingredients: list[Ingredient], held: ExitStack) -> Result | Begun:
        self._questions.setdefault(vertex.digest, Question(key, ingredients))
        parent = self.result(vertex.parent)
        match vertex.op:
            case RunCommand() as op if vertex.sources:
                return self._run_with_sources(vertex, op, key, ingredients, held)
            case RunCommand() as op:
                return self._run(vertex, op, (Question(key, ingredients),), held)
            case CopyFiles() as op if vertex.sources:
                return self._copy_from(vertex, op, parent, key, ingredients)
            case CopyFiles() as op:
                from builder.context.select import Selection  # noqa: PLC0415  a build that is cached does no work
                from builder.solve.ops.copy_files import copy_files  # noqa: PLC0415  as above

                files = self._needed_files()
                selection = files.select(vertex, op) if op.paths else Selection(root=None, sources=())
                remotes = files.fetch(vertex, op)
                layer = copy_files(vertex, op, selection, self._tree(op, parent), self._layers, remotes=remotes)
            case MakeDirectory() as op:
                from builder.solve.ops.workdir import place_workdir  # noqa: PLC0415  as above

                tree = self._file_systems.tree(parent)
                now = int(time.time()) if op.epoch is None else op.epoch
                placed = place_workdir(op.path, tree, user=op.user, now=now, span=vertex.span)
                layer = self._layers.make_placed(placed, root=None)
            case _:
                raise AssertionError(f"needs no work: {vertex.name}")
        return self._keep(vertex, key, ingredients, layer)

    def _is_new(self, vertex: Vertex) -> bool:
        """Tell whether no cache can answer a vertex, whatever it is done on and with: no record is of its operation."""
        if vertex.no_cache:
            return True
        return self._imported is None and not self._store.state.knows_op(derive_key(vertex.op.ingredients()))

    def _can_copy_first(self, vertex: Vertex) -> bool:
        """Tell whether a vertex copies files of a context whose digest nobody needs before: no record can answer it.

        Not for what an archive may be among, since archives are read by who unpacks them; nor for what is fetched, or
        comes from another vertex.

        Raises:
            ContextError: what it copies is not there.
        """
        op = vertex.op
        if not isinstance(op, CopyFiles) or not op.paths or op.remotes or vertex.sources:
            return False
        files = self._needed_files()
        return not files.is_digested(vertex) and self._is_new(vertex) and not files.may_be_archives(vertex, op)

    def _copy_first(self, vertex: Vertex, op: CopyFiles) -> Result | None:
        """Copy, and digest on the way what is copied; None if another build made a record of the same meanwhile."""
        if vertex.no_cache:
            return self._copy_and_digest(vertex, op)
        name = derive_key([*op.ingredients(), *self._below(vertex)])
        with self._file_systems.turns.taken(name, tell=partial(self._sink, _waiting(vertex))):
            return self._copy_and_digest(vertex, op) if self._is_new(vertex) else None

    def _copy_and_digest(self, vertex: Vertex, op: CopyFiles) -> Result:
        from builder.solve.ops.copy_files import copy_and_digest  # noqa: PLC0415  a build that is cached copies nothing

        files, tree = self._needed_files(), self._tree(op, self.result(vertex.parent))
        files.forget(vertex)
        listed = files.begin_listing(vertex)
        try:
            copied = copy_and_digest(
                vertex, op, files.select(vertex, op), tree, self._layers, files.fingerprints, listed
            )
        except BuildError:
            with suppress(BuildError):  # the first one counts
                self._ask(vertex)
            raise
        files.put_digest(vertex, copied.digest)
        key, ingredients = self._key(vertex)
        self._questions[vertex.digest] = Question(key, ingredients)
        return self._keep(vertex, key, ingredients, copied.layer)

    def _copy_from(
        self, vertex: Vertex, op: CopyFiles, parent: FileSystem, key: str, ingredients: list[Ingredient]
    ) -> Result:
        from builder.solve.ops.copy_files import copy_files, select_from_stage  # noqa: PLC0415  as in _carry_out

        with self._file_systems.opened(self.result(vertex.sources[0])) as root_fd:
            selection = select_from_stage(vertex, op, root_fd)
            digest = self._needed_files().digest(vertex, selection, is_stored=False)
            question, known = self._recall_by_content(vertex, key, ingredients, [("files", digest)])
            if known is not None:
                return known
            layer = copy_files(vertex, op, selection, self._tree(op, parent), self._layers)
        self._keep(vertex, question.key, question.ingredients, layer)
        return self._keep(vertex, key, ingredients, layer)

    def _run_with_sources(
        self, vertex: Vertex, op: RunCommand, key: str, ingredients: list[Ingredient], held: ExitStack
    ) -> Result | Begun:
        """Run a command that mounts other file systems, unless what it sees of them is known after all."""
        from builder.solve.mount_inputs import exact_ingredients  # noqa: PLC0415  only with mounts

        self._needed_files().forget(vertex)
        mounted = exact_ingredients(op, partial(self._digest_mounted, vertex))
        question, known = self._recall_by_content(vertex, key, ingredients, mounted)
        if known is not None:
            return known
        return self._run(vertex, op, (question, Question(key, ingredients)), held)

    def _recall_by_content(
        self, vertex: Vertex, key: str, ingredients: list[Ingredient], content: Iterable[Ingredient]
    ) -> tuple[Question, Result | None]:
        """Ask the cache for a vertex by what it sees of other vertices, and no longer by what these are.

        Args:
            vertex: the one that takes files of others.
            key: its cheap key, which leads to the answer as well from now on.
            ingredients: of that key.
            content: what it sees.

        Returns:
            What was asked, and the answer.
        """
        by_content = [*vertex.op.ingredients(), *self._below(vertex), *content]
        question = Question(derive_key(by_content), by_content)
        known = None if vertex.no_cache else self._recall(vertex, question.key, by_content)
        if known is None or known.made is None:
            return question, None
        self._keep(vertex, key, ingredients, known.made)
        return question, known

    def _run(self, vertex: Vertex, op: RunCommand, keys: Sequence[Question], held: ExitStack) -> Begun:
        """Run a command on a file system that is known."""
        from builder.solve.schedule import Begun  # noqa: PLC0415  a build that is cached runs nothing

        commands = self._needed_commands()
        sources = [self.result(source) for source in vertex.sources]
        ended = commands.run(vertex, op, commands.chain(self.result(vertex.parent)), sources)
        held.push(ended.held)
        return Begun(vertex, ended, keys, held.pop_all())

    def _run_early(self, vertex: Vertex, early: Early) -> Begun:
        """Run a command on what the one below has left."""
        from builder.solve.schedule import Begun  # noqa: PLC0415  as above

        below = early.below.command
        if not isinstance(vertex.op, RunCommand) or below.upper is None:
            raise AssertionError(f"cannot begin early: {vertex.name}")
        ended = self._needed_commands().run(vertex, vertex.op, below.chain.with_upper(below.upper), ())
        return Begun(vertex, ended, (), ended.held, early.below)

    def _needed_commands(self) -> Commands:
        if self._commands is None:
            raise AssertionError("probe() said that no command is left")
        return self._commands

    def _make_layer(self, vertex: Vertex, begun: Begun) -> Result:
        """Make the layer of a command and keep it.

        What began on it gets the turn of its key before the layer can be found: so another build that waited for this
        one waits for the next as well.
        """
        keys = begun.keys
        if begun.below is not None:
            keys = (Question(*self._key(vertex)),)
            self._questions[vertex.digest] = keys[0]
        below = self.result(vertex.parent)
        layer = _repeat(lambda: self._needed_commands().make_layer(vertex, begun.command, below))
        result = self._results[vertex.digest] = Result((*below, layer), layer, cached=False)
        if begun.early is not None and not begun.early.vertex.no_cache:
            key, _ = self._key(begun.early.vertex)
            begun.early.give_turn(self._file_systems.turns.take_if_free(key))
        if begun.command.is_recorded:
            for question in keys:
                _repeat(partial(self._keep, vertex, question.key, question.ingredients, layer))
        return result

    def _keep(self, vertex: Vertex, key: str, ingredients: list[Ingredient], layer: Layer) -> Result:
        record, listing = _record(vertex, key, ingredients, layer), self._listing(vertex, ingredients)
        self._store.state.put_record(record, listing=listing)
        return Result((*self.result(vertex.parent), layer), layer, cached=False)

    def _listing(self, vertex: Vertex, ingredients: Iterable[Ingredient]) -> Spool | None:
        """Give the listing to be kept with a key, None if it is not made of files."""
        if all(name not in {"files", "mounted files"} for name, _ in ingredients):
            return None
        listing = self._needed_files().list_files(vertex)
        return None if listing is None else listing.pack()


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


def _repeat(action: Callable[[], _Done]) -> _Done:
    """Do something, and once more if the state database was damaged: it was told, and begun anew by then."""
    try:
        return action()
    except StateDamagedError:
        return action()


def _record(vertex: Vertex, key: str, ingredients: list[Ingredient], layer: Layer) -> Record:
    return Record(
        key=key,
        op=derive_key(vertex.op.ingredients()),
        diff_id=layer.diff_id,
        created=layer.created or "",
        name=vertex.text,
        ingredients=tuple(ingredients),
    )


def _started(vertex: Vertex, started: float) -> VertexStarted:
    return VertexStarted(
        vertex=vertex.digest, name=vertex.name, inputs=tuple(needed.digest for needed in vertex.inputs), time=started
    )


def _waiting(vertex: Vertex) -> VertexStatus:
    return VertexStatus(vertex=vertex.digest, id="waiting for the same step, which runs already", time=time.time())


def _content(layers: FileSystem) -> str:
    """Name a file system by its content, the empty one too."""
    return snapshot_name(layers) if layers else "empty"
