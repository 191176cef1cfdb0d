"""Models and tokenizers from a folder, a GGUF file or a hub name; errors are one sentence for a
person."""

import contextlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlhf.training import architecture
from rlhf.training.architecture import T5_TYPES
from rlhf.training.language_models import gguf_files, hub_names
from rlhf.training.rundir.errors import InputError


def load_config(name: str, what: str) -> Any:
    """The configuration of a model folder or hub name."""
    from transformers import AutoConfig

    _check_source(name, what)
    folder, options = gguf_files.source(hub_names.local_folder(name, what))
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, **options)
    except Exception as error:
        raise reading_error(error, name, what) from error


def load_language_model(name: str, what: str, *, dtype: torch.dtype = torch.float32) -> Any:
    """A decoder-only language model, or an encoder-decoder if its configuration says so."""
    is_encoder_decoder = load_config(name, what).is_encoder_decoder
    kind = "AutoModelForSeq2SeqLM" if is_encoder_decoder else "AutoModelForCausalLM"
    model = load_model(name, what, kind=kind, dtype=dtype)
    if is_encoder_decoder:
        _set_start_token(model, name, what)
    return model


def _set_start_token(model: Any, name: str, what: str) -> None:
    """Set the token that the decoder begins with in the model's configuration."""
    configs = (model.config, getattr(model, "generation_config", None))
    tokens = [getattr(config, "decoder_start_token_id", None) for config in configs]
    start = next((token for token in tokens if token is not None), None)
    if start is None:
        raise InputError(
            f"The {what} {name!r} is an encoder-decoder without a decoder_start_token_id; its "
            "responses can't begin. Set it in config.json (T5: the pad token's id)."
        )
    model.config.decoder_start_token_id = start


def load_trunk(name: str, what: str, *, dtype: torch.dtype = torch.float32) -> Any:
    """A model without its head, to add another head. Of a T5 it is the encoder."""
    config = load_config(name, what)
    # By type: a T5's encoder that was saved alone has no is_encoder_decoder.
    if config.model_type in T5_TYPES:
        return load_model(name, what, kind="AutoModelForTextEncoding", dtype=dtype)
    if config.is_encoder_decoder:
        raise InputError(
            f"The {what} {name!r} is an encoder-decoder ({config.model_type}), of which only T5's "
            "encoder can carry a head; take a decoder, an encoder or a T5."
        )
    return load_model(name, what, kind="AutoModel", dtype=dtype)


def load_model(name: str, what: str, *, kind: str, dtype: torch.dtype = torch.float32) -> Any:
    """A transformers model through the auto class `kind`; errors are an `InputError` of one
    sentence."""
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    # Its messages go to the log with their time, as everything else.
    logging.disable_default_handler()
    logging.enable_propagation()
    _check_source(name, what)
    folder, options = gguf_files.source(hub_names.local_folder(name, what))
    if not options:
        options["use_safetensors"] = True
    try:
        with gguf_files.quiet() if gguf_files.is_gguf(name) else contextlib.nullcontext():
            model, loading_info = getattr(transformers, kind).from_pretrained(
                folder, dtype=dtype, trust_remote_code=False, output_loading_info=True, **options
            )
        if gguf_files.is_gguf(name):
            model = gguf_files.without_marks(model)
    except Exception as error:
        raise reading_error(error, name, what) from error
    # transformers only warns and fills in missing weights at random. Without its head a
    # language model is a different one; a trunk may do without what only its own task needed.
    if missing := sorted(loading_info["missing_keys"]) if kind != "AutoModel" else []:
        raise InputError(
            f"The {what} {name!r} lacks {len(missing)} of its weights, {missing[0]} first; save it "
            "again as a whole language model."
        )
    check_finite(model, name, what)
    return model


def load_tokenizer(name: str, what: str) -> Any:
    """The tokenizer of a model."""
    from transformers import AutoTokenizer

    _check_source(name, what)
    folder, options = gguf_files.source(hub_names.local_folder(name, what))
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **options)
        return gguf_files.own_tokens(tokenizer) if options else tokenizer
    except Exception as error:
        raise reading_error(error, name, f"tokenizer of the {what}") from error


