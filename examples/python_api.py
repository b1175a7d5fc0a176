"""Every function of the Python interface, on a small model trained here; it takes about a minute on a CPU.

python examples/python_api.py FOLDER
"""

import sys
from pathlib import Path

import bionemo_core
from bionemo_core.errors import BioNeMoError


def proteins(folder: Path) -> None:
    """Train an encoder, then embed, score, evaluate, convert, fine-tune and predict."""
    run = bionemo_core.train(
        "model=esm1nv_tiny",
        {"model.seq_length": 128, "batch.micro_batch_size": 2, "batch.num_workers": 0},
        {"trainer.max_steps": 20, "trainer.progress_bar": False, "home": folder},
    )
    model = bionemo_core.open_model(run, device="cpu")
    print("parameters:", sum(weight.numel() for weight in model.module.parameters()))

    vectors = bionemo_core.embed(model, ["MKTAYIAKQR", "GSHMLE"])
    print("embeddings:", vectors.shape)
    print("pseudo-log-likelihoods:", bionemo_core.score(model, ["MKTAYIAKQR", "GSHMLE"]).round(2))
    print("variants:", bionemo_core.score(model, ["K2A", "K2A:T3S"], wild_type="MKTAYIAKQR").round(2))

    metrics = bionemo_core.evaluate(run, folder / "evaluation", "task.split=val")
    print("loss:", round(metrics["loss"], 2))
    artefact = bionemo_core.convert(run, folder / "model", {"task.dtype": "bfloat16"})
    print("artefact:", sorted(path.name for path in artefact.iterdir()))

    table = folder / "rotations.csv"
    residues = "ACDEFGHIKLMNPQRSTVWY"
    rows = [f"p{i},{residues[i:]}{residues[:i]},{i / 20}" for i in range(20)]
    table.write_text("\n".join(["id,sequence,target", *rows]) + "\n")
    tuned = bionemo_core.finetune(
        {"restore_from_path": run, "task.kind": "sequence_regression", "home": folder},
        {"data": "labelled_csv", "data.dataset_path": table, "batch.num_workers": 0},
        {"trainer.max_steps": 20, "trainer.progress_bar": False},
    )
    print("prediction:", bionemo_core.predict(str(tuned), ["MKTAYIAKQR"])[0].shape)


def molecules(folder: Path) -> None:
    """Train an encoder-decoder for a few steps, and sample from it."""
    run = bionemo_core.train(
        "model=molmim_xsmall",
        {"model.num_layers": 1, "model.hidden_size": 64, "batch.micro_batch_size": 1, "batch.num_workers": 0},
        {"trainer.max_steps": 2, "trainer.progress_bar": False, "home": folder},
    )
    model = bionemo_core.open_model(run, device="cpu")
    near = bionemo_core.sample(model, ["CCO"], num_samples=2, hiddens_to_seq_kwargs={"max_length": 8})
    print("samples near one molecule:", len(near[0]))
    print("samples from the prior:", len(bionemo_core.sample(model, num_samples=2)))


def main() -> None:
    """Run everything in the folder that the command line names."""
    folder = Path(sys.argv[1]).resolve()
    proteins(folder)
    molecules(folder)
    try:
        bionemo_core.embed(str(folder / "missing"), ["MKTAYIAKQR"])
    except BioNeMoError as error:
        print("an error:", str(error).partition("not a")[1:])


if __name__ == "__main__":
    main()
