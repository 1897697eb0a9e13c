"""The flags of kaniko's executor, and what becomes of each.

A flag is *carried out*, or *noted*: accepted, with a line that says what differs, or *refused*, with what to use
instead. Switches are Go's: `--x`, `--x=true`, `--x=false`, the last one counts.

Source: GoogleContainerTools/kaniko, README.md, section Additional Flags; cmd/executor/cmd/root.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from builder.cli.arguments import SWITCH_VALUES, Parser
from builder.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


class Flag(NamedTuple):
    """One flag of the executor.

    Attributes:
        names: its spellings; the first with two dashes is the one that messages use.
        metavar: what its value is called; empty for a switch.
        help: what it does here; empty leaves it out of the help.
        repeats: whether it may be given several times.
        note: what differs, said when it is given.
        refusal: why it is refused when it is given.
        hint: what to use instead of a refused one.
    """

    names: tuple[str, ...]
    metavar: str = ""
    help: str = ""
    repeats: bool = False
    note: str = ""
    refusal: str = ""
    hint: str = ""

    @property
    def name(self) -> str:
        """The spelling that messages use."""
        return next(name for name in self.names if name.startswith("--"))

    @property
    def field(self) -> str:
        """Where the parsed value lies."""
        return self.name.removeprefix("--").replace("-", "_")


_STORE: Final = "layers are kept in the store, see --root"
_SNAPSHOTS: Final = "has no effect: what a step changed is read from its own layer, no snapshot is compared"

_SOURCE: Final = (
    Flag(
        ("-c", "--context"),
        "PLACE",
        "What the build may read: a folder, dir://DIR, tar://FILE, tar://stdin, git://HOST/PATH[#REF] or https:// "
        "(default: /workspace)",
    ),
    Flag(("--context-sub-path",), "DIR", "Folder in the context that counts"),
    Flag(("-f", "--dockerfile"), "FILE", "Dockerfile, from here or in the context (default: Dockerfile)"),
    Flag(("--build-arg",), "NAME[=VALUE]", "Set an ARG of the Dockerfile", repeats=True),
    Flag(("--target",), "STAGE", "Stage to build (default: the last)"),
    Flag(("--custom-platform", "--customPlatform"), "OS/ARCH", "Platform of the image (default: this machine's)"),
    Flag(("--git",), "KEY=VALUE,…", "Of a git context: branch=, single-branch=, recurse-submodules="),
)
_RESULT: Final = (
    Flag(("-d", "--destination"), "NAME[:TAG]", "Name of the image, where it is pushed to", repeats=True),
    Flag(("--no-push",), help="Push nothing; the image stays in the store, unless it goes to a tar or layout"),
    Flag(("--tar-path", "--tarPath"), "FILE", "Write the image to a docker archive too"),
    Flag(("--oci-layout-path",), "DIR", "Write the image to an OCI image layout too"),
    Flag(("--digest-file",), "FILE", "Write the digest to a file"),
    Flag(("--image-name-with-digest-file",), "FILE", "Write NAME@DIGEST to a file, a line a destination"),
    Flag(("--image-name-tag-with-digest-file",), "FILE", "Write NAME:TAG@DIGEST to a file, a line a destination"),
    Flag(("--label",), "NAME=VALUE", "Set a label of the image", repeats=True),
    Flag(("--reproducible",), help="Times become 1970: SOURCE_DATE_EPOCH=0 and rewrite-timestamp=true"),
    Flag(("--compression",), "KIND", "Layers as gzip or zstd (default: gzip)"),
    Flag(("--compression-level",), "N", "How hard layers are compressed (-1: as usual)"),
)
_REGISTRIES: Final = (
    Flag(("--insecure",), help="Push over plain HTTP"),
    Flag(("--skip-tls-verify",), help="Push whatever the registry's certificate"),
    Flag(("--insecure-registry",), "HOST", "Registry that speaks plain HTTP", repeats=True),
    Flag(("--skip-tls-verify-registry",), "HOST", "Registry with a bad certificate", repeats=True),
    Flag(("--registry-certificate",), "HOST=FILE", "Certificate authority of a registry", repeats=True),
    Flag(("--registry-client-cert",), "HOST=CERT,KEY", "Our certificate and key for a registry", repeats=True),
    Flag(("--registry-mirror",), "HOST[/PATH]", "Asked before docker.io, in this order", repeats=True),
    Flag(("--skip-default-registry-fallback",), help="Ask the mirrors alone, not docker.io"),
)
_CACHE: Final = (
    Flag(("--cache",), help="false runs every step; steps are cached in the store anyway"),
    Flag(("--cache-repo",), "NAME", "With --cache, a cache to use and to add to: a repository or oci:DIR"),
    Flag(("--no-push-cache",), help="Use the cache of --cache-repo, add nothing"),
)
_OUTPUT: Final = (
    Flag(("-v", "--verbosity"), "LEVEL", "debug and trace show plain progress; warn, error, fatal and panic none"),
    Flag(("--log-format",), "FORM", "text, color or json, which is BuildKit's rawjson"),
    Flag(("--kaniko-dir",), "DIR", "Folder with .docker/config.json, read after other credentials (default: /kaniko)"),
)
_ANY_REGISTRY: Final = "no registry at all would be checked"
_NOTED: Final = (
    Flag(("--cache-dir",), "DIR", note="has no effect: base images are kept in the store, see --root"),
    Flag(("--cache-ttl",), "TIME", note="has no effect: cached steps are kept until `pybuild prune`"),
    Flag(("--cache-copy-layers",), note="has no effect: COPY is always cached"),
    Flag(("--cache-run-layers",), note="has no effect: RUN is always cached; --cache=false runs every step"),
    Flag(("--compressed-caching",), note=f"has no effect: {_STORE}"),
    Flag(("--snapshot-mode", "--snapshotMode"), "MODE", note=_SNAPSHOTS),
    Flag(("--use-new-run",), note=_SNAPSHOTS),
    Flag(("--single-snapshot",), note="has no effect: every step that changes files has a layer"),
    Flag(("--cleanup",), note="has no effect: the build does not touch the files of this machine"),
    Flag(("--force",), note="has no effect: the build runs outside of containers too"),
    Flag(("--ignore-path",), "PATH", repeats=True, note="has no effect: nothing of this machine gets into a layer"),
    Flag(
        ("--ignore-var-run", "--whitelist-var-run"),
        note="has no effect: /var/run of the image is kept as the steps leave it",
    ),
    Flag(("--image-fs-extract-retry",), "N", note="has no effect: transfers are tried again as often as is useful"),
    Flag(("--image-download-retry",), "N", note="has no effect: transfers are tried again as often as is useful"),
    Flag(("--push-retry",), "N", note="has no effect: transfers are tried again as often as is useful"),
    Flag(("--skip-unused-stages",), note="has no effect: only stages that the result needs are built"),
    Flag(("--skip-push-permission-check",), note="has no effect: leave to push is not asked for before the build"),
    Flag(("--log-timestamp",), note="has no effect: plain progress says how long each step took"),
    Flag(("--initial-fs-unpacked",), note="has no effect: a base image is never unpacked over this machine"),
    Flag(("--force-build-metadata",), note="has no effect: metadata makes no layers"),
)
_REFUSED: Final = (
    Flag(("--insecure-pull",), refusal=_ANY_REGISTRY, hint="name it: --insecure-registry HOST"),
    Flag(("--skip-tls-verify-pull",), refusal=_ANY_REGISTRY, hint="name it: --skip-tls-verify-registry HOST"),
    Flag(
        ("--push-ignore-immutable-tag-errors",),
        refusal="a push that the registry refused cannot count as done",
        hint="drop it, or push a tag that is not there yet",
    ),
    Flag(
        ("--registry-map",),
        "MAP",
        repeats=True,
        refusal="other registries are mapped in registries.conf only",
        hint="write it to ~/.config/containers/registries.conf, see containers-registries.conf(5)",
    ),
    Flag(
        ("-b", "--bucket"),
        "NAME",
        refusal="contexts in buckets cannot be read",
        hint="fetch it before, then --context tar://FILE",
    ),
)
_GROUPS: Final = (
    ("What is built", _SOURCE),
    ("What comes out", _RESULT),
    ("Registries", _REGISTRIES),
    ("Cache", _CACHE),
    ("Output", _OUTPUT),
)

FLAGS: Final = (*(flag for _, flags in _GROUPS for flag in flags), *_NOTED, *_REFUSED)
"""All of them."""


class KanikoParser(Parser):
    """The parser of `pybuild kaniko`. A switch that is not given is None."""

    def __init__(self) -> None:
        super().__init__(
            "kaniko",
            "",
            examples=(
                "pybuild kaniko --context dir://. --destination registry.example.com/team/app:1.2",
                "pybuild kaniko -c . --no-push --tar-path app.tar --destination app:1.2",
            ),
        )
        for title, flags in _GROUPS:
            group = self.add_argument_group(title)
            for flag in flags:
                _add(group, flag)
        for flag in (*_NOTED, *_REFUSED):
            _add(self, flag)
        self.add_common()

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse *argv*; as `Parser.parse`, but `--switch=false` is told from no switch.

        Raises:
            UsageError: as there, or a switch is neither true nor false.
            HelpRequest: `--help` is among them.
        """
        settled = _switches(argv)
        arguments = super().parse(argv)
        for field, value in settled.items():
            setattr(arguments, field, value)
        arguments.given = tuple(flag for flag in FLAGS if getattr(arguments, flag.field) not in (None, []))
        return arguments

    def format_help(self) -> str:
        """Return the help, with the names of flags that do nothing and of those that are refused."""
        return (
            super().format_help()
            + f"\nAccepted without effect, each with a line that says why:\n{_list(_NOTED)}"
            + f"\nRefused, each with what to use instead:\n{_list(_REFUSED)}"
        )


