"""Facts about the autograd engine, the networks on top of it, and micrograd.py's command line."""

import cmath
import gc
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import micrograd
from micrograd import MLP, Layer, Neuron, Value, dot, expression, graph, lecture_neuron

SCRIPT = Path(micrograd.__file__)


def invoke(*arguments):
    return CliRunner().invoke(micrograd.main, [str(argument) for argument in arguments])


# ------------------------------------------------------------------------------------ known values


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


def test_expression_of_the_original_tests():
    x = Value(-4.0)
    z = 2 * x + 2 + x
    q = z.relu() + z * x
    h = (z * z).relu()
    y = h + q + q * x
    y.backward()
    assert (y.data, x.grad) == (-20, 46)


def test_expression_of_the_lecture():
    L, inputs = expression()
    L.backward()
    assert L.data == -8 and [each.grad for each in inputs] == [6, -4, -2, 4]


@pytest.mark.parametrize("through", ["dot", "operations", "exp"])
def test_neuron_of_the_lecture(through):
    x, w, b = [Value(2.0), Value(0.0)], [Value(-3.0), Value(1.0)], Value(6.8813735870195432)
    n = dot(w, x, b) if through == "dot" else x[0] * w[0] + x[1] * w[1] + b
    o = ((2 * n).exp() - 1) / ((2 * n).exp() + 1) if through == "exp" else n.tanh()
    o.backward()
    assert round(o.data, 4) == 0.7071
    grads = [each.grad for each in (x[0], w[0], w[1], x[1])]
    np.testing.assert_allclose(grads, [-1.5, 1.0, 0.0, 0.5], atol=1e-6)


# ---------------------------------------------------------------------------------- each operation


def unary(name):
    """The operation of that name, for Values and for complex numbers."""
    real = {"relu": lambda x: x if x.real > 0 else 0 * x}
    plain = real.get(name) or getattr(cmath, name)
    return lambda x: getattr(x, name)() if isinstance(x, Value) else plain(x)


def together(w1, w2, x1, x2, b):
    return dot([w1, w2], [x1, x2], b) if isinstance(b, Value) else w1 * x1 + w2 * x2 + b


STEPS = [
    *((unary(name), 1) for name in ("tanh", "relu", "exp", "log")),
    *((lambda x, n=n: x**n, 1) for n in (-2, -1, -0.5, 0, 0.5, 1, 2, 3)),
    *((function, 1) for function in (lambda x: -x, lambda x: 3 - x, lambda x: 2 / x)),
    *((function, 1) for function in (lambda x: 3 + x, lambda x: 2 * x)),
    *((function, 2) for function in (lambda x, y: x + y, lambda x, y: x - y)),
    *((function, 2) for function in (lambda x, y: x * y, lambda x, y: x / y)),
    (together, 5),
]


def test_random_graphs_match_complex_step_differentiation():
    """For an analytic f, f'(x) = imag f(x + ih) / h without any cancellation, for h = 1e-30."""
    rng, checked = random.Random(0), 0
    for _ in range(3000):
        leaves = [rng.uniform(-2, 2) for _ in range(3)]
        values, program = [Value(x) for x in leaves], []
        for _ in range(rng.randrange(1, 25)):
            function, count = rng.choice(STEPS)
            places = [rng.randrange(len(values)) for _ in range(count)]
            try:
                result = function(*(values[place] for place in places))
            except (ArithmeticError, ValueError, TypeError):  # 1 / 0, log(-1), (-1)**0.5
                continue
            if 1e-3 < abs(result.data) < 1e3 and abs(result.data) != 1:
                values.append(result)
                program.append((function, places))
        values[-1].backward()
        for i, leaf in enumerate(values[:3]):
            numbers = [complex(x, 1e-30 * (i == j)) for j, x in enumerate(leaves)]
            for function, places in program:
                numbers.append(function(*(numbers[place] for place in places)))
            slope = numbers[-1].imag / 1e-30
            assert values[-1].data == pytest.approx(numbers[-1].real, rel=1e-9)
            assert leaf.grad == pytest.approx(slope, rel=1e-9, abs=1e-9 * abs(values[-1].data))
            checked += slope != 0
    assert checked > 3000


def test_dot_is_one_node_with_the_bits_of_many():
    w, x, (b,) = ([Value(v) for v in np.random.default_rng(n).normal(size=n)] for n in (9, 9, 1))
    one, many = dot(w, x, b), sum((wi * xi for wi, xi in zip(w, x)), b)
    assert one.data == many.data and len(one.children) == 2 * 9 + 1


# ---------------------------------------------------------------------------------------- backward


def test_a_second_backward_doubles_the_leaves_and_not_the_nodes_between():
    a, b = Value(2.0), Value(3.0)
    product = a * b
    square = product**2
    square.backward()
    assert (a.grad, b.grad, product.grad) == (36, 24, 12)
    square.backward()
    assert (a.grad, b.grad, product.grad) == (72, 48, 12)
    other = a * 5
    other.backward()
    assert a.grad == 77
    a.backward()
    assert a.grad == 78


