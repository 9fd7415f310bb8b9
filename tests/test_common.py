"""Facts about words, alphabets, splits, contexts and targets."""

import click
import numpy as np
import pytest

from common import build_dataset, build_vocab, load_words, split_words


def test_dot_is_token_0_and_the_other_characters_follow_sorted():
    stoi, itos = build_vocab(["zoë", "Ab", "a-b c"])
    assert list(itos.values()) == [".", " ", "-", "A", "a", "b", "c", "o", "z", "ë"]
    assert list(itos) == list(range(10))
    assert all(itos[token] == character for character, token in stoi.items())


@pytest.mark.parametrize("context", [1, 2, 3, 8])
def test_dataset_is_that_of_the_loop_of_the_lecture(context):
    words = load_words()[::7]
    stoi, _ = build_vocab(words)
    X, Y = [], []
    for word in words:
        window = [0] * context
        for character in word + ".":
            X.append(window)
            Y.append(stoi[character])
            window = window[1:] + [stoi[character]]
    for ours, theirs in zip(build_dataset(words, stoi, context), (X, Y)):
        assert ours.dtype == int and ours.flags.c_contiguous  # X * 27 + Y does not wrap
        assert np.array_equal(ours, theirs)


def test_split_is_80_10_10_and_loses_no_word():
    words = load_words()
    parts = split_words(words, np.random.default_rng(0))
    assert [len(part) for part in parts] == [25_805, 3_226, 3_226]
    assert sorted(sum(parts, [])) == sorted(words) and parts[0] != words[:25_805]
    assert parts == split_words(words, np.random.default_rng(0))


def test_split_needs_six_words():
    assert all(split_words(list("abcdef"), np.random.default_rng(0)))
    with pytest.raises(click.ClickException, match="at least 6 words are needed"):
        split_words(["word"] * 5, np.random.default_rng(0))


@pytest.mark.parametrize("start, between, end", [("", "\r\n", "\r\n"), ("\ufeff", "\n\ufeff", "")])
@pytest.mark.parametrize("first", ["San José", "San Jose\u0301", "\n \nSan José \t"])
def test_only_line_ends_marks_and_blanks_around_words_are_dropped(
    tmp_path, start, first, between, end
):
    path = tmp_path / "words.txt"
    path.write_bytes(f"{start}{first}{between}zoë{end}".encode())
    assert load_words(path) == ["San José", "zoë"]


@pytest.mark.parametrize(
    "content, message",
    [
        (b" \r\n\n", "contains no words"),
        (b"anna\nbo\xff\n", "line 2: not UTF-8"),
        ("anna\nbob\n".encode("utf-16-le"), "line 1: not UTF-8"),
        ("anna\nbob\n".encode("utf-16"), "line 1: not UTF-8"),
        (b"anna\nj.r.\n", "line 2: remove the '.' from this word"),
    ],
)
def test_files_that_are_no_word_lists_are_named_with_the_line(tmp_path, content, message):
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(click.ClickException, match=message) as error:
        load_words(path)
    assert str(path) in error.value.message
