"""Facts about the net's mathematics, and about mlp.py as its users see it from outside."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import mlp
from common import build_dataset, build_vocab, load_words

STOPPED = r"stopped at step [\d,]+; saved: go on with --load \S+m.npz --save \S+m.npz\n"
SCRIPT = Path(mlp.__file__)
SMALL = ["--hidden", "20", "--samples", "3"]


def run(*arguments, **options):
    """Run mlp.py as a process of its own."""
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def invoke(*arguments):
    """Run mlp.py's command within this process, which is faster."""
    return CliRunner().invoke(mlp.main, [str(argument) for argument in arguments])


def small_net(seed=0, vocab=7, context=3, embedding=4, hidden=5, batch=6, dtype=np.float64):
    rng = np.random.default_rng(seed)
    params = mlp.init_params(rng, vocab, context, embedding, hidden, dtype)
    return params, rng.integers(vocab, size=(batch, context)), rng.integers(vocab, size=batch)


# ------------------------------------------------------------------------------------- mathematics


def textbook_loss_and_gradients(params, X, Y):
    """The equations one example at a time, gradients one element at a time: slow and plain."""
    C, W1, b1, W2, b2 = params
    loss, grads = 0.0, [np.zeros(array.shape) for array in params]
    dC, dW1, db1, dW2, db2 = grads
    for x, y in zip(X, Y):
        emb = np.concatenate([C[token] for token in x])
        h = np.tanh(emb @ W1 + b1)
        logits = h @ W2 + b2
        probs = np.exp(logits) / np.exp(logits).sum()
        loss -= math.log(probs[y]) / len(Y)
        dlogits = (probs - np.eye(len(C))[y]) / len(Y)
        dW2 += np.outer(h, dlogits)
        db2 += dlogits
        dpre = (W2 @ dlogits) * (1 - h**2)
        dW1 += np.outer(emb, dpre)
        db1 += dpre
        for token, demb in zip(x, (W1 @ dpre).reshape(len(x), -1)):
            dC[token] += demb
    return loss, grads


@pytest.mark.parametrize("vocab", [7, 1500])
def test_fast_form_agrees_with_the_textbook_form(vocab):
    params, X, Y = small_net(vocab=vocab, context=4, batch=9)
    loss, grads = mlp.loss_and_gradients(params, X, Y)
    expected, expected_grads = textbook_loss_and_gradients(params, X, Y)
    assert loss == pytest.approx(expected, rel=1e-12)
    for ours, theirs in zip(grads, expected_grads):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("context", [1, 3, 5])
@pytest.mark.parametrize("batch", [1, 7])
def test_gradients_match_central_differences(context, batch):
    errors = mlp.check_gradients(np.random.default_rng(1), context=context, batch=batch)
    assert list(errors) == ["C", "W1", "b1", "W2", "b2"]
    assert max(errors.values()) < 1e-6


def test_gradients_match_central_differences_when_a_context_repeats_a_character():
    errors = mlp.check_gradients(np.random.default_rng(2), vocab=2, context=5, batch=7)
    assert max(errors.values()) < 1e-6


def test_gradient_check_sees_a_wrong_gradient(monkeypatch):
    right = mlp.backward

    def wrong(params, X, emb, h, dlogits, grads):
        right(params, X, emb, h, dlogits, grads)
        grads.b1[0] *= 1.001

    monkeypatch.setattr(mlp, "backward", wrong)
    errors = mlp.check_gradients(np.random.default_rng(1))
    assert errors["b1"] > 1e-6 > errors["W2"]


def test_softmax_gradient_of_a_row_sums_to_zero_and_is_p_minus_one_hot():
    logits = np.random.default_rng(0).normal(size=(4, 5))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    _, dlogits = mlp.cross_entropy(logits.copy(), np.array([0, 4, 2, 2]))
    np.testing.assert_allclose(dlogits, (probs - np.eye(5)[[0, 4, 2, 2]]) / 4, atol=1e-15)
    np.testing.assert_allclose(dlogits.sum(axis=1), 0, atol=1e-15)


