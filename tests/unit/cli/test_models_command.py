"""`bionemo-run models`: facts of published weights, all of them or those of a word."""

import pytest

from bionemo_core import cli

pytest.importorskip("bionemo_esm")


def test_a_word_chooses_models_and_each_says_what_is_known(capsys):
    assert cli.main(["models", "esm2_8m", "esm-1b"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if line and not line.startswith((" ", "Use"))] == ["esm2_8m", "esm1b"]
    assert shown[1:5] == [
        "    ESM-2, 6 layers, 320 hidden, 20 heads, up to 1,024 tokens",
        "    trained to predict masked residues, on UniRef50 and UniRef90 of September 2021",
        "    tasks embed, finetune, predict, evaluate; licence MIT",
        "    facebook/esm2_t6_8M_UR50D",
    ]


def test_a_word_that_no_model_has_is_refused_with_the_families(capsys):
    assert cli.main(["models", "gpt"]) == 2
    assert "no name or family has gpt. Families: ESM-2, ESM-1b, ESM C" in capsys.readouterr().err
