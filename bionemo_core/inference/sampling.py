"""v1's inference interface to an opened encoder-decoder: texts to hidden states and back, sampling, interpolation.

Shape letters: B sequences, T encoder positions (or latents), H hidden, S samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.data.model_input import ModelInput, input_form, max_text_tokens
from bionemo_core.data.store.text_filter import clean_texts
from bionemo_core.data.text_lists import check_texts
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.inference.batched import BatchedDecoding
from bionemo_core.inference.cuda_graphs import CudaGraphDecoder
from bionemo_core.inference.decoding import StepDecoder
from bionemo_core.inference.methods import SINGLE_SAMPLE, add_noise, method_options, parse_max_length, select_kept_beams
from bionemo_core.inference.philox import RowRng
from bionemo_core.nn.missing_weights import require_weights
from bionemo_core.parallel.weights import network_of
from bionemo_core.protocols import Example, Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

PRIOR = "prior"


class Opened(Protocol):
    """A model as `open_model` returns it."""

    @property
    def module(self) -> Any:
        """The Lightning module; its `network` has `encode`, `start`, `step`."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the model was trained with."""
        ...


@dataclass(frozen=True)
class Seq2SeqInference:
    """Encoding, decoding and sampling with a trained encoder-decoder; results do not depend on `batch_size`.

    `Seq2SeqInference.of(open_model(path, registry)).sample(seqs=["CCO"], num_samples=10)`
    """

    network: Any
    tokenizer: Tokenizer
    seq_length: int
    """The longest source in tokens, without the terminal tokens that the tokenizer's `input_form` adds."""
    max_length: int
    """The most tokens that are decoded, including the end token."""
    batch_size: int = 256
    """Rows that are encoded or decoded together."""
    decoder: StepDecoder | None = None
    """Decodes in place of the network, such as a `CudaGraphDecoder` of it."""
    clean: bool = True
    """Read texts as a task does, in canonical form and refused if invalid; False: they were read by a task."""

    @classmethod
    def of(
        cls,
        opened: Opened,
        *,
        batch_size: int = 256,
        max_length: int | None = None,
        use_cuda_graphs: bool = False,
        clean: bool = True,
    ) -> Seq2SeqInference:
        """Return the interface to an opened model; with `use_cuda_graphs`, decoding steps run as CUDA graphs.

        Texts are converted to their canonical form, and invalid ones are refused, unless `clean` is false.

        Raises:
            ArtefactError: the model was loaded from a source without a tensor that decoding needs.
            ConfigError: the model is not an encoder-decoder, or a size is below 1.
        """
        module = opened.module
        network = network_of(module)
        absent = [name for name in ("encode", "start", "step") if not hasattr(network, name)]
        if absent:
            raise ConfigError(
                f"sampling: {type(network).__name__} writes no text: it lacks {', '.join(absent)} of a decoder. "
                "Use an encoder-decoder, such as model=megamolbart or model=molmim, or a restore_from_path of one."
            )
        require_weights(network, "decoding")
        objective = getattr(module, "objective", None)
        source = max_text_tokens(module, sum(input_form(opened.tokenizer).terminals))
        longest = max_length or getattr(objective, "target_length", module.seq_length)
        if batch_size < 1 or longest < 1:
            raise ConfigError(f"sampling: got batch_size={batch_size} and max_length={longest}, expected 1 or more.")
        decoder = CudaGraphDecoder(network) if use_cuda_graphs else None
        return cls(network, opened.tokenizer, source, longest, batch_size, decoder, clean)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """The number of latents of a text, and the width of each.

        Raises:
            ConfigError: the model has no latent space.
        """
        shape: tuple[int, int] | None = getattr(self.network, "latent_shape", None)
        if shape is None:
            raise ConfigError(
                f"sampling from the prior: {type(self.network).__name__} has no latent space. Use a model with one, "
                "such as molmim, or give sequences to start from (task.input)."
            )
        return shape

    def tokenize(self, seqs: Sequence[str], *, first: int = 1) -> list[NDArray[np.int32]]:
        """Return the ids of each sequence, without terminal tokens; `first` is the number of the first one in messages.

        Raises:
            DataError: a sequence is empty, invalid, or longer than the model's `seq_length`.
        """
        seqs = check_texts(seqs, "text", first=first)
        cleaned = clean_texts(self.tokenizer, seqs, first=first) if self.clean else seqs
        ids = [np.asarray(self._input.encode(text), dtype=np.int32) for text in cleaned]
        for number, (text, tokens) in enumerate(zip(seqs, ids, strict=True), start=first):
            if not 0 < len(tokens) <= self.seq_length:
                shown = text if len(text) <= 60 else f"{text[:57]}..."
                raise DataError(
                    f"sequence {number} ({shown!r}) has {len(tokens)} tokens, but the model takes 1 to "
                    f"{self.seq_length}. Leave it out or cut it."
                )
        return ids

    def detokenize(self, tokens: Tensor) -> list[str]:
        """Return the text of each row of ids, int64[rows, length], up to its first end token."""
        return [self.tokenizer.decode(row) for row in _until_end(tokens, self.tokenizer.eos_id)]

    def seq_to_hiddens(self, seqs: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the states that the decoder attends to, [B, T, H], and a mask that is True at real ones, bool[B, T].

        For MegaMolBART these are the encoder's states, padded to the longest; for MolMIM the means of the latents,
        all of which are real.

        Raises:
            DataError: a sequence is empty, invalid, or longer than the model's `seq_length`.
        """
        ids = self.tokenize(seqs)
        parts = list(self.encode_batches(ids, self.batch_size))
        if not parts:
            raise DataError("sampling: there are no sequences to encode. Pass at least one.")
        longest, hidden = max(h.shape[1] for _, h, _ in parts), parts[0][1]
        hiddens_BTH = hidden.new_zeros(len(ids), longest, hidden.shape[2])
        mask_BT = torch.zeros(len(ids), longest, dtype=torch.bool, device=hidden.device)
        for rows, part, mask in parts:
            hiddens_BTH[rows, : part.shape[1]], mask_BT[rows, : part.shape[1]] = part, mask
        return hiddens_BTH, mask_BT

    def hiddens_to_embedding(self, hiddens_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        """Return the mean over real positions without terminal tokens, [B, H].

        Raises:
            DataError: a row of the mask is empty.
        """
        mask_BT = self._without_terminals(mask_BT)
        empty = (~mask_BT.any(dim=1)).nonzero().flatten().tolist()
        if empty:
            raise DataError(
                f"embedding: row {empty[0]} of the mask is empty. Each row needs one real position or more."
            )
        weight_BT1 = mask_BT[:, :, None].to(hiddens_BTH.dtype)
        return (hiddens_BTH * weight_BT1).sum(dim=1) / weight_BT1.sum(dim=1)

    def seq_to_embeddings(self, seqs: Sequence[str]) -> Tensor:
        """Return the mean of each sequence's hidden states, [B, H].

        Raises:
            DataError: a sequence is empty, invalid, or longer than the model's `seq_length`.
        """
        return self.hiddens_to_embedding(*self.seq_to_hiddens(seqs))

    def hiddens_to_seq(self, hiddens_BTH: Tensor, mask_BT: Tensor, *, max_length: int | None = None) -> list[str]:
        """Decode each row of hidden states greedily to a text."""
        rng = RowRng.of(0, len(hiddens_BTH), device=self._device)
        return [texts[0] for texts in self._decode(hiddens_BTH, mask_BT, rng, "greedy-perturbate", {}, max_length)]

    # Long: the signature and the arguments are those of v1.
    def sample(
        self,
        num_samples: int = 1,
        return_embedding: bool = False,
        sampling_method: str = "greedy-perturbate",
        hiddens_to_seq_kwargs: Mapping[str, Any] | None = None,
        scaled_radius: float = 1.0,
        *,
        seqs: Sequence[str] | None = None,
        hiddens: Tensor | None = None,
        enc_masks: Tensor | None = None,
        seed: int = 1234,
        first_sequence: int = 0,
        **options: Any,
    ) -> Any:
        """Sample texts near `seqs` or `hiddens`: add Gaussian noise to the hidden states, and decode them.

        Args:
            num_samples: samples per sequence.
            return_embedding: also return the embeddings of the states that were decoded, [B, S, H].
            sampling_method: one of `methods.SAMPLING_METHODS`.
            hiddens_to_seq_kwargs: `max_length`, if it differs from the model's.
            scaled_radius: standard deviation of the noise.
            seqs: texts to start from.
            hiddens: hidden states to start from, [B, T, H], with `enc_masks`, bool[B, T].
            enc_masks: True where `hiddens` are real.
            seed: determines noise and draws, together with the numbers of the sequence and the sample.
            first_sequence: number of the first sequence, so that a file can be sampled in parts.
            **options: options of the method, see `methods.SAMPLING_METHODS`.

        Returns:
            Texts `[B][S]`; `[B][S][beam]` from a beam search that keeps all beams, except that
            beam-search-single-sample returns its S beams as the samples. With `return_embedding`, a pair of the texts
            and the embeddings.

        Raises:
            ConfigError: an option is unknown or out of its range.
            DataError: a sequence is empty, invalid, or longer than the model's `seq_length`.
        """
        settings = method_options(sampling_method, options, num_samples, scaled_radius)
        max_length = parse_max_length(hiddens_to_seq_kwargs)
        copies = 1 if sampling_method == SINGLE_SAMPLE else num_samples
        if (seqs is None) == (hiddens is None) or (hiddens is None) != (enc_masks is None):
            raise ConfigError("sample: give either seqs, or hiddens together with enc_masks.")
        if seqs is not None:
            ids = self.tokenize(seqs, first=first_sequence + 1)
            number, parts = len(ids), self.encode_batches(ids, max(1, self.batch_size // copies))
        else:
            assert hiddens is not None and enc_masks is not None
            rows = torch.arange(len(hiddens))
            number, parts = len(hiddens), iter([(rows, hiddens.to(self._device), enc_masks.to(self._device))])
        texts: list[Any] = [None] * number
        embeddings: list[Tensor] = [torch.empty(0)] * number
        for rows, part, mask in parts:
            sequence = (rows + first_sequence).to(part.device).repeat_interleave(copies)
            rng = RowRng(seed, sequence, torch.arange(copies, device=part.device).repeat(len(rows)))
            noisy = add_noise(part.repeat_interleave(copies, dim=0), rng, scaled_radius)
            mask = mask.repeat_interleave(copies, dim=0)
            decoded = self._decode(noisy, mask, rng, sampling_method, settings, max_length)
            means = self.hiddens_to_embedding(noisy, mask).unflatten(0, (len(rows), copies)) if return_embedding else []
            for index, row in enumerate(rows.tolist()):
                own = decoded[index * copies : (index + 1) * copies]
                texts[row] = own[0] if sampling_method == SINGLE_SAMPLE else select_kept_beams(own, settings)
                if return_embedding:
                    embeddings[row] = means[index]
        return (texts, torch.stack(embeddings)) if return_embedding else texts

    def sample_prior(
        self,
        num_samples: int,
        *,
        sampling_method: str = "greedy-perturbate",
        seed: int = 1234,
        first_sequence: int = 0,
        **options: Any,
    ) -> list[Any]:
        """Draw latents from the prior N(0, I), and decode each to a text, [S].

        Raises:
            ConfigError: the model has no latent space, or an option is unknown.
        """
        latents, hidden = self.latent_shape
        settings = method_options(sampling_method, options, 1, 0.0)
        results: list[Any] = []
        for start in range(0, num_samples, self.batch_size):
            rows = min(self.batch_size, num_samples - start)
            rng = RowRng.of(seed, rows, first_sequence=first_sequence + start, device=self._device)
            z_BTH = rng.normal(PRIOR, latents * hidden).to(self._dtype).view(rows, latents, hidden)
            mask = torch.ones(rows, latents, dtype=torch.bool, device=self._device)
            decoded = self._decode(z_BTH, mask, rng, sampling_method, settings, None)
            results += [select_kept_beams([texts], settings)[0] for texts in decoded]
        return results

    def interpolate_samples(
        self,
        sample1: str,
        sample2: str,
        num_interpolations: int = 11,
        num_samples: int = 1,
        return_embedding: bool = False,
        sampling_method: str = "greedy-perturbate",
        sampling_kwarg: Mapping[str, Any] | None = None,
        seed: int = 1234,
    ) -> Any:
        """Sample texts at the points k / (n + 1), k = 1 .. n, of the line between two texts, without the end points.

        If the two have different numbers of real positions, the missing positions are zeros and the longer mask is
        used. `sampling_kwarg` are further arguments of `sample`; the radius is 0 by default.

        Raises:
            ConfigError: an option is unknown or out of its range.
            DataError: a text is empty, invalid, or longer than the model's `seq_length`.
        """
        if num_interpolations < 1:
            raise ConfigError(f"interpolation: num_interpolations: got {num_interpolations}, expected 1 or more.")
        hiddens_BTH, mask_BT = self.seq_to_hiddens([sample1, sample2])
        ends_BTH = hiddens_BTH * mask_BT[:, :, None]
        share = torch.arange(1, num_interpolations + 1, device=hiddens_BTH.device) / (num_interpolations + 1)
        points = torch.lerp(ends_BTH[:1], ends_BTH[1:], share.to(hiddens_BTH.dtype)[:, None, None])
        return self.sample(
            num_samples,
            return_embedding,
            sampling_method,
            hiddens=points,
            enc_masks=mask_BT.any(dim=0, keepdim=True).expand(num_interpolations, -1),
            seed=seed,
            **{"scaled_radius": 0.0, **(sampling_kwarg or {})},
        )

    @property
    def _input(self) -> ModelInput:
        return ModelInput(self.tokenizer, input_form(self.tokenizer))

    def _without_terminals(self, mask_BT: Tensor) -> Tensor:
        """Return a mask without the terminal tokens of the encoder's input; a perceiver's latents have none."""
        before, after = self._input.form.terminals
        if not before + after or getattr(self.network, "hidden_steps", None):
            return mask_BT
        position = mask_BT.cumsum(dim=1)
        return mask_BT & (position > before) & (position <= position[:, -1:] - after)

    @property
    def _device(self) -> torch.device:
        return next(iter(_parameters(self.network))).device

    @property
    def _dtype(self) -> torch.dtype:
        return next(iter(_parameters(self.network))).dtype

    @torch.no_grad()
    def encode_batches(
        self, ids: Sequence[NDArray[np.int32]], batch_rows: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield numbers of sequences int64[b], hidden states [b, T, H] and masks bool[b, T], shortest first."""
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for start in range(0, len(ids), batch_rows):
            rows = order[start : start + batch_rows]
            sources = [self._input.add_terminals(ids[i]) for i in rows]
            batch = source_batch(sources, self.tokenizer.pad_id, self.seq_length + self._input.num_terminals)
            memory = self.network.encode(batch.to(self._device))
            hiddens = memory.states.transpose(0, 1)
            mask = memory.padding_mask
            if mask is None:
                mask = torch.ones(hiddens.shape[:2], dtype=torch.bool, device=hiddens.device)
            yield torch.tensor(rows), hiddens, mask

    def decoding(self, method: str, settings: Mapping[str, Any], max_length: int | None = None) -> BatchedDecoding:
        """Return a method of decoding with all of its options."""
        length = self.max_length if max_length is None else max_length
        return BatchedDecoding(self.decoder or self.network, self.tokenizer, method, settings, length, self.batch_size)

    def _decode(
        self,
        hiddens_BTH: Tensor,
        mask_BT: Tensor,
        rng: RowRng,
        method: str,
        settings: Mapping[str, Any],
        max_length: int | None,
    ) -> list[list[str]]:
        """Decode each row to its texts: several, best first, if a beam search keeps them, else one."""
        hiddens = hiddens_BTH.to(self._device, self._dtype)
        tokens = self.decoding(method, settings, max_length).decode(hiddens, mask_BT.to(self._device), rng).tokens
        texts, kept = self.detokenize(tokens.flatten(0, 1)), tokens.shape[1]
        return [texts[start : start + kept] for start in range(0, len(texts), kept)]


def source_batch(ids: Sequence[NDArray[np.int32]], pad_id: int, seq_length: int) -> TokenBatch:
    """Return token ids as a padded batch, one sequence per row, without loss positions."""
    examples = [Example(tokens, tokens, np.zeros(len(tokens), dtype=np.bool_)) for tokens in ids]
    shape = RowShape(seq_length=seq_length, micro_batch_size=len(ids), pad_id=pad_id, packing=False)
    return TokenBatch.of(collate(examples, len(ids), shape))


def _until_end(tokens: Tensor, eos_id: int) -> Iterator[list[int]]:
    """Yield the ids of each row before its first end token, with one transfer from the device."""
    is_end = tokens == eos_id
    lengths = torch.where(is_end.any(dim=1), is_end.int().argmax(dim=1), tokens.shape[1])
    for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True):
        yield row[:length]


def _parameters(network: Any) -> Iterator[nn.Parameter]:
    yield from network.parameters()
