"""The generation loop: every unknown token once, in its order, a function of its own seed."""

import math

import pytest
import torch

from djepa.generate import GenerationCancelled, Sampling, Schedule, generate, guidance_at, keyed_noise
from djepa.heads.flow import FlowHead
from djepa.losses import training_losses
from djepa.masking import Subset, cosine_ratio
from djepa.order import RandomOrder, RasterOrder, hidden_after, hide_last
from djepa.random import Draws, seeded
from djepa.tokens import TokenBatch, Tokens

BOUNDS = {3: (torch.full((3,), -3.0), torch.full((3,), 3.0)), 2: (torch.full((2,), -3.0), torch.full((2,), 3.0))}


class Job:
    """A generation with everything it takes, of which single samples can be taken out."""

    def __init__(self, model, batch, unknown, seeds, labels=None, order=None):
        self.model, self.batch, self.unknown, self.seeds, self.labels = model, batch, unknown, torch.tensor(seeds), labels
        self.order = order or RandomOrder()

    def only(self, row):
        batch = {name: TokenBatch.stack([tokens[row]]) for name, tokens in self.batch.items()}
        unknown = {name: mask[row : row + 1, : batch[name].values.shape[1]] for name, mask in self.unknown.items()}
        return Job(self.model, batch, unknown, self.seeds[row : row + 1].tolist(), self.labels and self.labels[row : row + 1],
                   self.order)

    def schedules(self, num_steps):
        return {name: Schedule.plan(self.order.permutations(Draws(0, "order", name), self.seeds, tokens.coords, ("y", "x")),
                                    self.unknown[name], num_steps) for name, tokens in self.batch.items()}

    def run(self, sampling, *, guided=True, noise=None, on_step=None):
        rows = len(self.seeds)
        condition = self.model.condition({"label": torch.tensor(self.labels)} if self.labels else {}, rows)
        null = self.model.condition({"label": torch.full((rows,), 3)}, rows) if self.labels and guided else None
        bounds = {name: BOUNDS[tokens.values.shape[2]] for name, tokens in self.batch.items()}
        return generate(self.model, self.batch, self.schedules(sampling.num_steps), condition, null, sampling,
                        noise or keyed_noise(self.seeds, torch.device("cpu")), bounds, on_step)


@pytest.fixture
def job(small_model, token_batch):
    """Four samples of two streams, of different lengths, with different parts unknown."""
    return make_job(small_model, token_batch, "gaussian")


def make_job(small_model, token_batch, head, classes=3):
    model = small_model({"a": 3, "b": 2}, head=head, num_tokens=None, classes=classes)
    batch = {"a": token_batch(3, [5, 8, 1, 7]), "b": token_batch(2, [4, 2, 6, 3], seed=1)}
    generator = torch.Generator().manual_seed(0)
    unknown = {name: tokens.valid & (torch.rand(tokens.valid.shape, generator=generator) < 0.7)
               for name, tokens in batch.items()}
    unknown["a"][0], unknown["b"][1] = batch["a"].valid[0], False  # one sample all unknown, one all known
    return Job(model, batch, unknown, [5, 9, 2**50, 7], [0, 1, 2, 0] if classes else None)


SAMPLING = Sampling(num_steps=4, num_denoising_steps=5, temperature=0.9, guidance_scale=2.5)


@pytest.mark.parametrize("head", ["gaussian", "flow"])
@pytest.mark.parametrize("schedule", ["linear", "constant", "interval"])
def test_a_seed_gives_the_same_sample_alone_and_among_others(small_model, token_batch, head, schedule):
    job = make_job(small_model, token_batch, head)
    sampling = Sampling(4, 5, 0.9, 2.5, schedule, (0.2, 0.7))
    together = job.run(sampling)
    for row in range(4):
        alone = job.only(row).run(sampling)
        for name, tokens in together.items():
            torch.testing.assert_close(tokens[row].values, alone[name].values[0], atol=1e-4, rtol=0)


