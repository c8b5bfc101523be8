"""Training to rest: rounds that double, the weights with the smallest loss, and when it ends."""

import dataclasses

import numpy as np
import pytest
import torch

from dimlib.apply import learning
from dimlib.apply.doubts import about_the_training
from dimlib.apply.learning import Learned, held_out_losses, learn
from dimlib.data import exact
from dimlib.data.manifolds import Sphere
from dimlib.networks import MLP
from dimlib.score import ScoreModel

SPHERE = Sphere(2, 6, seed=1)
X = SPHERE.sample(60, seed=1)
SIGMAS = (0.1, 0.2)


def make(seed=0):
    torch.manual_seed(seed)
    return ScoreModel.for_data(MLP(6, width=8, blocks=1), X, sigma_min=0.05)


@pytest.fixture
def told(monkeypatch):
    """Training and measuring are replaced: ``told(*rounds)`` gives the losses of each round, (levels, rows)."""
    def told(*rounds):
        done, waiting = [], iter(rounds)

        def train_steps(model, x, steps, *rest, **options):
            done.append(steps)
            torch.nn.init.constant_(model.net.linear.bias, len(done))      # the number of the round
            return iter(())

        monkeypatch.setattr(learning, "train_steps", train_steps)
        monkeypatch.setattr(learning, "held_out_losses", lambda *_: np.asarray(next(waiting), float))
        return done
    return told


def same(value, other=None):
    """Losses of 50 rows at two noise levels, with noise of 17 % that the rows share from round to round."""
    noise = np.random.default_rng(0).normal(0, 0.17, 50)
    return np.array([value * (1 + noise), (value if other is None else other) * (1 + noise)])


def test_rounds_double_while_the_loss_falls_and_the_budget_is_kept(told):
    done = told(same(9), same(8), same(7), same(6))
    found = learn([make], X, X, SIGMAS, max_steps=1000)
    assert done == [100, 200, 400, 300] and found.tried == found.steps == 1000
    assert found.fall == pytest.approx([1, 1], rel=0.1)


def test_a_fall_of_a_few_percent_is_rest(told):
    done = told(same(9), same(8.9), same(1))
    found = learn([make], X, X, SIGMAS)
    assert done == [100, 200] and found.steps == 300 and not found.fall.any()


def test_a_loss_that_rests_and_then_falls_is_seen_with_min_steps(told):
    done = told(same(9), same(9), same(9), same(5), same(5))
    found = learn([make], X, X, SIGMAS, min_steps=1000)
    assert done == [100, 200, 400, 800, 1600] and found.steps == 3100 and found.loss == pytest.approx(same(5).mean(1))


def test_after_a_rise_min_steps_go_on(told):
    done = told(same(9), same(7), same(8), same(6))
    found = learn([make], X, X, SIGMAS, max_steps=1200, min_steps=1200)
    assert done == [100, 200, 400, 500] and (found.steps, found.tried) == (1200, 1200)


def test_one_level_that_falls_is_enough_to_go_on(told):
    done = told(same(9, 5), same(9, 4), same(9, 4))
    learn([make], X, X, SIGMAS)
    assert done == [100, 200, 400]


def test_a_fall_that_can_be_chance_is_rest(told):
    rows = np.random.default_rng(1).normal(9, 5, (2, 2, 10))               # a new noise in each round
    rows[1] -= rows[1].mean(1, keepdims=True) - rows[0].mean(1, keepdims=True) + 0.9
    done = told(*rows, same(1))
    learn([make], X, X, SIGMAS)
    assert done == [100, 200]


def test_a_loss_that_rises_ends_it_and_the_weights_of_before_are_kept(told):
    done = told(same(9), same(7), same(8))
    found = learn([make], X, X, SIGMAS)
    assert done == [100, 200, 400] and (found.steps, found.tried) == (300, 700) and not found.fall.any()
    assert found.model.net.linear.bias.unique().tolist() == [2] and found.loss == pytest.approx(same(7).mean(1))


def test_of_two_networks_the_better_one_goes_on_alone(told):
    done = told(same(9), same(8), same(7), same(9), same(5), same(4), same(4))
    found = learn([make, lambda: make(1)], X, X, SIGMAS)
    assert done == [100, 200, 400] * 2 + [800]
    assert found.steps == 1500 and found.model.net.linear.bias.unique().tolist() == [7]


@pytest.mark.parametrize("last, kept", [(7.6, 700), (7.8, 300)])
def test_of_rounds_within_a_tenth_of_the_smallest_loss_the_last_is_kept(told, last, kept):
    told(same(9), same(7), same(last))
    assert learn([make], X, X, SIGMAS).steps == kept


