"""A whole Dockerfile: global arguments and stages.

A *stage* goes from one FROM to the next. ARG before the first FROM is *global*: visible in FROM lines only.
"""

from __future__ import annotations

from builder.dockerfile.directives import check_syntax, parse_directives
from builder.dockerfile.instructions import Arg, From, Instruction, parse_instruction
from builder.dockerfile.parser import parse_nodes, shorten
from builder.errors import DockerfileError, UsageError
from builder.source import Span
from registry.value import field, frozen, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.dockerfile.directives import Directives
    from builder.source import SourceFile

_MAX_INDEX_DIGITS = 9


@frozen
class Stage:
    """FROM and what follows it. *name* is in lower case; *span* goes from the FROM to the last instruction."""

    index: int
    name: str | None
    base: From
    instructions: tuple[Instruction, ...]
    span: Span = field(repr=False, compare=False)

    @property
    def display_name(self) -> str:
        """The name, or `stage-N` without one."""
        return self.name if self.name is not None else f"stage-{self.index}"


@frozen
class Dockerfile:
    """A parsed Dockerfile with at least one stage.

    *empty_continuations* are the blank lines inside instructions, which deserve a warning.
    """

    source: SourceFile = field(repr=False)
    directives: Directives
    meta_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    empty_continuations: tuple[Span, ...] = ()

    def find_stage(self, name_or_index: str, *, before: int | None = None) -> Stage | None:
        """Return the stage of that name or index, as COPY --from means it; the last one when a name is used twice.

        Names are compared without case.

        Args:
            name_or_index: a name, or a decimal index.
            before: consider only stages with a smaller index, those that an instruction of stage *before* can use.
        """
        stages = self.stages if before is None else self.stages[:before]
        if name_or_index.isascii() and name_or_index.isdecimal():
            index = int(name_or_index) if len(name_or_index) <= _MAX_INDEX_DIGITS else len(stages)
            return stages[index] if index < len(stages) else None
        name = name_or_index.lower()
        return next((stage for stage in reversed(stages) if stage.name == name), None)

    def get_target(self, name: str | None) -> Stage:
        """Return the stage to build: the one called *name*, or the last one without a name.

        An index is no name here.

        Raises:
            UsageError: there is no such stage.

        Source: moby/buildkit, dockerfile2llb/convert.go, resolveTarget.
        """
        if not name:
            return self.stages[-1]
        stage = None if name.isdecimal() else self.find_stage(name)
        if stage is None:
            from builder.dockerfile.suggest import did_you_mean  # noqa: PLC0415  (only for typing errors)

            names = [stage.name for stage in self.stages if stage.name is not None]
            raise UsageError(
                f'target stage "{shorten(name)}" could not be found{did_you_mean(name, names)}',
                hint=f"the stages are {', '.join(dict.fromkeys(names))}"
                if names
                else "name a stage: FROM image AS name",
            )
        return stage


def parse_dockerfile(source: SourceFile, *, syntax: str | None = None) -> Dockerfile:
    """Parse a whole Dockerfile.

    Args:
        source: the file.
        syntax: the frontend that reads it, instead of the one that the file names.

    Raises:
        DockerfileError: the file is empty or holds no stage, an instruction is wrong, or it is for another frontend;
            always with a span.

    Source: moby/buildkit, frontend/dockerfile/instructions/parse.go, Parse.
    """
    directives = parse_directives(source)
    check_syntax(source, directives.syntax if syntax is None else syntax)
    nodes = parse_nodes(source, directives=directives)
    if not nodes:
        raise DockerfileError(
            "file with no instructions" if source.text else "the Dockerfile cannot be empty: file with no instructions",
            hint="begin with FROM",
            span=Span(source=source, line=1, end_line=max(1, len(source.lines))),
        )
    meta_args: list[Arg] = []
    parts: list[tuple[From, list[Instruction]]] = []
    for node in nodes:
        instruction = parse_instruction(node)
        if isinstance(instruction, From):
            parts.append((instruction, []))
        elif parts:
            parts[-1][1].append(instruction)
        elif isinstance(instruction, Arg):
            meta_args.append(instruction)
        else:
            raise DockerfileError(
                f"no build stage in current context: {node.keyword.upper()} before the first FROM",
                hint="begin with FROM; only ARG may stand before it",
                span=node.span,
            )
    if not parts:
        raise DockerfileError("dockerfile contains no stages to build", hint="add FROM", span=nodes[-1].span)
    return Dockerfile(
        source=source,
        directives=directives,
        meta_args=tuple(meta_args),
        stages=tuple([_make_stage(index, base, instructions) for index, (base, instructions) in enumerate(parts)]),
        empty_continuations=tuple(
            [Span(source=source, line=line, end_line=line) for node in nodes for line in node.empty_lines]
        ),
    )


def _make_stage(index: int, base: From, instructions: list[Instruction]) -> Stage:
    last = instructions[-1] if instructions else base
    return Stage(
        index=index,
        name=base.name,
        base=base,
        instructions=tuple(instructions),
        span=replace(base.span, end_line=last.span.end_line),
    )
