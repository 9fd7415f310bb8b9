#!/usr/bin/env -S uv run --script
"""Stage 3: a multilayer perceptron that learns to make up names, every gradient derived by hand.

The model of Bengio et al. 2003, "A Neural Probabilistic Language Model", in the sizes of the
lecture "Building makemore, part 2": three characters in, the next one out. For a batch of B
contexts X with targets Y, and an alphabet of V characters, the forward pass is

    emb    = C[X]               (B, context * embedding)   embeddings: rows of C, side by side
    pre    = emb @ W1 + b1      (B, hidden)                before the activation
    h      = tanh(pre)          (B, hidden)                the outputs of the hidden units
    logits = h @ W2 + b2        (B, V)                     a score for every next character
    probs  = softmax(logits)    (B, V)                     exp of each, over the sum of its row
    loss   = mean(-log probs[i, Y[i]]) over the rows i     in nats, the unit of the natural log

The backward pass applies the chain rule to these lines in reverse. Write dx for the gradient of the
loss with respect to x: an array like x. `cross_entropy` derives dlogits; from there on, four rules
are enough. Each follows from one entry: where is it used, and times what?

    product      Z = A @ W: A[i, k] is in Z[i, j] for every j, times W[k, j]. So dA[i, k] is the sum
                 over j of dZ[i, j] * W[k, j]:  dA = dZ @ W.T, and in the same way dW = A.T @ dZ
    sum          Z = A + b: b[j] is in Z[i, j] for every i, times 1:  db = dZ.sum(axis=0), dA = dZ
    elementwise  z = f(a) changes with its own a alone:  da = dz * f'(a), with tanh' = 1 - tanh^2
    indexing     E = C[I]: C[k] is in every E[i] with I[i] = k, so dC[k] is the sum of these dE[i].
                 As C[I] = one_hot(I) @ C, that is the product rule:  dC = one_hot(I).T @ dE, with
                 one row for each character, so that X and demb have to be reshaped

Derive each line of `backward` before you read it. The shapes tell what to transpose.

    python mlp.py --steps 50000               train, evaluate and make up 20 names
    python mlp.py --prefix mar --samples 5    the lecture's 200,000 steps, names that start with mar
    python tests/gradcheck.py mlp             check every gradient, after you changed a line
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=2.2", "click>=8.2"]
# ///

import functools
import math
import os
import sys
import time
import zlib
from collections import namedtuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # more threads only add overhead here

import click
import numpy as np

from common import NAMES, build_dataset, build_vocab, load_words, split_words

# ------------------------------------------------------------------------------------------ the net

Net = namedtuple("Net", "C W1 b1 W2 b2")  # the parameters; their gradients take the same form


def new_net(rng, vocab, context, embedding, hidden, dtype=np.float32):
    """Every parameter drawn from N(0, 1), as in the lecture.

    Such parameters are far too large: the net starts out confident and wrong. Stage 4 initialises
    it better.
    """
    return Net(
        C=rng.standard_normal((vocab, embedding)).astype(dtype),
        W1=rng.standard_normal((context * embedding, hidden)).astype(dtype),
        b1=rng.standard_normal(hidden).astype(dtype),
        W2=rng.standard_normal((hidden, vocab)).astype(dtype),
        b2=rng.standard_normal(vocab).astype(dtype),
    )


# ---------------------------------------------------------------------- forward and backward passes

identity = functools.cache(np.identity)  # made once: it would take a tenth of every step


def one_hot(tokens, vocab, dtype):
    """Tokens (N,) -> (N, vocab), a single 1 in each row: row i of the identity matrix for i."""
    return identity(vocab, dtype).take(tokens, axis=0)


def forward(net, X):
    """Contexts X (B, context) -> emb (B, context * embedding), h (B, hidden), logits (B, V)."""
    C, W1, b1, W2, b2 = net
    emb = C.take(X, axis=0).reshape(len(X), -1)  # (B, context * embedding): C[X], but faster
    pre = emb @ W1 + b1  # (B, hidden)
    h = np.tanh(pre)  # (B, hidden)
    logits = h @ W2 + b2  # (B, V)
    return emb, h, logits


def backward(net, X, emb, h, dlogits):
    """Backpropagate dlogits (B, V) to every parameter -> a Net of gradients."""
    C, W1, b1, W2, b2 = net
    db2 = dlogits.sum(axis=0)  # (V,)
    dW2 = h.T @ dlogits  # (hidden, V)
    dh = dlogits @ W2.T  # (B, hidden)
    dpre = dh * (1 - h * h)  # (B, hidden), as h = tanh(pre)
    db1 = dpre.sum(axis=0)  # (hidden,)
    dW1 = emb.T @ dpre  # (context * embedding, hidden)
    demb = dpre @ W1.T  # (B, context * embedding)
    onehot = one_hot(X.ravel(), len(C), C.dtype)  # (B * context, V)
    dC = onehot.T @ demb.reshape(len(onehot), -1)  # (V, embedding)
    return Net(dC, dW1, db1, dW2, db2)


def cross_entropy(logits, Y):
    """Mean of -log softmax(logits)[Y] in nats, and its gradient -> (loss, dlogits (B, V)).

    For one row z with target y, and p = softmax(z), where [i = y] is 1 if i = y, otherwise 0,

        loss = -log p_y = log(sum_j exp z_j) - z_y
        dloss/dz_i = exp z_i / sum_j exp z_j - [i = y] = p_i - [i = y]

    The mean divides both by B. Subtracting the maximum of a row does not change its softmax, and
    exp cannot overflow.
    """
    B, V = logits.shape
    shifted = logits - logits.max(axis=1, keepdims=True)  # (B, V)
    counts = np.exp(shifted)  # (B, V), as if counted
    total = counts.sum(axis=1)  # (B,)
    loss = (np.log(total) - shifted[np.arange(B), Y]).sum() / B
    probs = counts / total[:, None]  # (B, V)
    dlogits = (probs - one_hot(Y, V, logits.dtype)) / B  # (B, V)
    return float(loss), dlogits


def loss_and_gradients(net, X, Y):
    """Contexts X (B, context), targets Y (B,) -> (mean loss in nats, a Net of gradients)."""
    emb, h, logits = forward(net, X)
    loss, dlogits = cross_entropy(logits, Y)
    return loss, backward(net, X, emb, h, dlogits)


# ------------------------------------------------------------------- training, evaluating, sampling


def train(net, X, Y, steps, batch_size, rate, seed, start=0):
    """Minibatch gradient descent from step `start` on: yields (steps done, loss before the step).

    `rate` is a function from the fraction of the steps done to a learning rate. Each block of
    1,000 steps has its own random generator: a step gets the same minibatch wherever training
    started.
    """
    for step in range(start, steps):
        if step == start or step % 1000 == 0:
            rng = np.random.default_rng([seed, 1 + step // 1000])
            batches = rng.integers(len(X), size=(1000, batch_size))  # (1000, B)
        batch = batches[step % 1000]  # (B,)
        loss, gradients = loss_and_gradients(net, X.take(batch, axis=0), Y.take(batch))
        lr = rate(step / steps)
        for parameter, gradient in zip(net, gradients):
            parameter -= lr * gradient
        yield step + 1, loss


def evaluate(net, X, Y, chunk=1024):
    """Mean loss in nats over all examples, a chunk at a time."""
    total = 0.0
    for i in range(0, len(X), chunk):
        x, y = X[i : i + chunk], Y[i : i + chunk]  # (chunk, context), (chunk,)
        loss, _ = cross_entropy(forward(net, x)[-1], y)
        total += loss * len(y)
    return total / len(X)


def sample(net, rng, stoi, itos, context, prefix="", temperature=1.0, longest=30):
    """Make up a word that starts with `prefix` -> str, cut at `longest` characters.

    Each next character is drawn from softmax(logits / temperature), until it is the dot. Raises
    KeyError for a prefix character without a token.
    """
    tokens = [0] * context + [stoi[character] for character in prefix]
    while len(tokens) < context + longest:
        logits = forward(net, np.array([tokens[-context:]]))[-1][0]  # (V,)
        scores = (logits.astype(float) - logits.max()) / temperature  # (V,)
        counts = np.exp(scores)  # (V,), the largest is 1
        token = rng.choice(len(counts), p=counts / counts.sum())
        if token == 0:
            break
        tokens.append(token)
    return "".join(itos[token] for token in tokens[context:])


def find_rate(net, X, Y, batch_size, seed):
    """Let the rate rise from 0.001 to 1 in 1,000 steps, and print the mean loss of every 50.

    A good rate is that of the lowest loss, or somewhat smaller: larger steps overshoot.
    """

    def rate(done):
        return 10 ** (3 * done - 3)

    losses = [loss for _, loss in train(net, X, Y, 1000, batch_size, rate, seed)]
    means = np.reshape(losses, (20, 50)).mean(axis=1)  # (20,)
    click.echo("    rate      loss")
    for i, loss in enumerate(means):
        mark = "  lowest" if loss == np.nanmin(means) else ""
        click.echo(f"{rate((50 * i + 25) / 1000):8.4f}{loss:10.4f}{mark}")


# ----------------------------------------------------------------------------------------- pictures


def draw_loss(axes, losses, vocab):
    """The training loss on log axes; each point is the mean of more steps than the one before."""
    edges = np.unique(np.geomspace(1, len(losses) + 1, 300).astype(int))
    axes.loglog(edges[:-1], [np.mean(losses[i - 1 : j - 1]) for i, j in zip(edges, edges[1:])])
    axes.axhline(math.log(vocab), color="black", linestyle=":")
    axes.set(title="Training loss; dotted: a uniform guess", xlabel="step")
    axes.set_yticks([2, 3, 5, 10, 20, 30], [2, 3, 5, 10, 20, 30])
    axes.minorticks_off()


def draw_run(path, losses, net, itos):
    """The training loss; with two numbers per character, also a map with each at its place."""
    from matplotlib.figure import Figure

    columns = 2 if net.C.shape[1] == 2 else 1
    figure = Figure(figsize=(6 * columns, 5), layout="constrained")
    loss, *maps = figure.subplots(1, columns, squeeze=False)[0]
    draw_loss(loss, losses, len(itos))
    for axes in maps:
        axes.plot(*net.C.T, " ")  # for the range of the axes
        for token, name in (itos | {0: "dot"}).items():
            color = "C3" if name in ("dot", *"aeiou") else "C0"
            axes.text(*net.C[token], name, color=color, size=11, ha="center", va="center")
        axes.set_title("Embedding; the dot and the vowels in red")
    figure.savefig(path)


# ------------------------------------------------------------------------- checkpoints and progress


def save(path, run, net, losses):
    """Write a checkpoint beside `path`, then rename it: the file at `path` is always whole."""
    np.savez(f"{path}.tmp.npz", run=run, losses=losses, **net._asdict())
    os.replace(f"{path}.tmp.npz", path)


def load(path, run, net):
    """Read a checkpoint of this run into the net -> the losses of its steps.

    Raises click.ClickException if it is damaged, or of a run with other settings, words or arrays.
    """
    try:
        arrays = dict(np.load(path))
        found, losses = arrays.pop("run").item().split(), arrays.pop("losses").tolist()
    except Exception:  # zipfile, zlib and NumPy each raise their own
        raise click.ClickException(f"{path} cannot be read as a checkpoint") from None
    if found != run.split():
        differ = " ".join(setting for setting in found if setting not in run.split())
        raise click.ClickException(f"{path} belongs to another run: {differ}")
    if {k: v.shape for k, v in arrays.items()} != {k: v.shape for k, v in net._asdict().items()}:
        raise click.ClickException(f"{path} belongs to another net: {', '.join(arrays)}")
    for name, array in net._asdict().items():
        array[:] = arrays[name]
    return losses


def fit(training, losses, steps, net, checkpoint, run):
    """Train, appending to losses; print their mean, and save, about ten times and at the end.

    Ctrl-C ends the training early. Raises click.ClickException if the loss diverges.
    """
    start = shown = len(losses)
    guess = f"uniform guess: ln {len(net.C)} = {math.log(len(net.C)):.4f}"
    click.echo(f"    step      loss, mean since the row above; {guess}")
    began = time.perf_counter()
    try:
        for step, loss in training:
            if not math.isfinite(loss):
                advice = "try a lower --lr, or tests/gradcheck.py if you changed the code"
                raise click.ClickException(f"the loss diverged at step {step:,}: {advice}")
            losses.append(loss)
            if step in (1, steps) or step % math.ceil(steps / 10) == 0:
                if checkpoint:
                    save(checkpoint, run, net, losses)
                click.echo(f"{step:8,} {np.mean(losses[shown:]):9.4f}")
                shown = step
            elif step % 100 == 0 and sys.stderr and sys.stderr.isatty():  # until the next row
                left = (time.perf_counter() - began) / (step - start) * (steps - step)
                click.echo(f"{left:9.0f} s left\r", nl=False, err=True)
    except KeyboardInterrupt:
        held = f": {checkpoint} holds the first {shown:,} steps" if checkpoint else ""
        click.echo(f"\nstopped by Ctrl-C{held}")
    click.echo(f"{len(losses) - start:,} steps in {time.perf_counter() - began:.1f} s")


# ------------------------------------------------------------------------------------- command line

TEXT = click.Path(exists=True, dir_okay=False)
FILE = click.Path(dir_okay=False, resolve_path=True)
COUNT, SIZE = click.IntRange(0), click.IntRange(1, 10_000)
POSITIVE = click.FloatRange(0, 10**6, min_open=True)


@click.command(context_settings={"show_default": True})
@click.option("--data", type=TEXT, help="Text file, one word per line.  [default: names.txt]")
@click.option("--steps", type=COUNT, default=200_000, help="Training steps.")
@click.option("--batch-size", type=SIZE, default=32, help="Examples per step.")
@click.option("--lr", type=POSITIVE, default=0.1, help="Learning rate at first; it falls to 0.")
@click.option("--context", type=SIZE, default=3, help="Context length.")
@click.option("--embedding", type=SIZE, default=10, help="Embedding size (2: --plot draws a map).")
@click.option("--hidden", type=SIZE, default=200, help="Hidden units.")
@click.option("--seed", type=COUNT, default=42, help="Random seed.")
@click.option("--samples", type=COUNT, default=20, help="Number of words to generate.")
@click.option("--prefix", default="", show_default=False, help="Start of every generated word.")
@click.option("--temperature", type=POSITIVE, default=1.0, help="Sampling temperature.")
@click.option("--checkpoint", type=FILE, help="Save here at every row; the same command resumes.")
@click.option("--plot", type=FILE, help="Draw the loss: .png, .svg, .pdf (needs matplotlib).")
@click.option("--find-lr", is_flag=True, help="Try learning rates from 0.001 to 1 and exit.")
@np.errstate(all="ignore")  # overflow shows up in the loss
def main(
    data, steps, batch_size, lr, context, embedding, hidden, seed, samples, prefix, temperature,
    checkpoint, plot, find_lr,
):  # fmt: skip
    """Train a multilayer perceptron on a list of words, and make up new ones."""
    if plot:  # it is drawn at the end, so that what cannot be drawn is refused here
        if not plot.endswith((".png", ".svg", ".pdf")):
            raise click.BadParameter("not a .png, .svg or .pdf file", param_hint="--plot")
        os.stat(f"{os.path.dirname(plot)}/")  # the folder
        __import__("matplotlib.figure")
    words = load_words(data or NAMES)
    if unknown := set(prefix) - set("".join(words)):
        raise click.BadParameter(f"no word contains {min(unknown)!r}", param_hint="--prefix")
    rng = np.random.default_rng(seed)
    stoi, itos = build_vocab(words)
    # The split has a generator of its own: it stays the same, whatever else is drawn.
    splits = [build_dataset(part, stoi, context) for part in split_words(words, rng.spawn(1)[0])]
    X, Y = splits[0]
    net = new_net(rng, len(stoi), context, embedding, hidden)
    known = set(words)
    sizes = f"{len(X):,} training examples, {sum(array.size for array in net):,} parameters"
    click.echo(f"{len(words):,} words ({len(known):,} distinct), {sizes}")
    click.echo(f"{len(stoi)} characters: {repr(''.join(stoi))[1:-1]}"[:80])
    if find_lr:
        return find_rate(net, X, Y, batch_size, seed)

    run = f"mlp.py {steps=} {batch_size=} {lr=} {context=} {embedding=} {hidden=} {seed=}"
    run += f" words={zlib.crc32('.'.join(words).encode()):08x}"  # their checksum
    losses = load(checkpoint, run, net) if checkpoint and os.path.exists(checkpoint) else []
    if losses:
        click.echo(f"{checkpoint}: {len(losses):,} of {steps:,} steps done")
    if len(losses) < steps:

        def rate(done):
            return lr * (1 - done)

        training = train(net, X, Y, steps, batch_size, rate, seed, start=len(losses))
        fit(training, losses, steps, net, checkpoint, run)

    click.echo("split      loss  perplexity = exp(loss): as a uniform choice among this many")
    for name, (x, y) in zip(("train", "dev", "test"), splits):
        loss = evaluate(net, x, y)
        click.echo(f"{name:5} {loss:9.4f} {np.exp(loss):#11.4g}")
    longest = min(76, 2 * max(map(len, words)))  # an untrained net might not end its words
    for _ in range(samples):
        word = sample(net, rng, stoi, itos, context, prefix, temperature, longest)
        click.echo(f"{word or '(empty)':19} {'' if word in known else 'new'}".rstrip())
    if plot:
        draw_run(plot, losses, net, itos)


if __name__ == "__main__":
    try:
        main()
    except (ImportError, MemoryError, OSError, UnicodeEncodeError) as error:
        sys.exit(f"Error: {error}".splitlines()[0])
