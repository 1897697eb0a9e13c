"""Carrying out what the cache has left of a plan, independent vertices at the same time.

Once the inputs of a vertex are solved, the cache is asked for it again (`builder.solve.solver`): only now is its key
known, or another build has kept its layer meanwhile. A COPY from another stage that misses gets a second chance by the
content of what it selects, so that a stage that was built again and gave the same files leaves the COPY cached. Where
no record is of the same operation, what a COPY takes of a context is digested only while it is copied.

A build that is cached loads nothing of this.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING

from builder.errors import BuildError, StateDamagedError
from builder.events import EventSink, VertexCompleted, VertexStatus
from builder.plan.graph import CopyFiles, MakeDirectory, RunCommand, Vertex
from builder.solve.idle import IdleProcessors
from builder.solve.schedule import Begun, Schedule
from builder.solve.solver import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeVar

    from builder.cache.key import Ingredient
    from builder.context.local import LocalContext
    from builder.context.remote import RemoteContext
    from builder.image.assemble import Layer
    from builder.solve.commands import Commands
    from builder.solve.failed_step import FailedStep
    from builder.solve.filesystem import FileSystem
    from builder.solve.imported_cache import ImportedCaches
    from builder.solve.layer import LayerMaker
    from builder.solve.questions import Question
    from builder.solve.schedule import Early
    from builder.solve.solver import Grants, Solver
    from builder.store import Store
    from builder.tree import Tree
    from runtime.zygote import Zygote

    _Done = TypeVar("_Done")


class VertexWork:
    """The work on the vertices of one plan; implements `builder.solve.schedule.Work`.

    Args:
        solver: answers vertices, keeps the layers that are made, and takes what became of each vertex.
        store: where layers and snapshots are.
        context: the build context.
        open_layers: gives what makes layers, when the first one is to be made.
        sink: takes events.
        grants: what the commands may have.
        imported: what other caches know; None if there are none.
        epoch: seconds after which times do not count; None if all do.
        on_layer: told of each layer that is made or found, by the thread that did; None if nobody wants to know.
    """

    def __init__(
        self,
        solver: Solver,
        store: Store,
        context: LocalContext | RemoteContext,
        open_layers: Callable[[], LayerMaker],
        sink: EventSink,
        *,
        grants: Grants,
        imported: ImportedCaches | None,
        epoch: int | None,
        on_layer: Callable[[Vertex, Layer], None] | None,
    ) -> None:
        self._solver = solver
        self._file_systems = solver.file_systems
        self._store = store
        self._context = context
        self._open_layers = open_layers
        self._sink = sink
        self._grants = grants
        self._imported = imported
        self._epoch = epoch
        self._on_layer = on_layer
        self._canceled = False
        self._commands: Commands | None = None

    @cached_property
    def _layers(self) -> LayerMaker:
        return self._open_layers()

    def run(
        self,
        left: Sequence[Vertex],
        zygote: Zygote | None,
        *,
        jobs: int,
        is_limit: bool,
        on_failure: Callable[[FailedStep], None] | None,
    ) -> None:
        """Carry out vertices, once; see `Solver.run`.

        Args:
            left: those that are not solved.
            zygote: starts steps; None if none are left.
            jobs: how many vertices at once.
            is_limit: never more than that, also while processors are idle.
            on_failure: shown the RUN whose failure is raised, before it is.
        """
        schedule = Schedule(left, self, jobs=jobs, idle=None if is_limit else IdleProcessors())
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

    # What the schedule asks for

    def is_solved(self, vertex: Vertex) -> bool:
        """Tell whether the result of a vertex is known."""
        return self._solver.is_solved(vertex)

    def begin(self, vertex: Vertex, early: Early | None) -> Begun | None:
        """Answer or carry out a vertex, of a RUN the command alone; see `schedule.Work`."""
        self._solver.tell_started(vertex)
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
        return self._solver.is_new(vertex)

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

    def cancel(self) -> None:
        """End the running steps and start no more."""
        self._canceled = True
        self._file_systems.cancel()
        if self._commands is not None:
            self._commands.cancel()

    # One vertex

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
            answer = self._solver.explain(vertex, cached=False)
            self._sink(
                VertexCompleted(vertex=vertex.digest, error=text, canceled=canceled, answer=answer, time=time.time())
            )
            if isinstance(error, BuildError) and error.span is None:
                error.span = vertex.span
            raise

    def _ask(self, vertex: Vertex) -> None:
        """Note the key of a vertex that failed before it was known, for who explains it."""
        if self._solver.is_explained and vertex.parent is not None and self.is_solved(vertex.parent):
            self._solver.put_question(vertex, self._solver.question(vertex))

    def _finish(self, vertex: Vertex, result: Result) -> None:
        self._solver.put_result(vertex, result)
        if self._on_layer is not None and result.made is not None:
            self._on_layer(vertex, result.made)
        self._solver.tell_solved(vertex, result)

    def _work(self, vertex: Vertex, early: Early | None) -> Result | Begun:
        """Answer a vertex or carry it out, once among all builds that want it at the same time."""
        if early is not None:
            return self._run_early(vertex, early)
        if isinstance(vertex.op, CopyFiles) and self._solver.can_copy_first(vertex):
            made = self._copy_first(vertex, vertex.op)
            if made is not None:
                return made
        question = self._solver.question(vertex)
        with ExitStack() as held:
            if vertex.no_cache:
                self._solver.put_question(vertex, question)
            else:
                known = self._solver.recall(vertex, question)
                if known is not None:
                    return known
                tell = partial(self._sink, _waiting(vertex))
                held.enter_context(self._file_systems.turns.taken(question.key, tell=tell))
                known = self._solver.recall(vertex, question)
                if known is not None:
                    return known
            return self._carry_out(vertex, question, held)

    def _carry_out(self, vertex: Vertex, question: Question, held: ExitStack) -> Result | Begun:
        parent = self._solver.result(vertex.parent)
        match vertex.op:
            case RunCommand() as op if vertex.sources:
                return self._run_with_sources(vertex, op, question, held)
            case RunCommand() as op:
                return self._run(vertex, op, (question,), held)
            case CopyFiles() as op if vertex.sources:
                return self._copy_from(vertex, op, parent, question)
            case CopyFiles() as op:
                from builder.context.select import Selection  # noqa: PLC0415  only where files are copied
                from builder.solve.ops.copy_files import copy_files  # noqa: PLC0415  as above

                files = self._solver.files
                selection = files.select(vertex, op) if op.paths else Selection(root=None, sources=())
                remotes = files.fetch(vertex, op)
                layer = copy_files(vertex, op, selection, self._tree(op, parent), self._layers, remotes=remotes)
            case MakeDirectory() as op:
                from builder.solve.ops.workdir import place_workdir  # noqa: PLC0415  only where one is made

                tree = self._file_systems.tree(parent)
                now = int(time.time()) if op.epoch is None else op.epoch
                placed = place_workdir(op.path, tree, user=op.user, now=now, span=vertex.span)
                layer = self._layers.make_placed(placed, root=None)
            case _:
                raise AssertionError(f"needs no work: {vertex.name}")
        return self._solver.keep(vertex, question, layer)

    def _recall_by_content(
        self, vertex: Vertex, cheap: Question, content: Iterable[Ingredient]
    ) -> tuple[Question, Result | None]:
        """Ask the cache for a vertex by what it sees of other vertices, and no longer by what these are.

        Args:
            vertex: the one that takes files of others.
            cheap: what was asked before, which leads to the answer as well from now on.
            content: what it sees.

        Returns:
            What was asked, and the answer.
        """
        question = self._solver.question_with(vertex, content)
        known = None if vertex.no_cache else self._solver.recall(vertex, question)
        if known is None or known.made is None:
            return question, None
        self._solver.keep(vertex, cheap, known.made)
        return question, known

    # Files that are copied

    def _copy_first(self, vertex: Vertex, op: CopyFiles) -> Result | None:
        """Copy, and digest on the way what is copied; None if another build made a record of the same meanwhile."""
        if vertex.no_cache:
            return self._copy_and_digest(vertex, op)
        name = self._solver.question_with(vertex, ()).key
        with self._file_systems.turns.taken(name, tell=partial(self._sink, _waiting(vertex))):
            return self._copy_and_digest(vertex, op) if self._solver.is_new(vertex) else None

    def _copy_and_digest(self, vertex: Vertex, op: CopyFiles) -> Result:
        from builder.solve.ops.copy_files import copy_and_digest  # noqa: PLC0415  only where files are copied

        files, tree = self._solver.files, self._tree(op, self._solver.result(vertex.parent))
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
        question = self._solver.question(vertex)
        self._solver.put_question(vertex, question)
        return self._solver.keep(vertex, question, copied.layer)

    def _copy_from(self, vertex: Vertex, op: CopyFiles, parent: FileSystem, cheap: Question) -> Result:
        """Copy files of another vertex, unless what is selected is known after all."""
        from builder.solve.ops.copy_files import copy_files, select_from_stage  # noqa: PLC0415  as in _carry_out

        with self._file_systems.opened(self._solver.result(vertex.sources[0])) as root_fd:
            selection = select_from_stage(vertex, op, root_fd)
            digest = self._solver.files.digest(vertex, selection, is_stored=False)
            question, known = self._recall_by_content(vertex, cheap, [("files", digest)])
            if known is not None:
                return known
            layer = copy_files(vertex, op, selection, self._tree(op, parent), self._layers)
        self._solver.keep(vertex, question, layer)
        return self._solver.keep(vertex, cheap, layer)

    def _tree(self, op: CopyFiles, parent: FileSystem) -> Tree:
        """Give the tree that files are copied onto."""
        from builder.tree import EmptyTree  # noqa: PLC0415  only where files are copied

        return EmptyTree() if op.link else self._file_systems.tree(parent)

    # Commands

    def _open_commands(self, zygote: Zygote | None, steps: int, *, keeps_failed: bool) -> Commands:
        if zygote is None:
            raise AssertionError("probe() said that no namespace is needed")
        zygote.expect(steps)
        from builder.solve.commands import Commands  # noqa: PLC0415  only where commands run

        return Commands(
            self._store,
            self._context,
            self._file_systems,
            self._layers,
            zygote,
            self._sink,
            grants=self._grants,
            imported=self._imported,
            epoch=self._epoch,
            keeps_failed=keeps_failed,
        )

    def _needed_commands(self) -> Commands:
        if self._commands is None:
            raise AssertionError("probe() said that no command is left")
        return self._commands

    def _run_with_sources(self, vertex: Vertex, op: RunCommand, cheap: Question, held: ExitStack) -> Result | Begun:
        """Run a command that mounts other file systems, unless what it sees of them is known after all."""
        from builder.solve.mount_inputs import exact_ingredients  # noqa: PLC0415  only with mounts

        self._solver.files.forget(vertex)
        mounted = exact_ingredients(op, partial(self._solver.digest_mounted, vertex))
        question, known = self._recall_by_content(vertex, cheap, mounted)
        if known is not None:
            return known
        return self._run(vertex, op, (question, cheap), held)

    def _run(self, vertex: Vertex, op: RunCommand, keys: Sequence[Question], held: ExitStack) -> Begun:
        """Run a command on a file system that is known."""
        commands = self._needed_commands()
        sources = [self._solver.result(source) for source in vertex.sources]
        ended = commands.run(vertex, op, commands.chain(self._solver.result(vertex.parent)), sources)
        held.push(ended.held)
        return Begun(vertex, ended, keys, held.pop_all())

    def _run_early(self, vertex: Vertex, early: Early) -> Begun:
        """Run a command on what the one below has left."""
        below = early.below.command
        if not isinstance(vertex.op, RunCommand) or below.upper is None:
            raise AssertionError(f"cannot begin early: {vertex.name}")
        ended = self._needed_commands().run(vertex, vertex.op, below.chain.with_upper(below.upper), ())
        return Begun(vertex, ended, (), ended.held, early.below)

    def _make_layer(self, vertex: Vertex, begun: Begun) -> Result:
        """Make the layer of a command and keep it.

        What began on it gets the turn of its key before the layer can be found: so another build that waited for this
        one waits for the next as well.
        """
        keys = begun.keys
        if begun.below is not None:
            keys = (self._solver.question(vertex),)
            self._solver.put_question(vertex, keys[0])
        below = self._solver.result(vertex.parent)
        layer = _repeat(lambda: self._needed_commands().make_layer(vertex, begun.command, below))
        result = Result((*below, layer), layer, cached=False)
        self._solver.put_result(vertex, result)
        if begun.early is not None and not begun.early.vertex.no_cache:
            key = self._solver.question(begun.early.vertex).key
            begun.early.give_turn(self._file_systems.turns.take_if_free(key))
        if begun.command.is_recorded:
            for question in keys:
                _repeat(partial(self._solver.keep, vertex, question, layer))
        return result


def _repeat(action: Callable[[], _Done]) -> _Done:
    """Do something, and once more if the state database was damaged: it was told, and begun anew by then."""
    try:
        return action()
    except StateDamagedError:
        return action()


def _waiting(vertex: Vertex) -> VertexStatus:
    return VertexStatus(vertex=vertex.digest, id="waiting for the same step, which runs already", time=time.time())
