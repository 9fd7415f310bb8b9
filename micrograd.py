#!/usr/bin/env -S uv run --script
"""Stage 1: an autograd engine, and a neural network on top of it.

Every Value is a number that remembers the Values it was computed from, and its slope with respect
to each of them: its local derivative. For L = f(u) with u = g(x), the chain rule says

    dL/dx = du/dx * dL/du      the slope along the edge * the gradient of the node above

and where x is used several times, the contributions add up. `backward` applies this once to every
edge of the graph, from the result down to the leaves: reverse-mode automatic differentiation.
After Andrej Karpathy's micrograd and the lecture "The spelled-out intro to neural networks".

    python micrograd.py                        derivatives, and a training in 20 steps
    python micrograd.py --dataset moons        separate two half moons
    python micrograd.py --graph neuron.dot     the graph of a neuron, for graphviz
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=2.2", "click>=8.2"]
# ///

import gc
import math
import sys
from operator import mul
from pathlib import Path

import click
import numpy as np

# ----------------------------------------------------------------------------------------- engine


class Value:
    """A number that knows how it was computed.

    data: the number. grad: how fast the Value on which backward() was called changes with this one.
    children: the Values it was computed from. slopes: its derivative with respect to each of them,
    for their data at that time: after changing data, compute the result again.

    In the lecture, every operation defines a function `_backward` that applies the chain rule to
    its own children. The chain rule is always the same, only the slopes differ: here an operation
    states its slopes, and the chain rule stands once, in backward().
    """

    __slots__ = ("data", "grad", "children", "slopes", "op", "label")
    __array_ufunc__ = None  # NumPy numbers leave `number + value` to Value.__radd__

    def __init__(self, data, children=(), slopes=(), op="", label=""):
        self.data = float(data)
        self.grad = 0.0
        self.children = children
        self.slopes = slopes
        self.op = op
        self.label = label

    def __repr__(self):
        return f"Value(data={self.data}, grad={self.grad})"

    def __add__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data + other.data, (self, other), (1.0, 1.0), "+")

    def __sub__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data - other.data, (self, other), (1.0, -1.0), "-")

    def __mul__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data * other.data, (self, other), (other.data, self.data), "*")

    def __truediv__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        quotient = self.data / other.data
        return Value(quotient, (self, other), (1 / other.data, -quotient / other.data), "/")

    def __pow__(self, n):
        slope = n * self.data ** (n - 1) if n else 0.0
        return Value(self.data**n, (self,), (slope,), f"**{n}")

    def __neg__(self):
        return Value(-self.data, (self,), (-1.0,), "neg")

    def __radd__(self, other):
        if type(other) is int and other == 0:  # sum() starts with 0
            return self
        return Value(other) + self

    def __rsub__(self, other):
        return Value(other) - self

    __rmul__ = __mul__

    def __rtruediv__(self, other):
        return Value(other) / self

    def tanh(self):
        t = math.tanh(self.data)
        return Value(t, (self,), (1 - t * t,), "tanh")

    def relu(self):
        return Value(max(self.data, 0.0), (self,), (float(self.data > 0),), "relu")

    def exp(self):
        e = math.exp(self.data)
        return Value(e, (self,), (e,), "exp")

    def log(self):
        return Value(math.log(self.data), (self,), (1 / self.data,), "log")

    def backward(self):
        """For every leaf below self, add d(self)/d(leaf) to leaf.grad.

        A leaf keeps its grad until it is set to 0, so that several losses can add up in it.
        Forgetting to do so between two training steps is the classic mistake:

            a = Value(3.0)
            (a * a).backward()  # a.grad is 6
            (a * a).backward()  # a.grad is 12

        The grads of the nodes in between are overwritten by each call.
        """
        # Sort the nodes, leaving out the leaves: children before parents. The lecture's sort calls
        # itself for every child: a chain of a thousand additions is too deep for that.
        order, seen = [], {self}
        stack = [(self, iter(self.children))]
        while stack:
            node, children = stack[-1]
            for child in children:
                if child.children and child not in seen:
                    seen.add(child)
                    stack.append((child, iter(child.children)))
                    break
            else:  # all children are in order
                order.append(node)
                stack.pop()
        for node in order:
            if node.children:  # self may be a leaf
                node.grad = 0.0
        self.grad += 1.0
        for node in reversed(order):
            if node.grad:  # nothing to pass on below a relu that is 0
                for child, slope in zip(node.children, node.slopes):
                    child.grad += slope * node.grad


def dot(weights, inputs, bias):
    """w·x + b as one node with 2n + 1 children for n inputs, which are numbers or Values.

    Built from + and *, it would take 2n nodes, and a network spends most of its time making nodes.
    Raises ValueError if there are more or fewer inputs than weights.
    """
    if len(inputs) != len(weights):
        raise ValueError(f"{len(weights)} inputs are needed, {len(inputs)} were given")
    inputs = [each if isinstance(each, Value) else Value(each) for each in inputs]
    w, x = [weight.data for weight in weights], [each.data for each in inputs]
    total = sum(map(mul, w, x), bias.data)
    return Value(total, (*weights, *inputs, bias), (*x, *w, 1.0), "w·x+b")


# -------------------------------------------------------------------------------- neural networks

ACTIVATIONS = {"tanh": Value.tanh, "relu": Value.relu, "linear": lambda x: x}


class Module:
    """The parameters of a module are those of its parts; a Neuron has its own."""

    def parameters(self):
        return [parameter for part in self.parts for parameter in part.parameters()]

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
        activations = [activation] * (len(nouts) - 1) + [output]
        self.parts = [Layer(*sizes, rng) for sizes in zip([nin, *nouts], nouts, activations)]

    def __call__(self, x):
        for layer in self.parts:
            x = layer(x)
        return x[0] if len(x) == 1 else x


def train(model, loss_of, steps, rate):
    """Gradient descent: a generator of the loss before each step, and after the last.

    `rate` is a function from the fraction of the steps done to a learning rate.
    """
    for step in range(steps + 1):
        loss = loss_of(model)
        yield loss.data
        if step < steps:
            model.zero_grad()
            loss.backward()
            for p in model.parameters():
                p.data -= rate(step / steps) * p.grad


# ------------------------------------------------------------------- the examples of the lecture


def expression(a=2.0, b=-3.0, c=10.0, f=-2.0):
    """The lecture's L = (a*b + c) * f -> (L, its four inputs)."""
    a, b, c, f = Value(a, label="a"), Value(b, label="b"), Value(c, label="c"), Value(f, label="f")
    L = (a * b + c) * f
    return L, (a, b, c, f)


