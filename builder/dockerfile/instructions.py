"""The instructions of a Dockerfile as values.

An *instruction* is a node with its meaning: one class each, checked as far as that needs no environment. Values are
unexpanded: variables and quotes are still in them, because only the stage knows the values. What RUN, CMD, ENTRYPOINT,
SHELL, HEALTHCHECK and MAINTAINER hold is never expanded at all.

A *command line* is in shell form (one text for a shell) or in exec form (the words of a process).
"""

from __future__ import annotations

import re

from builder.dockerfile.flags import parse_flags
from builder.dockerfile.parser import (
    BLANKS,
    Word,
    parse_json_array,
    parse_nodes,
    shorten,
    split_quoted_words,
    split_words,
)
from builder.errors import DockerfileError
from builder.source import SourceFile, Span
from registry.value import field, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, TypeAlias, TypeVar

    from builder.dockerfile.directives import Directives
    from builder.dockerfile.flags import Flags
    from builder.dockerfile.mounts import Device, MountFlag
    from builder.dockerfile.parser import Heredoc, Node

    _Choice = TypeVar("_Choice", bound=str)

RunNetwork: TypeAlias = 'Literal["default", "none", "host"]'
"""Values of `RUN --network`."""

RunSecurity: TypeAlias = 'Literal["sandbox", "insecure"]'
"""Values of `RUN --security`."""

_NETWORKS: tuple[RunNetwork, ...] = ("default", "none", "host")
_SECURITIES: tuple[RunSecurity, ...] = ("sandbox", "insecure")

_STAGE_NAME = r"[a-z][a-z0-9_.-]*+"
_LEGACY_SPLIT = r"[ \t\v\f\r]++"
_LONE_SURROGATE = "[\ud800-\udc7f\udd00-\udfff]"
_MILLISECOND = 1_000_000
_MAX_RETRIES = 2**31 - 1


@frozen
class CommandLine:
    """A command. In shell form *words* is one text for the shell of the stage, else the words of a process."""

    words: tuple[str, ...]
    shell_form: bool


@frozen
class InlineFile:
    """A file written in the Dockerfile as a heredoc. *expand* tells whether variables in *text* are replaced."""

    name: str
    text: str
    expand: bool


@frozen
class InstructionBase:
    """What all instructions have: the node they were made from, which does not count when they are compared."""

    node: Node = field(repr=False, compare=False)

    @property
    def span(self) -> Span:
        """The lines of the instruction with its heredocs."""
        return self.node.span

    @property
    def original(self) -> str:
        """The instruction as in the file, with continuations joined, comments dropped and no heredoc bodies."""
        return self.node.original

    @property
    def comments(self) -> tuple[str, ...]:
        """The comment lines directly above, without their `#`."""
        return self.node.comments


@frozen
class From(InstructionBase):
    """Begins a stage. *name* is in lower case, None when the stage has none."""

    image: str
    platform: str | None = None
    name: str | None = None


@frozen
class Arg(InstructionBase):
    """Declares build arguments: names with their defaults. None means no default, which differs from an empty one."""

    pairs: tuple[tuple[str, str | None], ...]


@frozen
class Env(InstructionBase):
    """Sets variables. *legacy* tells the form `ENV name value` without an equals sign."""

    pairs: tuple[tuple[str, str], ...]
    legacy: bool = False


@frozen
class Label(InstructionBase):
    """Sets labels; as `Env`."""

    pairs: tuple[tuple[str, str], ...]
    legacy: bool = False


@frozen
class Expose(InstructionBase):
    """Ports as written. They are split at blanks again once variables are replaced."""

    ports: tuple[str, ...]


@frozen
class Volume(InstructionBase):
    """Paths of volumes."""

    paths: tuple[str, ...]


@frozen
class User(InstructionBase):
    """`user[:group]`."""

    user: str


@frozen
class Workdir(InstructionBase):
    """The working directory from here on."""

    path: str


@frozen
class StopSignal(InstructionBase):
    """The signal that stops a container."""

    signal: str


@frozen
class Shell(InstructionBase):
    """What shell forms are prefixed with from here on."""

    words: tuple[str, ...]


@frozen
class Maintainer(InstructionBase):
    """The author."""

    name: str


