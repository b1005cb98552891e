"""The audio tokens of several lines by one GPT decode: different texts, voices and lengths share every step of the model.

Prefixes (voice, then text) are padded on the left, so that all rows say their first token in the same step and the
position of a token is the number of the step. Padding is masked out of attention and has no position of its own, so a
row computes what it would alone. The latents that the vocoder wants are the hidden states of the same steps: causal
attention makes them equal to those of a second pass over the finished tokens, which is not made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

PREFIX_TOKEN = 1
"""The reference decoder writes this code in place of the prefix, so its repetition penalty takes it for said."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """What one row of the batch says."""

    text: Sequence[int]
    """Token ids of the text, without start and stop."""
    voice: torch.Tensor
    """Conditioning latents of the speaker, shape (1, frames, channels)."""
    limit: int
    """Most audio tokens, the stop token included."""
    seed: int
    """Its draws depend on this alone, whatever else is in the batch."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn."""

    temperature: float = 0.75
    top_k: int = 50
    """0 keeps all."""
    top_p: float = 0.85
    repetition_penalty: float = 5.0
    greedy: bool = False
    """Take the likeliest token instead of drawing; only the repetition penalty applies."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What came of one utterance."""

    codes: tuple[int, ...]
    """Audio tokens, without the stop token."""
    stopped: bool
    """False when the limit cut it."""
    latents: torch.Tensor
    """One per step, that of the stop token included: float32, shape (steps, channels)."""


class Decoder:
    """Batched decoding with the GPT of a loaded XTTS model (`TTS.tts.layers.xtts.gpt.GPT`)."""

    def __init__(self, gpt: Any) -> None:
        self._gpt = gpt
        self._blocks: list[Any] = list(gpt.gpt.h)
        self.steps = 0
        """Passes through the GPT so far, each for a whole batch."""

    def __call__(self, utterances: Sequence[Utterance], sampling: Sampling) -> list[Decoded]:
        """Decode all of them together; answers in order."""
        with torch.inference_mode():
            hidden, valid = self._prefix(utterances)
            run = _Run(self._gpt, self._blocks, hidden, valid, utterances, sampling)
            for step in range(run.longest):
                spoken = self._gpt.mel_embedding(run.tokens) + self._gpt.mel_pos_embedding.emb.weight[step]
                hidden = torch.cat([hidden, spoken[:, None]], 1) if step == 0 else spoken[:, None]
                self.steps += 1
                if run.advance(step, hidden):
                    break
            return run.decoded()

    def _prefix(self, utterances: Sequence[Utterance]) -> tuple[torch.Tensor, torch.Tensor]:
        """Embedded voices and texts, padded on the left: (rows, length, channels), and what is no padding."""
        gpt = self._gpt
        device = gpt.text_embedding.weight.device
        rows = []
        for one in utterances:
            ids = torch.tensor([gpt.start_text_token, *one.text, gpt.stop_text_token], device=device)
            text = gpt.text_embedding(ids) + gpt.text_pos_embedding.emb.weight[: len(ids)]
            rows.append(torch.cat([one.voice[0].to(text), text]))
        length = max(len(row) for row in rows)
        prefix = torch.stack([functional.pad(row, (0, 0, length - len(row), 0)) for row in rows])
        blank = torch.tensor([length - len(row) for row in rows], device=device)
        return prefix, torch.arange(length, device=device) >= blank[:, None]