def lecture_neuron():
    """tanh(x1*w1 + x2*w2 + b) with the lecture's numbers, an operation at a time: 0.7071."""
    x1, x2 = Value(2.0, label="x1"), Value(0.0, label="x2")
    w1, w2 = Value(-3.0, label="w1"), Value(1.0, label="w2")
    b = Value(6.8813735870195432, label="b")
    n = x1 * w1 + x2 * w2 + b
    o = n.tanh()
    n.label, o.label = "n", "o"
    return o


XS = [[2.0, 3.0, -1.0], [3.0, -1.0, 0.5], [0.5, 1.0, 1.0], [1.0, 1.0, -1.0]]
YS = [1.0, -1.0, -1.0, 1.0]


def squared_error(model):
    """The sum of (prediction - target)^2 over the lecture's four samples."""
    return sum((model(x) - y) ** 2 for x, y in zip(XS, YS))


# ------------------------------------------------------------------------------- two half moons


def make_moons(rng, count=100, noise=0.1):
    """Two interleaved half circles -> X (count, 2), y (count,) of -1 and 1."""
    upper, lower = np.array_split(rng.uniform(0, np.pi, count), 2)
    across = np.concatenate([np.cos(upper), 1 - np.cos(lower)])
    up = np.concatenate([np.sin(upper), 0.5 - np.sin(lower)])
    X = np.stack([across, up], axis=1) + rng.normal(0, noise, (count, 2))
    return X, np.repeat([-1.0, 1.0], [len(upper), len(lower)])


