"""Facts about the net's mathematics, and about mlp.py as its users see it from outside."""

import copy
import math
import pickle
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import mlp
from common import build_dataset, build_vocab, load_words, split_words

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
    net = mlp.new_net(rng, vocab, context, embedding=4, hidden=5, dtype=dtype)
    return net, rng.integers(vocab, size=(batch, context)), rng.integers(vocab, size=batch)


# ------------------------------------------------------------------------------------- mathematics


def test_the_loss_is_that_of_the_equations():
    net, X, Y = small_net()
    C, W1, b1, W2, b2 = net
    losses = []
    for x, y in zip(X, Y):
        h = np.tanh(np.concatenate([C[token] for token in x]) @ W1 + b1)
        logits = h @ W2 + b2
        losses.append(-math.log(np.exp(logits[y]) / np.exp(logits).sum()))
    loss, _ = mlp.loss_and_gradients(net, X, Y)
    assert loss == pytest.approx(np.mean(losses), rel=1e-12)


@pytest.mark.parametrize("sizes", [dict(context=1, batch=5), {}, dict(vocab=2, context=5, batch=7)])
def test_gradients_match_central_differences(sizes):
    errors = mlp.check_gradients(np.random.default_rng(1), **sizes)
    assert list(errors) == ["loss", "C", "W1", "b1", "W2", "b2", "train"]
    assert max(errors.values()) < 1e-6


def test_cross_entropy_is_that_of_its_steps_whatever_the_largest_logit_is():
    rng = np.random.default_rng(2)
    for scale in (0.01, 1, 30):
        logits, Y = scale * rng.standard_normal((9, 5)), rng.integers(5, size=9)
        loss, dlogits = mlp.cross_entropy(logits, Y)
        expected, dexpected = mlp.cross_entropy_step_by_step(logits, Y)
        assert loss == pytest.approx(expected)
        np.testing.assert_allclose(dlogits, dexpected, atol=1e-12)
        np.testing.assert_allclose(dlogits.sum(axis=1), 0, atol=1e-15)


@pytest.mark.parametrize(
    "logits, target, loss",
    [
        ([0, 0, 0, 0], 1, math.log(4)),
        ([746, 0], 1, 746),
        ([3e4, 0, -3e4], 2, 6e4),
        ([1, -np.inf, 2], 0, 1.31326),
    ],
)
def test_logits_of_any_size_give_the_loss_without_overflow(logits, target, loss):
    for dtype in (np.float32, np.float64):
        with np.errstate(over="raise", invalid="raise"):
            found, dlogits = mlp.cross_entropy(np.array([logits], dtype), np.array([target]))
        assert found == pytest.approx(loss, abs=1e-5) and np.isfinite(dlogits).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_have_the_dtype_of_the_parameters(dtype):
    net, X, Y = small_net(dtype=dtype)
    loss, gradients = mlp.loss_and_gradients(net, X.astype(np.uint8), Y.astype(np.uint8))
    assert isinstance(loss, float)
    assert {array.dtype for array in (*mlp.forward(net, X), *gradients)} == {np.dtype(dtype)}
    assert [g.shape for g in gradients] == [(7, 4), (12, 5), (5,), (5, 7), (7,)]


def test_parameters_are_standard_normal_numbers():
    net = mlp.new_net(np.random.default_rng(0), 27, 3, 10, 200)
    assert sum(array.size for array in net) == 11_897
    for array in net:
        assert array.dtype == np.float32 and abs(array.std() - 1) < 0.2


@pytest.mark.parametrize("token", [7, 9999, -8])
def test_a_token_outside_the_alphabet_is_an_error(token):
    net, X, Y = small_net()
    with pytest.raises(IndexError):
        mlp.loss_and_gradients(net, X, np.full_like(Y, token))
    with pytest.raises(IndexError):
        mlp.loss_and_gradients(net, np.full_like(X, token), Y)


def test_evaluation_is_the_mean_over_all_examples():
    net, X, Y = small_net(batch=3000)
    direct, _ = mlp.loss_and_gradients(net, X, Y)
    for chunk in (1024, 1000, 10**6):
        assert mlp.evaluate(net, X, Y, chunk) == pytest.approx(direct, rel=1e-12)


# ---------------------------------------------------------------------------------------- training


def test_a_step_moves_every_parameter_against_its_gradient():
    net, X, Y = small_net(dtype=np.float32)
    before, (_, gradients) = copy.deepcopy(net), mlp.loss_and_gradients(net, X[:1], Y[:1])
    steps = mlp.train(net, X[:1], Y[:1], 1, 2, lambda done: np.float64(0.25), seed=0)
    assert [step for step, _ in steps] == [1]
    for after, array, gradient in zip(net, before, gradients):
        np.testing.assert_allclose(after, array - 0.25 * gradient, rtol=1e-5, atol=1e-7)


