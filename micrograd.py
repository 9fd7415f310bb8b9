#!/usr/bin/env -S uv run --script
"""Stage 1: an autograd engine, and a neural network on top of it.

Every Value is a number that remembers the Values it was computed from, and its slope with respect
to each of them: its local derivative. For L = f(u) with u = g(x), the chain rule says

    dL/dx = dL/du * du/dx      the gradient of the node above * the slope along the edge

and where x is used several times, the contributions add up. `backward` applies this once to every
edge of the graph, from the result down to the leaves: reverse-mode automatic differentiation.
After Andrej Karpathy's micrograd and the lecture "The spelled-out intro to neural networks".

    python micrograd.py                        derivatives, and train a network in 20 steps
    python micrograd.py --dataset moons        separate two half moons
    python micrograd.py --gradcheck            check every operation, after you changed a line
    python micrograd.py --graph neuron.dot     the graph of a neuron, for graphviz
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=2.2", "click>=8.2"]
# ///

import gc
import math
import os
import re
import sys
from operator import mul
from pathlib import Path

try:
    import click
    import numpy as np
except ImportError as error:
    sys.exit(f"Error: {error}. Needed: Python 3.11 or newer with numpy and click, see README.md")

# ----------------------------------------------------------------------------------------- engine


class Value:
    """A number that knows how it was computed.

    data: the number. grad: derivative of the result with respect to this Value, where the result
    is the Value on which backward() was called. children: the Values it was computed from.
    slopes: its derivative with respect to each of them, evaluated when the Value was made: after
    changing data, compute the result again.

    In the lecture, every operation defines a function `_backward` that applies the chain rule to
    its own children. The chain rule is always the same, only the slopes differ: here an operation
    states its slopes, and the chain rule is written only once, in backward().

    Operations compute with Python's floats, whatever type of number was assigned to data.
    """

    __slots__ = ("data", "grad", "children", "slopes", "op", "label")
    __array_ufunc__ = None  # NumPy numbers leave `number + value` to Value.__radd__

    def __init__(self, data, children=(), slopes=(), op="", label=""):
        self.data = float(data + 0.0)  # a TypeError for "3", which float alone would accept
        self.grad = 0.0
        self.children = children
        self.slopes = slopes
        self.op = op
        self.label = label

    def __repr__(self):
        return f"Value(data={self.data}, grad={self.grad})"

    def __add__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        x, y = float(self.data), float(other.data)
        return Value(x + y, (self, other), (1.0, 1.0), "+")

    def __sub__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        x, y = float(self.data), float(other.data)
        return Value(x - y, (self, other), (1.0, -1.0), "-")

    def __mul__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        x, y = float(self.data), float(other.data)
        return Value(x * y, (self, other), (y, x), "*")

    def __truediv__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        x, y = float(self.data), float(other.data)
        return Value(x / y, (self, other), (1 / y, -x / y / y), "/")

    def __pow__(self, other):
        exponent = other if isinstance(other, Value) else Value(other)
        x, y = float(self.data), float(exponent.data)
        if x == 0 and y < 1:  # a root of 0 has a vertical tangent; x**0 is constant
            x_slope = math.inf if y else 0.0
        else:
            x_slope = y * x ** (y - 1)
        if exponent is not other:  # a plain number has no slope
            return Value(x**y, (self,), (x_slope,), f"**{y:g}")
        if x > 0:
            y_slope = x**y * math.log(x)
        else:  # 0**y is constant; below 0, x**y is real at whole numbers y only
            y_slope = 0.0 if x == 0 else math.nan
        return Value(x**y, (self, other), (x_slope, y_slope), "**")

    def __neg__(self):
        return Value(-float(self.data), (self,), (-1.0,), "neg")

    def __radd__(self, other):
        if type(other) is int and other == 0:  # sum() starts with 0
            return self
        return Value(other) + self

    def __rsub__(self, other):
        return Value(other) - self

    __rmul__ = __mul__

    def __rtruediv__(self, other):
        return Value(other) / self

    def __rpow__(self, other):
        return Value(other) ** self

    def tanh(self):
        t = math.tanh(self.data)
        return Value(t, (self,), (1 - t * t,), "tanh")

    def relu(self):
        x = self.data
        slope = 1.0 if x > 0 else 0.0 if x <= 0 else math.nan
        return Value(max(x, 0.0), (self,), (slope,), "relu")

    def exp(self):
        e = math.exp(self.data)
        return Value(e, (self,), (e,), "exp")

    def log(self):
        x = float(self.data)
        return Value(math.log(x), (self,), (1 / x,), "log")

    def backward(self):
        """For every leaf below self, add d(self)/d(leaf) to leaf.grad.

        A leaf keeps its grad until it is set to 0, so that several losses can add up in it.
        Forgetting to set it to 0 between two training steps is the classic mistake:

            a = Value(3.0)
            (a * a).backward()  # a.grad is 6
            (a * a).backward()  # a.grad is 12

        The grads of the nodes in between are overwritten by each call.
        """
        # A node may pass its gradient on only when it has all of it: after every node that was
        # computed from it. So list the nodes with children, each once, children before parents, and
        # go through the list in reverse. The lecture's sort is recursive, too deep for a chain of a
        # thousand additions; here a stack holds (node, are its children listed?).
        order, seen, stack = [], set(), [(self, False)]
        while stack:
            node, children_listed = stack.pop()
            if children_listed:
                order.append(node)
            elif node.children and node not in seen:
                seen.add(node)
                node.grad = 0.0
                stack.append((node, True))
                for child in node.children:
                    if child.children and child not in seen:
                        stack.append((child, False))
        self.grad += 1.0
        for node in reversed(order):
            if node.grad:  # nothing to pass on below a relu that is 0
                for child, slope in zip(node.children, node.slopes):
                    child.grad += slope * node.grad


def dot(weights, inputs, bias):
    """w·x + b as one node with 2n + 1 children for n inputs, which are numbers or Values.

    One node may be any function whose slopes you know: tanh in the lecture, here also w·x + b, with
    the slopes x for w, w for x and 1 for b. Built from * and + it would take 2n nodes and give the
    same numbers; a network spends most of its time making nodes. As a neuron does without __mul__,
    a mistake there leaves the lecture's training as it was, but --gradcheck tells.

    Raises ValueError if there are more or fewer inputs than weights.
    """
    if len(inputs) != len(weights):
        raise ValueError(f"{len(weights)} inputs are needed, {len(inputs)} were given")
    inputs = [each if isinstance(each, Value) else Value(each) for each in inputs]
    w, x = [weight.data for weight in weights], [each.data for each in inputs]
    total = sum(map(mul, w, x), bias.data)
    if type(total) is not float:  # a NumPy number, perhaps of low precision, was assigned to data
        for each in (*weights, *inputs, bias):
            each.data = float(each.data)
        return dot(weights, inputs, bias)
    return Value(total, (*weights, *inputs, bias), (*x, *w, 1.0), "w·x+b")


# -------------------------------------------------------------------------------- neural networks


def linear(x):
    return x


ACTIVATIONS = {"tanh": Value.tanh, "relu": Value.relu, "linear": linear}


class Module:
    """The parameters of a module are those of its parts; a Neuron has its own."""

    def parameters(self):
        parameters = [parameter for part in self.parts for parameter in part.parameters()]
        return [*dict.fromkeys(parameters)]  # each once, even if a part is used twice

    def zero_grad(self):
        for parameter in self.parameters():
            parameter.grad = 0.0


class Neuron(Module):
    """activation(w·x + b), with weights and bias drawn from U(-1, 1).

    rng: a NumPy generator, or a seed. Called with nin numbers or Values.
    """

    def __init__(self, nin, activation="tanh", rng=None):
        rng = np.random.default_rng(rng)
        self.w = [Value(w) for w in rng.uniform(-1, 1, nin)]
        self.b = Value(rng.uniform(-1, 1))
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation is one of {', '.join(ACTIVATIONS)}, not {activation!r}")
        self.activation = ACTIVATIONS[activation]

    def __call__(self, x):
        return self.activation(dot(self.w, x, self.b))

    def parameters(self):
        return [*self.w, self.b]


class Layer(Module):
    """nout neurons with the same inputs; returns the list of their nout outputs."""

    def __init__(self, nin, nout, activation="tanh", rng=None):
        rng = np.random.default_rng(rng)  # one for all neurons: no two draw the same weights
        self.parts = [Neuron(nin, activation, rng) for _ in range(nout)]

    def __call__(self, x):
        # Numbers become Values here, once for all neurons; dot() would do it in each of them.
        x = [each if isinstance(each, Value) else Value(each) for each in x]
        return [neuron(x) for neuron in self.parts]


class MLP(Module):
    """Layers of nouts neurons, one after another; the last has an activation of its own.

    Returns a Value if the last layer has one neuron, otherwise a list.
    """

    def __init__(self, nin, nouts, activation="tanh", output="tanh", rng=None):
        rng = np.random.default_rng(rng)
        Neuron(0, activation)  # refuse an unknown one also where there is no hidden layer
        self.parts = []
        for nout in nouts[:-1]:
            self.parts.append(Layer(nin, nout, activation, rng))
            nin = nout
        self.parts.append(Layer(nin, nouts[-1], output, rng))

    def __call__(self, x):
        for layer in self.parts:
            x = layer(x)
        return x[0] if len(x) == 1 else x


def train(model, loss_function, X, Y, steps, lr, decay=0.0):
    """Gradient descent: yields (steps done, loss) before each step and after the last.

    The loss is loss_function(model, X, Y). The learning rate falls in a straight line from lr
    towards (1 - decay) * lr.
    """
    for step in range(steps):
        loss = loss_function(model, X, Y)
        yield step, loss.data
        model.zero_grad()
        loss.backward()
        rate = float(lr) * (1 - decay * step / steps)
        for p in model.parameters():
            p.data -= rate * p.grad
    yield steps, loss_function(model, X, Y).data


# ------------------------------------------------------------------- the examples of the lecture


def expression(a=2.0, b=-3.0, c=10.0, f=-2.0):
    """The lecture's L = (a*b + c) * f, in steps -> L, [a, b, c, f, e, d]."""
    a, b, c, f = Value(a, label="a"), Value(b, label="b"), Value(c, label="c"), Value(f, label="f")
    e = a * b
    d = e + c
    L = d * f
    e.label, d.label, L.label = "e", "d", "L"
    return L, [a, b, c, f, e, d]


