"""The same image whether the building user has sub-ids or one id only."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import _find_account, place
from tests.e2e.test_build import find_processes, wait_until_gone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.command import Pybuild

pytestmark = [
    pytest.mark.userns,
    pytest.mark.subids,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become users with and without sub-ids"),
]

EPOCH = "SOURCE_DATE_EPOCH=1700000000"
OUTPUT = "type=image,name=app,rewrite-timestamp=true"

OWNERS = """
FROM busybox AS made
RUN printf 'root:x:0:0:root:/root:/bin/sh\\napp:x:1000:1000::/home/app:/bin/sh\\n' > /etc/passwd \\
 && printf 'root:::0:::::\\napp:::0:::::\\n' > /etc/shadow && echo app:x:1000: > /etc/group \\
 && mkdir -p -m 750 /home/app && chown app:app /home/app && chmod 1777 /tmp
RUN mkdir -p /srv/d /srv/g && echo text > /srv/d/f && ln -s f /srv/d/l && mkfifo /srv/d/p && ln /srv/d/f /srv/d/h \\
 && chown -hR app:70 /srv/d && chown -h 5:6 /srv/d/l && chmod 6711 /srv/d/f && chgrp 70 /srv/g && chmod 2775 /srv/g
RUN touch /srv/g/a && mkdir /srv/g/b && su app -c 'cp -p /srv/d/f /tmp/copied; mkdir /tmp/own; ln -s x /tmp/own/l'
RUN cp -a /srv/d /srv/e && mv /srv/d/l /srv/d/m && chmod 600 /srv/d/h && rm /srv/e/f && touch /srv/e/f
USER app
WORKDIR /home/app/work/deep
RUN id > /tmp/id && touch mine && mkdir .cache && test "$(stat -c %u:%g mine)" = 1000:1000
USER 4711:12
RUN umask 077 && mkdir /tmp/number && touch /tmp/number/f
USER root

FROM busybox
RUN echo 'app:x:1000:1000::/:/bin/sh' > /etc/passwd
COPY --from=made /srv /srv
COPY --from=made --chown=app:7 /tmp /copied
COPY --from=made /home /home
COPY --chown=33:44 --chmod=4755 file /file
RUN --mount=type=bind,from=made,target=/m cp -a /m/srv /again && find / -xdev \\( -user 1000 -o -group 70 -o -user 33 \\) | sort > /found
"""

PACKAGES = """
FROM debian
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install --yes --no-install-recommends openssh-client libcap2-bin adduser \\
 && rm -rf /var/log /var/cache /var/lib/apt/lists /var/lib/dpkg /etc/ld.so.cache
RUN useradd --create-home app && cp /bin/true /capable && setcap cap_net_raw+ep /capable && cp /bin/true /lost \\
 && setcap cap_net_raw+ep /lost && chown app /lost && install -o app -g shadow -m 4750 /bin/true /installed
