"""What happens when the world misbehaves: kills, full disks, and thousands of wrong inputs.

LONG=1 (or `make test-long`) takes more kills and more inputs. A failure names its seed.
"""

import gc
import json
import os
import random
import re
import resource
import signal
import string
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import batchnorm
import bigram
import micrograd
import mlp

ROOT = Path(mlp.__file__).parent
LONG = bool(os.environ.get("LONG"))
SEED = int(os.environ.get("SEED", 0)) or random.SystemRandom().randrange(10**9)
NETS = {"mlp": mlp, "batchnorm": batchnorm}
FEW = str(Path(__file__).with_name("words.txt"))
SMALL = ["--data", FEW, "--hidden", "8", "--samples", "0"]


def invoke(module, *arguments):
    return CliRunner().invoke(module.main, [str(argument) for argument in arguments])


def start(name, *arguments, save_every=5.0):
    """Start a script as a process of its own, which saves that often."""
    code = f"import {name}; {name}.SAVE_EVERY = {save_every}; {name}.main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, **pipes)


def contents(path):
    with np.load(path) as archive:
        return dict(archive)


def assert_equal_checkpoints(path, whole, told):
    expected, found = contents(whole), contents(path)
    assert expected.keys() == found.keys(), told
    assert all(np.array_equal(expected[key], found[key]) for key in expected), told


# ----------------------------------------------------------------- kills, interruptions, full disks


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "SIGINT"])
def test_a_run_that_is_stopped_again_and_again_ends_with_the_bits_of_one_that_is_not(
    tmp_path, name, ending
):
    module, killed = NETS[name], ending == signal.SIGKILL
    steps = 2_000 if killed else 10_000
    whole, path = tmp_path / "whole.npz", tmp_path / "m.npz"
    arguments = [*SMALL, "--steps", steps, "--checkpoint"]
    assert invoke(module, *arguments, whole).exit_code == 0
    rng, done = random.Random(SEED), []
    for _ in range(20 if LONG else 4):
        if done and done[-1] > 0.5 * steps:  # nearly done: from the start again
            path.unlink()
        process = start(name, *arguments, path, save_every=0 if killed else 5)
        while not re.match(r" +[\d,]+ ", process.stdout.readline()):  # a step is done
            assert process.poll() is None, (SEED, done, process.stderr.read())
        time.sleep(rng.uniform(0, 0.08))
        process.send_signal(ending)
        output, errors = process.communicate(timeout=60)
        if not killed:
            assert process.returncode == 0 and errors == "", (SEED, done, errors)
            assert re.search(r"^test +\d\.\d{4} ", output, re.M), (SEED, done, output)
        done.append(int(contents(path)["step"]))
    assert len(set(done)) > 1, (SEED, done)
    assert invoke(module, *arguments, path).exit_code == 0
    assert_equal_checkpoints(path, whole, (SEED, done))


@pytest.mark.parametrize("name", NETS)
def test_two_runs_on_one_checkpoint_both_end_well(tmp_path, name):
    whole, path = tmp_path / "whole.npz", tmp_path / "m.npz"
    arguments = [*SMALL, "--steps", 500, "--checkpoint"]
    assert invoke(NETS[name], *arguments, whole).exit_code == 0
    for process in [start(name, *arguments, path, save_every=0) for _ in range(2)]:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0 and errors == ""
    assert_equal_checkpoints(path, whole, "two runs")
    assert sorted(tmp_path.iterdir()) == [path, whole]


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
    result = invoke(module, "--data", FEW, "--checkpoint", path, *arguments)
    assert result.exit_code == 1 and path.read_bytes() == before, result.output
    assert result.stdout == "" and len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("Error: ") and str(path) in result.stderr
    return result.stderr


def test_a_full_disk_leaves_the_old_checkpoint_and_one_line(checkpoint):
    module, path = checkpoint
    np.savez(path, **contents(path) | {"step": 1})
    before = path.read_bytes()
    process = subprocess.run(
        [sys.executable, f"{module.__name__}.py", "--data", FEW, "--checkpoint", path],
        capture_output=True, text=True, timeout=60, cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )  # fmt: skip
    assert process.returncode == 1 and process.stderr.startswith("Error: ")
    assert len(process.stderr.splitlines()) == 1 and "File too large" in process.stderr
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "option, value, difference",
    [
        ("hidden", 32, "hidden 8, not 32"),
        ("lr", 0.2, "lr 0.1, not 0.2"),
        ("steps", 9000, "steps 3, not 9000"),
        ("batch-size", 64, "batch_size 32, not 64"),
        ("seed", 7, "seed 42, not 7"),
        ("lr-decay", "none", "lr_decay 'linear', not 'none'"),
        ("context", 2, "context 3, not 2"),
        ("embedding", 9, "embedding 10, not 9"),
    ],
)
def test_a_checkpoint_of_other_settings_names_the_difference(checkpoint, option, value, difference):
    error = refusal(*checkpoint, f"--{option}", value)
    assert error.endswith(f" belongs to another run, with {difference}\n")


def test_a_checkpoint_of_other_words_or_another_script_is_refused(checkpoint, tmp_path):
    module, path = checkpoint
    words, text = tmp_path / "words.txt", Path(FEW).read_text()
    for other in (text.replace("emma", "erma", 1), "\n".join(sorted(text.split())), "zoë\n" * 10):
        words.write_text(other)
        assert "another run, with words '323 (" in refusal(module, path, "--data", words)
    tables = contents(path)
    run = json.loads(str(tables["run"])) | {"script": "other.py"}
    np.savez(path, **tables | {"run": json.dumps(run)})
    assert "another run, with script 'other.py', not " in refusal(module, path)


