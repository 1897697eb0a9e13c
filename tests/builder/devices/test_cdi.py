"""Files of the Container Device Interface."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.devices.cdi import Device, DeviceMount, DeviceNode, Edits, read_devices
from builder.errors import DeviceFileError


def described(tmp_path: Path, edits: dict, **members) -> Path:
    """Write a file with one device `vendor.com/class=one`."""
    file = tmp_path / "file.json"
    whole = {"cdiVersion": "0.6.0", "kind": "vendor.com/class", "devices": [{"name": "one", "containerEdits": edits}]}
    file.write_text(json.dumps(whole | members))
    return file


def edits(tmp_path: Path, value: dict) -> Edits:
    """Read the edits of one device."""
    (device,) = read_devices(described(tmp_path, value))
    return device.edits


GPU = """
cdiVersion: 0.6.0
kind: nvidia.com/gpu
annotations:
  org.mobyproject.buildkit.device.autoallow: true
containerEdits:
  env: [NVIDIA_VISIBLE_DEVICES=void]
  deviceNodes: [{path: /dev/nvidiactl}]
  hooks:
  - {hookName: createContainer, path: /usr/bin/nvidia-cdi-hook, args: [nvidia-cdi-hook, create-symlinks, --link, a]}
  - {hookName: createContainer, path: /usr/bin/nvidia-cdi-hook, args: [nvidia-cdi-hook, create-symlinks, --link, b]}
  - {hookName: createContainer, path: /usr/bin/nvidia-cdi-hook, args: [nvidia-cdi-hook, update-ldcache]}
  mounts:
  - hostPath: /usr/bin/nvidia-smi
    containerPath: /usr/bin/nvidia-smi
    options: [ro, nosuid, nodev, bind]
devices:
- name: "0"
  annotations: {index: 0}
  containerEdits:
    deviceNodes: [{path: /dev/nvidia0, major: 195, minor: 0, type: c, permissions: rw, fileMode: 0666, uid: 0}]
- name: all
  containerEdits:
    env: [A=b=c]
"""


def test_yaml_file(tmp_path):
    """A file as a vendor's tool writes it is read, unquoted numbers and truth values included."""
    file = tmp_path / "nvidia.yaml"
    file.write_text(GPU)
    allow = {"org.mobyproject.buildkit.device.autoallow": "true"}
    shared = Edits(
        environ=(("NVIDIA_VISIBLE_DEVICES", "void"),),
        nodes=(DeviceNode(path="/dev/nvidiactl", host_path="/dev/nvidiactl"),),
        mounts=(
            DeviceMount(
                path="/usr/bin/nvidia-smi",
                host_path="/usr/bin/nvidia-smi",
                options=frozenset({"ro", "nosuid", "nodev"}),
            ),
        ),
        left_out=(
            "its createContainer hook `nvidia-cdi-hook create-symlinks`",
            "its createContainer hook `nvidia-cdi-hook update-ldcache`",
        ),
    )
    node = DeviceNode(path="/dev/nvidia0", host_path="/dev/nvidia0", type="c", number=(195, 0), permissions="rw")

    assert read_devices(file) == (
        Device(
            name="nvidia.com/gpu=0",
            edits=Edits(nodes=(node,)),
            shared=shared,
            file=file,
            annotations={**allow, "index": "0"},
        ),
        Device(
            name="nvidia.com/gpu=all",
            edits=Edits(environ=(("A", "b=c"),)),
            shared=shared,
            file=file,
            annotations=allow,
        ),
    )


def test_json_and_yaml_say_the_same(tmp_path):
    """JSON is YAML, and gives the same devices."""
    file = described(tmp_path, {"env": ["A=1"], "additionalGIDs": [0, 44]})
    (as_json,) = read_devices(file)
    (as_yaml,) = read_devices(file.rename(file.with_suffix(".yaml")))

    assert as_json.edits == as_yaml.edits == Edits(environ=(("A", "1"),), groups=(44,))


