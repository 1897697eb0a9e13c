"""The store keeps itself in bounds: what it takes on disk, what prune and builds remove, and what a kill leaves."""

from __future__ import annotations

import glob
import json
import os
import re
import signal
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e.command import Done, Pybuild

pytestmark = pytest.mark.userns

MIB = 1024 * 1024

OWNED = """\
FROM busybox
RUN dd if=/dev/urandom of=/srv/random bs=1M count=4 && chown 33:33 /srv/random && ln /srv/random /srv/again
RUN --mount=type=cache,target=/c,id=things dd if=/dev/urandom of=/c/file bs=1M count=2
RUN mkdir -m 700 /srv/closed && echo x > /srv/closed/file && chown -R 33 /srv/closed
COPY . /context
"""

WAITING = """\
FROM busybox
RUN dd if=/dev/urandom of=/srv/first bs=1M count=2
RUN --mount=type=bind,target=/context echo waiting && until [ -e /context/go ]; do sleep 0.05; done
COPY file /srv/file
RUN cat /srv/first /srv/file > /srv/both
"""


def layer(name: str, *, mib: int = 2) -> str:
    """Return a Dockerfile whose step makes a layer of this size that nothing compresses."""
    return f"FROM busybox\nRUN echo {name} && dd if=/dev/urandom of=/srv/{name} bs=1M count={mib}\n"


def du(pybuild: Pybuild) -> int:
    """Count what the root takes on disk, in the files of every id."""
    command = ["du", "-s", "--block-size=1", str(pybuild.root)]
    if os.geteuid() != 0:
        command = ["unshare", "--user", "--map-root-user", "--map-auto", *command]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0])


def df(pybuild: Pybuild) -> dict[str, dict[str, Any]]:
    """Return the summary of df by kind."""
    return {row["Type"]: row for row in map(json.loads, pybuild("df", "--format", "json").lines)}


def df_size(pybuild: Pybuild) -> int:
    """Return the bytes that df finds."""
    return sum(row["Size"] for row in df(pybuild).values())


def build(
    pybuild: Pybuild, dockerfile: str, *options: str, status: int = 0, files: dict[str, str] | None = None
) -> Done:
    """Build, with progress as text."""
    context = pybuild.context({"Dockerfile": dockerfile, **(files or {})})
    return pybuild("build", "--progress", "plain", *options, context, status=status)


