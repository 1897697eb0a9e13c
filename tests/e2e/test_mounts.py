"""`RUN --mount` from start to end: what a step sees, what it leaves, what makes it run again."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.command import Pybuild

pytestmark = pytest.mark.userns


def build(pybuild: Pybuild, files: dict[str, str], *options: str, status: int = 0) -> str:
    """Build a context without a tag; return what progress showed."""
    return pybuild("build", "--progress", "plain", *options, pybuild.context(files), status=status).err


def run(*lines: str) -> dict[str, str]:
    """Return a context of a Dockerfile on busybox."""
    return {"Dockerfile": "\n".join(("FROM busybox", *lines)) + "\n"}


def layers_of(pybuild: Pybuild, name: str) -> list[list[str]]:
    """Return the names in each layer of an image, base first."""
    (image,) = json.loads(pybuild("inspect", name).out)
    archive = pybuild.folder / "image.tar"
    pybuild("save", "--format", "oci-archive", "-o", str(archive), name)
    with tarfile.open(archive) as tar:
        manifests = [json.loads(data) for member in tar if (data := _read(tar, member)).startswith(b"{")]
        (layers,) = [m["layers"] for m in manifests if "layers" in m]
        assert len(layers) == len(image["RootFS"]["Layers"])
        return [_names(_read(tar, tar.getmember(f"blobs/sha256/{layer['digest'][7:]}"))) for layer in layers]


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file else b""


def _names(blob: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob))) as tar:
        return tar.getnames()


def test_bind_of_the_context_is_read_only_and_filtered(with_busybox: Pybuild) -> None:
    """A step sees the context without what is ignored, and cannot write to it."""
    files = run("RUN --mount=target=/ctx find /ctx | sort && ! touch /ctx/new")
    files |= {"kept": "1", "sub/kept": "1", "sub/gone": "1", "gone/file": "1", ".dockerignore": "**/gone\n"}

    shown = build(with_busybox, files)

    assert "/ctx/sub/kept" in shown
    assert "gone" not in shown.replace(".dockerignore", "")


def test_writes_to_a_bind_are_thrown_away(with_busybox: Pybuild) -> None:
    """A step may write to a bind with rw, more than fits into a small memory, and nothing of it stays."""
    script = "echo new > /ctx/file && dd if=/dev/zero of=/ctx/large bs=1M count=40 && cat /ctx/file"
    files = run(f"RUN --mount=target=/ctx,rw {script}", "RUN --mount=target=/ctx cat /ctx/file && ! ls /ctx/large")

    build(with_busybox, files | {"file": "old\n"})

    assert Path(with_busybox.folder, "context", "file").read_text() == "old\n"


def test_bind_of_a_stage(with_busybox: Pybuild) -> None:
    """A stage that is only mounted is built; a file of it can be mounted alone."""
    files = run(
        "RUN mkdir /out && echo made > /out/file",
        "FROM busybox",
        "RUN --mount=from=one,source=/out,target=/o grep made /o/file && ! touch /o/x",
        "RUN --mount=from=one,source=/out/file,target=/o/f grep made /o/f",
        "RUN --mount=from=one,source=/out,target=/o,rw touch /o/x",
    )
    files["Dockerfile"] = files["Dockerfile"].replace("FROM busybox\n", "FROM busybox AS one\n", 1)

    build(with_busybox, files)


@pytest.mark.parametrize(("changed", "runs"), [("used", True), ("unused", False)], ids=["mounted file", "other file"])
def test_mounted_content_is_in_the_key(with_busybox: Pybuild, changed: str, runs: bool) -> None:
    """A step runs again when a file it mounts changes, and only then."""
    files = run("RUN --mount=source=used,target=/f cat /f > /copy") | {"used": "1", "unused": "1"}
    build(with_busybox, files)

    again = build(with_busybox, files | {changed: "2"})

    assert ("CACHED" in again.partition("[2/2]")[2]) is not runs


def test_stage_that_gives_the_same_files_leaves_the_step_cached(with_busybox: Pybuild) -> None:
    """A mounted stage that changed elsewhere does not make the step run again."""
    text = "FROM busybox AS one\nRUN mkdir /o && echo same > /o/f && echo {} > /else\nFROM busybox\n"
    text += "RUN --mount=from=one,source=/o,target=/o cat /o/f\n"
    build(with_busybox, {"Dockerfile": text.format("1")})

    again = build(with_busybox, {"Dockerfile": text.format("2")})

    assert "CACHED" in again.partition("--mount=from=one")[2]


def test_cache_survives_the_build_and_is_pruned(with_busybox: Pybuild) -> None:
    """A cache grows from build to build, is in no layer, is counted, and goes with prune -a."""
    files = run("ARG N", "RUN --mount=type=cache,target=/c echo $N >> /c/log && cat /c/log")

    build(with_busybox, files, "--build-arg", "N=first", "--tag", "app")
    second = build(with_busybox, files, "--build-arg", "N=second", "--tag", "app")
    sizes = {row["Type"]: row["TotalCount"] for row in map(json.loads, with_busybox("df", "--format", "json").lines)}
    with_busybox("prune", "-a", "-f")
    third = build(with_busybox, files, "--build-arg", "N=third")

    assert "first" in second.partition("cat /c/log")[2]
    assert sizes["Cache mounts"] == 1
    assert layers_of(with_busybox, "app")[-1] == []
    assert "first" not in third.partition("cat /c/log")[2]


def test_cache_has_mode_owner_and_seed(with_busybox: Pybuild) -> None:
    """A new cache has the mode and owner that are asked for, or what it is seeded with."""
    files = run(
        "RUN mkdir /seed && echo s > /seed/file",
        "FROM busybox",
        "RUN --mount=type=cache,target=/c,mode=0770,uid=5,gid=6 test \"$(stat -c '%a %u %g' /c)\" = '770 5 6'",
        "RUN --mount=type=cache,target=/c,from=one,source=/seed grep s /c/file",
        "RUN --mount=type=cache,target=/c --mount=type=cache,target=/c/below touch /c/below/x",
    )
    files["Dockerfile"] = files["Dockerfile"].replace("FROM busybox\n", "FROM busybox AS one\n", 1)

    build(with_busybox, files)


def test_locked_cache_serialises_stages(with_busybox: Pybuild) -> None:
    """Two stages with one locked cache never run at the same time."""
    step = (
        "RUN --mount=type=cache,target=/c,id=i,sharing=locked "
        "mkdir /c/busy && for i in $(seq 200); do ls /c > /dev/null; done && rmdir /c/busy && echo {} > /done\n"
    )
    text = f"FROM busybox AS a\n{step.format('a')}FROM busybox AS b\n{step.format('b')}"
    text += "FROM busybox\nCOPY --from=a /done /a\nCOPY --from=b /done /b\n"

    build(with_busybox, {"Dockerfile": text}, "--jobs", "2")


def test_secrets_reach_the_step_and_nothing_else(with_busybox: Pybuild) -> None:
    """A secret is a file of mode 0400 or a variable; its value is in no file of the store, and not in the key."""
    files = run(
        "RUN --mount=type=secret,id=s --mount=type=secret,id=s,env=S "
        'test "$(stat -c %a /run/secrets/s)" = 400 && test $(wc -c < /run/secrets/s) = ${#S}'
    )
    secret = with_busybox.folder / "secret"
    secret.write_text("first-s3cr3t-value")
    secret.chmod(0o644)
    first = build(with_busybox, files, "--secret", "id=s,src=secret", "--tag", "app")
    secret.write_text("other-s3cr3t-value")
    again = build(with_busybox, files, "--secret", "id=s,src=secret")

    assert "CACHED" in again.partition("[2/2]")[2]
    assert "s3cr3t" not in first + with_busybox("history", "--no-trunc", "app").out
    for path in with_busybox.root.rglob("*"):
        if path.is_file() and "snapshots" not in path.parts:
            data = path.read_bytes()
            assert b"s3cr3t" not in (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)


def test_secret_that_is_missing(with_busybox: Pybuild) -> None:
    """A secret that nobody gave is left out, its variable is empty; a required one is an error."""
    build(with_busybox, run('RUN --mount=type=secret,id=s,env=S test -n "${S+set}" && test -z "$S"'))
    failed = build(with_busybox, run("RUN --mount=type=secret,id=s,required true"), status=2)

    assert "secret s: not found" in failed


def test_agent_is_forwarded(with_busybox: Pybuild) -> None:
    """A step gets a socket of the mode it asks for; a required agent that nobody gave is an error."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("needs ssh-agent")
    with_busybox.run_other("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key")
    script = 'test -S "$SSH_AUTH_SOCK" && test "$(stat -c %a "$SSH_AUTH_SOCK")" = 640'

    build(with_busybox, run(f"RUN --mount=type=ssh,id=k,required,mode=640 {script}"), "--ssh", "k=key")
    failed = build(with_busybox, run("RUN --mount=type=ssh,id=other,required true"), "--ssh", "k=key", status=2)

    assert "unset ssh forward key other" in failed


