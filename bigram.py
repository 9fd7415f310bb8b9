#!/usr/bin/env -S uv run --script
"""Stage 2: counting pairs of characters, and a network of one layer that learns the same table.

How likely is `a` after `m`? Counting answers directly: as often as in the data. With N[i, j] the
number of times that j follows i, and an alphabet of V characters,

    P[i, j] = (N[i, j] + smoothing) / sum_j (N[i, j] + smoothing)     (V, V), rows sum to 1
    loss    = mean of -log P[i, j] over all pairs of the data         in nats

The network starts from random weights W instead, and descends the gradient of that loss. For n
pairs of a character X and the next character Y,

    logits  = one_hot(X) @ W                                          (n, V), that is W[X]
    loss    = mean(-log softmax(logits)[Y]) + l2 * mean(W^2)
    dlogits = (softmax(logits) - one_hot(Y)) / n                      (n, V)
    dW      = one_hot(X).T @ dlogits + 2 * l2 * W / V^2               (V, V)

Without the penalty it approaches the same table: only there does the gradient vanish. Longer
contexts (--order) are counted the same way, as long as the table fits in memory. After the lecture
"The spelled-out intro to language modeling: building makemore" (part 1).

    python bigram.py                                 both models, side by side
    python bigram.py --order 4 --smoothing auto      counting, as far as it goes
    python bigram.py --model net --prefix ma         names that start with ma, by the network
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=2.2", "click>=8.2"]
# ///

import io
import math
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # on matrices this small, threads only wait

import click
import numpy as np

from common import NAMES, build_dataset, build_vocab, load_words, split_words

# --------------------------------------------------------------------------------------- counting

MOST_CELLS = 2**25  # of one table: 256 MB


def count(words, stoi, order=2):
    """How often each run of `order` (at least 2) characters occurs -> N (V,) * order, integers.

    `.` stands before and after each word. Raises click.ClickException if the table is too large.
    """
    vocab = len(stoi)
    if vocab**order > MOST_CELLS:
        message = f"--order {order} needs {vocab}^{order} counts: at most {MOST_CELLS:,} fit"
        raise click.ClickException(message)
    X, Y = build_dataset(words, stoi, order - 1)  # (n, order - 1), (n,)
    shape = (vocab,) * order
    cells = np.ravel_multi_index((*X.T, Y), shape)  # (n,), each run's place in the flat table
    return np.bincount(cells, minlength=vocab**order).reshape(shape)


def probabilities(N, smoothing):
    """Counts -> P of the same shape, the last axis sums to 1.

    After a context that was never seen, without smoothing, every character is equally likely.
    """
    P = N + float(smoothing)
    total = P.sum(axis=-1, keepdims=True)
    P /= np.where(total == 0, 1, total)
    P[total[..., 0] == 0] = 1 / N.shape[-1]
    return P


def mean_loss(N, P):
    """Mean of -log P over the runs counted in N, in nats; inf if P rules out one of them."""
    seen = N > 0
    with np.errstate(divide="ignore"):
        return float(abs(N[seen] @ np.log(P[seen])) / N.sum())  # abs: - without -0.0


# ---------------------------------------------------------------------------------------- learning


def one_hot(tokens, vocab, dtype):
    """Tokens (n,) -> (n, vocab) with a single 1 in each row."""
    return np.eye(vocab, dtype=dtype)[tokens]


def softmax(logits):
    """Rows of scores -> rows of probabilities.

    Shifting a row by its maximum does not change its softmax, and exp cannot overflow.
    """
    counts = np.exp(logits - logits.max(axis=1, keepdims=True))
    return counts / counts.sum(axis=1, keepdims=True)


def loss_and_gradients(W, X, Y, l2=0.0):
    """W (V, V), inputs X (n,), targets Y (n,) -> (loss in nats, dW (V, V)): the definition.

    Training uses loss_and_gradients_of_counts, which the tests compare with this.

    For a row z of logits with the target y, and p = softmax(z), loss = log(sum_j exp z_j) - z_y and
    dloss/dz_i = p_i - [i = y]. The mean divides that by n.
    """
    inputs = one_hot(np.ravel(X), len(W), W.dtype)  # (n, V)
    targets = one_hot(np.ravel(Y), len(W), W.dtype)  # (n, V)
    probs = softmax(inputs @ W)  # (n, V)
    loss = -np.log(probs[targets == 1]).mean() + l2 * (W**2).mean()
    dlogits = (probs - targets) / len(targets)  # (n, V)
    dW = inputs.T @ dlogits + 2 * l2 * W / W.size  # (V, V)
    return float(loss), dW


def loss_and_gradients_of_counts(W, N, l2=0.0):
    """The same from the counts N (V, V) of the n pairs (X, Y), at a cost independent of n.

    Examples with the same input i share the logits W[i], so that their dlogits add up to

        sum over them of (softmax(W[i]) - one_hot(y)) / n = (N[i].sum() * softmax(W[i]) - N[i]) / n
    """
    n = N.sum()
    logits = W - W.max(axis=1, keepdims=True)  # (V, V)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))  # (V, V)
    loss = -np.vdot(N, log_probs) / n + l2 * (W**2).mean()
    dW = (N.sum(axis=1, keepdims=True) * np.exp(log_probs) - N) / n + 2 * l2 * W / W.size  # (V, V)
    return float(loss), dW


def train(W, N, steps, lr, l2=0.0):
    """Gradient descent on all pairs at once, in place: yield (steps done, loss before the step)."""
    N = N.astype(W.dtype)
    for step in range(steps):
        loss, dW = loss_and_gradients_of_counts(W, N, l2)
        W -= lr * dW
        yield step + 1, loss


# --------------------------------------------------------------------------------------- sampling


def sample(P, rng, itos, number, prefix="", temperature=1.0, longest=100):
    """Make up words that start with `prefix` -> list[str], cut at `longest` characters.

    P has the shape (V,) * order. All unfinished words advance together, each by a character drawn
    from P to the power 1 / temperature. Raises KeyError for a prefix character without a token.
    """
    stoi = {character: token for token, character in itos.items()}
    context = P.ndim - 1
    start = context + len(prefix)
    tokens = np.zeros((number, start + longest), int)  # every word starts with `context` dots
    tokens[:, context:start] = [stoi[character] for character in prefix]
    unfinished = np.arange(number)  # (U,), the rows that have not drawn a dot yet
    for end in range(start, context + longest):
        if not len(unfinished):
            break
        X = tokens[unfinished, end - context : end]  # (U, context)
        probs = P[tuple(X.T)]  # (U, V)
        probs /= probs.max(axis=1, keepdims=True)
        cumulative = (probs ** (1 / temperature)).cumsum(axis=1)  # (U, V)
        drawn = rng.random((len(unfinished), 1)) * cumulative[:, -1:]  # (U, 1)
        token = (cumulative[:, :-1] <= drawn).sum(axis=1)  # (U,)
        tokens[unfinished, end] = token
        unfinished = unfinished[token != 0]
    return ["".join(itos[t] for t in word).split(".")[0] for word in tokens[:, context:].tolist()]


# --------------------------------------------------------------------------------------- pictures


def most_frequent(N, number):
    """The tokens of the most frequent characters, ascending -> (number,) or fewer."""
    return np.sort(np.argsort(-N.sum(axis=0), kind="stable")[:number])


def heat_map(N, itos, shades=" .:-=+*#%@"):
    """The counts of pairs as shades of text, for as many characters as fit 80 columns."""
    tokens = most_frequent(N, 39)
    counts = np.log1p(N[np.ix_(tokens, tokens)])  # (39, 39) or smaller
    levels = np.rint(counts / counts.max() * (len(shades) - 1)).astype(int)
    characters = [itos[token] for token in tokens]
    lines = ["  " + " ".join(characters)]
    lines += [f"{c} " + " ".join(shades[i] for i in row) for c, row in zip(characters, levels)]
    return "\n".join(line.rstrip() for line in lines)


def check_plot(path):
    """Fail before training, not after it, if the picture cannot be drawn or written."""
    try:
        from matplotlib.figure import Figure

        figure = Figure()
        figure.text(0, 0, "x")
        figure.savefig(io.BytesIO(), format=Path(path).suffix[1:] or "none")
    except (ImportError, ValueError, RuntimeError) as error:  # no matplotlib, no such format
        raise click.BadParameter(str(error), param_hint="--plot") from None
    open(path, "ab").close()


def draw_counts(path, N, itos):
    """The table as a picture: each cell with its pair and its count, at most 40 x 40."""
    from matplotlib.figure import Figure

    tokens = most_frequent(N, 40)
    counts = N[np.ix_(tokens, tokens)]  # (40, 40) or smaller
    figure = Figure(figsize=(16, 16), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts, cmap="Blues")
    for (i, j), number in np.ndenumerate(counts):
        color = "white" if number > counts.max() / 2 else "black"
        pair = itos[tokens[i]] + itos[tokens[j]]
        axes.text(j, i, pair, ha="center", va="bottom", color=color, fontsize=9, parse_math=False)
        axes.text(j, i, number, ha="center", va="top", color=color, fontsize=7)
    axes.axis("off")
    figure.savefig(path)


# ----------------------------------------------------------------------------------- command line


def show_pairs(N, itos):
    """The ten most frequent pairs, and all of them as shades."""
    cells = np.argsort(-N, axis=None, kind="stable")[:10]
    pairs = [f"{itos[i]}{itos[j]} {N[i, j]:<8,}" for i, j in zip(*np.unravel_index(cells, N.shape))]
    click.echo("\nthe ten most frequent pairs")
    click.echo("".join(pairs[:5]).rstrip() + "\n" + "".join(pairs[5:]).rstrip())
    click.echo("\nall pairs: first character down, next across; from none to most  .:-=+*#%@")
    click.echo(heat_map(N, itos))


def show_word(word, P, stoi, itos):
    """The likelihood of one word, one row for each run of characters."""
    X, Y = build_dataset([word], stoi, P.ndim - 1)
    probs = P[(*X.T, Y)]  # (len(word) + 1,)
    click.echo(f"\n{word}  probability  -log")
    for context, target, p in zip(X.tolist(), Y.tolist(), probs):
        run = "".join(itos[token] for token in [*context, target])
        click.echo(f"{run:{len(word)}}{p:13.4f}{abs(np.log(p)):6.2f}")
    click.echo(f"mean of -log: {abs(np.log(probs).mean()):.4f}, the loss of this word")


def show_training(W, N, steps, lr, l2):
    """Train W in place, with ten lines of losses -> all losses.

    Raises click.ClickException if the loss diverges.
    """
    losses, began, vocab = [], time.perf_counter(), len(W)
    click.echo("\n    step      loss")
    try:
        for step, loss in train(W, N, steps, lr, l2):
            losses.append(loss)
            if step == 1 or step % math.ceil(steps / 10) == 0:
                guess = f"   uniform guess: ln {vocab} = {math.log(vocab):.4f}"
                click.echo(f"{step:8,} {loss:9.4f}{guess if step == 1 else ''}")
    except KeyboardInterrupt:
        click.echo(err=True)  # ends the line of ^C; what has been learnt is shown
    seconds, done = time.perf_counter() - began, len(losses)
    if not (np.isfinite(losses).all() and np.isfinite(W).all()):
        raise click.ClickException("the loss diverged: try a lower --lr")
    click.echo(f"{done:,} steps in {seconds:.1f} s ({seconds / max(1, done) * 1e6:.0f} µs/step)")
    return losses


def show_agreement(N, W, l2, losses):
    """How far apart the counted and the learnt tables are, and why."""
    counted, learnt = probabilities(N, 0), softmax(W)  # (V, V), (V, V)
    by_counting, by_learning = mean_loss(N, counted), mean_loss(N, learnt)
    apart = np.abs(learnt - counted).max()
    click.echo(f"\nloss by counting {by_counting:.4f}, by learning {by_learning:.4f}")
    click.echo(f"largest difference between the two tables {apart:.4f}")
    if (np.diff(losses) > 1e-9).any():
        click.echo("The loss rose on the way, so the training did not converge: try a lower --lr.")
    elif l2:
        click.echo("The penalty pulls the learnt probabilities towards each other.")
    else:
        click.echo("With more steps the difference approaches 0: the gradient in row i of W is")
        click.echo("(n_i softmax(W_i) - N_i) / n, where n_i sums row N_i. It vanishes only where")
        click.echo(
            "softmax(W_i) = N_i / n_i, the counted row; a count of 0 is never quite reached."
        )


def choose_smoothing(N_train, N_dev):
    """Show a grid of smoothings with their losses -> the one with the lowest loss on dev."""
    grid = [m * 10.0**e for e in (-3, -2, -1, 0) for m in (1, 3)] + [10.0]
    losses = [mean_loss(N_dev, probabilities(N_train, smoothing)) for smoothing in grid]
    click.echo("\nsmoothing  dev loss")
    for smoothing, loss in zip(grid, losses):
        click.echo(f"{smoothing:9g} {loss:9.4f}{'  <' if loss == min(losses) else ''}")
    return grid[int(np.argmin(losses))]


def show_losses(rows):
    """Rows of {name: (counts, probabilities)}."""
    click.echo("\nsplit            loss  perplexity")
    for name, (N, P) in rows.items():
        loss = mean_loss(N, P)
        click.echo(f"{name:11} {loss:9.4f} {np.exp(loss):#11.4g}")


def show_samples(words, samples):
    known = set(words)
    for word in samples:
        click.echo(word if word in known else f"{word:19} new")


def positive(text):
    """Read a positive real number from the command line."""
    if not 1e-6 <= float(text) <= 1e6:
        raise click.BadParameter(f"{text} is not between 1e-6 and 1e6.")
    return float(text)


def not_negative(text):
    """Read 0 or a positive real number from the command line."""
    return float(text) and positive(text)


def number_or_auto(text):
    """Read a number that is not negative, or auto, from the command line."""
    return text if text == "auto" else not_negative(text)


FILE, WORDS = click.Path(dir_okay=False), click.Path(exists=True, dir_okay=False)
SMOOTHING = "Added to every count; auto: the best on dev."
MODEL = "The model that makes up words."


@click.command(context_settings={"show_default": True})
@click.option("--data", type=WORDS, default=NAMES, show_default="names.txt", help="Word list.")
@click.option("--order", type=click.IntRange(2, 20), default=2, help="Length of the runs to count.")
@click.option("--smoothing", type=number_or_auto, default=1.0, help=SMOOTHING)
@click.option("--steps", type=click.IntRange(0, 10**6), default=200, help="Training steps.")
@click.option("--lr", type=positive, default=50.0, help="Learning rate.")
@click.option("--l2", type=not_negative, default=0.0, help="Weight of mean(W^2) in the loss.")
@click.option("--seed", type=click.IntRange(0), default=42, help="Random seed.")
@click.option("--model", type=click.Choice(["counts", "net"]), default="counts", help=MODEL)
@click.option("--samples", type=click.IntRange(0, 100_000), default=20, help="Words to make up.")
@click.option("--prefix", default="", show_default=False, help="Prefix of every sample.")
@click.option("--temperature", type=positive, default=1.0, help="Sampling temperature.")
@click.option("--plot", type=FILE, help="Picture of the counts to draw (needs matplotlib).")
@np.errstate(all="ignore")  # what overflows shows in the loss
def main(
    data, order, smoothing, steps, lr, l2, seed, model, samples, prefix, temperature, plot
):  # fmt: skip
    """Count which character follows which, and learn the same by gradient descent."""
    rng = np.random.default_rng(seed)
    split_rng = rng.spawn(1)[0]  # the split stays the same, whatever else is drawn
    if model == "net" and order != 2:
        raise click.UsageError("--model net needs --order 2")
    if plot:
        check_plot(plot)
    words = load_words(data)
    stoi, itos = build_vocab(words)
    if unknown := set(prefix) - set("".join(words)):
        raise click.BadParameter(f"no word contains {min(unknown)!r}", param_hint="--prefix")
    train_N, dev_N, test_N = (count(part, stoi, order) for part in split_words(words, split_rng))
    N = train_N + dev_N + test_N  # (V,) * order, of all words
    click.echo(f"{len(words):,} words, {len(stoi)} characters, {N.sum():,} runs of {order}")
    pairs = N.reshape(-1, len(stoi), len(stoi)).sum(axis=0)  # (V, V)
    show_pairs(pairs, itos)
    if smoothing == "auto":
        smoothing = choose_smoothing(train_N, dev_N)
    P, train_P = probabilities(N, smoothing), probabilities(train_N, smoothing)
    show_word(words[0], P, stoi, itos)

    W = rng.standard_normal((len(stoi), len(stoi)))  # (V, V)
    if order == 2:
        losses = show_training(W, N, steps, lr, l2)
        show_agreement(N, W, l2, losses)
    rows = {"all, 0": (N, probabilities(N, 0)), f"all, {smoothing:g}": (N, P)}
    rows |= {"train": (train_N, train_P), "dev": (dev_N, train_P), "test": (test_N, train_P)}
    show_losses(rows)
    P = P if model == "counts" else softmax(W)
    show_samples(words, sample(P, rng, itos, samples, prefix, temperature))
    if plot:
        draw_counts(plot, pairs, itos)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a character that the terminal lacks becomes a ?
    try:
        main()
    except OSError as error:
        sys.exit(f"Error: {error}")
