"""The options of the verbs that do not build."""

from __future__ import annotations

from builder.cli.arguments import Container, Parser, add_insecure, add_isolation, add_list, add_progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final


def _run_parser() -> Parser:
    parser = Parser(
        "run",
        "IMAGE [COMMAND] [ARGUMENT...]",
        examples=("pybuild run myhelloworld:1.0 Alice", "pybuild run -it --entrypoint sh myhelloworld:1.0"),
    )
    parser.add_argument("image", metavar="IMAGE")
    parser.add_remainder("command", metavar="COMMAND")
    add_list(
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
    add_list(parser, "--add-host", metavar="HOST:IP", help="Add a line to /etc/hosts")
    add_list(parser, "-v", "--volume", metavar="SOURCE:TARGET[:ro]", help="Show a folder of the host inside")
    add_isolation(parser)
    parser.add_argument("--shm-size", metavar="SIZE", help="Size of /dev/shm (default: 64m)")
    add_list(parser, "--ulimit", metavar="NAME=SOFT[:HARD]", help="Limit of the command")
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
    add_insecure(parser)
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
    add_list(parser, "-c", "--change", metavar="INSTRUCTION", help="Apply a Dockerfile instruction to the image")
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
    add_insecure(parser)
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
    add_list(
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


def _add_format(container: Container) -> None:
    container.add_argument(
        "--format",
        metavar="FORM",
        default="table",
        choices=("table", "json"),
        help="table (default) or json, one object a line",
    )


def _add_transfer(container: Container) -> None:
    container.add_argument(
        "--platform", metavar="OS/ARCH", help="Platform of an image for several (default: this machine's)"
    )
    container.add_argument("-q", "--quiet", action="store_true", help="Show no progress")
    add_progress(container)
    add_insecure(container)


PARSERS: Final[Mapping[str, Callable[[], Parser]]] = {
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
}
"""What makes the parser of each of them."""
