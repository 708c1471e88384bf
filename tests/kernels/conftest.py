"""Every kernel runs in Triton's interpreter, which is slow: by default one or two small cases of each."""

import pytest

from tests.kernels.check import mend_interpreter

DEFAULT = (
    "test_attention.py::test_values_and_gradients[a prompt shorter than a block]",
    "test_decode_attention.py::test_values[shape0",
    "test_flash_merge.py::test_views_of_one_product",
    "test_flash_merge.py::test_segments_are_checked",
    "test_gumbel.py::test_philox",
    "test_gumbel.py::test_of_equal_logits_the_first",
    "test_head.py::test_loss_and_gradients[cpu",
    "test_head.py::test_loss_and_gradients[kernel-weighted-0.7",
    "test_head.py::test_loss_and_gradients[kernel-token-0.7",
    "test_norm.py::test_few_programs_take_many_rows[3",
    "test_norm.py::test_values",
    "test_rotary.py::test_rotary_and_cache[5-4-4-80-3-dtype1-norms]",
    "test_rotary.py::test_values",
    "test_swiglu.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/kernels/" in item.nodeid and not any(name in item.nodeid for name in DEFAULT):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def mended(monkeypatch):
    mend_interpreter(monkeypatch)
