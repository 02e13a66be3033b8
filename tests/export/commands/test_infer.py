"""The command infer from end to end: answers as table, JSON, JSON lines and CSV, and one line for whatever goes wrong."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from tests.commands import assert_one_line, heed_interrupts, run, run_json
from tests.core.toys import chord, save_original, save_template, template_net
from tests.odd_files import A_MINOR, BAD, C_MAJOR, ODD, SILENT, pcm
from triadbench import cli
from triadbench.core.files import pretrained_path
from triadbench.core.models.checkpoint import Checkpoint, load, save
from triadbench.core.models.chords import ROOTS
from triadbench.core.models.predictor import Predictor
from triadbench.core.models.spelling import chord_name
from triadbench.export.predict import predictor as runtime
from triadbench.kernels.spec import CHORD

ROOT = Path(cli.__file__).parent
SHIPPED = pretrained_path("chordnet.onnx")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_template(tmp_path_factory.mktemp("model") / "template.safetensors")


@pytest.fixture
def sounds(tmp_path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    soundfile.write(folder / "c.wav", chord(*C_MAJOR), 16_000)
    soundfile.write(folder / "deep, am.flac", chord(*A_MINOR, rate=44_100), 44_100)
    soundfile.write(folder / "nothing.wav", np.zeros(16_000), 16_000)
    return folder


# --- infer -----------------------------------------------------------------------------------------------------------


def test_infer_table(model, sounds):
    lines = run("infer", "--provider", "torch", "--model", model, sounds).stdout.splitlines()
    assert lines[0].split() == ["file", "chord", "sure", "type", "root", "agree", "seconds", "or"] and len(lines) == 5
    cells = [line.replace(str(sounds) + "/", "").replace("deep, ", "").split() for line in lines[2:]]
    assert [row[:2] for row in cells] == [["c.wav", "C"], ["am.flac", "Am"], ["nothing.wav", "N"]]
    assert "100.0 %" in lines[2] and cells[2][2:7] == ["—", "—", "—", "—", "1.00"]


def test_infer_json(model, sounds):
    result, done = run_json("infer", "--provider", "torch", "--model", model, sounds)
    assert done.stderr == ""
    assert (result["n"], result["failed"], result["model"]) == (3, 0, str(model))
    assert [each["chord"] for each in result["results"]] == ["C", "Am", "N"]
    assert result["results"][2]["confidence"] is None


def test_infer_csv(model, sounds):
    (sounds / "bad.wav").write_text("no sound")
    done = run("infer", "--provider", "torch", "--model", model, "--csv", sounds, code=1)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0]) == [
        "file",
        "chord",
        "type",
        "root",
        "confidence",
        "type_confidence",
        "root_confidence",
        "agreement",
        "duration_s",
        "windows",
        "name",
        "label",
        "bass",
        "label_confidence",
        "error",
    ]
    by_name = {Path(row["file"]).name: row for row in rows}
    assert by_name["deep, am.flac"]["chord"] == "Am" and float(by_name["c.wav"]["confidence"]) > 0.9
    assert by_name["nothing.wav"]["chord"] == "N" and by_name["nothing.wav"]["confidence"] == ""
    assert by_name["bad.wav"]["chord"] == "" and "not a sound file" in by_name["bad.wav"]["error"]


@pytest.fixture
def seventh(tmp_path):
    """A model that hears a seventh chord on every root, whatever sounds."""
    net = template_net()
    with torch.no_grad():
        for parameter in (*net.at_root.parameters(), *net.no_chord.parameters()):
            parameter.zero_()
        net.at_root.bias[4] = 9
    save(Checkpoint(net, "chordnet", "both", CHORD), tmp_path / "seventh.safetensors")
    return tmp_path / "seventh.safetensors"


def test_infer_names_whole_chords_and_with_triads_their_triads(sounds, seventh):
    full = ("infer", "--provider", "torch", "--model", seventh, sounds / "c.wav")
    (row,) = run_json(*full)[0]["results"]
    # Every root is as likely as the others.
    assert (row["chord"], row["label"], row["name"], row["type"]) == ("Ab", "Ab:7", "Ab7", "major")
    assert row["label_confidence"] < row["confidence"] < 0.09 and row["type_confidence"] > 0.99
    line = run(*full, "--alternatives", 2).stdout.splitlines()[2]
    assert "Ab7" in line and "A7 8.3 %" in line
    rows = list(csv.DictReader(io.StringIO(run(*full, "--csv", "--alternatives", 1).stdout)))
    assert (rows[0]["chord"], rows[0]["name"], rows[0]["label"]) == ("Ab", "Ab7", "Ab:7")
    assert rows[0]["alternatives"].startswith("A7:0.08")
    (row,) = run_json(*full, "--triads", "--alternatives", 47)[0]["results"]
    assert row["name"] == row["chord"] in ROOTS and row["label"] == f"{row['root']}:maj"
    assert all(other["name"] == other["chord"] for other in row["alternatives"]) and len(row["alternatives"]) == 47


def test_a_name_with_a_space_is_one_entry_of_the_csv(sounds, seventh):
    net = load(seventh).model
    with torch.no_grad():
        net.at_root.bias[4], net.at_root.bias[16] = 0, 9
    save(Checkpoint(net, "chordnet", "both", CHORD), seventh)
    done = run("infer", "--provider", "torch", "--model", seventh, sounds / "c.wav", "--csv", "--alternatives", 2)
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    assert (row["chord"], row["type"], row["root"], row["name"]) == ("", "", "", "Ab (note)")
    assert [entry.partition(":")[0] for entry in row["alternatives"].split(" ")] == ["A(note)", "Bb(note)"]


def test_infer_jsonl(sounds):
    (sounds / "bad.wav").write_text("no sound")
    done = run("infer", "--jsonl", sounds, code=1)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(result["file"]).name for result in results] == ["bad.wav", "c.wav", "deep, am.flac", "nothing.wav"]
    assert [result.get("chord") for result in results] == [None, "C", "Am", "N"] and "not a sound" in results[0][
        "error"
    ]
    assert done.stderr.splitlines()[-1] == "Error: 1 of 4 files failed"


def test_infer_alternatives(sounds):
    result, _ = run_json("infer", sounds / "c.wav", "--alternatives", 5)
    others = [other["name"] for other in result["results"][0]["alternatives"]]
    assert len(set(others)) == 5 and "C" not in others and result["provider"] == "cpu"
    assert len(run_json("infer", sounds / "c.wav")[0]["results"][0]["alternatives"]) == 3
    assert run("infer", sounds / "c.wav").stdout.splitlines()[2].count(" %,") == 1
    assert run("infer", sounds / "c.wav", "--alternatives", 4).stdout.splitlines()[2].count(" %,") == 3
    assert run("infer", sounds / "c.wav", "--alternatives", 0).stdout.splitlines()[2].endswith("4.00")
    [row] = csv.DictReader(io.StringIO(run("infer", "--csv", sounds / "c.wav", "--alternatives", 2).stdout))
    assert [part.split(":")[0] for part in row["alternatives"].split()] == others[:2]


def test_infer_on_several_threads_says_the_same(sounds):
    files = [sounds / "c.wav", sounds / "deep, am.flac"] * 20
    one, many = (run("infer", "--csv", *files, "--threads", threads).stdout for threads in (1, 3))
    rows = [[row["chord"] for row in csv.DictReader(io.StringIO(text))] for text in (one, many)]
    assert rows[0] == rows[1] == ["C", "Am"] * 20


@pytest.mark.parametrize("options", [["--csv", "--json"], ["--jsonl", "--json"], ["--csv", "--jsonl"]])
def test_infer_prints_in_one_way(sounds, options):
    assert "choose --csv, --json or --jsonl" in run("infer", sounds, *options, code=2).stderr


def test_infer_without_the_shipped_model(sounds, monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "pretrained_path", lambda name: tmp_path / name)
    assert_one_line(run("infer", sounds, code=1), f"chordnet.onnx is not in {tmp_path}")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--model", "missing.safetensors"], 1, "missing.safetensors: no such model file"),
        (["--model", "missing.onnx"], 1, "missing.onnx: no such model file"),
        (["--provider", "graphics"], 2, "'graphics' is not one of 'cpu', 'cuda', 'tensorrt', 'torchscript', 'torch'"),
        (["--precision", "fp8"], 2, "'fp8' is not one of 'fp32', 'fp16', 'int8'"),
        (["--provider", "torch", "--precision", "int8"], 1, "provider torch has fp32 alone"),
        (
            ["--precision", "fp16"],
            1,
            "precision='fp16' is for GPUs: use --provider cuda or tensorrt, or another precision",
        ),
        (["--model", "."], 1, ". is a folder, not a model file"),
        (["--model", ".", "--provider", "torch"], 1, ". is a folder, not a model file"),
        (["--threads", "0"], 2, "threads"),
        (
            ["--device", "cuda:0"],
            2,
            "infer has no --device any more; what computes is its provider: give --provider cuda",
        ),
        (["--device", "cpu"], 2, "give --provider cpu or --provider torch"),
    ],
)
def test_infer_with_bad_options(sounds, arguments, code, words):
    done = run("infer", *arguments, sounds, code=code)
    assert words in done.stderr.splitlines()[-1] and done.stdout == ""
    assert code == 2 or done.stderr.count("\n") == 1


def test_infer_on_a_gpu_that_is_not_there(sounds):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    (Path(sounds) / "model.onnx").write_bytes(SHIPPED.read_bytes())
    done = run("infer", "--provider", "cuda", "--model", sounds / "model.onnx", sounds, code=1)
    assert_one_line(done, "provider cuda: ", "use --provider cpu")


@pytest.mark.parametrize("options", [[], ["--timeline"]])
def test_without_files_the_shipped_examples_are_named(options):
    result, done = run_json("infer", *options)
    names = {Path(each["file"]).name: each for each in result["results"]}
    assert done.stderr.splitlines()[0].startswith("No files were given: these are the shipped examples, in ")
    if options:
        assert list(names) == ["progression-in-g-major.ogg"] and result["results"][0]["key"] == "G major"
    else:
        assert len(names) == 4 and names["c-major.ogg"]["chord"] == "C" and done.stderr.count("\n") == 1
        assert names["f-minor-first-inversion.ogg"]["chord"] == "Fm"


@pytest.mark.parametrize("options", [[], ["--timeline"]])
def test_the_command_of_the_card_is_refused_honestly_without_a_gpu(options):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    note, error = run("infer", "--provider", "cuda", *options, code=1).stderr.splitlines()
    assert "the shipped examples" in note and error.startswith("Error: provider cuda: ")
    assert error.endswith("use --provider cpu")


def test_infer_says_that_a_checkpoint_needs_pytorch(model, sounds):
    done = run("infer", "--model", model, sounds / "c.wav")
    assert "a checkpoint: answered by PyTorch (--provider torch)" in done.stderr and " C " in done.stdout


def test_infer_with_a_model_of_one_task(sounds, tmp_path):
    path = save_original(tmp_path / "m.safetensors", "type")
    assert_one_line(run("infer", "--provider", "torch", "--model", path, sounds, code=1), "answers for the type only")


def test_infer_as_a_program(sounds):
    """Through a real process: stdout carries the object alone, and the exit code is seen by the shell."""
    command = [sys.executable, str(ROOT / "cli.py"), "infer", "--json"]
    done = subprocess.run([*command, "c.wav", "missing.wav"], cwd=sounds, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and json.loads(done.stdout)["failed"] == 1
    assert json.loads(done.stdout)["results"][0]["chord"] == "C"
    assert done.stderr.endswith("failed: missing.wav does not exist\nError: 1 of 2 files failed\n")


def test_infer_from_standard_input(sounds):
    done = CliRunner().invoke(cli.main, ["infer", "-", "--json"], input=(sounds / "deep, am.flac").read_bytes())
    assert done.exit_code == 0 and json.loads(done.stdout)["results"][0]["chord"] == "Am"


def test_infer_survives_names_that_are_no_text(sounds):
    try:
        os.link(sounds / "c.wav", os.fsencode(sounds) + b"/\xff\n.wav")
    except OSError:
        pytest.skip("this file system has no such names")
    table, line = run("infer", sounds), run("infer", "--jsonl", sounds)
    assert r"/\udcff\n.wav " in table.stdout and len(table.stdout.splitlines()) == 6
    assert json.loads(line.stdout.splitlines()[-1])["file"].endswith("/\udcff\n.wav")


@pytest.mark.parametrize("form", [None, "--csv", "--json", "--jsonl"])
def test_infer_goes_on_past_sounds_whose_names_are_no_text(sounds, form):
    try:
        os.link(sounds / "deep, am.flac", os.fsencode(sounds) + b"/caf\xe9.flac")
        Path(os.fsdecode(os.fsencode(sounds) + b"/bad\xe9.flac")).write_bytes(b"no sound")
    except OSError:
        pytest.skip("this file system has no such names")
    command = [sys.executable, str(ROOT / "cli.py"), "infer", *([form] if form else []), str(sounds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)  # UTF-8, or this fails
    named = {None: r"/caf\\udce9\.flac +Am ", "--csv": r"/caf\\udce9\.flac,Am,"}.get(
        form, r'/caf\\udce9\.flac", .*"Am"'
    )
    assert re.search(named, done.stdout) and "/c.wav" in done.stdout
    said = done.stderr.splitlines()
    assert done.returncode == 1 and len(said) == 2 and said[1] == "Error: 1 of 5 files failed"
    assert said[0].startswith("failed: ") and "/bad\\udce9.flac: not a sound file that can be read" in said[0]


def test_csv_keeps_line_ends_in_names(sounds):
    names = ["carriage\rreturn.wav", "line\nfeed.wav", 'both\r\n, quoted".wav']
    try:
        for name in names:
            os.link(sounds / "c.wav", sounds / name)
    except OSError:
        pytest.skip("this file system has no such names")
    printed = run("infer", "--csv", *(sounds / name for name in names)).stdout_bytes
    rows = list(csv.DictReader(io.StringIO(printed.decode(), newline="")))
    assert [(row["file"], row["chord"]) for row in rows] == [(str(sounds / name), "C") for name in names]
    assert printed.count(b"\r\n") == 1  # lines end as everywhere else


# --- the process -----------------------------------------------------------------------------------------------------


def program(*arguments, **options):
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
    options["preexec_fn"] = heed_interrupts if os.name == "posix" else None
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_one_clip_needs_neither_torch_nor_numba_nor_scipy_nor_plotly(sounds):
    lines = [
        "import sys, cli",
        f"try: cli.main(['infer', {str(sounds / 'c.wav')!r}])",
        "except SystemExit as end: assert not end.code",
        "wanted = {'torch', 'numba', 'llvmlite', 'scipy', 'plotly', 'onnx', 'tqdm', 'soxr'}",
        "assert not wanted & set(sys.modules), wanted & set(sys.modules)",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and " C " in done.stdout, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_a_full_disk_behind_stdout_is_one_line(sounds, form):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, str(ROOT / "cli.py"), "infer", *([form] if form else []), str(sounds)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == (
        "Error: standard output: cannot be written (No space left on device); the rest was not printed\n"
    )


def test_a_pipe_that_nobody_reads_is_one_line(sounds):
    with program("infer", "--jsonl", sounds) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 1
    assert said == "Error: standard output: cannot be written (Broken pipe); the rest was not printed\n"


@pytest.mark.skipif(os.name == "nt", reason="needs a shell that closes files")
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "2>&-"])
def test_closed_standard_files(sounds, closed):
    command = f'"{sys.executable}" "{ROOT / "cli.py"}" infer c.wav nothing.wav {closed}'
    done = subprocess.run(["sh", "-c", command], cwd=sounds, capture_output=True, text=True, timeout=120)
    assert done.returncode == (1 if ">&-" in closed.split() else 0)
    assert ("c.wav" in done.stdout) == (closed == "2>&-")
    expected = "Error: standard output: it is closed; nothing can be printed\n" if closed == ">&-" else ""
    assert done.stderr == expected


@pytest.mark.skipif(os.name == "nt", reason="needs named pipes")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("form", ["--jsonl", None])
def test_ctrl_c_ends_at_once_and_keeps_what_is_done(sounds, form, how):
    os.mkfifo(sounds / "endless")
    answered = 1 if form else 3  # lines
    with program("infer", *([form] if form else []), sounds / "c.wav", sounds / "endless", sounds / "c.wav") as process:
        lines = [process.stdout.readline() for _ in range(answered)]
        begin = time.monotonic()
        process.send_signal(how)
        try:
            rest, said = process.communicate(timeout=30)
        finally:
            process.kill()  # or the block would wait for ever
    assert process.returncode == 130 and "c.wav" in lines[-1] and rest == ""
    assert said.endswith("\nInterrupted: what was done by then is printed; give the other files to go on\n")
    assert time.monotonic() - begin < 20


# --- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BAD)
def test_infer_says_in_a_line_what_is_wrong_with_a_file(model, tmp_path, kind):
    make, words = BAD[kind]
    make(tmp_path / "x.wav")
    done = run("infer", "--provider", "torch", "--model", model, tmp_path / "x.wav", code=1)
    lines = done.stderr.splitlines()
    assert done.stdout == "" and len(lines) == 2 and lines[1] == "Error: 1 of 1 files failed"
    assert lines[0].startswith(f"failed: {tmp_path / 'x.wav'}") and words in lines[0]


def test_infer_goes_on_after_all_of_them(model, tmp_path):
    for kind, (make, _) in BAD.items():
        make(tmp_path / f"{kind}.wav")
    for name in ("a.wav", "z.wav"):
        soundfile.write(tmp_path / name, chord(*C_MAJOR), 16_000)
    files = [tmp_path / "a.wav", *(tmp_path / f"{kind}.wav" for kind in BAD), tmp_path / "z.wav"]
    result, done = run_json("infer", "--provider", "torch", "--model", model, *files, code=1)
    assert (result["n"], result["failed"]) == (len(BAD) + 2, len(BAD))
    assert [result["results"][k]["chord"] for k in (0, -1)] == ["C", "C"]
    for answer, (_, words) in zip(result["results"][1:-1], BAD.values(), strict=True):
        assert words in answer["error"] and "\n" not in answer["error"]
    assert done.stderr.count("failed: ") == len(BAD)


def test_infer_says_which_channel_it_heard(model, tmp_path):
    sound = chord(*C_MAJOR)
    soundfile.write(tmp_path / "x.wav", np.stack([sound, -sound], axis=1), 16_000)
    result, done = run_json("infer", "--provider", "torch", "--model", model, tmp_path / "x.wav")
    [answer] = result["results"]
    assert answer["chord"] == "C" and answer["note"].endswith("(one is inverted); the loudest is heard alone")
    assert done.stderr.count(answer["note"]) == 1
    done = run("infer", "--provider", "torch", "--model", model, tmp_path / "x.wav", "--timeline")
    assert done.stderr.count(answer["note"]) == 1


@pytest.mark.parametrize("kind", ODD)
def test_infer_hears_odd_files(model, tmp_path, kind):
    ODD[kind](tmp_path / "x.wav")
    result, _ = run_json("infer", "--provider", "torch", "--model", model, tmp_path / "x.wav")
    assert result["results"][0]["chord"] == "C"


@pytest.mark.parametrize("kind", SILENT)
def test_infer_hears_no_chord_in_silence(model, tmp_path, kind):
    pcm(tmp_path / "x.wav", SILENT[kind])
    result, _ = run_json("infer", "--provider", "torch", "--model", model, tmp_path / "x.wav")
    assert result["results"][0]["chord"] == "N" and result["results"][0]["type"] is None


# --- the original study's two networks ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chords_of_pair(exported_pair, tmp_path_factory):
    """A folder of six triads, and the chords that each network's own argmax gives them."""
    folder, waveforms = tmp_path_factory.mktemp("triads"), [chord(root, 1 + root % 2) for root in range(6)]
    for number, waveform in enumerate(waveforms):
        soundfile.write(folder / f"{number}.wav", waveform, 16_000, subtype="FLOAT")
    types, roots = (Predictor.load(path)(np.stack(waveforms)) for path in exported_pair[0])
    pairs = zip(roots.roots.argmax(1), types.types.argmax(1), strict=True)
    return folder, [chord_name(int(root), int(kind)) for root, kind in pairs]