def lecture_neuron(one_node=False, tanh=Value.tanh):
    """The lecture's o = tanh(x1*w1 + x2*w2 + b), after backward() -> o, [x1, w1, x2, w2, b]."""
    x1, x2 = Value(2.0, label="x1"), Value(0.0, label="x2")
    w1, w2 = Value(-3.0, label="w1"), Value(1.0, label="w2")
    b = Value(6.8813735870195432, label="b")
    n = dot([w1, w2], [x1, x2], b) if one_node else x1 * w1 + x2 * w2 + b
    o = tanh(n)
    n.label, o.label = "n", "o"
    o.backward()
    return o, [x1, w1, x2, w2, b]


def data_and_gradients(o, leaves):
    return [o.data, *(leaf.grad for leaf in leaves)]


def tanh_from_exp(n):
    """tanh(n) = (exp(2n) - 1) / (exp(2n) + 1), from single operations."""
    e = (2 * n).exp()
    return (e - 1) / (e + 1)


XS = [[2.0, 3.0, -1.0], [3.0, -1.0, 0.5], [0.5, 1.0, 1.0], [1.0, 1.0, -1.0]]
YS = [1.0, -1.0, -1.0, 1.0]


def squared_error(model, X, Y):
    """The sum of (prediction - target)^2 over the samples."""
    return sum((model(x) - y) ** 2 for x, y in zip(X, Y))


