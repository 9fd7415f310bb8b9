"""Facts about the autograd engine, the networks on top of it, and micrograd.py's command line."""

import cmath
import contextlib
import gc
import io
import math
import pickle
import random
import re
import subprocess
import sys
import threading
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

import micrograd
from micrograd import MLP, XS, YS, Layer, Neuron, Value, dot, expression, graph, lecture_neuron

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
    L, values = expression()
    L.backward()
    assert L.data == -8 and [each.grad for each in values] == [6, -4, -2, 4, -2, -2]


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
    *((function, 1) for function in (lambda x: 2**x, lambda x: np.float64(0.3) ** x)),
    (lambda x, y: (x * x + 0.1) ** y, 2),
    *((function, 1) for function in (lambda x: -x, lambda x: 3 - x, lambda x: 2 / x)),
    *((function, 1) for function in (lambda x: 3 + x, lambda x: 2 * x)),
    *((function, 2) for function in (lambda x, y: x + y, lambda x, y: x - y)),
    *((function, 2) for function in (lambda x, y: x * y, lambda x, y: x / y)),
    (together, 5),
]


def test_random_graphs_match_complex_step_differentiation():
    """For an analytic f, f'(x) = imag f(x + ih) / h without any cancellation, for h = 1e-30."""
    rng, checked = random.Random(0), 0
    for _ in range(1500):
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
    assert checked > 1500


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
    (a * 5).backward()
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
    a, b, w = Value(2.0), Value(3.0), np.float16(0.3)
    a.data = np.uint8(200)
    assert [(a + a).data, (a * a).data, (-a).data, (3 - a).data] == [400, 40000, -200, -197]
    assert (a**2).data == 40000 and (1 / a).data == 1 / 200
    b.data = w
    for out in (a + b, a * b, dot([b], [a], b), dot([a], [b], Value(0.0)), b.log(), b.relu()):
        out.backward()
        assert {type(each) for each in (out.data, a.grad, b.grad)} == {float}
    assert dot([b], [b], Value(0.1)).data == 0.1 + float(w) ** 2


def test_a_numpy_rate_of_low_precision_trains_in_double_precision():
    nets = [MLP(3, [2, 1], rng=0) for _ in range(2)]
    for net, lr in zip(nets, (0.125, np.float32(0.125))):
        assert len([*micrograd.train(net, micrograd.squared_error, XS, YS, 3, lr)]) == 4
    assert [p.data for p in nets[0].parameters()] == [p.data for p in nets[1].parameters()]


@pytest.mark.parametrize(
    "x, y, power, x_slope, y_slope",
    [
        (2.0, 3.0, 8, 12, 8 * math.log(2)),
        (-2.0, 3.0, -8, 12, math.nan),  # beside y = 3 there is no real power
        (0.0, 0.5, 0, math.inf, 0),
        (0.0, 0.0, 1, 0, 0),
        (0.0, 1.0, 0, 1, 0),
        (0.0, 2.0, 0, 0, 0),
    ],
)
def test_powers_and_their_slopes(x, y, power, x_slope, y_slope):
    base, exponent = Value(x), Value(y)
    result = base**exponent
    result.backward()
    assert result.data == power and base.grad == x_slope
    assert exponent.grad == pytest.approx(y_slope, nan_ok=True)
    base, exponent = Value(x), Value(y)
    (base**y).backward()
    (x**exponent).backward()
    assert base.grad == x_slope and exponent.grad == pytest.approx(y_slope, nan_ok=True)


def test_a_numpy_exponent_gives_python_floats_in_double_precision():
    root = Value(3.0) ** np.float32(0.5)
    assert root.data == 1.7320508075688772 and type(root.slopes[0]) is float


def test_relu_of_nan_is_nan():
    x = Value(math.nan)
    x.relu().backward()
    assert math.isnan(x.relu().data) and math.isnan(x.grad)


def test_repr_shows_data_and_gradient():
    assert repr(Value(2.0)) == "Value(data=2.0, grad=0.0)"


