"""Nucleus sampling whose every draw is a function of (seed, step, token): no generator, no state, no neighbours.

A library draws tokens from one generator over the batch, so that what an image gets depends on the images beside it.
Here the logits left by top-k and top-p get Gumbel noise from a counter-based generator, and the largest wins: argmax
over ``logit / temperature + noise`` is a draw from their softmax (Gumbel 1954).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.caption.captioner import Sampling

if TYPE_CHECKING:
    import torch

_WORD = 0xFFFFFFFF
# Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
# Less than the gap between two float32 logits of usual size: among equal logits the lower token id comes first.
_TIE = 1e-12


def philox(
    counter: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], key: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the four 32-bit words of Philox4x32-10, in int64 tensors; shapes are broadcast.

    Args:
        counter: Four 32-bit words, int64.
        key: Two 32-bit words, int64.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # int64 wraps as uint64 does; the mask takes the sign off the upper word.
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((product1 >> 32) & _WORD) ^ c1 ^ k0,
            product1 & _WORD,
            ((product0 >> 32) & _WORD) ^ c3 ^ k1,
            product0 & _WORD,
        )
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def gumbel(seeds: torch.Tensor, step: int, tokens: torch.Tensor) -> torch.Tensor:
    """Return standard Gumbel noise, float64 [rows, tokens]: a function of row seed, step and token id alone.

    Args:
        seeds: 64-bit seed of every row as int64, [rows].
        step: Place of the token in the caption.
        tokens: Token ids, int64 [rows, tokens].
    """
    import torch

    zero = torch.zeros_like(tokens)
    key = ((seeds & _WORD)[:, None], ((seeds >> 32) & _WORD)[:, None])
    high, low, _, _ = philox((tokens, zero + step, zero, zero), key)
    # 52 bits and a half: exact in float64 and never 0 or 1.
    uniform = (((high << 20) | (low >> 12)).double() + 0.5) * 2.0**-52
    return -torch.log(-torch.log(uniform))


class KeyedSampling:
    """A logits processor after which argmax is a draw.

    Made anew for every call of ``generate``: it counts the steps.

    Args:
        seeds: 64-bit seed of every row.
        sampling: Temperature, top_k and top_p.
    """

    def __init__(self, seeds: list[int], sampling: Sampling) -> None:
        self._seeds = [seed - (1 << 64) if seed >> 63 else seed for seed in seeds]
        self._sampling = sampling
        self._step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return ``scores`` [rows, vocabulary] with noise on what may be drawn and -inf elsewhere."""
        import torch

        del input_ids
        seeds = torch.tensor(self._seeds, dtype=torch.int64, device=scores.device)
        values, tokens = self._likeliest(scores)
        weights = torch.softmax(values, dim=-1)
        before = weights.cumsum(dim=-1) - weights
        noisy = values + gumbel(seeds, self._step, tokens)
        noisy = noisy.masked_fill(before >= self._sampling.top_p, -torch.inf)
        self._step += 1
        return torch.full_like(scores, -torch.inf).scatter(-1, tokens, noisy.to(scores.dtype))

    def _likeliest(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the top k of the scaled logits, float64, and their token ids, the likeliest first."""
        import torch

        size = scores.shape[-1]
        scaled = torch.nan_to_num(scores.double(), nan=-torch.inf, posinf=torch.finfo(torch.float32).max)
        scaled = scaled / self._sampling.temperature
        order = scaled - torch.arange(size, device=scores.device) * _TIE
        tokens = torch.topk(order, min(self._sampling.top_k or size, size), dim=-1).indices
        return scaled.gather(-1, tokens), tokens
