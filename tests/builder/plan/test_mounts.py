"""Mounts of RUN in the plan: targets, sources, what is in the key and what is not."""

from __future__ import annotations

import pytest

from builder.dockerfile.mounts import parse_mount
from builder.errors import DockerfileError
from builder.plan.graph import EmptyFileSystem, Vertex
from builder.plan.mounts import PlannedMount, plan_mounts
from builder.source import SourceFile, Span

SPAN = Span(source=SourceFile("Dockerfile", "RUN --mount"), line=1, end_line=1)


def plan(*texts: str, namespace: str = "") -> tuple[PlannedMount, ...]:
    """Plan mounts below /srv, where $x is `value` and every source is the empty file system."""
    flags = [parse_mount(text, SPAN) for text in texts]
    mounts, _ = plan_mounts(
        flags,
        expand=lambda word: word.replace("$x", "value"),
        working_directory="/srv",
        namespace=namespace,
        find_source=lambda name: Vertex(op=EmptyFileSystem(), name=name, text="", stage=name),
    )
    return mounts


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("target=/a", "/a"),
        ("target=a/b", "/srv/a/b"),
        ("target=.", "/srv"),
        ("target=../c", "/c"),
        ("target=/a/../b/", "/b"),
        ("target=$x", "/srv/value"),
        ("type=secret,id=s", "/run/secrets/s"),
        ("type=secret,id=s,env=S", None),
        ("type=ssh", "/run/buildkit/ssh_agent.0"),
    ],
)
def test_target_is_absolute(text: str, target: str | None) -> None:
    """Targets are joined to the working directory and cleaned."""
    assert plan(text)[0].mount.target == target


@pytest.mark.parametrize("text", ["target=..", "target=../..", "type=cache,target=../"])
def test_root_as_target_is_refused(text: str) -> None:
    """A relative target that is the root directory is an error."""
    with pytest.raises(DockerfileError, match="it is the root directory"):
        plan(text)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("type=cache,target=/c", "type=cache,target=/c,id=other"),
        ("type=cache,target=/c", "type=cache,target=/c,sharing=locked"),
    ],
    ids=["id", "sharing"],
)
def test_key_leaves_out(first: str, second: str) -> None:
    """What a step cannot notice is not in the key, but the mounts are two."""
    one, other = plan(first)[0], plan(second)[0]

    assert one.ingredients() == other.ingredients()
    assert one.identity() != other.identity()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("type=cache,target=/c", "type=cache,target=/d"),
        ("type=cache,target=/c", "type=cache,target=/c,ro"),
        ("type=cache,target=/c", "type=cache,target=/c,mode=0700"),
        ("type=tmpfs,target=/c", "type=tmpfs,target=/c,size=1m"),
        ("type=secret,id=a,target=/c", "type=secret,id=b,target=/c"),
        ("type=secret,id=a", "type=secret,id=a,env=A"),
        ("type=ssh", "type=ssh,id=a"),
        ("target=/c", "target=/c,rw"),
        ("target=/c", "type=tmpfs,target=/c"),
    ],
)
def test_key_holds(first: str, second: str) -> None:
    """What a step can notice is in the key."""
    assert plan(first)[0].ingredients() != plan(second)[0].ingredients()


def test_mounts_of_one_source_share_it() -> None:
    """Two mounts from one stage have one source."""
    mounts = plan("from=a,target=/a", "from=a,target=/b,source=/x")

    assert [mount.source for mount in mounts] == [0, 0]


def test_namespace_is_of_caches_alone() -> None:
    """The namespace keeps caches apart, nothing else."""
    cache, bind = plan("type=cache,target=/c", "target=/b", namespace="n")

    assert (cache.namespace, bind.namespace) == ("n", "")