def test_unconditional_models_generate_the_same_alone_too(small_model, token_batch):
    job = make_job(small_model, token_batch, "flow", classes=0)
    together = job.run(SAMPLING)
    for row in range(4):
        torch.testing.assert_close(together["a"][row].values, job.only(row).run(SAMPLING)["a"].values[0], atol=1e-4, rtol=0)


def test_seeds_and_conditions_make_the_difference(job):
    first, again = job.run(SAMPLING), job.run(SAMPLING)
    assert torch.equal(first["a"].values, again["a"].values)
    job.seeds = job.seeds + 1
    other = job.run(SAMPLING)
    assert not torch.isclose(first["a"].values, other["a"].values)[job.unknown["a"]].all(dim=-1).any()
    job.seeds, job.labels = job.seeds - 1, [1, 1, 2, 0]
    other = job.run(SAMPLING)
    changed = (first["a"].values != other["a"].values).any(dim=-1)
    assert changed[0][job.unknown["a"][0]].all() and not changed[1:].any()


class Recorded:
    """The noise in use, and which tokens it was asked for."""

    def __init__(self, seeds):
        self.source, self.asked = keyed_noise(seeds, torch.device("cpu")), []

    def __call__(self, stream, step, revealed, num_tokens):
        places = [divmod(index, num_tokens) for index in revealed.index.tolist()]
        self.asked += [(stream, step, row, item) for row, item in places]
        return self.source(stream, step, revealed, num_tokens)


@pytest.mark.parametrize("num_steps", [1, 3, 6, 20])
def test_every_unknown_token_is_generated_exactly_once_in_its_order(job, num_steps):
    noise = Recorded(job.seeds)
    job.run(Sampling(num_steps, 2), noise=noise)
    for name, mask in job.unknown.items():
        asked = [(row, item) for stream, _, row, item in noise.asked if stream == name]
        assert sorted(asked) == [tuple(place) for place in mask.nonzero().tolist()]
        tokens = job.batch[name]
        orders = job.order.permutations(Draws(0, "order", name), job.seeds, tokens.coords, ("y", "x")).tolist()
        for row, order in enumerate(orders):
            walked = [item for item in order if mask[row, item]]
            hidden = [len(walked), *hidden_after(len(walked), num_steps)]
            for step in range(num_steps):
                revealed = {item for stream, when, who, item in noise.asked if (stream, when, who) == (name, step, row)}
                gone = len(walked) - hidden[step]
                assert revealed == set(walked[gone : gone + hidden[step] - hidden[step + 1]])


def test_known_tokens_are_untouched_and_unknown_values_ignored(job):
    plain = job.run(SAMPLING)
    for name, tokens in job.batch.items():
        known = ~job.unknown[name]
        assert torch.equal(plain[name].values[known], tokens.values[known])
        assert torch.equal(plain[name].coords, tokens.coords) and torch.equal(plain[name].valid, tokens.valid)
        assert not torch.isclose(plain[name].values, tokens.values)[job.unknown[name]].all(dim=-1).any()
        tokens.values[job.unknown[name]] = float("nan")
    again = job.run(SAMPLING)
    assert all(torch.equal(again[name].values, plain[name].values) for name in plain)


def test_noise_belongs_to_seed_stream_and_place():
    source, everything = keyed_noise(torch.tensor([3, 8]), torch.device("cpu")), Subset.of(torch.ones(2, 4, dtype=torch.bool))
    some = Subset.of(torch.tensor([[False, True, False, True], [True, True, False, False]]))
    noise = source("a", 0, everything, 4).normal("start", 1, 2)[0]
    assert len({tuple(row) for row in noise.tolist()}) == 8
    assert torch.equal(source("a", 5, some, 4).normal("start", 1, 2)[0], noise[some.index])
    assert not torch.isclose(source("b", 0, everything, 4).normal("start", 1, 2)[0], noise).all(dim=1).any()


