"""Facts about initialisation, BatchNorm and depth, and about batchnorm.py's command line."""

import ast
import copy
import itertools
import math
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import batchnorm
import mlp
from common import build_dataset, build_vocab, load_words, split_words

FEW = Path(__file__).with_name("words.txt")
SMALL = ["--data", FEW, "--hidden", "20", "--samples", "3"]
NETS = [
    dict(zip(("layers", "batchnorm", "residual", "activation"), values))
    for values in itertools.product((1, 3), (True, False), (True, False), ("tanh", "relu"))
]


def invoke(*arguments):
    return CliRunner().invoke(batchnorm.main, [str(argument) for argument in arguments])


def small_net(batch=6, dtype=np.float64, **options):
    rng = np.random.default_rng(0)
    net = batchnorm.new_net(rng, 7, 3, 4, 5, dtype=dtype, **options)
    for array in net:
        array += 0.1 * rng.standard_normal(array.shape).astype(dtype)
    return net, rng.integers(7, size=(batch, 3)), rng.integers(7, size=batch)


# ------------------------------------------------------------------------------------- mathematics


def test_what_stands_under_as_in_stage_3_is_the_text_of_mlp_py():
    section = Path(batchnorm.__file__).read_text(encoding="utf-8").split(" as in stage 3\n")[1]
    section = section.split("\n# ------")[0]
    stage_3 = Path(mlp.__file__).read_text(encoding="utf-8")
    functions = [part for part in section.split("\n\n\n") if part.startswith("def ")]
    assert len(functions) > 12 and all(part.strip() in stage_3 for part in functions)
    assert "def fit" in section and "def cross_entropy" in section and ast.parse(section)


@pytest.mark.parametrize("options", NETS, ids=str)
def test_forward_is_the_equations(options):
    net, X, Y = small_net(**options)
    C, W1, W, gain, bias, W_out, b_out = net
    act = np.tanh if options["activation"] == "tanh" else lambda z: np.maximum(z, 0)
    h = C[X].reshape(len(X), -1)
    for i, weights in enumerate([W1, *W]):
        z = h @ weights
        if options["batchnorm"]:
            z = gain[i] * (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5)
        out = act(z + bias[i])
        h = out + h if options["residual"] and i else out
    logits = h @ W_out + b_out
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    loss, gradients = batchnorm.loss_and_gradients(net, X, Y)
    assert loss == pytest.approx(-np.log(probs[range(6), Y]).mean(), rel=1e-12)
    assert isinstance(loss, float)
    assert [g.shape for g in gradients] == [array.shape for array in net]


def test_parameters_are_seven_arrays_with_gain_1_and_bias_0():
    net = batchnorm.new_net(np.random.default_rng(0), 7, 3, 4, 5, layers=3, residual=True)
    assert net._fields == ("C", "W1", "W", "gain", "bias", "W_out", "b_out")
    assert [array.shape for array in net] == [
        (7, 4), (12, 5), (2, 5, 5), (3, 5), (3, 5), (5, 7), (7,)
    ]  # fmt: skip
    assert {array.dtype for array in net} == {np.dtype(np.float32)}
    assert (net.gain == 1).all() and not net.bias.any()
    assert small_net(batchnorm=False)[0].gain.size == 0


def test_copies_keep_the_kind_of_net_and_train_by_themselves():
    net, X, Y = small_net(layers=2, residual=True, activation="relu")
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net._replace(C=net.C * 1)):
        assert (other.residual, other.activation) == (True, "relu")
    plain, before = batchnorm.folded(net, X), [*map(np.copy, net)]
    for _ in batchnorm.train(plain, X, Y, 50, 6, lambda done: 0.3, 0):
        pass
    assert batchnorm.evaluate(plain, X, Y) < batchnorm.evaluate(batchnorm.folded(net, X), X, Y)
    assert all(map(np.array_equal, net, before))
    assert not np.array_equal(plain.W1, batchnorm.folded(net, X).W1)


def test_a_batch_of_one_has_no_variance():
    net, X, Y = small_net(batch=1)
    with pytest.raises(ValueError, match="a single sample has no variance"):
        batchnorm.loss_and_gradients(net, X, Y)
    batchnorm.loss_and_gradients(*small_net(batch=1, batchnorm=False))