# ------------------------------------------------------------------------------- two half moons


def make_moons(rng, count=100, noise=0.1):
    """Two interleaved half circles -> X (count, 2), Y (count,) of -1 and 1."""
    upper, lower = np.array_split(rng.uniform(0, np.pi, count), 2)
    across = np.concatenate([np.cos(upper), 1 - np.cos(lower)])
    up = np.concatenate([np.sin(upper), 0.5 - np.sin(lower)])
    X = np.stack([across, up], axis=1) + rng.normal(0, noise, (count, 2))
    return X, np.repeat([-1.0, 1.0], [len(upper), len(lower)])


def margin_loss(model, X, Y, alpha=1e-4):
    """mean of max(0, 1 - y * score), plus alpha times the sum of all squared parameters."""
    parameters = model.parameters()
    losses = [(1 - y * model(x)).relu() for x, y in zip(X.tolist(), Y.tolist())]
    return sum(losses) / len(losses) + alpha * dot(parameters, parameters, Value(0.0))


def scores(model, X):
    """The model's outputs for the rows of X (N, 2) -> (N,)."""
    return np.array([model(x).data for x in X.tolist()])


# ------------------------------------------------------------------------------ checking gradients

FUNCTIONS = {"tanh": math.tanh, "relu": lambda x: max(x, 0.0), "exp": math.exp, "log": math.log}
OPERATIONS = [
    *("x + y + 3", "x - y - 3", "x * y * 3", "x / y / 3", "x ** y", "x ** 3", "x ** -0.5"),
    *("1 + (3 + x)", "3 - x", "3 * x", "3 / x", "3 ** x", "-x"),
    *(f"{name}(x)" for name in FUNCTIONS),
    *("dot([x, y], [y, 3], x)", "x * x + x", "ladder(x, x * y)"),
]
POINTS = [(2.3, 3.1), (0.6, -1.7), (-1.7, 0.6), (-3.3, -0.7)]