def test_a_relu_that_is_zero_passes_no_gradient_on():
    w, x = Value(2.0), Value(3.0)
    (w * x - 10).relu().backward()
    assert (w.grad, x.grad) == (0, 0)


def test_a_chain_of_a_hundred_thousand_additions():
    start = total = Value(0.0)
    one = Value(1.0)
    for _ in range(100_000):
        total = total + one
    total.backward()
    assert total.data == 1e5 and start.grad == 1 and one.grad == 1e5


# --------------------------------------------------------------------------------- data and errors


@pytest.mark.parametrize("number", [2, np.float64(2), np.float32(2), np.int8(2)], ids=repr)
def test_numbers_of_any_type_give_floats(number):
    a = Value(3.0)
    assert type(Value(number).data) is float
    for out in (a * number, number * a, a + number, number + a, a - number, number - a):
        assert type(out) is Value and type(out.data) is float
    (number / a + a**number).backward()
    assert a.grad == pytest.approx(-2 / 9 + 6) and type((a / number).data) is float


def test_whatever_is_assigned_to_data_the_next_results_are_floats():
    a, b = Value(2.0), Value(3.0)
    b.data = 1
    a.data -= np.linspace(0, 1, 3)[1] * 2
    product = a * b + b
    product.backward()
    assert (product.data, a.grad, b.grad) == (2, 1, 2) and type(product.data) is float


def test_repr_shows_data_and_gradient():
    assert repr(Value(2.0)) == "Value(data=2.0, grad=0.0)"


@pytest.mark.parametrize("wrong", ["x", None, [1.0], 1j, {}, np.zeros(3), np.array([1j])], ids=str)
def test_what_is_no_real_number_is_refused(wrong):
    with pytest.raises((TypeError, ValueError)):
        Value(wrong)
    for operation in ("__add__", "__mul__", "__truediv__", "__pow__", "__sub__", "__radd__"):
        with pytest.raises((TypeError, ValueError)):
            getattr(Value(1.0), operation)(wrong)


@pytest.mark.parametrize(
    "function, error",
    [
        (lambda x: (x - 1).log(), ValueError),
        (lambda x: x / 0, ZeroDivisionError),
        (lambda x: (x * 0) ** -1, ZeroDivisionError),
        (lambda x: (x * 0) ** 0.5, ZeroDivisionError),
        (lambda x: (-x) ** 0.5, TypeError),
        (lambda x: x ** Value(2.0), TypeError),
        (lambda x: 2**x, TypeError),
        (lambda x: (x * 10_000).exp(), OverflowError),
    ],
)
def test_numbers_raise_what_python_raises(function, error):
    with pytest.raises(error):
        function(Value(0.5))


def test_sum_needs_no_node_for_its_zero():
    a, b = Value(1.0), Value(2.0)
    total = sum([a, b])
    assert total.children == (a, b) and sum([a]) is a


def test_a_graph_needs_no_garbage_collector():
    gc.collect()
    gc.disable()
    try:
        before = sum(type(thing) is Value for thing in gc.get_objects())
        for _ in range(3):
            model = MLP(2, [3, 1])
            model([1.0, 2.0]).backward()
        del model
        assert sum(type(thing) is Value for thing in gc.get_objects()) == before
    finally:
        gc.enable()


@pytest.mark.parametrize("given", [1, 2, 4])
def test_wrong_number_of_inputs_is_named(given):
    for model in (MLP(3, [2, 1]), Layer(3, 2), Neuron(3)):
        with pytest.raises(ValueError, match=f"3 inputs are needed, {given} were given"):
            model([1.0] * given)


# ----------------------------------------------------------------------------- networks and graphs


def test_the_loop_of_the_lecture_works_word_for_word():
    n = MLP(3, [4, 4, 1], rng=np.random.default_rng(0))
    xs = [[2.0, 3.0, -1.0], [3.0, -1.0, 0.5], [0.5, 1.0, 1.0], [1.0, 1.0, -1.0]]
    ys = [1.0, -1.0, -1.0, 1.0]
    for _ in range(300):
        ypred = [n(x) for x in xs]
        loss = Value(0)
        for ygt, yout in zip(ys, ypred):
            loss += (yout - ygt) ** 2
        assert loss.data == sum((yout - ygt) ** 2 for ygt, yout in zip(ys, ypred)).data
        for p in n.parameters():
            p.grad = 0.0
        loss.backward()
        for p in n.parameters():
            p.data += -0.05 * p.grad
    assert loss.data < 0.01


