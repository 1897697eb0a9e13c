"""Device folders, and the devices a name stands for."""

import json
from pathlib import Path

import pytest

from builder.devices.catalog import CLASS_ANNOTATION, read_catalog


def write(file: Path, kind: str, *names: str, **members) -> None:
    """Write a device file whose devices tell of their file in the variable FILE."""
    file.parent.mkdir(exist_ok=True)
    devices = [{"name": name, "containerEdits": {"env": [f"FILE={file.name}"]}} for name in names]
    file.write_text(json.dumps({"cdiVersion": "0.6.0", "kind": kind, "devices": devices} | members))


def names(catalog, name: str) -> list[str]:
    """Give the names of the devices that are found."""
    return [device.name for device in catalog.find(name)]


@pytest.fixture
def catalog(tmp_path):
    """Two kinds; of the first, b and c are of the class fast."""
    write(tmp_path / "a/one.json", "v.com/gpu", "c", "b", annotations={CLASS_ANNOTATION: "fast"})
    write(tmp_path / "a/two.json", "v.com/gpu", "a", "fast2")
    write(tmp_path / "a/three.json", "v.com/net", "a", annotations={CLASS_ANNOTATION: "fast"})
    return read_catalog([tmp_path / "a", tmp_path / "missing"])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("v.com/gpu", ["v.com/gpu=a"]),
        ("v.com/gpu=", ["v.com/gpu=a"]),
        ("v.com/gpu=*", ["v.com/gpu=a", "v.com/gpu=b", "v.com/gpu=c", "v.com/gpu=fast2"]),
        ("v.com/gpu=b", ["v.com/gpu=b"]),
        ("v.com/gpu=fast", ["v.com/gpu=b", "v.com/gpu=c"]),
        ("v.com/gpu=d", []),
        ("v.com/gp", []),
        ("v.com/other=*", []),
        ("nonsense", []),
    ],
)
def test_device_name_stands_for(catalog, name, found):
    """A kind is its first device, a star all, a word a device or else a class."""
    assert names(catalog, name) == found


@pytest.mark.parametrize(
    ("name", "near"),
    [("v.com/gpu=d", "v.com/gpu=a"), ("v.com/gpi", "v.com/gpu"), ("w.com/net=a", "v.com/net=a"), ("x.org/disk", None)],
)
def test_near_names(catalog, name, near):
    """What was probably meant is found."""
    assert catalog.find_near(name) == near


def test_later_folder_counts(tmp_path):
    """A device that is described in two folders is that of the later one; the others of its file stay."""
    write(tmp_path / "a/1.json", "v/c", "x", "y")
    write(tmp_path / "b/2.json", "v/c", "x")
    catalog = read_catalog([tmp_path / "a", tmp_path / "b"])

    assert {name: device.file.name for name, device in catalog.devices.items()} == {
        "v/c=x": "2.json",
        "v/c=y": "1.json",
    }
    assert catalog.problems == ()


def test_device_that_one_folder_describes_twice(tmp_path):
    """Neither description counts, and that is a problem; a later folder settles it."""
    write(tmp_path / "a/1.json", "v/c", "x", "y")
    write(tmp_path / "a/2.json", "v/c", "x")
    write(tmp_path / "b/3.json", "v/c", "x")
    catalog, settled = read_catalog([tmp_path / "a"]), read_catalog([tmp_path / "a", tmp_path / "b"])

    assert list(catalog.devices) == ["v/c=y"]
    assert catalog.problems == (f"device v/c=x is described twice: `{tmp_path}/a/1.json`, `{tmp_path}/a/2.json`",)
    assert settled.devices["v/c=x"].file.name == "3.json"


def test_broken_file_leaves_the_others(tmp_path):
    """A file that cannot be used is a problem, so is one that YAML's other suffix hides; other files do not matter."""
    write(tmp_path / "a/1.json", "v/c", "x")
    (tmp_path / "a/2.yaml").write_text("kind: v/c")
    (tmp_path / "a/3.yml").write_text("kind: v/c")
    (tmp_path / "a/README").write_text("")
    (tmp_path / "a/4.json").mkdir()
    catalog = read_catalog([tmp_path / "a"])

    assert list(catalog.devices) == ["v/c=x"]
    assert catalog.problems == (
        f"device file `{tmp_path}/a/3.yml` is not read, its name has to end in .yaml",
        f"device file `{tmp_path}/a/2.yaml` cannot be used, required field is missing: `cdiVersion`",
    )
