"""No header, whatever is in its fields, makes a reader or `infer` do anything but answer or say what is wrong."""

import resource

import pytest

from tests.core.audio.header_fuzz import SEEDS, fuzzed
from tests.core.sounds import NAMES
from triadbench.core.audio.io import AudioError, check_header, iter_blocks, read_audio, read_clip, read_header
from triadbench.core.data.dataset import open_dataset
from triadbench.core.errors import UserError
from triadbench.export.predict import ChordPredictor
from triadbench.export.predict.bulk import infer_files

READERS = {
    "header": read_header,
    "first bytes": lambda data: check_header(data[:4096], len(data), "x"),
    "blocks": lambda data: [len(block) for block in iter_blocks(data, note=[].append)],
    "whole": read_audio,
    "clip": read_clip,
}
MOST_MB = 500


def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


@pytest.mark.parametrize("n", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_every_reader_answers_or_says_why(n, capfd):
    before, read, refused, kinds = megabytes(), 0, 0, set()
    for name, data in fuzzed(n):
        for reader in READERS.values():
            try:
                reader(data)
            except AudioError as error:
                assert "\n" not in str(error), name
                refused += 1
            else:
                read += 1
        kinds.add(name.rpartition(" ")[0].split(" ")[0].rstrip(","))
    assert read > n and refused > n  # neither is the rule
    assert len(kinds) >= len({seed.split(",")[0].split(" ")[0] for seed in SEEDS})
    assert megabytes() - before < MOST_MB
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("n", [100, pytest.param(10_000, marks=pytest.mark.slow)])
def test_infer_and_data_sets_go_on(n, tmp_path, capfd):
    predictor, path, chunk = ChordPredictor(threads=1), tmp_path / NAMES[0], []
    before, answers = megabytes(), 0
    for number, (_, data) in enumerate(fuzzed(n, seed=1)):
        path.write_bytes(data)
        try:
            [clip] = open_dataset(tmp_path).clips
            assert clip.member == NAMES[0]
        except UserError as error:
            assert "no clip found" in str(error)
        chunk.append(path.rename(tmp_path.parent / f"{tmp_path.name}-{number}"))
        if len(chunk) == 100:
            results = list(infer_files(predictor, chunk, workers=2))
            assert [result["file"] for result in results] == [str(file) for file in chunk]
            assert all(("chord" in result) != ("error" in result) for result in results)
            answers += sum("chord" in result for result in results)
            for file in chunk:
                file.unlink()
            chunk.clear()
    assert 0 < answers < n and megabytes() - before < MOST_MB
    assert capfd.readouterr() == ("", "")