def test_equal_logits_cost_ln_of_the_alphabet():
    loss, _ = mlp.cross_entropy(np.full((3, 27), 5.0), np.array([0, 1, 26]))
    assert loss == pytest.approx(math.log(27), abs=1e-12)


def test_huge_logits_neither_overflow_nor_vanish():
    with np.errstate(all="raise", under="ignore"):
        loss, dlogits = mlp.cross_entropy(np.array([[3e4, 0, -3e4]], np.float32), np.array([2]))
    assert loss == pytest.approx(6e4)
    np.testing.assert_allclose(dlogits, [[1, 0, -1]])


def test_results_have_the_dtype_of_the_parameters():
    for dtype in (np.float32, np.float64):
        params, X, Y = small_net(dtype=dtype)
        loss, grads = mlp.loss_and_gradients(params, X.astype(np.uint8), Y.astype(np.uint8))
        assert isinstance(loss, float)
        assert {array.dtype for array in grads} == {np.dtype(dtype)}
        assert [array.shape for array in grads] == [array.shape for array in params]


def test_arrays_are_windows_on_one_flat_vector():
    params, _, _ = small_net()
    assert params.flat.size == sum(array.size for array in params) == 7 * 4 + 12 * 5 + 5 + 5 * 7 + 7
    for array in params:
        assert np.shares_memory(array, params.flat)
    params.flat[:] = 0
    assert not any(array.any() for array in params)


def test_parameters_are_drawn_from_a_standard_normal():
    params = mlp.init_params(np.random.default_rng(0), 27, 3, 10, 200)
    assert params.flat.size == 11_897 and params.flat.dtype == np.float32
    assert abs(params.flat.mean()) < 0.03 and abs(params.flat.std() - 1) < 0.03


@pytest.mark.parametrize("context", [1, 3, 14])
def test_evaluation_of_distinct_contexts_is_the_mean_over_all_examples(context):
    words = load_words()[::20]
    stoi, _ = build_vocab(words)
    X, Y = build_dataset(words, stoi, context)
    params = mlp.init_params(np.random.default_rng(0), 27, context, 10, 20, np.float64)
    direct, _ = mlp.loss_and_gradients(params, X, Y)
    assert mlp.evaluate(params, X, Y) == pytest.approx(direct, rel=1e-12)


def test_schedules():
    rates = {
        name: [rate(done) for done in (0, 0.25, 0.5, 0.75)] for name, rate in mlp.SCHEDULES.items()
    }
    assert rates == {"linear": [1, 0.75, 0.5, 0.25], "step": [1, 1, 0.1, 0.1], "none": [1, 1, 1, 1]}


def test_a_step_moves_every_parameter_against_its_gradient():
    params, X, Y = small_net()
    before, (_, grads) = params.flat.copy(), mlp.loss_and_gradients(params, X[:1], Y[:1])
    steps = mlp.train(params, X[:1], Y[:1], np.random.default_rng(0), 1, 2, lambda done: 0.5)
    assert [step for step, _ in steps] == [1]
    np.testing.assert_allclose(params.flat, before - 0.5 * grads.flat, atol=1e-15)


@pytest.mark.parametrize("stop", [1, 1023, 1024, 1025, 1999])
def test_stopping_and_going_on_gives_the_bits_of_the_run_that_never_stopped(stop):
    words = load_words()[::50]
    stoi, _ = build_vocab(words)
    X, Y = build_dataset(words, stoi, 3)

    def net():
        return mlp.init_params(np.random.default_rng(0), 27, 3, 4, 8), np.random.default_rng(1)

    whole, rng = net()
    for _ in mlp.train(whole, X, Y, rng, 2000, 32, lambda done: 0.1 * (1 - done)):
        pass
    parts, rng = net()
    for step, _ in mlp.train(parts, X, Y, rng, 2000, 32, lambda done: 0.1 * (1 - done)):
        if step == stop:
            break
    rng = np.random.default_rng(1)
    for _ in mlp.train(parts, X, Y, rng, 2000, 32, lambda done: 0.1 * (1 - done), start=stop):
        pass
    assert np.array_equal(whole.flat, parts.flat)


