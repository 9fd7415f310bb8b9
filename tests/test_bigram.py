"""Facts about counting, the network that learns the same, and bigram.py's command line."""

import math
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import bigram
from common import build_dataset, build_vocab, load_words, split_words

SCRIPT = Path(bigram.__file__)
WORDS = load_words()
STOI, ITOS = build_vocab(WORDS)
FEW = Path(__file__).with_name("words.txt")


def invoke(*arguments):
    """Run bigram.py's command within this process, which is faster."""
    return CliRunner().invoke(bigram.main, [str(argument) for argument in arguments])


def write(path, words):
    path.write_text("\n".join(words), encoding="utf-8")
    return path


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
    assert all(N[run] == number for run, number in counter.items())


def test_runs_of_one_character_are_refused():
    with pytest.raises(ValueError, match="at least 2 characters, not 1"):
        bigram.count(WORDS, STOI, 1)


@pytest.mark.parametrize("smoothing, loss", [(0, 2.45440), (1, 2.45495)])
def test_mean_loss_of_names_txt(smoothing, loss):
    N = bigram.count(WORDS, STOI)
    assert round(bigram.mean_loss(N, bigram.probabilities(N, smoothing)), 5) == loss


def test_rows_of_probabilities_sum_to_1_whatever_the_columns_sum_to():
    P = bigram.probabilities(np.array([[0, 0], [3, 1]]), 0)
    assert P.tolist() == [[0.5, 0.5], [0.75, 0.25]]  # a context never seen: uniform
    P = bigram.probabilities(np.array([[0, 2], [3, 1]]), 1)
    np.testing.assert_allclose(P, [[1 / 4, 3 / 4], [4 / 6, 2 / 6]])
    N = np.random.default_rng(0).integers(4, size=(5, 5, 5))
    np.testing.assert_allclose(bigram.probabilities(N, 0.3).sum(axis=-1), 1)


def test_a_run_of_probability_0_costs_infinitely_much_and_certainty_nothing():
    N = np.array([[0, 2], [1, 0]])
    assert bigram.mean_loss(N, np.array([[1.0, 0.0], [1.0, 0.0]])) == math.inf
    assert str(bigram.mean_loss(N, np.array([[0.0, 1.0], [1.0, 0.0]]))) == "0.0"


# ---------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize(
    "row, loss, dtype",
    [
        ([746, 0, 0], 746, float),
        ([0, 104, 0], 0, np.float32),
        ([104, 0, 0], 104, np.float32),
        ([1e4, 0, -1e4], 1e4, float),
        ([2, 1, -math.inf], math.log(1 + math.e), float),
    ],
)
def test_logits_far_apart_neither_overflow_nor_vanish(row, loss, dtype):
    W, N = np.zeros((3, 3), dtype), np.zeros((3, 3), int)
    W[0], N[0, 1] = row, 1
    by_counts = bigram.loss_and_gradients_of_counts(W, N)
    for found, dW in (bigram.loss_and_gradients(W, [0], [1]), by_counts):
        assert isinstance(found, float) and found == pytest.approx(loss, rel=1e-6)
        assert np.isfinite(dW).all() and dW.sum() == pytest.approx(0, abs=1e-6)


def test_training_steps_against_the_gradient():
    rng = np.random.default_rng(0)
    W, N = rng.standard_normal((4, 4)), rng.integers(5, size=(4, 4))
    for l2 in ([], [0.5]):
        start = W.copy()
        loss, dW = bigram.loss_and_gradients_of_counts(start, N, *l2)
        assert [*bigram.train(W, N, 1, 0.3, *l2)] == [(1, loss)]
        assert np.array_equal(W, start - 0.3 * dW)


def test_the_checks_hold_for_every_seed():
    for seed in range(5):
        assert max(bigram.check_learning(np.random.default_rng(seed)).values()) < 1e-6


# ---------------------------------------------------------------------------------------- sampling


def test_samples_follow_the_table():
    P, rng = np.roll(np.eye(4), 1, axis=1), np.random.default_rng(0)
    stoi, itos = build_vocab(["abc"])
    assert bigram.sample(P, rng, stoi, itos) == "abc"
    assert bigram.sample(P, rng, stoi, itos, "b", temperature=0.1) == "bc"
    assert bigram.sample(np.eye(4)[[1, 1, 1, 1]], rng, stoi, itos, longest=7) == "a" * 7
    with pytest.raises(KeyError):
        bigram.sample(P, rng, stoi, itos, "x")


