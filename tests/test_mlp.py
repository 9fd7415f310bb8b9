"""Facts about the net's mathematics, and about mlp.py as its users see it from outside."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import mlp
from common import build_dataset, build_vocab, load_words

SCRIPT = Path(mlp.__file__)
SMALL = ["--hidden", "20", "--samples", "3"]


def run(*arguments, **options):
    """Run mlp.py as a process of its own."""
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def invoke(*arguments):
    """Run mlp.py's command within this process, which is faster."""
    return CliRunner().invoke(mlp.main, [str(argument) for argument in arguments])


def error_of(*arguments):
    """The only line that a command which cannot be done prints to stderr."""
    result = invoke(*arguments)
    assert result.exit_code == 1, result.output
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("Error: ")
    return result.stderr


def table(output):
    rows = re.findall(r"^(train|dev|test) +([\d.]+) +[\d.]+$", output, re.M)
    return {name: float(loss) for name, loss in rows}


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
def test_loss_and_gradients_are_those_of_the_textbook(vocab):
    params, X, Y = small_net(vocab=vocab, context=4, batch=9)
    loss, grads = mlp.loss_and_gradients(params, X, Y)
    expected, expected_grads = textbook_loss_and_gradients(params, X, Y)
    assert loss == pytest.approx(expected, rel=1e-12)
    for ours, theirs in zip(grads, expected_grads):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("sizes", [dict(context=1, batch=1), {}, dict(vocab=2, context=5, batch=7)])
def test_gradients_match_central_differences(sizes):
    errors = mlp.check_gradients(np.random.default_rng(1), **sizes)
    assert list(errors) == ["C", "W1", "b1", "W2", "b2"]
    assert max(errors.values()) < 1e-6


def test_gradient_check_sees_a_wrong_gradient(monkeypatch):
    right = mlp.backward

    def wrong(params, X, emb, h, dlogits, grads):
        right(params, X, emb, h, dlogits, grads)
        grads.b1[0] *= 1.001

    monkeypatch.setattr(mlp, "backward", wrong)
    errors = mlp.check_gradients(np.random.default_rng(1))
    assert errors["b1"] > 1e-6 > errors["W2"]
    assert "disagree" in error_of("--gradcheck")


def test_softmax_gradient_of_a_row_is_p_minus_one_hot_and_sums_to_zero():
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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_have_the_dtype_of_the_parameters(dtype):
    params, X, Y = small_net(dtype=dtype)
    loss, grads = mlp.loss_and_gradients(params, X.astype(np.uint8), Y.astype(np.uint8))
    assert isinstance(loss, float)
    assert {array.dtype for array in grads} == {np.dtype(dtype)}
    assert [array.shape for array in grads] == [array.shape for array in params]


def test_parameters_are_views_into_one_vector_of_standard_normal_numbers():
    params = mlp.init_params(np.random.default_rng(0), 27, 3, 10, 200)
    assert params.flat.size == sum(array.size for array in params) == 11_897
    assert params.flat.dtype == np.float32
    assert abs(params.flat.mean()) < 0.03 and abs(params.flat.std() - 1) < 0.03
    params.flat[:] = 0
    assert not any(array.any() for array in params)


def test_evaluation_is_the_mean_over_all_examples():
    words = load_words()[::20]
    X, Y = build_dataset(words, build_vocab(words)[0], 3)
    params = mlp.init_params(np.random.default_rng(0), 27, 3, 10, 20, np.float64)
    direct, _ = mlp.loss_and_gradients(params, X, Y)
    for chunk in (1024, 1000, 10**6):
        assert mlp.evaluate(params, X, Y, chunk) == pytest.approx(direct, rel=1e-12)


# ---------------------------------------------------------------------------------------- training


def test_schedules():
    found = {name: [f(done) for done in (0, 0.25, 0.5, 0.75)] for name, f in mlp.SCHEDULES.items()}
    assert found == {"linear": [1, 0.75, 0.5, 0.25], "step": [1, 1, 0.1, 0.1], "none": [1, 1, 1, 1]}


def test_a_step_moves_every_parameter_against_its_gradient():
    params, X, Y = small_net()
    before, (_, grads) = params.flat.copy(), mlp.loss_and_gradients(params, X[:1], Y[:1])
    steps = mlp.train(params, X[:1], Y[:1], 1, 2, lambda done: 0.5, seed=0)
    assert [step for step, _ in steps] == [1]
    np.testing.assert_allclose(params.flat, before - 0.5 * grads.flat, atol=1e-15)


