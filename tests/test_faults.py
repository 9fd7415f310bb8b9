"""What all scripts do alike, and what happens when the world misbehaves: wrong options and lines
of code, kills, full disks, and thousands of wrong inputs.

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
MAKERS = {"bigram": bigram} | NETS  # of words
SCRIPTS = {"micrograd": micrograd} | MAKERS
FEW = str(Path(__file__).with_name("words.txt"))
SMALL = ["--data", FEW, "--hidden", "8", "--samples", "0"]


def invoke(module, *arguments):
    return CliRunner().invoke(module.main, [str(argument) for argument in arguments])


def run(name, *arguments, **options):
    """Run a script as a process of its own."""
    command = [sys.executable, ROOT / f"{name}.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def start(name, *arguments, save_every=5.0):
    """Start a script, which saves that often."""
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


# ------------------------------------------------------------------------------- what all do alike


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(name):
    arguments = ["--data", FEW, "--steps", 300, "--seed"]
    first, second, other = (
        re.sub(r" in .*", "", run(name, *arguments, seed).stdout) for seed in (7, 7, 8)
    )
    assert first == second != other


@pytest.mark.parametrize("name", MAKERS)
def test_words_of_any_characters_train_also_where_the_terminal_lacks_them(tmp_path, name):
    path = tmp_path / "places.txt"
    path.write_text("São Paulo\nBad Säckingen\n漢城\n" * 10, encoding="utf-8")
    arguments = ["--data", path, "--steps", 100, "--samples", 3, "--prefix", "漢"]
    result = run(name, *arguments)
    assert result.returncode == 0
    assert all(line.startswith("漢") for line in result.stdout.splitlines()[-3:])
    ascii_only = run(name, *arguments, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert ascii_only.returncode == 0 and ascii_only.stderr == ""


@pytest.mark.parametrize("name", MAKERS)
def test_it_runs_from_any_folder_and_head_gives_no_traceback(tmp_path, name):
    command = f"{sys.executable} {ROOT / name}.py --steps 0 --samples 9999 | head -1"
    options = dict(shell=True, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    result = subprocess.run(command, **options)
    assert result.stderr == "" and result.stdout.startswith("32,257 words")


@pytest.mark.parametrize("module", NETS.values())
def test_an_array_that_would_never_be_trained_is_refused(module):
    net, other = (module.Net(np.random.default_rng(i), 27, 3, 10, 20) for i in range(2))
    assert net.theta.size == sum(array.size for array in net.params)
    net.theta[:], net.dtheta[:] = 0, 1
    assert not any(array.any() for array in net.params)
    assert all(array.all() for array in net.grads)
    net.theta -= 0.1 * net.dtheta
    for name in {"theta", "dtheta", "params", "grads", "running"} & vars(net).keys():
        with pytest.raises(AttributeError, match=f"net.{name} cannot be replaced"):
            setattr(net, name, getattr(other, name))
    with pytest.raises(TypeError):
        net.params[3] = other.params[3]
    with pytest.raises(AttributeError):
        net.params.C = other.params.C


@pytest.mark.parametrize(
    "name, options",
    [
        ("micrograd", "--dataset moons --steps 3"),
        *(("bigram", "--order 3"), ("bigram", "--steps 9 --data odd.txt")),
        *(("mlp", f"--steps 200 --embedding {numbers}") for numbers in (1, 2, 10)),
        *(("mlp", "--find-lr"), ("mlp", "--steps 9 --data odd.txt")),
        *(("batchnorm", f"--steps {steps} --layers 2") for steps in (0, 50)),
    ],
)
def test_plot_draws_a_picture(tmp_path, monkeypatch, name, options):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    words = "\n".join(f"$^{chr(0x4E00 + i)}{chr(0x4E01 + i)}" for i in range(200))
    Path("odd.txt").write_text(words, encoding="utf-8")
    result = invoke(SCRIPTS[name], *options.split(), "--plot", "run.png")
    assert result.exit_code == 0 and result.stderr == ""
    assert Path("run.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", MAKERS)
def test_without_matplotlib_a_plot_is_refused_before_training(tmp_path, name):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('no matplotlib')")
    result = run(name, "--plot", "x.png", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert result.returncode == 1 and "loss" not in result.stdout
    assert result.stderr == "Error: no matplotlib\n"


@pytest.mark.parametrize(
    "name, arrays",
    [("mlp", "C W1 b1 W2 b2"), ("batchnorm", "BatchNorm C W1 gain bias W_out b_out W")],
)
def test_gradcheck_gives_a_row_for_each_array_and_a_verdict(name, arrays):
    result = invoke(NETS[name], "--gradcheck")
    *rows, verdict = result.stdout.splitlines()[1:]
    assert result.exit_code == 0
    assert [row.split()[:3:2] for row in rows] == [[array, "ok"] for array in arrays.split()]
    assert verdict == "every gradient agrees with central differences within 1e-6"


@pytest.mark.parametrize(
    "name, line, mistake, wrong",
    [
        ("mlp", "dpre = dh * (1 - h * h)", "dpre = dh", "C, W1, b1"),
        ("mlp", "row.dot(dlogits, out=db2)", "pass", "b2"),
        ("mlp", "h.T.dot(dlogits, out=dW2)", "dW2 += h.T @ dlogits", "W2"),
        ("mlp", "demb = dpre @ W1.T", "demb = 1.001 * dpre @ W1.T", "C"),
        ("mlp", "(probs - onehot) / B", "(probs - onehot)", "C, W1, b1, W2, b2"),
        ("mlp", "h = np.tanh(emb @ W1 + b1)", "h = np.tanh(emb @ W1 * b1)", "C, W1, b1"),
        ("mlp", "emb.T.dot(dpre, out=dW1)", "emb.T.dot(np.nan * dpre, out=dW1)", "W1"),
        ("batchnorm", "    dgain *= inv_std\n", "", "BatchNorm, C, W1, gain, bias, W"),
        ("batchnorm", "dz - dbias / n - cen", "dz - cen", "BatchNorm, C, W1, gain, bias, W"),
        ("batchnorm", "dinput + dh[-1] if", "dinput if", "C, W1, gain, bias, W"),
        ("batchnorm", "1 - active * active if", "1 if", "C, W1, gain, bias, W"),
    ],
)
def test_gradcheck_names_what_a_wrong_line_makes_wrong(tmp_path, name, line, mistake, wrong):
    source = (ROOT / f"{name}.py").read_text()
    assert source.count(line) == 1
    (tmp_path / "wrong.py").write_text(source.replace(line, mistake))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = run(tmp_path / "wrong", "--gradcheck", env=env)
    assert result.returncode == 1 and result.stderr == f"Error: wrong gradients: {wrong}\n"
    assert re.findall(r"^(\w+) .* WRONG", result.stdout, re.M) == wrong.split(", ")


WRONG = {
    ("micrograd", "bigram", "mlp", "batchnorm"): [
        *("--steps -1", "--steps x", "--steps 1.5", f"--steps {'9' * 30}"),
        *("--lr 0", "--lr -1", "--lr nan", "--lr inf", "--lr 1e30", "--lr x"),
        *("--seed -1", "--plot ", "--plot x.jpg"),
    ],
    ("bigram", "mlp", "batchnorm"): [
        *("--samples -1", "--temperature 0", "--data /none", "--data /"),
        *("--prefix é", "--prefix Ma", "--prefix a.b"),
    ],
    ("mlp", "batchnorm"): [
        *("--batch-size 0", "--context 0", "--embedding 0", "--hidden 0"),
        *("--lr-decay cos", "--checkpoint ", "--checkpoint /"),
    ],
    ("micrograd",): ["--dataset suns", "--plot x.png"],
    ("bigram",): [
        *("--smoothing -1", "--smoothing nan", "--smoothing x", "--smoothing 1e300"),
        *("--order 1", "--l2 -1", "--l2 nan", "--model net --order 3"),
    ],
    ("mlp",): ["--find-lr --checkpoint m.npz"],
    ("batchnorm",): [
        *("--batch-size 1", "--layers 0", "--weight-decay nan", "--weight-decay -1"),
        *("--init good", "--activation gelu", "--bn-stats none"),
        "--bn-stats running --no-batchnorm",
        *("--checkpoint m.npz --compare", "--plot m.png --compare", "--prefix a --compare"),
        *("--no-batchnorm --compare", "--steps 0 --compare"),
    ],
}


@pytest.mark.parametrize(
    "name, options",
    [(name, each) for names, options in WRONG.items() for name in names for each in options],
)
def test_wrong_options_are_usage_errors_that_name_the_option(name, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    option, *values = options.split(" ")
    result = invoke(SCRIPTS[name], option, *values)
    assert result.exit_code == 2 and option in result.stderr.splitlines()[-1]
    assert not any(tmp_path.iterdir())


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


@pytest.mark.parametrize("name", NETS)
def test_a_diverging_loss_stops_the_run_and_keeps_the_checkpoint(tmp_path, monkeypatch, name):
    module, path, train = NETS[name], tmp_path / "m.npz", NETS[name].train
    monkeypatch.setattr(module, "SAVE_EVERY", 0)

    def diverge(net, *arguments, **options):
        for done, loss in train(net, *arguments, **options):
            net.theta[-1] = np.inf if done == step else 0
            yield done, loss

    monkeypatch.setattr(module, "train", diverge)
    for step in (7, 50):
        result = invoke(module, *SMALL, "--steps", 50, "--checkpoint", path)
        assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1
        assert f"Error: the loss diverged at step {step}: try a lower --lr" in result.stderr
        assert "--gradcheck" in result.stderr and contents(path)["step"] == step - 1
        assert np.isfinite(contents(path)["theta"]).all()
        path.unlink()


@pytest.mark.parametrize(
    "name, option",
    [("micrograd", "--graph"), ("mlp", "--checkpoint"), ("batchnorm", "--checkpoint")],
)
def test_a_file_that_cannot_be_written_is_one_line_before_training(tmp_path, name, option):
    result = run(name, option, tmp_path / "none" / "file")
    assert result.returncode == 1 and "loss" not in result.stdout
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("Error: ")
    assert str(tmp_path / "none" / "file") in result.stderr


@pytest.mark.parametrize("name", NETS)
def test_a_symbolic_link_is_written_through(tmp_path, name):
    link, path = tmp_path / "link.npz", tmp_path / "m.npz"
    link.symlink_to(path)
    assert invoke(NETS[name], *SMALL, "--steps", 1, "--checkpoint", link).exit_code == 0
    assert link.is_symlink() and contents(path)["step"] == 1


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
    small = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))}
    process = run(module.__name__, "--data", FEW, "--checkpoint", path, **small)
    assert process.returncode == 1 and process.stderr.startswith("Error: ")
    assert len(process.stderr.splitlines()) == 1 and "File too large" in process.stderr
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


SETTINGS = {
    "--hidden 32": "hidden 8, not 32",
    "--lr 0.2": "lr 0.1, not 0.2",
    "--steps 9000": "steps 3, not 9000",
    "--batch-size 64": "batch_size 32, not 64",
    "--seed 7": "seed 42, not 7",
    "--lr-decay none": "lr_decay 'linear', not 'none'",
    "--context 2": "context 3, not 2",
    "--embedding 9": "embedding 10, not 9",
}
SETTINGS_OF_BATCHNORM = {
    "--layers 2": "layers 1, not 2",
    "--no-batchnorm": "no_batchnorm False, not True",
    "--residual": "residual False, not True",
    "--activation relu": "activation 'tanh', not 'relu'",
    "--init naive": "init 'kaiming', not 'naive'",
    "--weight-decay 0.1": "weight_decay 0.0, not 0.1",
}


def test_a_checkpoint_of_other_settings_names_the_difference(checkpoint):
    module, path = checkpoint
    own = SETTINGS_OF_BATCHNORM if module is batchnorm else {}
    for option, difference in (SETTINGS | own).items():
        error = refusal(module, path, *option.split())
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
    """A checkpoint with bytes changed, or with other settings inside."""
    content, tables = bytearray(checkpoint.read_bytes()), contents(checkpoint)
    if rng.random() < 0.5:
        for _ in range(rng.randrange(1, 9)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content)
    else:
        wrong = [None, -1, 10**30, "x", "", [], {}, [1], True, 0.5, float("nan"), "é" * 30]
        settings = json.loads(str(tables["run"]))
        settings[rng.choice([*settings, "more"])] = rng.choice(wrong)
        run = json.dumps(rng.choice([settings, settings, *wrong]))
        np.savez(path, **tables | {"run": run})
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
