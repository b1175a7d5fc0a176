"""Likelihoods of residues under masks: pseudo-likelihoods, and zero-shot scores of variants (Meier et al. 2021).

Strategies, with positions `M` that a variant changes, `wt` the wild type and `mt` the variant; logs are natural:

- `masked_marginals`: sum over M of `log p(mt_i) - log p(wt_i)` given the wild type with all of M masked;
- `wild_type_marginals`: the same given the wild type without masks, so that one pass serves all variants;
- `mutant_marginals`: the same given the variant without masks;
- `pseudo_log_likelihood`: `PLL(mt) - PLL(wt)`, where PLL sums the log-probability of each residue when it alone is
  masked (Salazar et al. 2020); sequences may differ in length, and nothing is divided by it;
- `pseudo_perplexity`: the same with means in place of sums: `log(pseudo-perplexity(wt) / pseudo-perplexity(mt))`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.data.model_input import input_form
from bionemo_core.data.mutations import Mutation as Mutation
from bionemo_core.data.mutations import mutate
from bionemo_core.data.mutations import read_variant as read_variant
from bionemo_core.data.store.text_filter import clean_texts
from bionemo_core.data.text_lists import check_texts
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.inference.embedding import check_known_tokens
from bionemo_core.inference.embedding.embedding_results import check_finite
from bionemo_core.inference.windows import Window, centred_window
from bionemo_core.nn.heads import whole_logits
from bionemo_core.nn.missing_weights import require_weights
from bionemo_core.nn.residue_states import encoder_network, encoder_of, may_pack
from bionemo_core.parallel.weights import network_of
from bionemo_core.protocols import Example, Tokenizer

if TYPE_CHECKING:
    import pytorch_lightning as pl

MASKED, WILD_TYPE, MUTANT = MARGINALS = ("masked_marginals", "wild_type_marginals", "mutant_marginals")
"""Strategies for substitutions alone."""

PSEUDO_LIKELIHOOD, PSEUDO_PERPLEXITY = LIKELIHOODS = ("pseudo_log_likelihood", "pseudo_perplexity")
"""Strategies for insertions and deletions too."""

METHODS = (*MARGINALS, *LIKELIHOODS)

ALIASES = {"masked-marginals": MASKED, "wt-marginals": WILD_TYPE, "pseudo-ppl": PSEUDO_LIKELIHOOD}
"""The names of these strategies in ESM's own script; its `pseudo-ppl` is a sum, not a perplexity."""

_MAX_COPIES_PER_ROW = 256


class Query(NamedTuple):
    """A question to the model: the log-probabilities at some positions of a sequence."""

    text: str
    positions: tuple[int, ...]
    masked: bool
    """Whether the positions are masked."""


class _Use(NamedTuple):
    """A variant that needs the answer to a query, for some of its mutations."""

    variant: int
    mutations: tuple[Mutation, ...]
    start: int
    """The position of the first residue of the query's text in the wild type."""


class VariantScores(NamedTuple):
    """The scores of variants, and the parts of the wild type that they were computed from."""

    scores: NDArray[np.float64]
    windows: list[list[Window]]
    """The windows of each variant; none if the model got the whole protein."""


def check_method(method: str) -> str:
    """Return the name of a strategy, of which aliases are known.

    Raises:
        ConfigError: it is unknown.
    """
    name = ALIASES.get(method, method)
    if name not in METHODS:
        raise ConfigError(f"task.scoring: got {method!r}, expected one of {', '.join(METHODS)}.")
    return name


def scoring_tokens(chosen: int | None, on_gpu: bool) -> int:
    """Return the tokens of a batch that is scored or predicted: those chosen, or as many as use the device well."""
    return chosen or (65_536 if on_gpu else 4_096)


