"""What all scripts do alike, and what happens when the world misbehaves: wrong options and lines
of code, kills, full disks, and thousands of wrong inputs.

LONG=1 (or `make test-long`) takes more kills and more inputs. A failure names its seed.
"""

import contextlib
import io
import os
import random
import re
import runpy
import shutil
import signal
import string
import subprocess
import sys
import threading
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
STEP = r" +[\d,]+ +\d+\.\d{4}$"  # a row that only a step of the training prints
ENVIRONMENT = {**os.environ, "PYTHONIOENCODING": "utf-8"}
POSIX = pytest.mark.skipif(os.name == "nt", reason="needs signals, limits or pipes of POSIX")


def invoke(module, *arguments):
    return CliRunner().invoke(module.main, [str(argument) for argument in arguments])


def run(name, *arguments, flags=(), **options):
    """Run a script as a process of its own."""
    command = [sys.executable, *flags, ROOT / f"{name}.py", *map(str, arguments)]
    options = {"env": ENVIRONMENT, "encoding": "utf-8", "timeout": 60, **options}
    return subprocess.run(command, capture_output=True, **options)


def start(name, *arguments, save_every=5.0):
    """Start a script, which saves that often."""
    code = f"import {name}; {name}.SAVE_EVERY = {save_every}; {name}.main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, **pipes)


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
    module, arguments = MAKERS[name], ["--data", FEW, "--steps", 100, "--seed"]
    runs = [invoke(module, *arguments, 7), run(name, *arguments, 7), invoke(module, *arguments, 8)]
    first, second, other = (re.sub(r" in .*", "", result.stdout) for result in runs)
    assert first == second != other


@pytest.mark.parametrize("name", MAKERS)
def test_words_of_any_characters_train_also_where_the_terminal_lacks_them(tmp_path, name):
    path = tmp_path / "places.txt"
    path.write_text("Sa\u0303o Paulo\nBad Säckingen\n漢城\n" * 10, encoding="utf-8")
    arguments = ["--data", path, "--steps", 100, "--samples", 3, "--prefix"]
    result = invoke(MAKERS[name], *arguments, "漢")
    assert result.exit_code == 0
    assert all(line.startswith("漢") for line in result.stdout.splitlines()[-3:])
    assert "Sã" in invoke(MAKERS[name], *arguments, "Sa\u0303").stdout.splitlines()[-1]
    env = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    result = run(name, *arguments, "B", env=env, encoding="cp1252")
    assert result.returncode == 0 and "Traceback" not in result.stderr


@pytest.mark.parametrize("name", MAKERS)
def test_the_head_shows_what_kind_of_list_it_is(tmp_path, name):
    path = tmp_path / "table.txt"
    path.write_text("name\tnumber\n" + "emma\t20\n" * 30, encoding="utf-8")
    lines = invoke(MAKERS[name], "--data", path, "--steps", 2, "--samples", 0).stdout.splitlines()
    assert lines[0].startswith("31 words (2 distinct), ")
    assert lines[1] == r"11 characters: .\t02abemnru"


@POSIX
@pytest.mark.parametrize("name", MAKERS)
def test_it_runs_from_any_folder_and_head_gives_no_traceback(tmp_path, name):
    command = [sys.executable, ROOT / f"{name}.py", "--steps", "0", "--samples", "2000"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=ENVIRONMENT
    )
    assert process.stdout.readline().startswith(b"32,257 words")
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.wait(60)


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_runs_as_in_a_notebook_and_in_a_thread(name, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--steps", "5"])
    screen = io.StringIO()  # like a notebook's, it has no reconfigure()
    with contextlib.redirect_stdout(screen), pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / f"{name}.py"), run_name="__main__")
    assert end.value.code == 0 and "loss" in screen.getvalue()
    done = []
    arguments = {"args": ["--steps", "5"], "standalone_mode": False}
    thread = threading.Thread(target=lambda: done.append(SCRIPTS[name].main(**arguments)))
    thread.start()
    thread.join()
    assert done == [None]


@POSIX
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_closed_stdout_is_no_error(name):
    options = {"preexec_fn": lambda: os.close(1), "stdout": None, "stderr": subprocess.PIPE}
    command = [sys.executable, ROOT / f"{name}.py", "--steps", "5"]
    result = subprocess.run(command, timeout=60, env=ENVIRONMENT, **options)
    assert result.returncode == 0 and b"Traceback" not in result.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_without_the_packages_one_line_says_what_is_needed(name):
    result = run(name, flags=["-S"])  # no site-packages
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("Error: No module named ") and "3.11" in result.stderr


