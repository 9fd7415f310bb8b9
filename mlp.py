#!/usr/bin/env -S uv run --script
"""Stage 3: a multilayer perceptron that learns to make up names, every gradient derived by hand.

The model of Bengio et al. 2003, "A Neural Probabilistic Language Model", in the sizes of the
lecture "Building makemore, part 2": three characters in, the next one out. For a batch of B
contexts X with targets Y, and an alphabet of V characters, the forward pass is

    emb    = C[X]                     (B, context * embedding)   rows of C, side by side
    pre    = emb @ W1 + b1            (B, hidden)
    h      = tanh(pre)                (B, hidden)
    logits = h @ W2 + b2              (B, V)                     a score for every next character
    loss   = mean(-log softmax(logits)[Y])                       in nats

The backward pass applies the chain rule to these lines in reverse. With dx for the gradient of the
loss with respect to x, and sums over the batch,

    dlogits = (softmax(logits) - one_hot(Y)) / B                 (B, V)
    dW2     = h.T @ dlogits           db2 = sum(dlogits)         (hidden, V) and (V,)
    dh      = dlogits @ W2.T                                     (B, hidden)
    dpre    = dh * (1 - h^2)          tanh' = 1 - tanh^2         (B, hidden)
    dW1     = emb.T @ dpre            db1 = sum(dpre)            shaped like W1 and b1
    demb    = dpre @ W1.T                                        (B, context * embedding)
    dC      = one_hot(X).T @ demb     as C[X] = one_hot(X) @ C   (V, embedding)

where one_hot(X) and demb have a row for each of the B * context characters.

    python mlp.py --steps 50000               train, evaluate and make up 20 names
    python mlp.py --prefix mar --samples 5    the lecture's 200,000 steps, names that start with mar
    python mlp.py --gradcheck                 compare every gradient with central differences
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=2.2", "click>=8.2"]
# ///

import copy
import math
import os
import sys
import time
import warnings
import zlib
from collections import namedtuple
from functools import cache
from unicodedata import normalize

if "numpy" in sys.modules and "OPENBLAS_NUM_THREADS" not in os.environ:
    warnings.warn("slower, as NumPy was imported first and uses several threads", stacklevel=2)
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # on matrices this small, threads only wait
sys.path.insert(0, os.path.dirname(__file__))  # for common, also with python -I

try:
    import click
    import numpy as np
except ImportError as error:
    sys.exit(f"Error: {error}. Needed: Python 3.11 or newer with numpy and click, see README.md")

from common import NAMES, build_dataset, build_vocab, load_words, split_words

# ---------------------------------------------------------------------------------------- the net

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


# -------------------------------------------------------------------- forward and backward passes

identity = cache(np.identity)  # made once: in every step, it would take a tenth of the time


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
    dW2 = h.T @ dlogits  # (hidden, V)
    db2 = dlogits.sum(axis=0)  # (V,)
    dh = dlogits @ W2.T  # (B, hidden)
    dpre = dh * (1 - h * h)  # (B, hidden)
    dW1 = emb.T @ dpre  # (context * embedding, hidden)
    db1 = dpre.sum(axis=0)  # (hidden,)
    demb = dpre @ W1.T  # (B, context * embedding)
    onehot = one_hot(X.ravel(), len(C), C.dtype)  # (B * context, V)
    dC = onehot.T @ demb.reshape(len(onehot), -1)  # (V, embedding)
    return Net(dC, dW1, db1, dW2, db2)


def cross_entropy(logits, Y):
    """Mean of -log softmax(logits)[Y] in nats, and its gradient -> (loss, dlogits (B, V)).

    For one row z with target y, and p = softmax(z),

        loss = -log p_y = log(sum_j exp z_j) - z_y
        dloss/dz_i = exp z_i / sum_j exp z_j - [i = y] = p_i - [i = y]

    The mean divides both by B. Subtracting the maximum of a row does not change its softmax, and
    exp cannot overflow.
    """
    B, V = logits.shape
    onehot = one_hot(Y, V, logits.dtype)  # (B, V)
    shifted = logits - logits.max(axis=1, keepdims=True)  # (B, V)
    counts = np.exp(shifted)  # (B, V)
    total = counts.sum(axis=1)  # (B,)
    loss = (np.log(total) - shifted[onehot == 1]).sum() / B
    probs = counts / total[:, None]  # (B, V)
    dlogits = (probs - onehot) / B  # (B, V)
    return float(loss), dlogits


def loss_and_gradients(net, X, Y):
    """Contexts X (B, context), targets Y (B,) -> (mean loss in nats, a Net of gradients)."""
    emb, h, logits = forward(net, X)
    loss, dlogits = cross_entropy(logits, Y)
    return loss, backward(net, X, emb, h, dlogits)


# ---------------------------------------------------------------- training, evaluating, sampling


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


def sample(net, rng, stoi, itos, context, prefix="", temperature=1.0, longest=100):
    """Make up a word that starts with `prefix` -> str, cut at `longest` characters.

    Each next character is drawn from softmax(logits / temperature), until it is the dot. Raises
    KeyError for a prefix character without a token.
    """
    tokens = [0] * context + [stoi[character] for character in prefix]
    while len(tokens) < context + longest:
        *_, logits = forward(net, np.array([tokens[-context:]]))  # (1, V)
        scores = logits[0].astype(float) / temperature  # (V,)
        counts = np.exp(scores - scores.max())  # (V,)
        token = rng.choice(len(counts), p=counts / counts.sum())
        if token == 0:
            break
        tokens.append(token)
    return "".join(itos[token] for token in tokens[context:])


# ------------------------------------------------------------- checking gradients, finding a rate


def relative_error(found, expected):
    """The largest difference over the largest expected number (at least 1e-4); inf for nan."""
    if np.shape(found) != np.shape(expected):
        return math.inf
    error = np.abs(found - expected).max(initial=0) / np.abs(expected).max(initial=1e-4)
    return math.inf if math.isnan(error) else error


def check_gradients(rng, vocab=7, context=3, embedding=4, hidden=5, batch=6, epsilon=1e-6):
    """Compare the gradients with central differences in float64 -> {array: relative error}.

    dloss/dx is about (loss(x + epsilon) - loss(x - epsilon)) / (2 epsilon).
    """
    net = new_net(rng, vocab, context, embedding, hidden, np.float64)
    X, Y = rng.integers(vocab, size=(batch, context)), rng.integers(vocab, size=batch)
    loss, gradients = loss_and_gradients(net, X, Y)
    errors = {"loss": relative_error(loss, evaluate(net, X, Y, chunk=4))}
    for name, array, by_hand in zip(Net._fields, net, gradients):
        numeric = np.zeros_like(array)
        for i, value in np.ndenumerate(array):
            array[i] = value + epsilon
            above = evaluate(net, X, Y, chunk=4)
            array[i] = value - epsilon
            below = evaluate(net, X, Y, chunk=4)
            array[i] = value
            numeric[i] = (above - below) / (2 * epsilon)
        errors[name] = relative_error(by_hand, numeric)
    if math.inf in errors.values():  # missing or of a wrong shape: no step can be taken
        return errors
    # A step of train, from the middle of two, at a rate of 0.5 on the minibatch that it draws.
    batch = np.random.default_rng([0, 1]).integers(len(X), size=(1000, 4))[1]  # (4,)
    before, (_, gradients) = copy.deepcopy(net), loss_and_gradients(net, X[batch], Y[batch])
    next(train(net, X, Y, 2, 4, lambda done: done, seed=0, start=1))
    after = [array - 0.5 * gradient for array, gradient in zip(before, gradients)]
    errors["train"] = max(map(relative_error, net, after))
    return errors


def cross_entropy_step_by_step(logits, Y):
    """Both passes the long way, a line for each operation, and one for its gradient in reverse.

    -> (loss, dlogits (B, V)). --gradcheck compares cross_entropy with it.
    """
    rows = np.arange(len(Y))  # (B,)
    maximum = logits.max(axis=1, keepdims=True)  # (B, 1)
    shifted = logits - maximum  # (B, V)
    counts = np.exp(shifted)  # (B, V)
    total = counts.sum(axis=1, keepdims=True)  # (B, 1)
    probs = counts / total  # (B, V)
    log_probs = np.log(probs)  # (B, V)
    loss = -log_probs[rows, Y].mean()

    dlog_probs = np.zeros_like(logits)  # (B, V)
    dlog_probs[rows, Y] = -1 / len(Y)
    dprobs = dlog_probs / probs  # (B, V)
    dtotal = -(dprobs * counts / total**2).sum(axis=1, keepdims=True)  # (B, 1)
    dcounts = dprobs / total + dtotal  # (B, V), as counts enter probs directly and through total
    dshifted = dcounts * counts  # (B, V)
    dmaximum = -dshifted.sum(axis=1, keepdims=True)  # (B, 1), about 0: it changes no loss
    dlogits = dshifted.copy()  # (B, V)
    dlogits[rows, logits.argmax(axis=1)] += dmaximum[:, 0]
    return loss, dlogits


def check_cross_entropy(rng):
    """Compare cross_entropy with the long way, and where exp would overflow -> relative error."""
    logits, Y = rng.standard_normal((6, 7)), rng.integers(7, size=6)  # (6, 7), (6,)
    pairs = [*zip(cross_entropy(logits, Y), cross_entropy_step_by_step(logits, Y))]
    logits = np.array([[5000.0, 0.0, -math.inf], [0.0, 0.0, 0.0]])  # (2, 3)
    loss, dlogits = cross_entropy(logits, np.array([1, 2]))
    pairs.append((loss, (5000 + math.log(3)) / 2))
    pairs.append((6 * dlogits, np.array([[3, -3, 0], [1, 1, -2]])))
    return max(relative_error(found, expected) for found, expected in pairs)


def report(errors):
    """Print a row for each error. Raises click.ClickException if one is not below 1e-6."""
    click.echo("checked        largest error")
    for name, error in errors.items():
        zero = ", all zero" if error == 0 and name in Net._fields else ""
        click.echo(f"{name:13}{error:15.1e}  {'ok' if error < 1e-6 else 'WRONG'}{zero}")
    if wrong := [name for name, error in errors.items() if not error < 1e-6]:
        raise click.ClickException(f"wrong gradients: {', '.join(wrong)}")
    click.echo("every gradient agrees with central differences within 1e-6")


def find_rate(net, X, Y, batch_size, seed):
    """Let the rate rise from 0.001 to 1 in 1,000 steps, and print the mean loss of every 50.

    A good rate is near the lowest row, or a little below: beyond it, steps are too large.
    """

    def rate(done):
        return 10 ** (3 * done - 3)

    losses = [loss for _, loss in train(net, X, Y, 1000, batch_size, rate, seed)]
    means = np.reshape(losses, (20, 50)).mean(axis=1)  # (20,)
    lowest = np.argmin(np.nan_to_num(means, nan=np.inf))
    click.echo("    rate      loss")
    for i, loss in enumerate(means):
        mark = "  lowest" if i == lowest else ""
        click.echo(f"{rate((50 * i + 25) / 1000):8.4f}{loss:10.4f}{mark}")
    if lowest == 19:
        click.echo("The last row is the lowest: the best rate may be higher still.")


# ------------------------------------------------------------------------ pictures and checkpoints


def draw_loss(axes, losses, vocab):
    """The training loss on log axes; each point is the mean of more steps than the one before."""
    edges = np.unique(np.geomspace(1, len(losses) + 1, 300).astype(int))
    axes.plot(edges[:-1], [np.mean(losses[i - 1 : j - 1]) for i, j in zip(edges, edges[1:])])
    axes.axhline(math.log(vocab), color="black", linestyle=":", label="uniform guess")
    axes.set(title="Training loss", xlabel="step", ylabel="loss in nats")
    axes.set(xscale="log", yscale="log", xlim=(1, len(losses) + 2))
    axes.set_yticks([2, 3, 5, 10, 20], [2, 3, 5, 10, 20])
    axes.yaxis.minorticks_off()
    axes.legend()


def draw_run(path, losses, net, itos):
    """The training loss; with two numbers per character, also a map with each at its place."""
    from matplotlib.figure import Figure

    columns = 2 if net.C.shape[1] == 2 else 1
    figure = Figure(figsize=(6 * columns, 5), layout="constrained")
    left, *right = figure.subplots(1, columns, squeeze=False)[0]
    draw_loss(left, losses, len(itos))
    for axes in right:
        axes.plot(*net.C.T, ".", alpha=0)  # for the range of the axes
        for token, (x, y) in enumerate(net.C):
            color = "C3" if itos[token] in ".aeiou" else "C0"
            axes.annotate(itos[token], (x, y), color=color, size=13, ha="center", va="center")
        axes.set_title("Embedding; the dot and the vowels in red")
    with warnings.catch_warnings(record=True) as lacking:
        figure.savefig(path)
    if any("Glyph" in str(warning.message) for warning in lacking):
        click.echo("The font lacks some characters: boxes stand for them.", err=True)


SAVE_EVERY = 5.0  # seconds
SETTINGS = "steps", "batch_size", "lr", "context", "embedding", "hidden", "seed"  # of a run


def save(path, net, losses, run):
    """Write a checkpoint beside `path`, then rename it: the file at `path` is always whole.

    `run` holds the settings, the script and the words. Raises click.ClickException if another run
    has written to `path` in the meantime.
    """
    beside = f"{path}.{os.getpid()}.tmp"
    try:
        with open(beside, "wb") as file:
            np.savez(file, **net._asdict(), losses=losses, **run)
        if os.path.exists(path):
            load(path, run)
            os.chmod(beside, os.stat(path).st_mode)
        os.replace(beside, path)
    finally:
        if os.path.exists(beside):
            os.remove(beside)


def load(path, run=None, net=None):
    """Read a checkpoint -> (its run, the losses of its steps), and fill the net if one is given.

    Raises click.ClickException if it is damaged, or of another run.
    """
    with open(path, "rb") as file:
        try:
            archive = np.load(file)
            if any(entry.compress_type for entry in archive.zip.infolist()):
                raise ValueError("np.savez does not compress, and this may be huge")
            names = {"script", "words", *SETTINGS} & set(archive)
            saved = {name: archive[name].item() for name in names}
            for name, value in (run or {}).items():
                if saved.get(name) != value:
                    difference = f"{name} {saved.get(name)!r:.50}, not {value!r:.50}"
                    raise click.ClickException(f"{path} belongs to another run, with {difference}")
            for name, array in net._asdict().items() if net else ():
                if archive[name].shape != array.shape or not np.isfinite(archive[name]).all():
                    raise ValueError(f"not an array of this net: {name}")
                np.copyto(array, archive[name], casting="equiv")
            losses = archive["losses"].astype(float).tolist()
            if len(losses) > saved["steps"]:
                raise ValueError("more losses than steps")
            return saved, losses
        except click.ClickException:
            raise
        except Exception:  # zipfile, zlib and NumPy each raise their own
            raise click.ClickException(f"{path} is damaged or not a checkpoint") from None


def defaults_from(ctx, option, path):
    """Make the settings in a checkpoint the defaults of the other options."""
    if path and os.path.exists(path):
        if not os.path.isfile(path):
            raise click.BadParameter(f"{path} is not a regular file.")
        saved, _ = load(path)
        ctx.default_map = {name: str(saved[name]) for name in SETTINGS if name in saved}
    return path


# ----------------------------------------------------------------------------------- command line


def fit(net, training, losses, steps, checkpoint, run):
    """Train, appending to losses; print about ten rows of them and the time left; save checkpoints.

    Ctrl-C ends the training early. Raises click.ClickException if the loss diverges.
    """
    start = shown = len(losses)
    live = all(stream and stream.isatty() for stream in (sys.stdout, sys.stderr))
    clear = "\r\033[K" if live else ""  # the line with the time left
    guess = f"uniform guess: ln {len(net.C)} = {math.log(len(net.C)):.4f}"
    click.echo(f"    step      loss, mean since the row above; {guess}")
    began = saved = told = time.perf_counter()
    try:
        for step, loss in training:
            losses.append(loss)
            now = time.perf_counter()
            due = step == steps or now - saved > SAVE_EVERY
            if not math.isfinite(loss) or due and not all(np.isfinite(a).all() for a in net):
                click.echo(clear, nl=False, err=True)
                message = "try a lower --lr, or --gradcheck if you changed the code"
                raise click.ClickException(f"the loss diverged at step {step:,}: {message}")
            if step in (1, steps) or step % math.ceil(steps / 10) == 0:
                click.echo(f"{clear}{step:8,} {np.mean(losses[shown:]):9.4f}")
                shown = len(losses)
            elif live and now - told > 0.2:
                left = (now - began) / (step - start) * (steps - step)
                click.echo(f"{clear}{step / steps:4.0%}, {left:.0f} s left", nl=False, err=True)
                told = now
            if due:
                if checkpoint:
                    save(checkpoint, net, losses, run)
                saved = now
    except KeyboardInterrupt:
        click.echo(f"{clear}stopped by Ctrl-C")
    seconds, done = time.perf_counter() - began, len(losses) - start
    click.echo(f"{done:,} steps in {seconds:.1f} s ({seconds / max(1, done) * 1e6:.0f} µs/step)")


def positive(text):
    """Read a positive real number from the command line."""
    if not 1e-6 <= float(text) <= 1e6:
        raise click.BadParameter(f"{text} is not between 1e-6 and 1e6.")
    return float(text)


WORDS = click.Path(exists=True, dir_okay=False, resolve_path=True)
FILE = click.Path(dir_okay=False, resolve_path=True)
COUNT, SIZE = click.IntRange(0, 10**7), click.IntRange(1, 100)
PLOT = "Picture of the loss to draw (needs matplotlib)."
CHECKPOINT = "Save here every 5 seconds; resume from here, with its settings (except --data)."


@click.command(context_settings={"show_default": True})
@click.option("--data", type=WORDS, default=NAMES, show_default="names.txt", help="Word list.")
@click.option("--steps", type=COUNT, default=200_000, help="Training steps.")
@click.option("--batch-size", type=click.IntRange(1, 10_000), default=32, help="Examples per step.")
@click.option("--lr", type=positive, default=0.1, help="Learning rate at first; it falls to 0.")
@click.option("--context", type=SIZE, default=3, help="Characters of input.")
@click.option(
    "--embedding", type=SIZE, default=10, help="Numbers per character (2: --plot draws a map)."
)
@click.option("--hidden", type=click.IntRange(1, 10_000), default=200, help="Hidden units.")
@click.option("--seed", type=click.IntRange(0), default=42, help="Random seed.")
@click.option("--samples", type=click.IntRange(0, 10_000), default=20, help="Words to make up.")
@click.option("--prefix", default="", show_default=False, help="Prefix of every sample.")
@click.option("--temperature", type=positive, default=1.0, help="Sampling temperature.")
@click.option("--checkpoint", type=FILE, is_eager=True, callback=defaults_from, help=CHECKPOINT)
@click.option("--plot", type=FILE, help=PLOT)
@click.option("--gradcheck", is_flag=True, help="Check the gradients and exit.")
@click.option("--find-lr", is_flag=True, help="Try learning rates from 0.001 to 1 and exit.")
@click.pass_context
@np.errstate(all="ignore")  # what overflows shows in the loss
def main(
    ctx, data, steps, batch_size, lr, context, embedding, hidden, seed, samples, prefix,
    temperature, checkpoint, plot, gradcheck, find_lr,
):  # fmt: skip
    """Train a multilayer perceptron on a list of words, and make up new ones."""
    rng = np.random.default_rng(seed)
    split_rng = rng.spawn(1)[0]  # the split stays the same, whatever else is drawn
    if gradcheck:
        return report({**check_gradients(rng), "cross entropy": check_cross_entropy(rng)})
    if plot and (plot == checkpoint or os.path.splitext(plot)[1] not in (".png", ".svg", ".pdf")):
        raise click.BadParameter("not a .png, .svg or .pdf file of its own", param_hint="--plot")
    if find_lr and (checkpoint or plot):
        raise click.UsageError("--find-lr takes no --checkpoint or --plot")
    words, prefix = load_words(data), normalize("NFC", prefix)
    if unknown := set(prefix) - set("".join(words)):
        raise click.BadParameter(f"no word contains {min(unknown)!r}", param_hint="--prefix")
    stoi, itos = build_vocab(words)
    splits = [build_dataset(part, stoi, context) for part in split_words(words, split_rng)]
    X, Y = splits[0]
    net, losses, known = new_net(rng, len(stoi), context, embedding, hidden), [], set(words)
    checksum = zlib.crc32("\n".join(words).encode())
    run = {name: ctx.params[name] for name in SETTINGS}
    run |= {"script": "mlp.py", "words": f"{len(words):,} ({checksum:08x})"}
    if checkpoint and os.path.exists(checkpoint):
        _, losses = load(checkpoint, run, net)
        click.echo(f"{checkpoint}: {len(losses):,} of {steps:,} steps done")
    click.echo(
        f"{len(words):,} words ({len(known):,} distinct), {len(X):,} training examples, "
        f"{sum(array.size for array in net):,} parameters"
    )
    click.echo(f"{len(stoi)} characters: {repr(''.join(stoi))[1:-1]}"[:80])
    if find_lr:
        return find_rate(net, X, Y, batch_size, seed)

    if plot:
        draw_run(plot, losses, net, itos)  # fail early if it cannot be drawn
    if len(losses) < steps:
        if checkpoint:
            save(checkpoint, net, losses, run)  # fail early if it cannot be written
        start = len(losses)
        training = train(net, X, Y, steps, batch_size, lambda done: lr * (1 - done), seed, start)
        fit(net, training, losses, steps, checkpoint, run)

    click.echo("split      loss  perplexity = exp(loss): as unsure as a guess among this many")
    ends = [evaluate(net, x, y) for x, y in splits]
    for name, loss in zip(("train", "dev", "test"), ends):
        click.echo(f"{name:5} {loss:9.4f} {np.exp(loss):#11.4g}")
    if ends[0] > math.log(len(stoi)):
        click.echo("Worse than a uniform guess: train longer, or with a lower --lr.", err=True)
    if ends[1] > ends[0] + 0.5:
        click.echo("dev is far above train: the net has learnt its words by heart.", err=True)
    longest = 2 * max(map(len, words))
    for _ in range(samples):
        word = sample(net, rng, stoi, itos, context, prefix, temperature, longest).strip()
        mark = "" if word in known else "new" if len(word) < longest else "cut"
        click.echo(f"{word or '(empty)':19} {mark}".rstrip())
    if plot:
        draw_run(plot, losses, net, itos)


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):  # not so in a notebook
        sys.stdout.reconfigure(errors="replace")  # a character that the terminal lacks becomes a ?
    try:
        main()
    except ImportError as error:  # of matplotlib
        sys.exit(f"Error: {error}: pip install {error.name}")
    except (MemoryError, OSError) as error:
        sys.exit(f"Error: {str(error) or 'out of memory'}")