def test_a_nan_in_one_kind_of_net_is_not_forgotten(monkeypatch):
    whole = batchnorm.backward

    def half(net, *arguments):
        gradients, dh = whole(net, *arguments)
        if net.activation == "relu" or net.residual:
            return gradients, dh
        return gradients._replace(C=np.full_like(gradients.C, np.nan)), dh

    monkeypatch.setattr(batchnorm, "backward", half)
    result = invoke("--gradcheck")
    assert result.exit_code == 1 and "wrong gradients: C\n" in result.stderr
    assert re.search(r"^C +inf  WRONG +\d layers, tanh", result.stdout, re.M)


def test_gradients_that_are_all_zero_are_shown_as_such(capsys):
    batchnorm.report({"loss": (0.0, ""), "C": (0.0, "16 nets"), "W1": (1e-9, "16 nets")})
    _, loss, C, W1, _ = capsys.readouterr().out.splitlines()
    assert "all zero" in C and "all zero" not in loss + W1


# -------------------------------------------------------------------------------- initialisation


def first_batch(**options):
    """The outputs of the last layer of a new net."""
    words = load_words()[:300]
    X, _ = build_dataset(words, build_vocab(words)[0], 3)
    net = batchnorm.new_net(np.random.default_rng(0), 27, 3, 10, 200, **options)
    _, memory, _ = batchnorm.forward(net, X)
    return memory[-1][1]


def test_scaled_weights_do_not_saturate_tanh():
    share = {
        init: batchnorm.stuck(first_batch(batchnorm=False, init=init), "tanh").mean()
        for init in batchnorm.INITS
    }
    assert share["naive"] == share["small-logits"] > 0.5
    assert share["scaled"] < 0.15 and share["kaiming"] < 0.3 and share["zero"] == 0


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_kaiming_keeps_the_scale_through_ten_layers(activation):
    options = dict(layers=10, batchnorm=False, activation=activation)
    assert 0.2 < first_batch(init="kaiming", **options).std() < 2.0
    assert not 0.2 < first_batch(init="scaled", **options).std() < 0.75


@pytest.mark.parametrize("typo", [{"activation": "sigmoid"}, {"init": "kaimming"}])
def test_an_unknown_activation_or_init_is_refused(typo):
    with pytest.raises(ValueError, match="no such activation or init"):
        small_net(**typo)


# ------------------------------------------------------------------------- training and inference


@pytest.mark.parametrize("options", [n for n in NETS if n["batchnorm"]], ids=str)
def test_the_folded_net_gives_single_contexts_the_loss_of_one_large_batch(options):
    net, X, Y = small_net(batch=50, **options)
    loss, _ = batchnorm.loss_and_gradients(net, X, Y)
    plain = batchnorm.folded(net, X)
    assert plain.gain.size == 0
    for chunk in (1, 50):
        assert batchnorm.evaluate(plain, X, Y, chunk) == pytest.approx(loss, rel=1e-9)


def test_weight_decay_adds_the_gradient_of_a_penalty():
    net, X, Y = small_net(batchnorm=False)
    before, (_, gradients) = copy.deepcopy(net), batchnorm.loss_and_gradients(net, X[:1], Y[:1])
    steps = batchnorm.train(net, X[:1], Y[:1], 1, 2, lambda done: 0.5, 0, weight_decay=0.3)
    assert [step for step, _ in steps] == [1]
    for after, array, gradient in zip(net, before, gradients):
        np.testing.assert_allclose(after, array - 0.5 * (gradient + 0.3 * array), atol=1e-15)


# ----------------------------------------------------------------------------------- instruments


def test_saturation_and_dead_units():
    out = np.array([[0.98, -0.99, 0.5], [0.99, 0.1, -0.2]])
    expected = [[True, True, False], [True, False, False]]
    assert batchnorm.stuck(out, "tanh").tolist() == expected
    assert batchnorm.stuck(np.array([0.0, 0.1]), "relu").tolist() == [True, False]


def test_histogram_is_a_line_of_blocks_or_of_ascii(monkeypatch):
    class Screen:
        encoding = "UTF-8"

    monkeypatch.setattr("sys.stdout", Screen)
    assert batchnorm.histogram(np.array([0.1, 0.1, 0.9]), 0, 1, 2) == "█▄"
    assert batchnorm.histogram(np.array([]), 0, 1, 3) == "   "
    for encoding in ("cp1252", "ascii", None):
        Screen.encoding = encoding
        assert batchnorm.histogram(np.array([0.1, 0.1, 0.9]), 0, 1, 2) == "@="


