"""Just enough of Ogg (RFC 3533) and its Opus mapping (RFC 7845) to take packets out of one file and into another."""

import struct

SERIAL = 0x7AB1E51D
SAMPLES_PER_PACKET = 960  # 20 ms at 48 kHz


def _crc_table():
    table = []
    for byte in range(256):
        crc = byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x04C11DB7 if crc & 0x80000000 else 0)
        table.append(crc & 0xFFFFFFFF)
    return table


CRC_TABLE = _crc_table()


def crc(data):
    value = 0
    for byte in data:
        value = (value << 8 & 0xFFFFFFFF) ^ CRC_TABLE[value >> 24 ^ byte]
    return value


def packets(data):
    """The packets of a file with one logical stream, headers included."""
    out, partial, at = [], b"", 0
    while at < len(data):
        assert data[at:at + 4] == b"OggS", "not a page"
        lacing = data[at + 27:at + 27 + data[at + 26]]
        at += 27 + len(lacing)
        for size in lacing:
            partial += data[at:at + size]
            at += size
            if size < 255:
                out.append(partial)
                partial = b""
    return out


def page(sequence, flags, granule, content):
    """One page of whole packets."""
    lacing = b"".join(b"\xff" * (len(p) // 255) + bytes([len(p) % 255]) for p in content)
    assert len(lacing) <= 255
    head = b"OggS\0" + struct.pack("<BqIII", flags, granule, SERIAL, sequence, 0) + bytes([len(lacing)]) + lacing
    whole = bytearray(head + b"".join(content))
    whole[22:26] = struct.pack("<I", crc(whole))
    return bytes(whole)


def opus_file(opus_packets, vendor=b"tableside"):
    """An Ogg Opus file of stereo 20 ms packets with a pre-skip of 0: every sample of every packet counts."""
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, 2, 0, 48000, 0, 0)
    tags = b"OpusTags" + struct.pack("<I", len(vendor)) + vendor + struct.pack("<I", 0)
    pages = [page(0, 2, 0, [head]), page(1, 0, 0, [tags])]
    per_page = 50
    for first in range(0, len(opus_packets), per_page):
        chunk = opus_packets[first:first + per_page]
        done = first + len(chunk)
        flags = 4 if done == len(opus_packets) else 0
        pages.append(page(len(pages), flags, done * SAMPLES_PER_PACKET, chunk))
    return b"".join(pages)
