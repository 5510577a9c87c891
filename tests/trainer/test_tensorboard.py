"""The event file against the formats that it is written in: CRC-32C, TFRecord, Protocol Buffers."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainer.tensorboard import EventFile, crc32c, masked, varint


def test_the_checksum_is_crc_32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of the catalogue of CRCs
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert crc32c(bytes(range(32))) == 0x46DD794E


@pytest.mark.parametrize(("number", "expected"), [(0, b"\x00"), (127, b"\x7f"), (300, b"\xac\x02")])
def test_numbers_are_varints(number: int, expected: bytes) -> None:
    assert varint(number) == expected


def records(file: Path) -> Iterator[bytes]:
    data = file.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert struct.unpack("<I", data[8:12]) == (masked(crc32c(data[:8])),)
        message, (crc,) = data[12 : 12 + length], struct.unpack("<I", data[12 + length : 16 + length])
        assert crc == masked(crc32c(message))
        yield message
        data = data[16 + length :]


def parsed(message: bytes) -> dict[int, list[Any]]:
    """The fields of a message: doubles, floats, whole numbers and bytes, by number."""
    found: dict[int, list[Any]] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = number()
        value: Any
        if key & 7 == 0:
            value = number()
        else:
            size = number() if key & 7 == 2 else {1: 8, 5: 4}[key & 7]
            value = message[at : at + size]
            at += size
            if key & 7 != 2:
                value = struct.unpack("<d" if size == 8 else "<f", value)[0]
        found.setdefault(key >> 3, []).append(value)
    return found


def test_rows_are_scalars_by_step_and_a_run_that_went_back_says_from_where(tmp_path: Path) -> None:
    file = EventFile(tmp_path, 0)
    file.add([{"step": 7, "loss": 2.5, "views": {"web": 3.0}, "rates": {"hidden": 0.5}, "mfu": None}])
    file.add([{"step": 6, "loss": None}])
    first, *events = [parsed(message) for message in records(file.path)]
    assert first[3] == [b"brain.Event:2"]
    began, row, back, empty = events
    assert (began[2], began[7]) == ([0], [b"\x08\x01"])
    values = [parsed(value) for value in parsed(row[5][0])[1]]
    assert row[2] == [7]
    assert {value[1][0]: value[2][0] for value in values} == {b"loss": 2.5, b"loss/web": 3.0, b"lr/hidden": 0.5}
    assert (back[2], back[7]) == ([6], [b"\x08\x01"])
    assert (empty[2], empty[5]) == ([6], [b""])
