"""Facts about counting, the network that learns the same, and bigram.py's command line."""

import math
import re
from collections import Counter

import numpy as np
import pytest
from click.testing import CliRunner

import bigram
from common import build_vocab, load_words

WORDS = load_words()
STOI, ITOS = build_vocab(WORDS)


def invoke(*arguments):
    return CliRunner().invoke(bigram.main, [str(argument) for argument in arguments])


# ---------------------------------------------------------------------------------------- counting


@pytest.mark.parametrize("order", [2, 3, 4])
def test_counts_are_those_of_the_double_loop(order):
    words = WORDS[::9]
    counter = Counter()
    for word in words:
        padded = "." * (order - 1) + word + "."
        for i in range(len(word) + 1):
            counter[tuple(STOI[c] for c in padded[i : i + order])] += 1
    N = bigram.count(words, STOI, order)
    assert N.shape == (27,) * order and N.sum() == sum(counter.values())
    assert all(N[run_] == number for run_, number in counter.items())


@pytest.mark.parametrize("smoothing, loss", [(0, 2.45440), (1, 2.45495)])
def test_mean_loss_of_names_txt(smoothing, loss):
    N = bigram.count(WORDS, STOI)
    P = bigram.probabilities(N, smoothing)
    np.testing.assert_allclose(P.sum(axis=1), 1)
    assert round(bigram.mean_loss(N, P), 5) == loss


def test_a_context_never_seen_knows_nothing():
    P = bigram.probabilities(np.array([[0, 0], [3, 1]]), 0)
    assert P.tolist() == [[0.5, 0.5], [0.75, 0.25]]


# ---------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("l2", [0.0, 0.7])
def test_gradient_matches_central_differences(l2):
    rng = np.random.default_rng(0)
    W, X, Y = rng.standard_normal((5, 5)), rng.integers(5, size=20), rng.integers(5, size=20)
    _, dW = bigram.loss_and_gradients(W, X, Y, l2)
    numeric = np.zeros_like(W)
    for place in np.ndindex(W.shape):
        sides = []
        for sign in (1, -1):
            moved = W.copy()
            moved[place] += sign * 1e-6
            sides.append(bigram.loss_and_gradients(moved, X, Y, l2)[0])
        numeric[place] = (sides[0] - sides[1]) / 2e-6
    np.testing.assert_allclose(dW, numeric, atol=1e-9)


def test_huge_weights_do_not_overflow():
    with np.errstate(over="raise", invalid="raise"):
        loss, dW = bigram.loss_and_gradients_of_counts(np.eye(3) * 1e4, np.ones((3, 3)))
    assert loss == pytest.approx(2e4 / 3) and np.isfinite(dW).all()


# ---------------------------------------------------------------------------------------- sampling


def test_samples_follow_the_table():
    P, rng = np.roll(np.eye(4), 1, axis=1), np.random.default_rng(0)
    itos = dict(enumerate(".abc"))
    assert bigram.sample(P, rng, itos, 2) == ["abc"] * 2
    assert bigram.sample(P, rng, itos, 1, prefix="b", temperature=0.1) == ["bc"]
    assert bigram.sample(np.eye(4)[[1, 1, 1, 1]], rng, itos, 1, longest=7) == ["aaaaaaa"]
    assert bigram.sample(P, rng, itos, 0) == []


def test_pairs_of_samples_occur_with_the_probabilities_of_the_table():
    P = bigram.probabilities(bigram.count(WORDS, STOI), 0)
    words = bigram.sample(P, np.random.default_rng(0), ITOS, 50_000)
    drawn = bigram.probabilities(bigram.count([w for w in words if w], STOI), 0)
    often = bigram.count(words, STOI).sum(axis=1) > 10_000
    np.testing.assert_allclose(drawn[often], P[often], atol=0.02)


def test_trigram_samples_hold_only_runs_of_the_data():
    N = bigram.count(WORDS, STOI, 3)
    P = bigram.probabilities(N, 0)
    words = [w for w in bigram.sample(P, np.random.default_rng(0), ITOS, 1000) if w]
    assert not bigram.count(words, STOI, 3)[N == 0].any()


# ------------------------------------------------------------------------------------ command line


def losses_of(output):
    """The table of losses at the end -> {split: loss}."""
    rows = re.findall(r"^(train|dev|test) +([\d.]+|inf) +(?:[\d.]+|inf)$", output, re.M)
    return {name: float(loss) for name, loss in rows}