@pytest.mark.parametrize("name", NETS)
def test_a_safe_path_finds_common_and_an_early_numpy_is_remarked(name):
    assert run(name, "--help", flags=["-I"]).returncode == 0
    env = {key: value for key, value in ENVIRONMENT.items() if key != "OPENBLAS_NUM_THREADS"}
    command = [sys.executable, "-c", f"import numpy, {name}"]
    late = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, encoding="utf-8")
    assert late.returncode == 0 and "slower, as NumPy was imported first" in late.stderr
    assert "slower" not in run(name, "--help", env=env).stderr


@pytest.mark.parametrize(
    "name, options",
    [
        ("micrograd", "--dataset moons --steps 1"),
        *(("bigram", "--order 3"), ("bigram", "--steps 9 --data odd.txt")),
        *(("mlp", f"--steps 200 --embedding {numbers}") for numbers in (1, 2, 10)),
        ("mlp", "--steps 9 --embedding 2 --data odd.txt"),
        ("batchnorm", "--steps 0"),
        ("batchnorm", "--steps 50 --layers 12 --hidden 9 --activation relu"),
        ("batchnorm", "--steps 9 --init zero --layers 2"),
    ],
)
def test_plot_draws_a_picture(tmp_path, monkeypatch, name, options):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    words = "\n".join(f"$^{chr(0x3042 + i)}{chr(0x3043 + i)}" for i in range(50))
    Path("odd.txt").write_text(words, encoding="utf-8")
    result = invoke(SCRIPTS[name], *options.split(), "--plot", "run.png")
    assert result.exit_code == 0 and Path("run.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", SCRIPTS)
def test_without_matplotlib_a_plot_is_refused_before_training(tmp_path, name):
    (tmp_path / "matplotlib.py").write_text("raise ModuleNotFoundError('none', name=__name__)")
    moons = ["--dataset", "moons"] if name == "micrograd" else []
    env = {**ENVIRONMENT, "PYTHONPATH": str(tmp_path)}
    result = run(name, *moons, "--plot", "x.png", cwd=tmp_path, env=env)
    assert result.returncode == 1 and "step  " not in result.stdout
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("Error: ") and "pip install matplotlib" in result.stderr


# ----------------------------------------------------------------------------- mistakes in the code


@pytest.mark.parametrize(
    "name, line, mistake, wrong",
    [
        ("mlp", "dpre = dh * (1 - h * h)", "dpre = dh", "C, W1, b1"),
        ("mlp", "db2 = dlogits.sum(axis=0)", "db2 = dlogits.sum(axis=0) / 2", "b2"),
        ("mlp", "demb = dpre @ W1.T", "demb = 1.001 * dpre @ W1.T", "C"),
        ("mlp", "(probs - onehot) / B", "(probs - onehot)", "C, W1, b1, W2, b2, cross entropy"),
        ("mlp", "probs = counts / total[:, None]", "probs = counts", "C, W1, b1, W2, b2, cross"),
        ("mlp", "dW1 = emb.T @ dpre", "dW1 = emb.T @ dpre * np.nan", "W1"),
        ("mlp", "shifted[onehot == 1]", "logits[onehot == 1]", "C, W1, b1, W2, b2, cross"),
        ("mlp", "dW2 = h.T @ dlogits", "dW2 = dlogits.T @ h", "W2"),
        ("mlp", "db2 = dlogits.sum(axis=0)", "db2 = dlogits", "b2"),
        ("mlp", "parameter -= lr", "parameter += lr", "train"),
        ("batchnorm", "x * (dgain / n)", "x * dgain", "BatchNorm, C, W1, W, gain, bias"),
        ("batchnorm", "dz - dbias / n - x * (", "dz - x * (", "BatchNorm, C, W1, W, gain, bias"),
        ("batchnorm", "dh[i] += dh[i + 1]", "pass", "C, W1, W, gain, bias"),
        ("batchnorm", "dC = onehot.T @", "dC = np.nan * onehot.T @", "C"),
        ("batchnorm", "db_out = dlogits.sum(axis=0)", "db_out = b_out * np.nan", "b_out"),
        ("batchnorm", "shift = bias - scale", "shift = bias + scale", "folded"),
        ("batchnorm", "gradient + weight_decay", "gradient - weight_decay", "train"),
    ],
)
def test_gradcheck_names_what_a_wrong_line_makes_wrong(name, line, mistake, wrong):
    path = ROOT / f"{name}.py"
    source = path.read_text(encoding="utf-8")
    assert source.count(line) == 1
    module = {"__name__": "mistake", "__file__": str(path)}
    exec(compile(source.replace(line, mistake), "mistake", "exec"), module)
    result = CliRunner().invoke(module["main"], ["--gradcheck"])
    assert result.exit_code == 1 and result.stderr.startswith(f"Error: wrong gradients: {wrong}")


