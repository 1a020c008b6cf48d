"""Every mistake in a configuration is one line that names key and value, before anything heavy is imported."""

import subprocess
import sys

import pytest
import yaml

from poc import tasks
from poc.config import DOMAIN_LEVELS, REWARDS, PilotConfig, RunConfig
from poc.configfile import kind_of, load
from poc.records import InputError

WRONG = [  # kind, overrides, what the line must say
    (RunConfig, ["train.stepz=3"], "unknown key 'train.stepz'; did you mean 'steps'?"),
    (RunConfig, ["modle=lab:base"], "unknown key 'modle'; did you mean 'model'?"),
    (RunConfig, ["models={}"], "run it with poc pilot"),
    (PilotConfig, ["model=lab:base"], "did you mean 'models'?"),
    (RunConfig, ["train.steps=many"], "train.steps = 'many'"),
    (RunConfig, ["train.steps=0"], "train.steps = 0"),
    (RunConfig, ["train.steps=2.5"], "train.steps = 2.5"),
    (RunConfig, ["train.steps=true"], "train.steps = True"),
    (RunConfig, ["train.steps="], "train.steps = None"),
    (RunConfig, ["train.group_size=1"], "train.group_size = 1"),
    (RunConfig, ["train.temperature=0"], "train.temperature = 0"),
    (RunConfig, ["train.temperature=.nan"], "train.temperature = nan"),
    (RunConfig, ["train.learning_rate=-1e-5"], "train.learning_rate"),
    (RunConfig, ["train.learning_rate=fast"], "train.learning_rate = 'fast'"),
    (RunConfig, ["train.clip=1.0"], "train.clip = 1.0"),
    (RunConfig, ["train.seed=-1"], "train.seed = -1"),
    (RunConfig, ["train.seed=99999999999999999999"], "train.seed"),
    (RunConfig, ["train.steps=1000000000000"], "train.steps"),
    (RunConfig, ["data.train=100000000"], "data.train"),
    (RunConfig, ["model=2026-99-99"], "cannot be read"),
    (RunConfig, ["seeds=[1]"], "belongs to a pilot"),
    (PilotConfig, ["train.seed=5"], "from seeds"),
    (RunConfig, ["train=3"], "train = 3"),
    (RunConfig, ["train.steps=1", "train.steps.x=3"], "steps is not a section"),
    (RunConfig, ["reward={self_certanty: 1.0}"], "unknown reward 'self_certanty'; did you mean 'self_certainty'?"),
    (RunConfig, ["reward={verifiable: 0.0}"], "all weights are 0"),
    (RunConfig, ["reward={}"], "reward = {}"),
    (RunConfig, ["reward=verifiable"], "reward = 'verifiable'"),
    (RunConfig, ["reward.verifiable=much"], "'much'"),
    (RunConfig, ["reward={semantic_entrpy: 1.0}"], "did you mean 'semantic_entropy'?"),
    (RunConfig, ["schedule={self_certainty: {shape: quadratic}}"], "schedule.self_certainty.shape = 'quadratic'"),
    (RunConfig, ["schedule={self_certainty: {shap: linear}}"], "'schedule.self_certainty.shap'; did you mean 'shape'?"),
    (RunConfig, ["schedule={self_certainty:{to:1}}"], "a colon needs a space after it"),
    (RunConfig, ["semantic={hihg: 0.5}"], "unknown key 'semantic.hihg'; did you mean 'high'?"),
    (RunConfig, ["switch={stp: 5, then: stop}"], "unknown key 'switch.stp'; did you mean 'step'?"),
    (
        PilotConfig,
        ["arms=[{model: base, reward: {random: 1}, semantic: {lo: 0}}]"],
        "'arms.0.semantic.lo'; did you mean",
    ),
    (RunConfig, ["schedule={self_certanty: {}}"], "unknown reward 'self_certanty'; did you mean 'self_certainty'?"),
    (RunConfig, ["schedule={verifiable: {to: 1.0}}"], "schedule.verifiable: not in reward"),
    (RunConfig, ["schedule={self_certainty: {over: 0}}"], "schedule.self_certainty.over = 0"),
    (RunConfig, ["reward={random: 0.0}", "schedule={random: {to: 0.0}}"], "all weights are 0"),
    (RunConfig, ["switch={}"], "this switch would never happen"),
    (RunConfig, ["switch={step: 3, then: stop}", "reward={random: 1, verifiable: 1}"], "would never speak"),
    (RunConfig, ["reward={random: 0.0}", "schedule={random: {shape: constant, to: 1.0}}"], "all weights are 0"),
    (RunConfig, ["reward={random: 1.0}", "schedule={random: {to: 0.0, over: 1}}"], "all weights are 0"),
    (
        RunConfig,
        ["motivation.condition=full", "reward={verifiable: 1}", "schedule={verifiable: {to: 0.5}}"],
        "cannot follow",
    ),
    (RunConfig, ["motivation.condition=full", "reward={random: 1, verifiable: 0}"], "no reward here has rules"),
    (RunConfig, ["semantic={low: null, high: 0, unit: nats}"], "high = 0: entropy is never below that"),
    (RunConfig, ["reward={random: 1e9}"], "reward.random = '1e9'"),
    (
        RunConfig,
        ["reward={semantic_entropy: 1}", "semantic={low: 3, high: 5, unit: nats}"],
        "semantic.low = 3 nats: groups of 8 have at most 2.08",
    ),
    (RunConfig, ["motivation.condition=score_only", "reward={format: 1}"], "add one of verifiable, knights_knaves"),
    (RunConfig, ["switch={entropy: 0.5}"], "no reward here uses labels: add verifiable, or set stop"),
    (RunConfig, ["switch={entropy: 0.5}", "reward={verifiable: 1}"], "add one, for example self_certainty"),
    (RunConfig, ["switch={step: 5, then: give_up}"], "switch.then = 'give_up'"),
    (RunConfig, ["label_fraction=0.1"], "label_fraction = 0.1: no reward here uses labels: add verifiable"),
    (RunConfig, ["label_fraction=1.5", "reward={verifiable: 1}"], "label_fraction = 1.5"),
    (RunConfig, ["semantic={low: 0.7, high: 0.3}"], "semantic.low = 0.7 and high = 0.3 are crossed"),
    (RunConfig, ["semantic={low: 0.5, high: 0.5}"], "are crossed"),
    (RunConfig, ["semantic={high: 1.4}"], "a share lies in 0 to 1; set unit to nats"),
    (RunConfig, ["semantic.cluster=entailment"], "set semantic.judge to policy, or to an NLI model"),
    (RunConfig, ["semantic.judge=policy"], "is used by cluster: entailment only"),
    (RunConfig, ["semantic.cluster=exakt"], "semantic.cluster = 'exakt'"),
    (RunConfig, ["motivation.condition=full"], "no reward here has rules to write into the prompt"),
    (RunConfig, ["motivation.condition=fool", "reward={verifiable: 1}"], "motivation.condition = 'fool'"),
    (RunConfig, ["motivation.evaluate=true"], "motivation.evaluate: there are no rules to measure with"),
    (RunConfig, ["reward={knights_knaves: 1}"], "set data.domain to logic"),
    (RunConfig, ["data.levels=[0, 9]"], "levels: math has levels 0 to 5, got 9"),
    (RunConfig, ["data.levels=[0, 0]"], "levels: level 0 is named twice"),
    (RunConfig, ["data.ood_levels=[0]"], "ood_levels: level 0 is named twice"),
    (RunConfig, ["data.file=a.csv", "data.levels=[1]"], "for the kit's own questions"),
    (RunConfig, ["data.domain=maths"], "did you mean 'math'?"),
    (RunConfig, ["data.level=9"], "math has levels 0 to 5, got 9"),
    (RunConfig, ["data.level=-1"], "data.level = -1"),
    (RunConfig, ["data.holdout=1"], "data.holdout = 1"),
    (RunConfig, ["data.file=a.csv", "data.dataset=b"], "keep one"),
    (RunConfig, ["quantization=int4"], "quantization = 'int4'"),
    (RunConfig, ["prompt.format=chatml"], "prompt.format = 'chatml'"),
    (RunConfig, ["length_norm=max"], "length_norm = 'max'"),
    (RunConfig, ["lora.rank=0"], "lora.rank = 0"),
    (RunConfig, ["evaluate.every=0"], "evaluate.every = 0"),
    (RunConfig, ["evaluate.samples=-3"], "evaluate.samples = -3"),
    (PilotConfig, ["seeds=[]"], "seeds = []"),
    (PilotConfig, ["seeds=[a]"], "'a'"),
    (PilotConfig, ["seeds=[1, 1]"], "seeds"),
    (PilotConfig, ["seeds=[-1]"], "-1"),
    (PilotConfig, ["arms=[]"], "arms = []"),
    (PilotConfig, ["arms=[{model: bass, reward: {random: 1}}]"], "did you mean 'base'?"),
    (PilotConfig, ["arms=[{model: base, reward: {rnd: 1}}]"], "unknown reward 'rnd'"),
    (PilotConfig, ["arms=[{model: base, reward: {random: 1}, label_fraction: 0.5}]"], "arms.0.label_fraction = 0.5"),
    (PilotConfig, ["arms=[{model: base, reward: {random: 1}, motivation: {condition: full}}]"], "has rules"),
    (PilotConfig, ["motivation.condition=full"], "no reward here has rules"),
    (PilotConfig, ["arms=[{modl: base, reward: {random: 1}}]"], "did you mean 'model'?"),
    (PilotConfig, ["arms=[{model: base, reward: {random: 1}, name: ../x}]"], "../x"),
    (PilotConfig, ["arms=[{model: base, reward: {random: 1}}, {model: base, reward: {random: 2}}]"], "name them"),
    (RunConfig, ["steps"], "must read key.path=value"),
    (RunConfig, ["=3"], "must read key.path=value"),
    (RunConfig, ["train.steps=[1"], "cannot be read"),
]


