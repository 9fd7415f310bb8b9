"""Stage 1: an autograd engine, and a neural network on top of it.

Every Value remembers which Values it was computed from, and its slope along each of them: by how
much it changes per unit of change in that one. For L = f(u) with u = g(x) the chain rule says

    dL/dx = du/dx * dL/du      slope along the edge * gradient of the node above

and where x is used several times, the contributions add up. `backward` applies this once to every
edge of the graph, from the result down to the leaves: reverse-mode automatic differentiation.
After Andrej Karpathy's micrograd and the lecture "The spelled-out intro to neural networks".

    python micrograd.py                            derivatives of an expression, a tiny training
    python micrograd.py --dataset moons            separate two half moons
    python micrograd.py --graph expression.dot     the graph behind the expression
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=1.25", "click>=8.2"]
# ///

import math
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from operator import mul
from pathlib import Path

import click
import numpy as np

# ----------------------------------------------------------------------------------------- engine


class Value:
    """A number, or a NumPy array (a batch of numbers), that knows how it was computed.

    data: float or float64 array. grad: the derivative of what backward() was called on, of the
    shape of data. children: the Values it came from. slopes: its derivative along each of them.
    """

    __slots__ = ("data", "grad", "label", "op", "children", "slopes")
    __array_ufunc__ = None  # leaves array + Value to Value.__radd__

    def __init__(self, data, label="", op="", children=(), slopes=()):
        self.data = data if type(data) is float else number(data)
        self.grad = 0.0
        self.label = label
        self.op = op
        self.children = children
        self.slopes = slopes

    def __repr__(self):
        name = f"{self.label}: " if self.label else ""
        return f"Value({name}data={self.data}, grad={self.grad})"

    def __add__(self, other):
        other = value(other)
        return Value(self.data + other.data, "", "+", (self, other), (1.0, 1.0))

    def __sub__(self, other):
        other = value(other)
        return Value(self.data - other.data, "", "-", (self, other), (1.0, -1.0))

    def __mul__(self, other):
        other = value(other)
        return Value(self.data * other.data, "", "*", (self, other), (other.data, self.data))

    def __truediv__(self, other):
        other = value(other)
        if anywhere(other.data == 0):
            raise ZeroDivisionError(f"{self!r} / {other!r}")
        quotient = self.data / other.data
        return Value(quotient, "", "/", (self, other), (1 / other.data, -quotient / other.data))

    def __pow__(self, other):
        if isinstance(other, Value):  # the slope along the exponent takes the logarithm of the base
            if anywhere(self.data <= 0):
                raise ValueError(f"the base of a power of Values must be positive: {self!r}")
            power = self.data**other.data
            slopes = other.data * power / self.data, power * functions(self.data).log(self.data)
            return Value(power, "", "**", (self, other), slopes)
        n = number(other)
        if anywhere(self.data < 0) and anywhere(n % 1 != 0):
            raise ValueError(f"a negative number has no real power of {n}: {self!r}")
        if anywhere(self.data == 0) and anywhere((n < 1) & (n != 0)):
            raise ZeroDivisionError(f"0 has no power of {n} with a finite slope: {self!r}")
        return Value(self.data**n, "", f"**{n}", (self,), (n * self.data ** (n - (n != 0)),))

    def __neg__(self):
        return Value(-self.data, "", "neg", (self,), (-1.0,))

    def __radd__(self, other):
        return value(other) + self

    def __rsub__(self, other):
        return value(other) - self

    def __rmul__(self, other):
        return value(other) * self

    def __rtruediv__(self, other):
        return value(other) / self

    def __rpow__(self, other):
        return value(other) ** self

    def tanh(self):
        t = functions(self.data).tanh(self.data)
        return Value(t, "", "tanh", (self,), (1 - t * t,))

    def relu(self):
        positive = self.data > 0
        if positive is True:
            return Value(self.data, "", "relu", (self,), (1.0,))
        if positive is False:
            return Value(0.0, "", "relu", (self,), (0.0,))
        return Value(np.where(positive, self.data, 0.0), "", "relu", (self,), (1.0 * positive,))

    def exp(self):
        e = functions(self.data).exp(self.data)
        return Value(e, "", "exp", (self,), (e,))

    def log(self):
        if anywhere(self.data <= 0):
            raise ValueError(f"only positive numbers have a logarithm: {self!r}")
        return Value(functions(self.data).log(self.data), "", "log", (self,), (1 / self.data,))

    def mean(self):
        """The mean over a batch; a number is its own mean."""
        share = np.full(np.shape(self.data), 1 / np.size(self.data))
        return Value(np.mean(self.data), "", "mean", (self,), (share,))

    def backward(self):
        """Add the derivative of self with respect to every leaf below it to that leaf's grad.

        For an array self, the derivative of its sum. A second call on the same graph computes the
        same once more: leaves, which keep what they have until it is set to 0, then hold twice as
        much; the nodes between are set anew by each call.
        """
        order, seen, stack = [], set(), [self]  # order: children before parents, without leaves
        while stack:
            node = stack.pop()
            if node is None:  # all children of the node below are in order
                order.append(stack.pop())
            elif node not in seen:
                seen.add(node)
                stack += (node, None)
                stack += [child for child in node.children if child.children and child not in seen]
        for node in order:
            node.grad = 0.0
        self.grad = self.grad + (np.ones_like(self.data) if is_array(self.data) else 1.0)
        for node in reversed(order):
            grad = node.grad
            if type(node.data) is float:
                if grad:  # behind a relu that is shut there is nothing to pass on
                    for child, slope in zip(node.children, node.slopes):
                        child.grad += slope * grad
            else:
                for child, slope in zip(node.children, node.slopes):
                    child.grad += chained(slope, grad, child.data)


def dot(weights, inputs, bias, x=None):
    """w·x + b as one node: for n inputs 2n + 1 children of one node, instead of 2n nodes.

    x: the data of the inputs, where the caller has it at hand.
    """
    w = [weight.data for weight in weights]
    x = x or [each.data for each in inputs]
    total = sum(map(mul, w, x), bias.data)
    return Value(total, "", "w·x+b", (*weights, *inputs, bias), (*x, *w, 1.0))


def chained(slope, grad, data):
    """slope * grad, summed over the axes along which the child's data was broadcast."""
    if not is_array(data) and is_array(slope) and slope.shape == grad.shape:
        return float(np.vdot(slope, grad))
    product, shape = np.asarray(slope * grad), np.shape(data)
    if product.shape == shape:
        return product
    added = product.ndim - len(shape)
    stretched = (added + axis for axis, length in enumerate(shape) if length == 1)
    product = product.sum(axis=(*range(added), *stretched)).reshape(shape)
    return product if shape else float(product)


