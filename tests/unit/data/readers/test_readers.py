"""Every reader yields the records of its format, with any compression."""

import bz2
import gzip
import lzma
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bionemo_core.data.readers import EXTENSIONS, FORMATS, CsvSource, Record, SmilesSource, read_blocks, source_for
from bionemo_core.data.readers.decompress import open_bytes, text_lines
from bionemo_core.data.readers.tables import read_column_names
from bionemo_core.data.store.prepare import prepare
from bionemo_core.data.store.residue_filter import ResidueFilter
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.protocols import BuildContext

FASTA = b">a one two\nMKT\nAY\n>b\nLL\n"


def records(path: Path, **options: object) -> list[Record]:
    source = source_for(path, **options)
    return list(source.records(source.paths[0]))


def simple(path: Path, **options: object) -> list[tuple[bytes, bytes, str]]:
    return [(record.id, record.sequence, record.problem) for record in records(path, **options)]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def zstd(text: bytes) -> bytes:
    return pa.compress(text, "zstd", asbytes=True)


def lz4(text: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "lz4") as stream:
        stream.write(text)
    return sink.getvalue().to_pybytes()


def bgzip(text: bytes, end: bool = True) -> bytes:
    """Two blocks and the empty one at the end, as the SAM specification has them."""
    blocks = []
    for part in (text[:9], text[9:], b""):
        deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
        raw = deflate.compress(part) + deflate.flush()
        header = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff\x06\0BC\x02\0" + (len(raw) + 25).to_bytes(2, "little")
        blocks.append(header + raw + gzip.compress(part)[-8:])
    return b"".join(blocks if end else blocks[:1])


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bgzip, bz2.compress, lzma.compress, zstd, lz4])
@pytest.mark.parametrize("name", ["a.fasta", "a.fa.gz", "a.faa"])
def test_compression_is_recognised_by_the_first_bytes(
    tmp_path: Path, compress: Callable[[bytes], bytes], name: str
) -> None:
    path = write(tmp_path / name, compress(FASTA))
    assert simple(path) == [(b"a", b"MKTAY", ""), (b"b", b"LL", "")]