@pytest.mark.parametrize("start", [1, 999, 1000, 1001, 2500])
def test_a_step_gets_the_same_minibatch_wherever_training_started(start):
    whole = islice(mlp.minibatches(42, 500, 4), start, start + 1200)
    assert all(map(np.array_equal, whole, mlp.minibatches(42, 500, 4, start)))


def test_minibatches_are_uniform_and_differ_by_seed_and_step():
    rows = np.array([*islice(mlp.minibatches(1, 10, 32), 2000)])  # (2000, 32)
    np.testing.assert_allclose(np.bincount(rows.ravel()) / rows.size, 0.1, atol=0.01)
    assert (rows[:1000] != rows[1000:]).any()
    assert (rows[0] != next(mlp.minibatches(2, 10, 32))).any()


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


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_first_characters_are_drawn_with_the_probabilities_of_the_net(temperature):
    params, _, _ = small_net(vocab=5, context=2)
    params.W2[:] *= 0.3
    logits = mlp.forward(params, np.zeros((1, 2), int))[-1][0]
    probs = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    rng, itos = np.random.default_rng(0), dict(enumerate(".abcd"))
    words = mlp.sample(params, rng, itos, 20_000, temperature=temperature)
    drawn = [sum(word[:1] == c for word in words) / 20_000 for c in ("", *"abcd")]
    np.testing.assert_allclose(drawn, probs, atol=0.015)


def test_low_temperature_takes_the_likeliest_and_a_word_that_never_ends_is_cut():
    params, itos = counting_net()
    params.W2[:] = np.eye(4) * 5
    rng = np.random.default_rng(0)
    words = mlp.sample(params, rng, itos, 2, prefix="c", temperature=1e-3, longest=9)
    assert words == ["c" * 9] * 2


# ------------------------------------------------------------------------------------ command line


def test_a_run_prints_falling_losses_the_table_and_samples():
    result = run("--steps", 3000, "--samples", 7)
    assert result.returncode == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) == 18 + 7
    assert lines[0] == "32,257 words, 27 characters, 183,935 training examples, 11,897 parameters"
    losses = [float(line.split()[1]) for line in lines[2:13]]
    assert losses[0] > 20 and "ln 27 = 3.2958" in lines[2]
    assert losses == sorted(losses, reverse=True)
    assert re.fullmatch(r"3,000 steps in \d+\.\d s \(\d+ µs/step\)", lines[13])
    assert lines[14] == "split      loss  perplexity"
    assert list(table(result.stdout)) == ["train", "dev", "test"]
    for line in lines[15:18]:
        _, loss, perplexity = line.split()
        assert math.log(float(perplexity)) == pytest.approx(float(loss), abs=1e-3)
    known = set(load_words())
    for word, *mark in map(str.split, lines[18:]):
        assert mark == ([] if word in known else ["new"])


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    first, second, other = (
        re.sub(r" in .*", "", run("--steps", 500, *SMALL, "--seed", seed).stdout)
        for seed in (7, 7, 8)
    )
    assert first == second != other


def test_rows_are_means_since_the_row_above():
    output = invoke("--steps", 40, *SMALL).stdout
    rows = re.findall(r"^ +(\d+) +(\d+\.\d{4})(?:   \(|   u|$)", output, re.M)
    assert [int(step) for step, _ in rows] == [1, *range(4, 41, 4)]
    words = load_words()
    rng = np.random.default_rng(42)
    X, Y = build_dataset(mlp.split_words(words, rng.spawn(1)[0])[0], build_vocab(words)[0], 3)
    params = mlp.init_params(rng, 27, 3, 10, 20)
    losses = [loss for _, loss in mlp.train(params, X, Y, 40, 32, lambda d: 0.1 * (1 - d), 42)]
    means = [losses[0], np.mean(losses[1:4]), *np.mean(np.reshape(losses[4:], (9, 4)), axis=1)]
    np.testing.assert_allclose([float(loss) for _, loss in rows], means, atol=6e-5)


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


def test_find_lr_says_when_the_loss_diverges_at_once(monkeypatch):
    monkeypatch.setattr(mlp, "loss_and_gradients", lambda *_: (math.nan, None))
    assert "the loss diverged within 0 steps" in error_of("--find-lr", *SMALL)


def test_prefix_starts_every_sample():
    result = invoke("--steps", 200, *SMALL, "--prefix", "mar", "--temperature", 0.7)
    assert all(line.startswith("mar") for line in result.stdout.splitlines()[-3:])