def test_temperature_is_a_power_of_the_probabilities():
    P = np.array([[0.8, 0.2], [1.0, 0.0]])
    for temperature, share in ((1, 0.2), (2, 1 / 3), (0.5, 1 / 17)):
        rng = np.random.default_rng(0)
        words = [bigram.sample(P, rng, {}, {1: "a"}, "", temperature) for _ in range(1000)]
        assert words.count("a") / 1000 == pytest.approx(share, abs=0.04)


def test_pairs_and_triples_of_samples_have_the_probabilities_of_the_table():
    for order, number, places in ((2, 2000, 0.06), (3, 200, 1)):
        P = bigram.probabilities(bigram.count(WORDS, STOI, order), 0)
        rng = np.random.default_rng(0)
        words = [bigram.sample(P, rng, STOI, ITOS) for _ in range(number)]
        N = bigram.count([word for word in words if word], STOI, order)
        drawn, often = bigram.probabilities(N, 0), N.sum(axis=-1) > 1000
        assert not N[P == 0].any() and (np.abs(drawn - P)[often] < places).all()


# ------------------------------------------------------------------------------------ command line


def losses_of(output):
    """The table of losses at the end -> {split: loss}."""
    rows = re.findall(r"^(train|dev|test) +([\d.]+|inf) +(?:[\d.]+|inf)$", output, re.M)
    return {name: float(loss) for name, loss in rows}


def test_the_story():
    result = invoke()
    assert result.exit_code == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) <= 60
    assert lines[:2] == [
        "32,257 words (29,693 distinct), 229,804 runs of 2",
        "27 characters: .abcdefghijklmnopqrstuvwxyz",
    ]
    for line in (
        "a     559   6,682     697   5,471   1,662   2,544",
        "loss of all words by their own counts: 2.4544; uniform guess: ln 27 = 3.2958",
        "     0.0469   3.06  .e",
        "   3.34e-06  likelihood of the word: the product of its probabilities",
        "   -12.6095  log likelihood: the sum of their logs",
        "     2.5219  mean of -log, in nats: the loss of this word",
        "       1    3.6189    0.7282",
        "  20,000    2.4541    0.0008",
        "The tables agree within 0.0008: the gradient vanishes only there.",
        "the net, trained on train: loss 2.4541 on train, 2.4563 on dev, 2.4593 on test",
        "dev      2.4561       11.66",
    ):
        assert line in lines
    untrained = "100 words, untrained: loss 3.587953 by rows, 3.587953 by counts, dW within "
    assert any(line.startswith(untrained) and float(line[-5:]) < 1e-12 for line in lines)


def word_table(word, P, stoi, by):
    """What main prints about a word, computed character by character."""
    padded, logs, likelihood = "." * (P.ndim - 1) + word + ".", [], 1.0
    rows = [f"probability   -log  {word}, by {by}"]
    for i in range(len(word) + 1):
        run = padded[i : i + P.ndim]
        p = P[tuple(stoi[character] for character in run)]
        likelihood, logs = likelihood * p, [*logs, math.log(p)]
        rows.append(f"{p:11.4f} {-math.log(p):6.2f}  {run}")
    rows.append(f"{likelihood:11.4g}  likelihood of the word: the product of its probabilities")
    rows.append(f"{sum(logs):11.4f}  log likelihood: the sum of their logs")
    return [*rows, f"{-sum(logs) / len(logs):11.4f}  mean of -log, in nats: the loss of this word"]


