"""Molecule data components: each factory names files and rules, and returns the splits of a prepared store.

No `from __future__ import annotations` and no unions but `Optional` here: the configuration reads these signatures.
RDKit, numpy and pyarrow are imported in the bodies, because listing the components must stay quick.
"""

from pathlib import Path
from typing import Any, Optional

from bionemo_core.errors import ConfigError, DataError
from bionemo_core.protocols import BuildContext, DataSplits, Tokenizer
from bionemo_core.ranges import Count, Natural, Number, Positive, Share


def sample_molecules(
    seed: Natural = 0,
    val_size: Natural = 200,
    test_size: Natural = 200,
    max_length: Optional[Count] = None,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
) -> DataSplits:
    """Read 5,000 molecules of the NCI that come with RDKit: enough to try a model, not to evaluate one.

    Args:
        seed: the seed of the split.
        val_size: the number of validation molecules.
        test_size: the number of test molecules.
        max_length: reject longer molecules, in tokens; null: keep them all.

    Raises:
        ConfigError: the two sizes leave nothing to train on.
        DataError: RDKit is installed without its data, or the tokenizer cannot read SMILES.
    """
    from rdkit import RDConfig

    from bionemo_core.data.readers import SmilesSource
    from bionemo_core.data.splits.indices import split_at_random
    from bionemo_core.data.store.prepare import prepare
    from bionemo_molbart.rules import MoleculeFilter, MoleculeOptions

    path = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"
    if not path.is_file():
        raise DataError(
            f"data: {path} is missing: this RDKit was installed without its data. Install the `rdkit` wheel with "
            "pip, or name your own molecules with data=smiles data.path=..."
        )
    options = MoleculeOptions(max_length=max_length, deduplicate=True)
    store = prepare(SmilesSource(path, whole_names=False), MoleculeFilter(tokenizer, options), context)
    return split_at_random(len(store), val_size, test_size, seed).of(store)


