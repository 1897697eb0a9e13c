"""The list of images: names that move, other tools' entries, several processes at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from registry.content.layout import ImageLayout, LayoutEntry
from registry.errors import ImageMissingError, LayoutError, StoreFullError
from registry.oci.descriptor import Descriptor
from registry.oci.digest import digest_of
from registry.oci.media_types import OCI_INDEX, OCI_MANIFEST
from registry.oci.platform import Platform
from registry.oci.reference import parse_reference

ROOT = Path(__file__).parents[3]
ONE = Descriptor(media_type=OCI_MANIFEST, digest=digest_of(b"1"), size=1, platform=Platform("linux", "amd64"))
TWO = Descriptor(media_type=OCI_INDEX, digest=digest_of(b"2"), size=2, annotations={"k": "v"})
HELLO, OTHER = parse_reference("hello:1"), parse_reference("localhost:5000/a/b:2")


@pytest.fixture
def layout(tmp_path: Path) -> ImageLayout:
    """A layout that does not exist yet."""
    return ImageLayout(tmp_path / "images")


def read_index(layout: ImageLayout) -> dict[str, Any]:
    """Return the list as other tools see it."""
    document: dict[str, Any] = json.loads((layout._images / "index.json").read_bytes())
    return document


def write_index(layout: ImageLayout, document: object) -> None:
    """Write a list as another tool would."""
    layout._images.mkdir(exist_ok=True)
    (layout._images / "index.json").write_text(json.dumps(document))


def test_layout_that_is_not_there_is_empty(layout: ImageLayout) -> None:
    """Reading makes nothing."""
    assert layout.entries() == ()
    assert layout.find(HELLO) is None
    assert not layout._images.exists()


def test_layout_gives_back_what_was_put(layout: ImageLayout) -> None:
    """Entries come in the order they were put, without the annotations of the name."""
    layout.put(ONE, HELLO)
    layout.put(TWO, OTHER)

    assert layout.entries() == (LayoutEntry(HELLO, ONE), LayoutEntry(OTHER, TWO))
    assert (layout.find(HELLO), layout.find(OTHER)) == (ONE, TWO)
    assert layout.find(parse_reference("hello:2")) is None


def test_layout_is_what_other_tools_expect(layout: ImageLayout) -> None:
    """The files are those of image-spec, indented by two spaces, with both annotations of a name."""
    layout.put(ONE, HELLO)

    assert json.loads((layout._images / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    document = read_index(layout)
    assert (layout._images / "index.json").read_text() == json.dumps(document, indent=2)
    assert {key: value for key, value in document.items() if key != "manifests"} == {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
    }
    assert document["manifests"][0]["annotations"] == {
        "io.containerd.image.name": "docker.io/library/hello:1",
        "org.opencontainers.image.ref.name": "hello:1",
    }


def test_layout_leaves_the_old_image_without_a_name_when_a_tag_moves(layout: ImageLayout) -> None:
    """As with docker, the image is still there until it is pruned."""
    layout.put(ONE, HELLO)
    layout.put(TWO, HELLO)

    assert layout.find(HELLO) == TWO
    assert layout.entries() == (LayoutEntry(HELLO, TWO), LayoutEntry(None, ONE))


def test_layout_keeps_no_nameless_entry_of_an_image_that_has_a_name(layout: ImageLayout) -> None:
    """An image has either names or one entry without."""
    layout.put(ONE, HELLO)
    layout.put(ONE, OTHER)
    layout.put(TWO, HELLO)
    assert layout.entries() == (LayoutEntry(OTHER, ONE), LayoutEntry(HELLO, TWO))

    layout.put(TWO, OTHER)
    assert layout.entries() == (LayoutEntry(HELLO, TWO), LayoutEntry(OTHER, TWO), LayoutEntry(None, ONE))

    layout.put(ONE, HELLO)
    assert layout.entries() == (LayoutEntry(OTHER, TWO), LayoutEntry(HELLO, ONE))


def test_layout_put_again_changes_nothing(layout: ImageLayout) -> None:
    """Putting is idempotent, and the file is not written again."""
    layout.put(ONE, HELLO)
    layout.put(TWO, None)
    before = os.stat(layout._images / "index.json")

    layout.put(TWO, None)

    assert os.stat(layout._images / "index.json").st_ino == before.st_ino
    layout.put(ONE, HELLO)
    assert set(map(str, layout.entries())) == set(map(str, (LayoutEntry(HELLO, ONE), LayoutEntry(None, TWO))))


def test_layout_finds_by_digest(layout: ImageLayout) -> None:
    """A reference with a digest finds the image under any name."""
    layout.put(ONE, OTHER)

    assert layout.find(HELLO.with_digest(ONE.digest)) == ONE
    assert layout.find(HELLO.with_digest(TWO.digest)) is None


def test_layout_removes_a_name(layout: ImageLayout) -> None:
    """The descriptor comes back, other names of the image stay."""
    layout.put(ONE, HELLO)
    layout.put(ONE, OTHER)

    assert layout.remove(HELLO) == ONE
    assert layout.entries() == (LayoutEntry(OTHER, ONE),)


def test_layout_without_the_name_says_so(layout: ImageLayout) -> None:
    """The error has the user's spelling."""
    with pytest.raises(ImageMissingError, match="no such image: `hello:1`"):
        layout.remove(HELLO)