def test_nothing_unknown_is_nothing_to_do(job):
    job.unknown = {name: torch.zeros_like(mask) for name, mask in job.unknown.items()}
    done = job.run(SAMPLING)
    assert all(torch.equal(done[name].values, job.batch[name].values) for name in done)


# What a caller is told

def test_callbacks_come_after_every_step_with_the_tokens_so_far(job):
    steps = []
    done = job.run(Sampling(6, 2), on_step=lambda step: steps.append(step))
    assert [(step.step, step.num_steps) for step in steps] == [(number, 6) for number in range(1, 7)]
    for name, unknown in job.unknown.items():
        hidden = unknown
        for step in steps:
            assert not (step.hidden[name] & ~hidden).any()  # what is revealed stays revealed
            hidden, values = step.hidden[name], step.batch[name].values
            assert (values[hidden] == 0).all()
            assert torch.equal(values[~hidden], done[name].values[~hidden])
        assert not hidden.any()


@pytest.mark.parametrize("step", [1, 3])
def test_a_callback_that_returns_false_cancels(job, step):
    seen = []
    with pytest.raises(GenerationCancelled, match=f"after step {step} of 4"):
        job.run(SAMPLING, on_step=lambda told: seen.append(told.step) or told.step != step)
    assert seen == list(range(1, step + 1))


def test_a_callback_that_returns_nothing_goes_on(job):
    quiet, told = job.run(SAMPLING), job.run(SAMPLING, on_step=lambda step: None)
    assert torch.equal(quiet["b"].values, told["b"].values)


# Guidance

class Told(FlowHead):
    """The flow head, which remembers the scale it was told at head time 0.5."""

    def sample(self, z, z_null, noise, *, guidance, **options):
        self.scales = [*getattr(self, "scales", []), guidance(0.5)]
        return super().sample(z, z_null, noise, guidance=guidance, **options)


def told_scales(small_model, token_batch, lengths, sampling):
    model = small_model({"a": 3}, num_tokens=None)
    with seeded(0, "head"):
        model.streams["a"].head = Told(3, 24, depth=1, width=8)
    batch = {"a": token_batch(3, lengths)}
    Job(model, batch, {"a": batch["a"].valid}, list(range(len(lengths))), [0] * len(lengths)).run(sampling)
    return model.streams["a"].head.scales


@pytest.mark.parametrize(("num_tokens", "num_steps", "w"), [(8, 4, 3.0), (8, 8, 2.0), (5, 1, 4.0), (3, 3, 0.5)])
def test_linear_guidance_grows_with_the_share_of_known_tokens(small_model, token_batch, num_tokens, num_steps, w):
    scales = told_scales(small_model, token_batch, [num_tokens] * 2, Sampling(num_steps, 2, guidance_scale=w))
    following = [max(hidden, 1) for hidden in hidden_after(num_tokens, num_steps)]  # the last step counts as one hidden
    assert scales == pytest.approx([1 + (w - 1) * (num_tokens - hidden) / num_tokens for hidden in following])


def test_linear_guidance_is_each_samples_own(small_model, token_batch):
    scales = told_scales(small_model, token_batch, [6, 3], Sampling(3, 2, guidance_scale=3.0))
    for step, told in enumerate(scales):
        wanted = []
        for total in (6, 3):
            hidden = [total, *hidden_after(total, 3)]
            wanted += [1 + 2 * (total - max(hidden[step + 1], 1)) / total] * (hidden[step] - hidden[step + 1])
        assert told.flatten().tolist() == pytest.approx(wanted)


def test_constant_guidance(small_model, token_batch):
    assert told_scales(small_model, token_batch, [6], Sampling(3, 2, 1.0, 2.5, "constant")) == [2.5] * 3


def test_interval_guidance_is_on_inside_its_interval_of_head_time():
    sampling = Sampling(3, 2, 1.0, 2.5, "interval", (0.25, 0.75))
    guidance = guidance_at(sampling, torch.tensor([0.5]), Subset.of(torch.ones(1, 4, dtype=torch.bool)))
    assert [guidance(time) for time in (0.0, 0.2, 0.25, 0.5, 0.75, 0.8, 1.0)] == [1.0, 1.0, 2.5, 2.5, 2.5, 1.0, 1.0]