@pytest.mark.parametrize(
    ("written", "node"),
    [
        ({"path": "/dev/x"}, DeviceNode(path="/dev/x", host_path="/dev/x")),
        ({"path": "/dev//a/../x", "hostPath": "/dev/y"}, DeviceNode(path="/dev/x", host_path="/dev/y")),
        ({"path": "/dev/x", "type": "u"}, DeviceNode(path="/dev/x", host_path="/dev/x", type="c")),
        ({"path": "/dev/x", "major": 0, "minor": 5}, DeviceNode(path="/dev/x", host_path="/dev/x")),
        ({"path": "/dev/x", "major": 1}, DeviceNode(path="/dev/x", host_path="/dev/x", number=(1, 0))),
        ({"path": "/dev/x", "permissions": "none"}, DeviceNode(path="/dev/x", host_path="/dev/x", permissions="")),
    ],
    ids=["shortest", "another path", "unbuffered", "no major number", "no minor number", "no permissions"],
)
def test_node(tmp_path, written, node):
    """What a node does not say is left to the node of the machine."""
    assert edits(tmp_path, {"deviceNodes": [written]}).nodes == (node,)


@pytest.mark.parametrize(
    ("options", "known"),
    [
        ([], set()),
        (["rbind", "rprivate", "noatime"], set()),
        (["rro", "rnosuid", "noexec"], {"ro", "nosuid", "noexec"}),
        (["ro", "nodev", "rw", "dev"], set()),
    ],
    ids=["none", "of no meaning here", "recursive", "taken back"],
)
def test_mount_options(tmp_path, options, known):
    """The last of contrary options counts, propagation and times do not."""
    mount = {"hostPath": "/a", "containerPath": "/b", "options": options}

    assert edits(tmp_path, {"mounts": [mount]}).mounts == (
        DeviceMount(path="/b", host_path="/a", options=frozenset(known)),
    )