class _Run:
    """One decode: keys and values so far, what has been said, and which rows are still speaking."""

    def __init__(
        self,
        gpt: Any,
        blocks: Sequence[Any],
        prefix: torch.Tensor,
        valid: torch.Tensor,
        utterances: Sequence[Utterance],
        sampling: Sampling,
    ) -> None:
        device, count = prefix.device, len(utterances)
        self._gpt, self._blocks, self._sampling = gpt, blocks, sampling
        self._limits = [one.limit for one in utterances]
        self.longest = max(self._limits)
        room = prefix.shape[1] + self.longest
        heads: int = gpt.heads
        shape = (count, heads, room, gpt.model_dim // heads)
        self._dtype = blocks[0].attn.c_attn.weight.dtype
        self._keys = [torch.empty(shape, dtype=self._dtype, device=device) for _ in blocks]
        self._values = [torch.empty(shape, dtype=self._dtype, device=device) for _ in blocks]
        self._filled = 0
        self._valid = functional.pad(valid, (0, self.longest), value=True)
        self._rows = list(range(count))
        """The utterance of each row that still speaks."""
        self.tokens = torch.full((count,), gpt.start_audio_token, device=device)
        """The last token of each row."""
        self._said = torch.zeros((count, gpt.num_audio_tokens), dtype=torch.bool, device=device)
        self._said[:, [PREFIX_TOKEN, gpt.start_audio_token]] = True
        self._draws = torch.stack([_draws(one.seed, self.longest) for one in utterances]).to(device)
        self._codes: list[list[int]] = [[] for _ in utterances]
        self._latents = torch.empty((count, self.longest, gpt.model_dim), device=device)
        self._stopped = [False] * count

    def advance(self, step: int, hidden: torch.Tensor) -> bool:
        """One step: the next token of every row that still speaks. Answers whether all have ended."""
        latent = self._transform(hidden)
        self._latents[self._rows, step] = latent
        logits = self._gpt.mel_head(latent)
        self.tokens = pick(logits, self._said, self._draws[:, step], self._sampling)
        self._said.scatter_(1, self.tokens[:, None], True)
        speaking = []
        for row, (one, token) in enumerate(zip(self._rows, self.tokens.tolist(), strict=True)):
            if len(self._codes[one]) >= self._limits[one] or self._stopped[one]:
                continue  # ended, and still in the batch
            if token == self._gpt.stop_audio_token:
                self._stopped[one] = True
                continue
            self._codes[one].append(token)
            if step + 1 < self._limits[one]:
                speaking.append(row)
        # moving keys and values costs as much as a few steps, so it waits until half of the rows have ended
        if speaking and 2 * len(speaking) <= len(self._rows):
            self._keep(speaking)
        return not speaking

    def decoded(self) -> list[Decoded]:
        """The result of every utterance, in order."""
        return [
            Decoded(tuple(codes), stopped, self._latents[i, : len(codes) + stopped])
            for i, (codes, stopped) in enumerate(zip(self._codes, self._stopped, strict=True))
        ]

    def _keep(self, rows: list[int]) -> None:
        for layer in range(len(self._blocks)):
            self._keys[layer] = self._keys[layer][rows]
            self._values[layer] = self._values[layer][rows]
        self._valid, self._said, self._draws = self._valid[rows], self._said[rows], self._draws[rows]
        self.tokens = self.tokens[rows]
        self._rows = [self._rows[row] for row in rows]

    def _transform(self, hidden: torch.Tensor) -> torch.Tensor:
        """Through all blocks; hidden states of the last position, float32, shape (rows, channels)."""
        count, new, channels = hidden.shape
        start, end = self._filled, self._filled + new
        mask = self._mask(start, end)
        hidden = hidden.to(self._dtype)
        for block, keys, values in zip(self._blocks, self._keys, self._values, strict=True):
            parts = block.attn.c_attn(block.ln_1(hidden)).split(channels, dim=2)
            query, key, value = (part.view(count, new, self._gpt.heads, -1).transpose(1, 2) for part in parts)
            keys[:, :, start:end], values[:, :, start:end] = key, value
            heard = functional.scaled_dot_product_attention(query, keys[:, :, :end], values[:, :, :end], attn_mask=mask)
            hidden = hidden + block.attn.c_proj(heard.transpose(1, 2).reshape(count, new, channels))
            hidden = hidden + block.mlp(block.ln_2(hidden))
        self._filled = end
        last = self._gpt.gpt.ln_f(hidden[:, -1].float())
        normed: torch.Tensor = self._gpt.final_norm(last)
        return normed

    def _mask(self, start: int, end: int) -> torch.Tensor:
        """What each new position may look at, shape (rows, 1, new, end)."""
        at = torch.arange(end, device=self._valid.device)
        causal = at[None, :] <= at[start:, None]
        itself = at[None, :] == at[start:, None]  # padding looks at itself: a position without any would be no number
        return ((causal & self._valid[:, None, :end]) | itself)[:, None]


def pick(logits: torch.Tensor, said: torch.Tensor, draws: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The next token of each row.

    `logits` and `said` (tokens under the repetition penalty) have shape (rows, tokens), `draws` (rows,) is uniform in 0..1.
    """
    penalty = sampling.repetition_penalty
    logits = torch.where(said, torch.where(logits < 0, logits * penalty, logits / penalty), logits)
    if sampling.greedy:
        return logits.argmax(-1)
    best, tokens = (logits / sampling.temperature).topk(min(sampling.top_k or logits.shape[-1], logits.shape[-1]))
    chances = best.softmax(-1)
    above = chances.cumsum(-1) - chances
    chances = torch.where(above < sampling.top_p, chances, 0.0)
    sums = chances.cumsum(-1)
    place = (sums <= draws[:, None] * sums[:, -1:]).sum(-1, keepdim=True).clamp(max=chances.shape[-1] - 1)
    return tokens.gather(-1, place)[:, 0]


def _draws(seed: int, count: int) -> torch.Tensor:
    """Uniform numbers for each step, on the CPU, where a seed gives the same ones whatever the device."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))