@frozen
class Cmd(InstructionBase):
    """The default command or the default arguments of the entrypoint."""

    command: CommandLine


@frozen
class Entrypoint(InstructionBase):
    """What a container runs."""

    command: CommandLine


@frozen
class Run(InstructionBase):
    """A command to run at build time. *heredocs* are in the order of their markers.

    *script* is the only heredoc when the command is nothing but its marker.
    """

    command: CommandLine
    heredocs: tuple[Heredoc, ...] = ()
    script: Heredoc | None = None
    mounts: tuple[MountFlag, ...] = ()
    network: RunNetwork | None = None
    security: RunSecurity = "sandbox"
    devices: tuple[Device, ...] = ()

    @property
    def program(self) -> Heredoc | None:
        """The script when it names its own interpreter with `#!`: it becomes a file that is executed."""
        return self.script if self.script is not None and self.script.body.startswith("#!") else None

    @property
    def shell_text(self) -> str:
        """The one argument for the shell: the script, or the command with its heredocs put together again.

        Only for the shell form, and not for a `program`.
        """
        if self.script is not None:
            return self.script.text
        return "".join([self.command.words[0], *[f"\n{heredoc.body}{heredoc.name}" for heredoc in self.heredocs]])


@frozen
class FileInstruction(InstructionBase):
    """What COPY and ADD share. *exclude* is never expanded."""

    sources: tuple[str, ...]
    files: tuple[InlineFile, ...] = ()
    destination: str
    chown: str | None = None
    chmod: str | None = None
    link: bool = False
    exclude: tuple[str, ...] = ()


@frozen
class Copy(FileInstruction):
    """Copies files of the context, or of *from_*: a stage, an image or a named context."""

    from_: str | None = None
    parents: bool = False


@frozen
class Add(FileInstruction):
    """Adds files, archives, files from the network and git checkouts. *unpack* None decides by the source."""

    checksum: str | None = None
    keep_git_dir: bool | None = None
    unpack: bool | None = None


@frozen
class Healthcheck(InstructionBase):
    """How to tell that a container is well. *test* begins with NONE, CMD or CMD-SHELL; times in nanoseconds."""

    test: tuple[str, ...]
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@frozen
class OnBuild(InstructionBase):
    """An instruction for the children of the image.

    *text* is what the image config stores, with heredoc bodies. *instruction* is the same, read, for stages of this
    file that derive from the stage.
    """

    text: str
    instruction: Instruction


Instruction = (
    From
    | Arg
    | Env
    | Label
    | Expose
    | Volume
    | User
    | Workdir
    | StopSignal
    | Shell
    | Maintainer
    | Cmd
    | Entrypoint
    | Run
    | Copy
    | Add
    | Healthcheck
    | OnBuild
)
"""Any instruction."""


def parse_instruction(node: Node) -> Instruction:
    """Give a node its meaning.

    Raises:
        DockerfileError: the keyword is unknown, or the flags or arguments are not what the instruction takes.

    Source: Dockerfile reference; moby/buildkit, frontend/dockerfile/instructions/parse.go.
    """
    parse = _PARSERS.get(node.keyword)
    if parse is None:
        from builder.dockerfile.suggest import did_you_mean  # noqa: PLC0415  (only for typing errors)

        keyword = node.keyword_word.text
        raise DockerfileError(
            f"unknown instruction: {shorten(keyword)}{did_you_mean(keyword, KEYWORDS)}",
            hint="a line that belongs to the instruction above needs an escape character at the end of that one",
            span=node.line.span_of(node.keyword_word),
        )
    return parse(_Reader(node))


def parse_on_build(text: str, *, name: str = "ONBUILD", directives: Directives | None = None) -> Instruction:
    r"""Read a trigger as an image config stores it.

    Args:
        text: one instruction, with its heredoc bodies.
        name: what errors call the text, for instance the name of the image.
        directives: those of the Dockerfile it came from, when known; else the escape character is the backslash.

    Raises:
        DockerfileError: the text is no instruction, more than one, or one that no trigger can be.
    """
    source = SourceFile(name, text)
    instructions = [parse_instruction(node) for node in parse_nodes(source, directives=directives)]
    if len(instructions) != 1:
        raise DockerfileError(
            f"onbuild trigger should be a single instruction: `{shorten(text)}`",
            hint="build the base image again",
            span=_whole(source),
        )
    _refuse_trigger(instructions[0], instructions[0].span)
    return instructions[0]