def is_array(data):
    return isinstance(data, np.ndarray)


def value(x):
    return x if isinstance(x, Value) else Value(x)


def number(data):
    """A float, or an array of float64. Raises TypeError for what is neither number nor array."""
    if isinstance(data, (int, float, np.number)) and not isinstance(data, np.complexfloating):
        return float(data)
    if isinstance(data, np.ndarray) and data.dtype.kind in "biuf":
        return data.astype(float) if data.ndim else float(data)
    raise TypeError(f"a Value holds a number or an array of numbers, not {data!r}")


def functions(data):
    """Where to find tanh, exp and log for this data."""
    return np if is_array(data) else math


def anywhere(condition):
    return condition.any() if is_array(condition) else condition


# -------------------------------------------------------------------------------- neural networks

ACTIVATIONS = {"tanh": Value.tanh, "relu": Value.relu, "linear": lambda x: x}


class Module:
    """What has parameters: its own, or those of its parts."""

    parts = ()

    def parameters(self):
        return [parameter for part in self.parts for parameter in part.parameters()]

    def zero_grad(self):
        for parameter in self.parameters():
            parameter.grad = 0.0


class Neuron(Module):
    """activation(w·x + b), weights and bias drawn from U(-1, 1)."""

    def __init__(self, nin, activation="tanh", rng=None):
        rng = rng or np.random.default_rng()
        self.w = [Value(w) for w in rng.uniform(-1, 1, nin)]
        self.b = Value(rng.uniform(-1, 1))
        self.activation = ACTIVATIONS[activation]

    def __call__(self, inputs):
        return respond([self], inputs)

    def parameters(self):
        return [*self.w, self.b]


def respond(neurons, inputs):
    """What neurons make of their common inputs: a Value, or a list of them."""
    inputs = [inputs] if isinstance(inputs, Value) else [value(each) for each in inputs]
    nin = len(neurons[0].w)
    if len(inputs) != nin:
        raise ValueError(f"a neuron of {nin} inputs was given {len(inputs)}")
    x = [each.data for each in inputs]
    outputs = [n.activation(dot(n.w, inputs, n.b, x)) for n in neurons]
    return outputs if len(outputs) > 1 else outputs[0]


