"""What a step is given beside its root: files in memory, parts of directories, overlays that are thrown away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runtime.idmap import parse_id_map
from runtime.mounts import FileMount

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.userns


def test_file_in_memory(run_step):
    """A file has its content, mode and owner, cannot be written, and its mount point is gone afterwards."""
    step = run_step(
        "cat /run/secrets/s; stat -c '%a %u:%g' /run/secrets/s; touch /run/secrets/s",
        files=[["/run/secrets/s", "secret\n", 0o400, 0, 0]],
    )

    assert step["stdout"] == "secret\n400 0:0\n"
    assert "Read-only" in step["stderr"]
    assert step["left"] == []


@pytest.mark.parametrize(("mode", "status"), [(0o500, 0), (0o400, 126)], ids=["x bit", "no x bit"])
def test_file_in_memory_is_executable_if_its_mode_says_so(run_step, mode, status):
    """Only a file with an x bit can be executed."""
    step = run_step("/f", files=[["/f", "#!/bin/sh\n", mode, 0, 0]])

    assert step["status"] == status


def test_file_in_memory_keeps_its_owner_with_one_id(run_step):
    """Where only one id is mapped, a secret has the owner it was given."""
    step = run_step("stat -c %u:%g:%a /f", single_id=True, files=[["/f", "", 0o400, 5, 6]])

    assert step["stdout"] == "5:6:400\n"


def test_content_is_not_shown():
    """The representation of a file does not hold its content."""
    assert "hidden" not in repr(FileMount(target="/f", content=b"hidden"))


def test_bind_of_a_part_stays_inside(run_step, tmp_path: Path):
    """A link in a directory that is shown in part leads nowhere out of it."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/file").write_text("inside")
    (tmp_path / "outside").write_text("outside")
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "other").symlink_to("/sub/file")

    seen = run_step("cat /f", binds=[[str(folder), "/f", True, "other"]])
    refused = run_step("cat /f", binds=[[str(folder), "/f", True, "link"]])

    assert seen["stdout"] == "inside"
    assert "cannot mount `link`" in refused["error"]["message"]


def test_overlay_that_is_thrown_away_lies_where_it_is_told(run_step, image: Path, tmp_path: Path):
    """What a step writes to layers goes to the directories that were given for it."""
    for name in ("up", "wo"):
        (tmp_path / name).mkdir()

    step = run_step(
        "echo x > /m/new", layer_mounts=[[[str(image)], "/", "/m", False, str(tmp_path / "up"), str(tmp_path / "wo")]]
    )

    assert step["status"] == 0
    assert (tmp_path / "up/new").exists()
    assert not (image / "new").exists()


def test_privileged_step(run_step):
    """A privileged step has every capability, no filter but that of owners, and a /proc that can be written."""
    script = "mkdir /m && mount -t tmpfs none /m && grep -E 'Seccomp_filters:|NoNewPrivs' /proc/self/status"
    step = run_step(f"{script} && cat /proc/self/uid_map", privileged=True)

    answers, id_map = step["stdout"].split()[:4], parse_id_map("\n".join(step["stdout"].splitlines()[2:]))
    assert answers == ["NoNewPrivs:", "0", "Seccomp_filters:", "0" if id_map.id_count > 1 else "1"]