def parse_duration(text: str) -> int:
    """Return the nanoseconds of a duration in the syntax of Go, such as `1m30s` or `1.5h`.

    Raises:
        ValueError: *text* is no duration; the message is Go's.

    Source: Go, package time, ParseDuration.
    """
    unsigned = text[1:] if text[:1] in {"+", "-"} else text
    if unsigned == "0":
        return 0
    total, position = 0, 0
    while match := re.compile(_DURATION_PART).match(unsigned, position):
        whole, fraction, unit = match.groups()
        if not whole and not fraction:
            break
        if not unit:
            raise ValueError(f'time: missing unit in duration "{shorten(text)}"')
        scale = _DURATION_UNITS.get(unit)
        if scale is None:
            raise ValueError(f'time: unknown unit "{shorten(unit)}" in duration "{shorten(text)}"')
        digits = (fraction or "")[:18]
        if len(whole) > 20:
            break
        total += int(whole or "0") * scale + (int(digits) * scale // 10 ** len(digits) if digits else 0)
        position = match.end()
        if position == len(unsigned) and total < 2**63:
            return -total if text.startswith("-") else total
    raise ValueError(f'time: invalid duration "{shorten(text)}"')


_DURATION_PART = r"([0-9]*+)(?:\.([0-9]*+))?+([^0-9.]*+)"
_DURATION_UNITS = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,
    "\u03bcs": 1_000,
    "ms": _MILLISECOND,
    "s": 1_000 * _MILLISECOND,
    "m": 60_000 * _MILLISECOND,
    "h": 3_600_000 * _MILLISECOND,
}