RUN su app -c 'ssh-keygen -q -t ed25519 -N "" -f ~/key; cp -a ~/key /tmp; rm ~/key*; : > /tmp/key' \\
 && setpriv --reuid 33 --regid 34 --clear-groups touch /tmp/set && rm -f /etc/*- && passwd -d app && rm -f /etc/*-
"""


@contextlib.contextmanager
def both(program: tuple[str, ...]) -> Iterator[tuple[Pybuild, Pybuild]]:
    """Give the command of the user with sub-ids, and that of the one without."""
    with (
        place(program, _find_account("pybuild-ci")) as many,
        place(program, _find_account("pybuild-ci-nosubid")) as one,
    ):
        yield many, one


def diff_ids(pybuild: Pybuild, dockerfile: str, *, base: Path, name: str) -> list[str]:
    """Build and return the layers of the image, base first."""
    pybuild("import", str(base), name)
    context = pybuild.context({"Dockerfile": dockerfile, "file": "text\n"})
    pybuild("build", "-q", "--build-arg", EPOCH, "-o", OUTPUT, context)
    return json.loads(pybuild("inspect", "app").out)[0]["RootFS"]["Layers"]


def test_layers_are_the_same_with_and_without_sub_ids(program: tuple[str, ...], busybox_archive: Path) -> None:
    """chown, links, FIFOs, set-id bits, su, USER, COPY --from and --chown give the same bytes."""
    with both(program) as commands:
        many, one = (diff_ids(command, OWNERS, base=busybox_archive, name="busybox") for command in commands)

    assert one == many
    assert len(one) > 5


@pytest.mark.debian
def test_packages_are_the_same_with_and_without_sub_ids(program: tuple[str, ...], debian_archive: Path) -> None:
    """Apt with its own user, useradd, install, setcap, su and setpriv on Debian give the same bytes."""
    with both(program) as commands:
        many, one = (diff_ids(command, PACKAGES, base=debian_archive, name="debian") for command in commands)

    assert one == many


def test_unpacked_layers_have_their_owners(program: tuple[str, ...], busybox_archive: Path) -> None:
    """Owners and devices of a base image are seen by steps, kept by their changes, copied and exported."""
    script = "mknod /srv/n b 7 8; mkdir /srv/d; touch /srv/d/f; ln -s f /srv/d/l; chown -hR 33:44 /srv"
    copied = (
        "FROM app AS base\nRUN chmod 600 /srv/d/f && stat -c %n:%u:%g:%t /srv /srv/d/f /srv/d/l /srv/n > /seen\n"
        "FROM scratch\nCOPY --from=base /srv /srv\nCOPY --from=base /seen /seen\n"
    )
    with place(program, _find_account("pybuild-ci-nosubid")) as pybuild:
        pybuild("import", str(busybox_archive), "busybox")
        first = pybuild.context({"Dockerfile": f"FROM busybox\nRUN {script}\n"})
        pybuild("build", "-q", "-t", "app", first)
        pybuild("save", "-o", "app.tar", "app")
        pybuild("load", "--root", "other", "-i", "app.tar")
        second = pybuild.context({"Dockerfile": copied}, "second")
        pybuild("build", "-q", "--root", "other", "-o", "type=tar,dest=out.tar", second)
        with tarfile.open(pybuild.folder / "out.tar") as archive:
            found = {m.name.strip("./"): (m.type, m.uid, m.gid, m.devmajor, m.devminor) for m in archive}
            seen = archive.extractfile("seen")
            assert seen is not None
            lines = seen.read().decode().split()

    assert lines == ["/srv:33:44:0", "/srv/d/f:33:44:0", "/srv/d/l:33:44:0", "/srv/n:33:44:7"]
    assert {name: value for name, value in found.items() if name.startswith("srv")} == {
        "srv": (tarfile.DIRTYPE, 0, 0, 0, 0),  # COPY makes it
        "srv/d": (tarfile.DIRTYPE, 33, 44, 0, 0),
        "srv/d/f": (tarfile.REGTYPE, 33, 44, 0, 0),
        "srv/d/l": (tarfile.SYMTYPE, 33, 44, 0, 0),
        "srv/n": (tarfile.BLKTYPE, 33, 44, 7, 8),
    }


def test_cached_owners_are_those_of_the_first_build(program: tuple[str, ...], busybox_archive: Path) -> None:
    """A rebuild unpacks a cached layer with its owners, also after prune took what was unpacked."""
    with place(program, _find_account("pybuild-ci-nosubid")) as pybuild:
        pybuild("import", str(busybox_archive), "busybox")
        start = "FROM busybox\nRUN mkdir /d && touch /d/f && chown -R 33:44 /d\n"
        pybuild("build", "-q", pybuild.context({"Dockerfile": start}))
        for folder in (pybuild.root / "snapshots").iterdir():
            pybuild.run_other("rm", "-rf", str(folder))
        check = f"{start}RUN test $(stat -c %u:%g /d) = 33:44 && test $(stat -c %u:%g /d/f) = 33:44\n"
        pybuild("build", "-q", pybuild.context({"Dockerfile": check}))


def test_cache_mount_keeps_owners(program: tuple[str, ...], busybox_archive: Path) -> None:
    """Files in a cache mount have the owners an earlier step gave them, and the cache the one it was asked for."""
    mount = "RUN --mount=type=cache,target=/c,uid=5,gid=6,mode=0770"
    dockerfile = (
        f"FROM busybox\n{mount} touch /c/f && chown 33:44 /c/f\n"
        f"{mount} test $(stat -c %u:%g /c/f) = 33:44 && test $(stat -c %u:%g:%a /c) = 5:6:770\n"
    )
    with place(program, _find_account("pybuild-ci-nosubid")) as pybuild:
        pybuild("import", str(busybox_archive), "busybox")
        pybuild("build", "-q", pybuild.context({"Dockerfile": dockerfile}))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_ended_build_leaves_no_supervisor(
    program: tuple[str, ...], busybox_archive: Path, number: signal.Signals
) -> None:
    """However a build with one id ends, no process of it is left, and the next one works."""
    with place(program, _find_account("pybuild-ci-nosubid")) as pybuild:
        pybuild("import", str(busybox_archive), "busybox")
        context = pybuild.context(
            {"Dockerfile": "FROM busybox\nRUN touch f && chown 3 f && echo begun && sleep 4242\n"}
        )
        with pybuild.start("build", "--progress", "plain", context) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if line.rstrip().endswith(b" begun"):
                    break
            started = set(find_processes(pybuild))
            process.send_signal(number)

        assert len(started) > 1
        wait_until_gone(pybuild)
        pybuild("build", "-q", pybuild.context({"Dockerfile": "FROM busybox\nRUN touch f && chown 3 f\n"}))
        assert list((pybuild.root / "tmp").iterdir()) == []
