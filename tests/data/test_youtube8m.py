"""YouTube-8M's records as published: written here byte by byte, and by tensorboardX's writer where that has one."""

import struct
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.record_writer import RecordWriter

from zoo.data import open_dataset, tfrecord
from zoo.data.youtube8m import dequantised
from zoo.errors import UserError


def field(number: int, content: bytes | int) -> bytes:
    """A protobuf field by hand: a varint, or bytes with their length."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def entry(name: str, value: bytes) -> bytes:
    return field(1, field(1, name.encode()) + field(2, value))


def example(frames: int, labels: list[int], seed: int = 0, rgb: int = 1024) -> tuple[bytes, np.ndarray]:
    """A SequenceExample with drawn features uint8 [frames, 1152]."""
    features = np.random.default_rng(seed).integers(0, 256, (frames, rgb + 128), np.uint8)
    packed = field(3, field(1, b"".join(map(varint, labels))))
    context = entry("id", field(1, field(1, b"abcd"))) + entry("labels", packed)
    lists = b""
    for name, part in (("rgb", features[:, :rgb]), ("audio", features[:, rgb:])):
        lists += entry(name, b"".join(field(1, field(1, field(1, row.tobytes()))) for row in part))
    return field(1, context) + field(2, lists), features


def write(path: Path, *records: bytes) -> Path:
    writer = RecordWriter(str(path))
    for record in records:
        writer.write(record)
    writer.close()
    return path


def test_what_was_written_is_read(tmp_path):
    written = [example(4, [3, 3861, 200], seed=0), example(7, [], seed=1)]
    write(tmp_path / "train0001.tfrecord", written[0][0], written[1][0])
    write(tmp_path / "validate0001.tfrecord", written[1][0])
    source = open_dataset("youtube8m", "train", data=str(tmp_path), num_frames=5)
    assert (len(source), len(open_dataset("youtube8m", "test", data=str(tmp_path)))) == (2, 1)
    first, second = source[0], source[1]
    assert (int(first["frames"]), int(second["frames"])) == (4, 5)
    np.testing.assert_array_equal(np.flatnonzero(first["classes"]), [3, 200, 3861])
    assert second["classes"].sum() == 0
    expected = written[0][1].astype(np.float64) * 4 / 255 + 4 / 512 - 2
    np.testing.assert_allclose(first["features"][:4], expected, atol=1e-6)
    np.testing.assert_array_equal(first["features"][4:], 0)
    np.testing.assert_allclose(second["features"], dequantised(written[1][1][:5]))


def test_what_is_damaged_is_told(tmp_path):
    def told(message: str):
        with pytest.raises(UserError, match=message):
            open_dataset("youtube8m", "train", data=str(tmp_path))[0]

    told("has no files train")
    path = write(tmp_path / "train0.tfrecord", example(2, [1])[0], example(3, [2])[0])
    whole = path.read_bytes()
    second = tfrecord.offsets(path)[1]
    for cut in (1, 2000, len(whole) - second - 4):
        path.write_bytes(whole[:-cut])
        told(rf"train0.tfrecord is cut short in the record at byte {second}")
    path.write_bytes(whole[:500] + b"?" + whole[501:])
    told("the record at byte 0 of .*train0.tfrecord is damaged")
    path.write_bytes(struct.pack("<Q", 5) + bytes(20))
    told("is no TFRecord file, or is damaged at byte 0")
    write(path, example(2, [4000])[0])
    told("has a label outside 0 to 3861")
    write(path, example(2, [1], rgb=1000)[0])
    told("rgb in the record at byte 0 of .* has not 1024 bytes a frame")
    write(path, field(1, b""))
    told("has no rgb; these are no frame features")
