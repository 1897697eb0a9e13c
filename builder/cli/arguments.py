"""The command line as data: one parser a verb, and the way from a parsed `build` to a `BuildRequest`.

Spelling follows `docker` and `docker buildx`. Only the parser of the chosen verb is made, and nothing slow is
imported here: `--help` has to be quick. Options that are planned but not there yet are refused by name, never ignored.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any, Final, NoReturn

from builder.errors import ContextError, DockerfileError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from builder.cli.environment import Environment
    from builder.request import Annotation, BuildRequest, NetworkMode, Output, OutputType, SecretSource, SshSource
    from registry.content.compression import Compression
    from registry.oci.platform import Platform
    from registry.oci.reference import Reference

VERBS: Final[Mapping[str, str]] = {
    "build": "Build an image from a Dockerfile",
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
}
"""The verbs and what each does, in the order of the help."""

_LATER: Final[Mapping[str, frozenset[str]]] = {
    "build": frozenset(
        [
            "--cache-from",
            "--cache-to",
            "--isolation",
            "--attest",
            "--provenance",
            "--sbom",
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
            "--explain-cache",
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
            "--isolation",
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

_DEFAULT_SHM_SIZE = 64 << 20
_SWITCH_VALUES: Final = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
_HELP_WIDTH = 100
_HELP_COLUMN = 32

_IMAGE_KEYS: Final = frozenset({"name", "compression", "compression-level", "force-compression", "rewrite-timestamp"})
_OUTPUT_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "image": _IMAGE_KEYS | {"push", "oci-mediatypes"},
    "registry": _IMAGE_KEYS | {"push", "oci-mediatypes"},
    "oci": _IMAGE_KEYS | {"dest", "tar"},
    "docker": _IMAGE_KEYS | {"dest", "tar", "push", "oci-mediatypes"},
    "local": frozenset({"dest", "platform-split"}),
    "tar": frozenset({"dest", "platform-split"}),
    "cacheonly": frozenset(),
}
_ULIMITS: Final = frozenset(
    [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ]
)


class HelpRequest(Exception):  # noqa: N818  (not an error)
    """Somebody asked for help; *text* is it, ended by a newline."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class _HelpAction(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        raise HelpRequest(parser.format_help())


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UsageError` and prints help as docker does.

    Args:
        verb: the word after `pybuild`.
        usage: what follows the verb in the usage line.
        examples: command lines for the end of the help.
    """

    def __init__(self, verb: str, usage: str, *, examples: Sequence[str] = ()) -> None:
        super().__init__(prog=f"pybuild {verb}", description=VERBS[verb], add_help=False, allow_abbrev=False)
        self.verb = verb
        self._usage_text = usage
        self._examples = examples
        self._remainder = False

    def add_common(self, *, root: bool = True) -> None:
        """Add the options every verb has; called last, so that they stand last in the help."""
        group = self.add_argument_group("Common options")
        if root:
            group.add_argument("--root", metavar="DIR", help="Folder of the store (default: $PYBUILD_ROOT, …)")
        group.add_argument("-h", "--help", action=_HelpAction, nargs=0, help="Show this help")

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
        """Yield *argv* with `--switch=true` as `--switch` and without `--switch=false`, which Go's tools allow."""
        switches = {
            name
            for action in self._actions
            if action.nargs == 0 and action.dest != "help"
            for name in action.option_strings
        }
        words = iter(argv)
        for word in words:
            if word == "--":
                yield word
                break
            name, equals, value = word.partition("=")
            if equals and name in switches and name.startswith("--") and value.lower() in _SWITCH_VALUES:
                if _SWITCH_VALUES[value.lower()]:
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
    """Return the parser of *verb*, which is a key of `VERBS`."""
    return _PARSERS[verb]()


def _build_parser() -> Parser:
    parser = Parser(
        "build",
        "[DIR|URL|-]",
        examples=(
            "pybuild -t myhelloworld:1.0 .",
            "pybuild build -f docker/Dockerfile --target test --build-arg VERSION=1.2 .",
            "pybuild build -t registry.example.com/team/app:1.2 --push .",
            "pybuild build -o type=oci,dest=app.tar .       an OCI archive",
            "pybuild build -o out .                         the files of the result",
        ),
    )
    parser.add_argument("positional_context", nargs="?", metavar="CONTEXT")
    source = parser.add_argument_group("What is built")
    source.add_argument(
        "--context",
        metavar="DIR|URL|-",
        help="What the build may read: a folder, a git repository, a tar at an address or on standard input (default: "
        "the argument, else .)",
    )
    source.add_argument(
        "-f",
        "--file",
        metavar="FILE",
        help="Dockerfile, its address, or - for standard input (default: CONTEXT/Dockerfile)",
    )
    _add_list(
        source,
        "--build-context",
        metavar="NAME=VALUE",
        help="What stands for a stage or image: a folder, docker-image://, oci-layout://, a git repository or a tar",
    )
    source.add_argument("--target", metavar="STAGE", help="Stage to build (default: the last)")
    _add_list(
        source,
        "--platform",
        metavar="OS/ARCH,…",
        help="Platforms of the image (default: this machine's); several make an index",
    )
    _add_list(source, "--build-arg", metavar="NAME[=VALUE]", help="Set an ARG; without a value, from the environment")
    result = parser.add_argument_group("What comes out")
    _add_list(result, "-t", "--tag", metavar="NAME[:TAG]", help="Name of the image")
    _add_list(
        result,
        "-o",
        "--output",
        metavar="DEST",
        help="Where the result goes: a folder, - for a tar, or type=KIND,dest=…,name=…,tar=…,push=…,compression=…, "
        "where KIND is image, oci, docker, local, tar, registry or cacheonly; images also take force-compression=, "
        "oci-mediatypes=, rewrite-timestamp= and annotation.NAME=, folders and tars platform-split=",
    )
    result.add_argument("--push", action="store_true", help="Push the image to its registry")
    result.add_argument("--load", action="store_true", help="Keep the image in the store, which is the default")
    _add_list(result, "--label", metavar="NAME=VALUE", help="Set a label of the image")
    _add_list(
        result,
        "--annotation",
        metavar="[LEVEL:]NAME=VALUE",
        help="Set an annotation; LEVEL is manifest (default), index, manifest-descriptor or index-descriptor, several "
        "with commas, each with an optional [PLATFORM]",
    )
    result.add_argument("--compression", metavar="KIND", help="Layers as gzip, zstd or uncompressed (default: gzip)")
    result.add_argument("--compression-level", metavar="N", help="How hard layers are compressed")
    result.add_argument("--iidfile", metavar="FILE", help="Write the image id to a file")
    result.add_argument("--metadata-file", metavar="FILE", help="Write what was built to a JSON file")
    steps = parser.add_argument_group("How steps run")
    steps.add_argument("--network", metavar="MODE", default="default", help="Network of RUN: default, none or host")
    _add_list(steps, "--add-host", metavar="HOST:IP", help="Add a line to /etc/hosts of RUN")
    steps.add_argument("--shm-size", metavar="SIZE", help="Size of /dev/shm (default: 64m)")
    _add_list(steps, "--ulimit", metavar="NAME=SOFT[:HARD]", help="Limit of RUN")
    _add_list(
        steps,
        "--secret",
        metavar="id=ID,src=FILE",
        help="Secret for RUN --mount=type=secret: a file, or env=NAME for a variable",
    )
    _add_list(
        steps,
        "--ssh",
        metavar="ID[=SOCKET|KEY,…]",
        help="Agent or keys for RUN --mount=type=ssh; default is the agent of $SSH_AUTH_SOCK",
    )
    _add_list(steps, "--allow", metavar="NAME", help="Allow a RUN network.host, security.insecure or device")
    steps.add_argument("--jobs", metavar="N", help="Steps that run at the same time (default: processors)")
    cache = parser.add_argument_group("Cache and registries")
    cache.add_argument("--no-cache", action="store_true", help="Run every step")
    _add_list(cache, "--no-cache-filter", metavar="STAGES", help="Run every step of these stages")
    cache.add_argument("--pull", action="store_true", help="Ask the registry for newer base images")
    _add_insecure(cache)
    shown = parser.add_argument_group("Output")
    _add_progress(shown)
    shown.add_argument("-q", "--quiet", action="store_true", help="Show no progress, print the image id")
    shown.add_argument("--check", action="store_true", help="Build nothing, check the Dockerfile: --call check")
    shown.add_argument(
        "--call",
        metavar="METHOD",
        default="build",
        help="build (default), or show check, outline or targets of the Dockerfile; with ,format=json as JSON",
    )
    parser.add_common()
    return parser


def _run_parser() -> Parser:
    parser = Parser(
        "run",
        "IMAGE [COMMAND] [ARGUMENT...]",
        examples=("pybuild run myhelloworld:1.0 Alice", "pybuild run -it --entrypoint sh myhelloworld:1.0"),
    )
    parser.add_argument("image", metavar="IMAGE")
    parser.add_remainder("command", metavar="COMMAND")
    _add_list(
        parser, "-e", "--env", metavar="NAME[=VALUE]", help="Set a variable; without a value, from the environment"
    )
    parser.add_argument("--entrypoint", metavar="COMMAND", help="Replace the entrypoint of the image")
    parser.add_argument("-w", "--workdir", metavar="DIR", help="Working directory")
    parser.add_argument("-u", "--user", metavar="USER[:GROUP]", help="Name or id of the user")
    parser.add_argument("--hostname", metavar="NAME", help="Host name inside")
    parser.add_argument("--network", metavar="MODE", default="default", help="Network: default, none or host")
    _add_list(parser, "--add-host", metavar="HOST:IP", help="Add a line to /etc/hosts")
    _add_list(parser, "-v", "--volume", metavar="SOURCE:TARGET[:ro]", help="Show a folder of the host inside")
    parser.add_argument("--shm-size", metavar="SIZE", help="Size of /dev/shm (default: 64m)")
    _add_list(parser, "--ulimit", metavar="NAME=SOFT[:HARD]", help="Limit of the command")
    parser.add_argument("-i", "--interactive", action="store_true", help="Pass standard input on")
    parser.add_argument("-t", "--tty", action="store_true", help="Use this terminal")
    parser.add_argument("--rm", action="store_true", help="Accepted for habit: nothing is kept anyway")
    parser.add_argument("--platform", metavar="OS/ARCH", help="Platform of the image")
    parser.add_argument(
        "--pull",
        metavar="WHEN",
        default="missing",
        choices=("always", "missing", "never"),
        help="always, missing or never",
    )
    _add_insecure(parser)
    parser.add_common()
    return parser


def _images_parser() -> Parser:
    parser = Parser("images", "[NAME[:TAG]]", examples=("pybuild images", "pybuild images --format json alpine"))
    parser.add_argument("name", nargs="?", metavar="NAME")
    parser.add_argument("-a", "--all", action="store_true", help="Show images without a name too")
    parser.add_argument("--digests", action="store_true", help="Show the digests of manifests")
    parser.add_argument("--no-trunc", action="store_true", help="Show image ids in full")
    parser.add_argument("-q", "--quiet", action="store_true", help="Show image ids only")
    _add_format(parser)
    parser.add_common()
    return parser


def _pull_parser() -> Parser:
    parser = Parser("pull", "NAME[:TAG|@DIGEST]...", examples=("pybuild pull alpine:3.20",))
    parser.add_argument("names", nargs="+", metavar="NAME")
    _add_transfer(parser)
    parser.add_common()
    return parser


def _push_parser() -> Parser:
    parser = Parser(
        "push",
        "NAME[:TAG]...",
        examples=("pybuild push registry.example.com/team/app:1.2",),
    )
    parser.add_argument("names", nargs="+", metavar="NAME")
    _add_transfer(parser)
    parser.add_common()
    return parser


def _tag_parser() -> Parser:
    parser = Parser("tag", "SOURCE TARGET[:TAG]", examples=("pybuild tag app:1.2 registry.example.com/team/app:1.2",))
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("target", metavar="TARGET")
    parser.add_common()
    return parser


def _rmi_parser() -> Parser:
    parser = Parser("rmi", "IMAGE...", examples=("pybuild rmi app:1.2", "pybuild rmi -f 3b0c1d2e4f5a"))
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument(
        "-f", "--force", action="store_true", help="Remove all names of an id; ignore what is not there"
    )
    parser.add_common()
    return parser


def _inspect_parser() -> Parser:
    parser = Parser("inspect", "IMAGE...", examples=("pybuild inspect alpine:3.20",))
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--platform", metavar="OS/ARCH", help="Platform to show of an image for several")
    parser.add_common()
    return parser


def _history_parser() -> Parser:
    parser = Parser("history", "IMAGE", examples=("pybuild history --no-trunc alpine:3.20",))
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("--no-trunc", action="store_true", help="Show commands in full")
    parser.add_argument("-q", "--quiet", action="store_true", help="Show image ids only")
    parser.add_argument("--platform", metavar="OS/ARCH", help="Platform to show of an image for several")
    _add_format(parser)
    parser.add_common()
    return parser


def _save_parser() -> Parser:
    parser = Parser(
        "save", "IMAGE...", examples=("pybuild save -o app.tar app:1.2", "pybuild save app:1.2 | ssh host docker load")
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("-o", "--output", metavar="FILE", help="File to write (default: standard output)")
    parser.add_argument(
        "--format",
        metavar="FORM",
        default="docker-archive",
        choices=("docker-archive", "oci-archive"),
        help="docker-archive (default) or oci-archive",
    )
    parser.add_argument("--platform", metavar="OS/ARCH", help="Platform to write of an image for several")
    parser.add_common()
    return parser


def _load_parser() -> Parser:
    parser = Parser("load", "", examples=("pybuild load -i app.tar", "docker save app:1.2 | pybuild load"))
    parser.add_argument("-i", "--input", metavar="FILE", help="File to read (default: standard input)")
    parser.add_argument("-q", "--quiet", action="store_true", help="Print nothing but errors")
    parser.add_common()
    return parser


def _import_parser() -> Parser:
    parser = Parser(
        "import",
        "FILE|- [NAME[:TAG]]",
        examples=("pybuild import root.tar base:1", "tar -C root -c . | pybuild import - base:1"),
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("name", nargs="?", metavar="NAME")
    _add_list(parser, "-c", "--change", metavar="INSTRUCTION", help="Apply a Dockerfile instruction to the image")
    parser.add_argument("-m", "--message", metavar="TEXT", help="Comment in the history")
    parser.add_argument("--platform", metavar="OS/ARCH", help="Platform of the image")
    parser.add_common()
    return parser


def _login_parser() -> Parser:
    parser = Parser(
        "login",
        "[HOST]",
        examples=("pybuild login -u me registry.example.com", "pass reg | pybuild login -u me --password-stdin HOST"),
    )
    parser.add_argument("host", nargs="?", default="docker.io", metavar="HOST")
    parser.add_argument("-u", "--username", metavar="NAME", help="User name")
    parser.add_argument("-p", "--password", metavar="TEXT", help="Password; others on this machine may see it")
    parser.add_argument("--password-stdin", action="store_true", help="Read the password from standard input")
    _add_insecure(parser)
    parser.add_common(root=False)
    return parser


def _logout_parser() -> Parser:
    parser = Parser("logout", "[HOST]", examples=("pybuild logout registry.example.com",))
    parser.add_argument("host", nargs="?", default="docker.io", metavar="HOST")
    parser.add_common(root=False)
    return parser


def _prune_parser() -> Parser:
    parser = Parser("prune", "", examples=("pybuild prune", "pybuild prune -a --keep-storage 10g"))
    parser.add_argument(
        "-a", "--all", action="store_true", help="Remove the whole cache, not only what nothing refers to"
    )
    parser.add_argument("-f", "--force", action="store_true", help="Do not ask")
    parser.add_argument("--keep-storage", metavar="SIZE", help="Keep this much of what was used last")
    _add_list(parser, "--filter", metavar="KEY=VALUE", help="What to remove, e.g. until=24h")
    parser.add_common()
    return parser


def _df_parser() -> Parser:
    parser = Parser("df", "", examples=("pybuild df -v",))
    parser.add_argument("-v", "--verbose", action="store_true", help="Show every image and cache record")
    _add_format(parser)
    parser.add_common()
    return parser


_PARSERS: Final[Mapping[str, Callable[[], Parser]]] = {
    "build": _build_parser,
    "run": _run_parser,
    "images": _images_parser,
    "pull": _pull_parser,
    "push": _push_parser,
    "tag": _tag_parser,
    "rmi": _rmi_parser,
    "inspect": _inspect_parser,
    "history": _history_parser,
    "save": _save_parser,
    "load": _load_parser,
    "import": _import_parser,
    "login": _login_parser,
    "logout": _logout_parser,
    "prune": _prune_parser,
    "df": _df_parser,
}

_Container = argparse._ActionsContainer  # noqa: SLF001


def _add_list(container: _Container, *names: str, **settings: Any) -> None:
    container.add_argument(*names, action="append", default=[], **settings)


def _add_insecure(container: _Container) -> None:
    _add_list(
        container,
        "--insecure-registry",
        metavar="HOST",
        help="Registry that speaks plain HTTP or has a bad certificate",
    )


def _add_progress(container: _Container) -> None:
    container.add_argument("--progress", metavar="MODE", help="auto, plain, tty, rawjson or quiet (default: auto)")


def _add_format(container: _Container) -> None:
    container.add_argument(
        "--format",
        metavar="FORM",
        default="table",
        choices=("table", "json"),
        help="table (default) or json, one object a line",
    )


def _add_transfer(container: _Container) -> None:
    container.add_argument(
        "--platform", metavar="OS/ARCH", help="Platform of an image for several (default: this machine's)"
    )
    container.add_argument("-q", "--quiet", action="store_true", help="Show no progress")
    _add_progress(container)
    _add_insecure(container)


def parse_build(arguments: argparse.Namespace, environment: Environment) -> BuildRequest:
    """Return the build that the parsed arguments of `build` ask for, with nothing left to look up.

    Standard input is read where the Dockerfile is `-`. What only concerns the command line stays in *arguments*:
    `progress`, `quiet`, `iidfile`, `metadata_file`, `insecure_registry`.

    Raises:
        UsageError: options that contradict each other, or a value that cannot be.
        ContextError: the context is not a folder.
        DockerfileError: the file of `--file` does not exist.
        RegistryError: a reference or platform that cannot be read (ReferenceInvalidError, PlatformInvalidError).
    """
    from builder.request import BuildRequest  # noqa: PLC0415  (not needed for help)
    from registry.oci.platform import host_platform  # noqa: PLC0415  (not needed for help)

    context = _parse_context(arguments, environment)
    dockerfile, text, url = _parse_dockerfile(arguments.file, context, environment)
    tags = _parse_tags(arguments.tag)
    outputs = _parse_outputs(arguments, environment, tags)
    platforms = _parse_platforms(arguments.platform, environment)
    return BuildRequest(
        context=context,
        root=environment.root(arguments.root),
        platform=platforms[0] if platforms else host_platform(),
        platforms=platforms if len(platforms) > 1 else (),
        build_platform=host_platform(),
        dockerfile=dockerfile,
        dockerfile_text=text,
        dockerfile_url=url,
        stdin=environment.stdin() if context == "-" else None,
        build_contexts=_parse_build_contexts(arguments.build_context, environment),
        git_environ=environment.variables,
        tags=tags,
        build_args=_parse_build_args(arguments.build_arg, environment),
        target=arguments.target or None,
        labels=_parse_pairs(arguments.label, "--label"),
        annotations=_parse_annotations(arguments.annotation),
        outputs=outputs,
        compression=_parse_compression(arguments, outputs),
        no_cache=arguments.no_cache,
        no_cache_stages=frozenset(name for text in arguments.no_cache_filter for name in _split_csv(text)),
        pull=arguments.pull,
        network=parse_network(arguments.network),
        add_hosts=parse_hosts(arguments.add_host),
        shm_size=parse_shm_size(arguments.shm_size),
        ulimits=parse_ulimits(arguments.ulimit),
        secrets=_parse_secrets(arguments.secret, environment),
        ssh=_parse_ssh(arguments.ssh, environment),
        allow=_parse_allow(arguments.allow),
        jobs=_parse_jobs(arguments.jobs),
    )


def _parse_secrets(texts: Sequence[str], environment: Environment) -> tuple[SecretSource, ...]:
    if not texts:
        return ()
    from builder.cli.credentials import parse_secret  # noqa: PLC0415  (only with --secret)

    return tuple(parse_secret(text, _split_csv(text), environment) for text in texts)


def _parse_ssh(texts: Sequence[str], environment: Environment) -> tuple[SshSource, ...]:
    if not texts:
        return ()
    from builder.cli.credentials import parse_ssh  # noqa: PLC0415  (only with --ssh)

    return tuple(parse_ssh(text, environment) for text in texts)


def _parse_allow(texts: Sequence[str]) -> frozenset[str]:
    if not texts:
        return frozenset()
    from builder.cli.credentials import parse_entitlement  # noqa: PLC0415  (only with --allow)

    return frozenset(parse_entitlement(name) for text in texts for name in _split_csv(text))


def _parse_context(arguments: argparse.Namespace, environment: Environment) -> Path | str:
    given = [text for text in (arguments.context, arguments.positional_context) if text is not None]
    if len(given) == 2 and given[0] != given[1]:
        raise UsageError(f"two contexts are given: `{given[0]}` and `{given[1]}`", hint="drop one of them")
    text = given[0] if given else "."
    if text == "-" or (_is_address(text) and not environment.path(text).exists()):
        return text
    if not text:
        raise UsageError("the context is empty", hint="write . for the current folder")
    path = environment.path(text)
    if not path.is_dir():
        if path.exists():
            raise ContextError(
                f"unable to prepare context: not a folder: `{text}`", hint=f"for a Dockerfile, use --file {text}"
            )
        from builder.dockerfile.suggest import nearest  # noqa: PLC0415  (only for typing errors)

        near = nearest(text, VERBS)
        hint = f"did you mean `pybuild {near}`?" if near else None
        raise ContextError(f"unable to prepare context: path not found: `{text}`", hint=hint)
    return path


def _is_address(text: str) -> bool:
    """Tell whether a context is looked for elsewhere than on this machine; a folder of that name comes first."""
    if text.startswith(("http://", "https://", "github.com/")):
        return True
    if "@" not in text and "://" not in text:
        return False
    from builder.context.git import is_git_url  # noqa: PLC0415  (only for what looks like an address)

    return is_git_url(text)


def _parse_build_contexts(texts: Sequence[str], environment: Environment) -> dict[str, Path | str]:
    """Return the named contexts: a folder as its path, everything else as it is, layouts with an absolute path."""
    contexts: dict[str, Path | str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"option --build-context: not a name and a value: `{text}`", hint="write it like NAME=DIR")
        if name.lower() in {"scratch", "context"}:
            raise UsageError(f"option --build-context: the name cannot be replaced: `{name}`", hint="use another name")
        layout = value.removeprefix("oci-layout://")
        if layout != value:
            contexts[name] = f"oci-layout://{environment.path(layout)}"
        elif value.startswith("docker-image://") or (_is_address(value) and not environment.path(value).exists()):
            contexts[name] = value
        else:
            contexts[name] = environment.path(value)
    return contexts


def _parse_dockerfile(
    text: str | None, context: Path | str, environment: Environment
) -> tuple[Path | None, str | None, str | None]:
    """Return the path of the Dockerfile, its text, or its address; the path is relative if the context is no folder."""
    if text is None:
        return None, None, None
    if text == "-":
        if context == "-":
            raise UsageError("the context and the Dockerfile cannot both come from standard input")
        data = environment.read_stdin()
        try:
            return None, data.decode("utf-8-sig"), None
        except UnicodeDecodeError as error:
            raise DockerfileError(f"Dockerfile on standard input is not UTF-8, at byte {error.start}") from error
    if text.startswith(("http://", "https://")):
        return None, None, text
    if not text:
        raise UsageError("option --file: a value is missing")
    if isinstance(context, str):
        from pathlib import Path  # noqa: PLC0415  (the module is to be light)

        return Path(text), None, None
    path = environment.path(text)
    if path.is_dir():
        raise DockerfileError(
            f"failed to read dockerfile, it is a folder: `{text}`", hint=f"use --file {text}/Dockerfile"
        )
    if not path.exists():
        hint = "paths of --file start at the current folder"
        if (context / text).is_file():
            hint = f"did you mean {os.path.relpath(context / text, environment.cwd)}? {hint}"
        raise DockerfileError(f"failed to read dockerfile, no such file: `{text}`", hint=hint)
    return path, None, None


def parse_platform_option(text: str | None, environment: Environment) -> Platform | None:
    """Return the one platform of `--platform`, else of `$DOCKER_DEFAULT_PLATFORM`; None if neither says one.

    `local` is the machine's own.

    Raises:
        UsageError: several platforms.
        PlatformInvalidError: not a platform.
    """
    from registry.oci.platform import host_platform, parse_platform  # noqa: PLC0415  (not needed for help)

    text = text or environment.platform()
    if not text:
        return None
    if "," in text:
        raise UsageError(f"one platform is wanted: `{text}`", hint="run once for each of them")
    return host_platform() if text == "local" else parse_platform(text)


def _parse_platforms(texts: Sequence[str], environment: Environment) -> tuple[Platform, ...]:
    """Return the platforms of all `--platform`, else of `$DOCKER_DEFAULT_PLATFORM`, each once."""
    from registry.oci.platform import host_platform, parse_platform  # noqa: PLC0415  (not needed for help)

    words = [word.strip() for text in (texts or [environment.platform() or ""]) for word in text.split(",")]
    return tuple(dict.fromkeys(host_platform() if word == "local" else parse_platform(word) for word in words if word))


def _parse_tags(texts: Sequence[str]) -> tuple[Reference, ...]:
    tags = dict.fromkeys(_parse_name(text, "--tag") for text in texts)
    return tuple(tags)


def _parse_name(text: str, option: str) -> Reference:
    from registry.oci.reference import parse_reference  # noqa: PLC0415  (not needed for help)

    reference = parse_reference(text)
    if reference.digest is not None:
        raise UsageError(f"option {option}: a new image cannot be named by digest: `{text}`", hint="use a tag")
    return reference


def _parse_build_args(texts: Sequence[str], environment: Environment) -> dict[str, str]:
    """Return build arguments; those without a value come from the environment, and are left out if it has none."""
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise UsageError(f"option --build-arg: the name is empty: `{text}`", hint="write it like NAME=VALUE")
        if equals:
            values[name] = value
        elif name in environment.variables:
            values[name] = environment.variables[name]
    epoch = environment.source_date_epoch()
    if epoch is not None:
        values.setdefault("SOURCE_DATE_EPOCH", str(epoch))
    return values


def _parse_annotations(texts: Sequence[str]) -> tuple[Annotation, ...]:
    from builder.image.form import parse_annotations  # noqa: PLC0415  (only with --annotation)

    return tuple(annotation for text in texts for annotation in parse_annotations(text))


def _parse_pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name:
            raise UsageError(f"option {option}: the name is empty: `{text}`", hint="write it like NAME=VALUE")
        pairs[name] = value
    return pairs


def _split_csv(text: str) -> list[str]:
    """Return the fields of one line of comma-separated values; quotes keep commas, as Docker's options do."""
    import csv  # noqa: PLC0415  (only for options that need it)

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise UsageError(f"unbalanced quotes: `{text}`") from error
    return rows[0] if rows else []


def _parse_outputs(
    arguments: argparse.Namespace, environment: Environment, tags: tuple[Reference, ...]
) -> tuple[Output, ...]:
    from dataclasses import replace  # noqa: PLC0415  (not needed for help)

    from builder.request import Output, OutputType  # noqa: PLC0415  (not needed for help)

    outputs = [_parse_output(text, environment, tags) for text in arguments.output]
    kinds = {output.type for output in outputs}
    if arguments.load and OutputType.IMAGE not in kinds:
        outputs.append(Output(type=OutputType.IMAGE, names=tags))
    if arguments.push:
        if OutputType.IMAGE in {output.type for output in outputs}:
            outputs = [replace(o, push=True) if o.type is OutputType.IMAGE else o for o in outputs]
        elif OutputType.REGISTRY not in kinds:
            outputs.append(Output(type=OutputType.REGISTRY, names=tags, push=True))
    if not outputs:
        outputs.append(Output(type=OutputType.IMAGE, names=tags))
    if any(output.push and not output.names for output in outputs):
        raise UsageError("an image needs a name to be pushed", hint="name it with --tag HOST/NAME:TAG")
    if sum(_goes_to_stdout(output) for output in outputs) > 1:
        raise UsageError("two outputs go to standard output", hint="give one of them a dest=")
    if any(_goes_to_stdout(output) for output in outputs) and environment.stdout_tty:
        hint = "give the output a dest=, or send standard output to a file"
        raise UsageError("refusing to write an archive to a terminal", hint=hint)
    return tuple(outputs)


def _goes_to_stdout(output: Output) -> bool:
    return output.destination is None and output.type.value in {"oci", "docker", "tar"}


def _parse_output(text: str, environment: Environment, tags: tuple[Reference, ...]) -> Output:
    """Return one `--output`.

    Source: docker/buildx, util/buildflags/export.go: `-` is a tar on standard output, a value without `=` a folder.
    """
    from builder.request import Output, OutputType  # noqa: PLC0415  (not needed for help)

    if text == "-":
        return Output(type=OutputType.TAR)
    fields = _split_csv(text)
    if len(fields) == 1 and "=" not in fields[0] and fields[0]:
        return Output(type=OutputType.LOCAL, destination=environment.path(fields[0]))
    values: dict[str, str] = {}
    for field in fields:
        key, equals, value = field.partition("=")
        if not equals and key and next(reversed(values), None) == "name":
            values["name"] += f",{key}"  # name=a,b without the quotes that docker wants
            continue
        if not equals:
            raise UsageError(f"option --output: not key=value: `{field}`", hint="write it like type=oci,dest=app.tar")
        values[key.strip() if key.strip().startswith("annotation") else key.strip().lower()] = value
    type_ = _parse_output_type(values.pop("type", None), text)
    _check_output_keys(type_, values)
    tar = _parse_boolean(values.pop("tar", "true"), "tar")
    push = _parse_boolean(values.pop("push", "true" if type_ is OutputType.REGISTRY else "false"), "push")
    destination = values.pop("dest", None)
    if destination == "" or (destination is None and (type_ is OutputType.LOCAL or not tar)):
        raise UsageError(f"option --output: a dest= is missing: `{text}`")
    if destination == "-" and (type_ is OutputType.LOCAL or not tar):
        raise UsageError(f"option --output: a folder cannot go to standard output: `{text}`")
    if type_ is OutputType.DOCKER and destination is None:
        type_ = OutputType.IMAGE  # buildx loads the image then, and the store is where it goes
    name = values.pop("name", None)
    return Output(
        type=type_,
        destination=None if destination in {None, "-"} else environment.path(str(destination)),
        names=tags if name is None else tuple(_parse_name(part.strip(), "--output") for part in name.split(",")),
        tar=tar,
        push=push,
        attributes=values,
    )


def _parse_output_type(text: str | None, output: str) -> OutputType:
    from builder.dockerfile.suggest import nearest  # noqa: PLC0415  (only for typing errors)
    from builder.request import OutputType  # noqa: PLC0415  (not needed for help)

    if text is None:
        raise UsageError(f"option --output: a type= is missing: `{output}`", hint="write it like type=oci,dest=app.tar")
    try:
        return OutputType(text)
    except ValueError:
        near = nearest(text, _OUTPUT_KEYS)
        hint = f"did you mean {near}?" if near else f"use one of {', '.join(_OUTPUT_KEYS)}"
        raise UsageError(f"option --output: unknown type: `{text}`", hint=hint) from None


def _check_output_keys(type_: OutputType, values: Mapping[str, str]) -> None:
    known = _OUTPUT_KEYS[type_.value]
    for key in values:
        if key not in known and not (key.startswith("annotation") and "name" in known):
            from builder.dockerfile.suggest import nearest  # noqa: PLC0415  (only for typing errors)

            near = nearest(key, known)
            hint = (
                f"did you mean {near}?"
                if near
                else f"type={type_.value} takes: {', '.join(sorted(known)) or 'nothing'}"
            )
            raise UsageError(f"option --output: key is not supported with type={type_.value}: `{key}`", hint=hint)


def _parse_boolean(text: str, key: str) -> bool:
    value = _SWITCH_VALUES.get(text.lower())
    if value is None:
        raise UsageError(f"option --output: {key} is true or false, not `{text}`")
    return value


def _parse_compression(arguments: argparse.Namespace, outputs: Sequence[Output]) -> Compression:
    """Return the compression of the options, else that of the first output that says one, else gzip."""
    from registry.content.compression import Compression  # noqa: PLC0415  (not needed for help)

    kinds = [o.attributes.get("compression") for o in outputs]
    kind = arguments.compression or next(filter(None, kinds), None) or "gzip"
    levels = [o.attributes.get("compression-level") for o in outputs if o.attributes.get("compression", kind) == kind]
    return Compression.parse(kind, arguments.compression_level or next(filter(None, levels), None))


def parse_network(text: str) -> NetworkMode:
    """Return the mode of `--network`.

    Raises:
        UsageError: it is none.
    """
    match text:
        case "default" | "none" | "host":
            return text
        case _:
            pass
    raise UsageError(f"option --network: unknown mode: `{text}`", hint="use default, none or host")


def parse_hosts(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return name and address of each `--add-host`: `name:ip`, `name=ip`, `name:[::1]`.

    Raises:
        UsageError: no name, or not an address.
    """
    return tuple(_parse_host(text) for text in texts)


def _parse_host(text: str) -> tuple[str, str]:
    from ipaddress import ip_address  # noqa: PLC0415  (only with --add-host)

    name, separator, address = text.partition("=")
    if not separator:
        name, separator, address = text.partition(":")
    if not name or not address or not set(name).isdisjoint(" \t\n#"):
        raise UsageError(f"option --add-host: not a name and an address: `{text}`", hint="write it like HOST:IP")
    if address == "host-gateway":
        raise UsageError("option --add-host: host-gateway is not supported yet", hint="give an address")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    try:
        return name, str(ip_address(address))
    except ValueError:
        raise UsageError(f"option --add-host: not an address: `{address}`", hint="write it like HOST:IP") from None


def parse_shm_size(text: str | None) -> int:
    """Return the bytes of `--shm-size`, 64 MiB if it is not given.

    Raises:
        UsageError: not a size.
    """
    from builder.cli.units import parse_size  # noqa: PLC0415  (not needed for help)

    return _DEFAULT_SHM_SIZE if text is None else parse_size(text, option="--shm-size")


def parse_ulimits(texts: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """Return name, soft and hard limit of each `--ulimit NAME=SOFT[:HARD]`; -1 is no limit.

    Raises:
        UsageError: an unknown name, not numbers, or a soft limit above the hard one.
    """
    return tuple(_parse_ulimit(text) for text in texts)


def _parse_ulimit(text: str) -> tuple[str, int, int]:
    name, _, limits = text.partition("=")
    if name not in _ULIMITS:
        from builder.dockerfile.suggest import nearest  # noqa: PLC0415  (only for typing errors)

        near = nearest(name, sorted(_ULIMITS))
        raise UsageError(f"option --ulimit: unknown limit: `{name}`", hint=f"did you mean {near}?" if near else None)
    soft_text, colon, hard_text = limits.partition(":")
    soft = _parse_limit(soft_text, text)
    hard = _parse_limit(hard_text, text) if colon else soft
    if hard != -1 and (soft == -1 or soft > hard):
        raise UsageError(f"option --ulimit: the soft limit is above the hard one: `{text}`")
    return name, soft, hard


def _parse_limit(text: str, whole: str) -> int:
    if text in {"-1", "unlimited"}:
        return -1
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"option --ulimit: not a number: `{whole}`", hint="write it like nofile=1024:2048")
    return int(text)


def _parse_jobs(text: str | None) -> int:
    if text is None:
        return max(1, len(os.sched_getaffinity(0)))
    jobs = _parse_number(text, "--jobs")
    if jobs < 1:
        raise UsageError("option --jobs: at least one is needed")
    return jobs


def _parse_number(text: str, option: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"option {option}: not a number: `{text}`") from None