def test_log_ratios_compare_the_real_update_with_the_data():
    net, X, Y = small_net(layers=2)
    ratios, before = {}, copy.deepcopy(net)
    training = batchnorm.train(net, X, Y, 100, 6, lambda done: 0.3, 0, weight_decay=0.1)
    for step, _ in batchnorm.measured(net, training, 100, ratios):
        updates = {"C": net.C - before.C, "W2": net.W[0] - before.W[0], "b_out": net[6] - before[6]}
        data = {"C": before.C, "W2": before.W[0], "b_out": before[6]}
        for name, update in updates.items():
            ratio = math.log10(update.std() / data[name].std())
            assert ratios[step][name] == pytest.approx(ratio)
        before = copy.deepcopy(net)
    assert [*ratios] == [*range(1, 101)] and [*ratios[1]] == ["C", "W1", "W2", "W_out", "b_out"]
    assert math.isnan(batchnorm.log_ratios(net, net)["C"])  # 0 / data
    zero = net._replace(W1=net.W1 * 0)
    assert math.isnan(batchnorm.log_ratios(zero, net)["W1"])  # update / 0


def test_about_a_hundred_ratios_are_measured_and_the_last_step_is_among_them():
    for steps in (1, 7, 1234):
        ratios, training = {}, ((step + 1, 0.0) for step in range(steps))
        assert len([*batchnorm.measured(small_net()[0], training, steps, ratios)]) == steps
        assert min(ratios) == 1 and max(ratios) == steps and len(ratios) <= 102


# ------------------------------------------------------------------------------------ command line


def test_a_run_prints_exactly_what_the_functions_compute(monkeypatch):
    options = "--steps 40 --batch-size 7 --lr 0.3 --weight-decay 0.02 --context 2 --embedding 3"
    options += " --hidden 9 --layers 2 --residual --activation relu --init scaled --no-batchnorm"
    options += " --seed 5 --samples 6 --prefix ma --temperature 0.5"
    readings = []
    monkeypatch.setattr(batchnorm, "show_reading", lambda *each: readings.append(each[1:]))
    pictures = []
    monkeypatch.setattr(batchnorm, "draw_run", lambda *each: pictures.append((each[0], [*each[1]])))
    result = invoke("--data", FEW, *options.split(), "--plot", "/run.png")

    words, rng = load_words(FEW), np.random.default_rng(5)
    stoi, itos = build_vocab(words)
    splits = [build_dataset(part, stoi, 2) for part in split_words(words, rng.spawn(1)[0])]
    net = batchnorm.new_net(rng, 27, 2, 3, 9, 2, False, True, "relu", "scaled")
    X, Y = splits[0]
    training = batchnorm.train(net, X, Y, 40, 7, lambda done: 0.3 * (1 - done), 5, 0, 0.02)
    ratios, losses = {}, []
    for _, loss in batchnorm.measured(net, training, 40, ratios):
        losses.append(loss)
    expected = [
        f"323 words (323 distinct), {len(X):,} training examples, 504 parameters",
        "27 characters: .abcdefghijklmnopqrstuvwxyz",
        "",
        "    step      loss, mean since the row above; uniform guess: ln 27 = 3.2958",
        f"{1:8} {losses[0]:9.4f}",
        f"{4:8} {np.mean(losses[1:4]):9.4f}",
        *(f"{i + 4:8} {np.mean(losses[i : i + 4]):9.4f}" for i in range(4, 40, 4)),
        "40 steps",
        "",
        f"log10(update/data){'step 1':>16}{'step 21':>16}{'step 40':>16}",
        *(
            f"{name:18}" + "".join(f"{ratios[step][name]:16.2f}" for step in (1, 21, 40))
            for name in ("C", "W1", "W2", "W_out")
        ),
        f"{'b_out':18}{'-':>16}" + "".join(f"{ratios[step]['b_out']:16.2f}" for step in (21, 40)),
        "Healthy: about -3, but sick nets can show it too. -: array or update is 0.",
        "",
        "split      loss  perplexity = exp(loss): as unsure as a guess among this many",
    ]
    for name, split in zip(("train", "dev", "test"), splits):
        loss = batchnorm.evaluate(net, *split)
        expected.append(f"{name:5} {loss:9.4f} {math.exp(loss):#11.4g}")
    longest = 2 * max(map(len, words))
    for _ in range(6):
        word = batchnorm.sample(net, rng, stoi, itos, 2, "ma", 0.5, longest)
        mark = " " if word in words else " new" if len(word) < longest else " cut"
        expected.append(f"{word:19}{mark}".rstrip())
    assert re.sub(r" in .*? s .*", "", result.stdout).splitlines() == expected
    assert pictures == [("/run.png", []), ("/run.png", losses)]  # the first, to fail early
    assert all(map(np.array_equal, readings[1][0], net)) and len(readings) == 2
    for reading in readings:
        assert np.array_equal(reading[1], X[:1024]) and np.array_equal(reading[2], Y[:1024])