@pytest.mark.parametrize("name", NETS)
def test_gradcheck_gives_a_row_for_each_array_and_a_verdict(name):
    result = invoke(NETS[name], "--gradcheck")
    *rows, verdict = result.stdout.splitlines()[1:]
    names = [re.match(r"(\w+( entropy)?) +\d\.\de[-+]\d+  ok", row)[1] for row in rows]
    assert {*NETS[name].Net._fields, "train", "cross entropy"} <= {*names}
    assert verdict == "every gradient agrees with central differences within 1e-6"
    assert result.exit_code == 0 and max(map(len, result.stdout.splitlines())) <= 80


# ----------------------------------------------------------------------------------- wrong options

WRONG = {
    ("micrograd", "bigram", "mlp", "batchnorm"): [
        *("--steps -1", "--steps x", "--steps 1.5", f"--steps {'9' * 30}"),
        *("--lr 0", "--lr -1", "--lr nan", "--lr inf", "--lr 1e30", "--lr x"),
        *("--seed -1", "--plot ", "--plot x.jpg", "--plot .svg"),
    ],
    ("bigram", "mlp", "batchnorm"): [
        *("--samples -1", "--temperature 0", "--data /none", "--data /"),
        *("--prefix é", "--prefix Ma", "--prefix a.b"),
    ],
    ("mlp", "batchnorm"): [
        *("--batch-size 0", "--context 0", "--embedding 0", "--hidden 0"),
        *("--checkpoint ", "--checkpoint /", "--plot x.png --checkpoint x.png"),
    ],
    ("micrograd",): ["--dataset suns", "--plot x.png"],
    ("bigram",): [
        *("--smoothing -1", "--smoothing nan", "--smoothing x", "--smoothing 1e300"),
        *("--order 1", "--l2 -1", "--l2 nan", "--model net --order 3", "--word é"),
    ],
    ("mlp",): ["--find-lr --checkpoint m.npz", "--find-lr --plot x.png"],
    ("batchnorm",): [
        *("--batch-size 1", "--layers 0", "--weight-decay nan", "--weight-decay -1"),
        *("--init good", "--activation gelu"),
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


@POSIX
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("ending", ["SIGKILL", "SIGINT"])
def test_a_run_that_is_stopped_again_and_again_ends_with_the_bits_of_one_that_is_not(
    tmp_path, name, ending
):
    module, killed = NETS[name], ending == "SIGKILL"
    steps = 2_000 if killed else 6_000
    whole, path = tmp_path / "whole.npz", tmp_path / "m.npz"
    arguments = [*SMALL, "--steps", steps, "--checkpoint"]
    assert invoke(module, *arguments, whole).exit_code == 0
    rng, done = random.Random(SEED), []
    for _ in range(20 if LONG else 3):
        if done and done[-1] > 0.5 * steps:  # nearly done: from the start again
            path.unlink()
        process = start(name, *arguments, path, save_every=0 if killed else 0.03)
        while not re.match(STEP, process.stdout.readline()):  # a step is done
            assert process.poll() is None, (SEED, done, process.stderr.read())
        time.sleep(rng.uniform(0, 0.08))
        process.send_signal(getattr(signal, ending))
        output, errors = process.communicate(timeout=60)
        if not killed:
            assert process.returncode == 0 and "stopped by Ctrl-C" in output, (SEED, done, errors)
            assert re.search(r"^test +\d\.\d{4} ", output, re.M), (SEED, done, output)
            assert sorted(tmp_path.iterdir()) == [path, whole]
        done.append(len(contents(path)["losses"]))
    assert len(set(done)) > 1, (SEED, done)
    assert invoke(module, *arguments, path).exit_code == 0
    assert_equal_checkpoints(path, whole, (SEED, done))


@pytest.mark.parametrize("name", NETS)
def test_two_runs_on_one_checkpoint_end_well_and_two_different_ones_lose_nothing(tmp_path, name):
    whole, path = tmp_path / "whole.npz", tmp_path / "m.npz"
    arguments = [*SMALL, "--steps", 200, "--checkpoint"]
    assert invoke(NETS[name], *arguments, whole).exit_code == 0
    for process in [start(name, *arguments, path, save_every=0) for _ in range(2)]:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0 and "Error" not in errors
    assert_equal_checkpoints(path, whole, "two runs")
    other = tmp_path / "n.npz"
    different = start(name, *SMALL, "--steps", 10**6, "--checkpoint", other, save_every=0)
    while not re.match(STEP, different.stdout.readline()):
        assert different.poll() is None
    began = time.monotonic()
    while different.poll() is None:  # another run writes there, in between two saves
        shutil.copy(whole, tmp_path / "copy.npz")
        os.replace(tmp_path / "copy.npz", other)
        if time.monotonic() - began > 30:
            different.kill()
    _, errors = different.communicate()
    assert different.returncode == 1 and "belongs to another run, with steps 200" in errors
    assert_equal_checkpoints(other, whole, "not overwritten")
    assert sorted(tmp_path.iterdir()) == [path, other, whole]


@pytest.mark.parametrize("name", NETS)
def test_a_diverging_loss_stops_the_run_and_keeps_the_checkpoint(tmp_path, monkeypatch, name):
    module, path, train = NETS[name], tmp_path / "m.npz", NETS[name].train
    monkeypatch.setattr(module, "SAVE_EVERY", 0)

    def diverge(net, *arguments, **options):
        for done, loss in train(net, *arguments, **options):
            net[-1][0] = np.inf if done == step else 0
            yield done, loss

    monkeypatch.setattr(module, "train", diverge)
    for step in (7, 50):
        result = invoke(module, *SMALL, "--steps", 50, "--checkpoint", path)
        assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1
        assert f"Error: the loss diverged at step {step}: try a lower --lr" in result.stderr
        saved = contents(path)
        assert "--gradcheck" in result.stderr and len(saved["losses"]) == step - 1
        assert all(np.isfinite(saved[array]).all() for array in module.Net._fields)
        path.unlink()


@pytest.mark.parametrize(
    "name, option",
    [("micrograd", "--graph"), ("mlp", "--checkpoint"), ("batchnorm", "--checkpoint")],
)
def test_a_file_that_cannot_be_written_is_one_line_before_training(tmp_path, name, option):
    result = run(name, option, tmp_path / "none" / "file")
    assert result.returncode == 1 and "step  " not in result.stdout
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("Error: ")
    assert str(tmp_path / "none" / "file") in result.stderr


@POSIX
@pytest.mark.parametrize("name", NETS)
def test_a_net_that_does_not_fit_in_memory_is_one_line(name):
    import resource

    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, (7 * 10**8,) * 2)}
    size = {"mlp": ["--hidden", 10_000], "batchnorm": ["--hidden", 1000, "--layers", 50]}[name]
    options = ["--steps", 1, "--context", 100, "--embedding", 100]
    result = run(name, "--data", FEW, *options, *size, **limit)
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("Error: Unable to allocate")


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


