"""What all scripts do alike: options, word lists, output, plots, checkpoints."""

import contextlib
import io
import os
import pickle
import re
import runpy
import subprocess
import sys
import types
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import numpy as np
import pytest

import batchnorm
import bigram
import micrograd
import mlp
from common import build_dataset, build_vocab, load_words, split_words
from conftest import FEW, invoke

ROOT = Path(mlp.__file__).parent
NETS = {"mlp": mlp, "batchnorm": batchnorm}
MAKERS = {"bigram": bigram} | NETS  # of words
SCRIPTS = {"micrograd": micrograd} | MAKERS
SMALL = ["--data", FEW, "--hidden", "8", "--samples", "0"]
STEP = r"^ +[\d,]+ +\d+\.\d{4}"  # a row that only a step of the training prints
POSIX = pytest.mark.skipif(os.name == "nt", reason="needs the pipes of POSIX")


def command(name, *arguments):
    return [sys.executable, ROOT / f"{name}.py", *map(str, arguments)]


def run(name, *arguments, **options):
    """Run a script as a process of its own."""
    options = {"encoding": "utf-8", "timeout": 60, "capture_output": True, **options}
    return subprocess.run(command(name, *arguments), **options)


def losses_of(output):
    """The table of losses at the end -> [train, dev, test]."""
    rows = re.findall(r"^(train|dev|test) +([\d.]+) +[\d.]+$", output, re.M)
    assert [name for name, _ in rows] == ["train", "dev", "test"]
    return [float(loss) for _, loss in rows]


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(name):
    module, arguments = MAKERS[name], ["--data", FEW, "--steps", 100, "--seed"]
    runs = [invoke(module, *arguments, 7), run(name, *arguments, 7), invoke(module, *arguments, 8)]
    first, second, other = (re.sub(r" in [\d.]+ s\n", "", result.stdout) for result in runs)
    assert first == second != other


@pytest.mark.parametrize("name", MAKERS)
def test_words_of_any_characters_train_also_where_the_terminal_lacks_them(tmp_path, name):
    path = tmp_path / "places.txt"
    path.write_text("Sa\u0303o Paulo\nBad Säckingen\n漢城\n" * 10, encoding="utf-8")
    arguments = ["--data", path, "--steps", 100, "--samples", 3, "--prefix"]
    for prefix in ("漢", "Sã"):
        lines = invoke(MAKERS[name], *arguments, prefix).stdout.splitlines()
        assert all(line.startswith(prefix) for line in lines[-3:])
    env = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    result = run(name, *arguments, "B", env=env, encoding="cp1252")
    assert result.returncode == 1 and "Error: 'charmap' codec can't encode" in result.stderr


@POSIX
@pytest.mark.parametrize("name", MAKERS)
def test_words_may_come_through_a_pipe(tmp_path, name):
    words = "name\tnumber\n" + "emma\t20\n" * 30
    result = run(name, "--data", "/dev/stdin", "--steps", 2, input=words, cwd=tmp_path)
    assert result.stdout.startswith("31 words (2 distinct), ") and result.returncode == 0
    assert result.stdout.splitlines()[1] == r"11 characters: .\t02abemnru"


@POSIX
@pytest.mark.parametrize("name", SCRIPTS)
def test_output_that_ends_early_or_is_closed_gives_no_traceback(name):
    many = ["--samples", "2000"] * (name in MAKERS)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command(name, "--steps", "5", *many), **pipes)
    process.stdout.readline()
    process.stdout.close()  # as head does
    assert b"Traceback" not in process.stderr.read()
    process.wait(60)
    options = {"preexec_fn": lambda: os.close(1), "stderr": subprocess.PIPE, "timeout": 60}
    result = subprocess.run(command(name, "--steps", "5"), **options)
    assert result.returncode == 0 and b"Traceback" not in result.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_runs_as_in_a_notebook(name, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--steps", "5"])
    screen = io.StringIO()
    with contextlib.redirect_stdout(screen), pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / f"{name}.py"), run_name="__main__")
    assert end.value.code == 0 and "loss" in screen.getvalue()


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize(
    "name, options",
    [
        ("micrograd", "--steps 1"),
        ("bigram", "--steps 9 --data odd.txt"),
        ("mlp", "--steps 200"),
        ("mlp", "--steps 9 --embedding 2 --data odd.txt"),
        ("batchnorm", "--steps 0 --layers 12"),
        ("batchnorm", "--steps 9 --init zero"),
    ],
)
def test_plot_draws_a_picture(tmp_path, monkeypatch, name, options):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    Path("odd.txt").write_text("$^さくら\nゆき\n" * 9, encoding="utf-8")
    result = invoke(SCRIPTS[name], *options.split(), "--plot", "run.png")
    assert result.exit_code == 0 and Path("run.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", SCRIPTS)