@pytest.mark.parametrize("model, order", [("counts", 2), ("counts", 3), ("net", 2)])
def test_every_figure_of_a_run_with_other_options_is_that_of_the_functions(tmp_path, model, order):
    path = write(tmp_path / "words.txt", FEW.read_text(encoding="utf-8").split()[5:])
    options = {"data": path, "order": order, "seed": 7, "word": "anbo", "samples": 3}
    options |= {"prefix": "be", "temperature": 0.5, "model": model}
    options |= {"smoothing": 0.3} if model == "counts" else {}
    options |= {"steps": 30, "lr": 20, "l2": 0.2} if order == 2 else {}
    result = invoke(*(part for name, value in options.items() for part in (f"--{name}", value)))
    assert result.exit_code == 0

    words, rng = load_words(path), np.random.default_rng(7)
    stoi, itos = build_vocab(words)
    parts = split_words(words, rng.spawn(1)[0])
    splits = [bigram.count(part, stoi, order) for part in parts]
    N, V = sum(splits), len(stoi)
    P, by = bigram.probabilities(splits[0], 0.3), "the counts of train, smoothing 0.3"
    expected = [f"{len(words)} words ({len(set(words))} distinct), {N.sum():,} runs of {order}"]
    expected.append(f"{V} characters: {''.join(stoi)}")
    if model == "counts":
        loss = f"{bigram.mean_loss(N, bigram.probabilities(N, 0)):.4f}"
        guess = f"uniform guess: ln {V} = {math.log(V):.4f}"
        expected.append(f"loss of all words by their own counts: {loss}; {guess}")
    if order == 2:
        W = rng.standard_normal((V, V))
        loss, _ = bigram.loss_and_gradients(W, *build_dataset(parts[0][:100], stoi, 1), 0.2)
        untrained = f"100 words, untrained: loss {loss:.6f} by rows, {loss:.6f} by counts, "
        expected.append(re.search(untrained + r"dW within \de-\d\d", result.stdout)[0])
        for step, loss in bigram.train(W, splits[0], 30, 20, 0.2):
            apart = np.abs(bigram.softmax(W) - bigram.probabilities(splits[0], 0))
            if step == 1 or step % 6 == 0:
                expected.append(f"{step:8} {loss:9.4f} {apart[splits[0].any(axis=1)].max():9.4f}")
        learnt = bigram.softmax(W)
    if model == "net":
        P, by = learnt, "the net, trained on train"
    elif order == 2:
        losses = [f"{bigram.mean_loss(part, learnt):.4f}" for part in splits]
        net = "the net, trained on train: loss {} on train, {} on dev, {} on test"
        expected.append(net.format(*losses))
    table = [f"{by}:"]
    table.append("split      loss  perplexity = exp(loss): as unsure as a guess among this many")
    for name, part in zip(("train", "dev", "test"), splits):
        loss = bigram.mean_loss(part, P)
        table.append(f"{name:5} {loss:9.4f} {math.exp(loss):#11.4g}")
    for _ in range(3):
        made = bigram.sample(P, rng, stoi, itos, "be", 0.5, 2 * max(map(len, words)))
        table.append(made if made in words else f"{made:19} new")
    assert result.stdout.endswith("\n".join(["", *table, ""]))
    assert "\n".join(word_table("anbo", P, stoi, by)) in result.stdout
    for line in expected:
        assert line in result.stdout.splitlines()


def test_smoothing_auto_takes_the_lowest_loss_on_dev():
    output = invoke("--order", 3, "--smoothing", "auto", "--samples", 3).stdout
    parts = split_words(WORDS, np.random.default_rng(42).spawn(1)[0])
    train, dev = (bigram.count(part, STOI, 3) for part in parts[:2])
    rows = []
    for smoothing in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10):
        P = bigram.probabilities(train, smoothing)
        rows.append((bigram.mean_loss(dev, P), bigram.mean_loss(train, P), smoothing))
    for row in rows:
        mark = "  lowest on dev" if row == min(rows) else ""
        assert f"\n{row[2]:9g} {row[1]:9.4f} {row[0]:9.4f}{mark}\n" in output
    assert losses_of(output)["dev"] == round(min(rows)[0], 4) == 2.2168
    assert f"\nthe counts of train, smoothing {min(rows)[2]:g}:\n" in output


def test_what_the_options_did_not_ask_for_is_not_printed():
    for options, absent in (("--model net --steps 9", "counts of train"), ("--order 3", "step")):
        output = invoke(*options.split()).stdout
        assert "most frequent" not in output and absent not in output


def test_a_net_that_knows_less_than_a_uniform_guess_is_told():
    worse = "Worse than a uniform guess: train longer, or with a lower --lr.\n"
    for steps, model, remark in ((0, "net", worse), (50, "net", ""), (0, "counts", "")):
        errors = invoke("--model", model, "--steps", steps, "--samples", 0).stderr
        assert errors == "The tables still differ: more --steps bring them closer.\n" + remark


def test_the_first_samples_do_not_depend_on_their_number():
    few, more = (invoke("--order", 3, "--samples", n).stdout.splitlines() for n in (3, 5))
    assert few == more[:-2]


def test_the_penalty_of_the_lecture():
    assert "\n     200    2.4831 " in invoke("--l2", 0.01, "--steps", 200).stdout  # 2.483 there


AA = ["aa"] * 20
NINE = ["a" * 9, "a" * 8, "a" * 7] * 10


