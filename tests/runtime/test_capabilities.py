"""Capability sets."""

from runtime.capabilities import DEFAULT_CAPABILITIES, capability_mask


def test_default_set_is_dockers():
    """The mask is the one that /proc/1/status shows in Docker's containers."""
    assert f"{DEFAULT_CAPABILITIES:016x}" == "00000000a80425fb"


def test_mask_has_a_bit_for_each_capability():
    """Bit n stands for capability n."""
    assert capability_mask([0, 3, 40]) == 0x100_0000_0009