# ---------------------------------------------------------------------------------------- sampling


def counting_net():
    """A net over `.abc` that spells "abc" with certainty: the next character has logit 1000."""
    params = mlp.init_params(np.random.default_rng(0), 4, 1, 4, 4)
    params.flat[:] = 0
    params.C[:] = np.eye(4) * 10
    params.W1[:] = np.eye(4)
    params.W2[:] = np.roll(np.eye(4), 1, axis=1) * 1000
    return params, dict(enumerate(".abc"))


def test_samples_follow_the_model():
    params, itos = counting_net()
    rng = np.random.default_rng(0)
    assert mlp.sample(params, rng, itos, 3) == ["abc"] * 3
    assert mlp.sample(params, rng, itos, 2, prefix="b") == ["bc"] * 2
    assert mlp.sample(params, rng, itos, 0) == []
    with pytest.raises(KeyError):
        mlp.sample(params, rng, itos, 1, prefix="x")


def test_first_characters_are_drawn_with_the_probabilities_of_the_net():
    params, _, _ = small_net(vocab=5, context=2)
    params.W2[:] *= 0.3
    itos = dict(enumerate(".abcd"))
    logits = mlp.forward(params, np.zeros((1, 2), int))[-1][0]
    for temperature in (0.5, 1.0, 2.0):
        words = mlp.sample(params, np.random.default_rng(0), itos, 20_000, temperature=temperature)
        drawn = [sum(word[:1] == c for word in words) / 20_000 for c in ("", *"abcd")]
        probs = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
        np.testing.assert_allclose(drawn, probs, atol=0.015)


def test_low_temperature_takes_the_likeliest_and_a_word_that_never_ends_is_cut():
    params, itos = counting_net()
    params.W2[:] = np.eye(4) * 5
    rng = np.random.default_rng(0)
    for temperature in (1e-3, 1e-300):
        assert (
            mlp.sample(params, rng, itos, 2, prefix="c", temperature=temperature, longest=9)
            == ["c" * 9] * 2
        )


# ------------------------------------------------------------------------------------ command line


def table(output):
    return {
        row[0]: float(row[1])
        for row in re.findall(r"^(train|dev|test) +([\d.]+) +[\d.]+$", output, re.M)
    }


def test_a_run_prints_falling_losses_the_table_and_samples():
    result = run("--steps", 3000, "--samples", 7)
    assert result.returncode == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == "32,257 words, 27 characters, 183,935 training examples, 11,897 parameters"
    losses = [float(line.split()[1]) for line in lines[2:13]]
    assert losses[0] > 20 and "ln 27 = 3.2958" in lines[2]
    assert losses == sorted(losses, reverse=True)
    assert re.fullmatch(r"3,000 steps in \d+\.\d s \(\d+ µs/step\)", lines[13])
    assert lines[14] == "split      loss  perplexity"
    assert list(table(result.stdout)) == ["train", "dev", "test"]
    assert len(lines) == 18 + 7
    known = set(load_words())
    for line in lines[18:]:
        word, *mark = line.split()
        assert mark == ([] if word in known else ["new"])


def test_perplexity_is_the_exponential_of_the_loss():
    output = invoke("--steps", 0, *SMALL).stdout
    for loss, perplexity in re.findall(r"^\w+ +(\d+\.\d{4}) +([\d.]+)$", output, re.M):
        assert math.log(float(perplexity)) == pytest.approx(float(loss), abs=1e-4)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    first, second, other = (
        re.sub(r" in .*", "", run("--steps", 500, *SMALL, "--seed", seed).stdout)
        for seed in (7, 7, 8)
    )
    assert first == second != other


def test_gradcheck_prints_an_error_for_each_array():
    result = invoke("--gradcheck")
    assert result.exit_code == 0
    errors = dict(line.split() for line in result.stdout.splitlines()[1:])
    assert list(errors) == ["C", "W1", "b1", "W2", "b2"]
    assert all(float(error) < 1e-6 for error in errors.values())


