"""Facts about the autograd engine, the networks on top of it, and micrograd.py's command line."""

import cmath
import random
import re

import numpy as np
import pytest

import gradcheck
import micrograd
from conftest import invoke
from micrograd import MLP, XS, YS, Layer, Neuron, Value, expression, graph, lecture_neuron


def test_expression_of_the_original_readme():
    a, b = Value(-4.0), Value(2.0)
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + (b + a).relu()
    d += 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    g.backward()
    assert round(g.data, 4) == 24.7041
    assert round(a.grad, 4) == 138.8338
    assert round(b.grad, 4) == 645.5773


ON_VALUES = vars(Value) | {"dot": micrograd.dot, "nested": gradcheck.nested}
ON_COMPLEX = gradcheck.ON_NUMBERS | vars(cmath) | {"relu": lambda x: x * (x.real > 0)}
OPERATIONS = [  # each for Values and for complex numbers
    [eval(f"lambda x, y: {text}", names) for names in (ON_VALUES, ON_COMPLEX)]
    for text in gradcheck.OPERATIONS
]


def test_random_graphs_match_complex_step_differentiation():
    """For an analytic f, f'(x) = imag f(x + ih) / h without any cancellation, for h = 1e-30."""
    rng, checked = random.Random(0), 0
    for _ in range(1500):
        leaves = [rng.uniform(-2, 2) for _ in range(3)]
        values, program = [Value(x) for x in leaves], []
        for _ in range(rng.randrange(1, 25)):
            on_values, on_complex = rng.choice(OPERATIONS)
            i, j = rng.choices(range(len(values)), k=2)
            try:
                result = on_values(values[i], values[j])
            except (ArithmeticError, ValueError, TypeError):  # 1 / 0, log(-1), (-1)**0.5
                continue
            if 1e-3 < abs(result.data) < 1e3:
                values.append(result)
                program.append((on_complex, i, j))
        values[-1].backward()
        for nudged, leaf in enumerate(values[:3]):
            numbers = [complex(x, 1e-30 * (k == nudged)) for k, x in enumerate(leaves)]
            for on_complex, i, j in program:
                numbers.append(on_complex(numbers[i], numbers[j]))
            slope = numbers[-1].imag / 1e-30
            assert values[-1].data == pytest.approx(numbers[-1].real, rel=1e-9)
            assert leaf.grad == pytest.approx(slope, rel=1e-9, abs=1e-9 * abs(values[-1].data))
            checked += slope != 0
    assert checked > 1500


def test_the_loop_of_the_lecture_works_word_for_word():
    n = MLP(3, [4, 4, 1], rng=np.random.default_rng(0))
    xs = [[2.0, 3.0, -1.0], [3.0, -1.0, 0.5], [0.5, 1.0, 1.0], [1.0, 1.0, -1.0]]
    ys = [1.0, -1.0, -1.0, 1.0]
    losses = []
    for _ in range(20):
        ypred = [n(x) for x in xs]
        loss = sum((yout - ygt) ** 2 for ygt, yout in zip(ys, ypred))
        for p in n.parameters():
            p.grad = 0.0
        loss.backward()
        for p in n.parameters():
            p.data += -0.01 * p.grad
        losses.append(loss.data)
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] / 2


def test_a_long_chain_of_additions_needs_no_recursion():
    total = one = Value(1.0)
    for _ in range(100_000):
        total = total + one
    total.backward()
    assert total.data == one.grad == 100_001


@pytest.mark.parametrize("number", [2, np.float64(2), np.float32(2), np.int8(2)], ids=repr)
def test_numbers_of_any_type_give_floats(number):
    a = Value(3.0)
    for out in (a * number, number * a, a + number, number + a, a - number, number - a):
        assert type(out) is Value and type(out.data) is float
    (number / a + a**number).backward()
    assert a.grad == pytest.approx(-2 / 9 + 6) and repr(a) == f"Value(data=3.0, grad={a.grad})"


@pytest.mark.parametrize(
    "error, function",
    [
        (ValueError, lambda x: (x - 1).log()),
        (ValueError, lambda x: x + "three"),
        (ValueError, lambda x: micrograd.squared_error(MLP(1, [1]), [[x]], [1, 1])),
        (ValueError, lambda x: MLP(3, [2, 1])([x, x])),
        (ValueError, lambda x: Neuron(3)([x] * 4)),
        (TypeError, lambda x: x * 1j),
        (TypeError, lambda x: (-x) ** 0.5),
        (ZeroDivisionError, lambda x: x / 0),
        (ZeroDivisionError, lambda x: (x * 0) ** 0.5),  # no slope
    ],
)
def test_errors_are_those_of_python(error, function):
    with pytest.raises(error):
        function(Value(0.5))


