"""Reward models read text: once where that is enough, and the same however they are fed."""

import random

import pytest
import torch

from rlhf.training import forward_pass, packing
from rlhf.training.critic import ModelCritic
from rlhf.training.reward_models import hidden_states
from rlhf.training.reward_models.folder import load_reward_model, save_reward_model
from rlhf.training.reward_models.model import RewardModel
from rlhf.training.reward_models.texts import Text
from tests.rlhf.training.tiny import WORDS, ask, make_policy


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return str(make_policy(tmp_path_factory.mktemp("policy")))


def new(trunk, **options):
    torch.manual_seed(0)
    options = {"use_prior": False, "max_length": 128, "device": "cpu"} | options
    return RewardModel.new(trunk, ["helpfulness", "safety"], **options)


def make_encoder(folder):
    """A random BERT, whose tokens look at what comes after them, with its own tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {token: i for i, token in enumerate([*special, "Assistant", "User", ":", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    torch.manual_seed(1)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = BertConfig(vocab_size=len(vocabulary), num_attention_heads=4, **size)
    BertModel(config).save_pretrained(folder)
    return str(folder)


def make_counting_encoder(kind, folder):
    """A random RoBERTa, XLM-R or MPNet beside the same tokenizer: they keep position `padding_idx`
    for padding and count the first token as the one after it."""
    import transformers

    make_encoder(folder)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=4 + 3 + len(WORDS), num_attention_heads=4, pad_token_id=1, **size,
        max_position_embeddings=40,
    )  # fmt: skip
    torch.manual_seed(1)
    model = getattr(transformers, f"{kind}Model")(config)
    for parameter in model.parameters():  # larger, so that a wrong position shows
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return str(folder)


def some_texts(model, *, prompts=3, k=4):
    """k responses of different lengths to each of some prompts of different lengths."""
    generator = random.Random(0)
    conversations, responses = [], []
    for number in range(prompts):
        question = ask(" ".join(generator.choices(WORDS, k=4 + 5 * number)))
        for _ in range(k):
            conversations.append(question)
            responses.append(" ".join(generator.choices(WORDS, k=generator.randint(1, 9))))
    return model.tokenize(conversations, responses)


def gradients(model, texts):
    model.trunk.zero_grad()
    scores = model.raw_scores(texts, None)
    (scores**2).sum().backward()
    return scores.detach(), [p.grad.clone() for p in model.trunk.parameters()]


def test_a_prompt_read_once_gives_the_scores_and_gradients_of_a_prompt_read_four_times(policy):
    model = new(policy)
    texts = some_texts(model)
    alone, slow = gradients(model, texts)
    assert model.share_prompts_if_possible()
    together, fast = gradients(model, texts)
    assert torch.allclose(alone, together, atol=1e-5)
    for a, b in zip(slow, fast, strict=True):
        assert torch.allclose(a, b, atol=1e-4 * float(a.abs().max()) + 1e-6)


def test_a_prompt_read_once_by_its_cache_gives_the_same_scores_and_gradients(policy, monkeypatch):
    """As trunks of other kinds are read: a pass for the prompts, then one for the responses."""
    monkeypatch.setattr(hidden_states, "has_fast_layers", lambda trunk: False)
    test_a_prompt_read_once_gives_the_scores_and_gradients_of_a_prompt_read_four_times(policy)


def test_a_small_llama_reads_a_prompt_once_in_a_row_with_its_responses(policy, monkeypatch):
    model = new(policy)
    texts = some_texts(model, prompts=3, k=4)
    read = []
    states = forward_pass.trunk_hidden_states
    monkeypatch.setattr(
        forward_pass,
        "trunk_hidden_states",
        lambda trunk, packed: read.append(packed) or states(trunk, packed),
    )
    for shares in (False, True):
        model.shares_prompts = shares
        model.raw_scores(texts, None)
    responses = sum(len(t.response) for t in texts)
    prompts = {t.prompt for t in texts}
    real = [
        int((p.inputs["position_ids"] > 0).sum() + n) for p, n in zip(read, (12, 3), strict=True)
    ]
    assert real == [4 * sum(map(len, prompts)) + responses, sum(map(len, prompts)) + responses]


def test_sharing_reads_each_distinct_prompt_once(policy, monkeypatch):
    monkeypatch.setattr(hidden_states, "has_fast_layers", lambda trunk: False)
    model = new(policy)
    texts = some_texts(model, prompts=3, k=4)
    rows = []
    hook = model.trunk.register_forward_pre_hook(
        lambda _, __, kwargs: rows.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    model.share_prompts_if_possible()
    rows.clear()
    model.raw_scores(texts, None)
    hook.remove()
    longest = max(len(t.prompt) for t in texts), max(len(t.response) for t in texts)
    assert rows == [(3, longest[0]), (12, longest[1])]


def test_where_every_prompt_is_another_nothing_is_shared(policy):
    model = new(policy)
    texts = some_texts(model, prompts=4, k=1)
    alone = model.raw_scores(texts, None)
    model.share_prompts_if_possible()
    assert torch.equal(model.raw_scores(texts, None), alone)


def test_an_encoder_reads_a_prompt_again_for_every_response(tmp_path):
    model = new(make_encoder(tmp_path))
    assert not model.share_prompts_if_possible()
    assert not model.shares_prompts


def test_an_encoder_gets_its_own_marks_around_prompt_and_response(tmp_path):
    model = new(make_encoder(tmp_path), max_length=12)
    text = model.tokenize([ask("red lamp " * 9)], ["nice chair"])[0]
    marks = model.tokenizer.convert_ids_to_tokens([*text.prompt, *text.response])
    assert marks[0] == "[CLS]"
    assert marks[-4:] == ["[SEP]", "nice", "chair", "[SEP]"]
    assert len(marks) == 12
    # The end of a conversation that is too long is kept: it holds the last question.
    assert marks[-6:-4] == ["Assistant", ":"]


def test_a_decoder_gets_no_mark_that_it_does_not_know(policy):
    model = new(policy)
    text = model.tokenize([ask("red lamp")], ["nice"])[0]
    assert text.response[-1] == model.tokenizer.eos_token_id
    assert model.tokenizer.decode(text.prompt).endswith("<|assistant|>")


def test_texts_longer_than_the_limit_keep_the_end_of_the_prompt_and_the_start_of_the_response(
    policy,
):
    model = new(policy, max_length=16)
    text = model.tokenize([ask("red " * 30 + "lamp")], ["nice " + "blue " * 30])[0]
    assert isinstance(text, Text)
    assert len(text.prompt) + len(text.response) == 16
    assert "lamp" in model.tokenizer.decode(text.prompt)
    assert model.tokenizer.decode(text.response).startswith("nice")


@pytest.mark.parametrize("kind", ["Roberta", "XLMRoberta", "MPNet"])
def test_an_encoder_that_counts_positions_from_behind_its_padding_gets_them_so(kind, tmp_path):
    model = new(make_counting_encoder(kind, tmp_path))
    texts = some_texts(model, prompts=2, k=2)
    ends, _ = model.response_states(texts)  # rows of different lengths, padded
    for text, end in zip(texts, ends, strict=True):
        ids = torch.tensor([[*text.prompt, *text.response]])
        own = model.trunk(input_ids=ids).last_hidden_state[0, -1]
        assert torch.allclose(end, own, atol=1e-5)


def make_decoder(policy, folder, config):
    """A random decoder of another kind that speaks a policy's tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(policy)
    tokenizer.save_pretrained(folder)
    ids = {f"{name}_token_id": tokenizer.eos_token_id for name in ("bos", "eos", "pad")}
    torch.manual_seed(1)
    config = config(vocab_size=len(tokenizer), **ids)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


