"""Image configs: BuildKit's form, unknown fields, hostile values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import ManifestInvalidError
from registry.oci.digest import digest_of
from registry.oci.image_config import HealthCheck, History, ImageConfig
from registry.oci.platform import Platform
from tests.registry.oci.test_manifest import json_values

DIFF_ID = digest_of(b"tar")

texts = st.text(max_size=6)
words = st.text(min_size=1, max_size=6)
vectors = st.lists(texts, max_size=3).map(tuple)
optional_vectors = st.none() | st.lists(texts, min_size=1, max_size=3).map(tuple)
nanoseconds = st.integers(-(2**62), 2**62)
unknown = st.dictionaries(st.sampled_from(["zz", "Aa", "moby.buildkit.cache.v0"]), texts | st.integers(), max_size=2)
configs = st.builds(
    ImageConfig,
    platform=st.builds(Platform, texts, texts, texts, texts),
    created=st.none() | words,
    author=st.none() | words,
    env=vectors,
    entrypoint=optional_vectors,
    cmd=optional_vectors,
    working_directory=texts,
    user=texts,
    labels=st.dictionaries(texts, texts, max_size=3),
    exposed_ports=st.sets(texts, max_size=3).map(lambda ports: tuple(sorted(ports))),
    volumes=st.sets(texts, max_size=3).map(lambda paths: tuple(sorted(paths))),
    stop_signal=st.none() | words,
    shell=optional_vectors,
    healthcheck=st.none() | st.builds(HealthCheck, test=st.just(("CMD", "x")), interval_ns=nanoseconds, retries=nanoseconds),
    on_build=vectors,
    args_escaped=st.booleans(),
    diff_ids=st.lists(st.binary(max_size=3).map(digest_of), max_size=2).map(tuple),
    history=st.lists(
        st.builds(
            History,
            created=st.none() | words,
            created_by=st.none() | words,
            author=st.none() | words,
            comment=st.none() | words,
            empty_layer=st.booleans(),
            extra=unknown,
        ),
        max_size=2,
    ).map(tuple),
    extra=unknown,
    config_extra=unknown,
)  # fmt: skip


def read(value: object) -> ImageConfig:
    """Read a config given as Python values."""
    return ImageConfig.from_bytes(json.dumps(value).encode(), subject="config of x")


@given(configs)
def test_image_config_written_is_read_back(config: ImageConfig) -> None:
    """Every config survives, and its bytes are stable."""
    data = config.to_bytes()

    assert ImageConfig.from_bytes(data, subject="x") == config
    assert ImageConfig.from_bytes(data, subject="x").to_bytes() == data


def test_image_config_has_the_order_of_buildkit() -> None:
    """Top-level keys are in alphabetical order, those of `config` in that of Go's type, unset ones are left out."""
    config = ImageConfig(
        platform=Platform("linux", "arm64", "v8"),
        created="2026-01-02T03:04:05.678901234Z",
        env=("PATH=/bin",),
        entrypoint=("/e",),
        cmd=("c",),
        working_directory="/w",
        labels={"b": "2", "a": "1"},
        on_build=("RUN x",),
        shell=("/bin/bash", "-c"),
        diff_ids=(DIFF_ID,),
        history=(History(created_by="RUN x", comment="buildkit.dockerfile.v0"),),
        extra={"moby.x": 1},
    )

    value = json.loads(config.to_bytes())

    assert list(value) == ["architecture", "config", "created", "history", "moby.x", "os", "rootfs", "variant"]
    assert list(value["config"]) == ["Env", "Entrypoint", "Cmd", "WorkingDir", "Labels", "OnBuild", "Shell"]
    assert list(value["config"]["Labels"]) == ["a", "b"]
    assert value["created"] == "2026-01-02T03:04:05.678901234Z"
    assert value["history"] == [{"created_by": "RUN x", "comment": "buildkit.dockerfile.v0"}]