class Layer(Module):
    """nout neurons on the same inputs; a single one gives a Value, several a list."""

    def __init__(self, nin, nout, activation="tanh", rng=None):
        rng = rng or np.random.default_rng()
        self.parts = [Neuron(nin, activation, rng) for _ in range(nout)]

    def __call__(self, inputs):
        return respond(self.parts, inputs)


class MLP(Module):
    """Layers of nouts neurons, one feeding the next; the last has an activation of its own."""

    def __init__(self, nin, nouts, activation="tanh", output="tanh", rng=None):
        rng = rng or np.random.default_rng()
        activations = [activation] * (len(nouts) - 1) + [output]
        sizes = zip([nin, *nouts], nouts, activations)
        self.parts = [Layer(*size, rng) for size in sizes]

    def __call__(self, x):
        for layer in self.parts:
            x = layer(x)
        return x


def train(model, loss_of, steps, lr):
    """Gradient descent: yields the loss before each step. lr maps step/steps to a rate."""
    for step in range(steps):
        loss = loss_of(model)
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            p.data += -lr(step / steps) * p.grad
        yield loss.data


# ------------------------------------------------------------------------------------- two stories


def expression(a=2.0, b=-3.0, c=10.0, f=-2.0):
    """The lecture's L = (a*b + c) * f -> (L, its four inputs)."""
    a, b, c, f = Value(a, "a"), Value(b, "b"), Value(c, "c"), Value(f, "f")
    e = a * b
    d = e + c
    L = d * f
    e.label, d.label, L.label = "e", "d", "L"
    return L, (a, b, c, f)


def lecture_neuron():
    """tanh(w·x + b) with the lecture's numbers: the output is 0.7071."""
    x, w = [Value(2.0, "x1"), Value(0.0, "x2")], [Value(-3.0, "w1"), Value(1.0, "w2")]
    n = dot(w, x, Value(6.8813735870195432, "b"))
    o = n.tanh()
    n.label, o.label = "n", "o"
    return o


XS = [[2.0, 3.0, -1.0], [3.0, -1.0, 0.5], [0.5, 1.0, 1.0], [1.0, 1.0, -1.0]]
YS = [1.0, -1.0, -1.0, 1.0]


def squared_error(model):
    return sum((model(x) - y) ** 2 for x, y in zip(XS, YS))


def make_moons(rng, number=100, noise=0.1):
    """Two interleaved half circles -> X (number, 2), y (number,) of -1 and 1."""
    upper, lower = np.array_split(rng.uniform(0, np.pi, number), 2)
    across = np.concatenate([np.cos(upper), 1 - np.cos(lower)])
    up = np.concatenate([np.sin(upper), 0.5 - np.sin(lower)])
    X = np.stack([across, up], axis=1) + rng.normal(0, noise, (number, 2))
    return X, np.repeat([-1.0, 1.0], [len(upper), len(lower)])


def margin_loss(model, X, y, batch=True, alpha=1e-4):
    """mean of max(0, 1 - y * score), plus alpha times the sum of all squared parameters."""
    if batch:
        losses = (1 - y * model([X[:, 0], X[:, 1]])).relu().mean()
    else:
        each = [(1 - target * model(x)).relu() for x, target in zip(X.tolist(), y.tolist())]
        losses = sum(each) * (1 / len(each))
    parameters = model.parameters()
    return losses + alpha * dot(parameters, parameters, Value(0.0))


def scores(model, X):
    """The model's outputs for the rows of X (N, 2) -> (N,)."""
    return model([X[:, 0], X[:, 1]]).data


# --------------------------------------------------------------------------------------- pictures


def graph(root):
    """The graph below root in graphviz's language: values as boxes, operations as circles."""
    number, nodes = {root: 0}, [root]
    for node in nodes:
        for child in node.children:
            if child not in number:
                number[child] = len(nodes)
                nodes.append(child)
    lines = ["digraph {", "  rankdir=LR;", "  node [shape=record];"]
    for node, i in number.items():
        name = "".join("\\" * (c in '\\"{}|<>') + c for c in node.label)
        figures = f"data {np.round(node.data, 4)} | grad {np.round(node.grad, 4)}"
        lines.append(f'  v{i} [label="{{ {name} | {figures} }}"];')
        if node.op:
            lines.append(f'  o{i} [label="{node.op}", shape=ellipse];')
            lines.append(f"  o{i} -> v{i};")
            lines += [f"  v{number[child]} -> o{i};" for child in node.children]
    return "\n".join([*lines, "}", ""])


