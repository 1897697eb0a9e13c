"""The answers of the system call filter, by running its program."""

from __future__ import annotations

import struct

import pytest

from runtime import seccomp_profile as profile
from runtime.errors import HostUnsupportedError
from runtime.seccomp import filter_program, supervised_program
from runtime.supervisor import calls

ALLOW, EPERM, ENOSYS = 0x7FFF_0000, 0x5_0001, 0x5_0026
TABLES = [("x86_64", profile.X86_64), ("x86_64", profile.I386), ("aarch64", profile.AARCH64), ("aarch64", profile.ARM)]


def answer(machine: str, audit: int, number: int, *arguments: int, program: bytes | None = None) -> int:
    """Run the program as the kernel does: that of what is refused, or another."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<IIQ6Q", number, audit, 0, *padded)
    program = list(struct.iter_unpack("=HBBI", program or filter_program(machine, only_unix_sockets=False)))
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
    assert all(len(filter_program(machine, only_unix_sockets=False)) // 8 <= 4096 for machine in profile.ARCHITECTURES)


def test_filter_of_an_unknown_machine_is_an_error():
    """There is no filter without a table."""
    with pytest.raises(HostUnsupportedError, match="the machine is `m68k`"):
        filter_program("m68k", only_unix_sockets=False)


NOTIFY = 0x7FC0_0000
SUPERVISED = [(machine, table) for machine, tables in calls.TABLES.items() for table in tables]


@pytest.mark.parametrize(("machine", "table"), SUPERVISED, ids=["x86_64", "i386", "aarch64"])
class TestSupervisedCalls:
    def test_filter_passes_on_what_the_table_names(self, machine, table):
        """Calls without conditions go to the supervisor, all others do not."""
        column = calls.COLUMNS[table.audit]
        named = {numbers[column]: name for name, numbers in calls.CALLS.items() if numbers[column] is not None}
        answers = {n: answer(machine, table.audit, n, program=supervised_program(machine)) for n in range(500)}

        assert answers == {n: NOTIFY if n in named and named[n] not in calls.CONDITIONS else ALLOW for n in range(500)}

    @pytest.mark.parametrize(
        ("name", "arguments", "expected"),
        [
            ("openat", (0, 0, 0o101, 0), NOTIFY),
            ("openat", (0, 0, 0o2000000, 0), ALLOW),
            ("openat", (0, 0, 0o20200000, 0), NOTIFY),
            ("openat", (0, 0, 0o200000, 0), ALLOW),
            ("prctl", (8,), NOTIFY),
            ("prctl", (4,), ALLOW),
            ("getsockopt", (3, 1, 17), NOTIFY),
            ("getsockopt", (3, 1, 18), ALLOW),
            ("getsockopt", (3, 6, 17), ALLOW),
        ],
    )
    def test_filter_judges_by_arguments(self, machine, table, name, arguments, expected):
        """Files are only watched when they are made, options only when they concern ids."""
        number = calls.CALLS[name][calls.COLUMNS[table.audit]]

        assert answer(machine, table.audit, number, *arguments, program=supervised_program(machine)) == expected


def test_x32_calls_are_not_there_under_supervision():
    """Calls of x32 would go past the supervisor."""
    number = 0x4000_0000 | calls.CALLS["chown"][0]

    assert answer("x86_64", profile.X86_64.audit, number, program=supervised_program("x86_64")) == ENOSYS


def test_every_supervised_call_is_one_docker_allows():
    """What the other filter refuses would never be answered."""
    for machine, tables in calls.TABLES.items():
        for table in tables:
            column = calls.COLUMNS[table.audit]
            numbers = {numbers[column] for numbers in calls.CALLS.values()} - {None}
            assert {answer(machine, table.audit, number) for number in numbers} == {ALLOW}
