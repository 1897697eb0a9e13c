"""The answers of the system call filter, by running its program."""

from __future__ import annotations

import struct

import pytest

from runtime import seccomp_profile as profile
from runtime.errors import HostUnsupportedError
from runtime.seccomp import filter_program

ALLOW, EPERM, ENOSYS = 0x7FFF_0000, 0x5_0001, 0x5_0026
TABLES = [("x86_64", profile.X86_64), ("x86_64", profile.I386), ("aarch64", profile.AARCH64), ("aarch64", profile.ARM)]


def answer(machine: str, audit: int, number: int, *arguments: int) -> int:
    """Run the program as the kernel does."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<IIQ6Q", number, audit, 0, *padded)
    program = list(struct.iter_unpack("=HBBI", filter_program(machine)))
    position = accumulator = 0
    while True:
        code, if_true, if_false, value = program[position]
        position += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x05:
                position += value
            case 0x15:
                position += if_true if accumulator == value else if_false
            case 0x35:
                position += if_true if accumulator >= value else if_false
            case 0x45:
                position += if_true if accumulator & value else if_false
            case 0x06:
                return value
            case _:
                pytest.fail(f"unknown instruction {code:#x}")


@pytest.mark.parametrize(("machine", "table"), TABLES, ids=["x86_64", "i386", "aarch64", "arm"])
class TestEveryTable:
    def test_filter_refuses_what_the_table_names(self, machine, table):
        """Every named call is EPERM."""
        numbers = {row[table.column] for row in profile.REFUSED.values()} - {None}

        assert {answer(machine, table.audit, number) for number in numbers} == {EPERM}

    def test_filter_allows_every_other_known_call(self, machine, table):
        """What is neither refused, nor judged by arguments, nor unknown is allowed."""
        special = {row[table.column] for row in profile.REFUSED.values()}
        special |= {table.clone, table.clone3, table.personality, table.socket, table.ioctl}
        known = set(range(table.end)) - set(range(*table.gap)) - special

        assert {answer(machine, table.audit, number) for number in known} == {ALLOW}

    @pytest.mark.parametrize("number", [467, 1000, 0x4000_0000, 0x4000_0001, 0xFFFF_FFFF])
    def test_filter_does_not_know_later_calls(self, machine, table, number):
        """Unknown numbers, x32 among them, are ENOSYS."""
        assert answer(machine, table.audit, number) == ENOSYS

    def test_filter_judges_by_arguments(self, machine, table):
        """Namespaces, odd sockets, personalities and terminal input are refused, the usual is not."""
        for number, arguments, expected in [
            (table.clone, (0x1200011,), ALLOW),
            (table.clone, (0x1000_0000,), EPERM),
            (table.clone, (0x2_0000,), EPERM),
            (table.clone3, (0,), ENOSYS),
            (table.socket, (1,), ALLOW),
            (table.socket, (2,), ALLOW),
            (table.socket, (10,), ALLOW),
            (table.socket, (16,), ALLOW),
            (table.socket, (38,), EPERM),
            (table.socket, (40,), EPERM),
            (table.socket, (99,), EPERM),
            (table.personality, (0xFFFF_FFFF,), ALLOW),
            (table.personality, (0x4_0000,), EPERM),
            (table.ioctl, (0, 0x5412), EPERM),
            (table.ioctl, (0, 0x1_0000_5412), EPERM),
            (table.ioctl, (0, 0x541C), EPERM),
            (table.ioctl, (0, 0x5413), ALLOW),
        ]:
            assert answer(machine, table.audit, number, *arguments) == expected, (number, arguments)


def test_filter_knows_no_foreign_table():
    """A call by the table of another machine is ENOSYS."""
    assert answer("x86_64", profile.AARCH64.audit, 0) == ENOSYS


def test_filter_of_arm_allows_its_private_calls():
    """32-bit ARM programs may set their thread pointer and flush caches."""
    assert answer("aarch64", profile.ARM.audit, 0xF_0005) == ALLOW
    assert answer("aarch64", profile.ARM.audit, 0xF_0003) == ENOSYS


def test_filter_fits_the_kernel():
    """A program has at most 4096 instructions."""
    assert all(len(filter_program(machine)) // 8 <= 4096 for machine in profile.ARCHITECTURES)


def test_filter_of_an_unknown_machine_is_an_error():
    """There is no filter without a table."""
    with pytest.raises(HostUnsupportedError, match="the machine is `m68k`"):
        filter_program("m68k")