def draw_graph(path, root):
    """Write the graph below root to a .dot file, or by graphviz's `dot` to .svg or .png."""
    kind = Path(path).suffix[1:]
    if kind == "dot":
        Path(path).write_text(graph(root), encoding="utf-8")
    else:
        command = ["dot", f"-T{kind}", "-o", path]
        subprocess.run(command, input=graph(root), text=True, check=True, encoding="utf-8")


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
    """The two moons over the two half planes that the model tells apart."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    low, high = X.min(axis=0) - 0.3, X.max(axis=0) + 0.3
    across, up = np.meshgrid(*(np.linspace(low[i], high[i], 200) for i in (0, 1)))  # (200, 200)
    score = scores(model, np.stack([across.ravel(), up.ravel()], axis=1)).reshape(across.shape)
    axes.contourf(across, up, score > 0, levels=1, colors=["C0", "C1"], alpha=0.3)
    axes.scatter(X[:, 0], X[:, 1], c=np.where(y > 0, "C1", "C0"), edgecolors="black")
    axes.set(xlabel="x1", ylabel="x2", title="Where the score changes its sign")
    figure.savefig(path)


# ----------------------------------------------------------------------------------- command line


class Sizes(click.ParamType):
    """Comma-separated sizes of hidden layers, 1 to 1000 each, such as 16,16."""

    name = "sizes"

    def convert(self, text, param, ctx):
        sizes = [int(size) if size.strip().isdecimal() else 0 for size in str(text).split(",")]
        if min(sizes) < 1 or max(sizes) > 1000:
            self.fail(f"{text!r} is not a list of sizes from 1 to 1000, such as 16,16.", param, ctx)
        return sizes


class Finite(click.FloatRange):
    """A range of real numbers, nan and inf left out."""

    def convert(self, value, param, ctx):
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


@contextmanager
def plain_endings():
    """What goes wrong ends in one line and exit code 1, Ctrl-C in 130, SIGTERM in 143."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(n, lambda number, frame: sys.exit(128 + number)) for n in numbers]
    try:
        with np.errstate(all="ignore"):  # overflow shows in the loss, which `watched` watches
            yield
    except BrokenPipeError:  # `| head` has seen enough, click ends without a word
        raise
    except OSError as error:
        name = " ".join(str(error.filename or "output").removesuffix(".tmp").splitlines())
        raise click.ClickException(f"{name}: {error.strerror}") from None
    except ValueError as error:
        raise click.ClickException(" ".join(str(error).splitlines())) from None
    except (MemoryError, OverflowError):
        raise click.ClickException("numbers too large: try a lower --lr, fewer neurons") from None
    finally:
        for number, old in zip(numbers, before):
            signal.signal(number, old)


def check_targets(graph_file, plot):
    """Refuse, before training, what cannot be drawn or written."""
    if plot:
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise ValueError("--plot needs matplotlib: pip install matplotlib") from None
        endings = Figure().canvas.get_supported_filetypes()
        if Path(plot).suffix[1:].lower() not in endings:
            raise ValueError(f"{plot}: the name of a picture ends in .{', .'.join(endings)}")
    if graph_file:
        if Path(graph_file).suffix not in (".dot", ".svg", ".png"):
            raise ValueError(f"{graph_file}: the name of a graph ends in .dot, .svg or .png")
        if Path(graph_file).suffix != ".dot" and not shutil.which("dot"):
            raise ValueError(f"{graph_file} needs graphviz's dot on the path; .dot needs nothing")
    for path in filter(None, (graph_file, plot)):
        target = Path(path).resolve()
        if target.exists() and not (target.is_file() and os.access(target, os.W_OK)):
            raise ValueError(f"{path} is no file that can be written")
        beside = target.with_name(target.name + ".tmp")
        beside.touch()
        beside.unlink()


