r"""Build checks: rules about how a Dockerfile is written that do not stop a build.

A *rule* has a name, a description and a page; a *violation* is a place that breaks one. Which rules count is said by
the directive `# check=skip=…;error=…;experimental=…`, by the build argument BUILDKIT_DOCKERFILE_CHECK, which wins, and
by a comment `# check=skip=Rule` directly above an instruction, for that instruction.

Here are the rules that need only the text; those that need values are told by the plan (`plan.check_values`).

Source: moby/buildkit, frontend/dockerfile/linter and docs/rules; Dockerfile reference, Parser directives, check.
"""

from __future__ import annotations

from builder.dockerfile import instructions as dockerfile
from builder.dockerfile.parser import shorten, split_words
from builder.errors import DockerfileError
from registry.value import frozen, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from builder.dockerfile.stages import Dockerfile, Stage
    from builder.source import Span

    Warn = Callable[[str, str, Span], None]

RULES = {
    "StageNameCasing": "Stage names should be lowercase",
    "FromAsCasing": "The 'as' keyword should match the case of the 'from' keyword",
    "NoEmptyContinuation": "Empty continuation lines will become errors in a future release",
    "ConsistentInstructionCasing": (
        "All commands within the Dockerfile should use the same casing (either upper or lower)"
    ),
    "DuplicateStageName": "Stage names should be unique",
    "ReservedStageName": "Reserved words should not be used as stage names",
    "JSONArgsRecommended": (
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals"
    ),
    "MaintainerDeprecated": ("The MAINTAINER instruction is deprecated, use a label instead to define an image author"),
    "UndefinedArgInFrom": "FROM command must use declared ARGs",
    "WorkdirRelativePath": (
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the "
        "base image changes"
    ),
    "UndefinedVar": "Variables should be defined before their use",
    "MultipleInstructionsDisallowed": "Multiple instructions of the same type should not be used in the same stage",
    "LegacyKeyValueFormat": "Legacy key/value format with whitespace separator should not be used",
    "InvalidBaseImagePlatform": "Base image platform does not match expected target platform",
    "RedundantTargetPlatform": (
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"
    ),
    "SecretsUsedInArgOrEnv": "Sensitive data should not be used in the ARG or ENV commands",
    "InvalidDefaultArgInFrom": "Default value for global ARG results in an empty or invalid base image name",
    "FromPlatformFlagConstDisallowed": "FROM --platform flag should not use a constant value",
    "CopyIgnoredFile": "Attempting to Copy file that is excluded by .dockerignore",
    "InvalidDefinitionDescription": (
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is "
        "not intended to be a description comment, add an empty line or comment between the instruction and the "
        "comment."
    ),
    "ExposeProtoCasing": "Protocol in EXPOSE instruction should be lowercase",
    "ExposeInvalidFormat": (
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a "
        "future release"
    ),
}
"""The rules by name, each with what it asks for."""

EXPERIMENTAL = frozenset({"InvalidDefinitionDescription"})
"""Rules that count only where `experimental` names them."""

CHECK_ARG = "BUILDKIT_DOCKERFILE_CHECK"
"""The build argument that replaces the directive."""

RESERVED_STAGE_NAMES = frozenset({"context", "scratch"})

_PAGES = "https://docs.docker.com/go/dockerfile/rule/"
_ALL = "all"
_TRUE = frozenset({"1", "t", "true"})
_FALSE = frozenset({"0", "f", "false"})
_SECRET_WORDS = frozenset(
    {"apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"}
)
_HARMLESS_WORDS = frozenset({"public", "file", "version"})


class LintError(DockerfileError):
    """A Dockerfile breaks rules that its `error=true` makes binding."""

    id = "dockerfile.lint"


@frozen(kw_only=False)
class Violation:
    """A place that breaks a rule."""

    rule: str
    message: str
    span: Span

    @property
    def summary(self) -> str:
        """The violation in one line, as at the end of a build."""
        return f"{self.rule}: {self.message} (line {self.span.line})"


