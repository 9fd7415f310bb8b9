#!/usr/bin/env -S uv run --script
"""Stage 1: an autograd engine, and a neural network on top of it.

Every Value is a number that remembers the Values it was computed from, its children, and its slope
with respect to each of them: its local derivative. They form a graph: each Value is a node, with an
edge to each child. For L = f(u) with u = g(x), the chain rule says

    dL/dx = dL/du * du/dx      the gradient of the node above * the slope along the edge

and where x is used several times, the contributions add up. `backward` applies this once to every
edge of the graph, from the result down to the leaves, which have no children: reverse-mode
automatic differentiation. After Andrej Karpathy's lecture "The spelled-out intro to neural
networks and backpropagation: building micrograd".

    python micrograd.py                        derivatives, and train a network in 20 steps
    python micrograd.py --dataset moons        separate two half moons
    python micrograd.py --graph neuron.dot     the graph of a neuron, for graphviz
    python tests/gradcheck.py micrograd        check every operation, after you changed a line
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=2.2", "click>=8.2"]
# ///

import math
import os
import sys
from itertools import count
from operator import attrgetter, mul

import click
import numpy as np

# ----------------------------------------------------------------------------------------- engine

births = count()  # every Value gets the next number


class Value:
    """A number that knows how it was computed.

    data: the number, a float. grad: derivative of the result with respect to this Value, where the
    result is the Value on which backward() was called. children: the Values it was computed from.
    slopes: its derivative with respect to each of them, evaluated when the Value was made: after
    changing data, compute the result again. op, label: its names in a graph. born: its place in the
    order of creation.

    In the lecture, every operation defines a function `_backward` that applies the chain rule to
    its own children. The chain rule is always the same, only the slopes differ: here an operation
    states its slopes, and the chain rule is written only once, in backward().
    """

    __slots__ = ("data", "grad", "children", "slopes", "op", "label", "born")

    def __init__(self, data, children=(), slopes=(), op="", label=""):
        self.data = float(data)
        self.grad = 0.0
        self.children = children
        self.slopes = slopes
        self.op = op
        self.label = label
        self.born = next(births)

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
        x, y = self.data, other.data
        return Value(x / y, (self, other), (1 / y, -x / y / y), "/")

    def __pow__(self, other):
        x, y = self.data, other.data if isinstance(other, Value) else float(other)
        x_slope = y * x ** (y - 1) if y else 0.0  # x**0 is constant, also at 0
        if not isinstance(other, Value):  # a plain number has no slope
            return Value(x**y, (self,), (x_slope,), f"**{y:g}")
        return Value(x**y, (self, other), (x_slope, x**y * math.log(x)), "**")

    def __neg__(self):
        return Value(-self.data, (self,), (-1.0,), "neg")

    def __rsub__(self, other):
        return Value(other) - self

    def __rtruediv__(self, other):
        return Value(other) / self

    def __rpow__(self, other):
        return Value(other) ** self

    __radd__, __rmul__ = __add__, __mul__

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
        Forgetting to set it to 0 between two training steps is the classic mistake:

            a = Value(3.0)
            (a * a).backward()  # a.grad is 6
            (a * a).backward()  # a.grad is 12

        The grads of the nodes in between are overwritten by each call.
        """
        # A node may pass its gradient on only when it has all of it: after every node computed
        # from it, in reverse topological order. Those are all younger, so go from the youngest to
        # the oldest. (The lecture sorts by recursion, too deep for a thousand additions in a row.)
        nodes, stack = set(), [self]
        while stack:
            node = stack.pop()
            if node.children and node not in nodes:
                nodes.add(node)
                node.grad = 0.0
                stack.extend(node.children)
        self.grad += 1.0
        for node in sorted(nodes, key=attrgetter("born"), reverse=True):
            if node.grad:  # nothing to pass on below a relu that is 0
                for child, slope in zip(node.children, node.slopes):
                    child.grad += slope * node.grad


