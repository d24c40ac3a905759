import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from helios.errors import InputError
from helios.training.config import apply_overrides, differences, from_plain, keys_of, save_config, to_plain
from helios.training.corruption import NoCorruption, PerBatchCorruption, Stacked
from helios.training.optim import Constant, Cosine, OptimConfig
from helios.training.trainer import RunConfig


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A configuration with every kind of field."""

    optim: OptimConfig = OptimConfig()
    corruption: NoCorruption | Stacked | PerBatchCorruption = Stacked()
    parallel: Literal["replicated", "sharded"] = "replicated"
    limit: float | None = None
    data: Path | None = None
    shuffled: bool = True
    sizes: tuple[int, ...] = (1, 2, 1)
    run: RunConfig | None = None


def test_single_values_are_set_by_dotted_keys():
    settings = ["optim.lr=3e-5", "optim.betas=0,0.99", "sizes=1,1,1", "shuffled=no", "limit=2.5", "parallel=sharded"]
    phase = apply_overrides(Phase(), [*settings, "data=clips", "optim.schedule.warmup=10"])
    assert phase.optim.lr == 3e-5 and phase.optim.betas == (0.0, 0.99) and phase.optim.schedule.warmup == 10
    assert phase.sizes == (1, 1, 1) and phase.shuffled is False and phase.limit == 2.5
    assert phase.parallel == "sharded" and phase.data == Path("clips")
    assert apply_overrides(phase, ["limit=none"]).limit is None


def test_a_variant_is_chosen_by_name_or_with_its_settings():
    assert apply_overrides(Phase(), ["corruption=NoCorruption"]).corruption == NoCorruption()
    phase = apply_overrides(Phase(), ['optim.schedule={"type": "Cosine", "updates": 100}'])
    assert phase.optim.schedule == Cosine(updates=100)
    phase = apply_overrides(Phase(), ["corruption=PerBatchCorruption", "corruption.mode=noise"])
    assert phase.corruption == PerBatchCorruption(mode="noise")


def test_settings_that_depend_on_each_other_come_in_any_order():
    start = Phase(run=RunConfig(steps=1, batch_size=8))
    together = ["run.accumulate=3", "run.batch_size=6"]
    for settings in (together, together[::-1]):
        run = apply_overrides(start, settings).run
        assert (run.batch_size, run.accumulate) == (6, 3)
    with pytest.raises(InputError, match="batch_size=8 does not split into accumulate=3"):
        apply_overrides(start, together[:1])
    assert start.run.accumulate == 1


def test_a_contradiction_deep_inside_is_found():
    with pytest.raises(InputError, match="updates=3"):
        apply_overrides(Phase(), ["optim.schedule=Cosine", "optim.schedule.updates=3", "optim.schedule.warmup=5"])


@pytest.mark.parametrize(
    "setting, message",
    [
        ("optim.lrr=1", r"'optim.lrr' is not a setting: did you mean 'lr'\?"),
        ("lr=1", r"did you mean 'optim.lr'\?"),
        ("optim.lr.x=1", "goes deeper"),
        ("zzzzzz=1", "there are optim, corruption"),
        ("optim.lr", "has no '='"),
        ("optim.lr=fast", "optim.lr='fast' is no number"),
        ("optim.lr=-1", "must be above 0"),
        ("optim.betas=1", "has 1 entries: it takes 2"),
        ("shuffled=perhaps", "is not a yes or no"),
        ("parallel=share", "is not a choice: use replicated or sharded"),
        ("run=RunConfig", "needs its own settings"),
        ("corruption=NoCorrupt", "use NoCorruption"),
        ('optim.schedule={"type": "Cosine", "updates": 0}', "warmup=0 must be less"),
        ("sizes=[1,", "is not valid JSON"),
        ("sizes=1,b", "sizes='b' is no whole number"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_way_out(setting, message):
    with pytest.raises(InputError, match=message):
        apply_overrides(Phase(), [setting])


def test_the_plain_form_comes_back_as_it_was(tmp_path):
    phase = apply_overrides(Phase(), ['optim.schedule={"type": "Cosine", "updates": 9}', "data=x", "limit=1"])
    save_config(phase, tmp_path / "run" / "config.json")
    plain = json.loads((tmp_path / "run" / "config.json").read_text())
    assert from_plain(Phase, plain) == phase
    assert plain["corruption"]["parts"][0]["type"] == "PerBatchCorruption"
    assert from_plain(RunConfig, to_plain(RunConfig(steps=3))) == RunConfig(steps=3)


@pytest.mark.parametrize(
    "plain, message",
    [
        ({"optim": {"lrate": 1}}, r"config.optim.lrate is not a setting: did you mean"),
        ({"corruption": {"type": "Rain"}}, "is not a variant: use NoCorruption or"),
        ({"run": {"batch_size": 4}}, "config.run is not complete"),
        ({"sizes": 3}, "is not a list"),
        ({"optim": 3}, "is not a group of settings"),
        ({"shuffled": 1}, "is no yes or no"),
        ({"sizes": [1.5]}, "is no whole number"),
    ],
)
def test_a_damaged_plain_form_is_refused(plain, message):
    with pytest.raises(InputError, match=message):
        from_plain(Phase, plain)


def test_differences_name_dotted_keys():
    before = to_plain(Phase())
    after = to_plain(apply_overrides(Phase(), ["optim.lr=1", "limit=2"]))
    assert differences(before, after) == {"optim.lr": (1e-4, 1.0), "limit": (None, 2.0)}
    assert "optim.schedule.warmup" in keys_of(Phase())
    assert Constant().factor(0, 1) == 1.0
