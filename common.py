"""What stages 2 to 4 share: words, their alphabet, the split, contexts and targets.

Each word becomes several training examples. With a context of 3 characters, "emma" gives five,
where `.` stands for "no character" before and after the word:

    context   target          ...  ->  e
                              ..e  ->  m
                              .em  ->  m
                              emm  ->  a
                              mma  ->  .
"""

from pathlib import Path
from unicodedata import normalize

import click
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

NAMES = Path(__file__).with_name("names.txt")


def load_words(path=NAMES):
    """Read the words of a UTF-8 text file, one per line -> list[str].

    Blank lines, spaces around a word, byte order marks and the line ends of any system are
    dropped, and accents are composed (NFC). Raises OSError if the file cannot be read, and
    click.ClickException, naming the file and the line, if it is not UTF-8, contains no words, or
    has a `.` inside a word.
    """
    try:
        text = Path(path).read_text(encoding="utf-8").replace("\ufeff", "")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise click.ClickException(f"{path}, line {line}: not UTF-8") from None
    lines = [normalize("NFC", line.strip()) for line in text.split("\n")]
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise click.ClickException(f"{path}, line {number}: not UTF-8 (UTF-16?)")
        if "." in line:
            message = "remove the '.' from this word: it marks the ends of words"
            raise click.ClickException(f"{path}, line {number}: {message}")
    if not any(lines):
        raise click.ClickException(f"{path} contains no words")
    return [line for line in lines if line]


def build_vocab(words):
    """The alphabet of the words -> (stoi: dict[str, int], itos: dict[int, str]).

    `.` is 0; the other characters follow in sorted order.
    """
    itos = dict(enumerate([".", *sorted(set("".join(words)))]))
    stoi = {character: token for token, character in itos.items()}
    return stoi, itos


def split_words(words, rng):
    """Shuffle and split 80/10/10 -> (train, dev, test), three lists of words.

    Raises click.ClickException if that leaves one of them empty.
    """
    if len(words) < 6:
        raise click.ClickException(f"at least 6 words are needed for a split: {len(words)} given")
    shuffled = [words[i] for i in rng.permutation(len(words))]
    first, second = int(0.8 * len(words)), int(0.9 * len(words))
    return shuffled[:first], shuffled[first:second], shuffled[second:]


def build_dataset(words, stoi, context):
    """Every context (of at least 1) with the character after it -> (X (N, context), Y (N,)).

    Both hold tokens, in the smallest unsigned integer type that fits the alphabet: one byte up to
    256 characters. Raises KeyError for a character that is not in stoi. The result is that of

        for word in words:
            window = [0] * context
            for character in word + ".":
                X.append(window)
                Y.append(stoi[character])
                window = window[1:] + [stoi[character]]

    computed without a loop over characters, which would take most of a short run.
    """
    dots = "." * context
    text = dots.join(["", *words, ""])  # "...emma...olivia..."
    dtype = np.min_scalar_type(len(stoi) - 1)
    tokens = np.fromiter(map(stoi.__getitem__, text), dtype, len(text))  # (T,)
    # Each example is a window over the tokens. A window that ends in two dots spans two words.
    windows = sliding_window_view(tokens, context + 1)  # (T - context, context + 1)
    examples = windows[windows[:, -2:].any(axis=1)]  # (N, context + 1)
    return np.ascontiguousarray(examples[:, :-1]), np.ascontiguousarray(examples[:, -1])
