"""Tests of builder.cli.verbs.save and load."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import tarfile

import pytest

from builder.store import Store
from registry.content.image import load_image, validate_image
from registry.oci.reference import parse_reference
from tests.builder.cli.verbs.conftest import Shell


@pytest.fixture
def other(tmp_path, capsys):
    """A shell with another empty store."""
    (tmp_path / "other").mkdir()
    return Shell(tmp_path / "other", capsys)


def _is_whole(shell, name):
    with Store(shell.root / "store") as store:
        image = load_image(store.blobs, store.layout.find(parse_reference(name)))
        validate_image(store.blobs, image, content=True)
        return image


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_save_and_load_is_a_round_trip(shell, app, other, form):
    """What was saved loads under the same names with the same digests."""
    shell.ok("save", "--format", form, "-o", "app.tar", "app:1", "team/app")

    assert other.ok("load", "-i", str(shell.root / "app.tar")) == "Loaded image: app:1\nLoaded image: team/app:latest\n"
    assert _is_whole(other, "app:1") == _is_whole(shell, "app:1")
    assert _is_whole(other, "team/app").descriptor == app.descriptor


def test_save_writes_the_same_bytes_each_time(shell, app):
    """An archive depends on the images alone."""
    shell.ok("save", "-o", "a.tar", "app:1")
    shell.ok("save", "-o", "b.tar", "app:1")

    assert (shell.root / "a.tar").read_bytes() == (shell.root / "b.tar").read_bytes()


def test_save_has_the_form_docker_loads(shell, app):
    """manifest.json names config and layers by their places in the tar."""
    shell.ok("save", "-o", "a.tar", "app:1")
    with tarfile.open(shell.root / "a.tar") as tar:
        names = tar.getnames()
        (entry,) = json.load(tar.extractfile("manifest.json"))

    assert entry["RepoTags"] == ["app:1"]
    assert entry["Config"] == f"blobs/sha256/{app.manifest.config.digest[7:]}"
    assert {entry["Config"], *entry["Layers"], "index.json", "oci-layout"} <= set(names)


def test_save_by_id_has_no_name(shell, app, other):
    """An image saved by id is loaded without a name."""
    shell.ok("save", "-o", "a.tar", app.manifest.config.digest)

    assert other.ok("load", "-i", str(shell.root / "a.tar")) == f"Loaded image ID: {app.manifest.config.digest}\n"


def test_save_that_fails_leaves_nothing(shell, app):
    """A damaged layer is noticed, and no half archive stays."""
    path = shell.root / "store/images/blobs/sha256" / app.manifest.layers[0].digest[7:]
    path.write_bytes(b"x" * app.manifest.layers[0].size)
    code, _, error = shell("save", "-o", "a.tar", "app:1")

    assert code == 5
    assert "a stored blob was damaged and is removed" in error
    assert sorted(p.name for p in shell.root.iterdir()) == ["store"]


@pytest.mark.skopeo
def test_skopeo_reads_what_save_writes(shell, app, tmp_path):
    """Other tools read both forms."""
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is missing")
    for form in ("docker-archive", "oci-archive"):
        shell.ok("save", "--format", form, "-o", "a.tar", "app:1")
        done = subprocess.run(
            ["skopeo", "inspect", "--config", f"{form}:{shell.root}/a.tar"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["rootfs"]["diff_ids"] == list(app.config.diff_ids)


def _old_archive(shell, app, *, broken=False, links=False):
    """Return a docker-archive as Docker before version 25 wrote it."""
    with Store(shell.root / "store") as store:
        config = store.blobs.read_bytes(app.manifest.config.digest, limit=1 << 20)
        layers = [store.blobs.read_bytes(layer.digest, limit=1 << 20) for layer in app.manifest.layers]
    if broken:
        layers[0] = layers[1]
    manifest = [{"Config": "abc.json", "RepoTags": ["old:1"], "Layers": ["0/layer.tar", "./1/layer.tar"]}]
    files = {"abc.json": config, "1/layer.tar": layers[1], "0/VERSION": b"1.0"}
    if links:
        files["elsewhere.tar"] = layers[0]
    else:
        files["0/layer.tar"] = layers[0]
    files["manifest.json"] = json.dumps(manifest).encode()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        if links:
            entry = tarfile.TarInfo("0/layer.tar")
            entry.type, entry.linkname = tarfile.SYMTYPE, "../elsewhere.tar"
            tar.addfile(entry)
    return stream.getvalue()


@pytest.mark.parametrize("links", [False, True], ids=["files", "links"])
def test_load_reads_the_old_form_from_standard_input(shell, app, other, stdin, links):
    """Archives of older Dockers, also compressed, load with the same image id."""
    stdin(gzip.compress(_old_archive(shell, app, links=links)))

    assert other.ok("load") == "Loaded image: old:1\n"
    assert _is_whole(other, "old:1").manifest.config == app.manifest.config


def test_load_notices_a_layer_that_is_another(shell, app, other, stdin):
    """Layers have to be what the config says."""
    stdin(_old_archive(shell, app, broken=True))
    code, _, error = other("load")

    assert code in {3, 5}
    assert "digest mismatch" in error
    assert other.ok("images", "-aq") == ""


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "archive holds no images: neither index.json nor manifest.json is in it"),
        ((("manifest.json", b"[]"), ("x", b"")), "archive holds no images: its manifest.json is empty"),
        ((("manifest.json", b'[{"Config": 1}]'),), "archive has a manifest.json that is not in Docker's form"),
        (
            (("manifest.json", b'[{"Config": "../../etc/passwd"}]'),),
            "archive lacks a file that its manifest names: `../../etc/passwd`",
        ),
        (
            (("index.json", b'{"schemaVersion": 2, "manifests": []}'),),
            "archive holds no images: its index.json is empty",
        ),
        ((("blobs/sha256/" + "0" * 64, b"x"),), "digest mismatch"),
        ((("blobs/sha256/../../../x", b"x"), ("/etc/x.tar", b"x")), "archive holds no images"),
    ],
    ids=["empty", "no entries", "wrong form", "path outside", "empty index", "wrong digest", "paths outside"],
)
def test_load_of_a_bad_archive_is_explained(shell, names, message, stdin):
    """Archives that hold nothing, or something else, or want out, are refused."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    stdin(stream.getvalue())
    code, _, error = shell("load")

    assert code in {2, 5}
    assert message in error


@pytest.mark.parametrize(
    "data", [b"", b"no tar at all" * 100, b"\x1f\x8b" + b"\0" * 30], ids=["nothing", "text", "bad gzip"]
)
def test_load_of_something_else_is_explained(shell, data, stdin):
    """What is no tar is told, not a traceback."""
    stdin(data)
    code, _, error = shell("load")

    assert code in {2, 5}
    assert "archive" in error