def test_the_rate_is_a_function_of_the_fraction_of_the_steps_done():
    (net, X, Y), asked = small_net(), []
    for _ in mlp.train(net, X, Y, 4, 2, lambda done: asked.append(done) or 0.1, seed=0, start=1):
        pass
    assert asked == [0.25, 0.5, 0.75]


@pytest.mark.parametrize("start", [0, 1, 999, 1000, 1001, 2500])
def test_minibatches_are_those_of_the_streams_wherever_training_starts(monkeypatch, start):
    rows, (net, _, _) = [], small_net()
    monkeypatch.setattr(mlp, "loss_and_gradients", lambda net, X, Y: (rows.append(Y), net))
    X, Y = np.zeros((10, 3), int), np.arange(10)
    assert len([*mlp.train(net, X, Y, 3000, 4, lambda done: 0.0, 7, start)]) == 3000 - start
    streams = [np.random.default_rng([7, 1 + k]).integers(10, size=(1000, 4)) for k in range(3)]
    assert np.array_equal(rows, np.concatenate(streams)[start:])


def test_copies_and_pickles_of_a_net_train_by_themselves():
    net, X, Y = small_net()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net._replace(b2=net.b2 * 1)):
        losses = [loss for _, loss in mlp.train(other, X, Y, 99, 6, lambda done: 0.3, 0)]
        assert losses[-1] < 0.7 * losses[0]


# ---------------------------------------------------------------------------------------- sampling


def counting_net():
    """A net over `.abc` that spells "abc" with certainty: the next character has logit 1000."""
    zeros = np.zeros(4)
    net = mlp.Net(np.eye(4) * 10, np.eye(4), zeros, np.roll(np.eye(4), 1, axis=1) * 1000, zeros)
    itos = dict(enumerate(".abc"))
    return net, {character: token for token, character in itos.items()}, itos