def ladder(x, y):
    """y is used at every depth: it has all of its gradient only when all nodes above are done."""
    z = x * y
    for _ in range(3):
        z = y - z * y
        z = z / 3 + y
    return y * z


ON_VALUES = {name: getattr(Value, name) for name in FUNCTIONS} | {"dot": dot, "ladder": ladder}
ON_NUMBERS = FUNCTIONS | {
    "dot": lambda w, x, b: w[0] * x[0] + w[1] * x[1] + b,
    "ladder": ladder,
}


def relative_error(found, expected):
    """The largest difference over the largest expected number (at least 1e-4); inf for nan."""
    found, expected = np.array(found), np.array(expected)
    error = np.abs(found - expected).max() / np.abs(expected).max(initial=1e-4)
    return math.inf if math.isnan(error) else error


def check_operation(text, h=1e-6):
    """Compare an expression of the Values x and y with the same of numbers -> relative error.

    Its gradients are compared with central differences, (f(x + h) - f(x - h)) / 2h.
    """

    def f(x, y):
        return eval(text, ON_NUMBERS, {"x": x, "y": y})

    found, expected = [], []
    for a, b in POINTS:
        if a < 0 and text in ("log(x)", "x ** y", "x ** -0.5"):  # not real
            continue
        x, y = Value(0.0), Value(0.0)
        x.data, y.data = np.float16([a, b])  # the engine computes with floats nevertheless
        result = eval(text, ON_VALUES, {"x": x, "y": y})
        result.backward()
        found += [result.data, x.grad, y.grad]
        a, b = float(x.data), float(y.data)
        dx, dy = f(a + h, b) - f(a - h, b), f(a, b + h) - f(a, b - h)
        expected += [f(a, b), dx / (2 * h), dy / (2 * h)]
    return relative_error(found, expected)


def check_training(model, loss_function, X, Y, h=1e-6):
    """Compare two steps of train with parameter - rate * central difference -> relative error."""
    parameters, found, expected = model.parameters(), [], []
    training = train(model, loss_function, X, Y, 2, 0.5, decay=0.5)
    next(training)
    for rate in (0.5, 0.375):  # 0.5 * (1 - decay * done)
        for p in parameters:
            x = p.data
            p.data = x + h
            above = loss_function(model, X, Y).data
            p.data = x - h
            below = loss_function(model, X, Y).data
            p.data = x
            expected.append(x - rate * (above - below) / (2 * h))
        next(training)
        found += [p.data for p in parameters]
    return relative_error(found, expected)