def margin_loss(model, X, y, alpha=1e-4):
    """mean of max(0, 1 - y * score), plus alpha times the sum of all squared parameters."""
    parameters = model.parameters()
    losses = [(1 - target * model(x)).relu() for x, target in zip(X.tolist(), y.tolist())]
    return sum(losses) / len(losses) + alpha * dot(parameters, parameters, Value(0.0))


def scores(model, X):
    """The model's outputs for the rows of X (N, 2) -> (N,)."""
    return np.array([model(x).data for x in X.tolist()])


# --------------------------------------------------------------------------------------- pictures


def graph(root):
    """The graph below root in graphviz's language: values as boxes, operations as ellipses."""
    nodes = {root: 0}  # in the order in which they are found
    for node in (queue := [root]):
        for child in node.children:
            if child not in nodes:
                nodes[child] = len(nodes)
                queue.append(child)
    lines = ["digraph {", "  rankdir=LR;", "  node [shape=record];"]
    for node, i in nodes.items():
        numbers = f"data {np.round(node.data, 4)} | grad {np.round(node.grad, 4)}"
        lines.append(f'  v{i} [label="{{ {node.label} | {numbers} }}"];')
        if node.op:
            lines.append(f'  o{i} [label="{node.op}", shape=ellipse];')
            lines.append(f"  o{i} -> v{i};")
            lines += [f"  v{nodes[child]} -> o{i};" for child in node.children]
    return "\n".join([*lines, "}", ""])


def boundary(model, X, y, columns=72, rows=22):
    """The plane as text: `#` where the score is positive, the samples as `x` (1) and `o` (-1)."""
    low, high = X.min(axis=0) - 0.3, X.max(axis=0) + 0.3
    across, down = np.linspace(low[0], high[0], columns), np.linspace(high[1], low[1], rows)
    grid = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)  # (rows * columns, 2)
    picture = np.where(scores(model, grid) > 0, "#", ".").reshape(rows, columns)
    at = np.rint((X - low) / (high - low) * [columns - 1, rows - 1]).astype(int)  # (N, 2)
    picture[rows - 1 - at[:, 1], at[:, 0]] = np.where(y > 0, "x", "o")
    return "\n".join("".join(line) for line in picture)


