"""Which platforms' programs a machine executes."""

import pytest

from builder.solve.emulation import has_handler, is_native
from registry.oci.platform import Platform

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")

QEMU_ARM64 = (
    "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: {flags}\noffset 0\n"
    "magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n"
)
"""What the kernel shows of Debian's registration of qemu-aarch64."""


@pytest.mark.parametrize(
    ("status", "handler", "works"),
    [
        ("enabled", QEMU_ARM64.format(flags="OCF"), True),
        ("disabled", QEMU_ARM64.format(flags="OCF"), False),
        ("enabled", QEMU_ARM64.format(flags="OC"), False),
        ("enabled", QEMU_ARM64.format(flags="OCF").replace("enabled", "disabled"), False),
        ("enabled", "enabled\ninterpreter /usr/bin/jexec\nflags: F\nextension .jar\n", False),
    ],
    ids=["qemu", "all-off", "no-fix-binary", "handler-off", "by-extension"],
)
def test_handler_counts_when_it_is_on_and_works_in_every_root(tmp_path, status, handler, works):
    """A handler needs the flag F, since an image does not hold the interpreter."""
    (tmp_path / "status").write_text(status + "\n")
    (tmp_path / "register").touch(mode=0o200)
    (tmp_path / "qemu-aarch64").write_text(handler)

    assert has_handler("arm64", tmp_path) is works
    assert has_handler("s390x", tmp_path) is False


def test_kernel_without_binfmt_has_no_handlers(tmp_path):
    """A missing folder and an unknown architecture are no errors."""
    assert not has_handler("arm64", tmp_path / "absent")
    assert not has_handler("pdp11", tmp_path)


@pytest.mark.parametrize(
    ("platform", "host", "native"),
    [
        (AMD64, AMD64, True),
        (Platform("linux", "amd64", "v3"), AMD64, True),
        (Platform("linux", "386"), AMD64, True),
        (Platform("linux", "arm", "v7"), ARM64, True),
        (ARM64, AMD64, False),
        (AMD64, ARM64, False),
    ],
)
def test_native_platforms_need_no_handler(platform, host, native):
    """What the processor executes by itself is not asked of the kernel."""
    assert is_native(platform, host) is native