def _add(container: argparse._ActionsContainer, flag: Flag) -> None:
    import argparse  # noqa: PLC0415  (loaded by `Parser`; here for one word)

    text = flag.help or argparse.SUPPRESS
    if not flag.metavar:
        container.add_argument(*flag.names, dest=flag.field, action="store_const", const=True, help=text)
    elif flag.repeats:
        container.add_argument(
            *flag.names, dest=flag.field, metavar=flag.metavar, action="append", default=[], help=text
        )
    else:
        container.add_argument(*flag.names, dest=flag.field, metavar=flag.metavar, help=text)


def _switches(argv: Sequence[str]) -> dict[str, bool]:
    """Return what each switch among *argv* says; the last one counts."""
    fields = {name: flag.field for flag in FLAGS if not flag.metavar for name in flag.names}
    settled: dict[str, bool] = {}
    for word in argv:
        name, equals, text = word.partition("=")
        if name not in fields:
            continue
        value = SWITCH_VALUES.get(text.lower()) if equals else True
        if value is None:
            raise UsageError(f"option {name} is true or false, not `{text}`", hint="see `pybuild kaniko --help`")
        settled[fields[name]] = value
    return settled


def _list(flags: Sequence[Flag]) -> str:
    from textwrap import wrap  # noqa: PLC0415  (only for help)

    lines = wrap(" ".join(flag.name for flag in flags), 90, break_on_hyphens=False)
    return "".join(f"  {line}\n" for line in lines)