def test_damaged_and_foreign_files_are_refused(checkpoint):
    module, path = checkpoint
    whole = path.read_bytes()
    for content in (b"", b"anna\n", whole[:100], whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(content)
        assert "is damaged or not a checkpoint" in refusal(module, path)


def test_hostile_checkpoints_are_refused(checkpoint):
    module, path = checkpoint
    tables = contents(path)
    for name, value in tables.items():
        changes = [np.array([{"a": 1}], dtype=object), np.array("x"), -1, 1e30, np.nan, [1, 2]]
        if name in ("theta", "running"):
            changes += [value[..., :1], value.astype(float), value * np.inf, value[..., None]]
        for change in changes:
            np.savez(path, **tables | {name: change})
            assert "is damaged or not a checkpoint" in refusal(module, path), (name, change)
    for name in tables:
        np.savez(path, **{key: value for key, value in tables.items() if key != name})
        assert "is damaged or not a checkpoint" in refusal(module, path), name


# ---------------------------------------------------------------------------------- random inputs

QUICK = {
    mlp: ["--steps", "2", "--hidden", "4", "--samples", "2"],
    bigram: ["--steps", "2", "--samples", "2"],
    batchnorm: ["--steps", "2", "--hidden", "4", "--samples", "2"],
    micrograd: ["--steps", "2"],
}
NUMBERS = ["", "0", "-1", "1", "2", "7", "1e3", "nan", "inf", "-inf", "1e-320", "1e308", "9" * 30]
NUMBERS += ["abc", "0x10", "1_0", " 3", "٣", "１２", "3.5", "--", "-", "é", "a\nb", "\x1b[1m"]
PATHS = {"data", "checkpoint", "plot", "graph_path"}


def random_text(rng, length):
    pools = [string.ascii_lowercase, string.printable, "éßñüöА漢字かな😀​‮", "ab\n\r\n. -\t\v\f"]
    return "".join(rng.choice(rng.choice(pools)) for _ in range(length))


def random_data(rng, path):
    """A word list that may be none: random bytes, random text, or names with bytes changed."""
    kind = rng.randrange(4)
    if kind == 0:
        content = rng.randbytes(rng.randrange(200))
    elif kind == 1:
        content = random_text(rng, rng.randrange(400)).encode()
    else:
        content = bytearray("\n".join(["emma", "zoë", "san josé", "漢城", "x"] * 5).encode())
        for _ in range(rng.randrange(4)):
            content[rng.randrange(len(content))] = rng.randrange(256) if kind == 2 else 10
    path.write_bytes(content)
    return ["--data", path]


def random_option(rng, module):
    option = rng.choice([each for each in module.main.params if each.name not in PATHS])
    if option.is_flag:
        slow = ("compare", "find_lr", "gradcheck")
        return [] if option.name in slow else [option.opts[0]]
    return [option.opts[0], rng.choice([*NUMBERS, random_text(rng, 3)])]


def damaged_checkpoint(rng, checkpoint, path):
    """A checkpoint with bytes changed, cut off, or with other settings or arrays inside."""
    content, kind = bytearray(checkpoint.read_bytes()), rng.randrange(4)
    if kind == 0:
        content = content[: rng.randrange(len(content))]
    elif kind == 1:
        for _ in range(rng.randrange(1, 9)):
            content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content)
    if kind > 1:
        tables = contents(checkpoint)
        if kind == 2:
            wrong = [None, -1, 10**30, "x", "", [], {}, [1], True, 0.5, float("nan"), "é" * 30]
            run = json.loads(str(tables["run"]))
            run[rng.choice([*run, "more"])] = rng.choice(wrong)
            tables["run"] = np.array(json.dumps(rng.choice([run, run, *wrong])))
        else:
            name = rng.choice([*tables])
            wrong = [np.zeros(3), np.array("x"), np.array([]), np.array(-1), np.array(1j)]
            tables[name] = rng.choice([*wrong, tables[name].astype(str)])
        np.savez(path, **tables)
    return ["--checkpoint", path]


def test_random_inputs_give_no_traceback_and_change_no_file(tmp_path):
    names, checkpoints = tmp_path / "names.txt", {}
    names.write_text("\n".join(["emma", "olivia", "ava", "mia", "zoe"] * 4))
    for module in NETS.values():
        checkpoints[module] = tmp_path / f"{module.__name__}.npz"
        arguments = [*QUICK[module], "--data", names, "--checkpoint", checkpoints[module]]
        assert invoke(module, *arguments).exit_code == 0
    for i in range(20_000 if LONG else 2_000):
        rng = random.Random(f"{SEED} {i}")
        module = rng.choice([*QUICK])
        arguments = [*QUICK[module]] + ([] if module is micrograd else ["--data", names])
        if module is not micrograd and rng.random() < 0.4:
            arguments += random_data(rng, tmp_path / "data.txt")
        if module in checkpoints and rng.random() < 0.4:
            arguments += damaged_checkpoint(rng, checkpoints[module], tmp_path / "m.npz")
            arguments += rng.choice([[], ["--steps", "3"]])
        if rng.random() < 0.6:
            arguments += random_option(rng, module)
        before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".tmp"}
        began, result = time.perf_counter(), invoke(module, *arguments)
        gc.enable()  # micrograd's command switches it off
        told = f"SEED={SEED}, input {i}: {module.__name__}.py {arguments}\n{result.output}"
        assert result.exit_code in (0, 1, 2), told
        assert result.exception is None or isinstance(result.exception, SystemExit), told
        assert time.perf_counter() - began < 20, told
        if result.exit_code == 1:
            assert result.stderr.splitlines()[-1].startswith("Error: "), told
        for path, content in before.items():
            assert path.read_bytes() == content, told
