"""Contexts that are no folder, and named ones, with steps that read them."""

import io
import tarfile

import pytest

pytestmark = pytest.mark.userns


def make_tar(files):
    """Make a compressed tar of files, text to text."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def test_steps_see_a_context_from_standard_input_and_a_named_one(with_busybox):
    """COPY takes from the tar, RUN --mount shows the tar and the folder."""
    folder = with_busybox.context({"f": "named"}, "other")
    dockerfile = (
        "FROM busybox\nCOPY c /c\n"
        "RUN --mount=type=bind,from=n,target=/n --mount=type=bind,target=/t cat /n/f /t/c /c > /out\n"
        "FROM scratch\nCOPY --from=0 /out /\n"
    )
    tar = make_tar({"Dockerfile": dockerfile, "c": "tar"})
    with_busybox("build", "--build-context", f"n={folder}", "-o", "out", "-", stdin=tar)

    assert (with_busybox.folder / "out" / "out").read_text() == "namedtartar"


def test_dockerfile_on_standard_input_is_the_whole_context(with_busybox):
    """`-` with text; a second Dockerfile is refused."""
    with_busybox("build", "-t", "app", "-", stdin=b"FROM busybox\nRUN true\n")
    failed = with_busybox("build", "-f", "-", "-", stdin=b"FROM busybox\n", status=2)

    assert "cannot both come from standard input" in failed.err