def check_gradients():
    """Check operations, backward and networks -> {what is checked: relative error}."""
    errors = {text: check_operation(text) for text in OPERATIONS}

    x, y, z, root = Value(0.0), Value(2.0), Value(-2.0), Value(0.0)
    for result in (x**0, x**1, x**y, x.relu(), z**3, z ** Value(3.0), root**0.5):
        result.backward()
    found = [x.grad, y.grad, z.grad, 1 / root.grad]  # 0 + 1 + 0 + 0, 0, 12 + 12, 1 / inf
    v, w = Value(3.0), Value(math.nan)  # two without a slope
    for result in (Value(-2.0) ** v, w.relu()):
        result.backward()
    found += [math.isnan(v.grad), math.isnan(w.grad)]
    errors["at 0 and below"] = relative_error(found, [1, 0, 24, 0, True, True])

    a, b = Value(2.0), Value(3.0)
    product = a * b
    square = product**2
    for result in (square, square, a):  # leaves add up, the node in between starts again
        result.backward()
    errors["backward twice"] = relative_error([a.grad, b.grad, product.grad], [73, 48, 12])

    one, many = lecture_neuron(one_node=True), lecture_neuron()
    errors["neuron as one node"] = relative_error(
        data_and_gradients(*one), data_and_gradients(*many)
    )

    model = MLP(3, [3, 3, 1], rng=5)
    model.parts.insert(2, model.parts[1])  # used twice, it moves once all the same
    errors["training, tanh"] = check_training(model, squared_error, XS, YS)
    moons = make_moons(np.random.default_rng(9), 8)
    model = MLP(2, [4, 4, 1], "relu", "linear", rng=9)
    errors["training, relu"] = check_training(model, margin_loss, *moons)
    return errors


def report(errors, brief=False):
    """Print a row for each error, or only for those that are wrong.

    Raises click.ClickException if an error is not below 1e-6.
    """
    click.echo(
        f"{len(errors)} checks (--gradcheck shows each)"
        if brief
        else "checked                largest error"
    )
    for name, error in errors.items():
        if not (brief and error < 1e-6):
            click.echo(f"{name:22}{error:14.1e}  {'ok' if error < 1e-6 else 'WRONG'}")
    if wrong := [name for name, error in errors.items() if not error < 1e-6]:
        raise click.ClickException(f"wrong gradients: {', '.join(wrong)}")
    click.echo("every gradient agrees with central differences within 1e-6")


# --------------------------------------------------------------------------------------- pictures


def graph(root):
    """The graph below root in graphviz's language: values as boxes, operations as ellipses."""

    def escape(label):  # characters with a meaning of their own in a box
        return re.sub(r'([\\{}|<>"])', r"\\\1", label.replace("&", "&amp;"))

    nodes = {root: 0}  # in the order in which they are found
    for node in (queue := [root]):
        for child in node.children:
            if child not in nodes:
                nodes[child] = len(nodes)
                queue.append(child)
    lines = ["digraph {", "  rankdir=LR;", "  node [shape=record];"]
    for node, i in nodes.items():
        numbers = f"data {round(node.data, 4)} | grad {round(node.grad, 4)}"
        lines.append(f'  v{i} [label="{{ {escape(node.label)} | {numbers} }}"];')
        if node.op:
            lines.append(f'  o{i} [label="{node.op}", shape=ellipse];')
            lines.append(f"  o{i} -> v{i};")
            lines += [f"  v{nodes[child]} -> o{i};" for child in node.children]
    return "\n".join([*lines, "}", ""])