@pytest.mark.parametrize("kind, overrides, says", WRONG, ids=[" ".join(o) for _, o, _ in WRONG])
def test_wrong_values_are_one_line(kind, overrides, says):
    with pytest.raises(InputError) as error:
        load(kind, None, overrides)
    assert "\n" not in str(error.value)
    assert says in str(error.value)


def leaves(tree, path=()):
    for key, value in tree.items():
        yield (*path, key)
        if isinstance(value, dict) and value and key not in ("reward", "models"):
            yield from leaves(value, (*path, key))


@pytest.mark.parametrize("kind", [RunConfig, PilotConfig])
def test_every_key_misspelt_or_twice_is_refused(kind, tmp_path):
    tree = yaml.safe_load(yaml.safe_dump(kind().model_dump()))
    paths = list(leaves(tree))
    assert len(paths) > 35
    for path in paths:
        wrong = yaml.safe_load(yaml.safe_dump(tree))
        section = wrong
        for key in path[:-1]:
            section = section[key]
        section[path[-1] + "x"] = section.pop(path[-1])
        file = tmp_path / "typo.yaml"
        file.write_text(yaml.safe_dump(wrong))
        with pytest.raises(InputError, match=f"{path[-1]}x"):
            load(kind, str(file))
    file.write_text("train: {steps: 1}\ntrain: {steps: 2}\n")
    with pytest.raises(InputError, match="'train' is given twice"):
        load(kind, str(file))