@pytest.mark.parametrize(
    "words, options, verdict",
    [
        (AA, "--lr 7 --seed 1 --steps 3000", "The tables stay apart"),
        (AA, "--lr 5 --seed 1 --steps 9000", "The tables agree within 0.0000"),
        (NINE, "--lr 10 --seed 2 --steps 3000", "The tables agree within 0.0001"),
        (WORDS, "--steps 0", "The tables still differ"),
        (WORDS, "--steps 200", "The tables still differ"),
        (WORDS, "--steps 50 --lr 1e-6", "The tables still differ"),
        (WORDS, "--steps 200 --lr 5000", "The tables stay apart"),
        (WORDS, "--steps 200 --l2 10", "The penalty, part of the loss, keeps them apart"),
        (WORDS, "--steps 200 --l2 1 --lr 1e6", "Error: the loss diverged at step 46"),
    ],
)
def test_the_end_of_a_training_is_told_truly(tmp_path, words, options, verdict):
    result = invoke("--data", write(tmp_path / "words.txt", words), *options.split())
    assert result.exit_code == ("Error" in verdict) and f"\n{verdict}" in "\n" + result.output


@pytest.mark.parametrize(
    "line, mistake, wrong",
    [
        ("P.sum(axis=-1, keepdims=True)", "P.sum(axis=-1)", "probabilities"),
        ("P = N + smoothing", "P = N", "probabilities"),
        ("np.add.at(N, (*X.T, Y), 1)", "N[*X.T, Y] += 1", "count"),
        ("np.log(1 / P[seen])", "np.log(2 / P[seen])", "mean_loss"),
        ("1 / N.shape[-1]", "0", "probabilities"),
        ("return np.exp(log_softmax(logits))", "return np.exp(logits)", "softmax"),
        ("-log_probs[targets == 1].sum() / n", "-log_probs[targets == 1].sum()", None),
        ("(np.exp(log_probs) - targets)", "(np.exp(log_probs))", "dW of rows"),
        ("loss = -(N[seen]", "loss = 1 - (N[seen]", "loss of counts"),
        ("- N) / n  # (V, V)\n    if l2:", "- N) / n  # (V, V)\n    if 0:", "loss of counts, l2"),
        ("W -= lr * dW", "W += lr * dW", "train"),
        ("logits - logits.max(axis=1, keepdims=True)", "logits", "huge logits"),
        ("[tokens]", "[::-1][tokens]", "dW of rows"),
    ],
)
def test_a_mistake_is_told(tmp_path, line, mistake, wrong):
    source = SCRIPT.read_text(encoding="utf-8")
    assert source.count(line) == 1
    namespace = {"__name__": "wrong", "__file__": str(SCRIPT)}
    exec(source.replace(line, mistake), namespace)
    for options in (["--gradcheck"], ["--steps", "20"]):
        result = CliRunner().invoke(namespace["main"], options)
        assert result.exit_code == 1
        if wrong:
            assert "Error: wrong gradients: " in result.stderr
            assert re.search(f"^{wrong} .* WRONG$", result.stdout, re.M)


def test_gradcheck_gives_a_row_for_each_check_and_a_verdict():
    result = invoke("--gradcheck")
    *rows, verdict = result.stdout.splitlines()[1:]
    assert result.exit_code == 0 and len(rows) == 14 and all(row.endswith("  ok") for row in rows)
    assert verdict == "every gradient agrees with central differences within 1e-6"
    assert invoke("--gradcheck", "--seed", 1).stdout != result.stdout


def test_plot_draws_the_counts_of_pairs_and_tells_of_missing_characters(tmp_path):
    pytest.importorskip("matplotlib")
    words = write(tmp_path / "words.txt", ["$^さくら", "ゆき", "はな", "j", "q", "y"])
    picture = tmp_path / "counts.png"
    latin = write(tmp_path / "latin.txt", ["gj", "$^q", "y", "j", "q", "y"])
    for data, told in ((words, "The font lacks some characters"), (latin, "")):
        result = invoke("--data", data, "--plot", picture, "--order", 3, "--samples", 0)
        assert result.exit_code == 0 and picture.read_bytes().startswith(b"\x89PNG")
        assert (told in result.stderr) and bool(told) == ("font" in result.stderr)


def test_output_stays_bounded_whatever_the_words(tmp_path):
    path = write(tmp_path / "words.txt", ["ab" * 10_000] * 6)
    result = invoke("--data", path, "--steps", 9, "--samples", 0)
    assert len(result.stdout) < 3000 and "... 19,989 more" in result.stdout
    assert "inf" not in result.stdout


