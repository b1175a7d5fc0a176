"""Progress is a bar on a terminal, and a line now and then where there is none."""

import io
import threading

import pytest
from rich.console import Console

from bionemo_core.io import progress
from bionemo_core.io.progress import BYTES, Bar, Progress, format_bytes


@pytest.fixture
def clock(monkeypatch):
    """The time, which only the test lets pass."""
    now = [100.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (12_340_000_000, "12.3 GB"), (5e15, "5,000.0 TB")],
)
def test_bytes_for_people(count, text):
    assert format_bytes(count) == text


def test_a_line_every_half_minute_and_at_the_end(clock, capsys):
    with Progress("embed", 300, unit="sequences") as bar:
        for _ in range(5):
            clock[0] += 10
            bar.advance(60, ", 7 residues/s")
    assert capsys.readouterr().err.splitlines() == [
        "embed 180 / 300 sequences, 7 residues/s, 20 s left",
        "embed 300 / 300 sequences, 7 residues/s, 50 s in total",
    ]


def test_quick_work_has_no_line_unless_it_is_asked_for(clock, capsys):
    for final_line, expected in ((False, ""), (True, "embed 1 / 1, 0 s in total\n")):
        with Progress("embed", 1, final_line=final_line) as bar:
            bar.advance(1)
        assert capsys.readouterr().err == expected
    with Progress("embed", 1, final_line=True):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("options", [{"shown": False}, {"lines": False}])
def test_nothing_where_nothing_is_wanted(clock, capsys, options):
    with Progress("embed", 2, final_line=True, **options) as bar:
        clock[0] += 60
        bar.advance(1)
    assert capsys.readouterr().err == ""


def test_bytes_count_from_where_a_download_went_on(clock, capsys):
    with Progress("download a", 3_000_000, start=1_000_000, unit=BYTES) as bar:
        clock[0] += 40
        bar.advance(400_000)
    with Progress("download b", None, unit=BYTES) as bar:
        clock[0] += 40
        bar.advance(400_000)
    assert capsys.readouterr().err.splitlines() == [
        "download a 1.4 MB / 3.0 MB, 10.0 kB/s, 160 s left",
        "download b 400.0 kB, 10.0 kB/s",
    ]


def test_a_bar_on_a_terminal_shows_the_end_also_where_the_work_fails(clock, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    threads = threading.active_count()
    with pytest.raises(RuntimeError), Progress("prepare a[b].fasta", 10) as bar:
        assert threading.active_count() == threads  # workers that are forked now inherit no lock of a thread
        bar.update(7, name="prepare c[d].fasta")
        raise RuntimeError
    assert "prepare c[d].fasta" in (said := capsys.readouterr().err)
    assert "7 / 10" in said


def test_a_bar_is_drawn_at_most_four_times_a_second(clock):
    out = io.StringIO()
    bar = Bar("train", 10, console=Console(file=out, force_terminal=True, width=100))
    assert bar.is_due
    bar.show(1, "one")
    assert not bar.is_due
    clock[0] += 0.3
    assert bar.is_due
    bar.stop()
    assert "one" in out.getvalue()
