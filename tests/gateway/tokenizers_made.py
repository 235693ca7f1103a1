"""Small tokenizers made in code. Makes tokenizers, nothing else."""

from __future__ import annotations

from typing import Final

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

BOS: Final = "<|im_start|>"
EOS: Final = "<|im_end|>"
TEXTS: Final = [
    "The capital of France is Paris, a city of light and of very good bread.",
    "Grüße aus München: 5 €, naïve café, 東京は日本の首都です。 Привет, мир! 👩‍👩‍👧‍👦 🎉🎉 👍🏽",
    "stop and stopping, END of the line; one two three four five six seven eight nine ten",
]


def byte_level() -> Tokenizer:
    """A byte-level BPE tokenizer with some merges; characters beyond ASCII mostly stay split over several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=[AddedToken(text, special=True) for text in ("<|endoftext|>", BOS, EOS)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_tokens([AddedToken("<tool>", special=False)])
    return tokenizer


def sentence_piece() -> Tokenizer:
    """A tokenizer of Llama 2's kind: "▁" for spaces, bytes as "<0x…>", the first space stripped."""
    special = ["<unk>", "<s>", "</s>"]
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,;:!?", "é", "ü", "東"]
    vocabulary = {token: index for index, token in enumerate([*special, *byte_tokens, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return tokenizer