def test_a_checkpoint_needs_no_other_option_to_resume_or_to_sample(tmp_path, checkpoint):
    module, _ = checkpoint
    options = "--hidden 16 --lr 0.05 --batch-size 8 --seed 3 --context 2 --embedding 5"
    if module is batchnorm:
        options += " --layers 2 --residual --activation relu --weight-decay 0.01 --init scaled"
    path, sampled = tmp_path / "n.npz", ["--data", FEW, "--samples", 3, "--checkpoint"]
    trained = invoke(module, *sampled, path, "--steps", 300, *options.split()).stdout
    before, last = path.read_bytes(), trained.splitlines()[-7:]
    again = invoke(module, *sampled, path).stdout.splitlines()
    assert again[0] == f"{path}: 300 of 300 steps done" and again[-7:] == last
    assert "uniform guess" not in "".join(again)  # no training
    assert invoke(module, *sampled, f"{path}/").stdout.splitlines()[-7:] == last
    words = invoke(module, *sampled, path, "--prefix", "ma").stdout.splitlines()[-3:]
    assert all(word.startswith("ma") for word in words) and path.read_bytes() == before


@POSIX
def test_a_checkpoint_keeps_its_mode_and_its_link(checkpoint):
    module, path = checkpoint
    np.savez(path, **contents(path) | {"losses": contents(path)["losses"][:1]})
    path.chmod(0o600)
    link = path.with_name("link.npz")
    link.symlink_to(path)
    assert invoke(module, "--data", FEW, "--checkpoint", link).exit_code == 0
    assert link.is_symlink() and path.stat().st_mode & 0o777 == 0o600
    assert len(contents(path)["losses"]) == 3
    os.mkfifo(path.with_name("fifo"))
    result = invoke(module, "--checkpoint", path.with_name("fifo"))
    assert result.exit_code == 2 and "is not a regular file" in result.stderr