def test_mounts_leave_no_trace(with_busybox: Pybuild) -> None:
    """A step that only has mounts makes an empty layer, whatever their types and places."""
    kinds = ("bind", "cache", "tmpfs")
    mounts = [f"--mount=type={kind},target=/usr/share/has/{kind}/deep" for kind in kinds]
    mounts += ["--mount=type=cache,target=/usr/share/has/cache/deep/er", "--mount=type=secret,id=s", "--mount=type=ssh"]
    secret = with_busybox.folder / "secret"
    secret.write_text("x")
    secret.chmod(0o644)

    files = run("RUN mkdir -p /usr/share/has", f"RUN {' '.join(mounts)} true")
    build(with_busybox, files, "--secret", "id=s,src=secret", "--tag", "app")

    assert layers_of(with_busybox, "app")[-1] == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("RUN --security=insecure true", "granting entitlement security.insecure is not allowed"),
        ("RUN --mount=from=0,target=/x true", "a mount cannot be from a stage by its number"),
        ("RUN --mount=target=/x,source=none true", '"/none": not found'),
        ("RUN --mount=typ=cache,target=/x true", "did you mean type"),
        ("RUN --mount=target=. true", "invalid mount target"),
    ],
)
def test_refused(with_busybox: Pybuild, line: str, message: str) -> None:
    """What cannot be is refused with the reason."""
    assert message in build(with_busybox, run(line), status=2)


