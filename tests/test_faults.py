"""What happens when the world misbehaves: kills, full disks, and thousands of wrong inputs.

LONG=1 (or `make test-long`) takes more kills and more inputs. A failure names its seed.
"""

import gc
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
}


def invoke(module, *arguments):
    return CliRunner().invoke(module.main, [str(argument) for argument in arguments])


def contents(path):
    with np.load(path) as archive:
        return dict(archive)


@pytest.mark.parametrize("name", NETS)
def test_a_run_that_is_killed_again_and_again_ends_with_the_bits_of_one_that_is_not(tmp_path, name):
    module, arguments = NETS[name]
    whole, path = tmp_path / "whole.npz", tmp_path / "m.npz"
    assert invoke(module, *arguments, "--checkpoint", whole).exit_code == 0
    code = f"import {name}; {name}.SAVE_EVERY = 0; {name}.main()"  # saves after every step
    rng, steps = random.Random(SEED), []
    for _ in range(20 if LONG or name == "mlp" else 5):
        if steps and steps[-1] > 3 * int(arguments[3]) / 4:  # nearly done: from the start again
            path.unlink()
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments, "--checkpoint", path],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        before = path.stat().st_mtime_ns if path.exists() else None
        while not path.exists() or path.stat().st_mtime_ns == before:
            assert process.poll() is None, (SEED, steps)
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.15))
        process.kill()
        process.wait()
        steps.append(int(contents(path)["step"]))
    assert len(set(steps)) > 3, (SEED, steps)
    result = invoke(module, *arguments, "--checkpoint", path)
    assert result.exit_code == 0, (SEED, steps, result.output)
    expected, found = contents(whole), contents(path)
    assert all(np.array_equal(expected[key], found[key]) for key in expected), (SEED, steps)


@pytest.mark.parametrize("name", NETS)
def test_a_full_disk_leaves_the_old_checkpoint_and_one_line(tmp_path, name):
    module, arguments = NETS[name]
    path = tmp_path / "m.npz"
    assert invoke(module, *arguments, "--steps", 5, "--checkpoint", path).exit_code == 0
    before = path.read_bytes()
    process = subprocess.run(
        [sys.executable, ROOT / f"{name}.py", *arguments, "--steps", "50", "--checkpoint", path],
        capture_output=True, text=True, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )  # fmt: skip
    assert process.returncode == 1 and process.stderr.startswith("Error: ")
    assert len(process.stderr.splitlines()) == 1 and "File too large" in process.stderr
    assert path.read_bytes() == before


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
    """A checkpoint with bytes changed, cut off, or with other facts or arrays inside."""
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
            facts = json.loads(tables["facts"].item())
            facts[rng.choice([*facts, "more"])] = rng.choice(wrong)
            tables["facts"] = np.array(json.dumps(rng.choice([facts, facts, *wrong])))
        else:
            name = rng.choice([*tables])
            wrong = [np.zeros(3), np.array("x"), np.array([]), np.array(-1), np.array(1j)]
            tables[name] = rng.choice([*wrong, tables[name].astype(str)])
        np.savez(path, **tables)
    return ["--checkpoint", path]


def test_random_inputs_give_no_traceback_and_change_no_file(tmp_path):
    names, checkpoints = tmp_path / "names.txt", {}
    names.write_text("\n".join(["emma", "olivia", "ava", "mia", "zoe"] * 4))
    for module in (mlp, batchnorm):
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
            arguments += ["--steps", "3"]
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
            grown = path.name == "m.npz" and result.exit_code == 0  # a fact that does not matter
            assert grown or path.read_bytes() == content, told