def test_guidance_of_one_is_no_guidance(job):
    for schedule in ("linear", "constant", "interval"):
        sampling = Sampling(4, 5, 0.9, 1.0, schedule)
        guided, free = job.run(sampling), job.run(sampling, guided=False)
        torch.testing.assert_close(guided["a"].values, free["a"].values, atol=1e-4, rtol=0)
    strong = job.run(SAMPLING)
    assert not torch.isclose(strong["a"].values, free["a"].values)[job.unknown["a"]].all(dim=-1).all()


# Schedules

def test_a_plan_counts_down_sample_by_sample():
    unknown = torch.tensor([[True] * 4, [True, False, False, True], [False] * 4])
    order = RasterOrder().permutations(Draws(0), torch.arange(3), torch.zeros(3, 4, 1), ("x",))
    schedule = Schedule.plan(order, unknown, 4)
    assert schedule.rank.tolist() == [[0, 1, 2, 3], [0, -1, -1, 1], [-1] * 4]
    assert schedule.hidden.T.tolist() == [[4, 3, 2, 1, 0], [2, 1, 1, 1, 0], [0, 0, 0, 0, 0]]
    shown = [schedule.still_hidden(step).int().tolist() for step in range(5)]
    assert [step[0] for step in shown] == [[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert [step[1] for step in shown] == [[1, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert [step[2] for step in shown] == [[0, 0, 0, 0]] * 5
    assert schedule.progress(3).tolist() == [0.75, 0.5, 0.0]


# A model of two streams, from training to generation

def test_two_streams_learn_together_and_one_follows_the_other(small_model):
    """Tokens of the two streams have opposite signs; knowing one tells the other."""
    model = small_model({"a": 3, "b": 2}, head="flow", classes=0, num_tokens=2, feature_head=False, jitter=0.0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
    draws, totals = Draws(0, "training"), []
    for step in range(100):
        samples = torch.arange(24) + 24 * step
        batch = signed_batch(samples)
        u = float(draws.uniform(torch.tensor(step), 0, 1))
        hidden = {name: hide_last(draws.within(name).permutations(samples, 2), batch[name].valid,
                                  torch.full((24,), math.ceil(2 * cosine_ratio(u)))) for name in batch}
        if step % 3:
            hidden["a" if step % 3 == 1 else "b"].zero_()  # one of them given whole
        sums = training_losses(model, None, batch, hidden, {}, torch.zeros(24, dtype=torch.bool), samples, draws)
        loss = sum(stream.parts["mse"] / stream.count for stream in sums.values()) / len(sums)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(float(loss.detach()))
    assert sum(totals[-20:]) < 0.7 * sum(totals[:20])

    given = signed_batch(torch.arange(40))
    for known, other in (("a", "b"), ("b", "a")):
        unknown = {known: torch.zeros(40, 2, dtype=torch.bool), other: torch.ones(40, 2, dtype=torch.bool)}
        done = Job(model.eval(), given, unknown, list(range(40))).run(Sampling(2, 10))
        assert torch.equal(done[known].values, given[known].values)
        agree = done[other].values.sign() == given[other].values.sign()
        assert float(agree.float().mean()) > 0.9


def signed_batch(samples):
    """Two tokens in each stream, near +1 in one and -1 in the other."""
    draws = Draws(0, "data")
    sign = (draws.uniform(samples, 0, 1) < 0.5).float()[..., None] * 2 - 1
    batch = {}
    for name, width, side in (("a", 3, 1), ("b", 2, -1)):
        values = side * sign + 0.1 * draws.within(name).normal(samples[:, None], torch.arange(2), width)
        batch[name] = TokenBatch.stack([Tokens(tokens, torch.zeros(2, 2)) for tokens in values])
    return batch
