"""RidgeLogistic: it converges on every problem, without a warning, with every BLAS."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from util.statistics import logistic_regression
from util.statistics.logistic_regression import RidgeLogistic

ROOT = Path(__file__).resolve().parents[3]


def noise(seed, subjects=15, width=60, dtype=np.float32):
    """Standardised features that know nothing of the labels 0, 1, 0, ..."""
    features = np.random.default_rng(seed).standard_normal((subjects, width)).astype(dtype)
    return (features - features.mean(0)) / features.std(0), np.arange(subjects) % 2


def slope(model, features, labels):
    """Largest component of the gradient of sum(log-loss) + |w|^2 / 2C, in units of its value where all weights are 0
    (which is that of the features and labels alone)."""
    features = np.asarray(features, dtype=float)
    wrong = model.predict_proba(features)[:, 1] - labels
    gradient = np.append(features.T @ wrong + model.coef_ / model.C, wrong.sum())
    return np.abs(gradient).max() / (1 + np.abs(features.T @ (labels - labels.mean())).max())


@pytest.mark.parametrize("seed", [688, 1488])  # where lbfgs on float32 ends early on a CPU with AVX-512
def test_a_strong_penalty_on_single_precision_features_is_no_problem(seed):
    features, labels = noise(seed)
    model = RidgeLogistic(C=1e-4).fit(features, labels)
    assert slope(model, features, labels) < 1e-8
    assert model.coef_.dtype == np.float64


@pytest.mark.parametrize("width", [5, 60], ids=["fewer features than subjects", "more"])
@pytest.mark.parametrize("C", [1e-4, 1.0, 100.0])
def test_it_agrees_with_another_solver_that_converges(width, C):
    features, labels = noise(0, subjects=40, width=width, dtype=float)
    other = LogisticRegression(C=C, solver="newton-cg", tol=1e-10, max_iter=1000).fit(features, labels)
    found = RidgeLogistic(C=C).fit(features, labels)
    new = np.random.default_rng(1).standard_normal((7, width))
    np.testing.assert_allclose(found.predict_proba(new), other.predict_proba(new), atol=1e-8)
    np.testing.assert_allclose(found.coef_, other.coef_[0], atol=1e-7)
    assert found.coef_.shape == (width,)


def hard(kind, generator, subjects, width, labels):
    features = generator.standard_normal((subjects, width))
    if kind == "one column many times":
        features[:] = features[:, :1]
    elif kind == "separated":
        features += 100 * labels[:, None]
    elif kind == "constant":
        features[:, width // 2 :] = 7.0
    elif kind == "all constant":
        features[:] = 0.0
    elif kind == "heavy tails":
        features = np.exp(4 * features)
    elif kind == "subjects twice":
        features[subjects // 2 :] = features[: subjects - subjects // 2]
    deviation = features.std(0)
    return (features - features.mean(0)) / np.where(deviation > 1e-12, deviation, 1)


KINDS = ("noise", "one column many times", "separated", "constant", "all constant", "heavy tails", "subjects twice")


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10_000),
    subjects=st.integers(4, 60),
    width=st.integers(1, 90),
    positives=st.floats(0.05, 0.95),
    C=st.sampled_from([1e-4, 1e-2, 1.0, 100.0, 1e4]),
)
def test_it_converges_on_hard_problems(kind, seed, subjects, width, positives, C):
    generator = np.random.default_rng(seed)
    labels = (generator.random(subjects) < positives).astype(int)
    labels[:2] = 0, 1
    features = hard(kind, generator, subjects, width, labels).astype(np.float32)
    model = RidgeLogistic(C=C).fit(features, labels)  # a warning would be an error
    assert slope(model, features, labels) < 1e-7
    if kind == "all constant":
        np.testing.assert_allclose(model.predict_proba(features)[:, 1], labels.mean(), atol=1e-9)


@pytest.mark.parametrize(
    ("features", "labels", "C", "message"),
    [
        ([[0.0], [math.nan], [math.inf]], [0, 1, 1], 1.0, "2 values that are not finite"),
        ([[0.0], [1.0]], [1, 1], 1.0, "not 1 classes"),
        ([[0.0], [1.0], [2.0]], [0, 1, 2], 1.0, "not 3 classes"),
        ([[0.0], [1.0]], [0, 1], 0.0, "C = 0.0"),
        ([[0.0], [1.0]], [0, 1], -0.5, "C = -0.5"),
    ],
)
def test_impossible_problems_are_refused(features, labels, C, message):
    with pytest.raises(ValueError, match=f"needs finite features, two classes and C > 0, .*{message}"):
        RidgeLogistic(C).fit(np.array(features), labels)


@pytest.mark.parametrize("seed", [0, 1, 4, 5])
def test_it_ends_after_few_steps_also_where_a_full_step_overshoots(seed, monkeypatch):
    """On these problems full steps of Newton's method diverge, and steps that are only as long as is known to descend
    without a look at the loss would be 150 or more."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(50) < 0.4).astype(int)
    features = hard("heavy tails", generator, 50, 30, labels)
    monkeypatch.setattr(logistic_regression, "MAX_STEPS", 25)
    model = RidgeLogistic(C=1e4).fit(features, labels)
    assert slope(model, features, labels) < 1e-7


def test_a_problem_that_does_not_converge_is_an_error(monkeypatch):
    features, labels = noise(0)
    monkeypatch.setattr(logistic_regression, "MAX_STEPS", 2)
    with pytest.raises(ArithmeticError, match=r"no minimum after 2 steps of Newton's method: C = 100\.0 is too large"):
        RidgeLogistic(C=100.0).fit(features, labels)


def test_it_can_be_copied_and_searched_over_as_scikit_learns_own():
    assert clone(RidgeLogistic(C=3.0)).get_params() == {"C": 3.0}
    assert RidgeLogistic().C == LogisticRegression().C


BLAS_KERNELS = {"Prescott": "sse2", "Haswell": "avx2", "SkylakeX": "avx512f"}  # and the CPU flag they need


def test_probabilities_do_not_depend_on_the_blas():
    """Figures that lbfgs leaves at its usual tolerance differ between OpenBLAS' kernels."""
    code = (
        "import numpy as np; from util.statistics.logistic_regression import RidgeLogistic\n"
        "features = np.random.default_rng(688).standard_normal((15, 60)).astype(np.float32)\n"
        "for C in (1e-4, 1e-2, 1.0, 100.0):\n"
        "    print(*RidgeLogistic(C).fit(features, np.arange(15) % 2).predict_proba(features)[:, 1].tolist())"
    )
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    kernels = [kernel for kernel, flag in BLAS_KERNELS.items() if f" {flag} " in cpu]
    if len(kernels) < 2:
        pytest.skip(f"this CPU runs {kernels or 'none'} of the BLAS kernels {', '.join(BLAS_KERNELS)}")
    found = []
    for kernel in kernels:
        environment = {**os.environ, "OPENBLAS_CORETYPE": kernel}
        run = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
        found.append(np.array(run.stdout.split(), dtype=float))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=0, atol=1e-9)
