"""What parameters mean is read from a factory's docstring, or from the comments of a dataclass."""

from dataclasses import dataclass

from bionemo_core.builtin import load_registry
from bionemo_core.cli.help import run
from bionemo_core.config.schema import CORE_GROUPS
from bionemo_core.config.task_schemas.optimize import Optimize
from bionemo_core.plugins.help_text import meanings, meanings_of


def factory(first: int = 1, second: str = "a", third: int = 2) -> None:
    """Make nothing.

    Args:
        first: how many: 1, or more
            of them.
        second: a word.

    Raises:
        ValueError: never: it is here to look like one more.
    """


@dataclass
class ForeignConfig:
    """Two of them."""

    given: int = 3  # how many; null: none
    plain: int = 4


def test_sections_and_comments_are_read() -> None:
    assert meanings(factory) == {"first": "how many: 1, or more of them.", "second": "a word."}
    assert meanings(ForeignConfig) == {"given": "how many; null: none"}
    assert meanings(None) == meanings(int) == {}


def test_every_key_of_the_core_of_data_and_of_tasks_is_explained() -> None:
    for group, schema in CORE_GROUPS.items():
        assert not set(schema.__dataclass_fields__) - set(meanings(schema)), group
    assert not set(Optimize.__dataclass_fields__) - set(meanings(Optimize))
    registry = load_registry()
    for one in (*registry.components("data"), *registry.components("task")):
        parameters = {name for name in one.component.config.__dataclass_fields__ if not name.startswith("_")}
        assert not parameters - set(meanings_of(one)), one.qualified_name


def test_help_shows_them(capsys) -> None:
    run(["data=fasta", "callbacks=downstream"])
    said = capsys.readouterr().out
    assert "data.clusters = null  (Optional[str])\n      a table" in said
    assert "callbacks.downstream.lr = " in said
    run(["logger=wandb"])
    assert "`offline=null` means online if a key is found" in capsys.readouterr().out
