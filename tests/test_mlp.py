"""Facts about the net's mathematics, and about mlp.py as its users see it from outside."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import mlp
from common import build_dataset, build_vocab, load_words

SCRIPT = Path(mlp.__file__)
FEW = Path(__file__).with_name("words.txt")
SMALL = ["--data", FEW, "--hidden", "20", "--samples", "3"]


def invoke(*arguments):
    """Run mlp.py's command within this process, which is faster."""
    return CliRunner().invoke(mlp.main, [str(argument) for argument in arguments])


def table(output):
    rows = re.findall(r"^(train|dev|test) +([\d.]+) +[\d.]+$", output, re.M)
    return {name: float(loss) for name, loss in rows}


def small_net(vocab=7, context=3, batch=6, dtype=np.float64):
    rng = np.random.default_rng(0)
    net = mlp.Net(rng, vocab, context, embedding=4, hidden=5, dtype=dtype)
    return net, rng.integers(vocab, size=(batch, context)), rng.integers(vocab, size=batch)


# ------------------------------------------------------------------------------------- mathematics


def test_the_loss_is_that_of_the_equations():
    net, X, Y = small_net()
    C, W1, b1, W2, b2 = net.params
    losses = []
    for x, y in zip(X, Y):
        h = np.tanh(np.concatenate([C[token] for token in x]) @ W1 + b1)
        logits = h @ W2 + b2
        losses.append(-math.log(np.exp(logits[y]) / np.exp(logits).sum()))
    assert mlp.loss_and_gradients(net, X, Y) == pytest.approx(np.mean(losses), rel=1e-12)


def test_one_hot_of_a_large_alphabet_is_rows_of_the_identity_matrix():
    tokens = np.array([3, 0, 1499, 3])
    assert np.array_equal(mlp.one_hot(tokens, 1500, float), np.eye(1500)[tokens])


@pytest.mark.parametrize("sizes", [dict(context=1, batch=1), {}, dict(vocab=2, context=5, batch=7)])
def test_gradients_match_central_differences(sizes):
    errors = mlp.check_gradients(np.random.default_rng(1), **sizes)
    assert list(errors) == ["C", "W1", "b1", "W2", "b2"]
    assert max(errors.values()) < 1e-6