def test_layout_removes_all_entries_of_an_image(layout: ImageLayout) -> None:
    """By digest, names do not matter, and once more is no error."""
    layout.put(ONE, HELLO)
    layout.put(ONE, OTHER)
    layout.put(TWO, None)

    layout.remove_digest(ONE.digest)
    layout.remove_digest(ONE.digest)

    assert layout.entries() == (LayoutEntry(None, TWO),)


def test_layout_entry_without_a_name_is_removed_alone(layout: ImageLayout) -> None:
    """Taking the entry without a name away spares a name that the image got meanwhile, and other images."""
    layout.put(ONE, None)
    layout.put(TWO, None)

    assert layout.remove_unnamed(ONE.digest)
    assert not layout.remove_unnamed(ONE.digest)
    layout.put(ONE, HELLO)
    assert not layout.remove_unnamed(ONE.digest)
    assert layout.entries() == (LayoutEntry(None, TWO), LayoutEntry(HELLO, ONE))


def test_layout_keeps_what_other_tools_wrote(layout: ImageLayout) -> None:
    """Unknown fields, odd names and entries that nobody understands survive a change."""
    foreign: list[Any] = [
        {**ONE.to_json(), "x": 1, "annotations": {"org.opencontainers.image.ref.name": "not a reference!"}},
        {"mediaType": "x/y", "digest": "sha384:abc", "size": 0},
        "nonsense",
    ]
    write_index(layout, {"schemaVersion": 2, "manifests": foreign, "annotations": {"a": "b"}, "future": [1]})

    layout.put(TWO, HELLO)
    layout.remove(HELLO)

    assert read_index(layout) == {
        "schemaVersion": 2,
        "manifests": foreign,
        "annotations": {"a": "b"},
        "future": [1],
    }
    assert [(entry.reference, entry.descriptor.digest) for entry in layout.entries()] == [(None, ONE.digest)]


def test_layout_reads_names_of_skopeo(layout: ImageLayout) -> None:
    """Only the annotation of image-spec is there."""
    value = {**ONE.to_json(), "annotations": {"org.opencontainers.image.ref.name": "hello:1"}}
    write_index(layout, {"schemaVersion": 2, "manifests": [value]})

    assert layout.find(HELLO) == ONE


def test_layout_reads_names_of_buildkit(layout: ImageLayout) -> None:
    """The annotation of image-spec holds only the tag, containerd's the whole name."""
    names = {
        "org.opencontainers.image.ref.name": "2",
        "io.containerd.image.name": "localhost:5000/a/b:2",
    }
    write_index(layout, {"schemaVersion": 2, "manifests": [{**ONE.to_json(), "annotations": names}]})

    assert layout.find(OTHER) == ONE


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        pytest.param("index.json", "", "not JSON", id="empty list"),
        pytest.param("index.json", "[]", "expected an object", id="array"),
        pytest.param("index.json", '{"manifests": {}}', "manifests is no array", id="manifests"),
        pytest.param("index.json", "[" * 10**5, "nested too deeply", id="nesting"),
        pytest.param("oci-layout", '{"imageLayoutVersion": "2.0.0"}', "a version other than 1.0.0", id="version"),
        pytest.param("oci-layout", "x", "not JSON", id="version of another shape"),
    ],
)
def test_layout_that_is_damaged_says_so(layout: ImageLayout, name: str, text: str, reason: str) -> None:
    """The error names the file, and nothing is overwritten."""
    layout.put(ONE, HELLO)
    (layout._images / name).write_text(text)

    for call in (layout.entries, lambda: layout.put(TWO, OTHER)):
        with pytest.raises(LayoutError, match=reason) as caught:
            call()
        assert name in caught.value.message
        assert caught.value.exit_code == 5
    assert (layout._images / name).read_text() == text


def test_layout_on_a_full_disk_keeps_the_old_list(layout: ImageLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that cannot be written whole does not replace the old one."""
    layout.put(ONE, HELLO)

    def fail(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreFullError, match="No space left on device"):
        layout.put(TWO, OTHER)

    assert layout.entries() == (LayoutEntry(HELLO, ONE),)
    assert sorted(os.listdir(layout._images)) == [".lock", "index.json", "oci-layout"]


def test_layout_is_changed_by_many_processes_at_once(layout: ImageLayout) -> None:
    """No entry is lost."""
    script = """
import sys
from pathlib import Path
from registry.content.layout import ImageLayout
from registry.oci.descriptor import Descriptor
from registry.oci.digest import digest_of
from registry.oci.reference import parse_reference
layout = ImageLayout(Path(sys.argv[1]))
for number in range(10):
    data = f"{sys.argv[2]}-{number}".encode()
    descriptor = Descriptor(media_type="application/vnd.oci.image.manifest.v1+json", digest=digest_of(data), size=1)
    layout.put(descriptor, parse_reference(f"image-{sys.argv[2]}:{number}"))
    layout.entries()
"""
    command = [sys.executable, "-c", script, str(layout._images)]
    processes = [subprocess.Popen([*command, str(number)], cwd=ROOT) for number in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0, 0]

    names = {entry.reference.familiar() for entry in layout.entries() if entry.reference}
    assert names == {f"image-{process}:{number}" for process in range(4) for number in range(10)}
