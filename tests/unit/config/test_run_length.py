"""Defaults fit the run: a recipe keeps its phases where there is room, and a short run still learns."""

import pytest

from bionemo_core.builtin import load_registry
from bionemo_core.config.run_length import fit_to_run

V1 = {
    # v1's own length of the run, and the phases of its recipe.
    "esm1nv": (1_000_000, {"warmup_steps": 500, "constant_steps": 50_000}),
    "esm2_8m": (500_000, {"warmup_steps": 2000, "hold_steps": 0}),
    "prott5nv": (1_000_000, {"warmup_steps": 10_000}),
    "megamolbart": (2_000_000, {"warmup_steps": 8000}),
    "molmim": (425_000, {"warmup_steps": 4250, "constant_steps": 21_250}),
}


def _models() -> list[str]:
    """One model for each recipe that is installed."""
    recipes: dict[str, str] = {}
    for one in load_registry().components("model"):
        recipe = one.component.defaults.get("optim"), one.component.defaults.get("scheduler")
        if one.distribution != "bionemo-run":
            recipes.setdefault(str(recipe), one.name)
    return list(recipes.values())


def rates_of(registry, spec) -> list[float]:
    optim, schedule = registry.build(spec.optim), registry.build(spec.scheduler)
    return [
        schedule(step, base_lr=optim.lr, max_steps=spec.trainer.max_steps) for step in range(spec.trainer.max_steps)
    ]


@pytest.mark.parametrize("model", sorted(V1.keys() & set(_models())))
def test_a_run_as_long_as_v1s_has_v1s_schedule(spec_of, model: str):
    max_steps, phases = V1[model]
    params = spec_of(f"model={model}", f"trainer.max_steps={max_steps}").scheduler.params
    assert {key: params[key] for key in phases} == phases


@pytest.mark.parametrize("model", _models())
@pytest.mark.parametrize("max_steps", [100, 10_000])
def test_a_short_run_learns_at_the_rate_of_its_recipe(spec_of, registry, model: str, max_steps: int):
    spec = spec_of(f"model={model}", f"trainer.max_steps={max_steps}")
    rates = rates_of(registry, spec)
    optim, recipe = registry.build(spec.optim), registry.build(spec.scheduler)
    warmup = getattr(recipe, "peak_steps", None)
    highest = optim.lr if warmup is None else optim.lr * recipe.d_model**-0.5 * warmup**-0.5
    assert max(rates) == pytest.approx(highest, rel=0.02)
    assert sum(rates) / len(rates) > 0.18 * highest


@pytest.mark.parametrize("name", ["cosine", "inverse_square_root", "warmup_annealing", "warmup_anneal_hold"])
def test_a_schedule_without_a_recipe_fits_too(spec_of, registry, name: str):
    rates = rates_of(registry, spec_of(f"model={_models()[0]}", f"scheduler={name}", "trainer.max_steps=100"))
    assert sum(rates) / len(rates) > 0.4 * max(rates)


def test_what_the_user_gives_is_never_changed(spec_of):
    given = ("scheduler=cosine", "scheduler.warmup_steps=600", "scheduler.constant_steps=700", "trainer.max_steps=100")
    params = spec_of(f"model={_models()[0]}", *given).scheduler.params
    assert (params["warmup_steps"], params["constant_steps"]) == (600, 700)


@pytest.mark.parametrize(("given", "warmup", "peak"), [((), 10, 8000), (("scheduler.warmup_steps=300",), 300, None)])
def test_nothing_but_the_default_warm_up_of_noam_keeps_the_recipes_peak(spec_of, given, warmup: int, peak: int | None):
    noam = ("scheduler=noam", "scheduler.d_model=64", "trainer.max_steps=100")
    params = spec_of(f"model={_models()[0]}", *noam, *given).scheduler.params
    assert (params["warmup_steps"], params["peak_steps"]) == (warmup, peak)


def test_a_phase_is_at_most_a_tenth_and_at_least_one_step():
    assert [fit_to_run(500, steps) for steps in (1, 9, 10, 100, 5000, 10**6)] == [1, 1, 1, 10, 500, 500]
    assert fit_to_run(0, 100) == 0