def test_huge_logits_neither_overflow_nor_vanish():
    with np.errstate(all="raise", under="ignore"):
        loss, dlogits = mlp.cross_entropy(np.array([[3e4, 0, -3e4]], np.float32), np.array([2]))
    assert loss == pytest.approx(6e4)
    np.testing.assert_allclose(dlogits, [[1, 0, -1]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_have_the_dtype_of_the_parameters(dtype):
    net, X, Y = small_net(dtype=dtype)
    loss = mlp.loss_and_gradients(net, X.astype(np.uint8), Y.astype(np.uint8))
    assert isinstance(loss, float)
    assert {array.dtype for array in (*mlp.forward(net, X), *net.grads)} == {np.dtype(dtype)}


def test_parameters_are_standard_normal_numbers():
    net = mlp.Net(np.random.default_rng(0), 27, 3, 10, 200)
    assert net.theta.size == 11_897 and net.theta.dtype == np.float32
    assert abs(net.theta.mean()) < 0.03 and abs(net.theta.std() - 1) < 0.03


def test_evaluation_is_the_mean_over_all_examples():
    words = load_words()[::20]
    X, Y = build_dataset(words, build_vocab(words)[0], 3)
    net = mlp.Net(np.random.default_rng(0), 27, 3, 10, 20, np.float64)
    direct = mlp.loss_and_gradients(net, X, Y)
    for chunk in (1024, 1000, 10**6):
        assert mlp.evaluate(net, X, Y, chunk) == pytest.approx(direct, rel=1e-12)


# ---------------------------------------------------------------------------------------- training


def test_schedules():
    found = {name: [f(done) for done in (0, 0.25, 0.5, 0.75)] for name, f in mlp.SCHEDULES.items()}
    assert found == {"linear": [1, 0.75, 0.5, 0.25], "step": [1, 1, 0.1, 0.1], "none": [1, 1, 1, 1]}


@pytest.mark.parametrize("lr", [0.5, np.float64(0.5)])
def test_a_step_moves_every_parameter_against_its_gradient(lr):
    net, X, Y = small_net(dtype=np.float32)
    before, _ = net.theta.copy(), mlp.loss_and_gradients(net, X[:1], Y[:1])
    expected = before - np.float32(0.25) * net.dtheta
    steps = mlp.train(net, X[:1], Y[:1], 1, 2, lr, lambda done: 0.5, seed=0)
    assert [step for step, _ in steps] == [1]
    np.testing.assert_allclose(net.theta, expected, rtol=1e-5, atol=1e-7)
    assert all(array.dtype == np.float32 for array in (net.theta, net.dtheta, *net.params))


@pytest.mark.parametrize("start", [0, 1, 999, 1000, 1001, 2500])
def test_minibatches_are_those_of_the_streams_wherever_training_starts(monkeypatch, start):
    rows, (net, _, _) = [], small_net()
    monkeypatch.setattr(mlp, "loss_and_gradients", lambda net, X, Y: rows.append(Y) or 0.0)
    X, Y = np.zeros((10, 3), int), np.arange(10)
    assert len([*mlp.train(net, X, Y, 3000, 4, 0.1, lambda done: 1.0, 7, start)]) == 3000 - start
    streams = [np.random.default_rng([7, 1 + k]).integers(10, size=(1000, 4)) for k in range(3)]
    assert np.array_equal(rows, np.concatenate(streams)[start:])


# ---------------------------------------------------------------------------------------- sampling


def counting_net():
    """A net over `.abc` that spells "abc" with certainty: the next character has logit 1000."""
    net = mlp.Net(np.random.default_rng(0), 4, 1, 4, 4)
    C, W1, _, W2, _ = net.params
    net.theta[:] = 0
    C[:] = np.eye(4) * 10
    W1[:] = np.eye(4)
    W2[:] = np.roll(np.eye(4), 1, axis=1) * 1000
    return net, dict(enumerate(".abc"))


def test_samples_follow_the_model():
    net, itos = counting_net()
    rng = np.random.default_rng(0)
    assert mlp.sample(net, rng, itos, 1, 3) == ["abc"] * 3
    assert mlp.sample(net, rng, itos, 1, 2, prefix="b") == ["bc"] * 2
    assert mlp.sample(net, rng, itos, 1, 0) == []
    with pytest.raises(KeyError):
        mlp.sample(net, rng, itos, 1, 1, prefix="x")


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_first_characters_are_drawn_with_the_probabilities_of_the_net(temperature):
    net, _, _ = small_net(vocab=5, context=2)
    net.params.W2[:] *= 0.3
    logits = mlp.forward(net, np.zeros((1, 2), int))[-1][0]
    probs = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    rng, itos = np.random.default_rng(0), dict(enumerate(".abcd"))
    words = mlp.sample(net, rng, itos, 2, 20_000, temperature=temperature)
    drawn = [sum(word[:1] == c for word in words) / 20_000 for c in ("", *"abcd")]
    np.testing.assert_allclose(drawn, probs, atol=0.015)


def test_low_temperature_takes_the_likeliest_and_a_word_that_never_ends_is_cut():
    net, itos = counting_net()
    net.params.W2[:] = np.eye(4) * 5
    rng = np.random.default_rng(0)
    words = mlp.sample(net, rng, itos, 1, 2, prefix="c", temperature=1e-3, longest=9)
    assert words == ["c" * 9] * 2


# ------------------------------------------------------------------------------------ command line


def test_a_run_prints_falling_losses_the_table_and_samples():
    result = invoke("--steps", 3000, "--samples", 7)
    assert result.exit_code == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) == 18 + 7
    assert lines[0] == "32,257 words, 27 characters, 183,935 training examples, 11,897 parameters"
    losses = [float(line.split()[1]) for line in lines[2:13]]
    assert losses[0] > 20 and "ln 27 = 3.2958" in lines[1]
    assert losses == sorted(losses, reverse=True)
    assert re.fullmatch(r"3,000 steps in \d+\.\d s \(\d+ µs/step\)", lines[13])
    assert lines[14].startswith("split      loss  perplexity")
    assert list(table(result.stdout)) == ["train", "dev", "test"]
    for line in lines[15:18]:
        _, loss, perplexity = line.split()
        assert math.log(float(perplexity)) == pytest.approx(float(loss), abs=1e-3)
    known = set(load_words())
    for word, *mark in map(str.split, lines[18:]):
        assert mark == ([] if word in known else ["new"])


def test_rows_are_means_since_the_row_above():
    output = invoke("--steps", 40, "--hidden", 20).stdout
    rows = re.findall(r"^ +(\d+) +(\d+\.\d{4})$", output, re.M)
    assert [int(step) for step, _ in rows] == [1, *range(4, 41, 4)]
    words = load_words()
    rng = np.random.default_rng(42)
    X, Y = build_dataset(mlp.split_words(words, rng.spawn(1)[0])[0], build_vocab(words)[0], 3)
    net = mlp.Net(rng, 27, 3, 10, 20)
    losses = [loss for _, loss in mlp.train(net, X, Y, 40, 32, 0.1, lambda done: 1 - done, 42)]
    means = [losses[0], np.mean(losses[1:4]), *np.mean(np.reshape(losses[4:], (9, 4)), axis=1)]
    np.testing.assert_allclose([float(loss) for _, loss in rows], means, atol=6e-5)


def test_find_lr_suggests_about_the_rate_of_the_lecture():
    result = invoke("--find-lr")
    assert result.exit_code == 0
    assert 0.05 <= float(re.search(r"--lr ([\d.]+)$", result.stdout.strip())[1]) <= 0.4


def test_find_lr_says_when_the_loss_diverges_at_once(monkeypatch):
    monkeypatch.setattr(mlp, "loss_and_gradients", lambda *_: math.nan)
    result = invoke("--find-lr", *SMALL)
    assert result.exit_code == 1 and result.stderr == "Error: the loss diverged within 0 steps\n"


def test_letters_are_spread_apart_and_hardly_moved():
    points = np.random.default_rng(0).normal(scale=0.02, size=(30, 2))
    spread = mlp.spread(points, 0.05)
    distances = np.linalg.norm(spread[:, None] - spread, axis=2) + np.eye(30)
    assert distances.min() > 0.04 and np.abs(spread - points).max() < 0.2
    far = np.array([[0.0, 0.0], [1.0, 0.0]])
    np.testing.assert_array_equal(mlp.spread(far, 0.05), far)


def test_a_mistake_in_the_code_shows_its_traceback(monkeypatch):
    monkeypatch.setattr(mlp, "forward", lambda net, X: net.params.C[X] @ net.params.W1)
    result = invoke("--steps", 5)  # a learner forgot to reshape
    assert isinstance(result.exception, ValueError) and "matmul" in str(result.exception)


def test_a_checkpoint_needs_no_other_option_to_resume_or_to_sample(tmp_path):
    path = tmp_path / "m.npz"
    options = ["--hidden", 16, "--lr", 0.05, "--batch-size", 8, "--seed", 3, "--lr-decay", "step"]
    trained = invoke("--steps", 300, *options, "--samples", 3, "--checkpoint", path).stdout
    before = path.read_bytes()
    again = invoke("--checkpoint", path, "--samples", 3).stdout.splitlines()
    assert again[0] == f"{path}: 300 of 300 steps done" and again[2:] == trained.splitlines()[-7:]
    result = invoke("--checkpoint", path, "--prefix", "ma", "--samples", 3)
    assert table(result.stdout) == table(trained) and path.read_bytes() == before
    assert all(word.startswith("ma") for word in result.stdout.splitlines()[-3:])


def test_the_readme_shows_both_passes_exactly_as_they_are():
    readme = SCRIPT.with_name("README.md").read_text(encoding="utf-8")
    (excerpt,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert excerpt in SCRIPT.read_text() and "def forward" in excerpt and "def backward" in excerpt
