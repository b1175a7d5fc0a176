"""The command turns a run into every form, and a new run starts from each."""

import json

from runs import Home


def test_a_run_goes_out_and_comes_back_in(home: Home) -> None:
    first = home.finish("name=first", "trainer.max_steps=2")
    artefact, archive = home.path / "artefact", home.path / "model.nemo"
    for source, target in ((first.folder, artefact), (artefact, archive)):
        printed = home.command("task=convert", f"restore_from_path={source}", f"task.output={target}")
        assert "33 tensors matched, 0 resized, 0 missing, 0 unexpected" in printed, printed
        assert f"written  {target}" in printed
    second = home.finish("name=second", f"restore_from_path={archive}", "trainer.max_steps=1")
    report = json.loads((second.folder / "restore.json").read_text())
    assert len(report["matched"]) == 33 and report["source"] == str(archive) and not report["missing"]
    assert "33 tensors matched" in second.output()


def test_a_conversion_without_a_source_says_so(home: Home) -> None:
    assert "restore_from_path" in home.command("task=convert", "task.output=x")