def test_words_with_spaces_capitals_and_accents_train(tmp_path):
    path = tmp_path / "places.txt"
    path.write_text("São Paulo\nBad Säckingen\n漢城\n" * 10, encoding="utf-8")
    arguments = ["--data", path, "--steps", 300, *SMALL, "--prefix", "漢"]
    result = run(*arguments)
    assert result.returncode == 0 and result.stdout.splitlines()[-1].startswith("漢")
    ascii_only = run(*arguments, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert ascii_only.returncode == 0 and ascii_only.stderr == ""


def test_it_runs_from_any_folder_and_head_gives_no_traceback(tmp_path):
    command = f"{sys.executable} {SCRIPT} --steps 0 --samples 9999 | head -1"
    options = dict(shell=True, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    result = subprocess.run(command, **options)
    assert result.stderr == "" and result.stdout.startswith("32,257 words")


def test_plot_draws_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    for mode in ([], ["--find-lr"], ["--embedding", 1]):
        path = tmp_path / f"{len(mode)}.png"
        assert invoke("--steps", 200, *SMALL, "--plot", path, *mode).exit_code == 0
        assert path.read_bytes().startswith(b"\x89PNG")


# --------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--steps", n] for n in ("-1", "x", "1.5", "9" * 30)),
        *([f"--{name}", "0"] for name in ("batch-size", "context", "embedding", "hidden")),
        *(["--lr", x] for x in ("0", "nan", "-1", "1e30", "x")),
        *([["--temperature", "0"], ["--seed", "-1"], ["--samples", "-1"], ["--lr-decay", "cos"]]),
        *([["--prefix", "Ma"], ["--prefix", "a.b"], ["--data", "/none"], ["--data", "/"]]),
    ],
    ids=" ".join,
)  # fmt: skip
def test_options_out_of_range_are_usage_errors_that_name_the_option(arguments):
    result = invoke("--steps", "1", *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr.splitlines()[-1]


def test_data_that_cannot_be_used_is_named(tmp_path):
    path = tmp_path / "words.txt"
    for content, message in [
        (b"", f"{path} contains no words"),
        (b"anna\n\xff\n", f"{path}, line 2: not UTF-8"),
        (b"a.b\n", f"{path}, line 1: a word cannot contain '.'"),
        (b"anna\n", "at least 6 words are needed for a split: 1 given"),
    ]:
        path.write_bytes(content)
        assert message in error_of("--data", path)


def test_a_mistake_in_the_code_shows_its_traceback(monkeypatch):
    def forward(params, X):
        emb = params.C[X]  # a learner forgot to reshape
        return emb, np.tanh(emb @ params.W1 + params.b1), None

    monkeypatch.setattr(mlp, "forward", forward)
    result = invoke("--steps", 5)
    assert isinstance(result.exception, ValueError) and "matmul" in str(result.exception)


def test_a_plot_that_cannot_be_drawn_is_refused_and_harms_nothing(tmp_path, monkeypatch):
    path = tmp_path / "precious.txt"
    path.write_text("mine")
    result = invoke("--plot", path)
    assert result.exit_code == 2 and "--plot" in result.stderr and path.read_text() == "mine"
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = invoke("--plot", "run.png")
    assert result.exit_code == 2 and "matplotlib" in result.stderr


# ------------------------------------------------------------------------------------- checkpoints


def contents(path):
    with np.load(path) as archive:
        return archive["theta"], int(archive["step"]), json.loads(archive["facts"].item())


def test_a_finished_checkpoint_goes_straight_to_evaluation(tmp_path):
    path = tmp_path / "m.npz"
    arguments = ["--steps", 300, *SMALL, "--checkpoint", path]
    trained = invoke(*arguments).stdout.splitlines()
    before = path.read_bytes()
    again = invoke(*arguments).stdout.splitlines()
    assert again[1] == f"{path}: 300 steps done" and again[2:] == trained[-7:]
    assert path.read_bytes() == before
    theta, step, facts = contents(path)
    assert theta.dtype == np.float32 and step == 300
    assert facts == {
        "script": "mlp.py", "words": 32257, "alphabet": ".abcdefghijklmnopqrstuvwxyz", "seed": 42,
        "context": 3, "embedding": 10, "hidden": 20,
    }  # fmt: skip


def test_more_steps_go_on_from_the_checkpoint_with_the_bits_of_a_run_that_never_stopped(tmp_path):
    path, whole = tmp_path / "m.npz", tmp_path / "whole.npz"
    options = [*SMALL, "--lr-decay", "none"]
    invoke("--steps", 1300, *options, "--checkpoint", path)
    result = invoke("--steps", 2100, *options, "--checkpoint", path)
    assert "\n800 steps in" in result.stdout
    invoke("--steps", 2100, *options, "--checkpoint", whole)
    assert np.array_equal(contents(path)[0], contents(whole)[0])


def test_ctrl_c_shows_what_has_been_learnt_and_the_same_command_goes_on(tmp_path):
    path = tmp_path / "m.npz"
    arguments = list(map(str, ["--steps", 30_000, *SMALL, "--checkpoint", path]))
    command = [sys.executable, SCRIPT, *arguments]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen(command, **pipes)
    while not process.stdout.readline().startswith("   3,000"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0 and errors == ""
    assert list(table(output)) == ["train", "dev", "test"] and len(output.splitlines()[-3:]) == 3
    done = int(re.search(r"^([\d,]+) steps in", output, re.M)[1].replace(",", ""))
    assert 3_000 <= done < 30_000 and contents(path)[1] < 30_000
    assert invoke(*arguments).exit_code == 0 and contents(path)[1] == 30_000


def test_a_diverging_loss_stops_the_run_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "m.npz"
    assert invoke("--steps", 5, *SMALL, "--checkpoint", path).exit_code == 0
    before, right = path.read_bytes(), mlp.backward

    def explode(params, X, emb, h, dlogits, grads):
        right(params, X, emb, h, dlogits, grads)
        grads.W2[:] = np.inf

    monkeypatch.setattr(mlp, "backward", explode)
    monkeypatch.setattr(mlp, "SAVE_EVERY", 0)
    for steps, step in ((50, 7), (6, 6)):
        error = error_of("--steps", steps, *SMALL, "--checkpoint", path)
        assert error == f"Error: the loss diverged at step {step}: try a lower --lr\n"
        assert path.read_bytes() == before


def test_a_checkpoint_that_cannot_be_written_is_refused_before_training(tmp_path):
    for path in (tmp_path / "none" / "m.npz", tmp_path):
        result = run("--checkpoint", path)
        assert result.returncode in (1, 2) and "Traceback" not in result.stderr
        assert str(path.parent) in result.stderr and "loss" not in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_symbolic_link_is_written_through(tmp_path):
    (tmp_path / "link.npz").symlink_to(tmp_path / "m.npz")
    assert invoke("--steps", 1, *SMALL, "--checkpoint", tmp_path / "link.npz").exit_code == 0
    assert (tmp_path / "link.npz").is_symlink() and contents(tmp_path / "m.npz")[1] == 1


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "m.npz"
    assert invoke("--steps", 1, *SMALL, "--checkpoint", path).exit_code == 0
    return path


def refusal(path, *arguments):
    """What is said of a checkpoint that is refused and stays as it is."""
    before = path.read_bytes()
    error = error_of("--steps", 9, *SMALL, "--checkpoint", path, *arguments)
    assert path.read_bytes() == before and str(path) in error
    return error


@pytest.mark.parametrize(
    "option, value, there",
    [("context", 2, 3), ("embedding", 9, 10), ("hidden", 9, 20), ("seed", 1, 42)],
)
def test_a_checkpoint_of_other_options_names_the_difference(checkpoint, option, value, there):
    error = refusal(checkpoint, f"--{option}", value)
    assert error.endswith(f"of another run: {option} is {there} in it and {value} here\n")


def test_a_checkpoint_of_other_words_or_another_script_is_refused(checkpoint, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("zoë\n" * 10)
    assert "words is 32257 in it and 10 here" in refusal(checkpoint, "--data", words)
    words.write_text("zoë\n" * 32257)
    assert "and '.ozë' here" in refusal(checkpoint, "--data", words)
    theta, step, facts = contents(checkpoint)
    facts = json.dumps(facts | {"script": "other.py"})
    np.savez(checkpoint, theta=theta, step=step, facts=facts)
    assert "script is 'other.py' in it and 'mlp.py' here" in refusal(checkpoint)


def test_damaged_and_foreign_files_are_refused(checkpoint):
    whole = checkpoint.read_bytes()
    for content in (b"", b"anna\n", whole[:100], whole[: len(whole) // 2], whole[:-1]):
        checkpoint.write_bytes(content)
        assert "is damaged or not a checkpoint" in refusal(checkpoint)


@pytest.mark.parametrize(
    "change",
    [
        {"theta": np.array([{"a": 1}], dtype=object)},
        {"theta": np.zeros(5, np.float32)},
        {"theta": np.zeros(1457)},
        {"step": -1},
        {"step": "x"},
        {"facts": "5"},
        {"facts": "{"},
        {"facts": 5},
    ],
    ids=str,
)
def test_hostile_checkpoints_are_refused(checkpoint, change):
    with np.load(checkpoint) as archive:
        np.savez(checkpoint, **{**archive, **change})
    assert "is damaged or not a checkpoint" in refusal(checkpoint)