def draw_boundary(path, model, X, y):
    """The two moons, and the two regions into which the model divides the plane."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    low, high = X.min(axis=0) - 0.3, X.max(axis=0) + 0.3
    across, up = np.meshgrid(*(np.linspace(low[i], high[i], 80) for i in (0, 1)))  # (80, 80)
    score = scores(model, np.stack([across.ravel(), up.ravel()], axis=1)).reshape(across.shape)
    axes.contourf(across, up, score > 0, levels=1, colors=["C0", "C1"], alpha=0.3)
    for target, color in ((-1, "C0"), (1, "C1")):
        axes.scatter(*X[y == target].T, c=color, edgecolors="black", label=f"target {target:+}")
    axes.set(xlabel="x1", ylabel="x2", title="Orange: the score is positive. Blue: negative")
    axes.legend()
    figure.savefig(path)


# ----------------------------------------------------------------------------------- command line


def show_derivatives(nudge=1e-6):
    L, inputs = expression()
    L.backward()
    click.echo(f"L = (a*b + c) * f = {L.data:g}\n")
    click.echo("input    data   dL/dinput  central difference")
    for i, each in enumerate(inputs):
        below, above = [[v.data for v in inputs] for _ in range(2)]
        below[i] -= nudge
        above[i] += nudge
        slope = (expression(*above)[0].data - expression(*below)[0].data) / (2 * nudge)
        click.echo(f"{each.label:5}{each.data:8g}{each.grad:12g}{slope:20.6g}")


def fit(model, loss_of, steps, rate):
    """Train with a progress bar, and print the loss at eleven steps, or fewer.

    Raises click.ClickException if the loss diverges.
    """
    losses, live = [], sys.stdout.isatty() and sys.stderr.isatty()
    training = train(model, loss_of, steps, rate)
    with click.progressbar(training, steps + 1, hidden=not live, file=sys.stderr) as bar:
        for step, loss in enumerate(bar):
            if not math.isfinite(loss):
                raise click.ClickException(f"the loss diverged at step {step}: try a lower --lr")
            losses.append(loss)
    click.echo("     step      loss")
    for step in sorted({*range(0, steps, math.ceil(steps / 10) or 1), steps}):
        click.echo(f"{step:9,} {losses[step]:9.4f}")
    if losses[-1] > losses[0]:
        click.echo("The loss rose: try a lower --lr.")


def show_lecture(rng, steps, lr):
    model = MLP(3, [4, 4, 1], rng=rng)
    click.echo(f"\nMLP(3, [4, 4, 1]) on four samples, {len(model.parameters())} parameters")
    fit(model, squared_error, steps, lambda done: lr)
    click.echo("\ntarget  prediction")
    for x, y in zip(XS, YS):
        click.echo(f"{y:6.0f}{model(x).data:12.4f}")


def show_moons(rng, steps, lr, plot):
    X, y = make_moons(rng)
    model = MLP(2, [16, 16, 1], "relu", "linear", rng)
    click.echo(f"MLP(2, [16, 16, 1]) on 100 points, {len(model.parameters())} parameters")
    fit(model, lambda model: margin_loss(model, X, y), steps, lambda done: lr * (1 - 0.9 * done))
    accuracy = np.mean((scores(model, X) > 0) == (y > 0))
    click.echo(f"\n{accuracy:.0%} of the points are on the right side: x (target 1) where the")
    click.echo("score is positive (#), o (target -1) where it is negative (.)\n")
    click.echo(boundary(model, X, y))
    if plot:
        draw_boundary(plot, model, X, y)


def positive(text):
    """Read a positive real number from the command line."""
    if not 1e-6 <= float(text) <= 1e6:
        raise click.BadParameter(f"{text} is not between 1e-6 and 1e6.")
    return float(text)


STEPS, FILE = click.IntRange(0, 10**6), click.Path(dir_okay=False)
DATASETS = {"lecture": (20, 0.05), "moons": (100, 1.0)}  # defaults of steps and lr


@click.command(context_settings={"show_default": True})
@click.option("--dataset", type=click.Choice([*DATASETS]), default="lecture", help="Training data.")
@click.option("--steps", type=STEPS, show_default="20, moons 100", help="Training steps.")
@click.option("--lr", type=positive, show_default="0.05, moons 1.0", help="Learning rate.")
@click.option("--seed", type=click.IntRange(0), default=42, help="Random seed.")
@click.option("--plot", type=FILE, help="Picture of the moons to draw (needs matplotlib).")
@click.option("--graph", "graph_path", type=FILE, help="Write the graph of a neuron and exit.")
def main(dataset, steps, lr, seed, plot, graph_path):
    """Compute derivatives with an autograd engine, and train small networks with it."""
    gc.disable()  # graphs have no cycles: reference counting frees them, and takes half the time
    rng = np.random.default_rng(seed)
    if graph_path is not None:
        neuron = lecture_neuron()
        neuron.backward()
        Path(graph_path).write_text(graph(neuron), encoding="utf-8")
        return click.echo(f"dot -Tsvg {graph_path} -o neuron.svg    draws the graph")
    if plot is not None and dataset != "moons":
        raise click.UsageError("--plot needs --dataset moons")
    if plot is not None and not plot.endswith((".png", ".svg", ".pdf")):
        raise click.BadParameter("draws .png, .svg or .pdf", param_hint="--plot")
    default_steps, default_lr = DATASETS[dataset]
    steps, lr = default_steps if steps is None else steps, lr or default_lr
    if dataset == "moons":
        return show_moons(rng, steps, lr, plot)
    show_derivatives()
    show_lecture(rng, steps, lr)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a character that the terminal lacks becomes a ?
    try:
        main()
    except (ImportError, OSError) as error:
        sys.exit(f"Error: {error}")
