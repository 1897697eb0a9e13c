"""The command line: its verbs, and the parser that each has with options of its own.

Spelling follows `docker` and `docker buildx`. Only the parser of the chosen verb is made, and nothing slow is
imported here: `--help` has to be quick. Options that are planned but not there yet are refused by name, never ignored.
"""

from __future__ import annotations

import argparse
import re

from builder.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Final, NoReturn


VERBS: Final[Mapping[str, str]] = {
    "build": "Build an image from a Dockerfile",
    "bake": "Build the targets of a compose file or bake file",
    "run": "Run a command in an image",
    "images": "List images",
    "pull": "Pull images from a registry",
    "push": "Push images to a registry",
    "tag": "Give an image another name",
    "rmi": "Remove names of images, and images without names",
    "inspect": "Show the details of images as JSON",
    "history": "Show how an image came to be",
    "save": "Write images to a tar archive",
    "load": "Read images from a tar archive",
    "import": "Make an image from the tar of a root filesystem",
    "login": "Store the credentials of a registry",
    "logout": "Forget the credentials of a registry",
    "prune": "Remove what is no longer needed",
    "df": "Show what the store holds and its size",
    "doctor": "Tell what this machine allows, and what would help",
    "kaniko": "Build with the flags of kaniko's executor",
}
"""The verbs and what each does, in the order of the help."""

_LATER: Final[Mapping[str, frozenset[str]]] = {
    "build": frozenset(
        [
            "--cgroup-parent",
            "--resource",
            "--memory",
            "-m",
            "--memory-swap",
            "--cpu-shares",
            "-c",
            "--cpu-period",
            "--cpu-quota",
            "--cpuset-cpus",
            "--cpuset-mems",
            "--policy",
            "--squash",
            "--authfile",
        ]
    ),
    "run": frozenset(
        [
            "-d",
            "--detach",
            "--name",
            "-p",
            "--publish",
            "--mount",
            "--memory",
            "-m",
            "--cpus",
            "--gpus",
            "--privileged",
            "--cap-add",
            "--cap-drop",
            "--init",
            "--restart",
            "--device",
            "--security-opt",
            "--read-only",
            "--tmpfs",
        ]
    ),
}
"""Options that other tools have and scripts may carry: refused as not supported yet."""

_SYNONYMS: Final[Mapping[str, str]] = {
    "--dockerfile": "--file",
    "--destination": "--tag",
    "--nocache": "--no-cache",
    "--no-push": "--output type=image",
    "--tarPath": "--output type=docker,dest=FILE",
    "--tar-path": "--output type=docker,dest=FILE",
    "--insecure": "--insecure-registry HOST",
    "--image-name-with-digest-file": "--metadata-file FILE",
    "--digest-file": "--metadata-file FILE",
    "--layers": "nothing: steps are always cached",
}
"""What other builders call an option of ours."""

SWITCH_VALUES: Final = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
"""What Go's tools take for a switch, in lower case."""

_LONE_VALUE = r"[a-z][a-z-]*="
"""How the value of an option that may stand alone begins, unless it is that of a switch."""

_HELP_WIDTH = 100
_HELP_COLUMN = 32


Container = argparse._ActionsContainer  # noqa: SLF001
"""What options are added to: a parser, or a group of its options."""


