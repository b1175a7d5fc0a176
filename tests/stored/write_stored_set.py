"""Write the stored set: small runs, artefacts, archives and a prepared store, as this version of the code writes them.

`python tests/stored/write_stored_set.py FOLDER` was run once for each version that has a folder here; the test
`test_earlier_version.py` opens them with the code of today. Needs the plugins; takes about two minutes.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TINY = ["model.num_layers=1", "model.hidden_size=16", "model.num_attention_heads=2", "model.ffn_hidden_size=16"]
FAMILIES = {
    "esm1nv_tiny": ["MKTAYIAKQR", "GSHMLEDPVC"],
    "prott5nv_tiny": ["MKTAYIAKQR", "GSHMLEDPVC"],
    "megamolbart_xsmall": ["CCO", "c1ccccc1O"],
    "molmim_xsmall": ["CCO", "c1ccccc1O"],
}
RUN = ["name=stored", "batch.micro_batch_size=1", "batch.num_workers=0", "trainer.log_every_n_steps=1"]
RUN += ["trainer.val_check_interval=2", "trainer.limit_val_batches=1", "scheduler.warmup_steps=2", "logger=csv"]
BEGUN, WHOLE = "trainer.max_steps=4", "trainer.max_steps=8"


def words_for(family: str) -> list[str]:
    """The command line that trains a family's smallest model."""
    return [f"model={family}", *TINY, *RUN]


def losses(run: Path) -> dict[str, float]:
    """The training loss of each step of a run."""
    with (run / "metrics.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row.get("reduced_train_loss")]
    return {str(int(float(row["global_step"]))): float(row["reduced_train_loss"]) for row in rows}


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    expected: dict[str, object] = {}
    for family, texts in FAMILIES.items():
        with tempfile.TemporaryDirectory() as temporary:
            home = Path(temporary)
            _command(home, *words_for(family), BEGUN)
            begun = next((home / "runs/stored").iterdir())
            kept = folder / family / "run"
            shutil.copytree(begun, kept, ignore=shutil.ignore_patterns("*.png", "config.yaml", "*.lock"))
            for step in sorted((kept / "checkpoints").iterdir())[:-1]:
                shutil.rmtree(step)
            source = f"restore_from_path={begun}"
            _command(home, "task=convert", source, f"task.output={folder / family / 'artefact.safetensors'}")
            _command(home, "task=convert", source, f"task.output={folder / family / 'archive.nemo'}")
            import bionemo_core

            embeddings = bionemo_core.embed(str(folder / family / "artefact.safetensors"), texts).tolist()
            _command(home, *words_for(family), WHOLE, "resume=last")
            expected[family] = {"losses": losses(begun), "embeddings": embeddings}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def _command(home: Path, *words: str) -> None:
    env = {**os.environ, "BIONEMO_HOME": str(home), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    command = [sys.executable, "-c", "import sys; from bionemo_core.cli import main; sys.exit(main())", *words]
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