# Long: a signature that is its keys, and their help.
def smiles(
    path: Optional[Any] = None,
    val_path: Optional[Any] = None,
    test_path: Optional[Any] = None,
    dataset_path: Optional[str] = None,
    train: str = "x[000..049]",
    val: str = "x[000..049]",
    test: str = "x[000..049]",
    format: Optional[str] = None,
    data_col: Optional[Natural] = None,
    column: Optional[str] = None,
    id_column: Optional[str] = None,
    header_lines: Optional[Natural] = None,
    data_sep: Optional[str] = None,
    val_fraction: Optional[Share] = None,
    test_fraction: Optional[Share] = None,
    val_size: Optional[Natural] = None,
    test_size: Optional[Natural] = None,
    clusters: Optional[str] = None,
    split_column: Optional[str] = None,
    split_file: Optional[str] = None,
    split_seed: Natural = 0,
    canonicalize: bool = True,
    on_invalid: str = "skip",
    unknown_tokens: str = "skip",
    salts: str = "keep",
    neutralize: bool = False,
    max_smiles_length: Count = 512,
    min_length: Count = 1,
    max_length: Optional[Count] = None,
    lipinski: bool = False,
    max_weight: Optional[Positive] = None,
    max_logp: Optional[Number] = None,
    min_qed: Optional[Share] = None,
    deduplicate: bool = False,
    on_duplicate_id: Optional[str] = None,
    parsed: bool = False,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
) -> DataSplits:
    """Read molecules from SMI, SD, CSV, TSV or Parquet files, plain or compressed, or from v1's folder of shards.

    Give `path`, which is split unless other files are named; or `dataset_path`, a folder with `train`, `val` and
    `test`.

    Args:
        path: the molecules to train on, and to split if no other files are named: a file, a range such as
            `x[000..049].csv`, a pattern with `*`, an http(s) or ftp address, or a list of these.
        val_path: separate validation files, instead of a part of `path`.
        test_path: separate test files, instead of a part of `path`.
        dataset_path: v1's layout, `<dataset_path>/{train,val,test}/x000.csv` with the header `zinc_id,smiles`.
        train: the training shards of `dataset_path`, such as `x000`, `x[000..049]` or `x_OP_000..049_CL_`.
        val: the validation shards; empty: none.
        test: the test shards; empty: none.
        format: smiles, sdf, csv, tsv or parquet; null: by the extension.
        data_col: the column of the SMILES in a CSV or TSV file, counted from 0; v1's shards have 1.
        column: the name of that column in the header; overrides `data_col`; null without `data_col`: smiles.
        id_column: the column of the ids in a table or in split_file; null: file and line, in split_file the first.
        header_lines: lines to skip at the top of every CSV or TSV file; null: one.
        data_sep: one character that separates the columns; null: a tab in TSV, else a comma.
        val_fraction: the share for validation; null: 0.01 unless another option decides.
        test_fraction: the share for testing; null: 0.01 unless another option decides.
        val_size: the number of validation molecules, instead of a fraction.
        test_size: the number of test molecules, instead of a fraction.
        clusters: `scaffold` for Bemis-Murcko scaffolds, or a table `cluster_id<TAB>member_id`; the molecules of a
            scaffold or cluster stay in one split. A warning counts the scaffolds that separate files share.
        split_column: the column with train, val (valid, validation) or test for each molecule.
        split_file: a separate table with the splits of the same ids in its column split_column.
        split_seed: the seed of the split; independent of the run's seed.
        canonicalize: store RDKit's canonical SMILES.
        on_invalid: action for text that is not the SMILES of a molecule: skip or error.
        unknown_tokens: action for a token that the tokenizer lacks: skip the molecule, error, or unk.
        salts: action for several fragments: keep them, strip to the largest one, or reject.
        neutralize: add protons to anions and take them from cations, after stripping, so that an acid and its salt
            become one molecule.
        max_smiles_length: reject longer texts, in characters.
        min_length: reject shorter molecules, in tokens.
        max_length: reject longer molecules, in tokens; null: keep them all (training cuts them).
        lipinski: reject molecules that break the rule of five (weight 500, logP 5, 5 donors, 10 acceptors).
        max_weight: reject heavier molecules, in g/mol.
        max_logp: reject molecules of a higher logP (Crippen).
        min_qed: reject molecules of a lower drug-likeness (QED).
        deduplicate: keep one of several molecules with the same canonical SMILES.
        on_duplicate_id: action for a molecule that repeats an earlier id: drop, error or keep; null: keep for the names
            of SMI and SD files, which need not be ids, and drop for tables.
        parsed: store each molecule also as RDKit has parsed it, which takes ten times the space; random spellings are
            then drawn 1.4 times as fast.

    Raises:
        ConfigError: an option is out of its range or contradicts another one, or nothing is left to train on.
        DataError: a file is missing or cannot be read, or on_invalid=error met such a record.
    """
    from bionemo_core.data.sources.input_files import NamedFiles, prepare_splits
    from bionemo_core.data.splits.options import SplitOptions
    from bionemo_molbart.molecules import SCAFFOLD
    from bionemo_molbart.rules import TITLED, MoleculeFiles, MoleculeFilter, MoleculeOptions

    files = MoleculeFiles(format, data_col, column, id_column, header_lines, data_sep, bool(split_file))
    named = NamedFiles.of(path, val_path, test_path, dataset_path, {"train": train, "val": val, "test": test})
    by_scaffold = clusters == SCAFFOLD
    if clusters and not by_scaffold and not Path(clusters).expanduser().is_file():
        raise ConfigError(f"data.clusters: {clusters}: there is no such file. Give a table of clusters, or {SCAFFOLD}.")
    if on_duplicate_id is None:
        titles = not split_file and files.detect_format(named.paths("train", context)) in TITLED
        on_duplicate_id = "keep" if titles else "drop"
    options = MoleculeOptions(
        canonicalize=canonicalize,
        on_invalid=on_invalid,
        unknown_tokens=unknown_tokens,
        salts=salts,
        neutralize=neutralize,
        max_smiles_length=max_smiles_length,
        min_length=min_length,
        max_length=max_length,
        lipinski=lipinski,
        max_weight=max_weight,
        max_logp=max_logp,
        min_qed=min_qed,
        deduplicate=deduplicate,
        on_duplicate_id=on_duplicate_id,
        parsed=parsed,
        scaffolds=by_scaffold,
    )
    split_options = SplitOptions(
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        val_size=val_size,
        test_size=test_size,
        clusters=clusters,
        clusters_column=SCAFFOLD if by_scaffold else None,
        split_column=split_column,
        split_file=split_file,
        split_seed=split_seed,
        id_column=id_column,
    )
    return prepare_splits(named, files, MoleculeFilter(tokenizer, options), split_options, context)