def boundary(model, X, Y, columns=72, rows=22):
    """The plane as text: `#` where the score is positive, the samples as `x` (1) and `o` (-1)."""
    low, high = X.min(axis=0) - 0.3, X.max(axis=0) + 0.3
    across, down = np.linspace(low[0], high[0], columns), np.linspace(high[1], low[1], rows)
    grid = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)  # (rows * columns, 2)
    picture = np.where(scores(model, grid) > 0, "#", ".").reshape(rows, columns)
    at = np.rint((X - low) / (high - low) * [columns - 1, rows - 1]).astype(int)  # (N, 2)
    picture[rows - 1 - at[:, 1], at[:, 0]] = np.where(Y > 0, "x", "o")
    return "\n".join("".join(line) for line in picture)


def draw_boundary(path, model, X, Y):
    """The two moons, and the two regions into which the model divides the plane."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    low, high = X.min(axis=0) - 0.3, X.max(axis=0) + 0.3
    across, up = np.meshgrid(*(np.linspace(low[i], high[i], 80) for i in (0, 1)))  # (80, 80)
    score = scores(model, np.stack([across.ravel(), up.ravel()], axis=1)).reshape(across.shape)
    axes.contourf(across, up, score > 0, levels=1, colors=["C0", "C1"], alpha=0.3)
    for target, color in ((-1, "C0"), (1, "C1")):
        axes.scatter(*X[Y == target].T, c=color, edgecolors="black", label=f"target {target:+}")
    axes.set(xlabel="x1", ylabel="x2", title="Orange: the score is positive. Blue: negative")
    axes.legend()
    figure.savefig(path)


# ----------------------------------------------------------------------------------- command line


def show_derivatives(h=1e-6):
    inputs = [2.0, -3.0, 10.0, -2.0]  # a, b, c, f
    L, values = expression(*inputs)
    L.backward()
    click.echo(f"L = (a*b + c) * f = {L.data:g}, in steps: e = a*b, d = e + c, L = d*f\n")
    click.echo("value    data   dL/dvalue  central difference")
    for i, each in enumerate(values):
        numeric = ""
        if i < 4:
            above, below = inputs.copy(), inputs.copy()
            above[i] += h
            below[i] -= h
            slope = (expression(*above)[0].data - expression(*below)[0].data) / (2 * h)
            numeric = f"{slope:20.6g}"
        click.echo(f"{each.label:5}{each.data:8g}{each.grad:12g}{numeric}")
    *leaves, _, d = values
    dd_dc = d.slopes[1]
    click.echo(f"\nchain rule: dL/dc = dL/dd * dd/dc = {d.grad:g} * {dd_dc:g} = {d.grad * dd_dc:g}")
    stepped, _ = expression(*(leaf.data + 0.01 * leaf.grad for leaf in leaves))
    click.echo("a, b, c and f each moved by 0.01 times its derivative: ", nl=False)
    click.echo(f"L = {stepped.data:.4f}")

    click.echo("\no = tanh(x1*w1 + x2*w2 + b)   o   do/dx1   do/dw1   do/dx2   do/dw2    do/db")
    ways = {
        "from single operations": lecture_neuron(),
        "w·x+b as one node": lecture_neuron(one_node=True),
        "tanh built from exp": lecture_neuron(tanh=tanh_from_exp),
    }
    for name, neuron in ways.items():
        click.echo(
            f"{name:22}" + "".join(f"{number:9.4f}" for number in data_and_gradients(*neuron))
        )


def fit(model, loss_function, X, Y, steps, lr, decay=0.0):
    """Train, and print the loss at eleven steps, or fewer.

    Raises click.ClickException if the loss diverges.
    """
    losses, hint = [], "try a lower --lr, or --gradcheck if you changed the code"
    click.echo("     step      loss")
    for step, loss in train(model, loss_function, X, Y, steps, lr, decay):
        if not math.isfinite(loss):
            raise click.ClickException(f"the loss diverged at step {step:,}: {hint}")
        if step % math.ceil(steps / 10 or 1) == 0 or step == steps:
            click.echo(f"{step:9,} {loss:9.4f}")
        losses.append(loss)
    if losses[-1] > losses[0]:
        click.echo(f"The loss rose: {hint}.", err=True)


def show_lecture(rng, steps, lr):
    model = MLP(3, [4, 4, 1], rng=rng)
    click.echo(f"\nMLP(3, [4, 4, 1]) on four samples, {len(model.parameters())} parameters")
    fit(model, squared_error, XS, YS, steps, lr)
    click.echo("\ntarget  prediction")
    for x, y in zip(XS, YS):
        click.echo(f"{y:6.0f}{model(x).data:12.4f}")


def show_moons(rng, steps, lr, plot):
    X, Y = make_moons(rng)
    model = MLP(2, [16, 16, 1], "relu", "linear", rng)
    click.echo(f"MLP(2, [16, 16, 1]) on 100 points, {len(model.parameters())} parameters")
    if plot:
        draw_boundary(plot, model, X, Y)  # fail early if it cannot be drawn
    fit(model, margin_loss, X, Y, steps, lr, decay=0.9)
    accuracy = np.mean((scores(model, X) > 0) == (Y > 0))
    click.echo(f"\n{accuracy:.0%} of the points are on the right side: x (target 1) where the")
    click.echo("score is positive (#), o (target -1) where it is negative (.)\n")
    click.echo(boundary(model, X, Y))
    if plot:
        draw_boundary(plot, model, X, Y)


def positive(text):
    """Read a positive real number from the command line."""
    if not 1e-6 <= float(text) <= 1e6:
        raise click.BadParameter(f"{text} is not between 1e-6 and 1e6.")
    return float(text)


STEPS, FILE = click.IntRange(0, 10**6), click.Path(dir_okay=False, resolve_path=True)
DATASETS = {"lecture": (20, 0.05), "moons": (100, 1.0)}  # defaults of steps and lr


@click.command(context_settings={"show_default": True})
@click.option("--dataset", type=click.Choice([*DATASETS]), default="lecture", help="Training data.")
@click.option("--steps", type=STEPS, show_default="20, moons 100", help="Training steps.")
@click.option("--lr", type=positive, show_default="0.05, moons 1.0", help="Learning rate.")
@click.option("--seed", type=click.IntRange(0), default=42, help="Random seed.")
@click.option("--plot", type=FILE, help="Picture of the moons to draw (needs matplotlib).")
@click.option("--graph", "graph_path", type=FILE, help="Write the graph of a neuron and exit.")
@click.option("--gradcheck", is_flag=True, help="Check every operation and exit.")
def main(dataset, steps, lr, seed, plot, graph_path, gradcheck):
    """Compute derivatives with an autograd engine, and train small networks with it."""
    if gradcheck:
        return report(check_gradients())
    if graph_path is not None:
        neuron, _ = lecture_neuron()
        Path(graph_path).write_text(graph(neuron), encoding="utf-8")
        return click.echo(f"dot -Tsvg {graph_path} -o neuron.svg    draws the graph")
    if plot and dataset != "moons":
        raise click.UsageError("--plot needs --dataset moons")
    if plot and os.path.splitext(plot)[1] not in (".png", ".svg", ".pdf"):
        raise click.BadParameter("not a .png, .svg or .pdf file", param_hint="--plot")
    default_steps, default_lr = DATASETS[dataset]
    steps, lr = default_steps if steps is None else steps, lr or default_lr
    rng = np.random.default_rng(seed)
    collecting = gc.isenabled()
    gc.disable()  # graphs have no cycles: reference counting frees them, and takes half the time
    try:
        if dataset == "moons":
            return show_moons(rng, steps, lr, plot)
        show_derivatives()
        show_lecture(rng, steps, lr)
        click.echo()
        report(check_gradients(), brief=True)
    finally:
        if collecting:
            gc.enable()


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):  # not so in a notebook
        sys.stdout.reconfigure(errors="replace")  # a character that the terminal lacks becomes a ?
    try:
        main()
    except ImportError as error:  # of matplotlib
        sys.exit(f"Error: {error}: pip install {error.name}")
    except (MemoryError, OSError) as error:
        sys.exit(f"Error: {str(error) or 'out of memory'}")
