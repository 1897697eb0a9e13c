"""The options of the verbs that build: `build`, and `bake`, whose targets take the rest from files."""

from __future__ import annotations

from builder.cli.arguments import Container, Parser, add_insecure, add_isolation, add_list, add_progress


def build_parser() -> Parser:
    """Make the parser of `build`."""
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
    add_list(
        source,
        "--build-context",
        metavar="NAME=VALUE",
        help="What stands for a stage or image: a folder, docker-image://, oci-layout://, a git repository or a tar",
    )
    source.add_argument("--target", metavar="STAGE", help="Stage to build (default: the last)")
    add_list(
        source,
        "--platform",
        metavar="OS/ARCH,…",
        help="Platforms of the image (default: this machine's); several make an index",
    )
    add_list(source, "--build-arg", metavar="NAME[=VALUE]", help="Set an ARG; without a value, from the environment")


def _add_results(parser: Parser) -> None:
    result = parser.add_argument_group("What comes out")
    add_list(result, "-t", "--tag", metavar="NAME[:TAG]", help="Name of the image")
    add_list(
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
    add_list(result, "--label", metavar="NAME=VALUE", help="Set a label of the image")
    add_list(
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
    add_list(
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
    add_list(steps, "--add-host", metavar="HOST:IP", help="Add a line to /etc/hosts of RUN")
    steps.add_argument("--shm-size", metavar="SIZE", help="Size of /dev/shm (default: 64m)")
    add_list(steps, "--ulimit", metavar="NAME=SOFT[:HARD]", help="Limit of RUN")
    add_list(
        steps,
        "--secret",
        metavar="id=ID,src=FILE",
        help="Secret for RUN --mount=type=secret: a file, or env=NAME for a variable",
    )
    add_list(
        steps,
        "--ssh",
        metavar="ID[=SOCKET|KEY,…]",
        help="Agent or keys for RUN --mount=type=ssh and git; default is the agent of $SSH_AUTH_SOCK",
    )
    add_list(
        steps,
        "--allow",
        metavar="NAME",
        help="Allow a RUN network.host, security.insecure or device; device=NAME[,alias=NAME] allows one of them",
    )
    add_list(
        steps,
        "--cdi-spec-dir",
        metavar="DIR",
        help="Folder of device files for RUN --device, the last counts most (default: /etc/cdi, /var/run/cdi, "
        "/etc/buildkit/cdi)",
    )
    add_isolation(steps)
    _add_jobs(steps)
    steps.add_argument("--on", metavar="error", help="When a RUN fails, open a shell where it did; needs a terminal")
    steps.add_argument("--invoke", metavar="COMMAND", help="What to run then (default: /bin/sh); implies --on error")


def _add_cache(parser: Parser) -> None:
    cache = parser.add_argument_group("Cache and registries")
    cache.add_argument("--no-cache", action="store_true", help="Run every step")
    add_list(cache, "--no-cache-filter", metavar="STAGES", help="Run every step of these stages")
    add_list(
        cache,
        "--cache-from",
        metavar="SOURCE",
        help="Use an exported cache: the name of one or of an image that has one in it, type=registry,ref=NAME, "
        "type=local,src=DIR[,tag=TAG], type=s3,bucket=NAME,region=REGION or type=gha; what cannot be used is a warning",
    )
    add_list(
        cache,
        "--cache-to",
        metavar="DEST",
        help="Export the cache: a name, type=registry,ref=NAME, type=local,dest=DIR[,tag=TAG], "
        "type=s3,bucket=NAME,region=REGION, type=gha, or type=inline for one within the image; mode=max takes the steps of all stages, min (default) those of the result; mounts=true takes "
        "cache mounts along; ignore-error=true lets the build go on",
    )
    cache.add_argument("--pull", action="store_true", help="Ask the registry for newer base images")
    add_insecure(cache)
    _add_gc(cache)


def _add_shown(parser: Parser) -> None:
    shown = parser.add_argument_group("Output")
    add_progress(shown)
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


def bake_parser() -> Parser:
    """Make the parser of `bake`."""
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
    add_list(
        source,
        "-f",
        "--file",
        metavar="FILE",
        help="Compose file or bake file, or - for standard input (default: compose.yaml, docker-bake.json, … that exist)",
    )
    add_list(
        source,
        "--set",
        metavar="TARGET.KEY=VALUE",
        help="Replace a value, with += add to it; TARGET may be a pattern: *.platform=linux/arm64, app.args.VERSION=1.2",
    )
    add_list(source, "--var", metavar="NAME=VALUE", help="Set a variable of the files; else it is from the environment")
    add_list(
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
    add_isolation(steps)
    _add_jobs(steps)
    cache = parser.add_argument_group("Cache and registries")
    cache.add_argument("--no-cache", action="store_true", help="Run every step: --set *.no-cache=true")
    cache.add_argument("--pull", action="store_true", help="Ask the registry for newer base images")
    add_insecure(cache)
    _add_gc(cache)
    add_progress(parser.add_argument_group("Output"))
    parser.add_common()
    return parser


def _add_jobs(container: Container) -> None:
    container.add_argument(
        "--jobs",
        metavar="N",
        help="Steps that run at the same time (default: one for each processor, more while they are idle)",
    )


def _add_gc(container: Container) -> None:
    container.add_argument(
        "--gc",
        metavar="off|KEY=SIZE,…",
        help="What the cache is held to at the end: min-free-space=20%%,reserved-space=10g,max-used-space=SIZE",
    )
