"""The command line as data: one parser a verb.

Spelling follows `docker` and `docker buildx`. Only the parser of the chosen verb is made, and nothing slow is
imported here: `--help` has to be quick. Options that are planned but not there yet are refused by name, never ignored.
"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any, Final, NoReturn

from builder.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


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

    def add_lone(self, container: _Container, name: str, **settings: Any) -> None:
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
    _add_sources(parser)
    _add_results(parser)
    _add_steps(parser)
    _add_cache(parser)
    _add_shown(parser)
    parser.add_common()
    return parser


def _add_sources(parser: Parser) -> None:
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


def _add_results(parser: Parser) -> None:
    result = parser.add_argument_group("What comes out")
    _add_list(result, "-t", "--tag", metavar="NAME[:TAG]", help="Name of the image")
    _add_list(
        result,
        "-o",
        "--output",
        metavar="DEST",
        help="Where the result goes: a folder, - for a tar, or type=KIND,dest=…,name=…,tar=…,push=…,compression=…, "
        "where KIND is image, oci, docker, local, tar, registry or cacheonly; images also take force-compression=, "
        "oci-mediatypes=, rewrite-timestamp=, oci-artifact=, attestation-inline= and annotation.NAME=, folders and tars "
        "platform-split= and attestation-prefix=",
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
    parser.add_lone(
        result,
        "--provenance",
        metavar="true|KEY=VALUE,…",
        help="Tell how the image was built, in an index beside it: mode=max (default) or min, version=v1 or v0.2, "
        "builder-id=, reproducible=, filename=, inline-only=",
    )
    parser.add_lone(
        result,
        "--sbom",
        metavar="true|KEY=VALUE,…",
        help="List the software in the image, in an index beside it, as the image of generator= finds it",
    )
    _add_list(
        result,
        "--attest",
        metavar="type=TYPE,…",
        help="The same in long: type=provenance,… or type=sbom,…[,disabled=true]",
    )
    result.add_argument("--compression", metavar="KIND", help="Layers as gzip, zstd or uncompressed (default: gzip)")
    result.add_argument("--compression-level", metavar="N", help="How hard layers are compressed")
    result.add_argument("--iidfile", metavar="FILE", help="Write the image id to a file")
    result.add_argument("--metadata-file", metavar="FILE", help="Write what was built to a JSON file")


def _add_steps(parser: Parser) -> None:
    steps = parser.add_argument_group("How steps run")
    steps.add_argument(
        "--network",
        metavar="MODE",
        default="default",
        help="Network of RUN: default (its own, through slirp4netns or pasta; the host's where neither works), none or "
        "host (which allows network.host too)",
    )
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
        help="Agent or keys for RUN --mount=type=ssh and git; default is the agent of $SSH_AUTH_SOCK",
    )
    _add_list(
        steps,
        "--allow",
        metavar="NAME",
        help="Allow a RUN network.host, security.insecure or device; device=NAME[,alias=NAME] allows one of them",
    )
    _add_list(
        steps,
        "--cdi-spec-dir",
        metavar="DIR",
        help="Folder of device files for RUN --device, the last counts most (default: /etc/cdi, /var/run/cdi, "
        "/etc/buildkit/cdi)",
    )
    _add_isolation(steps)
    steps.add_argument(
        "--jobs",
        metavar="N",
        help="Steps that run at the same time (default: one for each processor, more while they are idle)",
    )
    steps.add_argument("--on", metavar="error", help="When a RUN fails, open a shell where it did; needs a terminal")
    steps.add_argument("--invoke", metavar="COMMAND", help="What to run then (default: /bin/sh); implies --on error")


def _add_cache(parser: Parser) -> None:
    cache = parser.add_argument_group("Cache and registries")
    cache.add_argument("--no-cache", action="store_true", help="Run every step")
    _add_list(cache, "--no-cache-filter", metavar="STAGES", help="Run every step of these stages")
    _add_list(
        cache,
        "--cache-from",
        metavar="SOURCE",
        help="Use an exported cache: the name of one or of an image that has one in it, type=registry,ref=NAME, "
        "type=local,src=DIR[,tag=TAG], type=s3,bucket=NAME,region=REGION or type=gha; what cannot be used is a warning",
    )
    _add_list(
        cache,
        "--cache-to",
        metavar="DEST",
        help="Export the cache: a name, type=registry,ref=NAME, type=local,dest=DIR[,tag=TAG], "
        "type=s3,bucket=NAME,region=REGION, type=gha, or type=inline for one within the image; mode=max takes the steps of all stages, min (default) those of the result; mounts=true takes "
        "cache mounts along; ignore-error=true lets the build go on",
    )
    cache.add_argument("--pull", action="store_true", help="Ask the registry for newer base images")
    _add_insecure(cache)
    _add_gc(cache)


def _add_shown(parser: Parser) -> None:
    shown = parser.add_argument_group("Output")
    _add_progress(shown)
    shown.add_argument("-q", "--quiet", action="store_true", help="Show no progress, print the image id")
    shown.add_argument(
        "--explain-cache",
        action="store_true",
        help="Say at the end which steps the cache had, and what changed for the others",
    )
    shown.add_argument("--check", action="store_true", help="Build nothing, check the Dockerfile: --call check")
    shown.add_argument(
        "--call",
        metavar="METHOD",
        default="build",
        help="build (default), or show check, outline or targets of the Dockerfile; with ,format=json as JSON",
    )


def _bake_parser() -> Parser:
    parser = Parser(
        "bake",
        "[TARGET...]",
        examples=(
            "pybuild bake                                   all targets, or those of the group default",
            "pybuild bake app --set app.tags=me/app:1.2 --push",
            "pybuild bake -f compose.yaml --print           show what would be built",
        ),
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    source = parser.add_argument_group("What is built")
    _add_list(
        source,
        "-f",
        "--file",
        metavar="FILE",
        help="Compose file or bake file, or - for standard input (default: compose.yaml, docker-bake.json, … that exist)",
    )
    _add_list(
        source,
        "--set",
        metavar="TARGET.KEY=VALUE",
        help="Replace a value, with += add to it; TARGET may be a pattern: *.platform=linux/arm64, app.args.VERSION=1.2",
    )
    _add_list(
        source, "--var", metavar="NAME=VALUE", help="Set a variable of the files; else it is from the environment"
    )
    _add_list(
        source,
        "--allow",
        metavar="NAME",
        help="Allow targets fs.read=DIR or fs.write=DIR outside the current folder, fs=DIR for both, ssh, network.host, "
        "security.insecure or device",
    )
    source.add_argument("--print", action="store_true", help="Build nothing, print the targets as JSON")
    source.add_argument(
        "--list",
        metavar="WHAT",
        help="Build nothing, list targets or variables; with type=targets,format=json as JSON",
    )
    source.add_argument("--check", action="store_true", help="Build nothing, check the Dockerfiles: --call check")
    source.add_argument("--call", metavar="METHOD", help="As for `pybuild build`, of each target")
    result = parser.add_argument_group("What comes out")
    result.add_argument("--push", action="store_true", help="Push the images: --set *.push=true")
    result.add_argument("--load", action="store_true", help="Keep the images in the store: --set *.load=true")
    parser.add_lone(result, "--provenance", metavar="true|KEY=VALUE,…", help="As for `pybuild build`, of all targets")
    parser.add_lone(result, "--sbom", metavar="true|KEY=VALUE,…", help="As for `pybuild build`, of all targets")
    result.add_argument("--metadata-file", metavar="FILE", help="Write what was built to a JSON file, by target")
    steps = parser.add_argument_group("How steps run")
    _add_isolation(steps)
    steps.add_argument(
        "--jobs",
        metavar="N",
        help="Steps that run at the same time (default: one for each processor, more while they are idle)",
    )
    cache = parser.add_argument_group("Cache and registries")
    cache.add_argument("--no-cache", action="store_true", help="Run every step: --set *.no-cache=true")
    cache.add_argument("--pull", action="store_true", help="Ask the registry for newer base images")
    _add_insecure(cache)
    _add_gc(cache)
    _add_progress(parser.add_argument_group("Output"))
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
    parser.add_argument(
        "--network",
        metavar="MODE",
        default="default",
        help="Network: default (its own, through slirp4netns or pasta; the host's where neither works), none or host",
    )
    _add_list(parser, "--add-host", metavar="HOST:IP", help="Add a line to /etc/hosts")
    _add_list(parser, "-v", "--volume", metavar="SOURCE:TARGET[:ro]", help="Show a folder of the host inside")
    _add_isolation(parser)
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
    parser = Parser(
        "prune",
        "",
        examples=("pybuild prune", "pybuild prune --all --max-used-space 10g", "pybuild prune -f --filter until=48h"),
    )
    parser.add_argument(
        "-a", "--all", action="store_true", help="Remove the whole cache, not only what nothing refers to"
    )
    parser.add_argument("-f", "--force", action="store_true", help="Do not ask")
    parser.add_argument("--dry-run", action="store_true", help="Only say what would be removed")
    _add_list(
        parser,
        "--filter",
        metavar="KEY=VALUE",
        help="What to remove: until=24h, type=exec.cachemount, id=…, description~=…, private, …",
    )
    parser.add_argument("--max-used-space", metavar="SIZE", help="Remove what was used least recently beyond this much")
    parser.add_argument("--min-free-space", metavar="SIZE", help="Remove until this much of the disk is free, or 20%%")
    parser.add_argument("--reserved-space", metavar="SIZE", help="Keep this much of what was used last in any case")
    parser.add_argument("--keep-storage", metavar="SIZE", help="Same as --reserved-space, as docker called it")
    parser.add_argument("--verbose", action="store_true", help="List what is removed")
    parser.add_common()
    return parser


def _doctor_parser() -> Parser:
    parser = Parser("doctor", "", examples=("pybuild doctor", "pybuild doctor --json"))
    parser.add_argument("--json", action="store_true", help="Print it as JSON")
    parser.add_common()
    return parser


def _df_parser() -> Parser:
    parser = Parser("df", "", examples=("pybuild df -v",))
    parser.add_argument("-v", "--verbose", action="store_true", help="List everything, kind by kind")
    _add_format(parser)
    parser.add_common()
    return parser


def _kaniko_parser() -> Parser:
    from builder.cli.kaniko_options import KanikoParser  # noqa: PLC0415  (many flags, for one verb)

    return KanikoParser()


_PARSERS: Final[Mapping[str, Callable[[], Parser]]] = {
    "build": _build_parser,
    "bake": _bake_parser,
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
    "doctor": _doctor_parser,
    "kaniko": _kaniko_parser,
}

_Container = argparse._ActionsContainer  # noqa: SLF001


def _add_list(container: _Container, *names: str, **settings: Any) -> None:
    container.add_argument(*names, action="append", default=[], **settings)


def _add_isolation(container: _Container) -> None:
    container.add_argument(
        "--isolation",
        metavar="NAME",
        help="auto (default), subids, single-id, chroot or none; `pybuild doctor` tells what this place allows",
    )


def _add_gc(container: _Container) -> None:
    container.add_argument(
        "--gc",
        metavar="off|KEY=SIZE,…",
        help="What the cache is held to at the end: min-free-space=20%%,reserved-space=10g,max-used-space=SIZE",
    )


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