def test_modules():
    model = MLP(3, [4, 4, 1])
    assert len(model.parameters()) == 41
    assert isinstance(model([1, 2.0, Value(3)]), Value)
    assert isinstance(MLP(2, [1, 1, 1])([1, 2]), Value)
    assert [len(Layer(2, nout)([1, Value(2)])) for nout in (1, 3)] == [1, 3]
    assert Neuron(2, "relu")([0, 0]).data >= 0 and abs(Neuron(2)([1e3, 1e3]).data) <= 1
    linear, rng = Neuron(2, "linear", np.random.default_rng(5)), np.random.default_rng(5)
    w, b = rng.uniform(-1, 1, 2), rng.uniform(-1, 1)
    assert linear([3.0, 4.0]).data == pytest.approx(3 * w[0] + 4 * w[1] + b)
    model([1.0, 2.0, 3.0]).backward()
    assert any(p.grad for p in model.parameters())
    model.zero_grad()
    assert not any(p.grad for p in model.parameters())
    with pytest.raises(KeyError):
        Neuron(2, "sigmoid")


@pytest.mark.parametrize("model", [MLP(2, [16, 16, 1], rng=0), Layer(2, 16, rng=0)])
def test_no_two_neurons_of_an_integer_seed_are_alike(model):
    weights = [p.data for p in model.parameters()]
    assert len(set(weights)) == len(weights)


def test_training_yields_the_loss_before_each_step_and_after_the_last():
    model, rate = MLP(3, [2, 1], rng=0), np.float64(0.01)
    first = micrograd.squared_error(model).data
    losses = [*micrograd.train(model, micrograd.squared_error, 5, lambda done: rate)]
    assert losses[0] == first and losses[-1] == micrograd.squared_error(model).data
    assert len(losses) == 6 and losses == sorted(losses, reverse=True)


def test_graph_names_values_gradients_labels_and_operations(tmp_path):
    neuron = lecture_neuron()
    neuron.backward()
    text = graph(neuron)
    assert text == graph(neuron) and text.startswith("digraph {") and text.endswith("}\n")
    assert '[label="{ o | data 0.7071 | grad 1.0 }"]' in text
    assert '[label="{ x1 | data 2.0 | grad -1.5 }"]' in text
    assert text.count('label="*"') == 2 and text.count('label="+"') == 2
    assert text.count("->") == 14
    assert invoke("--graph", tmp_path / "neuron.dot").exit_code == 0
    assert (tmp_path / "neuron.dot").read_text() == text


# ------------------------------------------------------------------------------------ command line


def test_the_story_fits_a_screen():
    result = invoke()
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and result.stderr == "" and len(lines) < 30
    assert max(map(len, lines)) <= 80
    assert lines[0] == "L = (a*b + c) * f = -8"
    derivatives = [line.split() for line in lines[3:7]]
    assert [row[0] for row in derivatives] == list("abcf")
    assert all(float(row[2]) == pytest.approx(float(row[3])) for row in derivatives)
    rows = re.findall(r"^ {5,}(\d+) +(\d\.\d{4})$", result.stdout.split("target")[0], re.M)
    assert [int(step) for step, _ in rows] == [*range(0, 21, 2)]
    losses = [float(loss) for _, loss in rows]
    assert losses == sorted(losses, reverse=True)
    for line in lines[-4:]:
        target, prediction = map(float, line.split())
        assert target * prediction > 0.5


@pytest.mark.parametrize("steps", [0, 1, 7, 25, 999])
def test_no_number_of_steps_prints_more_than_60_lines(steps):
    lines = invoke("--steps", steps).stdout.splitlines()
    assert len(lines) <= 60 and f"{steps:9,}" in "".join(lines)


def test_moons_are_separated_within_40_steps():
    result = invoke("--dataset", "moons", "--steps", 40)
    assert result.exit_code == 0 and "100% of the points are on the right side" in result.output
    assert re.search(r"^ +40 +0\.0\d+$", result.output, re.M)
    assert max(map(len, result.output.splitlines())) <= 80
    picture = result.output.splitlines()[-22:]
    assert set("".join(picture)) == set(".#xo") and {len(line) for line in picture} == {72}


def test_a_diverging_loss_prints_one_line():
    result = invoke("--lr", "1e6", "--dataset", "moons")
    message = r"Error: the loss diverged at step \d+: try a lower --lr\n"
    assert result.exit_code == 1 and re.fullmatch(message, result.stderr)


def test_importing_leaves_the_garbage_collector_on_and_the_command_switches_it_off():
    code = "import gc, micrograd; print(gc.isenabled()); micrograd.main([], standalone_mode=False)"
    command = [sys.executable, "-c", code + "; print(gc.isenabled())"]
    output = subprocess.run(command, capture_output=True, text=True, cwd=SCRIPT.parent).stdout
    assert output.startswith("True\n") and output.endswith("False\n")


@pytest.fixture(autouse=True)
def garbage_collector():
    yield
    gc.enable()
