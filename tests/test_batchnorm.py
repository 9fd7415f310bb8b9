"""Facts about initialisation, BatchNorm, depth and diagnostics, and batchnorm.py's command line."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

import batchnorm
import mlp
from common import build_dataset, build_vocab, load_words
from conftest import FEW, invoke


def small_net(*kind, batch=40):
    rng = np.random.default_rng(0)
    net = batchnorm.new_net(rng, 7, 3, 4, 5, *kind, dtype=np.float64)
    for array in net.parameters:
        array += 0.1 * rng.standard_normal(array.shape)
    return net, rng.integers(7, size=(batch, 3)), rng.integers(7, size=batch)


def test_what_stands_under_as_in_stage_3_is_the_text_of_mlp_py():
    section = Path(batchnorm.__file__).read_text(encoding="utf-8").split(" as in stage 3\n")[1]
    functions = section.split("\n# ------")[0].split("\n\n\n")
    functions = [part.strip() for part in functions if part.startswith("def ")]
    stage_3 = Path(mlp.__file__).read_text(encoding="utf-8")
    assert len(functions) == 8 and all(function in stage_3 for function in functions)


@pytest.mark.parametrize("depth", [(1, False), (3, False), (3, True)])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_loss_and_gradients_are_those_of_pytorch(depth, norm, activation):
    torch = pytest.importorskip("torch")
    (layers, residual), batch_norm = depth, torch.nn.functional.batch_norm
    net, X, Y = small_net(layers, norm, residual, activation)
    params = [torch.tensor(array, requires_grad=True) for array in net.parameters]
    C, W1, W, gain, bias, W_out, b_out = params
    h = C[torch.tensor(X)].flatten(1)
    for i, weights in enumerate([W1, *W]):
        z = h @ weights
        z = batch_norm(z, None, None, gain[i], bias[i], training=True) if norm else z + bias[i]
        out = getattr(z, activation)()
        h = out + h if residual and i else out
    expected = torch.nn.functional.cross_entropy(h @ W_out + b_out, torch.tensor(Y))
    expected.backward()
    loss, gradients = batchnorm.loss_and_gradients(net, X, Y)
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    for gradient, param in zip(gradients, params):
        assert gradient.shape == param.shape
        if gradient.size:
            np.testing.assert_allclose(gradient, param.grad, atol=1e-14)


def test_a_batch_of_one_has_no_variance_and_the_folded_net_takes_it():
    net, X, Y = small_net(3)
    with pytest.raises(ValueError, match="a single sample has no variance"):
        batchnorm.loss_and_gradients(net, X[:1], Y[:1])
    plain, loss = batchnorm.folded(net, X), batchnorm.loss_and_gradients(net, X, Y)[0]
    assert batchnorm.evaluate(plain, X, Y, chunk=1) == pytest.approx(loss, rel=1e-9)
    plains = [batchnorm.folded(net, np.resize(X, (n, 3))) for n in (9000, 8192, 8191)]
    many, enough, fewer = (each.parameters.bias for each in plains)
    assert (many == enough).all() and (enough != fewer).any()  # 8,192 examples are used
    arrays = zip(net.parameters, plain.parameters)
    assert not any(np.shares_memory(original, new) for original, new in arrays)


def last_outputs(**options):
    """The outputs of the last layer of a new net."""
    words = load_words()[:300]
    X, _ = build_dataset(words, build_vocab(words)[0], 3)
    net = batchnorm.new_net(np.random.default_rng(0), 27, 3, 10, 200, batchnorm=False, **options)
    return batchnorm.forward(net, X)[1][-1][0]


def test_scaled_weights_do_not_saturate_tanh():
    share = {init: (abs(last_outputs(init=init)) > 0.97).mean() for init in batchnorm.INITS}
    assert share["naive"] == share["small-logits"] > 0.5
    assert share["scaled"] < 0.15 and share["kaiming"] < 0.3 and share["zero"] == 0


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_kaiming_keeps_the_scale_through_ten_layers(activation):
    options = {"layers": 10, "activation": activation}
    assert 0.2 < last_outputs(init="kaiming", **options).std() < 2.0
    assert not 0.2 < last_outputs(init="scaled", **options).std() < 0.75


def test_histogram_is_a_line_of_characters():
    numbers = np.array([-0.9, -0.9, 0.9])
    assert batchnorm.histogram(numbers, (-1.2, 1.2)) == "  @" + " " * 18 + "=  "
    assert batchnorm.histogram(np.array([]), (0, 0)) == " " * 24


def test_log_ratios_compare_the_real_update_with_the_data(capsys):
    net, X, Y = small_net(2)
    ratios, expected, before = {}, {}, net.parameters.W[0].copy()
    training = batchnorm.train(net, X, Y, 300, 6, lambda done: 0.3, 0, weight_decay=0.1)
    for step, _ in batchnorm.record_ratios(net, training, 300, ratios):
        after = net.parameters.W[0].copy()
        expected[step], before = np.log10((after - before).std() / before.std()), after
    assert [*ratios] == [1, *range(3, 301, 3)]
    assert [row["W2"] for row in ratios.values()] == pytest.approx([expected[i] for i in ratios])
    batchnorm.show_ratios(ratios)
    head, *rows, _ = capsys.readouterr().out.splitlines()[1:]
    assert head.split()[1:] == "step 75 step 150 step 225".split()
    assert [row.split()[0] for row in rows] == ["C", "W1", "W2", "W_out", "b_out"]
    assert rows[2].split()[1:] == [f"{expected[step]:.2f}" for step in (75, 150, 225)]


def test_what_the_diagnostics_say_is_true_of_sick_nets():
    five = "--layers 5 --hidden 100 --steps 3000 --samples 0 --init naive --no-batchnorm"
    before, after = invoke(batchnorm, *five.split()).stdout.split("after:")
    saturated = [float(row) for row in re.findall(r"^ +\d .* (\S+)% ", before, re.M)]
    assert len(saturated) == 5 and min(saturated) > 50
    gradients = [float(row) for row in re.findall(r"^ +\d .*% +\d+ +(\S+)  ", after, re.M)]
    assert len(gradients) == 5 and max(gradients[:4]) < 1e-6
    zero = invoke(batchnorm, "--data", FEW, "--init", "zero", "--steps", 100, "--hidden", 9).stdout
    assert len(re.findall(r"^ +1 +0.000 +0.000 +0.0% +0 +0.0e\+00", zero, re.M)) == 2
    rows = re.findall(r"^(C|W1|W_out) +(\S+) +(\S+) +(\S+)$", zero, re.M)
    assert [row[1:] for row in rows] == [("nan",) * 3] * 3  # b_out alone learns
    for layers in (18, 25, 30, 50):  # in float32, squares overflow before the outputs do
        options = f"--layers {layers} --init naive --no-batchnorm --activation relu --steps 0"
        result = invoke(batchnorm, *options.split(), "--data", FEW)
        overflow = "the outputs overflow: try another --init" in result.stderr
        assert result.exit_code == overflow == (layers > 30) and "nan" not in result.stdout


def test_the_default_net_fits_a_screen_and_starts_at_a_uniform_guess():
    result = invoke(batchnorm, "--steps", 800)
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and result.stderr == "" and len(lines) <= 60
    assert max(map(len, lines)) <= 80
    first, *_, last = re.findall(r"^ +[\d,]+ +(\d\.\d{4})$", result.stdout, re.M)
    assert float(first) == pytest.approx(math.log(27), abs=0.05) and float(last) < 2.6
    assert float(re.search(r"^dev +([\d.]+)", result.stdout, re.M)[1]) < 2.5