@dataclass
class MaskedScorer:
    """A masked language model that scores residues.

    Args:
        module: its network must have `hidden_states`, a `head` and an `embedding`, as the ESM family does.
        tokenizer: must have a mask token.
        tokens_per_batch: tokens that go through the network at once; None: 4,096 on a CPU, and 65,536 on a GPU.
        share: yields what `answer_group` returns for each group of queries, in their order; None: this process
            computes them one after the other.
    """

    module: pl.LightningModule
    tokenizer: Tokenizer
    tokens_per_batch: int | None = None
    share: Callable[[Iterable[list[Query]]], Iterator[list[NDArray[np.float32]]]] | None = None

    def __post_init__(self) -> None:
        """Find the network, and check that it has a masked-language head.

        Raises:
            ArtefactError: the model was loaded from a source without a tensor that scoring needs.
            ConfigError: the model has no masked-language head.
        """
        self.network: Any = encoder_network(network_of(self.module))  # type: ignore[arg-type]
        if encoder_of(self.network).form.terminals != (1, 1) or not hasattr(self.network, "head"):
            raise ConfigError(
                f"{type(self.network).__name__} does not predict masked residues, so it cannot score mutations. Choose "
                "a masked language model, such as those of the ESM family."
            )
        require_weights(self.network, "scoring masked residues")
        self.seq_length: int = self.module.seq_length  # type: ignore[assignment]  # torch's stub allows modules only
        on_gpu = next(self.network.parameters()).device.type == "cuda"
        self._tokens = scoring_tokens(self.tokens_per_batch, on_gpu)

    @property
    def max_residues(self) -> int:
        """The residues of the longest sequence that the model takes at once."""
        return self.seq_length - 2

    def clean(self, sequences: Iterable[str | bytes]) -> list[str]:
        """Return sequences from Python as a task reads them from a file, in upper case.

        Raises:
            DataError: a sequence is empty or has an unknown letter, or is no text; the message gives its number.
        """
        upper = [text.upper() for text in check_texts(sequences)]
        return [text.decode("latin-1") for text in clean_texts(self.tokenizer, upper, canonicalize=False)]

    def log_probabilities(self, sequence: str, masked: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """Mask each set of positions, and return the log-probabilities there, float32 [positions, vocabulary].

        Raises:
            DataError: the sequence is empty, too long, or has a letter that the tokenizer does not know.
        """
        return list(self.answer(Query(sequence, tuple(positions), True) for positions in masked))

    def pseudo_log_likelihood(self, sequence: str, *, window: bool = False) -> NDArray[np.float32]:
        """Return the log-probability of each residue with only that residue masked, in nats, float32 [residues].

        The negative mean is the logarithm of the pseudo-perplexity (Salazar et al. 2020). With `window`, a residue of
        a sequence that is longer than the model has the context of a window around it.

        Raises:
            DataError: as for `log_probabilities`.
        """
        return next(self.pseudo_log_likelihoods([sequence], window=window))

    def pseudo_log_likelihoods(
        self, sequences: Iterable[str], *, window: bool = False
    ) -> Iterator[NDArray[np.float32]]:
        """Yield what `pseudo_log_likelihood` returns for each sequence; the sequences are never in one batch.

        Raises:
            DataError: as for `log_probabilities`.
        """
        texts, again = itertools.tee(sequences)
        groups = itertools.chain.from_iterable(self._group(self._mask_each(text, window)) for text in texts)
        rows = self._answer_groups(groups)
        for text in again:
            tokens = self._encode(text)
            yield np.array([row[0, token] for token, row in zip(tokens, rows, strict=False)], dtype=np.float32)

    def _mask_each(self, sequence: str, window: bool) -> Iterator[Query]:
        """Yield the query of each residue, with only that residue masked."""
        limit = self.max_residues if window else len(sequence)
        for position in range(len(self._encode(sequence))):
            start, stop = centred_window(position, len(sequence), limit)
            yield Query(sequence[start:stop], (position - start,), True)

    def score_variants(
        self, wild_type: str, variants: Sequence[Sequence[Mutation]], method: str
    ) -> NDArray[np.float64]:
        """Return the score of every variant; higher is better, and the wild type has 0. See `score_in_windows`."""
        return self.score_in_windows(wild_type, variants, method).scores

    def score_in_windows(
        self, wild_type: str, variants: Sequence[Sequence[Mutation]], method: str, *, window: bool = False
    ) -> VariantScores:
        """Return the score of every variant by a strategy; higher is better, and the wild type has 0.

        With `window`, the model gets a window of a longer protein: around the mean of the mutated positions, or, for
        marginals, around each of them if they are too far apart.

        Raises:
            ConfigError: the strategy is unknown, or cannot score an insertion or deletion.
            DataError: as for `log_probabilities`, or a mutant residue is unknown.
        """
        method = check_method(method)
        self._ids(wild_type[: self.max_residues] if window else wild_type)
        limit = self.max_residues if window else len(wild_type) + sum(len(m.mutant) for v in variants for m in v)
        if method in LIKELIHOODS:
            return self._compare_likelihoods(wild_type, variants, method, limit)
        if not all(one.is_substitution for variant in variants for one in variant):
            raise ConfigError(
                f"task.scoring={method}: insertions and deletions have no marginals. Set "
                f"task.scoring={PSEUDO_LIKELIHOOD} to compare the likelihoods of whole sequences."
            )
        return self._sum_marginals(wild_type, variants, method, limit)

    def _sum_marginals(
        self, wild_type: str, variants: Sequence[Sequence[Mutation]], method: str, limit: int
    ) -> VariantScores:
        uses: dict[Query, list[_Use]] = {}
        windows: list[list[Window]] = []
        for number, variant in enumerate(variants):
            groups = _group_by_window(variant, len(wild_type), limit)
            windows.append([window for window, _ in groups] if len(wild_type) > limit else [])
            for window, mutations in groups:
                text = wild_type[window.start : window.stop]
                positions = [one.position - window.start for one in mutations]
                if method == MUTANT:
                    letters = dict(zip(positions, (one.mutant for one in mutations), strict=True))
                    text = "".join(letters.get(at, letter) for at, letter in enumerate(text))
                asked = tuple(range(len(text))) if method == WILD_TYPE else tuple(sorted(positions))
                query = Query(text, asked, method == MASKED)
                uses.setdefault(query, []).append(_Use(number, tuple(mutations), window.start))
        scores = np.zeros(len(variants))
        for (query, wanted), table in zip(uses.items(), self.answer(uses), strict=True):
            row_of = {position: row for row, position in enumerate(query.positions)}
            for use in wanted:
                scores[use.variant] += sum(
                    self._ratio(table[row_of[one.position - use.start]], one) for one in use.mutations
                )
        return VariantScores(scores, windows)

    def _compare_likelihoods(
        self, wild_type: str, variants: Sequence[Sequence[Mutation]], method: str, limit: int
    ) -> VariantScores:
        summarise = np.sum if method == PSEUDO_LIKELIHOOD else np.mean
        pairs: list[tuple[str, str]] = []
        windows: list[list[Window]] = []
        for variant in variants:
            own, mutant_window = pair_windows(variant, wild_type, limit)
            mutant = mutate(wild_type, variant)[mutant_window.start : mutant_window.stop]
            pairs.append((mutant, wild_type[own.start : own.stop]))
            windows.append([own] if variant and own != Window(0, len(wild_type)) else [])
        needed = (text for pair, variant in zip(pairs, variants, strict=True) if variant for text in pair)
        texts = list(dict.fromkeys(needed))
        found = self.pseudo_log_likelihoods(texts)
        likelihood = {text: float(summarise(row.astype(np.float64))) for text, row in zip(texts, found, strict=True)}
        scores = [
            likelihood[mutant] - likelihood[before] if variant else 0.0
            for (mutant, before), variant in zip(pairs, variants, strict=True)
        ]
        return VariantScores(np.array(scores), windows)

    def _ratio(self, row: NDArray[np.float32], mutation: Mutation) -> float:
        before, after = (self._id(letter) for letter in (mutation.wild_type, mutation.mutant))
        return float(row[after]) - float(row[before])

    def _encode(self, text: str) -> NDArray[np.int32]:
        return self.tokenizer.encode(input_form(self.tokenizer).spell(text))

    def _id(self, letter: str) -> int:
        ids = self._encode(letter)
        check_known_tokens(ids, self.tokenizer, letter, letter)
        return int(ids[0])

    def _ids(self, sequence: str) -> NDArray[np.int32]:
        ids = self._encode(sequence)
        check_known_tokens(ids, self.tokenizer, sequence, sequence[:20])
        if not 1 <= len(ids) <= self.seq_length - 2:
            raise DataError(f"scoring: got a sequence of {len(ids)} residues, expected 1 to {self.seq_length - 2}.")
        return np.concatenate([[self.tokenizer.bos_id], ids, [self.tokenizer.eos_id]]).astype(np.int32)

    def answer(self, queries: Iterable[Query]) -> Iterator[NDArray[np.float32]]:
        """Yield the log-probabilities that each query asks for, float32 [positions, vocabulary]; many at once.

        Raises:
            DataError: as for `log_probabilities`.
        """
        yield from self._answer_groups(self._group(queries))

    def _answer_groups(self, groups: Iterable[list[Query]]) -> Iterator[NDArray[np.float32]]:
        share = self.share or functools.partial(map, self.answer_group)
        return itertools.chain.from_iterable(share(groups))

    def _group(self, queries: Iterable[Query]) -> Iterator[list[Query]]:
        """Yield groups of queries whose sequences go through the network at once."""
        group: list[Query] = []
        text, length, longest = "", 0, 0
        for query in queries:
            if query.text != text:
                text, length = query.text, len(self._encode(query.text)) + 2
            full = (len(group) + 1) * max(longest, length) > self._tokens or len(group) == _MAX_COPIES_PER_ROW
            if group and full:
                yield group
                group, longest = [], 0
            group.append(query)
            longest = max(longest, length)
        if group:
            yield group

    @torch.inference_mode()
    def answer_group(self, queries: Sequence[Query]) -> list[NDArray[np.float32]]:
        """Return the log-probabilities that each query asks for, float32 [positions, vocabulary], in one pass.

        Raises:
            DataError: as for `log_probabilities`.
        """
        examples: list[Example] = []
        sets: list[NDArray[np.int64]] = []
        text, ids = "", np.zeros(0, dtype=np.int32)
        for query in queries:
            if query.text != text:
                text, ids = query.text, self._ids(query.text)
            positions = np.array(query.positions, dtype=np.int64) + 1
            tokens = ids.copy()
            if query.masked:
                tokens[positions] = self.tokenizer.mask_id
            examples.append(_example(tokens))
            sets.append(positions)
        return self._predict_at(self._collate(examples), sets)

    def _collate(self, examples: list[Example]) -> TokenBatch:
        shape = RowShape(self.seq_length, len(examples), self.tokenizer.pad_id, packing=may_pack(self.module))
        return TokenBatch.of(collate(examples, len(examples), shape))

    def _predict_at(self, batch: TokenBatch, sets: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """Return the log-probabilities at a set of token positions of each sequence of a batch."""
        self.module.eval()
        widths = batch.lengths[: len(sets)] if batch.packed else [batch.tokens.shape[1]] * len(sets)
        starts = np.cumsum([0, *widths[:-1]])
        rows = np.concatenate([positions + start for positions, start in zip(sets, starts, strict=True)])
        device = next(self.network.parameters()).device
        states = self.network.hidden_states(batch.to(device)).transpose(0, 1).flatten(0, 1)
        hidden = states[torch.from_numpy(rows).to(device)]
        logits = whole_logits(self.network, hidden)
        table = logits[:, : self.tokenizer.vocab_size].float().log_softmax(-1).cpu().numpy()
        check_finite(table, "scoring: log-probabilities")
        return np.split(table, np.cumsum([len(positions) for positions in sets])[:-1])


def _example(tokens: NDArray[np.int32]) -> Example:
    return Example(tokens, tokens, np.zeros(len(tokens), dtype=np.bool_))


def _group_by_window(variant: Sequence[Mutation], length: int, limit: int) -> list[tuple[Window, list[Mutation]]]:
    """Return the windows that score a variant's substitutions: one if they all fit, else one for each."""
    if not variant:
        return []
    window = centred_window(sum(one.position for one in variant) // len(variant), length, limit)
    if all(window.start <= one.position < window.stop for one in variant):
        return [(window, list(variant))]
    return [(centred_window(one.position, length, limit), [one]) for one in variant]


def pair_windows(variant: Sequence[Mutation], wild_type: str, limit: int) -> tuple[Window, Window]:
    """Return the windows of wild type and variant with the same residues before and after what is changed.

    Raises:
        DataError: what lies between the first and the last change is longer than the model.
    """
    first = min((one.position for one in variant), default=0)
    end = max((one.end for one in variant), default=0)
    growth = sum(len(one.mutant) - len(one.wild_type) for one in variant)
    longer = len(wild_type) + max(growth, 0)
    changed = end - first + max(growth, 0)
    if longer > limit and changed > limit:
        raise DataError(f"the changed residues span {changed:,}, but the model takes {limit:,}.")
    start, stop = centred_window(first + changed // 2, longer, limit)
    return Window(start, stop - max(growth, 0)), Window(start, stop - max(-growth, 0))
