"""A tiny causal model, trained for seconds to answer any chat with one of a few sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tiny_lm

# Of words that the tokenizer knows whole.
SENTENCES = (
    "the keeper mends the clock",
    "the clock mends the keeper",
    "the sea mends the clock",
    "the keeper mends the sea",
)


def make_told_lm(folder: Path, steps: int = 80) -> Path:
    """Write the model to ``folder``: what it says hangs on nothing but chance."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tiny_lm.make_tiny_lm(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.init_weights()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.normal_(std=0.08)
    start = tokenizer.convert_tokens_to_ids("<assistant>")
    told = [tokenizer(s, add_special_tokens=False)["input_ids"] for s in SENTENCES]
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / steps)
        rows = []
        for _ in range(8):
            asked = rng.integers(5, len(tokenizer), rng.integers(4, 90))
            rows.append([*asked, start, *told[rng.integers(len(told))], tokenizer.eos_token_id])
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), tokenizer.pad_token_id)
        labels = torch.full((len(rows), width), -100)
        for n, row in enumerate(rows):
            ids[n, : len(row)] = torch.tensor(row)
            at = row.index(start) + 1
            labels[n, at : len(row)] = torch.tensor(row[at:])
        loss = model(ids, attention_mask=(ids != tokenizer.pad_token_id).long(), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().save_pretrained(folder)
    return folder
