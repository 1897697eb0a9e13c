"""pybuild kaniko: `pybuild build` with the flags of kaniko's executor."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO

from builder.cli.arguments import parser_for
from builder.cli.build_request import parse_build
from builder.cli.kaniko_request import parse_kaniko
from builder.cli.lines import escape_line
from builder.cli.verbs.build import build_image
from registry.value import replace

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from builder.cli.environment import Environment
    from builder.cli.kaniko_request import DigestFiles
    from builder.pipeline import BuildResult
    from registry.oci.reference import Reference


def run(arguments: argparse.Namespace, environment: Environment) -> int:
    """Build, and say first on standard error what differs from kaniko."""
    asked = parse_kaniko(arguments, environment)
    for note in asked.notes:
        sys.stderr.write(f"pybuild: kaniko: {escape_line(note)}\n")
    sys.stderr.flush()
    with ExitStack() as stack:
        archive: BinaryIO | None = stack.enter_context(asked.archive.open("rb")) if asked.archive else None
        options = parser_for("build").parse(asked.words)
        request = parse_build(options, environment, archive=archive)
        additions = asked.additions
        if asked.certificates:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="pybuild-certs-")))
            _lay_out(asked.certificates, folder)
            additions = replace(additions, certificate_folders=(folder,))
        write = partial(_write_digests, asked.digest_files, request.tags)
        return build_image(request, options, environment, write=write, additions=additions)


def _lay_out(certificates: Mapping[str, Mapping[str, Path]], folder: Path) -> None:
    """Make a certs.d folder of links."""
    for host, files in certificates.items():
        (folder / host).mkdir()
        for name, path in files.items():
            (folder / host / name).symlink_to(path)


def _write_digests(files: DigestFiles, destinations: Sequence[Reference], result: BuildResult) -> None:
    """Write the files as kaniko does: the digest without a newline, names with one each."""
    digest = result.image.descriptor.digest
    texts = (
        (files.digest, digest),
        (files.named, "".join(f"{name.registry}/{name.repository}@{digest}\n" for name in destinations)),
        (files.tagged, "".join(f"{name.with_digest(digest)}\n" for name in destinations)),
    )
    for path, text in texts:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