def test_without_matplotlib_a_plot_is_refused_before_training(tmp_path, name):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('none\\nand forty lines')")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = run(name, "--plot", tmp_path / "x.pdf", env=env)
    assert result.returncode == 1 and not re.search(STEP, result.stdout, re.M)
    assert result.stderr == "Error: none\n"


@pytest.mark.parametrize(
    "name, option",
    [*zip(SCRIPTS, ["--plot"] * 4), *zip(NETS, ["--checkpoint"] * 2), ("micrograd", "--graph")],
)
def test_a_file_that_cannot_be_written_is_one_line_at_once(tmp_path, name, option):
    pytest.importorskip("matplotlib")
    (tmp_path / "file").touch()
    for folder in (tmp_path / "none", tmp_path / "file"):
        result = run(name, option, folder / "x.svg")
        rows = re.findall(STEP, result.stdout, re.M)
        assert result.returncode == 1 and len(rows) <= (option == "--checkpoint")
        assert re.fullmatch(f"Error: .*{re.escape(str(folder))}.*\n", result.stderr)


WRONG = {  # scripts: options
    "micrograd bigram mlp batchnorm": "--steps -1, --steps x, --steps 1.5, --seed -1, --lr 0"
    ", --lr -1, --lr inf, --lr 1e30, --lr x, --plot , --plot x, --plot x.jpg, --plot /",
    "bigram mlp batchnorm": "--samples -1, --temperature 0, --data /, --data /none, --data "
    ", --prefix é, --prefix Ma, --prefix a.b",
    "mlp batchnorm": "--batch-size 0, --context 0, --embedding 0, --hidden 0, --checkpoint /"
    ", --checkpoint ",
    "micrograd": "--dataset suns, --steps 0",
    "bigram": "--smoothing -1, --smoothing x, --smoothing 1e300, --l2 -1, --order 1, --word é"
    ", --word a.b, --model net --order 3",
    "batchnorm": "--batch-size 1, --layers 0, --weight-decay x, --weight-decay -1, --init good"
    ", --activation gelu",
}


