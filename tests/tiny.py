"""Tokenizers small enough to be made in a test, one for each way of cutting text that encoders use.

Each is the class that a real checkpoint of its family is read with, so its offsets have the family's
peculiarities: WordPiece drops accents and control characters, byte-level BPE cuts a character into pieces,
Unigram counts the blank before a word as part of it. A call gives a new tokenizer, because a tokenizer
remembers the padding and truncation of its last use.

The trap: the trainers of WordPiece and Unigram give another vocabulary in every process (they walk hash
maps), so those two are put together by hand. `import tiny` works because of pytest's `pythonpath`.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence

from transformers import BertTokenizer, DebertaV2Tokenizer, RobertaTokenizer, TokenizersBackend

SENTENCES = (
    "The cat sat on the mat in Denver while the river rose in 1745.",
    "My favorite color is red, and her favorite color is blue.",
    "Who wrote the first book about Normandy, and where was it printed?",
    "When did the dynasty fall? After the great flood, say the chronicles of the north.",
    "A café in Zürich serves naïve visitors über-strong coffee – for £3.50!",
    "The answer is: forty-two (42), which nobody in the city had expected.",
)
CHARACTERS = sorted(set("".join(SENTENCES)) - {" "})
# Every other word is known as a whole; the rest are cut into characters.
WORDS = sorted(set(re.findall(r"\w+", " ".join(SENTENCES))))[::2]


def wordpiece() -> BertTokenizer:
    """As BERT, ELECTRA, DistilBERT and MPNet cut text: lower case, no accents, unknown words as one [UNK]."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words, characters = (sorted({_plain(piece) for piece in pieces}) for pieces in (WORDS, CHARACTERS))
    pieces = dict.fromkeys([*specials, *characters, *(f"##{character}" for character in characters), *words])
    return BertTokenizer({piece: id_ for id_, piece in enumerate(pieces)})


def byte_bpe() -> RobertaTokenizer:
    """As RoBERTa cuts text: nothing is unknown, most characters beyond ASCII are several tokens, no types."""
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # RoBERTa's ids, of which padding is not 0
    untrained = RobertaTokenizer({special: id_ for id_, special in enumerate(specials)})
    return untrained.train_new_from_iterator(SENTENCES * 3, vocab_size=400, show_progress=False)


def unigram(words: Sequence[str] = WORDS) -> DebertaV2Tokenizer:
    """As DeBERTa v2 and v3 cut text: a blank belongs to the word after it, an unknown character is [UNK]."""
    specials = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    pieces = [f"▁{word}" for word in words]
    scores = {"▁": -3.0} | dict.fromkeys(CHARACTERS, -5.0) | dict.fromkeys(pieces, -6.0)
    return DebertaV2Tokenizer([*((special, 0.0) for special in specials), *scores.items()])


TOKENIZERS: dict[str, Callable[[], TokenizersBackend]] = {
    "wordpiece": wordpiece,
    "byte_bpe": byte_bpe,
    "unigram": unigram,
}


def _plain(text: str) -> str:
    """Lower case without accents, as BERT's normaliser leaves it."""
    return "".join(
        character
        for character in unicodedata.normalize("NFD", text.lower())
        if not unicodedata.combining(character)
    )
