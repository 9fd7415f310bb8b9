#!/usr/bin/env -S uv run --script
"""Stage 2: counting pairs of characters, and a network of one layer that learns the same table.

How likely is `a` after `m`? Counting answers directly: as often as in the data. With N[i, j] the
number of times that j follows i, and an alphabet of V characters,

    P[i, j] = (N[i, j] + smoothing) / sum_j (N[i, j] + smoothing)     (V, V), rows sum to 1
    loss    = mean of -log P[i, j] over all pairs of the data         in nats

The network starts from random weights W instead, and descends the gradient of that loss. Row i of
W holds the logits, unbounded scores, of what follows i; softmax makes probabilities of them. For n
pairs of a character X and the next character Y,

    logits  = one_hot(X) @ W                                          (n, V), that is W[X]
    loss    = mean(-log softmax(logits)[Y]) + l2 * mean(W^2)
    dlogits = (softmax(logits) - one_hot(Y)) / n                      (n, V)
    dW      = one_hot(X).T @ dlogits + 2 * l2 * W / V^2               (V, V)

Without the penalty it approaches the table without smoothing: only there does the gradient vanish.
Longer contexts (--order) are counted the same way, as long as the table fits in memory. After the
lecture "The spelled-out intro to language modeling: building makemore" (part 1).

    python bigram.py                               both models, side by side
    python bigram.py --order 4 --smoothing auto    count runs of 4 characters
    python bigram.py --model net --prefix ma       names that start with ma, by the network
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=2.2", "click>=8.2"]
# ///

import math
import os
import sys
import time
import warnings

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
    """Counts -> P of the same shape; its last axis sums to 1.

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
        return float(abs(N[seen] @ np.log(P[seen])) / N.sum())  # abs instead of -: no -0.0


# ---------------------------------------------------------------------------------------- learning


def softmax(logits):
    """Rows of logits -> rows of probabilities.

    Shifting a row by its maximum does not change its softmax, and exp cannot overflow.
    """
    counts = np.exp(logits - logits.max(axis=1, keepdims=True))  # (n, V)
    return counts / counts.sum(axis=1, keepdims=True)


def loss_and_gradients(W, X, Y, l2=0.0):
    """W (V, V), inputs X (n,) or (n, 1), targets Y (n,) -> (loss in nats, dW (V, V)).

    For a row z of logits with the target y, and p = softmax(z),

        loss = -log p_y = log(sum_j exp z_j) - z_y
        dloss/dz_i = exp z_i / sum_j exp z_j - [i = y] = p_i - [i = y]

    which the mean divides by n.
    """
    inputs = np.eye(len(W), dtype=W.dtype)[np.ravel(X)]  # (n, V), one-hot rows
    targets = np.eye(len(W), dtype=W.dtype)[Y]  # (n, V)
    logits = inputs @ W  # (n, V)
    probs = softmax(logits)  # (n, V)
    loss = -np.log(probs[targets == 1]).mean() + l2 * (W**2).mean()
    dlogits = (probs - targets) / len(Y)  # (n, V)
    dW = inputs.T @ dlogits + 2 * l2 * W / W.size  # (V, V)
    return float(loss), dW


def loss_and_gradients_of_counts(W, N, l2=0.0):
    """The same from the counts N (V, V) of the n pairs (X, Y), at a cost independent of n.

    The pairs that begin with i share the logits W[i]. There are n_i = sum_j N[i, j] of them, and
    their dlogits add up to

        sum over them of (softmax(W[i]) - one_hot(y)) / n = (n_i * softmax(W[i]) - N[i]) / n
    """
    n = N.sum()
    logits = W - W.max(axis=1, keepdims=True)  # (V, V)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))  # (V, V)
    loss = -np.vdot(N, log_probs) / n + l2 * (W**2).mean()
    dW = (N.sum(axis=1, keepdims=True) * np.exp(log_probs) - N) / n + 2 * l2 * W / W.size  # (V, V)
    return float(loss), dW


