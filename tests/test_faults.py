"""What happens when the world misbehaves: kills, full disks, and thousands of wrong inputs.

LONG=1 (or `make test-long`) takes more kills and more inputs. A failure names its seed.
"""

import json
import os
import random
import resource
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
NETS = {
    "mlp": (mlp, ["--hidden", "8", "--steps", "4000", "--samples", "0"]),
    "batchnorm": (batchnorm, ["--hidden", "8", "--steps", "3000", "--samples", "0"]),
    "bigram": (bigram, ["--steps", "20000", "--samples", "0"]),
}


def invoke(module, *arguments):
    return CliRunner().invoke(module.main, [str(argument) for argument in arguments])


def arrays(path):
    """All that is in a checkpoint but its facts."""
    with np.load(path) as archive:
        return {name: archive[name] for name in archive if name != "run"}


def step_of(path):
    with np.load(path) as archive:
        return json.loads(archive["run"].item())["step"]


@pytest.mark.parametrize("name, kills", [("mlp", 20), *[(n, 20 if LONG else 3) for n in NETS][1:]])
def test_whenever_it_is_killed_a_whole_checkpoint_resumes_bit_for_bit(tmp_path, name, kills):
    module, arguments = NETS[name]
    whole, path = tmp_path / "whole.npz", tmp_path / "m.npz"
    assert invoke(module, *arguments, "--save", whole).exit_code == 0
    expected, steps, rng = arrays(whole), set(), random.Random(SEED)
    code = f"import {name}; {name}.SAVE_EVERY = 0; {name}.main()"
    for kill in range(kills):
        path.unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments, "--save", path],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while not path.exists() and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.wait()
        steps.add(step_of(path))
        result = invoke(module, "--load", path, "--save", path)
        assert result.exit_code == 0, (SEED, kill, result.output)
        for table, array in arrays(path).items():
            assert np.array_equal(array, expected[table]), (SEED, kill, table)
    assert len(steps) > 1


@pytest.mark.parametrize("name", NETS)
def test_a_full_disk_leaves_the_old_checkpoint_and_one_line(tmp_path, name):
    module, arguments = NETS[name]
    path = tmp_path / "m.npz"
    assert invoke(module, *arguments, "--steps", 5, "--save", path).exit_code == 0
    before = path.read_bytes()
    save = ["--load", path, "--save", path]
    process = subprocess.run(
        [sys.executable, ROOT / f"{name}.py", *arguments, "--steps", "50", *save],
        capture_output=True, text=True, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )  # fmt: skip
    assert process.returncode == 1
    assert len(process.stderr.splitlines()) == 1 and "File too large" in process.stderr
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_training_goes_on_when_a_save_on_the_way_fails(tmp_path, monkeypatch):
    path, right, calls = tmp_path / "m.npz", os.fsync, []

    def fails_once(descriptor):
        calls.append(descriptor)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        right(descriptor)

    monkeypatch.setattr(os, "fsync", fails_once)
    monkeypatch.setattr(mlp, "SAVE_EVERY", 0)
    result = invoke(mlp, "--hidden", 8, "--steps", 20, "--samples", 0, "--save", path)
    assert result.exit_code == 0 and step_of(path) == 20
    assert result.stderr == f"Warning: {path}: No space left on device\n"


@pytest.mark.parametrize("name", NETS)
def test_a_folder_that_takes_no_files_is_refused_before_training(tmp_path, monkeypatch, name):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    result = invoke(NETS[name][0], "--save", tmp_path / "m.npz")
    assert result.exit_code == 1 and "steps in" not in result.stdout
    assert len(result.stderr.splitlines()) == 1 and "Permission denied" in result.stderr


# ---------------------------------------------------------------------------------- random inputs

QUICK = {
    mlp: ["--steps", "2", "--hidden", "4", "--samples", "2"],
    bigram: ["--steps", "2", "--samples", "2"],
    batchnorm: ["--steps", "2", "--hidden", "4", "--samples", "2"],
    micrograd: ["--steps", "2"],
}
NUMBERS = ["", "0", "-1", "1", "2", "7", "1e3", "nan", "inf", "-inf", "1e-320", "1e308", "9" * 30]
NUMBERS += ["abc", "0x10", "1_0", " 3", "٣", "１２", "3.5", "--", "-", "é", "a\nb", "\x1b[1m"]
ENDLESS = {"steps", "samples"}  # numbers that ask for more than a test can wait for


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
    option = rng.choice([p for p in module.main.params if p.name not in ("save", "plot", "load")])
    name = rng.choice(option.opts + option.secondary_opts)
    if option.is_flag:
        return [name] if option.name not in ("compare", "find_lr") else []
    value = rng.choice([*NUMBERS, random_text(rng, 3)])
    return [name, "2" if option.name in ENDLESS and value == "9" * 30 else value]


def damaged_checkpoint(rng, checkpoint, path):
    """A checkpoint with bytes changed, cut off, or with other facts or arrays inside."""
    content, kind = bytearray(checkpoint.read_bytes()), rng.randrange(4)
    if kind == 0:
        content = content[: rng.randrange(len(content))]
    elif kind == 1:
        for _ in range(rng.randrange(1, 9)):
            content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content)
    if kind > 1:
        with np.load(checkpoint) as archive:
            tables = dict(archive)
        wrong = [None, -1, 10**30, "x", "", [], {}, [1], True, 0.5, float("nan"), "é" * 30, [[]]]
        facts = json.loads(tables["run"].item())
        inside = rng.choice([facts, facts["options"], facts.get("generator", facts)])
        inside[rng.choice([*inside, "more"])] = rng.choice(wrong)
        tables["run"] = np.array(json.dumps(facts))
        if kind == 3:
            name = rng.choice([*tables])
            tables[name] = rng.choice(
                [np.zeros(3), np.array("x"), np.array([]), tables[name].astype(str), np.array(1j)]
            )
        np.savez(path, **tables)
    return ["--load", path]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("checkpoints"), {}
    for module in (mlp, bigram, batchnorm):
        made[module] = folder / f"{module.__name__}.npz"
        assert invoke(module, *QUICK[module], "--save", made[module]).exit_code == 0
    return made


def test_random_inputs_never_give_a_traceback(tmp_path, checkpoints):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(["emma", "olivia", "ava", "mia", "zoe"] * 4))
    for i in range(20_000 if LONG else 2_000):
        rng = random.Random(f"{SEED} {i}")
        module = rng.choice([*QUICK])
        arguments = [*QUICK[module]] + ([] if module is micrograd else ["--data", names])
        if module is not micrograd and rng.random() < 0.4:
            arguments += random_data(rng, tmp_path / "data.txt")
        if module is not micrograd and rng.random() < 0.4:
            arguments += damaged_checkpoint(rng, checkpoints[module], tmp_path / "m.npz")
        if rng.random() < 0.6:
            arguments += random_option(rng, module)
        began, result = time.perf_counter(), invoke(module, *arguments)
        told = f"SEED={SEED}, input {i}: {module.__name__}.py {arguments}\n{result.output}"
        assert result.exit_code in (0, 1, 2), told
        assert result.exception is None or isinstance(result.exception, SystemExit), told
        assert time.perf_counter() - began < 20, told
        if result.exit_code == 1:
            assert result.stderr.splitlines()[-1].startswith("Error: "), told
