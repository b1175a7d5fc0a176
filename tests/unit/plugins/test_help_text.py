"""Help text of parameters comes from a factory's docstring or from the comments of a dataclass."""

from dataclasses import dataclass

from bionemo_core.builtin import load_registry
from bionemo_core.cli.help import run
from bionemo_core.config.schema import CORE_GROUPS
from bionemo_core.plugins.help_text import key_help, key_help_of
from bionemo_core.tasks.settings import Optimize


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
class Settings:
    """Two of them."""

    given: int = 3  # how many; null: none
    plain: int = 4


def test_sections_and_comments_are_read() -> None:
    assert key_help(factory) == {"first": "how many: 1, or more of them.", "second": "a word."}
    assert key_help(Settings) == {"given": "how many; null: none"}
    assert key_help(None) == key_help(int) == {}


def test_every_key_of_the_core_of_data_and_of_tasks_is_explained() -> None:
    for group, schema in CORE_GROUPS.items():
        assert not set(schema.__dataclass_fields__) - set(key_help(schema)), group
    assert not set(Optimize.__dataclass_fields__) - set(key_help(Optimize))
    registry = load_registry()
    for one in (*registry.components("data"), *registry.components("task")):
        parameters = {key.name for key in one.keys}
        assert not parameters - set(key_help_of(one)), one.qualified_name


def test_help_shows_them(capsys) -> None:
    run(["data=fasta", "callbacks=downstream"])
    output = capsys.readouterr().out
    assert "data.clusters = null  (str or null)\n      a table" in output
    assert "callbacks.downstream.lr = " in output
    run(["trainer.max_steps", "lr", "callbacks.downstream.lr", "data.clusters=x"])
    output = capsys.readouterr().out
    assert "  trainer.max_steps = 1000000  (int, 1 or more)\n      " in output
    assert "  optim.lr = " in output
    assert "of optim=adamw\n" in output
    assert output.count("of callbacks=downstream\n") == 2
    assert "data.clusters = null" in output
    run(["logger=wandb"])
    assert "`offline=null` means online if a key is found" in capsys.readouterr().out