# Long: a signature that is its keys, and their help.
def zinc15(
    links_file: str,
    output_dir: Optional[str] = None,
    download_workers: Count = 16,
    train_samples_per_file: Count = 10_050_000,
    val_samples_per_file: Natural = 100,
    test_samples_per_file: Natural = 50_000,
    seed: Natural = 0,
    max_smiles_length: Count = 512,
    max_weight: Optional[Positive] = 500.0,
    max_logp: Optional[Number] = 5.0,
    lipinski: bool = False,
    min_qed: Optional[Share] = None,
    salts: str = "keep",
    neutralize: bool = False,
    on_invalid: str = "skip",
    unknown_tokens: str = "skip",
    min_length: Count = 1,
    max_length: Optional[Count] = None,
    deduplicate: bool = False,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
) -> DataSplits:
    """Download ZINC15 from a list of its tranches; canonicalise, merge and split it as v1 did.

    Args:
        links_file: a file or an address with one tranche per line; ZINC's own lists of wget commands work too.
        output_dir: the folder for `raw/` and `processed/`; null: `<home>/zinc15`.
        download_workers: number of tranches to download at a time.
        train_samples_per_file: training molecules per shard number, such as x000.
        val_samples_per_file: validation molecules per shard number.
        test_samples_per_file: test molecules per shard number; within each number the split is random.
        seed: the seed of the split; independent of the run's seed.
        max_smiles_length: reject longer texts, in characters.
        max_weight: reject heavier molecules, in g/mol.
        max_logp: reject molecules of a higher logP (Crippen).
        lipinski: reject molecules that break the rule of five (weight 500, logP 5, 5 donors, 10 acceptors).
        min_qed: reject molecules of a lower drug-likeness (QED).
        salts: action for several fragments: keep them, strip to the largest one, or reject.
        neutralize: add protons to anions and take them from cations, after stripping, so that an acid and its salt
            become one molecule.
        on_invalid: action for text that is not the SMILES of a molecule: skip or error.
        unknown_tokens: action for a token that the tokenizer lacks: skip the molecule, error, or unk.
        min_length: reject shorter molecules, in tokens.
        max_length: reject longer molecules, in tokens; null: keep them all (training cuts them).
        deduplicate: keep one of several molecules of a split with the same canonical SMILES.

    Raises:
        ConfigError: an option is out of its range.
        DataError: a tranche cannot be read, or on_invalid=error met such a record.
        NetworkError: a tranche cannot be fetched.
        StorageError: the disk refuses a file.
    """
    from bionemo_core.data.store.prepare import home_folder
    from bionemo_molbart.rules import MoleculeFilter, MoleculeOptions, TokenFilter
    from bionemo_molbart.shards import ShardSizes
    from bionemo_molbart.zinc15 import Zinc15, links_from, zinc15_splits

    folder = Path(output_dir).expanduser() if output_dir else home_folder(context) / "zinc15"
    of_shards = MoleculeOptions(
        on_invalid=on_invalid,
        unknown_tokens="unk",  # the shards serve any tokenizer; what it lacks is left out of its store
        salts=salts,
        neutralize=neutralize,
        max_smiles_length=max_smiles_length,
        lipinski=lipinski,
        max_weight=max_weight,
        max_logp=max_logp,
        min_qed=min_qed,
    )
    of_tokens = MoleculeOptions(
        unknown_tokens=unknown_tokens, min_length=min_length, max_length=max_length, deduplicate=deduplicate
    )
    shards = Zinc15(
        folder / "processed",
        MoleculeFilter(tokenizer, of_shards),
        ShardSizes(train_samples_per_file, val_samples_per_file, test_samples_per_file),
        seed,
        context.preparation_workers,
    )
    links = links_from(links_file, folder)
    return zinc15_splits(links, shards, TokenFilter(tokenizer, of_tokens), context, download_workers)
