"""What a run leaves behind: what was asked for, and nothing that was not."""

import json
import signal

from runs import Home, read_metrics

from bionemo_core.config.spec import from_json

V1_METRICS = {
    *("reduced_train_loss", "val_loss", "grad_norm", "loss_scale", "lr", "epoch", "consumed_samples", "global_step"),
    *("validation_step_timing", "train_step_timing", "train_backward_timing"),
}


def test_the_folder_holds_the_run(home: Home) -> None:
    run = home.finish("name=left", "trainer.max_steps=10")
    folder = run.folder
    spec = from_json((folder / "run.json").read_text())
    assert (spec.name, spec.model.name, spec.model.params["num_layers"]) == ("left", "esm1nv_tiny", 2)
    assert "_target_" not in (folder / "run.json").read_text()
    assert "num_layers: 2" in (folder / "config.yaml").read_text()
    header = set((folder / "metrics.csv").read_text().splitlines()[0].split(","))
    assert header >= V1_METRICS | {"tokens_per_second", "fill", "data_pass"}
    assert json.loads((folder / "summary.json").read_text())["status"] == "done"
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    losses = [float(row["reduced_train_loss"]) for row in read_metrics(folder).values()]
    assert len(losses) == 10 and losses[-1] < losses[0]


def test_the_best_and_the_last_checkpoints_are_kept(home: Home) -> None:
    # Losses fall, so with mode=max the best validation is the first one.
    settings = ("name=kept", "checkpoint.mode=max", "checkpoint.save_top_k=1", "checkpoint.keep_last=2")
    assert home.finish(*settings, "trainer.max_steps=20").checkpoints == [10, 15, 20]
    # A resume knows the best of the sessions before it.
    assert home.finish(*settings, "resume=last").checkpoints == [10, 35, 40]


def test_a_monitor_that_nobody_logs_is_refused_before_the_first_step(home: Home) -> None:
    run = home.finish("name=no-monitor", "checkpoint.monitor=val_los", "trainer.max_steps=10", status=2)
    assert "checkpoint.monitor=val_los: this run has no such metric. Did you mean 'val_loss'?" in run.output()
    assert not list((home.path / "runs" / "no-monitor").iterdir())


def test_weights_alone_start_a_new_run(home: Home) -> None:
    first = home.finish("name=first", "trainer.max_steps=20")
    second = home.finish("name=second", "trainer.max_steps=1", f"restore_from_path={first.folder}")
    scratch = home.finish("name=scratch", "trainer.max_steps=1")
    restored, fresh = (float(read_metrics(run.folder)[1]["reduced_train_loss"]) for run in (second, scratch))
    assert restored < fresh - 0.2


def test_weights_of_another_shape_are_refused_by_name(home: Home) -> None:
    first = home.finish("name=narrow", "trainer.max_steps=5")
    run = home.finish("name=wide", "model.hidden_size=32", f"restore_from_path={first.folder}", status=5)
    assert "linear_proj.weight [64, 64] instead of [32, 32]" in run.output()
    assert "Build the model with the parameters it was saved with" in run.output()
    assert "Traceback" not in run.output()


def test_a_warm_up_longer_than_the_run_is_said(home: Home) -> None:
    short = ("trainer.max_steps=2", "trainer.val_check_interval=2", "scheduler=cosine")
    run = home.finish("name=cold", *short, "scheduler.warmup_steps=30")
    assert (
        "scheduler.warmup_steps=30 is more than the 2 steps of this run: the learning rate only rises, to"
        in run.output()
    )
    assert "only rises" not in home.finish("name=warm", *short, "scheduler.warmup_steps=1").output()


def test_a_resume_says_what_changed_since_the_last_session_and_what_the_rate_does(home: Home) -> None:
    def lines(word: str, *arguments: str) -> list[str]:
        (home.path / "longer.log").unlink(missing_ok=True)  # a second run of a name is appended
        said = home.finish("name=longer", "trainer.val_check_interval=4", *arguments).output().splitlines()
        return [line.split(maxsplit=1)[1] for line in said if line.split()[:1] == [word]]

    plan = lines("rate", "trainer.max_steps=20")
    assert plan == ["adamw, cosine: 1.82e-04 at step 1, highest 2.00e-03 at step 11, 6.85e-05 at the end"]
    longer = ("trainer.max_steps=40", "resume=last")
    _, jump = lines("rate", *longer)
    assert jump.startswith("6.85e-05 at step 20, 1.51e-03 at step 21: the schedule ended at step 20 and now ends at")
    assert "The rate rises; to continue at 6.85e-05, add scheduler=constant optim.lr=6.85e-05." in jump
    # The run was started with 20 steps; the last session had 40.
    assert lines("changed", *longer) == []
    assert len(lines("rate", *longer)) == 1
    assert lines("changed", "trainer.max_steps=44", "resume=last") == ["trainer.max_steps: 40 -> 44"]


def test_a_stopped_resume_leaves_no_summary_of_the_session_before(home: Home) -> None:
    short = ("name=on", "trainer.val_check_interval=4")
    folder = home.finish(*short, "trainer.max_steps=8").folder
    assert json.loads((folder / "summary.json").read_text())["status"] == "done"
    more = (*short, "resume=last", "trainer.max_steps=100000")
    run = home.start(*more)
    assert run.wait_for(lambda run: run.last_step() >= 12)
    run.signal(signal.SIGTERM)
    assert run.wait() == 75, run.output()
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("stopped", run.checkpoints[-1])
    assert home.command("runs", "on").splitlines()[-1].split()[3] == str(run.checkpoints[-1])
    run = home.start(*more)
    stopped_at = summary["steps"]
    assert run.wait_for(lambda run: run.last_step() >= stopped_at + 4)
    run.kill()
    assert not (folder / "summary.json").exists()
    listed = home.command("runs", "on").splitlines()[-1]
    assert int(listed.split()[3]) > stopped_at and "unfinished, saved at step" in listed


def test_testing_after_training(home: Home) -> None:
    run = home.finish("name=tested", "trainer.max_steps=2", "do_testing=true", "trainer.val_check_interval=2")
    assert "test_loss" in (run.folder / "metrics.csv").read_text()