def train(W, N, steps, lr, l2=0.0):
    """Gradient descent on all pairs at once: a generator of (step, loss), before each step."""
    N = N.astype(W.dtype)
    for step in range(steps):
        loss, dW = loss_and_gradients_of_counts(W, N, l2)
        yield step + 1, loss
        W -= lr * dW


# --------------------------------------------------------------------------------------- sampling


def sample(P, rng, itos, number, prefix="", temperature=1.0, longest=100):
    """Make up words that start with `prefix` -> list[str], cut at `longest` characters.

    P has the shape (V,) * order. All unfinished words advance together, each by a character drawn
    from P to the power 1 / temperature. Raises KeyError for a prefix character without a token.
    """
    stoi = {character: token for token, character in itos.items()}
    context = P.ndim - 1
    tokens = np.tile([0] * context + [stoi[c] for c in prefix], (number, 1))  # (number, length)
    unfinished = np.arange(number)  # (U,), the rows that have not drawn a dot yet
    while len(unfinished) and tokens.shape[1] < context + longest:
        probs = P[tuple(tokens[unfinished, -context:].T)]  # (U, V)
        probs /= probs.max(axis=1, keepdims=True)
        cumulative = (probs ** (1 / temperature)).cumsum(axis=1)  # (U, V)
        drawn = rng.random((len(unfinished), 1)) * cumulative[:, -1:]  # (U, 1)
        token = (cumulative[:, :-1] <= drawn).sum(axis=1)  # (U,)
        tokens = np.pad(tokens, ((0, 0), (0, 1)))  # append a dot to every word
        tokens[unfinished, -1] = token
        unfinished = unfinished[token != 0]
    return ["".join(itos[t] for t in word).split(".")[0] for word in tokens[:, context:].tolist()]


# --------------------------------------------------------------------------------------- pictures


def most_frequent(N, number):
    """The tokens of the most frequent characters, most frequent first -> (number,) or fewer."""
    return np.argsort(-N.sum(axis=0), kind="stable")[:number]


def draw_counts(path, N, itos):
    """The counts of pairs N (V, V) as a picture, each cell with its pair, at most 40 x 40."""
    from matplotlib.figure import Figure

    warnings.filterwarnings("ignore", "Glyph")  # a box stands for a character the font lacks
    tokens = np.sort(most_frequent(N, 40))
    counts = N[np.ix_(tokens, tokens)]  # (40, 40) or smaller
    figure = Figure(figsize=(16, 16))
    axes = figure.add_axes((0, 0, 1, 0.96))
    axes.imshow(counts, cmap="Blues")
    for (i, j), number in np.ndenumerate(counts):
        color = "white" if number > counts.max() / 2 else "black"
        pair = itos[tokens[i]] + itos[tokens[j]]
        axes.text(j, i, pair, ha="center", va="bottom", color=color, fontsize=9, parse_math=False)
        axes.text(j, i, number, ha="center", va="top", color=color, fontsize=7)
    axes.axis("off")
    title = f"Counts of pairs: how often the second character follows the first ({N.sum():,} pairs)"
    axes.set_title(title, size=20)
    figure.savefig(path)


# ----------------------------------------------------------------------------------- command line


def show_pairs(N, itos):
    """The counts of the pairs N (V, V) of the six most frequent characters."""
    tokens = most_frequent(N, 6)
    which = "all pairs" if len(N) <= 6 else "pairs of the six most frequent characters"
    click.echo(f"\n{which}, first down, next across")
    click.echo(" " + "".join(f"{itos[j]:>8}" for j in tokens))
    for i in tokens:
        click.echo(itos[i] + "".join(f"{N[i, j]:8,}" for j in tokens))


def show_word(word, P, stoi, itos, title):
    """The likelihood of one word, one row for each run of characters."""
    X, Y = build_dataset([word], stoi, P.ndim - 1)
    probs = P[(*X.T, Y)]  # (len(word) + 1,)
    click.echo(f"\n{word}  probability  -log   by {title}")
    for context, target, p in zip(X.tolist(), Y.tolist(), probs):
        run = "".join(itos[token] for token in [*context, target])
        click.echo(f"{run:{len(word)}}{p:13.4f}{abs(np.log(p)):6.2f}")
    click.echo(f"mean of -log: {abs(np.log(probs).mean()):.4f} nats, the loss of this word")


