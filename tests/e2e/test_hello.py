"""The three lines that the README promises, as each kind of user."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.command import Pybuild

EXAMPLE = {
    "helloworld": '#!/bin/sh\necho "Hello $1"\n',
    "Dockerfile": (
        "FROM busybox\n"
        "RUN mkdir -p /srv/made && echo made > /srv/made/by-a-step\n"
        "COPY helloworld /root/\n"
        "RUN chmod +x /root/helloworld\n"
        'ENTRYPOINT ["/root/helloworld"]\n'
    ),
}


@pytest.mark.userns
def test_hello_prints_the_name(pybuild_of_each: Pybuild, busybox_archive: Path) -> None:
    """The example is built, listed and run by a user with sub-ids, one without, and root."""
    pybuild = pybuild_of_each
    pybuild("import", str(busybox_archive), "busybox")

    pybuild("--context", pybuild.context(EXAMPLE), "--tag", "myhelloworld:1.0")

    assert any(line.split()[:2] == ["myhelloworld", "1.0"] for line in pybuild("images").lines)
    assert pybuild("run", "myhelloworld:1.0", "Alice").out == "Hello Alice\n"


@pytest.mark.userns
@pytest.mark.subids
@pytest.mark.debian
def test_hello_on_debian_installs_python(pybuild: Pybuild, debian_archive: Path) -> None:
    """The example that ci/hello builds without a registry works: apt-get in a step, then Python in the image."""
    from tests.e2e.conftest import CHECKOUT  # noqa: PLC0415  a conftest is not imported at the top of a module

    pybuild("import", str(debian_archive), "debian:bookworm")
    example = {path.name: path.read_text() for path in (CHECKOUT / "ci" / "example").iterdir() if path.is_file()}
    context = pybuild.context(example)

    pybuild("--context", context, "--file", f"{context}/Dockerfile.debian", "--tag", "myhelloworld:1.0")

    assert pybuild("run", "myhelloworld:1.0", "Alice").out == "Hello Alice\n"


@pytest.mark.userns
@pytest.mark.subids
@pytest.mark.debian
def test_debian_base_keeps_owners_and_modes(pybuild: Pybuild, debian_archive: Path) -> None:
    """Files of other users, set-id bits and users switched to in a step are the same in the image."""
    pybuild("import", str(debian_archive), "debian:bookworm")
    dockerfile = (
        "FROM debian:bookworm\n"
        "RUN useradd --create-home --uid 1234 alice && su alice -c 'echo mine > ~/file' && chmod 2750 /home/alice\n"
        "USER alice\n"
        "CMD stat -c '%u:%g %a' /home/alice /home/alice/file /usr/bin/passwd /etc/shadow && id -un\n"
    )

    pybuild("--context", pybuild.context({"Dockerfile": dockerfile}), "--tag", "owners")

    expected = ["1234:1234 2750", "1234:1234 644", "0:0 4755", "0:42 640", "alice"]
    assert pybuild("run", "owners").lines == expected