def test_find_lr_suggests_about_the_rate_of_the_lecture():
    result = invoke("--find-lr")
    assert result.exit_code == 0
    assert 0.05 <= float(re.search(r"--lr ([\d.]+)$", result.stdout.strip())[1]) <= 0.4


def test_prefix_begins_every_sample():
    result = invoke("--steps", 200, *SMALL, "--prefix", "mar", "--temperature", 0.7)
    assert all(line.startswith("mar") for line in result.stdout.splitlines()[-3:])


def test_words_with_spaces_capitals_and_accents_train(tmp_path):
    path = tmp_path / "places.txt"
    path.write_text("São Paulo\nBad Säckingen\n漢城\n" * 10, encoding="utf-8")
    result = run("--data", path, "--steps", 300, *SMALL, "--prefix", "漢")
    assert result.returncode == 0 and result.stdout.splitlines()[-1].startswith("漢")
    ascii_only = run(
        "--data",
        path,
        "--steps",
        1,
        *SMALL,
        "--prefix",
        "漢",
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert ascii_only.returncode == 0 and "Traceback" not in ascii_only.stderr


def test_it_runs_from_any_folder(tmp_path):
    assert run("--steps", 1, *SMALL, cwd=tmp_path).returncode == 0


def test_head_gives_no_traceback():
    command = f"{sys.executable} {SCRIPT} --steps 0 --samples 50000 | head -1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert result.stderr == "" and result.stdout.startswith("32,257 words")


# --------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--steps", n] for n in ("-1", "x", "1.5")),
        *(
            [f"--{name}", "0"]
            for name in ("batch-size", "lr", "context", "embedding", "hidden", "temperature")
        ),
        *(["--lr", value] for value in ("nan", "inf", "-0.1")),
        *(["--temperature", value] for value in ("nan", "inf", "-1")),
        ["--seed", "-1"],
        ["--samples", "-1"],
        ["--lr-decay", "cosine"],
        ["--prefix", "Ma"],
        ["--prefix", "a.b"],
    ],
    ids=" ".join,
)
def test_options_out_of_range_are_usage_errors_that_name_the_option(arguments):
    result = invoke("--steps", "1", *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr.splitlines()[-1]


def error_of(*arguments):
    """The one line that a command which cannot be done leaves."""
    result = invoke(*arguments)
    assert result.exit_code == 1, result.output
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("Error: ")
    return result.stderr


def test_data_that_cannot_be_used_is_named(tmp_path):
    path = tmp_path / "words.txt"
    assert f"{path}: No such file" in error_of("--data", path)
    assert f"{tmp_path}: Is a directory" in error_of("--data", tmp_path)
    for content, message in [
        (b"", f"{path}: no words"),
        (b"anna\n\xff\n", f"{path}, line 2: not UTF-8"),
        (b"a.b\n", f"{path}, line 1: '.'"),
        (b"anna\n", "1 word(s) cannot be split 80/10/10: at least 6 are needed"),
    ]:
        path.write_bytes(content)
        assert message in error_of("--data", path)


def test_a_diverging_loss_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    path = tmp_path / "m.npz"
    assert invoke("--steps", 5, *SMALL, "--save", path).exit_code == 0
    before = path.read_bytes()
    result = invoke("--steps", 5000, *SMALL, "--lr", "1e38", "--save", path)
    assert result.exit_code == 1
    assert re.search(
        r"Error: the loss is no longer a number at step \d+: try a lower --lr", result.stderr
    )
    assert path.read_bytes() == before


def test_places_that_cannot_be_written_are_refused_before_training(tmp_path):
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    assert "precious.txt is not a checkpoint" in error_of("--save", precious)
    assert "none" in error_of("--save", tmp_path / "none" / "m.npz")
    assert str(tmp_path) in error_of("--save", tmp_path)
    assert "/dev/null" in error_of("--save", "/dev/null")
    assert precious.read_text() == "mine" and list(tmp_path.iterdir()) == [precious]


def test_another_run_is_kept_when_a_new_one_is_saved_in_its_place(tmp_path):
    path, old = tmp_path / "m.npz", tmp_path / "m.npz.old"
    invoke("--steps", 5, *SMALL, "--save", path)
    before = path.read_bytes()
    result = invoke("--steps", 3, *SMALL, "--save", path)
    assert result.stderr == f"{path} holds another run, which is kept in {old}\n"
    assert old.read_bytes() == before and step_of(path) == 3
    result = invoke("--load", path, "--steps", 9, "--save", path)
    assert result.stderr == "" and step_of(path) == 9 and old.read_bytes() == before


def test_plot_without_matplotlib_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install matplotlib" in error_of("--plot", "run.png")


def test_plot_draws_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    for mode in ([], ["--find-lr"]):
        path = tmp_path / f"run{len(mode)}.png"
        assert invoke("--steps", 200, *SMALL, "--plot", path, *mode).exit_code == 0
        assert path.read_bytes().startswith(b"\x89PNG")
    assert "ends in" in error_of("--plot", tmp_path / "run.txt")


# ------------------------------------------------------------------------------------- checkpoints


def theta(path):
    with np.load(path) as archive:
        return archive["theta"]


def step_of(path):
    with np.load(path) as archive:
        return json.loads(archive["run"].item())["step"]


def test_a_checkpoint_brings_back_the_whole_run(tmp_path):
    path = tmp_path / "m.npz"
    trained = invoke("--steps", 300, *SMALL, "--lr", 0.05, "--context", 2, "--save", path).stdout
    loaded = invoke("--load", path, "--samples", 3).stdout
    assert table(loaded) == table(trained)
    assert loaded.splitlines()[-3:] == trained.splitlines()[-3:]
    assert "steps in" not in loaded
    with np.load(path) as archive:
        assert archive["theta"].dtype == np.float32
        run_ = json.loads(archive["run"].item())
    assert run_["script"] == "mlp.py" and run_["step"] == 300 and run_["options"]["lr"] == 0.05
    assert run_["alphabet"] == ".abcdefghijklmnopqrstuvwxyz"


def test_training_goes_on_to_more_steps(tmp_path):
    path = tmp_path / "m.npz"
    invoke("--steps", 300, *SMALL, "--save", path)
    result = invoke("--load", path, "--steps", 450, "--save", path, "--samples", 0)
    assert "150 steps in" in result.stdout and step_of(path) == 450


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_saves_and_the_resumed_run_ends_with_the_same_bits(tmp_path, number, code):
    arguments = ["--steps", 20_000, "--hidden", 40, "--samples", 0]
    path = tmp_path / "m.npz"
    process = subprocess.Popen(
        [sys.executable, SCRIPT, *map(str, arguments), "--save", path],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not process.stdout.readline().startswith("   2,000"):
        assert process.poll() is None
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == code and re.fullmatch(STOPPED, errors)
    assert list(table(output)) == ["train", "dev", "test"]
    assert 2_000 <= step_of(path) < 20_000
    assert run("--load", path, "--save", path, "--samples", 0).returncode == 0
    whole = tmp_path / "whole.npz"
    assert run(*arguments, "--save", whole).returncode == 0
    assert np.array_equal(theta(path), theta(whole))


def test_a_killed_process_leaves_a_whole_checkpoint(tmp_path):
    path = tmp_path / "m.npz"
    code = f"import mlp; mlp.SAVE_EVERY = 0; mlp.main(['--hidden', '20', '--save', {str(path)!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=SCRIPT.parent, stdout=subprocess.DEVNULL
    )
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.3)
    process.kill()
    process.wait()
    assert mlp.load_run(path).step > 0