def test_infer_joins_two_networks(exported_pair, chords_of_pair):
    (types, roots), (folder, chords) = exported_pair[0], chords_of_pair
    assert chords == ["G#m", "Adim", "Bbm", "Bdim", "Cm", "C#dim"]
    for models in ((types, roots), (roots, types)):
        result, done = run_json("infer", folder, "--model", models[0], "--model", models[1])
        assert [answer["chord"] for answer in result["results"]] == chords
        assert result["model"] == f"{models[0]} + {models[1]}" and result["provider"] == "torch"
        assert f"{models[1]} is a checkpoint: answered by PyTorch" in done.stderr
    text = run("infer", folder / "4.wav", "--model", types, "--model", roots, "--timeline").stdout
    assert "0:04.00" in text and "key" in text


def test_infer_answers_with_the_exported_file(exported_pair, chords_of_pair):
    folder, chords = chords_of_pair
    paths = [
        row.path for row in exported_pair[1] if row.path and row.format != "checkpoint" and row.precision == "fp32"
    ]
    assert len(paths) == 4
    for path in paths:
        result, _ = run_json("infer", folder, "--model", path)
        assert [answer["chord"] for answer in result["results"]] == chords, path
        assert "0:04.00" in run("infer", folder / "4.wav", "--model", path, "--timeline").stdout


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_infer_refuses_a_damaged_exported_pair(exported_pair, chords_of_pair, tmp_path, kind):
    source = next(Path(row.path) for row in exported_pair[1] if row.format == kind)
    content, path = bytearray(source.read_bytes()), tmp_path / source.name
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    provider = "cpu" if kind == "onnx" else "torchscript"  # named, so that no note stands before the error
    done = run("infer", chords_of_pair[0], "--model", path, "--provider", provider, code=1)
    assert_one_line(done, path.name, "SHA-256")


def test_infer_says_which_models_do_not_go_together(exported_pair, chords_of_pair, model):
    (types, roots), rows = exported_pair
    exported = next(row.path for row in rows if row.format == "onnx")
    for models, words in (
        ([types], ("answers for the type only, a chord needs the root network", "--model TYPE --model ROOT")),
        ([types, types], ("two models are joined where one answers for the type and one for the root",)),
        ([types, roots, roots], ("give one model, or two",)),
        ([model, roots], ("template.safetensors answers for the whole chord",)),
        ([exported, roots], ("root-type.onnx is an ONNX model: two networks are joined by PyTorch alone", "`export`")),
        ([roots, exported], ("root-type.onnx is an ONNX model: two networks are joined by PyTorch alone", "`export`")),
    ):
        given = [word for path in models for word in ("--model", path)]
        done = run("infer", "--provider", "torch", chords_of_pair[0], *given, code=1)
        assert_one_line(done, *words)
    done = run("infer", "--provider", "cpu", chords_of_pair[0], "--model", types, "--model", roots, code=1)
    assert_one_line(done, "type.pth is a checkpoint: two networks are joined by PyTorch alone; use --provider torch")