def check_vocabulary(model: Any, tokenizer: Any, name: str, what: str) -> None:
    """`InputError` if the tokenizer has tokens for which the model has no embedding."""
    rows = int(model.get_input_embeddings().weight.shape[0])
    missing = [(i, token) for token, i in tokenizer.get_added_vocab().items() if i >= rows]
    if tokenizer.vocab_size > rows:
        missing.append((rows, tokenizer.convert_ids_to_tokens(rows)))
    if missing:
        number, token = min(missing)
        raise InputError(
            f"The tokenizer of the {what} {name!r} has the token {token!r} with id {number}, but the "
            f"model's embeddings have {rows} rows; call resize_token_embeddings({len(tokenizer)}) on "
            "the model and save it again, or remove the token."
        )


def context_length(model: Any) -> int:
    """The longest sequence that the model supports; a very large number if its configuration has
    none."""
    for key in ("max_position_embeddings", "n_positions", "max_sequence_length"):
        value = getattr(model.config, key, None)
        if isinstance(value, int) and value > 0:
            return value - architecture.first_position(model)
    return 1 << 30


def stop_tokens(model: Any, tokenizer: Any, name: str, *, also: int | None = None) -> list[int]:
    """Every token that ends a response, from the generation settings, the tokenizer and its chat
    template (`also`). The model's generation settings get them all, so that a policy that is saved
    ends its answers in other programs too."""
    tokens: list[int] = []
    settings = getattr(model, "generation_config", None)
    for eos in (getattr(settings, "eos_token_id", None), tokenizer.eos_token_id):
        for token in eos if isinstance(eos, list) else [eos]:
            if token is not None and token not in tokens:
                tokens.append(token)
    if not tokens:
        raise InputError(
            f"The tokenizer of {name!r} has no end-of-sequence token; a response could never end. "
            "Set eos_token in its tokenizer_config.json."
        )
    if also is not None and also not in tokens:
        tokens.append(also)
        if settings is not None:
            settings.eos_token_id = list(tokens)
    return tokens


def disable_dropout(model: nn.Module) -> None:
    """Switch dropout off, in training mode too.

    With dropout the update's log-probabilities would belong to another policy than the sampled one
    (summarize_from_feedback_details, detail 12).
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


def _check_source(name: str, what: str) -> None:
    """`InputError` for a name that is no model folder, no GGUF file and no name on the hub."""
    path = Path(name)
    if gguf_files.is_gguf(name):
        gguf_files.check(path, what)
    elif path.is_file():
        raise InputError(
            f"The {what} {name!r} is a single file that is not GGUF; name the folder that holds "
            "config.json and the *.safetensors files."
        )
    elif path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(_without_config(path, what))
        check_weights(path, what)
    elif path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or not name:
        raise InputError(f"The {what} folder {name!r} does not exist.")


def _without_config(path: Path, what: str) -> str:
    """Why a folder without config.json is not a model, by what else is in it."""
    files = sorted(p.name for p in path.glob("*.gguf"))
    if files:
        return f"The {what} folder {str(path)!r} holds {files[0]}; name that file itself."
    return f"The {what} folder {str(path)!r} has no config.json; is it a model?"


def check_weights(path: Path, what: str) -> None:
    if not path.is_dir():
        raise InputError(f"The {what} folder {str(path)!r} does not exist.")
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        other = sorted(p.name for p in path.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
        if other:
            raise InputError(
                f"The {what} {str(path)!r} holds {other[0]}, a pickle, which can run code when it "
                "is opened; save the model as safetensors first."
            )
        raise InputError(f"The {what} folder {str(path)!r} has no *.safetensors file.")
    for file in weights:
        with file.open("rb") as opened:
            start = opened.read(9)
        # A pickle under another name: protocol 2 and up, or the zip archive that torch.save makes.
        if (start[:1] == b"\x80" and start[8:9] != b"{") or start[:4] == b"PK\x03\x04":
            raise InputError(
                f"{file.name} of the {what} {str(path)!r} is a pickle by another name, which can "
                "run code when it is opened; save the model as safetensors first."
            )


def check_finite(model: nn.Module, name: str, what: str) -> None:
    for parameter_name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise InputError(
                f"The {what} {name!r} holds NaN or infinity in {parameter_name}; "
                "take a checkpoint from before it broke."
            )


def reading_error(error: Exception, name: str, what: str) -> InputError:
    if Path(name).exists():
        reason = " ".join(str(error).split())[:200]
        return InputError(f"The {what} in {name!r} can't be read: {reason}")
    return InputError(
        f"The {what} {name!r} is not a folder here and can't be had from the model hub "
        f"({type(error).__name__}); give the path of a local model folder, or check name and network."
    )
