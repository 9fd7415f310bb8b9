"""Facts about counting, the network that learns the same, and bigram.py's command line."""

import math
import re

import numpy as np
import pytest

import bigram
from common import build_vocab, load_words, split_words
from conftest import FEW, invoke

WORDS = load_words()
STOI, ITOS = build_vocab(WORDS)


def test_samples_follow_the_table():
    P, rng = np.roll(np.eye(4), 1, axis=1), np.random.default_rng(0)
    stoi, itos = build_vocab(["abc"])
    assert bigram.sample(P, rng, stoi, itos) == "abc"
    assert bigram.sample(P, rng, stoi, itos, "b", temperature=0.1) == "bc"
    assert bigram.sample(np.eye(4)[[1, 1, 1, 1]], rng, stoi, itos, longest=7) == "a" * 7
    P = bigram.probabilities(bigram.count(["abcab"], stoi, order=4), 0)
    assert bigram.sample(P, rng, stoi, itos) == bigram.sample(P, rng, stoi, itos, "ab") == "abcab"


def test_temperature_is_a_power_of_the_probabilities():
    P, rng, tables = np.array([[0.1, 0.2, 0.7]] * 3), np.random.default_rng(0), build_vocab(["ab"])
    for temperature in (0.5, 1.0, 2.0):
        probs = P[0] ** (1 / temperature) / (P[0] ** (1 / temperature)).sum()
        words = [bigram.sample(P, rng, *tables, "", temperature, 1) for _ in range(4000)]
        drawn = [words.count(character) / 4000 for character in ("", "a", "b")]
        np.testing.assert_allclose(drawn, probs, atol=0.03)


def test_the_story():
    result = invoke(bigram)
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and len(lines) <= 60 and max(map(len, lines)) <= 80
    assert lines[0] == "32,257 words (29,693 distinct), 229,804 2-grams"
    for line in (
        "most frequent:  n. 6,808  a. 6,682  an 5,471  .a 4,438  e. 4,022  ar 3,291",
        "loss of all words by their own counts: 2.4544; uniform guess: ln 27 = 3.2958",
        "100 words, 100 steps by rows and by counts: loss 2.1828",
        "       0    3.6189    0.7294",
        "  20,000    2.4541    0.0008",
        "     0.0469   3.06  .e",
        "   3.34e-06  likelihood of the word: the product of its probabilities",
        "   -12.6095  log likelihood: the sum of their logs",
        "     2.5219  mean of -log, in nats: the loss of this word",
        "train      2.4548    2.4541",
        "dev        2.4561    2.4563",
    ):
        assert line in lines


@pytest.mark.parametrize("model, order", [("counts", 2), ("counts", 3), ("net", 2)])
def test_losses_and_words_of_another_run_are_those_of_the_functions(tmp_path, model, order):
    path = tmp_path / "words.txt"
    path.write_text("\n".join(FEW.read_text(encoding="utf-8").split()[5:]))
    options = f"--order {order} --seed 7 --word anbo --samples 3 --prefix be --temperature 0.5"
    options += f" --model {model} --smoothing 0.3 --steps 30 --lr 20 --l2 0.2"
    output = invoke(bigram, "--data", path, *options.split()).stdout

    words, rng = load_words(path), np.random.default_rng(7)
    stoi, itos = build_vocab(words)
    splits = [bigram.count(part, stoi, order) for part in split_words(words, rng.spawn(1)[0])]
    tables = {"counts": bigram.probabilities(splits[0], 0.3)}
    if order == 2:
        W = rng.standard_normal((len(stoi), len(stoi)))
        *_, (_, loss) = bigram.train(W, splits[0], 30, 20, 0.2)
        tables["net"] = bigram.softmax(W)
        difference = np.abs(tables["net"] - bigram.probabilities(splits[0], 0))
        largest = difference[splits[0].any(axis=1)].max()
        assert f"\n      30 {loss:9.4f} {largest:9.4f}\n" in output  # of the same moment
        assert float(re.search(r"tables differ by at most (\S+)", output)[1]) < 1e-12
    for name, part in zip(("train", "dev", "test"), splits):
        losses = (f"{bigram.mean_loss(part, P):10.4f}" for P in tables.values())
        assert f"\n{name:7}{''.join(losses)}\n" in output
    floor = bigram.mean_loss(splits[0], bigram.probabilities(splits[0], 0))
    assert f"\nfloor  {floor:10.4f} " in output
    for text in (f" {order}-grams\n", "(above: smoothing 0.3)\n", f"\nwords by the {model}:\n"):
        assert text in output
    P, longest = tables[model], 2 * max(map(len, words))
    grams = [f"{'.' * (order - 1)}anbo."[i : i + order] for i in range(5)]
    factors = [P[tuple(stoi[character] for character in gram)] for gram in grams]
    assert f"\n{math.prod(factors):11.4g}  likelihood" in output
    made = [bigram.sample(P, rng, stoi, itos, "be", 0.5, longest) for _ in range(3)]
    lines = [line.split() for line in output.splitlines()[-3:]]
    assert lines == [[word] if word in words else [word, "new"] for word in made]


def test_smoothing_auto_takes_the_lowest_loss_on_dev():
    output = invoke(bigram, "--order", 3, "--smoothing", "auto", "--samples", 0).stdout
    parts = split_words(WORDS, np.random.default_rng(42).spawn(1)[0])
    train, dev = (bigram.count(part, STOI, 3) for part in parts[:2])
    rows = []
    for smoothing in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10):
        P = bigram.probabilities(train, smoothing)
        rows.append((bigram.mean_loss(dev, P), bigram.mean_loss(train, P), smoothing))
    for row in rows:
        assert f"\n{row[2]:9g} {row[1]:9.4f} {row[0]:9.4f}\n" in output
    assert round(min(rows)[0], 4) == 2.2168 and "\ndev        2.2168\n" in output


@pytest.mark.parametrize(
    "options, line",
    [
        ("--l2 0.01 --steps 200", "     200    2.4831 "),  # 2.483 in the lecture
        ("--word andrejq --smoothing 0 --steps 9", "     0.0000    inf  jq\n"),
        ("--word andrejq --smoothing 0 --steps 9", "dev           inf    "),
        ("--smoothing x", "'x' is not a valid number or auto.\n"),
        ("--order 20", "Error: a table of 27^20 counts would not fit in memory\n"),
    ],
)
def test_known_lines(options, line):
    assert line in invoke(bigram, *options.split()).output
