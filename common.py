"""What the four stages share: words, their alphabet, the split, contexts and targets.

A word is told to a network as examples. With a context of 3 characters, "emma" gives five of
them, `.` standing for "no character" at both ends:

    context   target          ...  ->  e
                              ..e  ->  m
                              .em  ->  m
                              emm  ->  a
                              mma  ->  .

Everything here is NumPy on one long array of tokens; no loop runs over characters.
"""

from pathlib import Path

import numpy as np

NAMES = Path(__file__).with_name("names.txt")


def load_words(path=NAMES):
    """Read the words of a UTF-8 text file, one a line -> list[str].

    Blank lines, spaces around a word, a byte order mark and any kind of line end are dropped.
    Raises OSError if the file cannot be read, ValueError (naming the file, and the line where
    there is one) if it is not UTF-8, holds no word, or has a `.` inside a word.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: not UTF-8") from None
    if "." in text:
        line = text.count("\n", 0, text.index(".")) + 1
        raise ValueError(f"{path}, line {line}: '.' marks the ends of a word, it cannot be inside")
    words = [word for line in text.split("\n") if (word := line.strip())]
    if not words:
        raise ValueError(f"{path}: no words in it")
    return words


def build_vocab(words):
    """The alphabet of the words -> (stoi: dict[str, int], itos: dict[int, str]).

    `.` is 0; the other characters follow in sorted order.
    """
    itos = dict(enumerate([".", *sorted(set("".join(words)) - {"."})]))
    return {character: token for token, character in itos.items()}, itos


def split_words(words, rng):
    """Shuffle and split 80/10/10 -> (train, dev, test), three lists of words.

    Raises ValueError if that leaves one of them empty.
    """
    if len(words) < 6:
        raise ValueError(f"{len(words)} word(s) cannot be split 80/10/10: at least 6 are needed")
    shuffled = [words[i] for i in rng.permutation(len(words))]
    first, second = int(0.8 * len(words)), int(0.9 * len(words))
    return shuffled[:first], shuffled[first:second], shuffled[second:]


def build_dataset(words, stoi, context):
    """Every context with the character that follows it -> (X (N, context), Y (N,)).

    Both are tokens, in the smallest unsigned integer type that holds the alphabet: one byte
    up to 256 characters. Raises ValueError naming the first character that stoi has no token for.
    """
    dots = "." * context
    text = dots.join(["", *words, ""])
    tokens = encode(text, stoi)  # (T,)
    if np.count_nonzero(tokens) != len(text) - context * (len(words) + 1):
        unknown = next(c for word in words for c in word if not stoi.get(c))
        raise ValueError(f"the alphabet has no {unknown!r} inside a word")

    # A target is a letter or the first dot after one; its context is the window before it.
    is_target = (tokens[context:] != 0) | (tokens[context - 1 : -1] != 0)  # (T - context,)
    X = np.empty((np.count_nonzero(is_target), context), tokens.dtype)
    for i in range(context):
        X[:, i] = tokens[i : i - context][is_target]
    return X, tokens[context:][is_target]


def encode(text, stoi):
    """The token of every character of a text -> (T,); 0 for a character that has none."""
    table = np.zeros(max(map(ord, stoi)) + 2, np.min_scalar_type(len(stoi) - 1))  # by code point
    for character, token in stoi.items():
        table[ord(character)] = token
    tokens = np.empty(len(text), table.dtype)
    for start in range(0, len(text), 2**20):  # in pieces: a code point costs four bytes
        piece = np.frombuffer(text[start : start + 2**20].encode("utf-32-le"), np.uint32)
        table.take(piece, mode="clip", out=tokens[start : start + len(piece)])
    return tokens
