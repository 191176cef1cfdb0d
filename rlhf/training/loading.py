"""From a path or a name to a tokenizer and a model, with one-sentence errors when that fails.

Models are Hugging Face folders or hub names. Only safetensors are read and no code that comes with
a model is ever run, because either would let a downloaded file take over the machine.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from rlhf.training import architecture, forward_pass, packing
from rlhf.training.lean import import_little, understand_meta
from rlhf.training.rundir import T5_TYPES, InputError, read_json

Message = dict[str, str]


class Asked(Protocol):
    """What a prompt is, as far as a policy is concerned."""

    @property
    def prompt_id(self) -> str: ...
    @property
    def messages(self) -> list[Message]: ...


P = TypeVar("P", bound=Asked)


@dataclass
class Policy:
    """A language model with the tokenizer that it speaks through.

    Either decoder-only, or an encoder-decoder (T5, BART), whose encoder reads the prompt and whose
    decoder begins the response with a start token of its own, which is no part of it.
    """

    model: Any
    tokenizer: Any
    stop_ids: list[int]
    pad_id: int
    context: int
    lora: bool = False
    share_rows: bool = False
    """Whether several short sequences may share a row of a batch."""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def encoder_decoder(self) -> bool:
        return architecture.is_encoder_decoder(self.model)

    @property
    def hidden_size(self) -> int:
        return self.model.get_input_embeddings().embedding_dim

    def encode_prompt(self, messages: Sequence[Message], where: str, *, room: int) -> list[int]:
        """Token ids of a conversation up to where the response begins.

        `InputError` when `room` more tokens don't fit into the context.
        """
        ids = self.prompt_ids(messages)
        if not ids:
            raise InputError(f"Prompt {where} has no text that the tokenizer knows.")
        if not self.fits(len(ids), room):
            raise InputError(
                f"Prompt {where} has {len(ids)} tokens, which with {room} for the response is more "
                f"than the model's context of {self.context}"
                + (" each" if self.encoder_decoder else "")
                + "; shorten or leave out the prompt."
            )
        return ids

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation, whether they fit or not."""
        text = self.render(messages)
        if has_marks_around(self.tokenizer, apart=self.encoder_decoder):
            return list(self.tokenizer(text)["input_ids"])
        return [*marks_before(self.tokenizer), *encode(self.tokenizer, text)]

    def render(self, messages: Sequence[Message]) -> str:
        """A conversation as the text that the response follows."""
        return render(self.tokenizer, messages, apart=self.encoder_decoder)

    def fits(self, prompt: int, room: int) -> bool:
        """Whether so many tokens of prompt and response fit into the context: together, or where
        an encoder reads the prompt and a decoder the response, each by itself."""
        longest = max(prompt, room) if self.encoder_decoder else prompt + room
        return longest <= self.context

    def encode_unless_left_out(
        self, prompt: Asked, *, room: int, long_prompts: str
    ) -> list[int] | None:
        """Token ids of a prompt, or None where it does not fit and `long_prompts` is "leave_out"."""
        try:
            return self.encode_prompt(prompt.messages, prompt.prompt_id, room=room)
        except InputError as error:
            if long_prompts == "refuse":
                raise
            print(f"left out: {error}")
            return None

    def fitting(
        self, prompts: Sequence[P], *, room: int, long_prompts: str
    ) -> tuple[list[P], list[list[int]]]:
        """The prompts that leave `room` tokens for a response, and their token ids.

        `long_prompts` "refuse" raises `InputError` for the first that doesn't fit; "leave_out"
        prints which were left out, and raises only if none is left.
        """
        kept: list[P] = []
        encoded: list[list[int]] = []
        reason: InputError | None = None
        for prompt in prompts:
            try:
                ids = self.encode_prompt(prompt.messages, prompt.prompt_id, room=room)
            except InputError as error:
                if long_prompts == "refuse":
                    raise
                reason = error
                print(f"left out: {error}")
                continue
            kept.append(prompt)
            encoded.append(ids)
        if reason is not None and not kept:
            raise InputError(f"No prompt fits the model's context; the last: {reason}")
        return kept, encoded

    def encode_response(self, text: str) -> list[int]:
        """Token ids of a response and of the token that ends it."""
        end = self.tokenizer.eos_token_id
        return [*encode(self.tokenizer, text), self.stop_ids[0] if end is None else end]

    def refuse_encoder_decoder(self, who: str) -> None:
        """`InputError` if this is one, because `who` takes decoder-only models."""
        if self.encoder_decoder:
            raise InputError(
                f"The policy is an encoder-decoder ({type(architecture.unwrap_model(self.model)).__name__}), "
                f"and {who} takes decoder-only models; use a decoder-only policy, or our PPO."
            )

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of response tokens, without the stop token."""
        kept = tokens[:-1] if tokens and tokens[-1] in self.stop_ids else tokens
        return str(self.tokenizer.decode(kept, skip_special_tokens=True)).strip()

    def read(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]
    ) -> tuple[packing.Packed, Tensor]:
        """One pass over prompts and responses: where the N response tokens are, and the last hidden
        states (N, H) before each of them."""
        packed = self.pack(prompts, responses)
        return packed, forward_pass.hidden_states(self.model, packed)

    def pack(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]
    ) -> packing.Packed:
        """Token ids as they are read."""
        if self.encoder_decoder:
            start_id = architecture.unwrap_model(self.model).config.decoder_start_token_id
            return packing.pack_encoder_decoder(
                prompts, responses, pad_id=self.pad_id, start_id=start_id, device=self.device
            )
        return packing.pack(
            prompts,
            responses,
            pad_id=self.pad_id,
            device=self.device,
            share_rows=self.share_rows,
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., H) to logits (..., V)."""
        return forward_pass.logits(self.model, hidden)

    @contextlib.contextmanager
    def adapters_off(self) -> Iterator[None]:
        """The policy as it was before its LoRA adapters: the reference, at no extra memory."""
        with self.model.disable_adapter():
            yield