@POSIX
def test_a_full_disk_leaves_the_old_checkpoint_and_one_line(checkpoint):
    import resource

    module, path = checkpoint
    np.savez(path, **contents(path) | {"losses": contents(path)["losses"][:1]})
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
    words, text = tmp_path / "words.txt", Path(FEW).read_text(encoding="utf-8")
    for other in (text.replace("emma", "erma", 1), "\n".join(sorted(text.split())), "zoë\n" * 10):
        words.write_text(other, encoding="utf-8")
        assert "another run, with words '323 (" in refusal(module, path, "--data", words)
    np.savez(path, **contents(path) | {"script": "other.py"})
    assert "another run, with script 'other.py', not " in refusal(module, path)


def test_damaged_foreign_and_hostile_files_are_refused(checkpoint):
    module, path = checkpoint
    whole, tables = path.read_bytes(), contents(path)
    for content in (b"", b"anna\n", whole[:100], whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(content)
        assert "is damaged or not a checkpoint" in refusal(module, path)
    np.savez_compressed(path, **tables)  # might unpack to more than fits in memory
    assert "is damaged or not a checkpoint" in refusal(module, path)
    for name in (*module.Net._fields, "losses"):
        changes = [np.array([{"a": 1}], dtype=object), np.array("x"), -1, np.zeros(9)]
        if name != "losses":
            value = tables[name]
            if not value.size:
                continue
            changes += [value[..., :1], value.astype(float), value * np.inf, value[..., None]]
        for change in changes:
            np.savez(path, **tables | {name: change})
            assert "is damaged or not a checkpoint" in refusal(module, path), (name, change)
        np.savez(path, **{key: value for key, value in tables.items() if key != name})
        assert "is damaged or not a checkpoint" in refusal(module, path), name


def test_only_the_settings_of_a_run_are_taken_from_a_checkpoint(checkpoint):
    module, path = checkpoint
    other = path.with_name("other.png")
    other.write_text("a picture")
    np.savez(path, **contents(path), plot=str(other), samples=7)
    result = invoke(module, "--data", FEW, "--checkpoint", path)
    assert result.exit_code == 0 and other.read_text() == "a picture"
    assert len(result.stdout.split("test ")[1].splitlines()) == 1 + 20


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
    pools = [string.ascii_lowercase, string.printable, "éßñüöА漢字かな😀​‮", "ab\n\r\n. -\t\v\f\0"]
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
        slow = ("find_lr", "gradcheck")
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
        wrong = [-1, 10**18, "x", "", [1], True, 0.5, float("nan"), "é" * 30]
        np.savez(path, **tables | {rng.choice([*tables, "more"]): rng.choice(wrong)})
    return ["--checkpoint", path]


def test_random_inputs_give_no_traceback_and_change_no_file(tmp_path):
    names, checkpoints = tmp_path / "names.txt", {}
    names.write_text("\n".join(["emma", "olivia", "ava", "mia", "zoe"] * 4))
    for module in NETS.values():
        checkpoints[module] = tmp_path / f"{module.__name__}.npz"
        arguments = [*QUICK[module], "--data", names, "--checkpoint", checkpoints[module]]
        assert invoke(module, *arguments).exit_code == 0
    for i in range(20_000 if LONG else 250):
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
        told = f"SEED={SEED}, input {i}: {module.__name__}.py {arguments}\n{result.output}"
        assert result.exit_code in (0, 1, 2), told
        assert result.exception is None or isinstance(result.exception, SystemExit), told
        assert time.perf_counter() - began < 20, told
        if result.exit_code == 1:
            assert result.stderr.splitlines()[-1].startswith("Error: "), told
        for path, content in before.items():
            assert path.read_bytes() == content, told