def dot(weights, inputs, bias):
    """w·x + b as one node with 2n + 1 children for n inputs, which are numbers or Values.

    One node may be any function whose slopes you know: tanh in the lecture, here also w·x + b, with
    the slopes x for w, w for x and 1 for b. Built from * and + it would take 2n nodes and give the
    same up to rounding; a network spends most of its time making nodes. Raises ValueError if there
    are more or fewer inputs than weights.
    """
    if len(inputs) != len(weights):
        raise ValueError(f"{len(weights)} inputs are needed, {len(inputs)} were given")
    inputs = [xi if isinstance(xi, Value) else Value(xi) for xi in inputs]
    w, x = [wi.data for wi in weights], [xi.data for xi in inputs]
    total = sum(map(mul, w, x), bias.data)
    return Value(total, (*weights, *inputs, bias), (*x, *w, 1.0), "w·x+b")


# -------------------------------------------------------------------------------- neural networks


class Module:
    """The parameters of a module are those of its parts; a Neuron has its own."""

    def parameters(self):
        parameters = (parameter for part in self.parts for parameter in part.parameters())
        return [*dict.fromkeys(parameters)]  # each once, even if a part is used twice

    def zero_grad(self):
        for parameter in self.parameters():
            parameter.grad = 0.0


def linear(x):
    return x


class Neuron(Module):
    """activation(w·x + b) of nin numbers or Values, with w and b drawn from U(-1, 1)."""

    def __init__(self, nin, activation=Value.tanh, rng=None):
        rng = np.random.default_rng() if rng is None else rng
        self.w = [Value(w) for w in rng.uniform(-1, 1, nin)]
        self.b = Value(rng.uniform(-1, 1))
        self.activation = activation

    def __call__(self, x):
        return self.activation(dot(self.w, x, self.b))

    def parameters(self):
        return [*self.w, self.b]


class Layer(Module):
    """nout neurons with the same inputs. Called with them, it returns a list of nout Values."""

    def __init__(self, nin, nout, activation=Value.tanh, rng=None):
        self.parts = [Neuron(nin, activation, rng) for _ in range(nout)]

    def __call__(self, x):
        # Numbers become Values here, once for all neurons; dot() would do it in each of them.
        x = [xi if isinstance(xi, Value) else Value(xi) for xi in x]
        return [neuron(x) for neuron in self.parts]


class MLP(Module):
    """Layers of nouts neurons, one after another; the last has an activation of its own.

    Called with nin numbers or Values, it returns a Value if the last layer has one neuron,
    otherwise a list.
    """

    def __init__(self, nin, nouts, activation=Value.tanh, output=Value.tanh, rng=None):
        activations = [activation] * (len(nouts) - 1) + [output]
        layers = zip([nin, *nouts], nouts, activations)
        self.parts = [Layer(*layer, rng) for layer in layers]

    def __call__(self, x):
        for layer in self.parts:
            x = layer(x)
        return x[0] if len(x) == 1 else x


def train(model, loss_function, X, Y, steps, lr, decay=0.0):
    """Gradient descent: yields (steps done, loss) before each step and after the last.

    The loss is loss_function(model, X, Y). The learning rate decays linearly from lr towards
    (1 - decay) * lr.
    """
    for step in range(steps):
        loss = loss_function(model, X, Y)
        yield step, loss.data
        model.zero_grad()
        loss.backward()
        rate = lr * (1 - decay * step / steps)
        for p in model.parameters():
            p.data -= rate * p.grad
        del loss  # its graph is freed before the next one is made, which is faster
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


def tanh_from_exp(n):
    """tanh(n) = (exp(2n) - 1) / (exp(2n) + 1), from single operations."""
    e = (2 * n).exp()
    return (e - 1) / (e + 1)


XS = [[2.0, 3.0, -1.0], [3.0, -1.0, 0.5], [0.5, 1.0, 1.0], [1.0, 1.0, -1.0]]
YS = [1.0, -1.0, -1.0, 1.0]


def squared_error(model, X, Y):
    """The sum of (prediction - target)^2 over the samples."""
    return sum((model(x) - y) ** 2 for x, y in zip(X, Y, strict=True))


# ------------------------------------------------------------------------------- two half moons


def make_moons(rng, count=100, noise=0.1):
    """Two interleaved half circles -> X (count, 2), Y (count,) of -1 and 1."""
    upper, lower = np.array_split(rng.uniform(0, np.pi, count), 2)
    x1 = np.concatenate([np.cos(upper), 1 - np.cos(lower)])
    x2 = np.concatenate([np.sin(upper), 0.5 - np.sin(lower)])
    X = np.stack([x1, x2], axis=1) + rng.normal(0, noise, (count, 2))
    return X, np.repeat([-1.0, 1.0], [len(upper), len(lower)])