class _Reader:
    """A node with its flags, and the errors and shapes that instructions share."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.name = node.keyword.upper()
        self.flags: Flags = parse_flags(node)

    def error(self, message: str, hint: str | None, word: Word | None = None) -> DockerfileError:
        span = self.node.span if word is None else self.node.line.span_of(word)
        return DockerfileError(message, hint=hint, span=span)

    @property
    def rest_word(self) -> Word:
        return Word(self.node.rest, self.node.rest_start, self.node.end)

    def one_argument(self, example: str) -> str:
        """Return the whole rest, which must not be empty."""
        if not self.node.rest:
            raise self.error(f"{self.name} requires exactly one argument", f"write {self.name} {example}")
        return self.node.rest

    def need_arguments(self, example: str) -> None:
        if not self.node.rest:
            raise self.error(f"{self.name} requires at least one argument", f"write {self.name} {example}")

    def json_array(self, text: str) -> tuple[str, ...] | None:
        """Return the strings of a JSON array, or None when *text* is none."""
        values = parse_json_array(text)
        if values is None:
            return None
        words: list[str] = []
        for value in values:
            if not isinstance(value, str):
                raise self.error(
                    "when using JSON array syntax, arrays must be comprised of strings only",
                    "put every member in double quotes",
                    self.rest_word,
                )
            if "\0" in value:
                raise self.error("an argument cannot hold a zero byte", "remove the \\u0000", self.rest_word)
            words.append(re.sub(_LONE_SURROGATE, "\ufffd", value))
        return tuple(words)

    def command(self, text: str) -> CommandLine:
        words = self.json_array(text)
        return (
            CommandLine(words=(text,), shell_form=True) if words is None else CommandLine(words=words, shell_form=False)
        )

    def pairs(self) -> tuple[tuple[tuple[str, str], ...], bool]:
        """Return the pairs of ENV or LABEL, and whether the form is the legacy one."""
        self.need_arguments("name=value")
        words = split_quoted_words(self.node)
        if words and "=" not in words[0].text:
            parts = re.split(_LEGACY_SPLIT, self.node.rest, maxsplit=1)
            if len(parts) < 2:
                raise self.error(
                    f"{self.name} must have two arguments", f"write {self.name} name=value", self.rest_word
                )
            return ((parts[0], parts[1]),), True
        pairs: list[tuple[str, str]] = []
        for word in words:
            key, equals, value = word.text.partition("=")
            if not equals:
                raise self.error(
                    f'syntax error - can\'t find = in "{shorten(key)}". Must be of the form: name=value',
                    "put a value with blanks in double quotes",
                    word,
                )
            if not key:
                raise self.error(f"{self.name} names can not be blank", "write a name before the =", word)
            pairs.append((key, value))
        if not pairs:
            raise self.error(f"{self.name} requires at least one argument", f"write {self.name} name=value")
        return tuple(pairs), False


def _parse_from(reader: _Reader) -> From:
    words = split_words(reader.node)
    name: str | None = None
    if len(words) == 3 and words[1].text.lower() == "as":
        name = words[2].text.lower()
        if not re.fullmatch(_STAGE_NAME, name):
            raise reader.error(
                f'invalid name for build stage: "{shorten(words[2].text)}",'
                " name can't start with a number or contain symbols",
                "use letters, digits, `-`, `_` and `.`, a letter first",
                words[2],
            )
    elif len(words) != 1:
        raise reader.error("FROM requires either one or three arguments", "write FROM image, or FROM image AS name")
    return From(node=reader.node, image=words[0].text, platform=reader.flags.text("platform"), name=name)


def _parse_arg(reader: _Reader) -> Arg:
    reader.need_arguments("name or ARG name=default")
    pairs: list[tuple[str, str | None]] = []
    for word in split_quoted_words(reader.node):
        key, equals, value = word.text.partition("=")
        if not key:
            raise reader.error("ARG names can not be blank", "write a name before the =", word)
        pairs.append((key, value if equals else None))
    if not pairs:
        raise reader.error("ARG requires at least one argument", "write ARG name")
    return Arg(node=reader.node, pairs=tuple(pairs))


def _parse_env(reader: _Reader) -> Env:
    pairs, legacy = reader.pairs()
    return Env(node=reader.node, pairs=pairs, legacy=legacy)


def _parse_label(reader: _Reader) -> Label:
    pairs, legacy = reader.pairs()
    return Label(node=reader.node, pairs=pairs, legacy=legacy)


def _parse_expose(reader: _Reader) -> Expose:
    reader.need_arguments("80")
    return Expose(node=reader.node, ports=tuple([word.text for word in split_words(reader.node)]))


def _parse_volume(reader: _Reader) -> Volume:
    paths = reader.json_array(reader.node.rest)
    if paths is None:
        paths = tuple([word.text for word in split_words(reader.node)])
    if not paths:
        raise reader.error("VOLUME requires at least one argument", "write VOLUME /path")
    stripped = tuple([path.strip() for path in paths])
    if "" in stripped:
        raise reader.error("VOLUME specified can not be an empty string", "remove the empty member", reader.rest_word)
    return Volume(node=reader.node, paths=stripped)


def _parse_shell(reader: _Reader) -> Shell:
    words = reader.json_array(reader.node.rest)
    if words is None and reader.node.rest:
        raise reader.error(
            "SHELL requires the arguments to be in JSON form", 'write SHELL ["/bin/sh", "-c"]', reader.rest_word
        )
    if not words:
        raise reader.error("SHELL requires at least one argument", 'write SHELL ["/bin/sh", "-c"]')
    return Shell(node=reader.node, words=words)


def _parse_cmd(reader: _Reader) -> Cmd:
    reader.need_arguments('["program"]')
    return Cmd(node=reader.node, command=reader.command(reader.node.rest))


def _parse_entrypoint(reader: _Reader) -> Entrypoint:
    reader.need_arguments('["program"]')
    return Entrypoint(node=reader.node, command=reader.command(reader.node.rest))


def _parse_run(reader: _Reader) -> Run:
    reader.need_arguments("command")
    node, flags = reader.node, reader.flags
    command = reader.command(node.rest)
    if not command.words:
        raise reader.error("RUN requires at least one argument", "write RUN command", reader.rest_word)
    first = node.heredocs[0] if node.heredocs else None
    alone = first is not None and (first.word.start, first.word.end) == (node.rest_start, node.end)
    network = flags.find("network")
    security = flags.find("security")
    return Run(
        node=node,
        command=command,
        heredocs=node.heredocs,
        script=first if alone else None,
        mounts=_parse_mounts(reader, flags.all("mount")),
        network=_choose(reader, network, _NETWORKS, 'invalid network mode "{}"') if network else None,
        security=_choose(reader, security, _SECURITIES, 'security "{}" is not valid') if security else "sandbox",
        devices=_parse_devices(reader, flags.all("device")),
    )


def _parse_mounts(reader: _Reader, words: tuple[Word, ...]) -> tuple[MountFlag, ...]:
    if not words:
        return ()
    from builder.dockerfile.mounts import parse_mount  # noqa: PLC0415  start-up: most files have no mounts

    return tuple([parse_mount(word.text, reader.node.line.span_of(word)) for word in words])


def _parse_devices(reader: _Reader, words: tuple[Word, ...]) -> tuple[Device, ...]:
    if not words:
        return ()
    from builder.dockerfile.mounts import parse_device  # noqa: PLC0415  as above

    return tuple([parse_device(word.text, reader.node.line.span_of(word)) for word in words])


def _parse_copy(reader: _Reader) -> Copy:
    sources, files, destination = _parse_paths(reader)
    flags = reader.flags
    from_ = flags.find("from")
    if from_ is not None and "$" in from_.text:
        raise reader.error(
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope"
            " as a workaround",
            "add `FROM ${...} AS name` and write --from=name",
            from_,
        )
    return Copy(
        node=reader.node,
        sources=sources,
        files=files,
        destination=destination,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.boolean("link") or False,
        exclude=tuple([word.text for word in flags.all("exclude")]),
        from_=from_.text if from_ else None,
        parents=flags.boolean("parents") or False,
    )


def _parse_add(reader: _Reader) -> Add:
    sources, files, destination = _parse_paths(reader)
    flags = reader.flags
    return Add(
        node=reader.node,
        sources=sources,
        files=files,
        destination=destination,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.boolean("link") or False,
        exclude=tuple([word.text for word in flags.all("exclude")]),
        checksum=flags.text("checksum"),
        keep_git_dir=flags.boolean("keep-git-dir"),
        unpack=flags.boolean("unpack"),
    )


def _parse_paths(reader: _Reader) -> tuple[tuple[str, ...], tuple[InlineFile, ...], str]:
    """Return the sources, the inline files and the destination of COPY or ADD."""
    node = reader.node
    words = reader.json_array(node.rest)
    last_is_heredoc = False
    if words is None:
        words = _words_between(node)
        last_is_heredoc = bool(node.heredocs) and node.heredocs[-1].word.end == node.end
    if last_is_heredoc:
        raise reader.error(
            f"{reader.name} cannot accept a heredoc as a destination",
            "write the path of the destination last",
            node.heredocs[-1].word,
        )
    if len(words) + len(node.heredocs) < 2:
        raise reader.error(
            f"{reader.name} requires at least two arguments, but only {'one' if words else 'none'} was provided."
            " Destination could not be determined",
            f"write {reader.name} source destination",
        )
    files = tuple([InlineFile(name=doc.name, text=doc.text, expand=doc.expand) for doc in node.heredocs])
    return words[:-1], files, words[-1]


def _words_between(node: Node) -> tuple[str, ...]:
    """Return the words of the rest that are no heredoc markers, which may hold blanks."""
    words: list[str] = []
    marks = iter(node.heredocs)
    mark = next(marks, None)
    for word in split_words(node):
        while mark is not None and mark.word.end <= word.start:
            mark = next(marks, None)
        if mark is None or word.end <= mark.word.start:
            words.append(word.text)
    return tuple(words)


def _parse_healthcheck(reader: _Reader) -> Healthcheck:
    reader.need_arguments("CMD command")
    words = split_words(reader.node)
    kind = words[0].text.upper()
    text = reader.node.rest[len(words[0].text) :].lstrip(BLANKS)
    if kind == "NONE":
        if text:
            raise reader.error("HEALTHCHECK NONE takes no arguments", "remove what follows NONE", words[1])
        return Healthcheck(node=reader.node, test=("NONE",))
    if kind != "CMD":
        raise reader.error(f'unknown type "{shorten(kind)}" in HEALTHCHECK (try CMD)', "write CMD or NONE", words[0])
    command = reader.command(text)
    if not text or not command.words:
        raise reader.error("missing command after HEALTHCHECK CMD", "write the command behind CMD", words[0])
    return Healthcheck(
        node=reader.node,
        test=("CMD-SHELL" if command.shell_form else "CMD", *command.words),
        interval_ns=_interval(reader, "interval"),
        timeout_ns=_interval(reader, "timeout"),
        start_period_ns=_interval(reader, "start-period"),
        start_interval_ns=_interval(reader, "start-interval"),
        retries=_retries(reader),
    )


def _parse_on_build(reader: _Reader) -> OnBuild:
    trigger = reader.node.trigger
    if trigger is None:
        raise reader.error("ONBUILD requires at least one argument", "write ONBUILD RUN command")
    if trigger.keyword == "onbuild":
        raise reader.error(
            "chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", "triggers fire once", trigger.keyword_word
        )
    instruction = parse_instruction(trigger)
    _refuse_trigger(instruction, trigger.line.span_of(trigger.keyword_word))
    text = "".join([trigger.original, *[f"\n{heredoc.body}{heredoc.name}" for heredoc in trigger.heredocs]])
    return OnBuild(node=reader.node, text=text, instruction=instruction)


def _refuse_trigger(instruction: Instruction, span: Span) -> None:
    if isinstance(instruction, OnBuild):
        raise DockerfileError(
            "chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", hint="triggers fire once", span=span
        )
    if isinstance(instruction, From | Maintainer):
        raise DockerfileError(
            f"{instruction.node.keyword.upper()} isn't allowed as an ONBUILD trigger",
            hint="put it into the child's Dockerfile",
            span=span,
        )


def _choose(reader: _Reader, word: Word, choices: tuple[_Choice, ...], message: str) -> _Choice:
    for choice in choices:
        if choice == word.text.lower():
            return choice
    from builder.dockerfile.suggest import did_you_mean  # noqa: PLC0415  (only for typing errors)

    near = did_you_mean(word.text, choices)
    raise reader.error(message.format(shorten(word.text)) + near, f"known values are {', '.join(choices)}", word)


def _interval(reader: _Reader, name: str) -> int:
    word = reader.flags.find(name)
    if word is None:
        return 0
    try:
        nanoseconds = parse_duration(word.text)
    except ValueError as error:
        raise reader.error(str(error), "write a number with a unit, such as 30s or 1m30s", word) from error
    if nanoseconds and nanoseconds < _MILLISECOND:
        raise reader.error(f'interval "{name}" cannot be less than 1ms', "0 means the default of the base image", word)
    return nanoseconds


def _retries(reader: _Reader) -> int:
    word = reader.flags.find("retries")
    if word is None:
        return 0
    match = re.fullmatch(r"([+-]?)([0-9]{1,19})", word.text)
    if match is None or int(match[2]) > _MAX_RETRIES:
        raise reader.error(f'invalid number of retries "{shorten(word.text)}"', "write a whole number", word)
    if match[1] == "-" and int(match[2]):
        raise reader.error(f"--retries cannot be negative ({word.text})", "0 means the default of the base image", word)
    return int(match[2])


def _whole(source: SourceFile) -> Span:
    return Span(source=source, line=1, end_line=max(1, len(source.lines)))


_PARSERS: dict[str, Callable[[_Reader], Instruction]] = {
    "add": _parse_add,
    "arg": _parse_arg,
    "cmd": _parse_cmd,
    "copy": _parse_copy,
    "entrypoint": _parse_entrypoint,
    "env": _parse_env,
    "expose": _parse_expose,
    "from": _parse_from,
    "healthcheck": _parse_healthcheck,
    "label": _parse_label,
    "maintainer": lambda reader: Maintainer(node=reader.node, name=reader.one_argument("name")),
    "onbuild": _parse_on_build,
    "run": _parse_run,
    "shell": _parse_shell,
    "stopsignal": lambda reader: StopSignal(node=reader.node, signal=reader.one_argument("SIGTERM")),
    "user": lambda reader: User(node=reader.node, user=reader.one_argument("name")),
    "volume": _parse_volume,
    "workdir": lambda reader: Workdir(node=reader.node, path=reader.one_argument("/path")),
}

KEYWORDS = tuple([keyword.upper() for keyword in _PARSERS])
"""The names of all instructions, in upper case."""