def test_the_story():
    result = invoke()
    assert result.exit_code == 0 and result.stderr == ""
    lines, output = result.stdout.splitlines(), result.stdout
    assert max(map(len, lines)) <= 80 and len(lines) <= 60
    assert lines[0] == "32,257 words, 27 characters, 229,804 runs of 2"
    assert "a     559   6,682     697" in output
    assert "loss of all words by their own counts, without smoothing: 2.4544" in lines
    assert re.search(r"^mean of -log: 2\.5219 nats", output, re.M)
    step = r"loss (\d\.\d{6}) by one-hot rows,\n(\d\.\d{6}) by their counts, .* (\S+) apart"
    by_rows, by_counts, apart = re.search(step, output).groups()
    assert by_rows == by_counts and float(apart) < 1e-12
    rows = re.findall(r"^ +([\d,]+) +(\d\.\d{4})  (\d\.\d{4})$", output, re.M)
    assert [row[0] for row in rows] == ["1", "4,000", "8,000", "12,000", "16,000", "20,000"]
    losses, apart = ([float(row[i]) for row in rows] for i in (1, 2))
    assert losses == sorted(losses, reverse=True) and apart == sorted(apart, reverse=True)
    assert apart[-1] <= 0.005
    net = re.search(r"loss (\S+) on train, (\S+) on dev, (\S+) on test$", output, re.M).groups()
    assert [*losses_of(output).values()] == pytest.approx([*map(float, net)], abs=1e-3)


def test_what_the_options_did_not_ask_for_is_not_printed():
    alone, trigrams = invoke("--model", "net", "--steps", 200).stdout, invoke("--order", 3).stdout
    assert len(alone.splitlines()) <= 45 and "most frequent" not in alone
    assert "step" not in trigrams and "most frequent" not in trigrams and len(losses_of(alone)) == 3


@pytest.mark.parametrize(
    "arguments, reason",
    [([], "It approaches 0"), (["--l2", 10], "The penalty, part"), (["--lr", 5000], "loss rose")],
)
def test_the_reason_given_is_true_of_the_run(arguments, reason):
    reasons = ("It approaches 0", "The penalty, part", "loss rose")
    output = invoke("--steps", 200, *arguments).stdout
    assert [each for each in reasons if each in output] == [reason]


def test_a_small_alphabet_converges_or_says_that_it_does_not(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\n".join(["a", "ab", "ba", "bb", "aab", "b", "abab", "bbba"]))
    diverging = invoke("--data", path, "--steps", 200).stdout
    assert "did not converge" in diverging and "all pairs, first down" in diverging
    output = invoke("--data", path, "--lr", 5).stdout
    assert "did not converge" not in output
    assert float(re.search(r"20,000 +\d\.\d{4}  (\d\.\d{4})", output)[1]) < 0.005


def test_certain_words_have_no_negative_zeros(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("a\n" * 6)
    output = invoke("--data", path, "--smoothing", 0, "--steps", 9).stdout
    assert "-0.0" not in output and losses_of(output)["train"] == 0


def test_what_train_never_had_costs_infinitely_much_without_smoothing(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\n".join("abcdefgh"))
    output = invoke("--data", path, "--smoothing", 0, "--steps", 9).stdout
    assert losses_of(output)["dev"] == math.inf


def test_four_grams_with_the_best_smoothing():
    output = invoke("--order", 4, "--smoothing", "auto", "--samples", 3).stdout
    assert losses_of(output)["dev"] <= 2.13
    grid = re.findall(r"^ +([\d.]+) +(\d\.\d{4})(  <)?$", output, re.M)
    assert len(grid) == 9 and sum(mark == "  <" for *_, mark in grid) == 1


def test_the_net_makes_up_words_too():
    output = invoke("--model", "net", "--prefix", "ma", "--samples", 4, "--steps", 9).stdout
    assert all(line.startswith("ma") for line in output.splitlines()[-4:])


def test_an_alphabet_of_more_than_256_characters(tmp_path):
    path, letters = tmp_path / "words.txt", "".join(chr(0x4E00 + i) for i in range(300))
    path.write_text("\n".join(letters[i : i + 5] for i in range(0, 300, 5)), encoding="utf-8")
    assert "301 characters" in invoke("--data", path, "--steps", 5).stdout


def test_errors_print_one_line(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("anna\n")
    for arguments, message in [
        (["--data", path], "at least 6 words are needed"),
        (["--order", 20], "--order 20 needs 27^20 counts: at most 33,554,432 fit"),
    ]:
        result = invoke(*arguments)
        assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith("Error: ") and message in result.stderr