def lines_until(process: subprocess.Popen[bytes], text: bytes) -> None:
    """Read standard error until a line with this text."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if text in line:
            return
    raise AssertionError(f"no {text!r} in {b''.join(seen)!r}")


# What df says


def test_df_agrees_with_du(pybuild_of_each: Pybuild, busybox_archive: Path) -> None:
    """The size that df finds is that of du to 2 %, with files of other ids, measured and remembered."""
    pybuild = pybuild_of_each
    pybuild("import", str(busybox_archive), "busybox")
    build(pybuild, OWNED, "--tag", "app", files={"file": "x" * 100_000})
    first, second = df_size(pybuild), df_size(pybuild)
    truth = du(pybuild)

    assert truth > 12 * MIB
    assert abs(first - truth) < truth / 50
    assert abs(second - truth) < truth / 50


def test_df_tells_what_could_be_reclaimed(with_busybox: Pybuild) -> None:
    """What df calls reclaimable is what prune of everything gives back."""
    build(with_busybox, OWNED, "--tag", "app")
    build(with_busybox, layer("unnamed"))
    rows = df(with_busybox)
    before = du(with_busybox)
    done = with_busybox("prune", "--all", "--force")
    freed = before - du(with_busybox)

    reclaimable = sum(row["Reclaimable"] for row in rows.values())
    assert [rows[kind]["TotalCount"] for kind in ("Images", "Snapshots", "Cache mounts")] == [3, 5, 1]
    assert abs(freed - reclaimable) < 200_000
    assert "1 images without a name, 5 cache records, 5 snapshots, 1 cache mounts" in done.out


def test_df_lists_everything_by_kind(with_busybox: Pybuild) -> None:
    """The long form names images, steps, snapshots, cache mounts, files of state."""
    build(with_busybox, OWNED, "--tag", "app")
    found = json.loads(with_busybox("df", "--verbose", "--format", "json").out)
    text = with_busybox("df", "-v").out

    assert list(found) == ["Images", "Layers", "Snapshots", "CacheMounts", "State", "Temporary"]
    assert [row["Description"] for row in found["Images"]] == ["app:latest", "busybox:latest"]
    assert found["Layers"][0]["Description"] == "COPY . /context"
    assert [(row["Type"], row["Description"]) for row in found["CacheMounts"]] == [("exec.cachemount", "things")]
    assert found["CacheMounts"][0]["Size"] > 2 * MIB
    assert "state.db" in {row["ID"] for row in found["State"]}
    assert re.search(r"^[0-9a-f]{12} +regular .* RUN --mount=type=cache", text, re.MULTILINE)


# What prune removes


def test_prune_keeps_what_was_used_last(with_busybox: Pybuild) -> None:
    """Of two builds the one that was used last stays cached, and a build that was all cached is a use."""
    build(with_busybox, layer("a"))
    build(with_busybox, layer("b"))
    build(with_busybox, layer("a"))
    with_busybox("prune", "--force", "--max-used-space", "3m")  # one of the layers

    assert "CACHED" in build(with_busybox, layer("a")).err.split("RUN")[1]
    assert "CACHED" not in build(with_busybox, layer("b")).err.split("RUN")[1]


@pytest.mark.parametrize(
    ("options", "removed"),
    [
        (["--filter", "type=exec.cachemount"], "0 cache records, 0 snapshots, 1 cache mounts, 0 blobs"),
        (["--filter", "until=24h"], "0 cache records, 0 snapshots, 0 cache mounts, 0 blobs"),
        (["--filter", "description~=^COPY"], "1 cache records, 0 snapshots, 0 cache mounts, 0 blobs"),
        (["--filter", "unused-for=0s"], "4 cache records, 4 snapshots, 1 cache mounts, 0 blobs"),
        (["--keep-storage", "1g"], "0 cache records, 0 snapshots, 0 cache mounts, 0 blobs"),
        (["--all", "--min-free-space", "1k"], "0 cache records, 0 snapshots, 0 cache mounts, 0 blobs"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_prune_removes_what_filters_and_limits_mean(with_busybox: Pybuild, options: list[str], removed: str) -> None:
    """Only what is meant goes; said beforehand by a dry run, which removes nothing; the image still works."""
    build(with_busybox, OWNED, "--tag", "app")
    preview = with_busybox("prune", "--dry-run", *options)
    done = with_busybox("prune", "--force", *options)

    assert f"would remove 0 images without a name, {removed}\n" in preview.out
    assert f"removed 0 images without a name, {removed}\n" in done.out
    assert preview.out.splitlines()[-1].split(": ")[1] == done.lines[-1].split(": ")[1]
    assert with_busybox("run", "app", "ls", "/srv/random").out == "/srv/random\n"


def test_prune_lists_what_it_removes(with_busybox: Pybuild) -> None:
    """With --verbose each thing is a line with its size."""
    build(with_busybox, layer("a"))
    lines = with_busybox("prune", "--all", "--force", "--verbose").lines

    assert lines[0].split() == ["ID", "TYPE", "SIZE", "LAST", "USED", "DESCRIPTION"]
    assert any("image" in line and "<none>" in line for line in lines)
    assert any(re.search(r"regular +.* RUN echo a", line) for line in lines)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["df", "--root", "missing"], 2, "store does not exist: `.*/missing`"),
        (["prune", "--force", "--root", "missing"], 2, "store does not exist: `.*/missing`"),
        (["df", "--root", "/etc"], 2, "folder is no store of pybuild: `/etc`"),
        (["df", "--root", "closed"], 5, "store cannot be used, Permission denied: `.*/closed`"),
        (["prune", "--force", "--root", "fixed"], 5, "store cannot be used, Permission denied: `.*/fixed/"),
        (["prune", "--force", "--keep-storage", "much"], 2, "invalid size for --keep-storage: `much`"),
        (["prune", "--force", "--max-used-space", "200%"], 2, "invalid size for --max-used-space: `200%`"),
        (["prune", "--force", "--keep-storage", "1", "--reserved-space", "1"], 2, "are the same"),
        (["prune", "--force", "--filter", "inuse"], 2, "filter is not supported"),
        (["prune"], 2, "standard input is no terminal"),
        (["build", "--gc", "sometimes", "context"], 2, "invalid --gc: `sometimes`"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_said(with_busybox: Pybuild, arguments: list[str], status: int, message: str) -> None:
    """One message, the right status, nothing made and no traceback."""
    with_busybox.context({"Dockerfile": "FROM busybox\n"})
    for name in ("closed/images", "fixed/images", "fixed/snapshots", "fixed/tmp"):
        with_busybox.run_other("mkdir", "-p", name)
    with_busybox.run_other("chmod", "0", "closed")
    with_busybox.run_other("chmod", "555", "fixed/tmp", "fixed")
    done = with_busybox(*arguments, status=status)

    assert re.search(message, done.err)
    assert "Traceback" not in done.err
    assert not (with_busybox.folder / "missing").exists()


# Beside running builds


@pytest.fixture
def waiting(with_busybox: Pybuild) -> Iterator[Callable[[], tuple[int, str]]]:
    """Start a build that waits in a step; the value lets it go on, and gives its status and what it wrote."""
    context = with_busybox.context({"Dockerfile": WAITING, "file": "file\n"})
    with with_busybox.start("build", "--progress", "plain", "--tag", "app", context) as process:
        lines_until(process, b"waiting\n")

        def finish() -> tuple[int, str]:
            with_busybox.context({"go": ""})
            _, err = process.communicate(timeout=120)
            return process.returncode, err.decode()

        yield finish
        process.kill()


def test_prune_beside_a_build_leaves_what_the_build_uses(
    with_busybox: Pybuild, waiting: Callable[[], tuple[int, str]]
) -> None:
    """Everything else goes at once, the base loses its name meanwhile, and the build ends well."""
    pybuild = with_busybox
    context = pybuild.context({"Dockerfile": layer("other", mib=4)}, "another")
    pybuild("build", "--quiet", context)
    pybuild("rmi", "busybox")
    pruned = pybuild("prune", "--all", "--force").out
    status, err = waiting()

    assert status == 0, err
    assert "1 images without a name, 1 cache records" in pruned
    assert pybuild("run", "app", "sh", "-c", "tail -n 1 /srv/both").out.endswith("file\n")
    assert abs(df_size(pybuild) - du(pybuild)) < du(pybuild) / 50


def test_builds_and_prunes_at_once_lose_nothing(with_busybox: Pybuild) -> None:
    """Builds that share steps, and prunes without a pause beside them: no build fails, and each image is whole."""
    pybuild = with_busybox
    builders = []
    for number in range(3):
        dockerfile = f"{layer('shared', mib=1)}COPY file /srv/file\nRUN echo {number} > /srv/number\n"
        context = pybuild.context({"Dockerfile": dockerfile, "file": "file\n"}, f"context-{number}")
        builders.append(pybuild.start("build", "--progress", "plain", "--tag", f"app:{number}", context))
    prunes = 0
    while any(builder.poll() is None for builder in builders):
        pair = [pybuild.start("prune", "--all", "--force") for _ in range(2)]
        for prune in pair:
            _, err = prune.communicate(timeout=120)
            assert prune.returncode == 0, err
        prunes += 1
    for builder in builders:
        _, err = builder.communicate()
        assert builder.returncode == 0, err.decode()

    assert prunes
    for number in range(3):
        assert pybuild("run", f"app:{number}", "cat", "/srv/file", "/srv/number").out == f"file\n{number}\n"


# What a kill leaves


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a build, and wait until all that it started is gone: they share its standard error."""
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)