class HelpRequest(Exception):  # noqa: N818  (not an error)
    """Somebody asked for help; *text* is it, ended by a newline."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class _HelpAction(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        raise HelpRequest(parser.format_help())


class _Formatter(argparse.HelpFormatter):
    """argparse makes one to check each option; with a width given, that loads no module to ask for the terminal's."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_HELP_WIDTH)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UsageError` and prints help as docker does.

    Args:
        verb: the word after `pybuild`.
        usage: what follows the verb in the usage line.
        examples: command lines for the end of the help.
    """

    def __init__(self, verb: str, usage: str, *, examples: Sequence[str] = ()) -> None:
        super().__init__(
            prog=f"pybuild {verb}",
            description=VERBS[verb],
            formatter_class=_Formatter,
            add_help=False,
            allow_abbrev=False,
        )
        self.verb = verb
        self._usage_text = usage
        self._examples = examples
        self._remainder = False
        self._lone: set[str] = set()

    def add_common(self, *, root: bool = True) -> None:
        """Add the options every verb has; called last, so that they stand last in the help."""
        group = self.add_argument_group("Common options")
        if root:
            group.add_argument("--root", metavar="DIR", help="Folder of the store (default: $PYBUILD_ROOT, …)")
        group.add_argument("-h", "--help", action=_HelpAction, nargs=0, help="Show this help")

    def add_lone(self, container: Container, name: str, **settings: Any) -> None:
        """Add an option whose value may be left out, which then is `true`."""
        self._lone.add(name)
        container.add_argument(name, **settings)

    def add_remainder(self, name: str, **settings: Any) -> None:
        """Add a positional that takes everything after the first positional, options included."""
        self._remainder = True
        self.add_argument(name, nargs=argparse.REMAINDER, **settings)

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse *argv*, the words after the verb.

        Raises:
            UsageError: an unknown option, a missing or surplus word, a bad value.
            HelpRequest: `--help` is among them.
        """
        words = list(argv) if self._remainder else list(self._settle_switches(argv))
        arguments, rest = self.parse_known_args(words)
        for word in rest:
            if word.startswith("-") and word != "-":
                raise self._unknown_option(word)
        if rest:
            hint = f"{self._usage_line()}; an option's value may need quotes"
            raise UsageError(f"surplus argument for `{self.prog}`: `{rest[0]}`", hint=hint)
        arguments.verb = self.verb
        return arguments

    def error(self, message: str) -> NoReturn:
        """Turn a message of argparse into a `UsageError`."""
        if message.startswith("the following arguments are required: "):
            missing = message.partition(": ")[2]
            raise UsageError(f"`{self.prog}` needs {missing}", hint=self._usage_line())
        if message.startswith("argument "):
            names, _, reason = message.removeprefix("argument ").partition(": ")
            option = names.rpartition("/")[2]
            unknown = reason.removeprefix("ignored explicit argument ").strip("'")
            if unknown != reason:
                raise UsageError(f"option {option} takes no value: `{unknown}`", hint=f"see `{self.prog} --help`")
            reason = reason.replace("expected one argument", "a value is missing")
            raise UsageError(f"option {option}: {reason}", hint=f"see `{self.prog} --help`")
        raise UsageError(message, hint=f"see `{self.prog} --help`")

    def format_help(self) -> str:
        """Return the help in docker's form."""
        parts = [f"Usage:  {self._usage_text_line()}\n\n{self.description}\n"]
        for group in self._action_groups:
            options = [a for a in group._group_actions if a.option_strings and a.help != argparse.SUPPRESS]  # noqa: SLF001
            if options:
                title = "Options" if group.title in {"options", "optional arguments"} else group.title
                parts.append(f"\n{title}:\n" + "".join(_format_option(option) for option in options))
        if self._examples:
            parts.append("\nExamples:\n" + "".join(f"  {example}\n" for example in self._examples))
        return "".join(parts)

    def _usage_text_line(self) -> str:
        return f"{self.prog} [OPTIONS] {self._usage_text}".rstrip()

    def _usage_line(self) -> str:
        return f"usage: {self._usage_text_line()}"

    def _settle_switches(self, argv: Sequence[str]) -> Iterable[str]:
        """Yield *argv* with `--switch=true` as `--switch` and without `--switch=false`, which Go's tools allow.

        An option that may stand alone takes the next word only if that reads like a value of it: `--sbom .` is an
        option and a context.
        """
        switches = {
            name
            for action in self._actions
            if action.nargs == 0 and action.dest != "help"
            for name in action.option_strings
        }
        words = iter(argv)
        for position, word in enumerate(words, start=1):
            if word == "--":
                yield word
                break
            if word in self._lone:
                after = argv[position] if position < len(argv) else ""
                yield word if after.lower() in SWITCH_VALUES or re.match(_LONE_VALUE, after) else f"{word}=true"
                continue
            name, equals, value = word.partition("=")
            if equals and name in switches and name.startswith("--") and value.lower() in SWITCH_VALUES:
                if SWITCH_VALUES[value.lower()]:
                    yield name
                continue
            yield word
        yield from words

    def _unknown_option(self, word: str) -> UsageError:
        name = word.partition("=")[0]
        if not name.startswith("--"):
            name = name[:2]
        if name in _LATER.get(self.verb, ()):
            return UsageError(f"option of `{self.prog}` is not supported yet: `{name}`")
        hint = f"see `{self.prog} --help`"
        if self.verb == "build" and name in _SYNONYMS:
            hint = f"pybuild calls it {_SYNONYMS[name]}"
        else:
            from builder.dockerfile.suggest import nearest  # noqa: PLC0415  (only for typing errors)

            near = nearest(name, [option for option in self._option_string_actions if option.startswith("--")])
            if near is not None:
                hint = f"did you mean {near}?"
        return UsageError(f"unknown option of `{self.prog}`: `{name}`", hint=hint)