def test_insecure_step_holds_all_capabilities(with_busybox: Pybuild) -> None:
    """With `--allow security.insecure` root in a step can mount."""
    files = run("RUN --security=insecure mkdir /m && mount -t tmpfs none /m && grep 'Seccomp:.*0' /proc/self/status")

    build(with_busybox, files, "--allow", "security.insecure")


def test_step_whose_mounted_context_changes_meanwhile_is_not_cached(with_busybox: Pybuild) -> None:
    """A step that saw other files than its key says is done again by the next build; the user is told why."""
    files = run("RUN --mount=target=/ctx echo waiting && until grep go /ctx/file; do sleep 0.1; done")
    context = with_busybox.context(files | {"file": "stop"})
    with with_busybox.start("build", "--progress", "plain", context) as process:
        shown = b""
        while b" waiting\n" not in shown:
            line = process.stderr.readline()
            assert line, shown
            shown += line
        Path(context, "file").write_text("go")
        shown += process.communicate(timeout=60)[1]

    assert process.returncode == 0, shown
    assert b"the result is not kept in the cache, file changed during the build" in shown
    assert b"`/file`" in shown
    assert " waiting\n" in with_busybox("build", "--progress", "plain", context).err
    assert " waiting\n" not in with_busybox("build", "--progress", "plain", context).err
