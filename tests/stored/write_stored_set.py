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
PROTEINS = "".join(f">p{n}\n{'MKTAYIAKQRGSHMLEDPVCWFN'[n % 7 :] * (1 + n % 3)}\n" for n in range(60))
LABELS = "id,sequence,target,split\n" + "".join(
    f"r{n},{'MKTAYIAKQRLEDPVCWFNGSH'[n % 11 :]},{n % 11},{('train', 'train', 'val', 'test')[n % 4]}\n"
    for n in range(44)
)
ESM2 = ["model=esm2_8m", *TINY]
OWN_FASTA = ["data=fasta", "data.path=proteins.fasta", "data.val_size=8", "data.test_size=8"]
FINETUNE = ["task=finetune", "restore_from_path=artefact.safetensors", "task.kind=sequence_regression", *RUN]
FINETUNE += ["data=labelled_csv", "data.dataset_path=labels.csv", "data.split_column=split"]
BEGUN, WHOLE = "trainer.max_steps=4", "trainer.max_steps=8"


def words_for(family: str) -> list[str]:
    """The command line that trains a family's smallest model."""
    # Said, because the recipe's own was other when the first set was written.
    constant = ["scheduler.constant_steps=21250"] if family == "molmim_xsmall" else []
    return [f"model={family}", *TINY, *RUN, *constant]


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
    expected |= write_others(folder)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def write_others(folder: Path) -> dict[str, object]:
    """Write a Hugging Face folder, a prepared store with its FASTA file, and a fine-tuned run; what they give."""
    import bionemo_core

    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        (home / "proteins.fasta").write_text(PROTEINS)
        _command(home, *ESM2, *RUN, *OWN_FASTA, BEGUN)
        run = next((home / "runs/stored").iterdir())
        source, target = f"restore_from_path={run}", f"task.output={folder / 'esm2'}"
        words = ["task=convert", source, "task.to=huggingface", target]
        _command(home, *words)
        shutil.copytree(home / "prepared", folder / "prepared", ignore=shutil.ignore_patterns("*.lock", "*.png"))
        prepared = losses(run)
        shutil.rmtree(home / "runs")
        (home / "labels.csv").write_text(LABELS)
        shutil.copy(folder / "esm1nv_tiny/artefact.safetensors", home)
        _command(home, *FINETUNE, BEGUN)
        tuned = next((home / "runs/stored").iterdir())
        _command(home, "task=convert", f"restore_from_path={tuned}", f"task.output={folder}/finetuned.safetensors")
        return {
            "huggingface": bionemo_core.embed(str(folder / "esm2"), FAMILIES["esm1nv_tiny"]).tolist(),
            "prepared": prepared,
            "finetuned": predictions(home, folder / "finetuned.safetensors"),
        }


def predictions(home: Path, model: Path) -> list[float]:
    """What a fine-tuned model predicts for two proteins."""
    (home / "new.csv").write_text("id,sequence\n" + "".join(f"{text},{text}\n" for text in FAMILIES["esm1nv_tiny"]))
    shutil.copy(model, home / "model.safetensors")
    _command(home, "task=predict", "restore_from_path=model.safetensors", "task.input=new.csv", "task.output=out.csv")
    with (home / "out.csv").open() as stream:
        return [float(row["prediction"]) for row in csv.DictReader(stream)]


def _command(home: Path, *words: str) -> None:
    env = {**os.environ, "BIONEMO_HOME": str(home), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    command = [sys.executable, "-c", "import sys; from bionemo_core.cli import main; sys.exit(main())", *words]
    subprocess.run(command, env=env, cwd=home, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