def margin_loss(model, X, Y, alpha=1e-4):
    """Hinge loss, the mean of max(0, 1 - y * score), plus alpha * sum(parameter^2)."""
    parameters = model.parameters()
    losses = [(1 - y * model(x)).relu() for x, y in zip(X.tolist(), Y.tolist())]
    return sum(losses) / len(losses) + alpha * dot(parameters, parameters, Value(0.0))


# --------------------------------------------------------------------------------------- pictures


def graph(root):
    """The graph below root in graphviz's language: Values as boxes, with slopes at the edges."""
    lines = ["digraph {", "  rankdir=LR;", "  node [shape=record];"]
    # These characters have a meaning in a box of graphviz.
    escapes = str.maketrans({each: f"\\{each}" for each in '\\{}|<>"'} | {"&": "&amp;"})
    nodes = {root: 0}  # their numbers, in the order in which they are found
    for node in (queue := [root]):
        i, label = nodes[node], node.label.translate(escapes)
        numbers = f"data {round(node.data, 4)} | grad {round(node.grad, 4)}"
        lines.append(f'  v{i} [label="{{ {label} | {numbers} }}"];')
        if node.op:
            lines += [f'  o{i} [label="{node.op}", shape=ellipse];', f"  o{i} -> v{i};"]
        for child, slope in zip(node.children, node.slopes):
            if child not in nodes:
                nodes[child] = len(nodes)
                queue.append(child)
            lines.append(f'  v{nodes[child]} -> o{i} [label="{slope:.4g}"];')
    return "\n".join([*lines, "}", ""])


def regions(model, X, columns, rows):
    """A grid around X -> x1 (columns,), x2 (rows,), is the score positive? (rows, columns)."""
    low, high = X.min(axis=0) - 0.3, X.max(axis=0) + 0.3  # (2,)
    x1, x2 = np.linspace(low[0], high[0], columns), np.linspace(low[1], high[1], rows)
    grid = np.stack(np.meshgrid(x1, x2), axis=-1).reshape(-1, 2)  # (rows * columns, 2)
    positive = [model(x).data > 0 for x in grid]
    return x1, x2, np.reshape(positive, (rows, columns))


def boundary(model, X, Y):
    """The plane as text: `#` where the score is positive, the samples as `x` (1) and `o` (-1)."""
    x1, x2, positive = regions(model, X, 72, 22)
    picture = np.where(positive, "#", ".")
    column = np.abs(X[:, :1] - x1).argmin(axis=1)  # (N,), the nearest
    row = np.abs(X[:, 1:] - x2).argmin(axis=1)  # (N,)
    picture[row, column] = np.where(Y > 0, "x", "o")
    return "\n".join("".join(line) for line in picture[::-1])


