"""Pictures have one style, need no display, and appear whole."""

import io
import subprocess
import sys

import pytest

from bionemo_core.errors import StorageError
from bionemo_core.io import plots


def test_a_picture_is_a_png_of_the_size_that_was_asked_for(tmp_path):
    figure, axes = plots.new_plot(4, 2)
    axes.plot([1, 2], [1, 2], color=plots.BLUE)
    plots.add_title(axes, "left", "right")
    plots.save_png(figure, tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert content == plots.to_png(figure)
    assert content.startswith(b"\x89PNG")
    assert [int.from_bytes(content[start : start + 4], "big") for start in (16, 20)] == [600, 300]
    assert (axes.get_title(loc="left"), axes.get_title(loc="right")) == ("left", "right")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_title_has_no_boxes_and_no_formula(tmp_path, recwarn):
    figure, axes = plots.new_plot(4, 2)
    plots.add_title(axes, "\u6f22-run caf\u00e9 \u03b1 $x$")
    plots.save_png(figure, tmp_path / "a.png")
    assert axes.get_title(loc="left") == "\\u6f22-run caf\u00e9 \u03b1 $x$"
    assert not [one for one in recwarn if "missing" in str(one.message)]
    plain, other = plots.new_plot(4, 2)
    plots.add_title(other, "\\u6f22-run caf\u00e9 \u03b1 $x$")
    assert plots.to_png(plain) == plots.to_png(figure)
    mathematical, third = plots.new_plot(4, 2)
    third.set_title("\\u6f22-run caf\u00e9 \u03b1 $x$", loc="left", fontsize=10, color=plots.INK)
    formula = io.BytesIO()
    mathematical.savefig(formula, format="png")
    assert formula.getvalue() != plots.to_png(figure), "$x$ stands as it was typed"


def test_axes_are_marked_with_short_numbers():
    figure, axes = plots.new_plot()
    axes.plot([0, 20_000], [1, 3_000_000])
    plots.set_count_ticks(axes.xaxis)
    plots.set_short_numbers(axes.yaxis)
    figure.canvas.draw()
    assert {"0", "5k", "20k"} <= {label.get_text() for label in axes.get_xticklabels()}
    assert {"1M", "3M"} <= {label.get_text() for label in axes.get_yticklabels()}
    figure, axes = plots.new_plot()
    axes.set_xscale("log")
    axes.set_xlim(10, 10_000)
    plots.set_log_ticks(axes.xaxis)
    figure.canvas.draw()
    assert {"10", "20", "50", "1k", "10k"} <= {label.get_text() for label in axes.get_xticklabels()}


def test_a_picture_that_cannot_be_written_says_what_to_do(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"a\.png|file.*cannot be written.*Leave it out\."):
        plots.save_png(plots.new_plot()[0], tmp_path / "file" / "a.png", advice="Leave it out.")


@pytest.mark.processes
def test_matplotlib_is_imported_only_when_something_is_drawn_and_never_its_global_state():
    code = (
        "import sys\n"
        "from bionemo_core.io import plots\n"
        "import bionemo_core.data.store.report, bionemo_core.reporting.html, bionemo_core.reporting.loss_curve\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plots.to_png(plots.new_plot()[0])\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
