"""Changes to the bytes of a file, as damage, accidents and attacks make them."""

from __future__ import annotations

import gzip
import json
import struct

#: Values in place of others in JSON: of other types, too large, too small, empty.
ODD_NUMBERS = (0, -1, 1, 2**31, 2**63, 10**40, 1e308, -0.0, 0.5)
ODD = (None, True, False, *ODD_NUMBERS, "", "x", "cls", "é\u0000", [], {}, [[]], [0])
DEEP = (b"[" * 3000, b'{"a":' * 3000)
ODD_WORDS = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"\xff\xfe", b"\x00", b"\r\n", b'"', *DEEP)


def mutated(data, generator):
    """Bytes made of others by one to three changes.

    Args:
        data: bytes; where they are a JSON object, or begin with one as safetensors files do, its fields change too.
        generator: a NumPy random generator.
    """
    for _ in range(generator.integers(1, 4)):
        changes = [_flip, _cut, _insert, _repeat, _overwrite]
        if data[:1] == b"{":
            changes += [_change_json] * 8
        elif len(data) > 8 and data[8:9] == b"{":
            changes += [_change_header] * 8
        elif data[:2] == b"\x1f\x8b":
            changes += [_change_compressed] * 4
        data = changes[generator.integers(len(changes))](data, generator)
    return data


def _place(data, generator):
    return int(generator.integers(len(data) + 1))


def _flip(data, generator):
    if not data:
        return b"\x00"
    place = _place(data[:-1], generator)
    return data[:place] + bytes([data[place] ^ (1 << int(generator.integers(8)))]) + data[place + 1 :]


def _cut(data, generator):
    first, last = sorted((_place(data, generator), _place(data, generator)))
    return data[:first] if generator.integers(2) else data[:first] + data[last:]


def _insert(data, generator):
    place = _place(data, generator)
    some = generator.bytes(8) if generator.integers(2) else ODD_WORDS[generator.integers(len(ODD_WORDS))]
    return data[:place] + some + data[place:]


def _repeat(data, generator):
    first, last = sorted((_place(data, generator), _place(data, generator)))
    return data[:last] + data[first:last] + data[last:]


def _overwrite(data, generator):
    """Write a number over eight bytes, as lengths and offsets in headers are."""
    place = _place(data, generator)
    number = (0, 1, 2**31, 2**40, 2**63 - 1, 2**64 - 1)[generator.integers(6)]
    return data[:place] + struct.pack("<Q", number) + data[place + 8 :]


def _change_json(data, generator):
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _flip(data, generator)
    return json.dumps(_changed(value, generator)).encode("utf-8", "surrogatepass")


def _change_header(data, generator):
    """Change the JSON header of a safetensors file, and say its length anew."""
    (length,) = struct.unpack("<Q", data[:8])
    header = _change_json(data[8 : 8 + length], generator)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def _change_compressed(data, generator):
    try:
        return gzip.compress(_flip(gzip.decompress(data), generator), mtime=0)
    except Exception:
        return _flip(data, generator)


def _changed(value, generator):
    """Change one place of a value of JSON: a leaf or a branch."""
    branches = isinstance(value, dict | list) and len(value) > 0
    if not branches or generator.integers(6) == 0:
        return ODD[generator.integers(len(ODD))]
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = keys[generator.integers(len(keys))]
    other = keys[generator.integers(len(keys))]
    kind = generator.integers(8)
    if kind == 0:
        if isinstance(value, dict):
            return {name: each for name, each in value.items() if name != key}
        return [each for place, each in enumerate(value) if place != key]
    if kind == 1:
        return {**value, f"{key}x": value[key]} if isinstance(value, dict) else [*value, value[key]]
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[key] = value[other] if kind == 2 else _changed(value[key], generator)
    return copied
