"""transformers' GPT-NeoX in tuning, as Dolly's trainer ran it, at its best, and exact to fp32: peers of `gpu_tune`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from gpu_shared import DEVICE, Result, clear, peak_gib, random_decoder, synchronize

if TYPE_CHECKING:
    import argparse

    from roslin.model import ModelConfig
    from roslin.tokens import Example


def hf_config(config: ModelConfig) -> object:
    from transformers import GPTNeoXConfig

    return GPTNeoXConfig(
        vocab_size=config.vocab_rows,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.inner,
        max_position_embeddings=2048,
        rotary_pct=0.25,
        use_parallel_residual=True,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        use_cache=False,
        attn_implementation="sdpa",
    )


def hf_model(config: ModelConfig) -> torch.nn.Module:
    """transformers' GPT-NeoX with the weights of `random_decoder`."""
    from transformers import GPTNeoXForCausalLM

    with torch.device("meta"):
        model = GPTNeoXForCausalLM(hf_config(config)).to(torch.bfloat16)
    weights = dict(random_decoder(config).named_parameters())
    model.to_empty(device=DEVICE)
    inverse = 1.0 / (10000 ** (torch.arange(0, config.rotary_dims, 2, device=DEVICE).float() / config.rotary_dims))
    for module in model.modules():  # in fp32, as from_pretrained leaves them
        for name in ("inv_freq", "original_inv_freq"):
            if hasattr(module, name):
                setattr(module, name, inverse)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(theirs(name, weights, config))
    return model


def theirs(name: str, weights: dict[str, torch.nn.Parameter], config: ModelConfig) -> torch.Tensor:
    """The weight that transformers has under a name; its queries, keys and values lie head by head."""
    ours = (
        name.replace("gpt_neox.layers", "blocks")
        .replace("attention.query_key_value", "qkv")
        .replace("attention.dense", "out")
        .replace("mlp.dense_h_to_4h", "up")
        .replace("mlp.dense_4h_to_h", "down")
        .replace("input_layernorm", "norm1")
        .replace("post_attention_layernorm", "norm2")
        .replace("gpt_neox.final_layer_norm", "norm")
        .replace("gpt_neox.embed_in", "embedding")
        .replace("embed_out", "head")
        .replace("lm_head", "head")
    )
    weight = weights[ours].detach()
    if ".qkv." in ours:
        rest = weight.shape[1:]
        weight = weight.view(3, config.heads, config.head_dim, *rest).transpose(0, 1).reshape(-1, *rest)
    return weight


def padded(examples: list[Example]) -> tuple[dict[str, torch.Tensor], int]:
    longest = max(len(example.ids) for example in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        mask[row, : len(example.ids)] = 1
        labels[row, example.answer_start : len(example.ids)] = torch.tensor(example.ids[example.answer_start :])
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: tensor.to(DEVICE) for name, tensor in batch.items()}, sum(len(e.ids) for e in examples)


def packed_row(examples: list[Example], length: int) -> dict[str, torch.Tensor]:
    """A row of packed examples as transformers knows it: positions that start anew, and no mask."""
    ids, labels, positions = [], [], []
    for example in examples:
        ids += example.ids
        labels += [-100] * example.answer_start + example.ids[example.answer_start :]
        positions += range(len(example.ids))
    rest = length - len(ids)
    row = {"input_ids": ids + [0] * rest, "labels": labels + [-100] * rest, "position_ids": positions + [0] * rest}
    return {name: torch.tensor(values) for name, values in row.items()}


def answer_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy (nats) of a batch's answer tokens alone."""
    following = labels[:, 1:].flatten()
    wanted = following >= 0
    picked = logits[:, :-1].flatten(0, 1)[wanted]
    return torch.nn.functional.cross_entropy(picked.float(), following[wanted], reduction="sum")


def dolly_trainer(config: ModelConfig, updates: list[list[list[Example]]], asked: argparse.Namespace) -> Result:
    """As Dolly's trainer: batches of six padded records, eight an update, every layer checkpointed, AdamW in bf16."""
    clear()
    model = hf_model(config)
    model.gradient_checkpointing_enable()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-6, fused=True)
    seconds, losses, tokens = [], [], 0
    for number, rows in enumerate(updates[: asked.peer_updates + 1]):
        examples = [example for row in rows for example in row]
        synchronize()
        started = time.perf_counter()
        answers = sum(example.answer_count for example in examples)
        total = torch.zeros((), device=DEVICE)
        for start in range(0, len(examples), 6):
            batch, _ = padded(examples[start : start + 6])
            part = sum(example.answer_count for example in examples[start : start + 6]) / answers
            loss = model(**batch).loss * part
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        synchronize()
        losses.append(float(total))
        if number:
            seconds.append(time.perf_counter() - started)
            tokens += sum(len(example.ids) for example in examples)
    return Result("transformers as Dolly's trainer", tokens, seconds, peak_gib(), losses, "batches of 6, bf16 AdamW")


def best_transformers(config: ModelConfig, updates: list[list[list[Example]]], asked: argparse.Namespace) -> Result:
    """At its best: rows of 2,048 packed, two a pass, layers compiled, nothing checkpointed, AdamW in bf16."""
    clear()
    model = hf_model(config)
    model.train()
    for layer in model.gpt_neox.layers:
        layer.compile(dynamic=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-6, fused=True)
    seconds, losses, tokens = [], [], 0
    for number, rows in enumerate(updates):
        synchronize()
        started = time.perf_counter()
        answers = sum(example.answer_count for row in rows for example in row)
        total = torch.zeros((), device=DEVICE)
        filled = [*rows, []] if len(rows) % 2 else rows
        for start in range(0, len(filled), 2):
            found = [packed_row(row, 2048) for row in filled[start : start + 2]]
            batch = {name: torch.stack([row[name] for row in found]).to(DEVICE) for name in found[0]}
            logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits
            loss = answer_loss(logits, batch["labels"]) / answers
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        synchronize()
        losses.append(float(total))
        if number >= asked.warmup:
            seconds.append(time.perf_counter() - started)
            tokens += sum(len(example.ids) for row in rows for example in row)
    return Result("transformers, packed and compiled", tokens, seconds, peak_gib(), losses, "2 x 2,048, bf16 AdamW")


def exact_transformers(config: ModelConfig, updates: list[list[list[Example]]]) -> Result:
    """Updates exact to fp32: weights, gradients and moments in it, passes autocast to bf16, a packed row a pass."""
    clear()
    model = hf_model(config).float()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-6, weight_decay=0.0, fused=True)
    seconds, losses, tokens = [], [], 0
    for rows in updates:
        started = time.perf_counter()
        answers = sum(example.answer_count for row in rows for example in row)
        total = torch.zeros((), device=DEVICE)
        for row in rows:
            batch = {name: tensor[None].to(DEVICE) for name, tensor in packed_row(row, 2048).items()}
            with torch.autocast(DEVICE.type, torch.bfloat16):
                logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits
            loss = answer_loss(logits, batch["labels"]) / answers
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(total))
        seconds.append(time.perf_counter() - started)
        tokens += sum(len(example.ids) for row in rows for example in row)
    return Result("transformers, fp32 under autocast", tokens, seconds, peak_gib(), losses, "fp32 AdamW")