@frozen(kw_only=False)
class CheckOptions:
    """Which rules count. *skip* and *experimental* are names of rules, or the word `all`."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False

    def is_on(self, rule: str) -> bool:
        """Tell whether violations of *rule* are reported."""
        if _ALL in self.skip or rule in self.skip:
            return False
        return rule not in EXPERIMENTAL or _ALL in self.experimental or rule in self.experimental


def rule_url(rule: str) -> str:
    """Return the address of the page about a rule."""
    import re  # noqa: PLC0415  only where a rule is broken

    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", rule)
    return f"{_PAGES}{words.lower()}/"


def parse_check_options(text: str, span: Span | None = None) -> CheckOptions:
    """Read `skip=A,B;error=true;experimental=C`.

    Raises:
        DockerfileError: a part is unknown or has no value, or there are more than three.
    """
    options = CheckOptions()
    parts = text.strip().split(";") if text.strip() else []
    if len(parts) > 3:
        raise _invalid_option(text, span)
    for part in parts:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        names = frozenset(name.strip() for name in value.split(","))
        match key if equals else "":
            case "skip":
                options = replace(options, skip=names)
            case "experimental":
                options = replace(options, experimental=names)
            case "error" if value.lower() in _TRUE | _FALSE:
                options = replace(options, error=value.lower() in _TRUE)
            case _:
                raise _invalid_option(part, span)
    return options


class Linter:
    """Collects the violations of one Dockerfile that its options let count.

    Args:
        source: the Dockerfile.
        override: the value of BUILDKIT_DOCKERFILE_CHECK, which replaces the directive.

    Raises:
        DockerfileError: the options cannot be read.
    """

    def __init__(self, source: Dockerfile, override: str | None = None) -> None:
        self.violations: list[Violation] = []
        self._source = source.source
        directive = source.directives.check
        span = None if override is not None else _directive_span(source)
        self.options = parse_check_options(override if override is not None else directive or "", span)
        self._skipped = dict(_find_skipped(source))

    def warn(self, rule: str, message: str, span: Span) -> None:
        """Note that *rule* is broken at *span*; the same once. Triggers of base images are not ours to check."""
        if span.source is not self._source or not self.options.is_on(rule):
            return
        if self._skipped.get(span.line, frozenset()) & {rule, _ALL}:
            return
        violation = Violation(rule, message, span)
        if violation not in self.violations:
            self.violations.append(violation)

    def sorted(self) -> tuple[Violation, ...]:
        """Return the violations in the order of the file."""
        return tuple(sorted(self.violations, key=lambda violation: violation.span.line))

    def raise_if_binding(self) -> None:
        """Refuse the build if rules are broken and the options say `error=true`.

        Raises:
            LintError: that is so.
        """
        if self.options.error and self.violations:
            names = ", ".join(dict.fromkeys(violation.rule for violation in self.sorted()))
            raise LintError(
                f"lint violation found for rules: {names}",
                hint="repair the lines above, or say skip= in the check directive",
                span=self.sorted()[0].span,
            )


def check_dockerfile(source: Dockerfile, warn: Warn) -> None:
    """Tell *warn* where *source* breaks the rules that need nothing but its text."""
    _check_keyword_casing(source, warn)
    seen: set[str] = set()
    for stage in source.stages:
        _check_from(stage, seen, warn)
        _check_repeated(stage, warn)
        for instruction in stage.instructions:
            _check_instruction(instruction, warn)
    for instruction in _instructions(source):
        if instruction.node.empty_lines:
            warn("NoEmptyContinuation", "Empty continuation line", _line_span(instruction))
        if isinstance(instruction, dockerfile.Arg):
            names = [name for name, _ in instruction.pairs]
            _check_description(instruction, "ARG", names, warn)
            _check_secrets("ARG", instruction, names, warn)


def is_secret_name(name: str) -> bool:
    """Tell whether an argument or variable of this name is likely to hold a secret."""
    words = frozenset(name.lower().split("_"))
    return bool(words & _SECRET_WORDS) and not words & _HARMLESS_WORDS


def find_description(comments: Sequence[str], name: str) -> str:
    """Return what a comment `# name text` above a definition says about it, or the empty string."""
    return next((line.removeprefix(f"{name} ") for line in comments if line.startswith(f"{name} ")), "")


def _check_from(stage: Stage, seen: set[str], warn: Warn) -> None:
    base = stage.base
    words = [word.text for word in split_words(base.node)]
    if stage.name is None or len(words) != 3:
        return
    written = words[2]
    keyword = base.node.keyword_word.text
    if written != written.lower():
        warn("StageNameCasing", f"Stage name '{written}' should be lowercase", base.span)
    expected = keyword.lower() if keyword.islower() else keyword.upper()
    if keyword == expected and words[1] != ("as" if keyword.islower() else "AS"):
        warn("FromAsCasing", f"'{words[1]}' and '{keyword}' keywords' casing do not match", base.span)
    if stage.name in RESERVED_STAGE_NAMES:
        message = f'Stage name should not use the same name as reserved stage "{stage.name}"'
        warn("ReservedStageName", message, base.span)
    if stage.name in seen:
        message = f'Duplicate stage name "{stage.name}", stage names should be unique'
        warn("DuplicateStageName", message, base.span)
    seen.add(stage.name)
    _check_description(base, "FROM", [stage.name], warn)


def _check_repeated(stage: Stage, warn: Warn) -> None:
    """Report every CMD, ENTRYPOINT and HEALTHCHECK that a later one of its stage replaces."""
    before: dict[type, dockerfile.Instruction] = {}
    for instruction in stage.instructions:
        if not isinstance(instruction, dockerfile.Cmd | dockerfile.Entrypoint | dockerfile.Healthcheck):
            continue
        earlier = before.get(type(instruction))
        if earlier is not None:
            message = (
                f"Multiple {earlier.node.keyword_word.text} instructions should not be used in the same stage because "
                "only the last one will be used"
            )
            warn("MultipleInstructionsDisallowed", message, earlier.span)
        before[type(instruction)] = instruction


def _check_instruction(instruction: dockerfile.Instruction, warn: Warn) -> None:
    match instruction:
        case dockerfile.Maintainer():
            message = "Maintainer instruction is deprecated in favor of using label"
            warn("MaintainerDeprecated", message, instruction.span)
        case dockerfile.Env() | dockerfile.Label():
            name = instruction.node.keyword_word.text
            if instruction.legacy:
                message = f'"{name} key=value" should be used instead of legacy "{name} key value" format'
                warn("LegacyKeyValueFormat", message, instruction.span)
            if isinstance(instruction, dockerfile.Env):
                _check_secrets("ENV", instruction, [key for key, _ in instruction.pairs], warn)
        case _:
            pass


def _check_secrets(keyword: str, instruction: dockerfile.Instruction, names: Sequence[str], warn: Warn) -> None:
    for name in names:
        if is_secret_name(name):
            message = f'Do not use ARG or ENV instructions for sensitive data ({keyword} "{name}")'
            warn("SecretsUsedInArgOrEnv", message, instruction.span)


def _check_description(
    instruction: dockerfile.From | dockerfile.Arg, keyword: str, names: Sequence[str], warn: Warn
) -> None:
    comments = [line for line in instruction.comments if _options_above(line) is None]
    if comments and comments[-1].partition(" ")[0] not in names:
        example = names[0] if len(names) == 1 else "<arg_key>"
        message = f"Comment for {keyword} should follow the format: `# {example} <description>`"
        warn("InvalidDefinitionDescription", message, instruction.span)


def _check_keyword_casing(source: Dockerfile, warn: Warn) -> None:
    """Report keywords that are not written as most others are; where lower and upper case are level, upper wins."""
    written = [(instruction.node.keyword_word.text, instruction.span) for instruction in _instructions(source)]
    lower = sum(keyword.islower() for keyword, _ in written)
    upper = sum(keyword.isupper() for keyword, _ in written)
    casing = "lowercase" if lower > upper else "uppercase"
    for keyword, span in written:
        if keyword != (keyword.lower() if lower > upper else keyword.upper()):
            message = f"Command '{keyword}' should match the case of the command majority ({casing})"
            warn("ConsistentInstructionCasing", message, span)


def _instructions(source: Dockerfile) -> Iterator[dockerfile.Instruction]:
    """Yield all instructions in the order of the file."""
    yield from source.meta_args
    for stage in source.stages:
        yield stage.base
        yield from stage.instructions


def _find_skipped(source: Dockerfile) -> Iterator[tuple[int, frozenset[str]]]:
    """Yield the lines of instructions that a comment frees from rules, with the names of these."""
    if "check" not in source.source.text:
        return
    for instruction in _instructions(source):
        for comment in instruction.comments:
            options = _options_above(comment)
            if options is not None and options.startswith("skip"):
                yield instruction.span.line, parse_check_options(options, instruction.span).skip


def _options_above(comment: str) -> str | None:
    """Return the options in a comment `check=…`, or None if it is another one."""
    key, equals, options = comment.partition("=")
    return options.strip() if equals and key.strip() == "check" else None


def _line_span(instruction: dockerfile.Instruction) -> Span:
    from registry.value import replace  # noqa: PLC0415  only for a rule that is broken

    line = instruction.node.empty_lines[0]
    return replace(instruction.span, line=line, end_line=line)


def _directive_span(source: Dockerfile) -> Span:
    from builder.source import Span as Place  # noqa: PLC0415  only a type elsewhere

    lines = source.source.lines[: source.directives.line_count]
    number = next((number for number, line in enumerate(lines, 1) if "check" in line), 1)
    return Place(source=source.source, line=number, end_line=number)


def _invalid_option(text: str, span: Span | None) -> DockerfileError:
    return DockerfileError(
        f"invalid check option `{shorten(text.strip())}`",
        hint="write skip=RULE,RULE;error=true;experimental=RULE, rules by name or all",
        span=span,
    )