def test_samples_follow_the_model():
    net, stoi, itos = counting_net()
    rng = np.random.default_rng(0)
    assert mlp.sample(net, rng, stoi, itos, 1) == "abc"
    assert mlp.sample(net, rng, stoi, itos, 1, prefix="b") == "bc"
    assert mlp.sample(net, rng, stoi, itos, 1, longest=2) == "ab"
    with pytest.raises(KeyError):
        mlp.sample(net, rng, stoi, itos, 1, prefix="x")
    with pytest.raises(ValueError), np.errstate(all="ignore"):
        mlp.sample(net, rng, stoi, itos, 1, temperature=0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_first_characters_are_drawn_with_the_probabilities_of_the_net(temperature):
    net, _, _ = small_net(vocab=5, context=2)
    net.W2[:] *= 0.3
    logits = mlp.forward(net, np.zeros((1, 2), int))[-1][0]
    probs = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    stoi, itos = build_vocab(["abcd"])
    options = dict(temperature=temperature, longest=1)
    rng = np.random.default_rng(0)
    words = [mlp.sample(net, rng, stoi, itos, 2, **options) for _ in range(4_000)]
    drawn = [words.count(character) / 4_000 for character in ("", *"abcd")]
    np.testing.assert_allclose(drawn, probs, atol=0.03)


# ------------------------------------------------------------------------------------ command line


def test_a_run_prints_exactly_what_the_functions_compute(monkeypatch):
    options = "--steps 40 --batch-size 7 --lr 0.3 --context 2 --embedding 3 --hidden 9 --seed 5"
    options += " --samples 8 --prefix ma --temperature 0.5"
    pictures = []
    monkeypatch.setattr(mlp, "draw_run", lambda *each: pictures.append((each[0], [*each[1]])))
    result = invoke("--data", FEW, *options.split(), "--plot", "/run.png")

    words, rng = load_words(FEW), np.random.default_rng(5)
    stoi, itos = build_vocab(words)
    parts = split_words(words, rng.spawn(1)[0])
    splits = [build_dataset(part, stoi, 2) for part in parts]
    net = mlp.new_net(rng, 27, 2, 3, 9)
    rate = lambda done: 0.3 * (1 - done)  # noqa: E731
    losses = [loss for _, loss in mlp.train(net, *splits[0], 40, 7, rate, 5)]
    expected = [
        f"323 words (323 distinct), {len(splits[0][0]):,} training examples, 414 parameters",
        "27 characters: .abcdefghijklmnopqrstuvwxyz",
        "    step      loss, mean since the row above; uniform guess: ln 27 = 3.2958",
        f"{1:8} {losses[0]:9.4f}",
        f"{4:8} {np.mean(losses[1:4]):9.4f}",
        *(f"{i + 4:8} {np.mean(losses[i : i + 4]):9.4f}" for i in range(4, 40, 4)),
        "40 steps",
        "split      loss  perplexity = exp(loss): as unsure as a guess among this many",
    ]
    for name, split in zip(("train", "dev", "test"), splits):
        loss = mlp.evaluate(net, *split)
        expected.append(f"{name:5} {loss:9.4f} {math.exp(loss):#11.4g}")
    for _ in range(8):
        word = mlp.sample(net, rng, stoi, itos, 2, "ma", 0.5, 2 * max(map(len, words)))
        mark = " " if word in words else " new" if len(word) < 2 * max(map(len, words)) else " cut"
        expected.append(f"{word:19}{mark}".rstrip())
    assert re.sub(r" in .*", "", result.stdout).splitlines() == expected
    assert pictures == [("/run.png", []), ("/run.png", losses)]  # the first, to fail early
    assert "Worse than a uniform guess" in result.stderr and result.exit_code == 0


def test_the_default_net_starts_at_27_2238_and_learns():
    result = invoke("--steps", 3000)
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and result.stderr == "" and max(map(len, lines)) <= 80
    assert lines[0] == (
        "32,257 words (29,693 distinct), 183,935 training examples, 11,897 parameters"
    )
    rows = re.findall(r"^ +([\d,]+) +(\d+\.\d{4})$", result.stdout, re.M)
    assert rows[0] == ("1", "27.2238") and rows[-1][0] == "3,000"
    assert float(rows[-1][1]) == pytest.approx(2.845, abs=0.01)
    assert re.search(r"^3,000 steps in \d+\.\d s \(\d+ µs/step\)$", result.stdout, re.M)
    assert table(result.stdout)["dev"] == pytest.approx(2.802, abs=0.01)


def test_the_first_words_do_not_depend_on_how_many_are_made():
    few, many = (invoke(*SMALL[:4], "--steps", 9, "--samples", n).stdout for n in (3, 9))
    assert re.sub(r" in .*", "", many).startswith(re.sub(r" in .*", "", few))


def test_find_lr_marks_the_lowest_of_twenty_rates():
    result = invoke("--find-lr")
    rows = re.findall(r"^ +(\d\.\d{4}) +(\d+\.\d{4})(  lowest)?$", result.stdout, re.M)
    rates, losses = ([float(row[i]) for row in rows] for i in (0, 1))
    assert len(rows) == 20 and rates == sorted(rates) and 0.001 < rates[0] and rates[-1] < 1
    (lowest,) = [float(rate) for rate, _, mark in rows if mark]
    assert losses[rates.index(lowest)] == min(losses) and 0.05 <= lowest <= 0.4
    few = invoke("--find-lr", "--data", FEW, *"--hidden 9 --batch-size 7 --seed 5".split()).stdout
    words, rng = load_words(FEW), np.random.default_rng(5)
    X, Y = build_dataset(split_words(words, rng.spawn(1)[0])[0], build_vocab(words)[0], 3)
    net, rate = mlp.new_net(rng, 27, 3, 10, 9), lambda done: 0.001 * 1000**done
    losses = [loss for _, loss in mlp.train(net, X, Y, 1000, 7, rate, 5)]
    for i in range(20):
        assert f"{rate(i / 20 + 0.025):8.4f}{np.mean(losses[50 * i : 50 * i + 50]):10.4f}" in few


def test_remarks_say_when_a_loss_is_worse_than_a_guess_or_learnt_by_heart(tmp_path):
    assert "Worse than a uniform guess" in invoke(*SMALL, "--steps", 9).stderr
    path = tmp_path / "own.txt"
    path.write_text("\n".join(FEW.read_text(encoding="utf-8").split()[:30]), encoding="utf-8")
    result = invoke("--data", path, "--steps", 3000, "--samples", 0)
    assert "learnt its words by heart" in result.stderr and "Worse" not in result.stderr


def test_a_mistake_in_the_code_shows_its_traceback(monkeypatch):
    monkeypatch.setattr(mlp, "forward", lambda net, X: net.C[X] @ net.W1)
    result = invoke("--steps", 5)  # a learner forgot to reshape
    assert isinstance(result.exception, ValueError) and "matmul" in str(result.exception)


def test_a_backward_pass_that_is_not_yet_written_is_wrong_array_by_array(monkeypatch):
    whole = mlp.backward

    def half(net, X, emb, h, dlogits):
        return whole(net, X, emb, h, dlogits)._replace(C=np.nan, W1=np.nan, b1=np.nan)

    monkeypatch.setattr(mlp, "backward", half)
    result = invoke("--gradcheck")
    verdicts = dict(re.findall(r"^(\w+) .* (ok|WRONG)$", result.stdout, re.M))
    assert result.exit_code == 1
    assert [verdicts[name] for name in mlp.Net._fields] == ["WRONG"] * 3 + ["ok"] * 2


def test_the_readme_shows_both_passes_exactly_as_they_are():
    readme = SCRIPT.with_name("README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^( *)```python\n(.*?)^ *```", readme, re.DOTALL | re.M)
    blocks = [textwrap.dedent(block) for _, block in blocks]
    passes = [block for block in blocks if block.startswith("def ")]
    assert [re.match(r"def (\w+)", block)[1] for block in passes] == ["forward", "backward"]
    assert all(block in SCRIPT.read_text(encoding="utf-8") for block in passes)
