"""Texts on which careless offsets go wrong, as a Hypothesis strategy."""

from hypothesis import strategies as st

PIECES = (
    *(" ", "   ", "\n", "\t", "\u00a0", "\u3000", "\u2028"),  # blanks, some of them not ASCII
    *("\u200b", "\u200d", "\ufeff", "\u202e", "\x00", "\x07"),  # characters that show nothing
    *(
        "é",
        "e\u0301",
        "a\u0323\u0301",
        "a\u0301\u0323",
        "\u0301",
        "한",
        "\u1112\u1161\u11ab",
    ),  # accents, parts
    *("👍", "👩\u200d🚀", "🇩🇪", "❤\ufe0f"),  # emoji of one and of several characters
    *("שלום", "شمال", "مَكْتَب", "ไม้", "紅樓夢", "ﬁ", "\ufdfa", "İ", "ẞ", "½"),  # other scripts, ligatures
    *("\ud83d", "\udc4d"),  # halves of a surrogate pair, each alone or side by side
    *("[CLS]", "[SEP]", "[UNK]", "<s>", "</s>"),  # what tokenizers take for their own tokens
    *("The", " cat", " sat on", " Denver", " in 1745", "x", ".", ", ", "'s", "£3.50", "w" * 101),
)

awkward = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=24).map("".join)