def choose_device(device: str) -> torch.device:
    """`auto` is the first GPU if there is one, else the CPU; `InputError` for any other device than
    the CPU and the GPUs that are there."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return torch.device("cuda" if gpus else "cpu")
    with contextlib.suppress(RuntimeError):  # what torch has no such name for
        chosen = torch.device(device)
        if chosen.type == "cpu" or (chosen.type == "cuda" and (chosen.index or 0) < gpus):
            return chosen
    here = f"{gpus} usable GPUs, from cuda:0 on" if gpus else "no usable GPU"
    raise InputError(
        f"device is {device!r}, which is neither the CPU nor a GPU that is there (this machine has "
        f"{here}); set it to 'auto'."
    )


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Precision for models that are only read: `auto` is bfloat16 on a GPU, else float32."""
    half = dtype == "bfloat16" or (dtype == "auto" and device.type == "cuda")
    return torch.bfloat16 if half else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> Any:
    """Matrix products in `dtype`, where that is bfloat16; weights stay what they are."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def be_deterministic(seed: int, threads: int) -> None:
    """Fix what a CPU run depends on besides its inputs: the seed and the number of threads."""
    torch.manual_seed(seed)
    if threads:
        torch.set_num_threads(threads)


def load_policy(
    name: str, what: str, *, device: torch.device, dtype: torch.dtype = torch.float32
) -> Policy:
    """A language model and its tokenizer, in eval mode on `device`.

    `what` says what it is for, in errors. A folder of LoRA adapters is loaded with its base and
    merged into it.
    """
    if (Path(name) / "adapter_config.json").is_file():
        model, tokenizer = _load_adapters(name, what, dtype)
    else:
        model = load_language_model(name, what, dtype=dtype)
        tokenizer = load_tokenizer(name, what)
    without_dropout(model)
    stop_ids = stop_tokens(model, tokenizer, name)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stop_ids[0]
    policy = Policy(
        model=model.to(device).eval(),
        tokenizer=tokenizer,
        stop_ids=stop_ids,
        pad_id=pad_id,
        context=context_length(model),
    )
    if not forward_pass.has_known_head(policy.model):
        raise InputError(
            f"The {what} {name!r} is a {type(policy.model).__name__}, whose output head does more "
            "than a matrix, a scale and a soft cap; PPO and sampling can't read it yet."
        )
    policy.share_rows = forward_pass.can_share_rows(policy.model.base_model)
    return policy


def load_language_model(name: str, what: str, *, dtype: torch.dtype = torch.float32) -> Any:
    """A decoder-only language model, or an encoder-decoder if its configuration says so."""
    apart = load_config(name, what).is_encoder_decoder
    kind = "AutoModelForSeq2SeqLM" if apart else "AutoModelForCausalLM"
    model = load_model(name, what, kind=kind, dtype=dtype)
    if apart:
        _set_start_token(model, name, what)
    return model


def load_trunk(name: str, what: str, *, dtype: torch.dtype = torch.float32) -> Any:
    """A model without its head, to put a head of one's own on. Of a T5 it is the encoder."""
    config = load_config(name, what)
    # Asked by type: a T5's encoder that was saved by itself no longer calls itself a part.
    if config.model_type in T5_TYPES:
        return load_model(name, what, kind="AutoModelForTextEncoding", dtype=dtype)
    if config.is_encoder_decoder:
        raise InputError(
            f"The {what} {name!r} is an encoder-decoder ({config.model_type}), of which only T5's "
            "encoder can carry a head; take a decoder, an encoder or a T5."
        )
    return load_model(name, what, kind="AutoModel", dtype=dtype)


