"""Facts about initialisation, BatchNorm and depth, and about batchnorm.py's command line."""

import itertools
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import batchnorm
from common import build_dataset, build_vocab, load_words

SCRIPT = Path(batchnorm.__file__)
SMALL = ["--hidden", "20", "--samples", "3"]
NETS = [
    dict(zip(("layers", "batchnorm", "residual", "activation"), values))
    for values in itertools.product((1, 3), (True, False), (True, False), ("tanh", "relu"))
]


def run(*arguments, **options):
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def invoke(*arguments):
    return CliRunner().invoke(batchnorm.main, [str(argument) for argument in arguments])


def small_net(seed=0, batch=6, context=3, dtype=np.float64, **options):
    rng = np.random.default_rng(seed)
    params = batchnorm.init_params(rng, 7, context, 4, 5, dtype, **options)
    theta = params.flat
    theta += 0.1 * rng.standard_normal(theta.size).astype(dtype)
    return params, rng.integers(7, size=(batch, context)), rng.integers(7, size=batch)


# ------------------------------------------------------------------------------------- mathematics


@pytest.mark.parametrize("batch", [2, 3, 32])
def test_short_formula_of_batchnorm_equals_the_long_way(batch):
    rng = np.random.default_rng(0)
    pre, dz = rng.normal(3, 2, size=(2, batch, 5))
    gain, bias = rng.normal(size=(2, 5))
    z, dpre, dgain, dbias = batchnorm.batchnorm_step_by_step(pre, gain, bias, dz)
    got, *memory, mean, variance = batchnorm.batchnorm_forward(pre, gain, bias)
    short_dgain, short_dbias = np.empty((2, 5))
    short = batchnorm.batchnorm_backward(dz, gain, *memory, short_dgain, short_dbias)
    for ours, reference in [
        (got, z), (short, dpre), (short_dgain, dgain), (short_dbias, dbias),
        (mean, pre.mean(axis=0)), (variance, pre.var(axis=0)),
    ]:  # fmt: skip
        np.testing.assert_allclose(ours, reference, rtol=1e-9, atol=1e-12)


def test_batchnorm_gives_each_unit_mean_0_and_deviation_1():
    pre = np.random.default_rng(0).normal(7, 3, size=(64, 5))
    z, *_ = batchnorm.batchnorm_forward(pre, np.ones(5), np.zeros(5))
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-5)


