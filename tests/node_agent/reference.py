"""What plain PyTorch answers, without Tradewind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def torch_greedy(folder: Path, prompts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """Greedy continuations, each prompt alone, the whole sequence computed anew for each token."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    answers = []
    with torch.no_grad():
        for prompt in prompts:
            tokens = list(prompt)
            for _ in range(count):
                tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
            answers.append(tokens[len(prompt) :])
    return answers
