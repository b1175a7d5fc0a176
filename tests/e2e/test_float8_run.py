"""`trainer.precision=fp8-mixed`, emulated on a CPU: it trains, says so, and goes on with the same bits."""

from runs import Home, assert_same_metrics, read_metrics

SIX = ("trainer.max_steps=6", "checkpoint.every_n_steps=3", "trainer.precision=fp8-mixed")


def test_a_run_in_float8_trains_and_resumes(home: Home) -> None:
    whole = home.finish("name=fp8", *SIX)
    assert "precision fp8-mixed (rowwise, emulated)" in whole.output()
    half = home.finish("name=fp8-bf16", *SIX, "trainer.precision=bf16-mixed")
    losses, wanted = (
        [float(row["reduced_train_loss"]) for row in read_metrics(run.folder).values()] for run in (whole, half)
    )
    differences = [abs(a - b) / b for a, b in zip(losses, wanted, strict=True)]
    assert len(differences) == 6
    assert 0 < max(differences) < 0.02
    home.finish("name=fp8-part", *SIX, "trainer.max_steps=3")
    assert_same_metrics(home.finish("name=fp8-part", *SIX, "resume=last").folder, whole.folder)