def test_levels_count_by_the_ratio_of_their_losses(told):
    """One at 100 falls by 1, one at 1 rises by a half: worse."""
    told(same(100, 1.0), same(99, 1.5))
    assert learn([make], X, X, SIGMAS, max_steps=300).steps == 100


def test_each_round_has_batches_of_its_own(monkeypatch):
    seeds = []
    monkeypatch.setattr(learning, "train_steps", lambda *args, seed, device: seeds.append(seed) or iter(()))
    falling = iter([same(9), same(8), same(7)])
    monkeypatch.setattr(learning, "held_out_losses", lambda *_: next(falling))
    learn([make], X, X, SIGMAS, max_steps=700, seed=5)
    assert len(set(seeds)) == 3


def test_the_held_out_loss_of_the_exact_denoiser_is_the_dimension():
    losses = held_out_losses(exact.denoiser(SPHERE), SPHERE.sample(4000, seed=3), [0.01, 0.02])
    assert losses.shape == (2, 4000) and losses.mean(1) == pytest.approx([2, 2], abs=0.15)


def test_the_held_out_loss_has_the_same_noise_each_time():
    first, again, other = (held_out_losses(make(), X, SIGMAS, seed) for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).all()


def test_a_sphere_is_learned():
    held = SPHERE.sample(100, seed=2)
    found = learn([make], SPHERE.sample(1000, seed=3), held, SIGMAS, max_steps=700, device="cpu")
    assert found.loss == pytest.approx([2, 2], abs=0.6)


# ---------------------------------------------------------------- its doubts

def learned(steps=1500, tried=1500, fall=(0.0, 0.0)):
    return Learned(None, np.ones(len(fall)), 1.0, steps, tried, np.array(fall))


def test_a_loss_that_still_falls_is_named_with_its_level():
    def doubts(dimension):
        return about_the_training(learned(fall=(0.5, 0.7)), np.array([0.1, 0.2]), dimension, plateau=(0.1, 0.2), d=10,
                                  budget=3100)

    (doubt,) = doubts(2)
    assert "still learning at σ = 0.2 when the budget of 3100 steps ended" in doubt
    assert not doubts(10)
    assert not doubts(1), "there is no smaller dimension to be learned"


@pytest.mark.parametrize("fall, plateau, is_doubt", [
    ((0.7, 0.0, 0.0), (0.1, 0.2), False),                                  # 0.2 is at rest and has the same dimension
    ((0.7, 0.0, 0.7), (0.1, 0.2), True),                                   # what is learned at 0.4 may change it
    ((0.7, 0.7, 0.0), (0.1, 0.2), True), ((0.7, 0.0, 0.0), (0.1, 0.1), True),
    ((0.7, 0.0, 0.0), (0.2, 0.4), False)])
def test_what_is_still_learned_below_a_level_at_rest_is_no_doubt(fall, plateau, is_doubt):
    assert bool(about_the_training(learned(fall=fall), np.array([0.1, 0.2, 0.4]), 2, plateau, 10, 3100)) == is_doubt


def test_rest_at_a_level_that_is_not_learned_tells_nothing():
    """The loss at 0.1 does not fall but is far above 2, so what is still learned at 0.2 matters; at 0.4 it is done."""
    levels, plateau = np.array([0.1, 0.2, 0.4]), (0.1, 0.4)
    at = dataclasses.replace(learned(fall=(0.0, 0.7, 0.0)), loss=np.array([90.0, 5.0, 2.5]))
    assert about_the_training(at, levels, 2, plateau, 10, 3100) == []
    larger = dataclasses.replace(at, fall=np.array([0.0, 0.0, 0.7]))
    assert any("σ = 0.4" in doubt for doubt in about_the_training(larger, levels, 2, plateau, 10, 3100))
    nowhere = dataclasses.replace(at, loss=np.array([90.0, 5.0, 5.0]))
    assert any("σ = 0.2" in doubt for doubt in about_the_training(nowhere, levels, 2, plateau, 10, 3100))


def test_a_network_that_was_stopped_after_its_first_round_is_a_doubt():
    (doubt,) = about_the_training(learned(steps=100), np.array(SIGMAS), dimension=1, plateau=SIGMAS, d=10, budget=3100)
    assert "too few rows" in doubt and "100" in doubt
    assert not about_the_training(learned(steps=300), np.array(SIGMAS), dimension=1, plateau=SIGMAS, d=10, budget=3100)