def test_modules():
    model = MLP(3, [4, 4, 1])
    weights = [p.data for p in model.parameters()]
    assert len(set(weights)) == 41 and all(-1 < weight < 1 for weight in weights)
    assert isinstance(model([1, 2.0, Value(3)]), Value) and len(MLP(2, [3, 2])([1, 2])) == 2
    assert [len(Layer(2, nout)([1, Value(2)])) for nout in (1, 3)] == [1, 3]
    neuron = Neuron(2, micrograd.linear)
    (u, v), b = (weight.data for weight in neuron.w), neuron.b.data
    assert neuron([3, 4]).data == pytest.approx(3 * u + 4 * v + b)
    model.parts[1] = model.parts[0]
    assert len(model.parameters()) == 16 + 5  # each once


def test_moons_are_half_circles():
    X, Y = micrograd.make_moons(np.random.default_rng(0), 101, noise=0)
    upper, lower = X[Y < 0], X[Y > 0] - [1, 0.5]
    assert len(upper) == 51 and (upper[:, 1] >= 0).all() and (lower[:, 1] <= 0).all()
    np.testing.assert_allclose((np.concatenate([upper, lower]) ** 2).sum(axis=1), 1)
    noisy, _ = micrograd.make_moons(np.random.default_rng(0), 101)
    assert 0.09 < (noisy - X).std() < 0.11


@pytest.mark.parametrize(
    "label, shown",
    [("w1 > 0", r"w1 \> 0"), ("p{1|a}", r"p\{1\|a\}"), ('"\\n', r"\"\\n"), ("&lt;", "&amp;lt;")],
)
def test_graph_names_values_gradients_labels_and_operations(tmp_path, label, shown):
    assert f'"{{ {shown} | data 1.0 | grad 0.0 }}"' in graph(Value(1.0, label=label))
    text = graph(lecture_neuron()[0])
    assert text.startswith("digraph {") and text.endswith("}\n") and text.count("->") == 14
    assert '[label="{ o | data 0.7071 | grad 1.0 }"]' in text
    assert text.count('label="*"') == 2 and text.count('label="+"') == 2
    assert invoke(micrograd, "--graph", tmp_path / "neuron.dot").exit_code == 0
    assert (tmp_path / "neuron.dot").read_text() == text


def rows_of(*arguments):
    """What a run prints about its training -> {step: loss}."""
    rows = re.findall(r"^ {7,}(\d+) +(\d+\.\d{4})$", invoke(micrograd, *arguments).stdout, re.M)
    return {int(step): loss for step, loss in rows}


def test_the_story_fits_a_screen_and_its_numbers_are_right():
    result = invoke(micrograd)
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and len(lines) <= 60 and max(map(len, lines)) <= 80
    L, values = expression()
    L.backward()
    assert L.data == -8 and [each.grad for each in values] == [6, -4, -2, 4, -2, -2]
    for line, value in zip(lines[3:9], values):
        name, data, *slopes = line.split()
        assert name == value.label and float(data) == value.data
        assert set(map(float, slopes)) == {value.grad}
    assert "-8" in lines[0] and "= -2 * 1 = -2" in result.stdout and "L = -7.2865" in result.stdout
    neuron = ["0.7071", "-1.5000", "1.0000", "0.5000", "0.0000", "0.5000"]
    assert [line.split()[-6:] for line in lines].count(neuron) == 3
    model = MLP(3, [4, 4, 1], rng=np.random.default_rng(42))
    losses = dict(micrograd.train(model, micrograd.squared_error, XS, YS, 20, 0.05))
    assert rows_of() == {step: f"{losses[step]:.4f}" for step in range(0, 21, 2)}
    assert (rows_of()[0], rows_of()[20]) == ("5.8877", "0.1092")
    predictions = [f"{y:.0f} {model(x).data:.4f}" for x, y in zip(XS, YS)]
    assert [" ".join(line.split()) for line in lines[-4:]] == predictions


def test_every_option_changes_the_run(monkeypatch):
    monkeypatch.setattr(micrograd, "boundary", lambda *arguments: "")
    usual = rows_of()
    assert rows_of("--seed", 42, "--lr", 0.05, "--steps", 20, "--dataset", "lecture") == usual
    assert rows_of("--seed", 43)[0] != usual[0]
    assert rows_of("--lr", 0.001)[0] == usual[0] and rows_of("--lr", 0.001)[2] != usual[2]
    assert [*rows_of("--steps", 3)] == [0, 1, 2, 3] and len(rows_of("--steps", 25)) == 10
    moons = ["--dataset", "moons", "--steps", 1]
    assert rows_of(*moons)[0] == "1.5803" != rows_of(*moons, "--seed", 1)[0]
    assert rows_of(*moons, "--lr", 0.1)[1] != rows_of(*moons)[1]


def test_moons_are_separated():
    result = invoke(micrograd, "--dataset", "moons", "--steps", 40)
    assert result.exit_code == 0 and "100% of the points are on the right side" in result.output
    assert re.search(r"^ +40 +0\.0153$", result.output, re.M)
    picture = result.output.splitlines()[-22:]
    assert set("".join(picture)) == set(".#xo") and {len(line) for line in picture} == {72}