@pytest.mark.parametrize("compress", [gzip.compress, bgzip, bz2.compress, lzma.compress, zstd, lz4])
def test_damaged_compression_is_named(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    whole = compress(b"".join(b">r%d\n%s\n" % (i, b"MKTAYIAKQR" * (i % 9 + 1)) for i in range(2000)))
    cut = write(tmp_path / "cut.fasta", whole[: len(whole) * 2 // 3])
    flipped = bytearray(whole)
    flipped[len(whole) // 2 : len(whole) // 2 + 40] = bytes(40)
    broken = [cut] if compress is lz4 else [cut, write(tmp_path / "flipped.fasta", bytes(flipped))]  # no checksum
    for path in broken:
        with pytest.raises(DataError, match=path.name):
            records(path)


def test_bgzip_cut_between_blocks_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lacks its end"):
        records(write(tmp_path / "a.fasta.gz", bgzip(FASTA, end=False)))


def test_fasta_ids_descriptions_and_lines(tmp_path: Path) -> None:
    text = b"\n>sp|P1|X  the first \nMK\n\n>b\tx\ny\n>\nA\n> c d\nQ\n>" + b"n" * 90 + b" e\nW"
    path = write(tmp_path / "a.fasta", text)
    found = records(path, columns=["description"])
    assert [(r.id, r.columns[0], r.line) for r in found] == [
        (b"sp|P1|X", b"the first", 2),
        (b"b", b"x", 5),
        (b"", b"", 7),
        (b"c", b"d", 9),
        (b"n" * 90, b"e", 11),
    ]
    assert [r.problem for r in found] == ["", "", "no id", "", ""]
    assert [(r.id, r.line) for r in records(path)] == [(r.id, r.line) for r in found]
    with pytest.raises(ConfigError, match="only 'description'"):
        source_for(path, columns=["SET"])


def test_fastq(tmp_path: Path) -> None:
    text = b"@a x\nMKT\n+\n@@@\n@b\r\nMK\r\nTA\r\n+b\r\n!!\r\n!!\r\n\n@c\nM\n+\n!!\n"
    assert simple(write(tmp_path / "a.fq", text)) == [
        (b"a", b"MKT", ""),
        (b"b", b"MKTA", ""),
        (b"c", b"M", "quality longer than the sequence"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b">a\nMKT\n", "expected '@'"),
        (b"", "has no record"),
        (b"@a\nMKT\n", "has an incomplete quality"),
        (b"@a\nMKT\n+\n!!\n", "has an incomplete quality"),
        (b"@a\nMKT\n+b\n!!!\n", "another id"),
    ],
)
def test_bad_fastq_is_named(tmp_path: Path, text: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        records(write(tmp_path / "a.fastq", text))


def test_smiles(tmp_path: Path) -> None:
    text = b"smiles name\nCCO ethanol alcohol\n\nC[C@H](N)C(=O)O\talanine\nc1ccccc1\n\tnothing\n O \r\n"
    assert simple(write(tmp_path / "a.smi", text)) == [
        (b"ethanol alcohol", b"CCO", ""),
        (b"alanine", b"C[C@H](N)C(=O)O", ""),
        (b"a.smi:5", b"c1ccccc1", ""),
        (b"nothing", b"", "no SMILES before the name"),
        (b"a.smi:7", b"O", ""),
    ]
    assert len(records(tmp_path / "a.smi", header=False)) == 6


def test_real_molecules(realdata: Path) -> None:
    found = records(realdata / "zinc_20k.smi.gz")
    lines = gzip.decompress((realdata / "zinc_20k.smi.gz").read_bytes()).split()
    assert [record.sequence for record in found] == lines
    assert len(found) == 20_000 and not any(record.problem for record in found)


def test_tables_by_name_and_number(tmp_path: Path) -> None:
    csv = write(tmp_path / "a.csv", 'id,"se""t",seq\nx,train,MKT\n,test,LL\n')
    found = records(csv, column="seq", id_column=0, columns=['se"t'])
    assert [(r.id, r.sequence, r.problem, r.columns) for r in found] == [
        (b"x", b"MKT", "", (b"train",)),
        (b"", b"LL", "no id", (b"test",)),
    ]
    tsv = write(tmp_path / "a.tsv", "id\tseq\nx\tMKT\n")
    assert simple(tsv, column=1) == [(b"a.tsv:2", b"MKT", "")]
    with pytest.raises(DataError, match="'sequence' is not in the header, which has id, seq"):
        records(tsv, column="sequence")


@pytest.mark.parametrize(("separator", "typed"), [(";", ";"), ("\t", r"\t"), ("|", "|")])
def test_a_separator_is_found_and_its_hint_can_be_followed(tmp_path, separator, typed):
    csv = write(tmp_path / "a.csv", separator.join(["id", "seq"]) + "\n" + separator.join(["x", "MKT"]) + "\n")
    for column in ("seq", 1):
        with pytest.raises(DataError) as failure:
            records(csv, column=column)
        assert f"They seem to be separated by {separator!r}: add 'data.data_sep={typed}'." in str(failure.value)
    assert simple(csv, column="seq", separator=typed) == [(b"a.csv:2", b"MKT", "")]
    assert read_column_names(csv, "csv", typed) == ["id", "seq"]


@pytest.mark.parametrize("column", ["sequence", 2])
def test_a_row_with_more_columns_than_the_header_is_not_read_by_their_names(tmp_path, column):
    text = b"id,name,sequence\na,cytochrome c, mutant,MKTAYI\nb,insulin,MKV,\nc,insulin,MKL\n"
    path = write(tmp_path / "a.csv", text)
    found = {record.id: record.problem for record in CsvSource(path, column, id_column="id").records(path)}
    by_name = isinstance(column, str)
    assert found == {b"a": "more columns than the header" if by_name else "", b"b": "", b"c": ""}


def test_a_name_that_occurs_twice_is_answered_with_what_to_change(tmp_path):
    path = write(tmp_path / "a.csv", b"id,sequence,sequence\na,MKT,MKV\n")
    with pytest.raises(DataError, match=r"more than once in the header.*Give each column a name of its own"):
        list(CsvSource(path, "sequence").records(path))


def test_parquet(tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b", ""], "sequence": ["MKT", None, "LL"], "n": [1, 2, 3]})
    pq.write_table(table, tmp_path / "a.parquet")
    found = records(tmp_path / "a.parquet", id_column="id", columns=["n"])
    assert [(r.id, r.sequence, r.problem, r.columns, r.line) for r in found] == [
        (b"a", b"MKT", "", (b"1",), 1),
        (b"b", b"", "no value", (b"2",), 2),
        (b"", b"LL", "no id", (b"3",), 3),
    ]
    pq.write_table(table.set_column(1, "sequence", table["sequence"].dictionary_encode()), tmp_path / "b.parquet")
    assert [r.sequence for r in records(tmp_path / "b.parquet")] == [b"MKT", b"", b"LL"]
    absent = r"column 'seq' is not in the file, which has id, sequence, n\. .*data\.column"
    for column, message in (("seq", absent), ("n", "holds int64")):
        with pytest.raises(DataError, match=message):
            records(tmp_path / "a.parquet", column=column)
    for text in (b"", b"PAR1", b"PAR1" + bytes(99) + b"PAR1", (tmp_path / "a.parquet").read_bytes()[:-9]):
        with pytest.raises(DataError, match=r"bad\.parquet"):
            records(write(tmp_path / "bad.parquet", text))


GENPEPT = """LOCUS       P12345                     6 aa            linear   BCT 01-JAN-2000
DEFINITION  a protein of six.
ACCESSION   P12345
VERSION     P12345.1
FEATURES             Location/Qualifiers
     source          1..6
ORIGIN
        1 mktayi
//
"""
GENOME = """LOCUS       NC_1                      18 bp    DNA     linear   BCT 01-JAN-2000
DEFINITION  a genome.
ACCESSION   NC_1
VERSION     NC_1.1
FEATURES             Location/Qualifiers
     CDS             1..9
                     /protein_id="WP_1.1"
                     /product="short one"
                     /translation="MKT"
     CDS             10..18
                     /locus_tag="b2"
ORIGIN
        1 atgaaaacta tgaaaact
//
"""
SWISS = """ID   ONE_ECOLI               Reviewed;           6 AA.
AC   P00001;
DT   01-JAN-2000, integrated into UniProtKB/Swiss-Prot.
DT   01-JAN-2000, sequence version 1.
DT   01-JAN-2000, entry version 1.
DE   RecName: Full=One;
OS   Escherichia coli.
OC   Bacteria.
OX   NCBI_TaxID=562;
PE   1: Evidence at protein level;
SQ   SEQUENCE   6 AA;  700 MW;  0000000000000000 CRC64;
     MKTAYI
//
"""


def test_flat_files(tmp_path: Path) -> None:
    pytest.importorskip("Bio")
    genpept = records(write(tmp_path / "a.gp", GENPEPT), columns=["description"])
    assert [(r.id, r.sequence, r.columns) for r in genpept] == [(b"P12345.1", b"MKTAYI", (b"a protein of six",))]
    genome = write(tmp_path / "a.gbk.gz", gzip.compress(GENOME.encode()))
    assert simple(genome) == [(b"WP_1.1", b"MKT", ""), (b"b2", b"", "coding sequence without a translation")]
    without = write(tmp_path / "b.gb", GENOME.replace("CDS ", "gene"))
    assert simple(without) == [(b"NC_1.1", b"", "nucleotides without a coding sequence")]
    assert simple(write(tmp_path / "a.dat", SWISS)) == [(b"P00001", b"MKTAYI", "")]
    for name, text in (("a.gb", b"nothing"), ("b.dat", b"ID \xff\n"), ("c.embl", b""), ("d.gb", b"\xff\xfeL\0")):
        with pytest.raises(DataError, match=name):
            records(write(tmp_path / name, text))


SEQRES = """HEADER    TEST                                    01-JAN-00   1ABC
SEQRES   1 A    4  MET LYS MSE TYR
SEQRES   1 B    2   DA  DG
ATOM      1  CA  MET A   1       0.000   0.000   0.000  1.00  0.00           C
ATOM      2  CA  LYS A   2       3.800   0.000   0.000  1.00  0.00           C
TER
END
"""


def test_chains_of_structures(tmp_path: Path) -> None:
    pytest.importorskip("Bio")
    assert simple(write(tmp_path / "x.pdb", SEQRES)) == [
        (b"x:A", b"MKMY", ""),
        (b"x:B", b"XX", "no amino acid in the chain"),
    ]
    atoms = "\n".join(line for line in SEQRES.splitlines() if not line.startswith("SEQRES"))
    assert simple(write(tmp_path / "x.ent.gz", gzip.compress(atoms.encode()))) == [(b"x:A", b"MK", "")]
    for name, text in (("e.pdb", b""), ("f.cif", b"data_x\nloop_\n_a.b\n'"), ("g.cif", b"nothing")):
        with pytest.raises(DataError, match=name):
            records(write(tmp_path / name, text))


def structure_of(sequences: dict[str, str]) -> object:
    """A structure with a C-alpha a residue, a chain a sequence."""
    from Bio.Data.PDBData import protein_letters_1to3
    from Bio.PDB.StructureBuilder import StructureBuilder

    builder = StructureBuilder()
    builder.init_structure("x")
    builder.init_model(0)
    builder.init_seg(" ")
    for chain, sequence in sequences.items():
        builder.init_chain(chain)
        for number, letter in enumerate(sequence, start=1):
            builder.init_residue(protein_letters_1to3[letter].upper(), " ", number, " ")
            builder.init_atom("CA", [3.8 * number, 0, 0], 0.0, 1.0, " ", " CA ", number, "C")
    return builder.get_structure()


def test_the_same_proteins_in_every_format(
    realdata: Path, tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext
) -> None:
    pytest.importorskip("Bio")
    from Bio.PDB import PDBIO
    from Bio.PDB.mmcifio import MMCIFIO

    whole = records(realdata / "uniprot_sample_512.fasta")
    standard = [r for r in whole if not r.sequence.strip(b"ACDEFGHIKLMNPQRSTVWY")][:6]
    wanted = [record.sequence for record in standard]
    names = dict(zip("ABCDEF", [sequence.decode() for sequence in wanted], strict=True))
    write(tmp_path / "p.fasta", b"".join(b">%s\n%s\n" % (r.id, r.sequence) for r in standard))
    fastq = b"".join(b"@%s\n%s\n+\n%s\n" % (r.id, r.sequence, b"I" * len(r.sequence)) for r in standard)
    write(tmp_path / "p.fq.bz2", bz2.compress(fastq))
    write(tmp_path / "p.tsv", "n\tsequence\n" + "".join(f"{n}\t{s.lower()}\n" for n, s in names.items()))
    pq.write_table(pa.table({"sequence": list(names.values())}), tmp_path / "p.parquet")
    for writer, name in ((PDBIO(), "p.pdb"), (MMCIFIO(), "p.cif")):
        writer.set_structure(structure_of(names))
        writer.save(str(tmp_path / name))
    shards = [write(tmp_path / f"x00{i}.csv", f"id,sequence\n{i},{s}\n") for i, s in enumerate(names.values())]
    rules = ResidueFilter.of(tokenizer)
    for paths in ("p.fasta", "p.fq.bz2", "p.tsv", "p.parquet", "p.pdb", "p.cif", shards):
        options = {"column": "sequence"} if paths in ("p.tsv", shards) else {}
        files = [tmp_path / paths] if isinstance(paths, str) else paths
        store = prepare(source_for(files, **options), rules, context)
        assert [store[i] for i in range(len(store))] == wanted, paths


def test_which_reader(tmp_path: Path) -> None:
    assert {EXTENSIONS[e] for e in EXTENSIONS} == set(FORMATS)
    path = write(tmp_path / "proteins.txt", FASTA)
    assert simple(path, format="fasta")[1] == (b"b", b"LL", "")
    assert source_for("uniprot.FASTA.gz").kind == "fasta"
    for paths, options, message in (
        ("a.txt", {}, r"'\.txt' is unknown.*data\.format"),
        (["a.fa", "b.csv"], {}, "a.fa is fasta, b.csv is csv"),
        ([], {}, "got no file"),
        ("a.fa", {"format": "fastaa"}, "'fastaa' is unknown"),
        ("a.fq", {"column": 1}, r"data\.column: format fastq has no such option"),
    ):
        with pytest.raises(ConfigError, match=message):
            source_for(paths, **options)


@pytest.mark.processes
def test_without_biopython_the_others_work() -> None:
    code = (
        "import sys; sys.modules['Bio'] = None\n"
        "from bionemo_core.data.readers import source_for\n"
        "print(source_for('a.fasta').kind)\n"
        "try: source_for('a.pdb')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print([name for name in ('torch', 'rdkit', 'pyarrow') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second, third = done.stdout.splitlines()
    assert first == "fasta" and second.startswith("ConfigError") and "pip install biopython" in second
    assert third == "[]"


NAMES = [
    (b"CCO\tethyl alcohol\t46\n", [b"ethyl alcohol"]),
    (b"CCO ethyl alcohol\nCCN ethyl amine\n", [b"ethyl alcohol", b"ethyl amine"]),
    (b"CCO\nCCN \nCCC\t\n", [b"a.smi:1", b"a.smi:2", b"a.smi:3"]),
    (b"CCO |r|\nCCC |r| name\nCCN\t|c:1|\tethyl amine\n", [b"a.smi:1", b"name", b"ethyl amine"]),
    (b"CCO |open\n", [b"|open"]),
    (b"smiles zinc_id mwt\nCCO ZINC1 46.1\nCCN ethyl amine\nCCC a b c\n", [b"ZINC1", b"ethyl", b"a b c"]),
    (b"smiles zinc_id\nCCO ZINC1\nCCN ethyl amine\n", [b"ZINC1", b"ethyl amine"]),
]


@pytest.mark.parametrize(("text", "names"), NAMES)
def test_the_name_of_a_molecule_is_whole(tmp_path, text, names):
    path = tmp_path / "a.smi"
    path.write_bytes(text)
    found = records(path)
    assert [record.id for record in found] == names
    assert sum(bool(record.note) for record in found) == text.count(b"|") // 2
    assert [record for block in read_blocks(SmilesSource(path), path) for record in block.records()] == found


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_line_end_at_the_edge_of_a_block_ends_one_line(tmp_path, monkeypatch, end):
    lines = [b">a one", b"MKT", b"AY", b"", b">b", b"L" * 7]
    path = write(tmp_path / "a.fasta", end.join(lines) + end)
    for size in range(1, 14):
        monkeypatch.setattr("bionemo_core.data.readers.decompress.BLOCK_BYTES", size)
        with open_bytes(path, "fasta") as stream:
            assert list(text_lines(stream, "fasta: a")) == lines, size