def test_a_long_prompt_and_a_long_response_to_another_fit_into_few_positions(policy, tmp_path):
    """Padding behind the long prompt's short response would lie beyond the last position."""
    from transformers import GPT2Config

    trunk = make_decoder(
        policy, tmp_path, lambda **ids: GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=24, **ids)
    )  # fmt: skip
    model = new(trunk, max_length=24)
    texts = [Text(tuple(range(20)), (5, 6, 7, 8)[:n]) for n in (2, 3, 4)]
    texts += [Text((3, 4, 5), tuple(range(9, 9 + n))) for n in (9, 12)]
    alone = model.raw_scores(texts, None)
    assert model.share_prompts_if_possible()
    together = model.raw_scores(texts, None)
    assert torch.allclose(alone, together, atol=1e-5)


def test_hidden_states_may_be_narrower_than_the_layers(policy, tmp_path):
    """As OPT-350m's are, DeepSpeed-Chat's reward model."""
    from transformers import OPTConfig

    def config(**ids):
        size = {"hidden_size": 32, "word_embed_proj_dim": 16, "ffn_dim": 64}
        return OPTConfig(num_hidden_layers=2, num_attention_heads=4, do_layer_norm_before=False,
                         max_position_embeddings=128, **size, **ids)  # fmt: skip

    model = new(make_decoder(policy, tmp_path / "trunk", config), use_prior=True)
    save_reward_model(model, tmp_path / "saved")
    prompts, responses = [ask("paint my lamp")] * 2, ["yes nice", "no"]
    loaded = load_reward_model(tmp_path / "saved").score(prompts, responses)
    again = load_reward_model(tmp_path / "saved").score(prompts, responses)
    assert torch.equal(loaded["safety"], again["safety"])
    assert loaded["safety"][0] != loaded["safety"][1]
    critic = ModelCritic(model.plain_trunk())
    packed = packing.pack([[3]], [[4, 5]], pad_id=0, device="cpu", share_rows=False)
    assert critic(torch.zeros(2, 16), packed).shape == (2,)