def wait_for_unfinished(pybuild: Pybuild, process: subprocess.Popen[bytes], kind: str) -> None:
    """Wait until a build has begun to make something of this kind."""
    while not glob.glob(f"{pybuild.root}/tmp/*/{kind}-*"):  # unlike pathlib's it takes folders that vanish
        assert process.poll() is None


def kill_in_step(pybuild: Pybuild) -> None:
    """Kill a build while a step runs."""
    context = pybuild.context({"Dockerfile": WAITING, "file": "file\n"})
    with pybuild.start("build", "--progress", "plain", context) as process:
        lines_until(process, b"waiting\n")
        kill(process)


def kill_after_step(pybuild: Pybuild) -> None:
    """Kill a build when its first step is done and its layer is stored."""
    context = pybuild.context({"Dockerfile": layer("done") + layer("next").partition("\n")[2]})
    with pybuild.start("build", "--progress", "plain", context) as process:
        lines_until(process, b"DONE")
        kill(process)


def kill_in_copy(pybuild: Pybuild) -> None:
    """Kill a build while it writes the layer of a COPY, when no namespace is there."""
    context = pybuild.context({"Dockerfile": "FROM busybox\nCOPY . /srv/\n"})
    with open(f"{context}/large", "wb") as file:
        file.truncate(512 * MIB)
    with pybuild.start("build", "--progress", "plain", context) as process:
        wait_for_unfinished(pybuild, process, "blob")
        kill(process)
    os.unlink(f"{context}/large")