def show_derivatives(nudge=1e-6):
    L, inputs = expression()
    L.backward()
    click.echo(f"L = (a*b + c) * f = {L.data:g}\n")
    click.echo("input    data   dL/dinput  by a nudge")
    for i, each in enumerate(inputs):
        below, above = [[v.data for v in inputs] for _ in range(2)]
        below[i] -= nudge
        above[i] += nudge
        slope = (expression(*above)[0].data - expression(*below)[0].data) / (2 * nudge)
        click.echo(f"{each.label:5}{each.data:8g}{each.grad:12g}{slope:12.6g}")


def show_training(rng, hidden, steps, lr):
    """The lecture's four samples."""
    model = MLP(3, [*hidden, 1], rng=rng)
    click.echo(f"\nMLP(3, {[*hidden, 1]}) on four samples, {len(model.parameters())} parameters")
    losses = list(watched(train(model, squared_error, steps, lambda done: lr)))
    for first in range(0, steps, 5):
        row = enumerate(losses[first : first + 5], first)
        click.echo("   ".join(f"{step:4} {loss:.5f}" for step, loss in row))
    click.echo("\ntarget  prediction")
    for x, y in zip(XS, YS):
        click.echo(f"{y:6.0f}{model(x).data:12.4f}")


def show_moons(rng, hidden, steps, lr, batch, plot):
    X, y = make_moons(rng)
    model = MLP(2, [*hidden, 1], "relu", "linear", rng)
    click.echo(f"MLP(2, {[*hidden, 1]}) on 100 points, {len(model.parameters())} parameters\n")
    click.echo("step      loss  accuracy")

    def report(step, loss):
        accuracy = np.mean((scores(model, X) > 0) == (y > 0))
        click.echo(f"{step:4}{loss:10.4f}{accuracy:10.0%}")

    training = train(
        model, lambda m: margin_loss(m, X, y, batch), steps, lambda done: lr * (1 - 0.9 * done)
    )
    for step, loss in enumerate(watched(training)):
        if step % max(1, steps // 10) == 0:
            report(step, loss)
    report(steps, margin_loss(model, X, y).data)
    click.echo("\n" + boundary(model, X, y))
    if plot:
        draw_boundary(plot, model, X, y)


def watched(losses):
    """Pass the losses on; raises ValueError at one that is no number."""
    for step, loss in enumerate(losses):
        if not math.isfinite(loss):
            raise ValueError(f"the loss is no longer a number at step {step}: try a lower --lr")
        yield loss


COUNT, REAL, FILE = click.IntRange(0), Finite(0, min_open=True), click.Path()
CHOICES = {"lecture": ("4,4", 20, 0.05), "moons": ("16,16", 100, 1.0)}  # hidden, steps, lr
PARTS = {"expression": lambda: expression()[0], "neuron": lecture_neuron}


@click.command(context_settings={"show_default": True})
@click.option("--dataset", type=click.Choice([*CHOICES]), default="lecture", help="What to learn.")
@click.option("--steps", type=COUNT, show_default="20, moons 100", help="Steps of training.")
@click.option("--lr", type=REAL, show_default="0.05, moons 1.0", help="Learning rate.")
@click.option("--hidden", type=Sizes(), show_default="4,4, moons 16,16", help="Hidden layers.")
@click.option("--seed", type=COUNT, default=42, help="Where all randomness comes from.")
@click.option("--batch/--no-batch", default=True, help="Moons: arrays, or one sample at a time.")
@click.option("--plot", type=FILE, help="Moons: picture to draw (needs matplotlib).")
@click.option("--graph", "graph_file", type=FILE, help="Graph to draw: .dot, .svg, .png.")
@click.option("--graph-of", type=click.Choice([*PARTS]), default="expression", help="Of what.")
def main(dataset, steps, lr, hidden, seed, batch, plot, graph_file, graph_of):
    """Derivatives by an autograd engine, and small networks trained with it."""
    with plain_endings():
        check_targets(graph_file, plot)
        defaults = CHOICES[dataset]
        hidden = hidden or Sizes().convert(defaults[0], None, None)
        steps, lr = defaults[1] if steps is None else steps, lr or defaults[2]
        rng = np.random.default_rng(seed)
        if graph_file:
            root = PARTS[graph_of]()
            root.backward()
            draw_graph(graph_file, root)
            return click.echo(f"{graph_file} holds the graph of the {graph_of}")
        if dataset == "moons":
            return show_moons(rng, hidden, steps, lr, batch, plot)
        if plot:
            raise click.UsageError("--plot goes with --dataset moons")
        show_derivatives()
        show_training(rng, hidden, steps, lr)


if __name__ == "__main__":
    main()