def test_gradient_of_batchnorm_has_no_part_along_a_shift_or_a_stretch():
    rng = np.random.default_rng(0)
    pre, dz = rng.normal(size=(2, 16, 5))
    _, dpre, _, _ = batchnorm.batchnorm_step_by_step(pre, np.ones(5), np.zeros(5), dz)
    np.testing.assert_allclose(dpre.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose((dpre * (pre - pre.mean(axis=0))).sum(axis=0), 0, atol=1e-3)


@pytest.mark.parametrize("net", NETS, ids=str)
def test_gradients_match_central_differences(net):
    for seed, batch in ((3, 4), (29, 7)):
        errors = batchnorm.check_gradients(np.random.default_rng(seed), batch=batch, **net)
        assert len(errors) == 3 + net["layers"] * (3 if net["batchnorm"] else 2)
        assert max(errors.values()) < 1e-6


def test_gradient_check_sees_a_wrong_gradient(monkeypatch):
    right = batchnorm.batchnorm_backward

    def wrong(dz, gain, centred, inv_std, dgain, dbias):
        return right(dz, gain, centred, inv_std, dgain, dbias) * 1.001

    monkeypatch.setattr(batchnorm, "batchnorm_backward", wrong)
    errors = batchnorm.check_gradients(np.random.default_rng(1))
    assert errors["W1"] > 1e-6 > errors["W_out"]


@pytest.mark.parametrize("net", NETS, ids=str)
def test_forward_is_the_equations(net):
    params, X, Y = small_net(**net)
    act = np.tanh if net["activation"] == "tanh" else lambda z: np.maximum(z, 0)
    h = params.C[X].reshape(len(X), -1)
    for i in range(net["layers"]):
        z = h @ params.W[i]
        if net["batchnorm"]:
            z = params.gain[i] * (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5)
        out = act(z + params.bias[i])
        h = out + h if net["residual"] and i else out
    logits = h @ params.W_out + params.b_out
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    loss, grads = batchnorm.loss_and_gradients(params, X, Y)
    assert loss == pytest.approx(-np.log(probs[range(6), Y]).mean(), rel=1e-12)
    assert isinstance(loss, float) and grads._fields == params._fields


def test_parameters_are_views_into_one_vector_with_an_entry_for_each_layer():
    params, _, _ = small_net(layers=3, residual=True, activation="relu")
    assert params._fields[:6] == ("C", "W", "gain", "bias", "W_out", "b_out")
    assert [len(entry) for entry in (params.W, params.gain, params.bias)] == [3, 3, 3]
    named = batchnorm.arrays(params)
    assert params.flat.size == sum(array.size for array in named.values())
    assert all(np.shares_memory(array, params.flat) for array in named.values())
    assert small_net(batchnorm=False)[0].gain == ()
    for other in (params._replace(gain=()), batchnorm.zeros_like(params)):
        assert (other.residual, other.activation) == (True, "relu")


def test_a_batch_of_one_has_no_variance():
    params, X, Y = small_net(batch=1)
    with pytest.raises(ValueError, match="a single sample has no variance"):
        batchnorm.loss_and_gradients(params, X, Y)
    batchnorm.loss_and_gradients(*small_net(batch=1, batchnorm=False))


# -------------------------------------------------------------------------------- initialisation


def first_batch(**options):
    words = load_words()[:2000]
    stoi, _ = build_vocab(words)
    X, Y = build_dataset(words, stoi, 3)
    params = batchnorm.init_params(np.random.default_rng(0), 27, 3, 10, 200, **options)
    _, memory, logits = batchnorm.forward(params, X)
    loss, _ = batchnorm.cross_entropy(logits, Y)
    return loss, memory[-1][1]


def test_small_logits_start_at_ln_27_and_naive_ones_far_above():
    assert first_batch(batchnorm=False, init="naive")[0] > 15
    for init in ("small-logits", "scaled", "kaiming"):
        for normalised in (False, True):
            loss, _ = first_batch(batchnorm=normalised, init=init)
            assert loss == pytest.approx(math.log(27), abs=0.05)


def test_scaled_weights_do_not_saturate_tanh():
    share = {
        init: batchnorm.saturated(first_batch(batchnorm=False, init=init)[1], "tanh").mean()
        for init in batchnorm.INITS
    }
    assert share["naive"] == share["small-logits"] > 0.5
    assert share["scaled"] < 0.15 and share["kaiming"] < 0.3


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_kaiming_keeps_the_scale_through_ten_layers(activation):
    options = dict(layers=10, batchnorm=False, activation=activation)
    _, last = first_batch(init="kaiming", **options)
    assert 0.2 < last.std() < 2.0
    _, naive = first_batch(init="scaled", **options)
    assert not 0.2 < naive.std() < 0.75


def test_batchnorm_starts_with_gain_1_and_bias_0():
    params = batchnorm.init_params(np.random.default_rng(0), 27, 3, 10, 20, layers=2)
    assert all((gain == 1).all() for gain in params.gain)
    assert not any(bias.any() for bias in params.bias)


# ------------------------------------------------------------------------------------- inference


@pytest.mark.parametrize("net", [n for n in NETS if n["batchnorm"]], ids=str)
def test_calibrated_statistics_are_those_of_one_large_batch(net):
    params, X, Y = small_net(batch=50, **net)
    expected = np.zeros((net["layers"], 2, 5))
    loss, _ = batchnorm.loss_and_gradients(params, X, Y, statistics=expected)
    np.testing.assert_array_equal(batchnorm.calibrated(params, X), expected)
    plain = batchnorm.folded(params, expected)
    assert plain.gain == () and batchnorm.evaluate(plain, X, Y) == pytest.approx(loss, rel=1e-9)


def test_a_single_context_can_be_evaluated_by_the_folded_net():
    params, X, _ = small_net(layers=2)
    plain = batchnorm.folded(params, batchnorm.calibrated(params, X))
    together = batchnorm.forward(plain, X)[-1]
    alone = np.concatenate([batchnorm.forward(plain, X[i : i + 1])[-1] for i in range(len(X))])
    np.testing.assert_allclose(alone, together, rtol=1e-12)


def test_running_averages_follow_the_batches_with_variance_over_n_minus_1():
    params, X, Y = small_net(dtype=np.float32)
    running, grads = batchnorm.initial_statistics(params), batchnorm.zeros_like(params)
    for _ in batchnorm.train(params, running, grads, X, Y, 1, 4, lambda done: 0.0, seed=0):
        pass
    batch = next(batchnorm.minibatches(0, len(X), 4))
    pre = params.C[X[batch]].reshape(4, -1) @ params.W[0]
    np.testing.assert_allclose(running[0, 0], 0.001 * pre.mean(axis=0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(running[0, 1], 0.999 + 0.001 * pre.var(axis=0, ddof=1), rtol=1e-5)


def test_running_and_calibrated_statistics_agree_after_training(tmp_path):
    arguments = ["--steps", 2000, *SMALL, "--checkpoint", tmp_path / "m.npz"]
    calibrated, running = (
        table(invoke(*arguments, "--bn-stats", statistics).stdout)
        for statistics in ("calibrated", "running")
    )
    assert calibrated != running and calibrated == pytest.approx(running, abs=0.01)


def test_weight_decay_adds_the_gradient_of_an_l2_penalty():
    params, X, Y = small_net(batchnorm=False)
    theta, (_, gradient) = params.flat.copy(), batchnorm.loss_and_gradients(params, X[:1], Y[:1])
    running, grads = batchnorm.initial_statistics(params), batchnorm.zeros_like(params)
    net = params, running, grads, X[:1], Y[:1]
    assert len([*batchnorm.train(*net, 1, 2, lambda done: 0.5, seed=0, weight_decay=0.3)]) == 1
    np.testing.assert_allclose(params.flat, theta - 0.5 * (gradient.flat + 0.3 * theta), atol=1e-15)


# ----------------------------------------------------------------------------------- instruments


def test_saturation_and_dead_units():
    active = np.array([[0.98, -0.99, 0.5], [0.99, 0.1, -0.2]])
    expected = [[True, True, False], [True, False, False]]
    assert batchnorm.saturated(active, "tanh").tolist() == expected
    assert batchnorm.saturated(np.array([0.0, 0.1]), "relu").tolist() == [True, False]


def test_histogram_is_a_line_of_blocks():
    assert batchnorm.histogram(np.array([0.1, 0.1, 0.9]), 0, 1, 2) == "█▄"
    assert batchnorm.histogram(np.array([]), 0, 1, 3) == "   "


def test_instruments_read_the_gradients_of_the_outputs():
    params, X, Y = small_net(layers=2, batchnorm=False)
    outputs, gradients, grads = batchnorm.inspect(params, X, Y)
    _, expected = batchnorm.loss_and_gradients(params, X, Y)
    np.testing.assert_array_equal(grads.flat, expected.flat)
    for i, (active, gradient) in enumerate(zip(outputs, gradients)):
        dz = gradient * (1 - active**2)
        np.testing.assert_allclose(dz.sum(axis=0), grads.bias[i], atol=1e-12)


def test_log_ratios_compare_updates_with_data():
    params, _, _ = small_net(layers=2)
    updates = batchnorm.zeros_like(params)
    updates.flat[:] = params.flat / 1000
    ratios = batchnorm.log_ratios(params, updates)
    assert list(ratios) == ["C", "W1", "W2", "W_out"]
    assert list(ratios.values()) == pytest.approx([-3] * 4)


# ------------------------------------------------------------------------------------ command line


def table(output):
    rows = re.findall(r"^(train|dev|test) +([\d.]+) +[\d.]+$", output, re.M)
    return {name: float(loss) for name, loss in rows}


def test_a_run_shows_instruments_losses_and_samples():
    result = run("--steps", 2000, "--layers", 2, "--samples", 4)
    assert result.returncode == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("32,257 words, 27 characters, 183,935 training examples, 52,497")
    assert "before: outputs" in lines and "after: outputs" in lines
    assert len(re.findall(r"^ +[12] .*[▁▂▃▄▅▆▇█]{5}", result.stdout, re.M)) == 8
    assert "log10(update/data) of W for 1,024 examples at --lr" in result.stdout
    first, *_, last = re.findall(r"^ +[\d,]+ +(\d\.\d{4})(?:   uni|$)", result.stdout, re.M)
    assert float(first) == pytest.approx(math.log(27), abs=0.1) and float(last) < 2.7
    assert 2.0 < table(result.stdout)["dev"] < 2.6


def test_the_same_seed_gives_the_same_bytes():
    first, second = (
        re.sub(r" in .*", "", run("--steps", 300, *SMALL, "--layers", 2).stdout) for _ in range(2)
    )
    assert first == second


def test_gradcheck_covers_every_kind_of_net():
    result = invoke("--gradcheck")
    errors = re.findall(r"\d\.\de-\d+$", result.stdout, re.M)
    assert result.exit_code == 0 and len(errors) == 17 and max(map(float, errors)) < 1e-6
    assert "the short way against the long way" in result.stdout


def test_compare_shows_a_row_for_each_repair():
    result = invoke("--compare", "--steps", 1500)
    assert result.exit_code == 0
    rows = re.findall(r"^(\w[\w ]+?) +([\d.]+) +([\d.]+) +([\d.]+)$", result.stdout, re.M)
    assert [row[0] for row in rows] == [name for name, *_ in batchnorm.REPAIRS]
    first = [float(row[1]) for row in rows]
    assert first[0] > 15 and all(abs(loss - math.log(27)) < 0.1 for loss in first[1:])
    dev = [float(row[3]) for row in rows]
    assert all(dev[0] > each for each in dev[1:])


@pytest.mark.parametrize(
    "arguments",
    [["--activation", "relu"], ["--no-batchnorm"], ["--init", "naive"], ["--batch-size", "2"],
     ["--layers", "3", "--residual"], ["--context", "1"], ["--context", "14"],
     ["--batch-size", "1", "--no-batchnorm"], ["--weight-decay", "0.1"]],
    ids=" ".join,
)  # fmt: skip
def test_options_run(arguments):
    assert invoke("--steps", 20, *SMALL, *arguments).exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [["--checkpoint", "m.npz"], ["--plot", "m.png"], ["--samples", "20"], ["--no-batchnorm"],
     ["--prefix", "a"], ["--temperature", "1"], ["--init", "naive"], ["--steps", "0"],
     ["--batch-size", "1"]],
    ids=" ".join,
)  # fmt: skip
def test_compare_refuses_options_that_make_no_sense(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("--compare", *arguments)
    assert result.exit_code == 2 and arguments[0] in result.stderr.splitlines()[-1]
    assert not any(tmp_path.iterdir())


def test_prefix_begins_every_sample():
    output = invoke("--steps", 200, *SMALL, "--prefix", "mar").stdout
    assert all(line.startswith("mar") for line in output.splitlines()[-3:])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--batch-size", "1"],
        ["--layers", "0"],
        ["--steps", "-1"],
        ["--lr", "nan"],
        ["--weight-decay", "nan"],
        ["--weight-decay", "-1"],
        ["--temperature", "0"],
        ["--init", "good"],
        ["--activation", "gelu"],
        ["--bn-stats", "none"],
        ["--prefix", "é"],
    ],
    ids=" ".join,
)
def test_wrong_options_are_usage_errors_that_name_the_option(arguments):
    result = invoke("--steps", "1", *arguments)
    assert result.exit_code == 2 and arguments[0] in result.stderr.splitlines()[-1]


def error_of(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 1, result.output
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("Error: ")
    return result.stderr


def test_a_diverging_loss_stops_the_run():
    arguments = ["--steps", 500, "--hidden", 20, "--activation", "relu", "--lr", 1e5]
    assert re.search(r"diverged at step \d+: try a lower", error_of(*arguments, "--no-batchnorm"))
    assert "original: the loss diverged: try a lower" in error_of("--compare", *arguments)


def test_plot_draws_the_instruments(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "run.png"
    arguments = ["--steps", 50, *SMALL, "--layers", 2, "--checkpoint", tmp_path / "m.npz"]
    for _ in ("training", "none left"):
        assert invoke(*arguments, "--plot", path).exit_code == 0
        assert path.read_bytes().startswith(b"\x89PNG")


# ------------------------------------------------------------------------------------- checkpoints


def contents(path):
    with np.load(path) as archive:
        return archive["theta"], archive["running"], json.loads(archive["facts"].item())


def test_a_checkpoint_goes_on_with_the_bits_of_a_run_that_never_stopped(tmp_path):
    path, whole = tmp_path / "m.npz", tmp_path / "whole.npz"
    options = [*SMALL, "--layers", 2, "--residual", "--lr-decay", "none"]
    invoke("--steps", 700, *options, "--checkpoint", path)
    result = invoke("--steps", 1300, *options, "--checkpoint", path)
    assert "\n600 steps in" in result.stdout
    invoke("--steps", 1300, *options, "--checkpoint", whole)
    for ours, theirs in zip(contents(path)[:2], contents(whole)[:2]):
        assert ours.dtype == np.float32 and np.array_equal(ours, theirs)
    again = invoke("--steps", 1300, *options, "--checkpoint", path).stdout.splitlines()
    assert again[1] == f"{path}: 1,300 steps done" and again[-6:] == result.stdout.splitlines()[-6:]


@pytest.mark.parametrize(
    "arguments, difference",
    [
        (["--layers", 2], "layers is 1 in it and 2 here"),
        (["--no-batchnorm"], "batchnorm is True in it and False here"),
        (["--residual"], "residual is False in it and True here"),
        (["--activation", "relu"], "activation is 'tanh' in it and 'relu' here"),
        (["--init", "naive"], "init is 'kaiming' in it and 'naive' here"),
    ],
)
def test_a_checkpoint_of_another_net_names_the_difference(tmp_path, arguments, difference):
    path = tmp_path / "m.npz"
    assert invoke("--steps", 1, *SMALL, "--checkpoint", path).exit_code == 0
    before = path.read_bytes()
    error = error_of("--steps", 9, *SMALL, "--checkpoint", path, *arguments)
    assert difference in error and path.read_bytes() == before


def test_damaged_checkpoints_are_refused(tmp_path):
    path = tmp_path / "m.npz"
    arguments = ["--steps", 1, *SMALL, "--checkpoint", path]
    assert invoke(*arguments).exit_code == 0
    with np.load(path) as archive:
        tables = dict(archive)
    for change in ({"running": tables["running"][..., 1:]}, {"theta": tables["theta"][1:]}):
        np.savez(path, **tables | change)
        assert "m.npz is damaged or not a checkpoint" in error_of(*arguments)