def test_stdout_closed_early_still_saves(tmp_path):
    path = tmp_path / "m.npz"
    command = f"{sys.executable} {SCRIPT} --steps 20000 --hidden 20 --save {path} | head -2"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert result.stderr == "" and step_of(path) >= 1


def test_a_symbolic_link_is_written_through(tmp_path):
    (tmp_path / "link.npz").symlink_to(tmp_path / "m.npz")
    assert invoke("--steps", 1, *SMALL, "--save", tmp_path / "link.npz").exit_code == 0
    assert (tmp_path / "link.npz").is_symlink() and step_of(tmp_path / "m.npz") == 1


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "m.npz"
    assert invoke("--steps", 1, *SMALL, "--save", path).exit_code == 0
    return path


def rewrite(path, **changes):
    """The checkpoint with parts of its run or its parameters exchanged."""
    with np.load(path) as archive:
        parameters, run_ = archive["theta"], json.loads(archive["run"].item())
    parameters = changes.pop("theta", parameters)
    np.savez(path, theta=parameters, run=json.dumps(run_ | changes))


def test_a_truncated_checkpoint_is_damaged(checkpoint):
    whole = checkpoint.read_bytes()
    for length in (2, 100, len(whole) // 2, len(whole) - 1):
        checkpoint.write_bytes(whole[:length])
        assert "damaged" in error_of("--load", checkpoint)
    checkpoint.write_bytes(b"")
    assert "m.npz is not a checkpoint" in error_of("--load", checkpoint)
    checkpoint.unlink()
    assert "m.npz: No such file" in error_of("--load", checkpoint)


def test_foreign_files_and_models_of_other_scripts_are_told_apart(checkpoint):
    rewrite(checkpoint, script="bigram.py")
    assert "m.npz is no model of mlp.py, but of 'bigram.py'" in error_of("--load", checkpoint)
    np.savez(checkpoint, a=np.zeros(3))
    assert "m.npz is no model of mlp.py" in error_of("--load", checkpoint)
    checkpoint.write_text("anna\n")
    assert "m.npz is not a checkpoint" in error_of("--load", checkpoint)


@pytest.mark.parametrize(
    "change",
    [
        {"theta": np.array([{"a": 1}], dtype=object)},
        {"theta": np.zeros(5, np.float32)},
        {"theta": np.full(1457, np.nan, np.float32)},
        {"step": -1},
        {"step": "x"},
        {"alphabet": ""},
        {"alphabet": 5},
        {"options": {}},
        {"generator": {"bit_generator": "PCG64"}},
        {"surprise": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_hostile_checkpoints_are_refused(checkpoint, change):
    rewrite(checkpoint, **change)
    assert "damaged" in error_of("--load", checkpoint)


@pytest.mark.parametrize(
    "option, value", [("steps", 1e999), ("lr", "x"), ("batch_size", [1]), ("lr_decay", None)]
)
def test_hostile_options_in_a_checkpoint_are_usage_errors(checkpoint, option, value):
    options = mlp.load_run(checkpoint).options
    rewrite(checkpoint, options=options | {option: value})
    result = invoke("--load", checkpoint)
    assert result.exit_code == 2 and f"--{option.replace('_', '-')}" in result.stderr


def test_a_compressed_archive_is_refused_before_it_unpacks(checkpoint):
    np.savez_compressed(checkpoint, theta=np.zeros(10**7, np.float32), run="{}")
    assert "damaged" in error_of("--load", checkpoint)


def test_options_that_contradict_the_checkpoint_are_usage_errors(checkpoint):
    for option in ("context", "embedding", "hidden", "seed"):
        result = invoke("--load", checkpoint, f"--{option}", 9)
        assert result.exit_code == 2 and f"--{option}" in result.stderr


def test_other_data_with_an_unknown_character_names_it(checkpoint, tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("zoë\n" * 10)
    result = invoke("--load", checkpoint, "--data", path)
    assert result.exit_code == 1 and "'ë'" in result.stderr.splitlines()[-1]
    path.write_text("anna\n" * 10)
    result = invoke("--load", checkpoint, "--data", path)
    assert result.exit_code == 0 and "Warning: " in result.stderr