def test_an_alphabet_of_thousands_gets_fewer_steps_or_an_error_that_names_it(tmp_path, monkeypatch):
    asked, words = [], ["".join(chr(0x4E00 + i + j) for j in range(5)) for i in range(0, 5900, 5)]
    monkeypatch.setattr(bigram, "fit", lambda W, N, steps, lr, l2: asked.append(steps) or [1.0])
    path = write(tmp_path / "words.txt", words[:80])
    result = invoke("--data", path, "--samples", 1)
    assert result.stderr.startswith("1,554 steps, not 20,000: 401 characters are slow.\n")
    assert "slow" not in invoke("--data", path, "--samples", 1, "--steps", 5).stderr
    invoke("--samples", 1)
    assert asked == [1554, 5, 20_000]
    result = invoke("--data", write(path, words))
    assert result.stderr == "Error: 5,901 characters need 5,901^2 counts: at most 33,554,432 fit\n"


def test_words_with_spaces_and_accents(tmp_path):
    words = ["san jose", "san juan", "el paso", "del mar", "zoe\u0308", "los angeles"]
    path = write(tmp_path / "words.txt", words * 4)
    options = "--data", path, "--order", 4, "--smoothing", 0
    output = invoke(*options, "--prefix", "zoe\u0308", "--word", "zoe\u0308").stdout
    assert output.endswith("\nzo\u00eb" * 20 + "\n") and "  zo\u00eb, by" in output
    made = invoke(*options, "--prefix", "san ", "--temperature", 2).stdout.splitlines()[-20:]
    assert all(line.startswith("san j") for line in made)
    made = invoke(*options, "--prefix", " j").stdout.splitlines()[-20:]
    assert all(line[0] == "j" and line.endswith(" new") for line in made)


def test_samples_that_are_empty_or_cut_are_marked(tmp_path):
    path = write(tmp_path / "words.txt", ["a" * 40] * 6)
    output = invoke("--data", path, "--steps", 9, "--temperature", 0.01).stdout
    assert output.endswith(f"\n{'a' * 80} cut" * 20 + "\n")
    output = invoke("--data", path, "--steps", 9, "--smoothing", 1e6).stdout
    assert "\n(empty)             new\n" in output


def test_certain_words_have_no_negative_zeros(tmp_path):
    path = write(tmp_path / "words.txt", "a" * 6)
    output = invoke("--data", path, "--smoothing", 0, "--steps", 9, "--lr", 1e6).stdout
    assert "-0.0" not in output and losses_of(output)["train"] == 0


def test_a_pair_that_train_never_had_costs_infinitely_much_without_smoothing():
    result = invoke("--word", "andrejq", "--smoothing", 0, "--steps", 9)
    assert "\n     0.0000    inf  jq\n" in result.stdout
    assert "\n       -inf  log likelihood" in result.stdout
    assert losses_of(result.stdout)["dev"] == math.inf and "dev is far above" in result.stderr


@pytest.mark.parametrize(
    "options, code, message",
    [
        ("--order 20", 1, "--order 20 needs 27^20 counts: at most 33,554,432 fit"),
        ("--model net --order 3", 2, "--model net needs --order 2"),
        ("--steps 9 --order 3", 2, "--steps needs --order 2"),
        ("--lr 9 --order 3", 2, "--lr needs --order 2"),
        ("--l2 0 --order 3", 2, "--l2 needs --order 2"),
        ("--model net --smoothing 1", 2, "--model net takes no --smoothing"),
        ("--prefix é", 2, "Invalid value for --prefix: no word contains 'é'"),
        ("--word a.b", 2, "Invalid value for --word: no word contains '.'"),
        ("--plot x.jpg", 2, "Invalid value for --plot: not a .png, .svg or .pdf file"),
    ],
)
def test_errors_name_what_was_given(options, code, message):
    result = invoke(*options.split())
    assert result.exit_code == code and result.stderr.splitlines()[-1] == f"Error: {message}"


def test_too_few_words_and_too_little_memory_print_one_line(tmp_path):
    path = write(tmp_path / "words.txt", ["anna"])
    assert invoke("--data", path).stderr.startswith("Error: at least 6 words are needed")
    pytest.importorskip("resource")
    code = "import resource as r, sys; r.setrlimit(r.RLIMIT_AS, (2**29, 2**29)); import runpy; "
    code += f"sys.argv[1:] = ['--order', '5']; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    env = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert found.returncode == 1 and re.fullmatch("Error: .+\n", found.stderr)