def test_a_reading_shows_outputs_and_gradients_of_each_layer(capsys):
    net, X, Y = small_net(batch=40, layers=2, batchnorm=False)
    batchnorm.show_reading("before", net, X, Y)
    lines = capsys.readouterr().out.splitlines()
    h, memory, logits = batchnorm.forward(net, X)
    _, dh = batchnorm.backward(net, X, h, memory, batchnorm.cross_entropy(logits, Y)[1])
    for line, (_, out, *_), grad in zip(lines[3:], memory, dh[1:]):
        figures = f"{out.mean():8.3f}{out.std():8.3f}{(abs(out) > 0.97).mean():11.1%}"
        assert line[5:].startswith(f"{figures}{0:6}{grad.std():10.1e}")
    change = dh[1].std() / dh[2].std()
    words = f"grow {change:.3g}" if change > 1 else f"shrink {1 / change:.3g}"
    assert lines[-1] == f"From the last layer to the first, the gradients {words}-fold; best is 1."


def test_what_the_instruments_say_is_true_of_sick_nets():
    five = ["--layers", 5, "--hidden", 100, "--steps", 2, "--samples", 0]
    naive = invoke(*five, "--init", "naive", "--no-batchnorm").stdout
    assert re.search(r"the gradients grow (2\d|3\d)\.?\d*-fold", naive)
    assert re.search(r"^ +1 .* 68\.\d% ", naive, re.M)
    zero = invoke(*SMALL, "--init", "zero", "--steps", 3000).stdout
    assert zero.count("No gradient reaches the first layer: it learns nothing.") == 2
    rows = re.findall(r"^(C|W1|W_out|b_out) +(-|[-.\d]+) +(-|[-.\d]+) +(-|[-.\d]+)$", zero, re.M)
    assert [row[1:] for row in rows[:3]] == [("-",) * 3] * 3 and rows[3][2] != "-"
    letters = "".join(split_words(load_words(FEW), np.random.default_rng(42).spawn(1)[0])[0])
    counts = np.unique([*letters, *"." * 258], return_counts=True)[1]
    entropy = -(counts / counts.sum()) @ np.log(counts / counts.sum())
    loss = float(re.search(r"^train +([\d.]+)", zero, re.M)[1])
    assert entropy <= loss < entropy + 0.02  # b_out alone learns: how frequent each letter is
    options = "--layers 50 --init naive --no-batchnorm --activation relu"
    overflow = invoke(*options.split(), "--data", FEW)
    assert overflow.exit_code == 1 and "the outputs overflow: try another --init" in overflow.stderr


def test_the_default_net_fits_a_screen_and_starts_at_a_uniform_guess():
    result = invoke("--steps", 800)
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and result.stderr == "" and len(lines) <= 60
    assert max(map(len, lines)) <= 80
    first, *_, last = re.findall(r"^ +[\d,]+ +(\d\.\d{4})$", result.stdout, re.M)
    assert float(first) == pytest.approx(math.log(27), abs=0.05) and float(last) < 2.6
    assert float(re.search(r"^dev +([\d.]+)", result.stdout, re.M)[1]) < 2.5
    relu = invoke(*SMALL, "--steps", 10, "--layers", 3, "--activation", "relu").stdout
    assert re.search(
        r"^layer    mean     std       zero  dead  gradient  outputs, 0 to ", relu, re.M
    )
