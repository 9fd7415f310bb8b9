"""Facts about the net of stage 3, and about mlp.py's command line."""

import re

import numpy as np
import pytest

import mlp
from common import build_dataset, build_vocab, load_words, split_words
from conftest import FEW, invoke


def small_net(dtype=np.float64):
    rng = np.random.default_rng(0)
    net = mlp.new_net(rng, vocab=7, context=3, embedding=4, hidden=5, dtype=dtype)
    return net, rng.integers(7, size=(6, 3)), rng.integers(7, size=6)


def test_loss_and_gradients_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    net, X, Y = small_net()
    C, W1, b1, W2, b2 = params = [torch.tensor(array, requires_grad=True) for array in net]
    logits = (C[torch.tensor(X)].flatten(1) @ W1 + b1).tanh() @ W2 + b2
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(Y))
    expected.backward()
    loss, gradients = mlp.loss_and_gradients(net, X, Y)
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    for gradient, param in zip(gradients, params):
        np.testing.assert_allclose(gradient, param.grad, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_have_the_dtype_of_the_parameters(dtype):
    net, X, Y = small_net(dtype)
    loss, gradients = mlp.loss_and_gradients(net, X.astype(np.uint8), Y.astype(np.uint8))
    assert isinstance(loss, float)
    assert {array.dtype for array in (*mlp.forward(net, X), *gradients)} == {np.dtype(dtype)}


def test_samples_follow_the_model():
    zeros, itos, rng = np.zeros(4), dict(enumerate(".abc")), np.random.default_rng(0)
    stoi = {character: token for token, character in itos.items()}
    # A net that spells "abc" with certainty: the next character has logit 1000.
    net = mlp.Net(np.eye(4) * 10, np.eye(4), zeros, np.roll(np.eye(4), 1, axis=1) * 1000, zeros)
    assert mlp.sample(net, rng, stoi, itos, 1) == "abc"
    assert mlp.sample(net, rng, stoi, itos, 1, prefix="b") == "bc"
    assert mlp.sample(net, rng, stoi, itos, 1, longest=2) == "ab"
    with pytest.raises(KeyError):
        mlp.sample(net, rng, stoi, itos, 1, prefix="x")


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_first_characters_are_drawn_with_the_probabilities_of_the_net(temperature):
    net = mlp.new_net(np.random.default_rng(0), vocab=5, context=2, embedding=4, hidden=5)
    net.W2[:] *= 0.3
    logits = mlp.forward(net, np.zeros((1, 2), int))[-1][0]
    probs = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    data = np.random.default_rng(0), *build_vocab(["abcd"]), 2, "", temperature, 1
    words = [mlp.sample(net, *data) for _ in range(4_000)]
    drawn = [words.count(character) / 4_000 for character in ("", *"abcd")]
    np.testing.assert_allclose(drawn, probs, atol=0.03)


def test_the_default_net_starts_at_27_2238_and_learns():
    result = invoke(mlp, "--steps", 3000)
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and result.stderr == "" and max(map(len, lines)) <= 80
    assert lines[0].endswith(" 183,935 training examples, 11,897 parameters")
    rows = re.findall(r"^ +([\d,]+) +(\d+\.\d{4})$", result.stdout, re.M)
    assert rows[0] == ("1", "27.2238") and rows[-1][0] == "3,000"
    assert float(rows[-1][1]) == pytest.approx(2.845, abs=0.01)


def test_find_lr_marks_the_lowest_of_twenty_rates():
    options = "--find-lr --hidden 9 --batch-size 7 --seed 5"
    output = invoke(mlp, "--data", FEW, *options.split()).stdout
    words, rng = load_words(FEW), np.random.default_rng(5)
    X, Y = build_dataset(split_words(words, rng.spawn(1)[0])[0], build_vocab(words)[0], 3)
    net, rate = mlp.new_net(rng, 27, 3, 10, 9), lambda done: 0.001 * 1000**done
    losses = [loss for _, loss in mlp.train(net, X, Y, 1000, 7, rate, 5)]
    means = np.reshape(losses, (20, 50)).mean(axis=1)
    rows = [f"{rate(i / 20 + 0.025):8.4f}{mean:10.4f}" for i, mean in enumerate(means)]
    rows[means.argmin()] += "  lowest"
    assert output.splitlines()[3:] == rows