def test_a_saved_configuration_loads_to_the_same(tmp_path):
    config = load(RunConfig, None, ["train.learning_rate=1e-4", "reward={random: 1}", "data.level=2"], seed=3)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(), sort_keys=False))
    assert load(RunConfig, str(tmp_path / "config.yaml")) == config
    assert config.train.learning_rate == 1e-4 and config.train.seed == 3


@pytest.mark.parametrize(
    "text", ["[1, 2]", "just words", "a: &x [1]\nb: *x", "a: [1", "\x00", "a: !!python/name:os.system x"]
)
def test_files_that_are_no_configuration(text, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match="c.yaml"):
        load(RunConfig, str(tmp_path / "c.yaml"))


def test_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "pilot.yaml").write_text("{}")
    with pytest.raises(InputError, match="pilot.yaml"):
        load(PilotConfig, str(tmp_path / "pilto.yaml"))


def test_shipped_configurations_load():
    assert load(PilotConfig, "lab") == PilotConfig()
    for name in ("gpu-8gb", "gsm8k-cpu", "rewards", "empo", "merf"):
        assert load(PilotConfig, name).models


def test_mixed_starts_take_the_first_arms_reward():
    mixed = load(PilotConfig, None, []).mixed([0.0, 0.25, 1.0])
    assert mixed.models["mix-0.25"] == "mix:lab:base+lab:instruct@0.25"
    assert [arm.label for arm in mixed.arms] == [f"mix-{m}-self_certainty" for m in ("0", "0.25", "1")]
    assert PilotConfig.model_validate(mixed.model_dump()) == mixed
    with pytest.raises(ValueError, match="1.5 is not a share"):
        load(PilotConfig, None, []).mixed([0.0, 1.5])
    with pytest.raises(ValueError, match="needs two"):
        load(PilotConfig, "rewards").mixed([0.0])
    with pytest.raises(ValueError, match="twice"):
        load(PilotConfig, None).mixed([0.1234567, 0.1234568])
    with pytest.raises(ValueError, match="twice"):
        load(PilotConfig, None).mixed([0.1, 0.1])


def test_an_arm_has_what_the_pilot_has_unless_it_says_otherwise():
    config = load(PilotConfig, None, [
        "semantic.high=0.5", "arms=[{model: base, reward: {semantic_entropy: 1.0}}, {model: base, name: free, "
        "reward: {semantic_entropy: 1.0, verifiable: 1.0}, semantic: {high: null}, label_fraction: 0.1}]"
    ])  # fmt: skip
    plain, free = (config.run_config(arm, 3) for arm in config.arms)
    assert (plain.semantic.high, plain.label_fraction) == (0.5, None)
    assert (free.semantic.high, free.label_fraction, free.train.seed) == (None, 0.1, 3)


def test_an_arm_may_have_no_label_at_all():
    arms = "arms=[{model: base, reward: {random: 1.0, verifiable: 1.0}, label_fraction: 0.0}]"
    config = load(PilotConfig, None, [arms])
    assert config.run_config(config.arms[0], 0).label_fraction == 0.0


def test_which_kind_a_configuration_is(tmp_path):
    (tmp_path / "run.yaml").write_text("model: lab:base\n")
    assert kind_of(None, []) is kind_of("empo", []) is PilotConfig
    assert kind_of(str(tmp_path / "run.yaml"), []) is kind_of(None, ["reward={random: 1}"]) is RunConfig


def test_names_agree_with_the_code_they_stand_for():
    assert {name: len(domain.LEVELS) for name, domain in tasks.DOMAINS.items()} == DOMAIN_LEVELS
    code = "import sys, poc.config; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    from poc.rewards import REWARDS as functions

    assert tuple(functions) == REWARDS
