"""Facts about initialisation, BatchNorm and depth, and about batchnorm.py's command line."""

import itertools
import json
import math
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import batchnorm
from common import build_dataset, build_vocab, load_words

STOPPED = r"stopped at step [\d,]+; saved: go on with --load \S+m.npz --save \S+m.npz\n"
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
def test_short_formula_of_batchnorm_is_the_long_way(batch):
    rng = np.random.default_rng(0)
    pre, dz = rng.normal(3, 2, size=(2, batch, 5))
    gain, bias = rng.normal(size=(2, 5))
    z, dpre, dgain, dbias = batchnorm.batchnorm_step_by_step(pre, gain, bias, dz)
    got, *memory, mean, variance = batchnorm.batchnorm_forward(pre.copy(), gain, bias)
    short_dgain, short_dbias = np.empty((2, 5))
    short = batchnorm.batchnorm_backward(dz.copy(), gain, *memory, short_dgain, short_dbias)
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
    for batch in (4, 7):
        errors = batchnorm.check_gradients(np.random.default_rng(3), batch=batch, **net)
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


def test_parameters_are_windows_on_one_vector_with_an_entry_for_each_layer():
    params, _, _ = small_net(layers=3)
    assert params._fields == ("C", "W", "gain", "bias", "W_out", "b_out")
    assert [len(entry) for entry in (params.W, params.gain, params.bias)] == [3, 3, 3]
    arrays = dict(batchnorm.leaves(params))
    assert params.flat.size == sum(array.size for array in arrays.values())
    assert all(np.shares_memory(array, params.flat) for array in arrays.values())
    assert small_net(batchnorm=False)[0].gain == ()


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
    logits, h, memory = batchnorm.forward(params, X)
    loss, _ = batchnorm.cross_entropy(logits, Y)
    return loss, memory[-1][0]


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
def test_calibrated_statistics_are_those_of_one_batch_of_everything(net):
    params, X, Y = small_net(batch=50, **net)
    X[25:] = X[:25]  # repeated contexts
    expected = np.zeros((net["layers"], 2, 5))
    loss, _ = batchnorm.loss_and_gradients(params, X, Y, statistics=expected)
    found = batchnorm.calibrated(params, X)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    plain = batchnorm.folded(params, expected)
    assert plain.gain == () and batchnorm.evaluate(plain, X, Y) == pytest.approx(loss, rel=1e-9)


def test_a_single_context_can_be_evaluated_by_the_folded_net():
    params, X, _ = small_net(layers=2)
    plain = batchnorm.folded(params, batchnorm.calibrated(params, X))
    together = batchnorm.forward(plain, X)[0]
    alone = np.concatenate([batchnorm.forward(plain, X[i : i + 1])[0] for i in range(len(X))])
    np.testing.assert_allclose(alone, together, rtol=1e-12)