def show_both_ways(W, words, stoi, l2):
    """The loss and the gradient of a few words, by their one-hot rows and by their counts.

    Raises click.ClickException if they are not the same.
    """
    by_rows, dW_by_rows = loss_and_gradients(W, *build_dataset(words, stoi, 1), l2)
    by_counts, dW_by_counts = loss_and_gradients_of_counts(W, count(words, stoi), l2)
    apart = np.abs(dW_by_rows - dW_by_counts).max()
    click.echo(f"\nuntrained net, {len(words)} words: loss {by_rows:.6f} by one-hot rows,")
    click.echo(f"{by_counts:.6f} by their counts, and gradients at most {apart:.0e} apart.")
    if not (apart < 1e-6 and abs(by_rows - by_counts) < 1e-6):
        raise click.ClickException("rows and counts disagree: one of the two is wrong")
    click.echo("The counts hold all that loss and gradient need: the training goes on from them.")


def show_training(W, N, steps, lr, l2):
    """Train W (V, V) in place on the counts N, with six rows of losses.

    Each row has the largest difference between the learnt and the counted table. Raises
    click.ClickException if the loss diverges.
    """
    seen = N.any(axis=1)  # (V,), the characters that have a successor in N
    losses, counted, began = [], probabilities(N, 0), time.perf_counter()
    click.echo(f"    step      loss  off by   uniform guess: ln {len(W)} = {math.log(len(W)):.4f}")
    for step, loss in train(W, N, steps, lr, l2):
        losses.append(loss)
        if step == 1 or step % math.ceil(steps / 5) == 0:
            apart = np.abs(softmax(W) - counted)[seen].max()
            click.echo(f"{step:8,} {loss:9.4f}  {apart:.4f}")
    seconds, done = time.perf_counter() - began, len(losses)
    if not (np.isfinite(losses).all() and np.isfinite(W).all()):
        raise click.ClickException("the loss diverged: try a lower --lr")
    click.echo(f"{done:,} steps in {seconds:.1f} s ({seconds / max(1, done) * 1e6:.0f} µs/step)")
    click.echo("off by: the largest difference from the table of counts")
    if (np.diff(losses) > 1e-9).any():
        click.echo("The loss rose on the way, so the training did not converge: try a lower --lr.")
    elif l2:
        click.echo("The penalty, part of the loss above, pulls the probabilities towards uniform.")
    else:
        click.echo("It approaches 0: only where both tables agree is the gradient 0.")


def choose_smoothing(N_train, N_dev):
    """Show a grid of smoothings with their losses -> the one with the lowest loss on dev."""
    grid = [m * 10.0**e for e in (-3, -2, -1, 0) for m in (1, 3)] + [10.0]
    losses = [mean_loss(N_dev, probabilities(N_train, smoothing)) for smoothing in grid]
    click.echo("\nsmoothing  dev loss")
    for smoothing, loss in zip(grid, losses):
        click.echo(f"{smoothing:9g} {loss:9.4f}{'  <' if loss == min(losses) else ''}")
    return grid[int(np.argmin(losses))]


def positive(text):
    """Read a positive real number from the command line."""
    if not 1e-6 <= float(text) <= 1e6:
        raise click.BadParameter(f"{text} is not between 1e-6 and 1e6.")
    return float(text)


def not_negative(text):
    """Read 0 or a positive real number from the command line."""
    return 0.0 if float(text) == 0 else positive(text)


def number_or_auto(text):
    """Read a number that is not negative, or auto, from the command line."""
    return text if text == "auto" else not_negative(text)


FILE, WORDS = click.Path(dir_okay=False), click.Path(exists=True, dir_okay=False)
SPLITS = "train", "dev", "test"
SMOOTHING = "Added to every count; auto: the best on dev."
STEPS = "Training steps of the net (it needs --order 2)."
MODEL = "Model to sample from; net skips the counting."
PLOT = "Picture of the counts of pairs to draw, .png, .svg or .pdf (needs matplotlib)."