def load_config(name: str, what: str) -> Any:
    """The configuration of a model folder or hub name."""
    import_little()
    from transformers import AutoConfig

    _check_folder(name, what)
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as error:
        raise _explained(error, name, what) from error


def _set_start_token(model: Any, name: str, what: str) -> None:
    """See to it that the configuration knows what the decoder begins with."""
    given = (model.config, getattr(model, "generation_config", None))
    found = [getattr(place, "decoder_start_token_id", None) for place in given]
    start = next((token for token in found if token is not None), None)
    if start is None:
        raise InputError(
            f"The {what} {name!r} is an encoder-decoder without a decoder_start_token_id; its "
            "responses can't begin. Set it in config.json (T5: the pad token's id)."
        )
    model.config.decoder_start_token_id = start


def _load_adapters(name: str, what: str, dtype: torch.dtype) -> tuple[Any, Any]:
    import_little()
    from peft import PeftModel

    settings = read_json(Path(name) / "adapter_config.json")
    base = settings.get("base_model_name_or_path") if isinstance(settings, dict) else None
    if not isinstance(base, str) or not base:
        raise InputError(
            f"adapter_config.json of the {what} {name!r} names no base_model_name_or_path; "
            "give the path of the model that the adapters belong to."
        )
    model = load_language_model(base, f"base of the {what}", dtype=dtype)
    _check_weights(Path(name), what)  # peft would unpickle an adapter_model.bin
    try:
        model = PeftModel.from_pretrained(model, name)
    except Exception as error:
        raise _explained(error, name, what) from error
    _check_finite(model, name, what)
    model = model.merge_and_unload().requires_grad_(requires_grad=True)  # peft had frozen the base
    own = (Path(name) / "tokenizer_config.json").is_file()
    return model, load_tokenizer(name if own else base, what)


def add_lora(policy: Policy, *, rank: int, alpha: float) -> None:
    """Put LoRA adapters (Hu et al. 2021) on every linear layer; only they are trained then."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # a float works, and is wanted for small ranks
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="SEQ_2_SEQ_LM" if policy.encoder_decoder else "CAUSAL_LM",
    )
    policy.model = get_peft_model(policy.model, settings).eval()
    policy.lora = True


def with_adapters(trunk: Any, names: Sequence[str], *, rank: int) -> Any:
    """A trunk with several LoRA adapters on every linear layer, of which one acts at a time; only
    they are trained."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="FEATURE_EXTRACTION",
    )
    model: Any = get_peft_model(trunk, settings, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, settings)
    train_adapters(model)
    return model