def test_image_config_without_anything_writes_no_config() -> None:
    """Only what image-spec requires is there."""
    value = json.loads(ImageConfig(platform=Platform("linux", "amd64")).to_bytes())

    assert value == {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}


def test_image_config_keeps_what_it_does_not_know() -> None:
    """Fields of Docker's and of the future survive, inside `config` as well."""
    value = {
        "architecture": "amd64", "os": "linux", "docker_version": "20.10", "container_config": {"Image": "x"},
        "os.features": ["f"], "rootfs": {"type": "layers", "diff_ids": []},
        "config": {"Hostname": "h", "Tty": False, "Future": {"deep": [1]}},
    }  # fmt: skip

    assert json.loads(read(value).to_bytes()) == value


def test_image_config_of_nulls_is_an_empty_one() -> None:
    """Null is absent everywhere, as in what classic Docker wrote."""
    nulls = dict.fromkeys(["Env", "Cmd", "Entrypoint", "Labels", "Volumes", "ExposedPorts", "OnBuild", "Healthcheck"])
    value = {"architecture": "amd64", "os": "linux", "config": nulls, "history": None, "rootfs": None, "created": None}

    assert read(value) == ImageConfig(platform=Platform("linux", "amd64"))


def test_image_config_empty_vector_counts_as_absent() -> None:
    """Go's omitempty makes no difference between the two."""
    config = read({"config": {"Cmd": [], "Entrypoint": []}})

    assert (config.cmd, config.entrypoint) == (None, None)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        pytest.param({"config": []}, "config", id="config"),
        pytest.param({"config": {"Env": "A=1"}}, "config.Env", id="env"),
        pytest.param({"config": {"Env": [1]}}, "config.Env[0]", id="variable"),
        pytest.param({"config": {"Labels": {"a": []}}}, "config.Labels.a", id="label"),
        pytest.param({"config": {"Volumes": 1}}, "config.Volumes", id="volumes"),
        pytest.param({"config": {"Healthcheck": {"Interval": 2**70}}}, "config.Healthcheck.Interval", id="interval"),
        pytest.param({"history": {}}, "history", id="history"),
        pytest.param({"history": [{}, {"empty_layer": 1}]}, "history[1].empty_layer", id="history entry"),
        pytest.param({"rootfs": {"type": "blobs"}}, "rootfs.type", id="type of root filesystem"),
        pytest.param({"rootfs": {"diff_ids": ["sha256:x"]}}, "rootfs.diff_ids[0]", id="diff_id"),
        pytest.param({"rootfs": {"diff_ids": [None]}}, "rootfs.diff_ids[0]", id="null diff_id"),
        pytest.param({"created": 5}, "created", id="time"),
        pytest.param([], "", id="array"),
    ],
)
def test_image_config_with_a_wrong_value_is_refused(value: object, path: str) -> None:
    """The error names the place."""
    with pytest.raises(ManifestInvalidError, match="invalid config of x") as caught:
        read(value)

    assert caught.value.path == path


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "os": json_values,
            "history": st.lists(json_values, max_size=2),
            "rootfs": json_values,
            "config": st.dictionaries(st.sampled_from(["Env", "Labels", "Volumes", "Healthcheck", "Shell"]), json_values),
            "extra": json_values,
        },
    )
)  # fmt: skip
def test_image_config_of_any_json_is_read_or_refused_with_its_own_error(value: dict[str, Any]) -> None:
    """Nothing a registry sends makes the reader fail in another way, and what it reads can be written."""
    try:
        config = read(value)
    except ManifestInvalidError:
        return

    assert ImageConfig.from_bytes(config.to_bytes(), subject="x") == config


def test_image_config_volumes_in_an_array_are_a_set() -> None:
    """A volume that some tool listed twice, in whatever order, is one."""
    assert read({"config": {"Volumes": ["/b", "/a", "/b"]}}).volumes == ("/a", "/b")
