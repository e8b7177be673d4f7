"""TFRecord files and the SequenceExamples in them, read without TensorFlow.

A record is its length (uint64), that length's checksum, the bytes, and their checksum; a checksum is a CRC-32C, turned
and shifted (tensorflow/core/lib/io/record_writer.h). The messages are those of tensorflow/core/example/*.proto.
"""

import functools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from zoo.errors import UserError

_LENGTH, _CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")
_FRAME = _LENGTH.size + 2 * _CHECKSUM.size


def offsets(path: Path) -> list[int]:
    """Where each record of a file begins; the records themselves are passed over.

    Raises:
      UserError: the file cannot be read, was cut short, or is none.
    """
    found, end = [], path.stat().st_size
    with path.open("rb") as file:
        while file.tell() < end:
            found.append(file.tell())
            length = _length(file, path, end)
            file.seek(length + _CHECKSUM.size, 1)
    return found


def record_at(path: Path, offset: int) -> bytes:
    """The record that begins at an offset.

    Raises:
      UserError: it is damaged.
    """
    with path.open("rb") as file:
        file.seek(offset)
        length = _length(file, path, path.stat().st_size)
        record = file.read(length)
        if _checksum(record) != _CHECKSUM.unpack(file.read(_CHECKSUM.size))[0]:
            raise UserError(f"the record at byte {offset} of {path} is damaged; download the file again")
    return record


def _length(file: BinaryIO, path: Path, end: int) -> int:
    """Reads a record's length and that length's checksum."""
    start = file.tell()
    head = file.read(_LENGTH.size)
    check = file.read(_CHECKSUM.size)
    if len(head) + len(check) < _LENGTH.size + _CHECKSUM.size:
        raise UserError(f"{path} is cut short in the record at byte {start}; download it again")
    if _checksum(head) != _CHECKSUM.unpack(check)[0]:
        raise UserError(f"{path} is no TFRecord file, or is damaged at byte {start}; download it again")
    length = _LENGTH.unpack(head)[0]
    if start + _FRAME + length > end:
        raise UserError(f"{path} is cut short in the record at byte {start}; download it again")
    return length


def _checksum(content: bytes) -> int:
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def sequence_example(record: bytes) -> Any:
    """The message in a record: `.context.feature[name]` and `.feature_lists.feature_list[name].feature[time]`."""
    return _message_class()().FromString(record)


@functools.cache
def _message_class() -> Any:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="zoo/sequence_example.proto", package="zoo", syntax="proto3")

    def message(name: str) -> Any:
        return file.message_type.add(name=name)

    def add(owner: Any, name: str, number: int, kind: int, *, repeated: bool = False, of: str | None = None) -> Any:
        label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
        return owner.field.add(name=name, number=number, type=kind, label=label, type_name=of and f".zoo.{of}")

    for name, kind in (("Bytes", field.TYPE_BYTES), ("Float", field.TYPE_FLOAT), ("Int64", field.TYPE_INT64)):
        add(message(f"{name}List"), "value", 1, kind, repeated=True)
    feature = message("Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("bytes", "float", "int64"), 1):
        of = f"{name.capitalize()}List"
        add(feature, f"{name}_list", number, field.TYPE_MESSAGE, of=of).oneof_index = 0
    add(message("FeatureList"), "feature", 1, field.TYPE_MESSAGE, repeated=True, of="Feature")
    for owner, name, value in (("Features", "feature", "Feature"), ("FeatureLists", "feature_list", "FeatureList")):
        of = message(owner)
        entry = of.nested_type.add(name="".join(word.capitalize() for word in name.split("_")) + "Entry")
        entry.options.map_entry = True
        add(entry, "key", 1, field.TYPE_STRING)
        add(entry, "value", 2, field.TYPE_MESSAGE, of=value)
        add(of, name, 1, field.TYPE_MESSAGE, repeated=True, of=f"{owner}.{entry.name}")
    example = message("SequenceExample")
    add(example, "context", 1, field.TYPE_MESSAGE, of="Features")
    add(example, "feature_lists", 2, field.TYPE_MESSAGE, of="FeatureLists")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("zoo.SequenceExample"))


def paths_of(folder: Path, pattern: str) -> Iterator[Path]:
    """The files of a folder that a pattern names, in order."""
    yield from sorted(path for path in folder.glob(pattern) if path.is_file())