def load_adapters(trunk: Any, folder: Path, names: Sequence[str]) -> Any:
    """A trunk with the adapters that `save_pretrained` wrote into folders of these names."""
    from peft import PeftModel

    model: Any = None
    for name in names:
        if Path(name).name != name:
            raise InputError(f"{folder} has no adapters {name!r}.")
        _check_weights(folder / name, "reward model's adapters")  # peft would unpickle a .bin
        try:
            if model is None:
                model = PeftModel.from_pretrained(trunk, str(folder / name), adapter_name=name)
            else:
                model.load_adapter(str(folder / name), name)
        except Exception as error:
            raise _explained(error, str(folder / name), "reward model's adapters") from error
    _check_finite(model, str(folder), "reward model's adapters")
    return model


def train_adapters(model: Any) -> None:
    """Train all adapters, whichever acts, and nothing else."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "lora_" in name


def load_model(name: str, what: str, *, kind: str, dtype: torch.dtype = torch.float32) -> Any:
    """A transformers model through the auto class `kind`; `InputError` in one sentence otherwise."""
    import_little()
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    _check_folder(name, what)
    read = partial(
        getattr(transformers, kind).from_pretrained,
        name,
        dtype=dtype,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
    )
    try:
        try:
            model, told = read()
        except NotImplementedError:  # of the meta device, perhaps, of which lean leaves a part out
            if not understand_meta():
                raise
            model, told = read()
    except Exception as error:
        raise _explained(error, name, what) from error
    # transformers fills in what is missing with random numbers and goes on. Without its head a
    # language model is a different one; a trunk may do without what only its own task needed.
    if missing := sorted(told["missing_keys"]) if kind != "AutoModel" else []:
        raise InputError(
            f"The {what} {name!r} lacks {len(missing)} of its weights, {missing[0]} first; save it "
            "again as a whole language model."
        )
    _check_finite(model, name, what)
    return model


def _check_finite(model: nn.Module, name: str, what: str) -> None:
    for parameter_name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise InputError(
                f"The {what} {name!r} holds NaN or infinity in {parameter_name}; "
                "take a checkpoint from before it broke."
            )


def load_tokenizer(name: str, what: str) -> Any:
    """The tokenizer beside a model."""
    import_little()
    from transformers import AutoTokenizer

    _check_folder(name, what)
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:
        raise _explained(error, name, f"tokenizer of the {what}") from error


def render(tokenizer: Any, messages: Sequence[Message], *, apart: bool = False) -> str:
    """A conversation as the text that a response continues, by the tokenizer's chat template.

    A tokenizer without one (a plain base model) gets named turns. With one exception: an encoder
    that reads prompts `apart` from their responses is given a single user's turn as it stands, as
    T5 (Raffel et al. 2020, section 2.4) and Flan-T5 were trained to read it. `InputError` when the template
    refuses the conversation, or leaves out what the system or the user says: the policy would
    answer, and be judged by, something that it never read.
    """
    if getattr(tokenizer, "chat_template", None):
        where = f"The chat template of {tokenizer.name_or_path!r}"
        try:
            text = str(
                tokenizer.apply_chat_template(
                    list(messages), tokenize=False, add_generation_prompt=True
                )
            )
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{where} refuses a conversation: {reason}") from error
        for message in messages:
            # An earlier answer may lose its reasoning; that is how such models are used.
            if message["role"] != "assistant" and message["content"].strip() not in text:
                said = " ".join(message["content"].split())[:40]
                raise InputError(
                    f"{where} drops the {message['role']} turn ({said!r}); take a template that "
                    f"keeps it, or prompts without a {message['role']} turn."
                )
        return text
    if apart and [m["role"] for m in messages] == ["user"]:
        return messages[0]["content"]
    turns = "".join(f"{m['role'].capitalize()}: {m['content']}\n\n" for m in messages)
    return f"{turns}Assistant:"


def has_marks_around(tokenizer: Any, *, apart: bool) -> bool:
    """Whether the tokenizer's own marks (T5's </s>, BART's <s> and </s>) go around a prompt: where
    an encoder reads it and no template has put them in."""
    return apart and not getattr(tokenizer, "chat_template", None)


def marks_before(tokenizer: Any) -> list[int]:
    """The tokens that the tokenizer itself puts before a text (a Llama's <s>): a model without chat
    template has hardly seen a text without them. Nothing where a template decides what begins one.
    """
    if getattr(tokenizer, "chat_template", None):
        return []
    text = encode(tokenizer, "a")
    marked = list(tokenizer("a")["input_ids"])
    starts = [i for i in range(len(marked)) if text and marked[i : i + len(text)] == text]
    return marked[: starts[0]] if starts else []


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text as it stands, without special tokens of the tokenizer's own."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def stop_tokens(model: Any, tokenizer: Any, name: str) -> list[int]:
    """Every token that ends a response, from the generation settings and the tokenizer."""
    found: list[int] = []
    settings = getattr(model, "generation_config", None)
    for given in (getattr(settings, "eos_token_id", None), tokenizer.eos_token_id):
        for token in given if isinstance(given, list) else [given]:
            if token is not None and token not in found:
                found.append(token)
    if not found:
        raise InputError(
            f"The tokenizer of {name!r} has no end-of-sequence token; a response could never end. "
            "Set eos_token in its tokenizer_config.json."
        )
    return found


def context_length(model: Any) -> int:
    """The longest sequence the model can read; very long when it doesn't say."""
    for key in ("max_position_embeddings", "n_positions", "max_sequence_length"):
        value = getattr(model.config, key, None)
        if isinstance(value, int) and value > 0:
            return value - architecture.first_position(model)
    return 1 << 30


def without_dropout(model: nn.Module) -> None:
    """Switch dropout off for good, in training mode too.

    With dropout the log-probabilities of the update are those of another policy than the one that
    was sampled from (summarize_from_feedback_details, detail 12).
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    config = getattr(model, "config", None)
    for key in ("attention_dropout", "attention_probs_dropout_prob", "attn_pdrop"):
        if config is not None and hasattr(config, key):
            setattr(config, key, 0.0)
    for module in model.modules():  # plain numbers: T5 and BART keep theirs under these names too
        for key in ("attention_dropout", "dropout", "activation_dropout"):
            if isinstance(getattr(module, key, None), float):
                setattr(module, key, 0.0)


def _check_folder(name: str, what: str) -> None:
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"The {what} folder {name!r} has no config.json; is it a model?")
        _check_weights(path, what)
    elif path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or not name:
        raise InputError(f"The {what} folder {name!r} does not exist.")


def _check_weights(path: Path, what: str) -> None:
    if not path.is_dir():
        raise InputError(f"The {what} folder {str(path)!r} does not exist.")
    found = sorted(path.glob("*.safetensors"))
    if not found:
        other = sorted(p.name for p in path.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
        if other:
            raise InputError(
                f"The {what} {str(path)!r} holds {other[0]}, a pickle, which can run code when it "
                "is opened; save the model as safetensors first."
            )
        raise InputError(f"The {what} folder {str(path)!r} has no *.safetensors file.")
    for file in found:
        with file.open("rb") as opened:
            start = opened.read(9)
        # A pickle under another name: protocol 2 and up, or the zip archive that torch.save makes.
        if (start[:1] == b"\x80" and start[8:9] != b"{") or start[:4] == b"PK\x03\x04":
            raise InputError(
                f"{file.name} of the {what} {str(path)!r} is a pickle by another name, which can "
                "run code when it is opened; save the model as safetensors first."
            )


def _explained(error: Exception, name: str, what: str) -> InputError:
    if Path(name).is_dir():
        reason = " ".join(str(error).split())[:200]
        return InputError(f"The {what} in {name!r} can't be read: {reason}")
    return InputError(
        f"The {what} {name!r} is not a folder here and can't be had from the model hub "
        f"({type(error).__name__}); give the path of a local model folder, or check name and network."
    )