def test_running_averages_follow_the_batches_with_variance_over_n_minus_1():
    params, X, Y = small_net(dtype=np.float32)
    running, rng = batchnorm.fresh_statistics(params), np.random.default_rng(0)
    state = rng.bit_generator.state
    for _ in batchnorm.train(params, X, Y, rng, 1, 4, lambda done: 0.0, running):
        pass
    rng.bit_generator.state = state
    batch = rng.integers(len(X), size=(32_768 // 4, 4))[0]
    pre = params.C[X[batch]].reshape(4, -1) @ params.W[0]
    np.testing.assert_allclose(running[0, 0], 0.001 * pre.mean(axis=0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(running[0, 1], 0.999 + 0.001 * pre.var(axis=0, ddof=1), rtol=1e-5)


def test_running_and_calibrated_statistics_agree_after_training(tmp_path):
    path = tmp_path / "m.npz"
    invoke("--steps", 8000, *SMALL, "--save", path)
    calibrated, running = (
        table(invoke("--load", path, "--bn-stats", statistics).stdout)["dev"]
        for statistics in ("calibrated", "running")
    )
    assert calibrated != running and abs(calibrated - running) < 0.01


@pytest.mark.parametrize("stop", [1, 1024, 1500])
def test_stopping_and_going_on_gives_the_bits_of_the_run_that_never_stopped(stop):
    words = load_words()[::50]
    stoi, _ = build_vocab(words)
    X, Y = build_dataset(words, stoi, 3)
    ends = []
    for stops in ([2000], [stop, 2000]):
        rng = np.random.default_rng(0)
        params = batchnorm.init_params(rng, 27, 3, 4, 8, layers=2, residual=True)
        running, start = batchnorm.fresh_statistics(params), 0
        for end in stops:
            rng = np.random.default_rng(1)
            training = batchnorm.train(
                params, X, Y, rng, 2000, 32, lambda done: 0.1 * (1 - done), running, start
            )
            for start, _ in training:  # noqa: B007
                if start == end:
                    break
        ends.append((params.flat.copy(), running.copy()))
    assert all(np.array_equal(a, b) for a, b in zip(*ends))


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
    reading = batchnorm.inspect(params, X, Y)
    _, grads = batchnorm.loss_and_gradients(params, X, Y)
    assert [name for name, *_ in reading.weights] == ["C", "W1", "W2", "W_out"]
    np.testing.assert_array_equal(reading.weights[1][2], grads.W[0])
    for i, (active, slope) in enumerate(zip(reading.active, reading.slopes)):
        dz = slope * (1 - active**2)
        np.testing.assert_allclose(dz.sum(axis=0), grads.bias[i], atol=1e-12)


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
    assert "before: outputs of each layer" in lines and "after: outputs of each layer" in lines
    assert len(re.findall(r"^ +[12] .*[▁▂▃▄▅▆▇█]{5}", result.stdout, re.M)) == 8
    assert "about -3 is healthy" in result.stdout
    first, *_, last = re.findall(r"^ +[\d,]+ +(\d\.\d{4})(?:   \(|$)", result.stdout, re.M)
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
    assert result.exit_code == 0 and len(errors) == 16 and max(map(float, errors)) < 1e-6


def test_compare_shows_a_row_for_each_repair():
    result = invoke("--compare", "--steps", 1500)
    assert result.exit_code == 0
    rows = re.findall(r"^(\w[\w ]+?) +([\d.]+) +([\d.]+) +([\d.]+)$", result.stdout, re.M)
    assert [row[0] for row in rows] == list(batchnorm.REPAIRS)
    first = [float(row[1]) for row in rows]
    assert first[0] > 15 and all(abs(loss - math.log(27)) < 0.1 for loss in first[1:])
    dev = [float(row[3]) for row in rows]
    assert all(dev[0] > each for each in dev[1:])


def test_find_lr_and_relu_and_options_run():
    assert "try --lr" in invoke("--find-lr").stdout
    for arguments in (
        ["--activation", "relu"], ["--no-batchnorm"], ["--init", "naive"], ["--batch-size", 2],
        ["--layers", 3, "--residual"], ["--prefix", "mar"], ["--context", 1], ["--context", 14],
    ):  # fmt: skip
        assert invoke("--steps", 20, *SMALL, *arguments).exit_code == 0


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


def test_a_batch_of_one_is_fine_without_batchnorm():
    assert invoke("--steps", 5, *SMALL, "--batch-size", 1, "--no-batchnorm").exit_code == 0


def error_of(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 1, result.output
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("Error: ")
    return result.stderr


def test_what_cannot_be_done_ends_in_one_line(tmp_path):
    path = tmp_path / "words.txt"
    assert "words.txt: No such file" in error_of("--data", path)
    path.write_text("anna\n")
    assert "at least 6 are needed" in error_of("--data", path)
    assert "words.txt is not a checkpoint" in error_of("--save", path)
    assert "try a lower --lr" in error_of("--steps", 3000, *SMALL, "--lr", "1e38")


def test_plot_draws_the_instruments(tmp_path):
    pytest.importorskip("matplotlib")
    for i, mode in enumerate((["--layers", 3], ["--find-lr"], ["--no-batchnorm"])):
        path = tmp_path / f"run{i}.png"
        assert invoke("--steps", 200, *SMALL, "--plot", path, *mode).exit_code == 0
        assert path.read_bytes().startswith(b"\x89PNG")


# ------------------------------------------------------------------------------------- checkpoints


def arrays(path):
    with np.load(path) as archive:
        return {name: archive[name] for name in archive}


NET = ["--layers", 2, "--residual", "--activation", "relu", "--context", 2, "--embedding", 3]


def test_a_checkpoint_brings_back_the_whole_run(tmp_path):
    path = tmp_path / "m.npz"
    trained = invoke("--steps", 300, *SMALL, *NET, "--bn-stats", "running", "--save", path).stdout
    loaded = invoke("--load", path, "--samples", 3).stdout
    assert loaded.splitlines()[-7:] == trained.splitlines()[-7:] and "steps in" not in loaded
    assert arrays(path)["running"].shape == (2, 2, 20)
    for option in (["--no-residual"], ["--no-batchnorm"], ["--layers", 3], ["--init", "naive"]):
        result = invoke("--load", path, *option)
        assert result.exit_code == 2 and option[0].replace("no-", "") in result.stderr


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_saves_and_the_resumed_run_ends_with_the_same_bits(tmp_path, number, code):
    arguments = ["--steps", 10_000, "--hidden", 30, "--layers", 2, "--samples", 0]
    path, whole = tmp_path / "m.npz", tmp_path / "whole.npz"
    process = subprocess.Popen(
        [sys.executable, SCRIPT, *map(str, arguments), "--save", path],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not process.stdout.readline().startswith("   1,000"):
        assert process.poll() is None
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == code and re.fullmatch(STOPPED, errors) and len(table(output)) == 3
    assert 1_000 <= json.loads(arrays(path)["run"].item())["step"] < 10_000
    assert run("--load", path, "--save", path, "--samples", 0).returncode == 0
    assert run(*arguments, "--save", whole).returncode == 0
    for name in ("theta", "running"):
        assert np.array_equal(arrays(path)[name], arrays(whole)[name])


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "m.npz"
    assert invoke("--steps", 1, *SMALL, "--save", path).exit_code == 0
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "m.npz is a damaged checkpoint" in error_of("--load", path)
    path.write_text("anna")
    assert "m.npz is not a checkpoint" in error_of("--load", path)
    path.write_bytes(whole)
    tables = arrays(path)
    for change in (
        {"running": -tables["running"]}, {"theta": tables["theta"] * np.nan},
        {"running": tables["running"][..., 1:]},
    ):  # fmt: skip
        np.savez(path, **tables | change)
        assert "m.npz is damaged" in error_of("--load", path)
    facts = json.loads(tables["run"].item())
    np.savez(path, **tables | {"run": json.dumps(facts | {"script": "mlp.py"})})
    assert "but of 'mlp.py'" in error_of("--load", path)
