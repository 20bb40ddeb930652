"""What tells a version whose bytes are not those that were written: CRC-32, which is fast and misses little."""

import zlib

from comity_server.record import Record


def checksum(record: Record) -> int:
    """Of a version, with all that is said of it."""
    key, value, *said = record
    return zlib.crc32(value, zlib.crc32(repr((key, *said)).encode()))