def kill_at_unpacking(pybuild: Pybuild) -> None:
    """Kill a build when it begins to unpack its base."""
    pybuild("prune", "--all", "--force")
    context = pybuild.context({"Dockerfile": layer("never")})
    with pybuild.start("build", "--progress", "plain", context) as process:
        wait_for_unfinished(pybuild, process, "snapshot")
        kill(process)


@pytest.mark.parametrize(
    "begin_and_kill",
    [kill_in_step, kill_after_step, kill_in_copy, kill_at_unpacking],
    ids=lambda function: function.__name__,
)
def test_next_build_works_and_sweeps_after_a_kill(
    with_busybox: Pybuild, begin_and_kill: Callable[[Pybuild], None]
) -> None:
    """Whatever a build was killed at, the next one works, nothing unfinished is left, and prune gives all back."""
    pybuild = with_busybox
    before = blobs(pybuild)
    begin_and_kill(pybuild)
    build(pybuild, layer("after"), "--tag", "app")
    unfinished = list((pybuild.root / "tmp").iterdir())
    ran = pybuild("run", "app", "ls", "/srv/after").out
    pybuild("rmi", "app")
    pybuild("prune", "--all", "--force")

    assert unfinished == []
    assert ran == "/srv/after\n"
    assert blobs(pybuild) == before
    assert df(pybuild)["Snapshots"]["Size"] == 0
    assert abs(df_size(pybuild) - du(pybuild)) < du(pybuild) / 50


def test_cached_build_sweeps_after_a_kill_too(with_busybox: Pybuild) -> None:
    """A build that enters no namespace removes an unfinished blob of a dead one."""
    dockerfile = "FROM busybox\nENV A=b\n"
    build(with_busybox, dockerfile)
    kill_in_copy(with_busybox)
    left = list((with_busybox.root / "tmp").iterdir())
    build(with_busybox, dockerfile)

    assert left
    assert list((with_busybox.root / "tmp").iterdir()) == []


def blobs(pybuild: Pybuild) -> set[str]:
    """Return the names of all blobs."""
    return set(os.listdir(pybuild.images / "blobs" / "sha256"))


# What a build removes at its end


def test_build_holds_the_cache_to_a_cap(with_busybox: Pybuild) -> None:
    """Builds stay below their cap by themselves, say so in one line, and spare themselves and tagged images."""
    cap = "max-used-space=12m,reserved-space=0"
    build(with_busybox, layer("named"), "--tag", "named", "--gc", cap)
    told = [build(with_busybox, layer(f"x{number}"), "--gc", cap).err for number in range(4)]
    rows = df(with_busybox)
    cached = build(with_busybox, layer("x3"), "--gc", cap).err

    removed = [
        re.findall(r"^#\d+ \[internal\] removed .* of cache, least recently used first", text, re.MULTILINE)
        for text in told
    ]
    assert removed[0] == []
    assert len(removed[3]) == 1
    assert sum(row["Reclaimable"] for row in rows.values()) < 13 * MIB
    assert "CACHED" in cached.split("RUN")[1]
    assert with_busybox("run", "named", "ls", "/srv").out == "named\n"


def test_bake_holds_the_cache_to_a_cap_after_its_last_target(with_busybox: Pybuild) -> None:
    """It removes what was there before, once, after all targets; the option is read before anything is built."""
    build(with_busybox, layer("before"))
    linked = {"dockerfile-inline": "FROM first\n" + layer("b").partition("\n")[2], "contexts": {"first": "target:a"}}
    targets = {"a": {"dockerfile-inline": layer("a")}, "default": linked}
    with_busybox.context({"docker-bake.json": json.dumps({"target": targets})}, name=".")

    told = with_busybox("bake", "--gc", "max-used-space=1m,reserved-space=0").err
    refused = with_busybox("bake", "--gc", "sometimes", status=2).err

    assert len(re.findall(r"\[internal\] removed .* of cache", told)) == 1
    assert "invalid --gc: `sometimes`" in refused


def test_collecting_can_be_switched_off(with_busybox: Pybuild) -> None:
    """The variable caps the cache of every build, unless the option switches that off."""
    capped = replace(with_busybox, variables={"PYBUILD_GC": "max-used-space=1m,reserved-space=0"})
    build(capped, layer("a"))
    off = build(capped, layer("b"), "--gc", "off").err
    on = build(capped, layer("c")).err

    assert "[internal] removed" not in off
    assert "[internal] removed" in on
