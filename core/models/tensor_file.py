"""Safetensors files, read and written: eight bytes with the header's length, a JSON header, the tensors' bytes.

https://huggingface.co/docs/safetensors. Such a file is data alone: nothing in it can be run. Those written here are
sealed: their metadata hold the SHA-256 of the file as it is with 64 zeros in place of that.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_METADATA = "__metadata__"
_SEAL = "sha256"
_NO_SEAL = b"0" * 64


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a file. One without a seal, another program's, is taken as it is.

    Raises:
        ValueError: the file is damaged, or of another kind. OSError: it cannot be read.
    """
    content = bytearray(path.read_bytes())  # writable: torch warns of memory that is not
    start = 8 + int.from_bytes(content[:8], "little")
    if len(content) < 8 or start > len(content):
        raise ValueError(f"{len(content)} bytes do not hold the header that they promise")
    try:
        header = json.loads(content[8:start].decode(), object_pairs_hook=_without_repeats)
        metadata = header.pop(_METADATA, {})
        if not all(isinstance(text, str) for text in metadata.values()):
            raise TypeError("metadata that is no text")
        entries = [
            (*entry["data_offsets"], _DTYPES[entry["dtype"]], entry["shape"], key) for key, entry in header.items()
        ]
        entries.sort(key=lambda entry: entry[:2])
        tensors, position = {}, 0
        for begin, end, dtype, shape, name in entries:
            if not all(type(size) is int and size >= 0 for size in (begin, end, *shape)):
                raise TypeError(f"{name!r} has a size that is no whole number")
            # Every byte belongs to one tensor: nothing overlaps, nothing is hidden between two.
            if begin != position or end - begin != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"bytes {begin} to {end} are not those of {name!r}")
            tensors[name] = _tensor(content[start + begin : start + end], dtype).reshape(shape)
            position = end
        if start + position != len(content):
            raise ValueError(f"tensors end at byte {start + position} of {len(content)}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, RuntimeError) as error:
        raise ValueError(f"a header that does not fit: {error or type(error).__name__}") from error
    seal = metadata.pop(_SEAL, None)
    if seal is not None and _digest(content.replace(seal.encode(), _NO_SEAL, 1)).decode() != seal:
        raise ValueError("damaged or changed since it was written: its SHA-256 is another")
    return tensors, metadata


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a file; ValueError: a tensor of a dtype that is not kept. OSError: it cannot be written."""
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))  # each is aligned so
    header: dict[str, object] = {_METADATA: {_SEAL: _NO_SEAL.decode(), **metadata}}  # the first 64 zeros
    position = 0
    for name, tensor in ordered:
        if tensor.dtype not in _NAMES:
            raise ValueError(f"{name} is of {tensor.dtype}, which is not kept")
        end = position + tensor.nbytes
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    parts = [tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data for _, tensor in ordered]
    head = len(text).to_bytes(8, "little") + text
    with open(path, "wb") as file:
        file.writelines([head.replace(_NO_SEAL, _digest(head, *parts), 1), *parts])


def _digest(*parts: bytes | bytearray | memoryview) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest().encode()


def _tensor(content: bytearray, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(made := dict(pairs)) < len(pairs):
        raise ValueError("a name that is there twice")
    return made
