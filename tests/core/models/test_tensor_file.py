"""Our reader and writer agree with the safetensors package, and whatever is damaged is a ValueError."""

import json
import random
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from triadbench.core.models.predictor import SHIPPED
from triadbench.core.models.tensor_file import read_tensors, write_tensors

DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8".split()
METADATA = {"a": "ä\n\0", "b": ""}


@pytest.fixture
def tensors():
    made = {name: torch.arange(-3, 9).to(getattr(torch, name)).reshape(3, 4) for name in DTYPES}
    return made | {
        "one": torch.tensor(2.5),
        "none": torch.zeros(0, 5),
        "odd": torch.tensor([1, 2, 3], dtype=torch.int8),
    }


def same(one, other):
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def test_what_we_write_the_package_reads(tensors, tmp_path):
    write_tensors(tensors, tmp_path / "ours", METADATA)
    assert same(load_file(tmp_path / "ours"), tensors)
    with safe_open(tmp_path / "ours", framework="pt") as file:
        sealed = file.metadata()
    assert {key: sealed[key] for key in METADATA} == METADATA and sealed.keys() - METADATA.keys() == {"sha256"}
    assert read_tensors(tmp_path / "ours")[1] == METADATA


def test_what_the_package_writes_we_read(tensors, tmp_path):
    save_file(tensors, tmp_path / "theirs", metadata=METADATA)
    read, metadata = read_tensors(tmp_path / "theirs")
    assert same(read, tensors) and metadata == METADATA
    read["one"].fill_(3)  # nobody else's memory
    save_file(tensors, tmp_path / "bare")
    assert read_tensors(tmp_path / "bare")[1] == {}


def test_the_shipped_checkpoint():
    assert same(read_tensors(SHIPPED)[0], load_file(SHIPPED))
    with safe_open(SHIPPED, framework="pt") as file:
        assert "sha256" in file.metadata()


def test_any_changed_byte_breaks_the_seal(tensors, tmp_path):
    write_tensors(tensors, tmp_path / "m", {"zeros": "0" * 64})  # as the seal is while the digest is taken
    whole = (tmp_path / "m").read_bytes()
    assert read_tensors(tmp_path / "m")[1] == {"zeros": "0" * 64}
    for at in range(8 + int.from_bytes(whole[:8], "little"), len(whole)):
        (tmp_path / "m").write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        with pytest.raises(ValueError, match="damaged or changed since it was written"):
            read_tensors(tmp_path / "m")


def test_views_and_other_layouts(tmp_path):
    whole = torch.arange(24.0).reshape(1, 2, 3, 4)
    tensors = {"turned": whole[0, 0].T, "last": whole.to(memory_format=torch.channels_last), "part": whole[..., 1]}
    write_tensors(tensors, tmp_path / "m", {})
    assert same(read_tensors(tmp_path / "m")[0], tensors)


def test_a_dtype_that_is_not_kept(tmp_path):
    with pytest.raises(ValueError, match="c is of torch.complex64"):
        write_tensors({"c": torch.zeros(1, dtype=torch.complex64)}, tmp_path / "m", {})


def entry(shape=(2,), begin=0, end=8, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


DAMAGE = {
    "beyond the end": (entry(), bytes(4)),
    "bytes to spare": (entry(), bytes(9)),
    "shape too large": (entry((3,)), bytes(8)),
    "begins late": (entry(begin=1, end=9), bytes(9)),
    "begins before": (entry(begin=-8, end=0), b""),
    "ends before it begins": (entry((-2,), 8, 0), bytes(8)),
    "negative sizes that multiply well": (entry((-1, -2)), bytes(8)),
    "a size that is true": (entry((2, True)), bytes(8)),
    "a size with a fraction": (entry((2.0,)), bytes(8)),
    "a size that no tensor has": (entry((0, 2**70), 0, 0), b""),
    "another dtype": (entry(dtype="F8_E4M3"), bytes(8)),
    "no dtype": ({"shape": [2], "data_offsets": [0, 8]}, bytes(8)),
    "three offsets": ({"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 8]}, bytes(8)),
    "no object": ([1], b""),
    "a dtype that is a list": (entry(dtype=[]), bytes(8)),
    "deep": (json.loads("[" * 900 + "]" * 900), b""),
}


def stored(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize("case", DAMAGE)
def test_a_header_that_does_not_fit(case, tmp_path):
    header, data = DAMAGE[case]
    (tmp_path / "m").write_bytes(stored({"a": header}, data))
    with pytest.raises(ValueError):
        read_tensors(tmp_path / "m")


@pytest.mark.parametrize(
    "content",
    [
        stored({"a": entry(), "b": entry()}, bytes(8)),  # both of the same bytes
        stored({"a": entry(), "b": entry(begin=4, end=12)}, bytes(12)),
        stored(b'{"a":%b,"a":%b}' % ((json.dumps(entry((0,), 0, 0)).encode(),) * 2), b""),
        stored({"__metadata__": {"a": 1}}, b""),
        stored({"__metadata__": []}, b""),
        stored(b"[" * 100_000, b""),
        stored(b"null", b""),
        stored(b"\xff\xfe{}", b""),
        struct.pack("<Q", 2**63) + b"{}",
        b"",
        b"1234567",
    ],
    ids=range(11),
)
def test_a_file_that_is_none(content, tmp_path):
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(ValueError):
        read_tensors(tmp_path / "m")


def test_any_damage_is_a_value_error_or_harmless(tensors, tmp_path):
    write_tensors(tensors, tmp_path / "m", METADATA)
    whole, shuffle = (tmp_path / "m").read_bytes(), random.Random(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    refused = 0
    for _ in range(1500):
        content = bytearray(whole)
        for _ in range(shuffle.choice([1, 1, 2, 8])):
            content[shuffle.randrange(header)] = shuffle.choice(b'0123456789[]{},:"-eE \x00\xff')
        (tmp_path / "m").write_bytes(content[: shuffle.choice([len(content), shuffle.randrange(len(content))])])
        try:
            assert sum(tensor.nbytes for tensor in read_tensors(tmp_path / "m")[0].values()) == len(whole) - header
        except ValueError:
            refused += 1
    assert 500 < refused < 1500