@pytest.mark.parametrize("kind", ["Roberta", "MPNet"])
def test_its_longest_text_still_has_a_position_for_every_token(kind, tmp_path):
    model = new(make_counting_encoder(kind, tmp_path), max_length=512)
    assert model.max_length == 38  # of 40 positions, 0 and 1 are no token's
    text = model.tokenize([ask("red lamp " * 40)], ["nice " * 40])[0]
    assert len(text.prompt) + len(text.response) == 38
    assert model.response_states([text])[0].isfinite().all()


def test_a_model_without_a_prior_ignores_the_one_that_others_have(policy, tmp_path):
    other = new(policy, use_prior=True)
    save_reward_model(new(policy), tmp_path)
    loaded = load_reward_model(tmp_path, prior=other.prior)
    assert loaded.prior is None
    assert loaded.score([ask("red lamp")], ["nice"])["safety"].isfinite().all()


def test_every_axis_is_heard_in_the_one_score_whatever_their_names(policy):
    model = new(policy)
    risks = ["harmless", "harmful", "harmless", ""]
    scores = {
        "helpfulness": torch.tensor([1.0, 1.0, 1.0, -2.0]),
        "honesty": torch.tensor([3.0, 3.0, 3.0, 0.0]),
        "safety": torch.tensor([0.5, 0.25, -4.0, 2.0]),
    }

    def combined(*axes):
        return model.combine({axis: scores[axis] for axis in axes}, risks, threshold=0.15).tolist()

    assert combined("honesty") == [3.0, 3.0, 3.0, 0.0]
    assert combined("safety") == [0.5, 0.25, -4.0, 2.0]
    assert combined("helpfulness", "honesty") == [2.0, 2.0, 2.0, -1.0]
    # Safety governs the harmful prompt and, since sigmoid(-4) is below 0.15, the third response.
    assert combined("helpfulness", "safety") == [1.0, 0.25, -4.0, -2.0]
    assert combined("honesty", "safety") == [3.0, 0.25, -4.0, 0.0]
    assert combined("helpfulness", "honesty", "safety") == [2.0, 0.25, -4.0, -1.0]
    # Each in the unit of what it governs.
    model.scale.reference = {"honesty": {"harmless": {"mean": 1.0, "std": 2.0, "n": 8}}}
    assert combined("honesty", "safety") == [1.0, 0.25, -4.0, -0.5]
