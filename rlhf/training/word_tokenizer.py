"""The tokenizer of the base policy: one token per word of its corpus, bytes for everything else.

A tiny model answers "How do I clean my uncle's kettle?" by copying "uncle" and "kettle" from the
question, which it can only do when a word is the same single token in both places. So every word of
the corpus is a token of its own, together with the space before it (GPT-2's convention), and "'s"
is split off. A word that the corpus doesn't have becomes its UTF-8 bytes, so nothing that a person
types is lost and `decode(encode(text)) == text` for every text.

Technically a byte-level BPE without merges whose vocabulary holds whole words (`ignore_merges`, as
in Llama 3), so it is an ordinary `tokenizer.json` for every other program.
"""

from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, END = "<|pad|>", "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# A contraction's end ('s, 't), or a word, a number or punctuation with the space before it.
_WORD = r"'\p{L}+| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def build_tokenizer(texts: Iterable[str], *, max_length: int = 512) -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each distinct word of `texts`, most frequent first.

    Ends of turns are `<|end|>` (the EOS token); `<|pad|>` is a different token, so that a mask
    never has to be guessed from ids. `max_length` is what the model can take, in tokens.
    """
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in splitter.pre_tokenize_str(text))
    special = [PAD, END, *ROLES]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    vocabulary = {
        token: index for index, token in enumerate(dict.fromkeys([*special, *alphabet, *words]))
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=list(ROLES),
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_length,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