@pytest.mark.parametrize(
    "name, options",
    [(n, each) for names in WRONG for n in names.split() for each in WRONG[names].split(", ")],
)
def test_wrong_options_are_usage_errors_that_name_the_option(name, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    option, *values = options.split(" ")
    result = invoke(SCRIPTS[name], option, *values)
    assert result.exit_code == 2 and option in result.stderr.splitlines()[-1]
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_diverging_loss_is_one_line_and_keeps_files(tmp_path, monkeypatch, name):
    def diverge(*arguments, **options):
        yield from zip(count(1), [1, 2, 3, np.nan])

    path, picture = tmp_path / "m.npz", tmp_path / "run.png"
    picture.write_bytes(b"of an earlier run")
    monkeypatch.setattr(SCRIPTS[name], "train", diverge)
    options = ["--checkpoint", path] * (name in NETS)
    options += ["--plot", picture] * (find_spec("matplotlib") is not None)
    result = invoke(SCRIPTS[name], *options, "--steps", 10)
    told = "try a lower --lr, or tests/gradcheck.py if you changed the code"
    assert result.exit_code == 1
    assert result.stderr == f"Error: the loss diverged at step 4: {told}\n"
    assert picture.read_bytes() == b"of an earlier run"
    assert name not in NETS or contents(path)["losses"].tolist() == [1, 2, 3]


def contents(path):
    with np.load(path) as archive:
        return dict(archive)


class Killed(BaseException):
    """As by a signal: no `except` of the scripts catches it."""


def fail(patch, owner, attribute, call, error):
    """Let that call of a function raise the error."""
    calls, original = count(1), getattr(owner, attribute)

    def function(*arguments, **options):
        if next(calls) == call:
            raise error
        return original(*arguments, **options)

    patch.setattr(owner, attribute, function)


@pytest.mark.parametrize("name", NETS)
def test_a_run_that_is_killed_again_and_again_ends_with_the_bits_of_one_that_is_not(
    tmp_path, monkeypatch, name
):
    whole, path = tmp_path / "whole.npz", tmp_path / "m.npz"
    arguments = [*SMALL, "--steps", 3000, "--checkpoint"]
    assert invoke(NETS[name], *arguments, whole).exit_code == 0
    done = []
    for owner, function, call in (
        *((NETS[name], "loss_and_gradients", 700), (np, "savez", 3), (os, "replace", 2)),
        *((NETS[name], "loss_and_gradients", 1), (NETS[name], "loss_and_gradients", 900)),
    ):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            fail(patch, owner, function, call, Killed())
            invoke(NETS[name], *arguments, path)
        done.append(len(contents(path)["losses"]))
    assert done == [600, 1200, 1500, 1500, 2100]
    with monkeypatch.context() as patch:
        fail(patch, NETS[name], "loss_and_gradients", 400, KeyboardInterrupt())
        stopped = invoke(NETS[name], *arguments, path)
    assert stopped.exit_code == 0 and "\n399 steps in " in stopped.stdout
    assert f"\nstopped by Ctrl-C: {path} holds the first 2,400 steps\n" in stopped.stdout
    assert len(losses_of(stopped.stdout)) == 3
    assert "2,400 of 3,000 steps done" in invoke(NETS[name], *arguments, path).stdout
    expected, found = contents(whole), contents(path)
    assert expected.keys() == found.keys() and len(found["losses"]) == 3000
    assert all(np.array_equal(expected[key], found[key]) for key in expected)


@pytest.mark.parametrize("name", NETS)
def test_the_rest_of_the_time_is_shown_on_a_terminal(monkeypatch, name):
    terminal = types.SimpleNamespace(stderr=types.SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(NETS[name], "sys", terminal)
    result = invoke(NETS[name], *SMALL, "--steps", 2000)
    assert re.fullmatch(r"( +\d+ s left\r){10}", result.stderr)


@pytest.fixture(params=NETS)
def checkpoint(tmp_path, request):
    """A script and a checkpoint of three steps of it."""
    path = tmp_path / "m.npz"
    result = invoke(NETS[request.param], *SMALL, "--steps", 3, "--checkpoint", path)
    assert result.exit_code == 0
    return NETS[request.param], path


def refusal(module, path, *arguments):
    """The one line that refuses a checkpoint, which stays as it is."""
    before = path.read_bytes()
    result = invoke(module, *SMALL, "--steps", 3, "--checkpoint", path, *arguments)
    assert result.exit_code == 1 and path.read_bytes() == before, result.output
    assert not re.search(STEP, result.stdout, re.M) and len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(f"Error: {path} ")
    return result.stderr


def test_the_same_command_shows_and_samples_what_was_learnt(checkpoint):
    module, path = checkpoint
    arguments = ["--data", FEW, "--hidden", 8, "--steps", 300, "--checkpoint", path.with_name("n")]
    before, again = (invoke(module, *arguments).stdout.splitlines() for _ in range(2))
    assert again[-23:] == before[-23:] and again[2] == f"{arguments[-1]}: 300 of 300 steps done"
    assert "uniform guess" not in "".join(again)  # no training
    words = invoke(module, *arguments, "--prefix", "ma").stdout.splitlines()[-20:]
    assert all(word.startswith("ma") for word in words)


def test_a_checkpoint_of_another_run_names_its_settings(checkpoint, tmp_path):
    module, path = checkpoint
    options = ["--hidden 32", "--lr 0.2", "--steps 9000", "--batch-size 64", "--seed 7"]
    options += ["--context 2", "--embedding 9"]
    if module is batchnorm:
        options += ["--layers 2", "--no-batchnorm", "--residual", "--activation relu"]
        options += ["--init naive", "--weight-decay 0.1"]
    for option in options:
        error, setting = refusal(module, path, *option.split()), option[2:].split()[0]
        assert re.search(f"belongs to another run: {setting.replace('-', '_')}=\\S+$", error)
    words, text = tmp_path / "words.txt", FEW.read_text(encoding="utf-8")
    for other in (text.replace("emma", "erma", 1), "\n".join(sorted(text.split())), "zoë\n" * 10):
        words.write_text(other, encoding="utf-8")
        assert " words=" in refusal(module, path, "--data", words)
    np.savez(path, **contents(path) | {"run": "other.py"})
    assert "another run: other.py" in refusal(module, path)


def test_damaged_and_foreign_files_are_refused(checkpoint):
    module, path = checkpoint
    whole, tables = path.read_bytes(), contents(path)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1  # in an array
    pickled = pickle.dumps({"run": "x"})
    for content in (b"", b"anna\n", whole[:100], whole[:-1], damaged, pickled):
        path.write_bytes(content)
        assert "cannot be read as a checkpoint" in refusal(module, path)
    for name in tables:
        np.savez(path, **tables | {name: np.array([{"a": 1}], dtype=object)})
        assert "cannot be read as a checkpoint" in refusal(module, path), name
    for name in tables.keys() - {"run", "losses"}:
        for change in ({name: np.zeros(9)}, {f"new_{name}": tables[name]}):
            np.savez(path, **tables | change)
            assert "belongs to another net: " in refusal(module, path), (name, change)
    for name in ("run", "losses"):
        np.savez(path, **{key: value for key, value in tables.items() if key != name})
        assert "cannot be read as a checkpoint" in refusal(module, path)


OTHER = "--steps 40 --batch-size 7 --lr 0.3 --context 2 --embedding 3 --hidden 9 --seed 5"
OTHER += " --samples 8 --prefix ma --temperature 0.5"
DEEP = "--layers 2 --residual --activation relu --init scaled --no-batchnorm --weight-decay 0.02"


@pytest.mark.parametrize("name", NETS)
def test_every_loss_and_word_of_another_run_is_that_of_the_functions(name):
    module, options = NETS[name], OTHER if name == "mlp" else f"{OTHER} {DEEP}"
    kind, decay = ((), []) if name == "mlp" else ((2, False, True, "relu", "scaled"), [0, 0.02])
    result = invoke(module, "--data", FEW, *options.split())
    words, rng = load_words(FEW), np.random.default_rng(5)
    stoi, itos = build_vocab(words)
    splits = [build_dataset(part, stoi, 2) for part in split_words(words, rng.spawn(1)[0])]
    net = module.new_net(rng, 27, 2, 3, 9, *kind)
    training = module.train(net, *splits[0], 40, 7, lambda done: 0.3 * (1 - done), 5, *decay)
    losses = [loss for _, loss in training]
    rows = re.findall(r"^ +(\d+) +(\d\.\d{4})$", result.stdout, re.M)
    means = [losses[0], np.mean(losses[1:4]), *np.reshape(losses[4:], (9, 4)).mean(axis=1)]
    assert [int(step) for step, _ in rows] == [1, *range(4, 41, 4)]
    assert [float(loss) for _, loss in rows] == pytest.approx(means, abs=5.1e-5)
    expected = [module.evaluate(net, *split) for split in splits]
    assert losses_of(result.stdout) == pytest.approx(expected, abs=5.1e-5)
    longest = 2 * max(map(len, words))
    made = [module.sample(net, rng, stoi, itos, 2, "ma", 0.5, longest) for _ in range(8)]
    lines = [line.split() for line in result.stdout.splitlines()[-8:]]
    assert lines == [[word] if word in words else [word, "new"] for word in made]