@click.command(context_settings={"show_default": True})
@click.option("--data", type=WORDS, default=NAMES, show_default="names.txt", help="Word list.")
@click.option("--order", type=click.IntRange(2, 20), default=2, help="Length of the runs to count.")
@click.option("--smoothing", type=number_or_auto, default=1.0, help=SMOOTHING)
@click.option("--steps", type=click.IntRange(0, 10**6), default=20_000, help=STEPS)
@click.option("--lr", type=positive, default=50.0, help="Learning rate of the net.")
@click.option("--l2", type=not_negative, default=0.0, help="Weight of mean(W^2) in its loss.")
@click.option("--seed", type=click.IntRange(0), default=42, help="Random seed.")
@click.option("--model", type=click.Choice(["counts", "net"]), default="counts", help=MODEL)
@click.option("--samples", type=click.IntRange(0, 100_000), default=20, help="Words to make up.")
@click.option("--prefix", default="", show_default=False, help="Prefix of every sample.")
@click.option("--temperature", type=positive, default=1.0, help="Sampling temperature.")
@click.option("--plot", type=FILE, help=PLOT)
@np.errstate(all="ignore")  # what overflows shows in the loss
def main(
    data, order, smoothing, steps, lr, l2, seed, model, samples, prefix, temperature, plot
):  # fmt: skip
    """Count which character follows which, and learn the same by gradient descent."""
    rng = np.random.default_rng(seed)
    split_rng = rng.spawn(1)[0]  # the split stays the same, whatever else is drawn
    if model == "net" and order != 2:
        raise click.UsageError("--model net needs --order 2")
    if plot is not None and not plot.endswith((".png", ".svg", ".pdf")):
        raise click.BadParameter("draws .png, .svg or .pdf", param_hint="--plot")
    words = load_words(data)
    stoi, itos = build_vocab(words)
    if unknown := set(prefix) - set("".join(words)):
        raise click.BadParameter(f"no word contains {min(unknown)!r}", param_hint="--prefix")
    train_words, *others = split_words(words, split_rng)
    splits = [count(part, stoi, order) for part in (train_words, *others)]
    N = sum(splits)  # (V,) * order, of all words
    pairs = N.reshape(-1, len(stoi), len(stoi)).sum(axis=0)  # (V, V)
    click.echo(f"{len(words):,} words, {len(stoi)} characters, {N.sum():,} runs of {order}")
    if plot:
        draw_counts(plot, pairs, itos)

    if model == "counts":
        if order == 2:
            show_pairs(pairs, itos)
        loss = mean_loss(N, probabilities(N, 0))
        click.echo(f"loss of all words by their own counts, without smoothing: {loss:.4f}")
        if smoothing == "auto":
            smoothing = choose_smoothing(*splits[:2])
        P = probabilities(splits[0], smoothing)  # (V,) * order
        title = f"the counts of train, smoothing {smoothing:g}"
        show_word(words[0], P, stoi, itos, title)
    if order == 2:
        W = rng.standard_normal((len(stoi), len(stoi)))  # (V, V)
        show_both_ways(W, train_words[:100], stoi, l2)
        show_training(W, splits[0], steps, lr, l2)
        learnt = softmax(W)  # (V, V)
    if model == "net":
        P, title = learnt, "the net, trained on train"
    elif order == 2:
        losses = [f"{mean_loss(part, learnt):.4f} on {name}" for name, part in zip(SPLITS, splits)]
        click.echo(f"the net, trained on train: loss {', '.join(losses)}")

    click.echo(f"\n{title}")
    click.echo("split      loss  perplexity = exp(loss): like a uniform guess among this many")
    for name, part in zip(SPLITS, splits):
        loss = mean_loss(part, P)
        click.echo(f"{name:5} {loss:9.4f} {np.exp(loss):#11.4g}")
    known = set(words)
    for word in sample(P, rng, itos, samples, prefix, temperature):
        click.echo(word if word in known else f"{word:19} new")


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a character that the terminal lacks becomes a ?
    try:
        main()
    except (ImportError, OSError) as error:
        sys.exit(f"Error: {error}")
