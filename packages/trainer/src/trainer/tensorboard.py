"""metrics.jsonl → an event file that TensorBoard reads, without TensorBoard.

    record   length u64 | masked CRC-32C of these 8 bytes | a message `Event` of Protocol Buffers | its masked CRC-32C

Of `Event` only: 1 wall_time (double), 2 step (int64), 3 file_version (string), 5 summary, 7 session_log; of Summary:
1 value {1 tag, 2 simple_value (float)}; of SessionLog: 1 status, of which START (1) makes TensorBoard drop what came
before from the step on, so that a run that goes back is drawn once.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

DIRECTORY = "tensorboard"
SCALARS = ("loss", "grad_norm", "weight_norm", "lr", "tokens_per_s", "mfu", "weight_decay", "tokens")
GROUPS = {"views": "loss", "rates": "lr"}
START = b"\x08\x01"


class EventFile:
    """Appends to an event file in a run's directory. A new object begins a new file."""

    def __init__(self, directory: Path, first_step: int) -> None:
        self._last = first_step - 1
        (directory / DIRECTORY).mkdir(parents=True, exist_ok=True)
        self.path = directory / DIRECTORY / f"events.out.tfevents.{time.time_ns() // 1000:016d}.winnow"
        self._append(event(3, b"brain.Event:2"), start(first_step))

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Adds rows of metrics.jsonl."""
        for row in rows:
            if row["step"] <= self._last:
                self._append(start(row["step"]))
            self._last = row["step"]
            values = b"".join(field(1, field(1, tag.encode()) + b"\x15" + struct.pack("<f", x)) for tag, x in of(row))
            self._append(event(5, values, step=row["step"]))

    def _append(self, *messages: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(b"".join(map(framed, messages)))


def of(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The tags of a row with their values, such as loss and loss/web."""
    for name in SCALARS:
        if row.get(name) is not None:
            yield name, row[name]
    for name, tag in GROUPS.items():
        for key, value in (row.get(name) or {}).items():
            yield f"{tag}/{key}", value


def start(step: int) -> bytes:
    """An event after which only steps from `step` on count."""
    return event(7, START, step=step)


def event(number: int, content: bytes, *, step: int = 0) -> bytes:
    """A message `Event` with one field of bytes."""
    return b"\x09" + struct.pack("<d", time.time()) + b"\x10" + varint(step) + field(number, content)


def field(number: int, content: bytes) -> bytes:
    """A field of bytes of a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(number: int) -> bytes:
    """A whole number, seven bits a byte, the lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def framed(message: bytes) -> bytes:
    """A record."""
    length = struct.pack("<Q", len(message))
    return length + struct.pack("<I", masked(crc32c(length))) + message + struct.pack("<I", masked(crc32c(message)))


def masked(crc: int) -> int:
    """A CRC as it stands in records: rotated, and not itself."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _table() -> Iterator[int]:
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        yield byte


_TABLE = tuple(_table())


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), as in RFC 3720."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