@pytest.mark.parametrize("wrong", ["3", b"3", None, [1.0], 1j, {}, np.zeros(3)], ids=str)
def test_what_is_no_real_number_is_refused(wrong):
    with pytest.raises((TypeError, ValueError)):
        Value(wrong)
    for operation in ("__add__", "__mul__", "__truediv__", "__pow__", "__sub__", "__rpow__"):
        with pytest.raises((TypeError, ValueError)):
            getattr(Value(1.0), operation)(wrong)


@pytest.mark.parametrize(
    "function, error",
    [
        (lambda x: (x - 1).log(), ValueError),
        (lambda x: x / 0, ZeroDivisionError),
        (lambda x: (x * 0) ** -1, ZeroDivisionError),
        (lambda x: (-x) ** 0.5, TypeError),
        (lambda x: (-2) ** x, TypeError),
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
    losses = []
    for _ in range(20):
        ypred = [n(x) for x in xs]
        loss = Value(0)
        for ygt, yout in zip(ys, ypred):
            loss += (yout - ygt) ** 2
        for p in n.parameters():
            p.grad = 0.0
        loss.backward()
        for p in n.parameters():
            p.data += -0.01 * p.grad
        losses.append(loss.data)
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] / 2


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


@pytest.mark.parametrize(
    "make",
    [
        lambda: Neuron(2, "sigmoid"),
        lambda: Layer(2, 3, "sigmoid"),
        lambda: MLP(2, [1], "sigmoid"),
        lambda: MLP(2, [1], "tanh", "sigmoid"),
        lambda: MLP(2, [1], np.random.default_rng(0)),
        lambda: MLP(2, [1], 42),
    ],
)
def test_an_activation_that_does_not_exist_is_refused_and_those_that_do_are_named(make):
    with pytest.raises(ValueError, match="one of tanh, relu, linear, not .*(sigmoid|PCG64|42)"):
        make()


def test_a_layer_that_is_used_twice_moves_once():
    model = MLP(2, [2, 2, 1], rng=0)
    model.parts[1] = model.parts[0]
    assert len(model.parameters()) == 6 + 3
    p = model.parts[0].parts[0].w[0]
    before = p.data
    assert len([*micrograd.train(model, micrograd.squared_error, [[1, 2]], [1], 1, 0.1)]) == 2
    assert p.data == before - 0.1 * p.grad != before


def test_a_network_survives_pickle():
    model = MLP(2, [3, 1], "relu", "linear", rng=0)
    assert pickle.loads(pickle.dumps(model))([1, 2]).data == model([1, 2]).data


@pytest.mark.parametrize("model", [MLP(2, [16, 16, 1], rng=0), Layer(2, 16, rng=0)])
def test_no_two_neurons_of_an_integer_seed_are_alike(model):
    weights = [p.data for p in model.parameters()]
    assert len(set(weights)) == len(weights)


def test_training_yields_the_loss_before_each_step_and_after_the_last():
    model = MLP(3, [2, 1], rng=0)
    first = micrograd.squared_error(model, XS, YS).data
    steps, losses = zip(*micrograd.train(model, micrograd.squared_error, XS, YS, 5, 0.01))
    assert losses[0] == first and losses[-1] == micrograd.squared_error(model, XS, YS).data
    assert steps == (0, 1, 2, 3, 4, 5) and list(losses) == sorted(losses, reverse=True)


def test_graph_names_values_gradients_labels_and_operations(tmp_path):
    neuron, _ = lecture_neuron()
    text = graph(neuron)
    assert text == graph(neuron) and text.startswith("digraph {") and text.endswith("}\n")
    assert '[label="{ o | data 0.7071 | grad 1.0 }"]' in text
    assert '[label="{ x1 | data 2.0 | grad -1.5 }"]' in text
    assert text.count('label="*"') == 2 and text.count('label="+"') == 2
    assert text.count("->") == 14
    assert invoke("--graph", tmp_path / "neuron.dot").exit_code == 0
    assert (tmp_path / "neuron.dot").read_text() == text


@pytest.mark.parametrize(
    "label, escaped",
    [
        ("w1 > 0", r"w1 \> 0"),
        ("p{1}", r"p\{1\}"),
        ("a|b<c", r"a\|b\<c"),
        ('"', r"\""),
        ("\\n", r"\\n"),
        ("&lt;", "&amp;lt;"),
    ],
)
def test_graph_shows_a_label_as_given(label, escaped):
    assert f'"{{ {escaped} | data 1.0 | grad 0.0 }}"' in graph(Value(1.0, label=label))


# ---------------------------------------------------------------------------------- gradient check


def test_gradcheck_prints_a_row_for_each_thing_checked():
    result = invoke("--gradcheck")
    head, *rows, verdict = result.stdout.splitlines()
    assert result.exit_code == 0 and len(rows) == len(micrograd.check_gradients())
    assert all(re.fullmatch(r"\S.* +\d\.\de-\d\d  ok|\S.* +0\.0e\+00  ok", row) for row in rows)
    assert verdict == "every gradient agrees with central differences within 1e-6"
    for operation in ("x + y", "3 - x", "x ** y", "3 ** x", "tanh", "relu", "exp", "log", "dot"):
        assert any(row.startswith(operation) for row in rows)


@pytest.mark.parametrize("error", [1e-5, math.nan, math.inf])
def test_report_names_what_is_wrong(error):
    with pytest.raises(click.ClickException, match="wrong gradients: b, c$"):
        micrograd.report({"a": 0.0, "b": error, "c": 1.0})


MISTAKES = [  # right, wrong, what the check names
    ("child.grad += slope", "child.grad = slope", "x * x + x"),
    ("(1 - t * t,)", "(1 - t,)", "tanh(x)"),
    ('(y, x), "*")', '(x, y), "*")', "x * y * 3"),
    ("return Value(other) - self", "return self - Value(other)", "3 - x"),
    ("(*x, *w, 1.0)", "(*w, *x, 1.0)", "dot([x, y], [y, 3], x)"),
    ("in reversed(order)", "in order", "ladder(x, x * y)"),
    ("                node.grad = 0.0\n", "", "backward twice"),
    ("elif node.children and node not in seen:", "elif node.children:", "ladder(x, x * y)"),
    ("p.data -= rate", "p.data += rate", "training, tanh"),
    ("        model.zero_grad()\n        loss.b", "        loss.b", "training, tanh"),
]


@pytest.mark.parametrize("right, wrong, name", MISTAKES)
def test_a_mistake_is_told(right, wrong, name):
    source = SCRIPT.read_text(encoding="utf-8")
    assert source.count(right) == 1
    namespace = {"__name__": "mistake"}
    exec(compile(source.replace(right, wrong), "mistake", "exec"), namespace)
    result = CliRunner().invoke(namespace["main"], ["--gradcheck"])
    assert result.exit_code == 1 and "Error: wrong gradients: " in result.stderr
    assert re.search(rf"^{re.escape(name)} .* WRONG$", result.stdout, re.M)


@pytest.mark.parametrize("arguments", [["--gradcheck"], ["--steps", "1"]])
def test_a_mistake_ends_the_process_with_one_line(arguments, tmp_path):
    copy = tmp_path / "micrograd.py"
    source = SCRIPT.read_text(encoding="utf-8").replace("(1 - t * t,)", "(1 + t * t,)")
    copy.write_text(source, encoding="utf-8")
    command = [sys.executable, copy, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert result.returncode == 1 and re.fullmatch("Error: wrong gradients: .*\n", result.stderr)


# ------------------------------------------------------------------------------------ command line


def test_the_story_fits_a_screen():
    result = invoke()
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and result.stderr == "" and len(lines) <= 60
    assert max(map(len, lines)) <= 80
    L, values = expression()
    L.backward()
    assert "-8" in lines[0] and "L = -7.2865" in result.stdout
    for line, value in zip(lines[3:9], values):
        name, *numbers = line.split()
        assert name == value.label and float(numbers[0]) == value.data
        assert set(map(float, numbers[1:])) == {value.grad}
    assert "dL/dc = dL/dd * dd/dc = -2 * 1 = -2" in result.stdout
    neuron = ["0.7071", "-1.5000", "1.0000", "0.5000", "0.0000", "0.5000"]
    assert [line.split()[-6:] for line in lines].count(neuron) == 3
    rows = dict(re.findall(r"^ {7,}(\d+) +(\d\.\d{4})$", result.stdout, re.M))
    assert [*map(int, rows)] == [*range(0, 21, 2)]
    assert (rows["0"], rows["20"]) == ("5.8877", "0.1092")
    predictions = lines[lines.index("target  prediction") + 1 :][:4]
    assert all(float(line.split()[0]) * float(line.split()[1]) > 0.5 for line in predictions)
    assert lines[-1] == "every gradient agrees with central differences within 1e-6"


def rows_of(*arguments):
    return re.findall(r"^ {7,}\d+ +\d+\.\d{4}$", invoke(*arguments).stdout, re.M)


def test_every_option_changes_the_run(monkeypatch):
    monkeypatch.setattr(micrograd, "boundary", lambda *arguments: "")
    usual = rows_of()
    assert rows_of("--seed", 42, "--lr", 0.05, "--steps", 20, "--dataset", "lecture") == usual
    assert rows_of("--seed", 43)[0] != usual[0]
    slow = rows_of("--lr", 0.001)
    assert slow[0] == usual[0] and slow[1] != usual[1]
    assert len(rows_of("--steps", 3)) == 4
    moons = rows_of("--dataset", "moons", "--steps", 1)
    assert moons[0] == "        0    1.5803" and rows_of("--steps", 1)[0] == usual[0]
    assert rows_of("--dataset", "moons", "--steps", 1, "--seed", 1)[0] != moons[0]
    assert rows_of("--dataset", "moons", "--steps", 1, "--lr", 0.1)[1] != moons[1]
    assert "checked" in invoke("--gradcheck").stdout and rows_of("--gradcheck") == []


def test_plot_draws_the_moons(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(micrograd, "scores", lambda model, X: X[:, 1] - 0.2)
    picture = tmp_path / "moons.png"
    assert invoke("--dataset", "moons", "--steps", 0, "--plot", picture).exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("steps", [0, 1, 7, 25, 250])
def test_no_number_of_steps_prints_more_than_60_lines(steps):
    lines = invoke("--steps", steps).stdout.splitlines()
    assert len(lines) <= 60 and f"{steps:9,}" in "".join(lines)


def test_moons_are_separated():
    result = invoke("--dataset", "moons", "--steps", 40)
    assert result.exit_code == 0 and "100% of the points are on the right side" in result.output
    assert re.search(r"^ +40 +0\.0153$", result.output, re.M)
    assert max(map(len, result.output.splitlines())) <= 80
    picture = result.output.splitlines()[-22:]
    assert set("".join(picture)) == set(".#xo") and {len(line) for line in picture} == {72}


def test_a_diverging_loss_prints_one_line():
    result = invoke("--lr", "1e6", "--dataset", "moons")
    hint = "try a lower --lr, or --gradcheck if you changed the code"
    message = rf"Error: the loss diverged at step \d+: {hint}\n"
    assert result.exit_code == 1 and re.fullmatch(message, result.stderr)


@pytest.mark.parametrize("enabled", [True, False])
def test_main_leaves_the_garbage_collector_as_it_was(enabled):
    (gc.enable if enabled else gc.disable)()
    try:
        for arguments in (["--steps", 1], ["--lr", "1e6", "--dataset", "moons"]):
            invoke(*arguments)
            assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_main_runs_in_a_thread_with_redirected_output():
    screen = io.StringIO()  # like a notebook's, it has no reconfigure()
    with contextlib.redirect_stdout(screen):
        call = {"args": [["--steps", "1"]], "kwargs": {"standalone_mode": False}}
        thread = threading.Thread(target=micrograd.main, **call)
        thread.start()
        thread.join()
    assert screen.getvalue().endswith("within 1e-6\n")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_a_closed_stdout_is_no_error():
    command = f'"{sys.executable}" "{SCRIPT}" --steps 1 >&-'
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert result.returncode == 0 and result.stderr == ""
