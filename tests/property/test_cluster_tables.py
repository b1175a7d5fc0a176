"""For any text as a cluster table, every cluster and member is counted, or the table is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bionemo_core.data.readers import FastaSource
from bionemo_core.data.sources.uniref90_members import open_cluster_table
from bionemo_core.data.store.prepare import prepare
from bionemo_core.data.store.record_store import PreparedStore
from bionemo_core.data.store.residue_filter import ResidueFilter
from bionemo_core.errors import DataError
from bionemo_core.protocols import BuildContext

RULES = ResidueFilter("ACDEFGHIKLMNPQRSTVWY")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def stores(home: Path) -> tuple[PreparedStore, PreparedStore]:
    (home / "r.fasta").write_text("".join(f">c{i}\nM\n" for i in range(5)))
    (home / "m.fasta").write_text("".join(f">m{i}\nM{'K' * i}\n" for i in range(9)))
    context = BuildContext(home=str(home))
    first, second = (prepare(FastaSource(home / name), RULES, context) for name in ("r.fasta", "m.fasta"))
    return first, second


_words = st.sampled_from(["c0", "c1", "c2", "c3", "c4", "m0", "m1", "m8", "x", "", " m2 "])
_rows = st.builds(lambda name, members: f"{name}\t{','.join(members)}", _words, st.lists(_words, max_size=6))
_tables = st.builds(
    lambda header, rows, end: f"{header}{end}{end.join(rows)}".encode(),
    st.sampled_from(["cluster_id\tmembers", "\ufeffcluster_id\tmembers", "c0\tm1", ""]),
    st.lists(_rows, max_size=8),
    st.sampled_from(["\n", "\r\n"]),
)


@given(text=_tables | st.binary(max_size=200))
def test_a_table_is_accounted_for(home: Path, stores: tuple[PreparedStore, PreparedStore], text: bytes) -> None:
    representatives, members = stores
    (home / "table.tsv").write_bytes(text)
    try:
        table = open_cluster_table(home / "table.tsv", representatives, members, BuildContext(home=str(home)))
    except DataError as error:
        assert "table.tsv" in str(error)
        return
    counted = {key: table.counted.get(key, 0) for key in (
        "clusters read", "clusters used", "clusters without a representative", "clusters without a member",
        "representatives without a cluster", "members read", "members found", "members missing",
    )}  # fmt: skip
    assert counted["clusters read"] == counted["clusters used"] + counted["clusters without a representative"]
    assert counted["members read"] == counted["members found"] + counted["members missing"]
    assert counted["clusters used"] + counted["representatives without a cluster"] == len(representatives)
    alone = counted["clusters without a member"] + counted["representatives without a cluster"]
    assert int(table.counts.sum()) == len(table.rows) == counted["members found"] + alone
    assert (table.counts >= 1).all()
    assert table.lengths.shape == (5,)