def _format_option(action: argparse.Action) -> str:
    from textwrap import wrap  # noqa: PLC0415  (only for help)

    short = next((name for name in action.option_strings if not name.startswith("--")), None)
    long = next((name for name in action.option_strings if name.startswith("--")), "")
    names = f"  {f'{short},' if short and long else short or '   '} {long}".rstrip()
    if action.nargs != 0:
        names += f" {action.metavar or action.dest.upper()}"
    lines = wrap(action.help or "", _HELP_WIDTH - _HELP_COLUMN, break_long_words=False) or [""]
    if len(names) + 2 > _HELP_COLUMN:
        lines.insert(0, names)
    else:
        lines[0] = f"{names:<{_HELP_COLUMN}}{lines[0]}"
    return "".join(line.rstrip() + "\n" for line in (lines[0], *(" " * _HELP_COLUMN + line for line in lines[1:])))


def format_overview() -> str:
    """Return the help of `pybuild` itself."""
    verbs = "".join(f"  {verb:<12}{summary}\n" for verb, summary in VERBS.items())
    return (
        "Usage:  pybuild [VERB] [OPTIONS] [ARGUMENTS]\n\n"
        "Build OCI images from Dockerfiles: no daemon, no root. Without a verb it builds.\n\n"
        f"Verbs:\n{verbs}"
        "\nOptions:\n"
        "      --root DIR  Folder of the store (default: $PYBUILD_ROOT, $XDG_DATA_HOME/pybuild,\n"
        "                  ~/.local/share/pybuild, and /var/lib/pybuild for root)\n"
        "      --version   Show the version\n"
        "  -h, --help      Show this help\n"
        "\nExamples:\n"
        "  pybuild --context . --tag myhelloworld:1.0\n"
        "  pybuild run myhelloworld:1.0 Alice\n"
        "\n`pybuild help VERB` tells more about a verb.\n"
    )


def parser_for(verb: str) -> Parser:
    """Return the parser of *verb*, which is a key of `VERBS`; only what that takes is loaded."""
    match verb:
        case "build":
            from builder.cli.build_options import build_parser  # noqa: PLC0415  (many options, for few verbs)

            return build_parser()
        case "bake":
            from builder.cli.build_options import bake_parser  # noqa: PLC0415  (as above)

            return bake_parser()
        case "kaniko":
            from builder.cli.kaniko_options import KanikoParser  # noqa: PLC0415  (as above)

            return KanikoParser()
        case _:
            from builder.cli.verb_options import PARSERS  # noqa: PLC0415  (as above)

            return PARSERS[verb]()


def add_list(container: Container, *names: str, **settings: Any) -> None:
    """Add an option that may be given several times; its values are a list."""
    container.add_argument(*names, action="append", default=[], **settings)


def add_isolation(container: Container) -> None:
    """Add the choice of what parts steps from the machine."""
    container.add_argument(
        "--isolation",
        metavar="NAME",
        help="auto (default), subids, single-id, chroot or none; `pybuild doctor` tells what this place allows",
    )


def add_insecure(container: Container) -> None:
    """Add the registries that need no good certificate."""
    add_list(
        container,
        "--insecure-registry",
        metavar="HOST",
        help="Registry that speaks plain HTTP or has a bad certificate",
    )


def add_progress(container: Container) -> None:
    """Add the choice of how progress is shown."""
    container.add_argument("--progress", metavar="MODE", help="auto, plain, tty, rawjson or quiet (default: auto)")