def draw_boundary(path, model, X, Y):
    """The two moons, and the two regions into which the model divides the plane."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    axes.contourf(*regions(model, X, 80, 80), levels=1, colors=["C0", "C1"], alpha=0.3)
    for target, color in ((-1, "C0"), (1, "C1")):
        axes.scatter(*X[Y == target].T, c=color, edgecolors="black", label=f"target {target:+}")
    axes.set(xlabel="x1", ylabel="x2", title="Orange: the score is positive. Blue: negative")
    axes.legend()
    figure.savefig(path)


# ----------------------------------------------------------------------------------- command line


def show_derivatives(h=1e-6):
    L, values = expression()
    L.backward()
    click.echo(f"L = (a*b + c) * f = {L.data:g}, in steps: e = a*b, d = e + c, L = d*f\n")
    click.echo("value    data   dL/dvalue  central difference")
    for each in values:
        numeric = ""
        if not each.children:  # an input: nudge it in both directions
            above, _ = expression(**{each.label: each.data + h})
            below, _ = expression(**{each.label: each.data - h})
            numeric = f"{(above.data - below.data) / (2 * h):20.6g}"
        click.echo(f"{each.label:5}{each.data:8g}{each.grad:12g}{numeric}")
    a, b, c, f, _, d = values
    click.echo(f"\nchain rule: dL/dc = dL/dd * dd/dc = {d.grad:g} * {d.slopes[1]:g} = {c.grad:g}")
    stepped, _ = expression(*(each.data + 0.01 * each.grad for each in (a, b, c, f)))
    click.echo(f"a, b, c and f each moved by 0.01 times its derivative: L = {stepped.data:.4f}")

    click.echo("\no = tanh(x1*w1 + x2*w2 + b)   o   do/dx1   do/dw1   do/dx2   do/dw2    do/db")
    ways = {
        "from single operations": lecture_neuron(),
        "w·x+b as one node": lecture_neuron(one_node=True),
        "tanh built from exp": lecture_neuron(tanh=tanh_from_exp),
    }
    for name, (o, leaves) in ways.items():
        numbers = [o.data, *(leaf.grad for leaf in leaves)]
        click.echo(f"{name:22}" + "".join(f"{number:9.4f}" for number in numbers))


def fit(model, loss_function, X, Y, steps, lr, decay=0.0):
    """Train, and print the loss at eleven steps, or fewer."""
    click.echo("     step      loss")
    for step, loss in train(model, loss_function, X, Y, steps, lr, decay):
        if not math.isfinite(loss):
            advice = "try a lower --lr, or tests/gradcheck.py if you changed the code"
            raise click.ClickException(f"the loss diverged at step {step:,}: {advice}")
        if step % math.ceil(steps / 10) == 0 or step == steps:
            click.echo(f"{step:9,} {loss:9.4f}")


def show_lecture(rng, steps, lr):
    model = MLP(3, [4, 4, 1], rng=rng)
    click.echo(f"\nMLP(3, [4, 4, 1]) on four samples, {len(model.parameters())} parameters")
    fit(model, squared_error, XS, YS, steps, lr)
    click.echo("\ntarget  prediction")
    for x, y in zip(XS, YS):
        click.echo(f"{y:6.0f}{model(x).data:12.4f}")


def show_moons(rng, steps, lr, plot):
    X, Y = make_moons(rng)
    model = MLP(2, [16, 16, 1], Value.relu, linear, rng)
    click.echo(f"MLP(2, [16, 16, 1]) on 100 points, {len(model.parameters())} parameters")
    fit(model, margin_loss, X, Y, steps, lr, decay=0.9)
    accuracy = np.mean([model(x).data * y > 0 for x, y in zip(X, Y)])
    click.echo(f"\n{accuracy:.0%} of the points are on the right side: x (target 1) where the")
    click.echo("score is positive (#), o (target -1) where it is negative (.)\n")
    click.echo(boundary(model, X, Y))
    if plot:
        draw_boundary(plot, model, X, Y)


DATASETS = click.Choice(["lecture", "moons"])
FILE = click.Path(dir_okay=False, resolve_path=True)
POSITIVE = click.FloatRange(0, 10**6, min_open=True)


@click.command(context_settings={"show_default": True})
@click.option("--dataset", type=DATASETS, default="lecture", help="What to learn.")
@click.option("--steps", type=click.IntRange(1), help="Training steps (20, moons: 100).")
@click.option("--lr", type=POSITIVE, help="Learning rate (0.05, moons: 1).")
@click.option("--seed", type=click.IntRange(0), default=42, help="Random seed.")
@click.option("--plot", type=FILE, help="Draw the moons: .png, .svg, .pdf (needs matplotlib).")
@click.option("--graph", "dot_file", type=click.File("w", "utf-8"), help="Write a neuron's graph.")
def main(dataset, steps, lr, seed, plot, dot_file):
    """Compute derivatives with an autograd engine, and train small networks with it."""
    if plot:  # it is drawn at the end, so that what cannot be drawn is refused here
        if not plot.endswith((".png", ".svg", ".pdf")):
            raise click.BadParameter("not a .png, .svg or .pdf file", param_hint="--plot")
        os.stat(f"{os.path.dirname(plot)}/")  # the folder
        __import__("matplotlib.figure")
    rng = np.random.default_rng(seed)
    if dot_file:
        dot_file.write(graph(lecture_neuron()[0]))
    elif dataset == "moons" or plot:
        show_moons(rng, steps or 100, lr or 1.0, plot)
    else:
        show_derivatives()
        show_lecture(rng, steps or 20, lr or 0.05)


if __name__ == "__main__":
    try:
        main()
    except (ImportError, MemoryError, OSError, UnicodeEncodeError) as error:
        sys.exit(f"Error: {error}".splitlines()[0])