def test_what_cannot_be_given_is_named(tmp_path):
    """Network interfaces, cache shares and edits of a later version are told of, not forgotten."""
    value = {"netDevices": [{"hostInterfaceName": "eth1", "name": "e"}], "intelRdt": {"closID": "x"}, "later": [1]}

    assert edits(tmp_path, value).left_out == (
        "the network interface `eth1`",
        "its share of the processor's cache (`intelRdt`)",
        "`later`, which pybuild does not know",
    )


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"cdiVersion": None}, "required field is missing: `cdiVersion`"),
        ({"cdiVersion": "9.0"}, "unknown version 9.0, known are 0.1.0 to 1.1.0: `cdiVersion`"),
        ({"cdiVersion": 0.6}, "expected a string, found a number: `cdiVersion`"),
        ({"kind": "class"}, "not of the form vendor.com/class, class: `kind`"),
        ({"devices": []}, "required field is missing: `devices`"),
        ({"devices": {}}, "expected an array, found an object: `devices`"),
        ({"devices": ["one"]}, "expected an object, found a string: `devices[0]`"),
        ({"devices": [{"name": "one"}]}, "required field is missing: `devices[0].containerEdits`"),
        ({"devices": [{"name": "-", "containerEdits": {}}]}, "not a name of a device, -: `devices[0].name`"),
        ({"annotations": {"a": []}}, "expected a string: `annotations.a`"),
        ({"annotations": []}, "expected an object: `annotations`"),
        ({"containerEdits": {"env": ["=x"]}}, "expected NAME=VALUE: `containerEdits.env[0]`"),
    ],
)
def test_file_that_breaks_the_specification(tmp_path, members, message):
    """An error names the file, what is wrong, and where."""
    file = described(tmp_path, {"env": ["A=1"]}, **members)

    with pytest.raises(DeviceFileError, match=re.escape(f"device file `{file}` cannot be used, {message}")):
        read_devices(file)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"deviceNodes": [{}]}, "required field is missing: `devices[0].containerEdits.deviceNodes[0].path`"),
        ({"deviceNodes": [{"path": "dev/x"}]}, "expected an absolute path below the root directory, found 'dev/x'"),
        ({"deviceNodes": [{"path": "/dev/.."}]}, "expected an absolute path below the root directory, found '/dev/..'"),
        ({"deviceNodes": [{"path": "/dev/\0"}]}, "expected an absolute path below the root directory"),
        ({"deviceNodes": [{"path": "/dev/\ud800"}]}, "expected an absolute path below the root directory"),
        ({"env": ["A=\ud800"]}, "expected NAME=VALUE: `devices[0].containerEdits.env[0]`"),
        ({"deviceNodes": [{"path": "/x", "type": "d"}]}, "expected one of b, c, u, p, found d"),
        ({"deviceNodes": [{"path": "/x", "major": -1}]}, "number is out of range"),
        ({"deviceNodes": [{"path": "/x", "permissions": "rx"}]}, "expected some of r, w and m, found rx"),
        (
            {"mounts": [{"hostPath": "/x"}]},
            "required field is missing: `devices[0].containerEdits.mounts[0].containerPath`",
        ),
        (
            {"mounts": [{"hostPath": "/x", "containerPath": "/"}]},
            "expected an absolute path below the root directory, found '/'",
        ),
        (
            {"mounts": [{"hostPath": "/x", "containerPath": "/y", "options": ["size=1"]}]},
            "unknown mount option, size=1",
        ),
        ({"mounts": [{"hostPath": "/x", "containerPath": "/y", "type": "tmpfs"}]}, "a mount of something else"),
        ({"additionalGIDs": [True]}, "expected a group id: `devices[0].containerEdits.additionalGIDs[0]`"),
        ({"hooks": [{"hookName": "later", "path": "/x"}]}, "unknown hook later"),
        ({"hooks": [{"hookName": "poststop", "path": "/x", "args": {}}]}, "expected an array"),
    ],
)
def test_edits_that_break_the_specification(tmp_path, value, message):
    """What a container would be given is checked field by field."""
    with pytest.raises(DeviceFileError, match=re.escape(message)):
        edits(tmp_path, value)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.json", b"{", "not JSON"),
        ("a.json", b"cdiVersion: 0.6.0", "not JSON"),
        ("a.yaml", b"a: [\n", "not YAML, .* in line 2, column 1"),
        ("a.yaml", b"a: !!python/object/apply:os.system [x]\n", "not YAML, could not determine a constructor"),
        ("a.yaml", b"a: 2001-99-99\n", "not YAML, month must be in 1..12"),
        ("a.yaml", b"\xff\xfe\xff", "not YAML"),
        ("a.yaml", b"[" * 100_000, "not YAML"),
        ("a.yaml", b"&a [*a]", "expected an object, found an array"),
        ("a.yaml", b"", "expected an object, found null"),
        ("a.json", b" " * (1 << 20) + b"{}", "larger than 1048576 bytes"),
    ],
)
def test_file_that_is_no_file_of_values(tmp_path, name, data, message):
    """What cannot be parsed is an error of the file; nothing in it is carried out."""
    file = tmp_path / name
    file.write_bytes(data)

    with pytest.raises(DeviceFileError, match=message):
        read_devices(file)


def test_file_that_cannot_be_read(tmp_path):
    """A file that is gone is an error with the kernel's reason."""
    with pytest.raises(DeviceFileError, match="no such file or directory"):
        read_devices(tmp_path / "gone.json")


_words = st.sampled_from(
    [
        "cdiVersion",
        "kind",
        "devices",
        "name",
        "containerEdits",
        "env",
        "deviceNodes",
        "mounts",
        "hooks",
        "hookName",
        "args",
        "additionalGIDs",
        "netDevices",
        "intelRdt",
        "path",
        "options",
    ]
)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["0.6.0", "v/c", "one", "/x", "A=b", "ro", "poststop", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=5),
    max_leaves=20,
)


@given(value=_values)
def test_any_value_is_read_or_refused(value, tmp_path_factory):
    """Whatever stands in a file, it is devices or an error of the file."""
    file = tmp_path_factory.mktemp("cdi") / "a.json"
    whole = {"cdiVersion": "0.6.0", "kind": "v/c", "devices": [{"name": "one", "containerEdits": value}]}
    error = None
    file.write_text(json.dumps(whole))
    try:
        read_devices(file)
    except DeviceFileError as caught:
        error = caught

    assert error is None or error.file == file
