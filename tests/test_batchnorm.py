"""Facts about initialisation, BatchNorm and depth, and about batchnorm.py's command line."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import batchnorm
from common import build_dataset, build_vocab, load_words

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
    net = batchnorm.Net(rng, 7, 3, 4, 5, dtype=dtype, **options)
    net.theta += 0.1 * rng.standard_normal(net.theta.size).astype(dtype)
    return net, rng.integers(7, size=(batch, 3)), rng.integers(7, size=batch)


def trained(net, X, Y, steps, batch_size, lr, **options):
    """Train with a constant rate."""
    return [*batchnorm.train(net, X, Y, steps, batch_size, lr, lambda done: 1.0, 0, **options)]


# ------------------------------------------------------------------------------------- mathematics


@pytest.mark.parametrize("net", NETS, ids=str)
def test_forward_is_the_equations(net):
    net_options, (net, X, Y) = net, small_net(**net)
    C, W1, W, gain, bias, W_out, b_out = net.params
    act = np.tanh if net_options["activation"] == "tanh" else lambda z: np.maximum(z, 0)
    h = C[X].reshape(len(X), -1)
    for i, weights in enumerate([W1, *W]):
        z = h @ weights
        if net_options["batchnorm"]:
            z = gain[i] * (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5)
        out = act(z + bias[i])
        h = out + h if net_options["residual"] and i else out
    logits = h @ W_out + b_out
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    loss = batchnorm.loss_and_gradients(net, X, Y)
    assert loss == pytest.approx(-np.log(probs[range(6), Y]).mean(), rel=1e-12)
    assert isinstance(loss, float)


def test_parameters_are_seven_arrays_with_gain_1_and_bias_0():
    net = batchnorm.Net(np.random.default_rng(0), 7, 3, 4, 5, layers=3)
    assert net.params._fields == ("C", "W1", "W", "gain", "bias", "W_out", "b_out")
    assert [array.shape for array in net.params] == [
        (7, 4), (12, 5), (2, 5, 5), (3, 5), (3, 5), (5, 7), (7,)
    ]  # fmt: skip
    assert (net.params.gain == 1).all() and not net.params.bias.any()
    assert net.running.shape == (3, 2, 5)
    plain, _, _ = small_net(batchnorm=False)
    assert plain.params.gain.size == plain.running.size == 0


def test_a_batch_of_one_has_no_variance():
    net, X, Y = small_net(batch=1)
    with pytest.raises(ValueError, match="a single sample has no variance"):
        batchnorm.loss_and_gradients(net, X, Y)
    batchnorm.loss_and_gradients(*small_net(batch=1, batchnorm=False))


# -------------------------------------------------------------------------------- initialisation


def first_batch(**options):
    """The outputs of the last layer of a new net."""
    words = load_words()[:300]
    stoi, _ = build_vocab(words)
    X, _ = build_dataset(words, stoi, 3)
    net = batchnorm.Net(np.random.default_rng(0), 27, 3, 10, 200, **options)
    _, memory, _ = batchnorm.forward(net, X)
    return memory[-1][1]


def test_scaled_weights_do_not_saturate_tanh():
    share = {
        init: batchnorm.stuck(first_batch(batchnorm=False, init=init), "tanh").mean()
        for init in batchnorm.INITS
    }
    assert share["naive"] == share["small-logits"] > 0.5
    assert share["scaled"] < 0.15 and share["kaiming"] < 0.3


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_kaiming_keeps_the_scale_through_ten_layers(activation):
    options = dict(layers=10, batchnorm=False, activation=activation)
    assert 0.2 < first_batch(init="kaiming", **options).std() < 2.0
    assert not 0.2 < first_batch(init="scaled", **options).std() < 0.75


# ------------------------------------------------------------------------------------- inference


@pytest.mark.parametrize("net", [n for n in NETS if n["batchnorm"]], ids=str)
def test_the_folded_net_gives_single_contexts_the_loss_of_one_large_batch(net):
    net, X, Y = small_net(batch=50, **net)
    before, expected = net.theta.copy(), np.zeros_like(net.running)
    loss = batchnorm.loss_and_gradients(net, X, Y, statistics=expected)
    np.testing.assert_array_equal(batchnorm.calibrated(net, X), expected)
    plain = batchnorm.folded(net, expected)
    for chunk in (1, 50):
        assert batchnorm.evaluate(plain, X, Y, chunk) == pytest.approx(loss, rel=1e-9)
    assert np.array_equal(net.theta, before) and net.params.gain.size


def test_running_averages_follow_the_batches_with_variance_over_n_minus_1():
    net, X, Y = small_net(dtype=np.float32)
    trained(net, X, Y, 1, 4, 1e-9)
    batch = np.random.default_rng([0, 1]).integers(len(X), size=(1000, 4))[0]
    pre = net.params.C[X[batch]].reshape(4, -1) @ net.params.W1
    mean, variance = net.running[0]
    np.testing.assert_allclose(mean, 0.001 * pre.mean(axis=0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(variance, 0.999 + 0.001 * pre.var(axis=0, ddof=1), rtol=1e-5)


def test_running_and_calibrated_statistics_agree_after_training(tmp_path):
    arguments = ["--steps", 2000, *SMALL, "--checkpoint", tmp_path / "m.npz"]
    calibrated, running = (
        table(invoke(*arguments, "--bn-stats", statistics).stdout)
        for statistics in ("calibrated", "running")
    )
    assert calibrated != running and calibrated == pytest.approx(running, abs=0.01)


def test_weight_decay_adds_the_gradient_of_a_penalty_and_dtheta_holds_the_update():
    net, X, Y = small_net(batchnorm=False)
    theta, _ = net.theta.copy(), batchnorm.loss_and_gradients(net, X[:1], Y[:1])
    expected = theta - 0.5 * (net.dtheta + 0.3 * theta)
    trained(net, X[:1], Y[:1], 1, 2, 0.5, weight_decay=0.3)
    np.testing.assert_allclose(net.theta, expected, atol=1e-15)
    np.testing.assert_allclose(net.dtheta, theta - expected, atol=1e-15)


# ----------------------------------------------------------------------------------- instruments


def test_saturation_and_dead_units():
    active = np.array([[0.98, -0.99, 0.5], [0.99, 0.1, -0.2]])
    expected = [[True, True, False], [True, False, False]]
    assert batchnorm.stuck(active, "tanh").tolist() == expected
    assert batchnorm.stuck(np.array([0.0, 0.1]), "relu").tolist() == [True, False]


def test_histogram_is_a_line_of_blocks():
    assert batchnorm.histogram(np.array([0.1, 0.1, 0.9]), 0, 1, 2) == "█▄"
    assert batchnorm.histogram(np.array([]), 0, 1, 3) == "   "
    assert batchnorm.histogram(np.array([np.nan]), 0, np.nan) == ""


def test_instruments_read_the_gradients_of_the_outputs():
    net, X, Y = small_net(layers=2, batchnorm=False)
    outputs, gradients = batchnorm.inspect(net, X, Y)
    for i, (active, gradient) in enumerate(zip(outputs, gradients)):
        dz = gradient * (1 - active**2)
        np.testing.assert_allclose(dz.sum(axis=0), net.grads.bias[i], atol=1e-12)


def test_log_ratios_compare_updates_with_data():
    net, _, _ = small_net(layers=2)
    net.dtheta[:] = net.theta / 1000
    ratios = batchnorm.log_ratios(net)
    assert list(ratios) == ["C", "W1", "W2", "W_out"]
    assert list(ratios.values()) == pytest.approx([-3] * 4)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_reading_survives_a_net_that_overflows(activation):
    with np.errstate(all="ignore"):
        net, X, Y = small_net(layers=3, batchnorm=False, activation=activation, dtype=np.float32)
        net.theta *= 1e30
        batchnorm.show_reading("before", net, X, Y, 0.1)


# ------------------------------------------------------------------------------------ command line


def table(output):
    rows = re.findall(r"^(train|dev|test) +([\d.]+) +[\d.]+$", output, re.M)
    return {name: float(loss) for name, loss in rows}


def test_a_run_shows_instruments_losses_and_samples():
    result = invoke("--steps", 800, "--layers", 2, "--samples", 4)
    assert result.exit_code == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("32,257 words, 27 characters, 183,935 training examples, 52,497")
    for title in ("before", "after"):
        assert f"{title}: outputs for 1,024 examples" in lines
    assert len(re.findall(r"^ +[12] .*[▁▂▃▄▅▆▇█]{5}", result.stdout, re.M)) == 8
    assert "log10(update/data) of W, healthy: about -3" in result.stdout
    first, *_, last = re.findall(r"^ +[\d,]+ +(\d\.\d{4})$", result.stdout, re.M)
    assert float(first) == pytest.approx(math.log(27), abs=0.1) and float(last) < 2.7
    assert 2.0 < table(result.stdout)["dev"] < 2.6


def test_no_run_prints_more_than_60_lines_for_up_to_three_layers():
    assert len(invoke("--steps", 10).stdout.splitlines()) <= 60
    relu = invoke(*SMALL, "--steps", 10, "--layers", 3, "--activation", "relu").stdout
    assert re.search(r"^layer    mean     std       zero  dead units  0 to [\d.]+, ", relu, re.M)


def test_compare_shows_a_row_for_each_repair():
    result = invoke("--compare", "--steps", 800, "--data", FEW)
    assert result.exit_code == 0
    rows = re.findall(r"^(\w[\w ]+?) +([\d.]+) +([\d.]+) +([\d.]+)$", result.stdout, re.M)
    assert [row[0] for row in rows] == [name for name, *_ in batchnorm.REPAIRS]
    first = [float(row[1]) for row in rows]
    assert first[0] > 15 and all(abs(loss - math.log(27)) < 0.1 for loss in first[1:])
    dev = [float(row[3]) for row in rows]
    assert all(dev[0] > each for each in dev[1:])
    assert "first loss: a uniform guess costs ln 27 = 3.2958" in result.stdout
    best = rows[dev.index(min(dev))][0]
    assert f"lowest on dev: {best}." in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    "arguments",
    [["--batch-size", "2"], ["--batch-size", "1", "--no-batchnorm"], ["--init", "naive"],
     ["--context", "1"], ["--context", "14"]],
    ids=" ".join,
)  # fmt: skip
def test_options_run(arguments):
    assert invoke("--steps", 20, *SMALL, *arguments).exit_code == 0


def test_a_diverging_loss_stops_the_run():
    arguments = ["--steps", 500, "--hidden", 20, "--activation", "relu", "--lr", 1e5]
    for mode, message in [
        ("--no-batchnorm", r"Error: the loss diverged at step \d+: try a lower .*\n"),
        ("--compare", r"Error: original: the loss diverged: try a lower .*\n"),
    ]:
        result = invoke(*arguments, mode)
        assert result.exit_code == 1 and re.fullmatch(message, result.stderr)


def test_a_checkpoint_needs_no_other_option_to_resume_or_to_sample(tmp_path):
    path = tmp_path / "m.npz"
    options = ["--layers", 2, "--residual", "--activation", "relu", "--weight-decay", 0.01]
    arguments = ["--steps", 300, *SMALL, *options, "--checkpoint", path]
    trained = invoke(*arguments).stdout.splitlines()
    before = path.read_bytes()
    again = invoke("--data", FEW, "--checkpoint", path, "--samples", 3).stdout.splitlines()
    assert again[0] == f"{path}: 300 of 300 steps done" and again[2:] == trained[-17:]
    assert path.read_bytes() == before


@pytest.mark.parametrize("typo", [{"activation": "sigmoid"}, {"init": "kaimming"}])
def test_an_unknown_activation_or_init_is_refused(typo):
    with pytest.raises(ValueError, match="no such activation or init"):
        small_net(**typo)
