"""Facts about words, alphabets, splits, contexts and targets."""

import click
import numpy as np
import pytest

from common import build_dataset, build_vocab, load_words, split_words


def textbook_dataset(words, stoi, context):
    """The lecture's loop: a list for the context, append, crop."""
    X, Y = [], []
    for word in words:
        window = [0] * context
        for character in word + ".":
            X.append(window)
            Y.append(stoi[character])
            window = window[1:] + [stoi[character]]
    return np.array(X), np.array(Y)


def write(tmp_path, content):
    path = tmp_path / "words.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_names_txt_has_32257_words_of_27_characters():
    words = load_words()
    stoi, itos = build_vocab(words)
    assert len(words) == 32_257 and len(set(words)) == 29_693
    assert "".join(itos.values()) == ".abcdefghijklmnopqrstuvwxyz"
    assert sum(len(word) + 1 for word in words) == 229_804


def test_dot_is_token_0_and_the_other_characters_follow_sorted():
    stoi, itos = build_vocab(["zoë", "Ab", "a-b c"])
    assert list(itos.values()) == [".", " ", "-", "A", "a", "b", "c", "o", "z", "ë"]
    assert list(itos) == list(range(10))
    assert all(itos[token] == character for character, token in stoi.items())


@pytest.mark.parametrize("context", [1, 2, 3, 8])
def test_dataset_is_that_of_the_textbook_loop(context):
    words = load_words()[::7]
    stoi, _ = build_vocab(words)
    expected = textbook_dataset(words, stoi, context)
    for ours, theirs in zip(build_dataset(words, stoi, context), expected):
        assert ours.dtype == np.uint8 and ours.flags.c_contiguous
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    "size, dtype", [(255, np.uint8), (256, np.uint16), (3_000, np.uint16), (70_000, np.uint32)]
)
def test_a_token_takes_one_byte_up_to_256_characters(size, dtype):
    letters = [chr(0x30000 - size + i) for i in range(size)]
    words = ["".join(letters[i : i + 5]) for i in range(0, size, 5)]
    stoi, _ = build_vocab(words)
    assert len(stoi) == size + 1
    X, Y = build_dataset(words, stoi, 2)
    assert X.dtype == Y.dtype == dtype
    for ours, theirs in zip((X, Y), textbook_dataset(words, stoi, 2)):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("character", ["z", "é", "漢", "\U0001f600"])
def test_a_character_outside_the_alphabet_is_a_key_error(character):
    stoi, _ = build_vocab(["abc"])
    with pytest.raises(KeyError, match=character):
        build_dataset(["ab", f"a{character}c"], stoi, 3)


def test_split_is_80_10_10_and_loses_no_word():
    words = load_words()
    parts = split_words(words, np.random.default_rng(0))
    assert [len(part) for part in parts] == [25_805, 3_226, 3_226]
    assert sorted(sum(parts, [])) == sorted(words)
    assert parts[0] != words[: len(parts[0])]
    assert parts == split_words(words, np.random.default_rng(0))


def test_split_needs_six_words():
    assert all(split_words(list("abcdef"), np.random.default_rng(0)))
    for number in range(1, 6):
        with pytest.raises(click.ClickException, match="at least 6"):
            split_words(["word"] * number, np.random.default_rng(0))


@pytest.mark.parametrize(
    "content",
    [
        "San José\nzoë\n",
        "San José\r\nzoë\r\n",
        "\ufeffSan José\nzoë",
        "San José\n\ufeffzoë",
        "\n\n San José \n\t\nzoë\t\n\n",
        "San Jose\u0301\nzoe\u0308\n",
    ],
    ids=["plain", "CRLF", "BOM", "BOM in the middle", "blanks", "decomposed"],
)
def test_only_line_ends_marks_and_blanks_around_words_are_dropped(tmp_path, content):
    assert load_words(write(tmp_path, content)) == ["San José", "zoë"]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "contains no words"),
        (b" \r\n\n", "contains no words"),
        (b"anna\nbo\xff\n", "line 2: not UTF-8"),
        (b"\xef\xbb\xbfanna\nbob\n\xc3", "line 3: not UTF-8"),
        (b"anna\nj.r.\n", "line 2: remove the '.' from this word"),
        ("anna\nbob\n".encode("utf-16-le"), "line 1: not UTF-8"),
        ("anna\nbob\n".encode("utf-16"), "line 1: not UTF-8"),
        (b".\n", "line 1: remove the '.' from this word"),
    ],
)
def test_files_that_are_no_word_lists_are_named_with_the_line(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(click.ClickException, match=message) as error:
        load_words(path)
    assert str(path) in error.value.message


def test_unreadable_files_raise_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_words(tmp_path / "none.txt")
    with pytest.raises(IsADirectoryError):
        load_words(tmp_path)
