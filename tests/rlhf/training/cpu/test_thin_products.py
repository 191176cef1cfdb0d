"""Products with matrices arranged in advance: the same up to rounding, and one choice per machine."""

import json

import pytest
import torch
from torch.nn import functional

from rlhf.training import cpu, decoding
from rlhf.training.cpu import thin_products
from tests.rlhf.training.small_llamas import PROMPTS, llama


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder in which nothing is kept yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    thin_products.packing_pays.cache_clear()
    yield tmp_path / "ground-control/products.json"
    thin_products.packing_pays.cache_clear()


@pytest.mark.parametrize("rows", [1, 5, 16, 40])
@pytest.mark.parametrize("has_bias", [True, False])
@torch.inference_mode()
def test_an_arranged_matrix_gives_the_same_product_for_any_number_of_rows(rows, has_bias):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(300, 70, generator=generator)
    bias = torch.randn(300, generator=generator) if has_bias else None
    x = torch.randn(rows, 70, generator=generator)
    got = thin_products._packed(weight, bias)(x)
    assert torch.allclose(got, functional.linear(x, weight, bias), atol=1e-4)


def test_the_choice_is_tried_once_and_kept_for_the_machine(cache, monkeypatch):
    trials = []
    monkeypatch.setattr(thin_products, "_trial", lambda: trials.append(1) or True)
    assert thin_products.packing_pays()
    thin_products.packing_pays.cache_clear()  # as another process has it
    assert thin_products.packing_pays()
    assert len(trials) == 1
    (key,) = json.loads(cache.read_text())
    assert torch.__version__ in key
    # Another processor, or a file that can't be read, is tried again.
    for text in (json.dumps({"another processor": False}), "[]", "{"):
        cache.write_text(text)
        thin_products.packing_pays.cache_clear()
        assert thin_products.packing_pays()
    assert len(trials) == 4
    assert json.loads(cache.read_text())[key] is True


def test_a_trial_takes_milliseconds_and_a_torch_without_the_operator_refuses(monkeypatch):
    assert thin_products._trial() in (True, False)

    def missing(*_):
        raise AttributeError

    monkeypatch.setattr(thin_products, "_packed", missing)
    assert thin_products._trial() is False


@torch.no_grad()
def test_a_decoder_of_arranged_matrices_agrees_with_the_model(monkeypatch):
    monkeypatch.setattr(thin_products, "LARGE", 0)
    monkeypatch.setattr(thin_products, "packing_pays", lambda: True)
    arranged = []
    packed = thin_products._packed
    monkeypatch.setattr(
        thin_products, "_packed", lambda *given: arranged.append(1) or packed(*given)
    )
    model = llama(num_key_value_heads=2)
    decoder = decoding.prepare(model, len(PROMPTS))()
    assert isinstance(decoder, cpu.LlamaDecoder)
    assert len(arranged) >= 4 * 3 + 1
    hidden = decoder.read(PROMPTS, 1, 2)
    own = [model(torch.tensor([prompt])).logits[0, -1] for prompt in PROMPTS]
    assert torch.allclose(decoder.logits(hidden), torch.stack(own), atol=2e-4, rtol=1e-4)
