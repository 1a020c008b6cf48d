"""A question becomes the token ids of a prompt: bare, plain or chat (see poc.config.Prompt).

Knows tokenizers only. What a dataset puts in a question is text to it: no template is taken from data.
"""

from functools import lru_cache

from jinja2 import TemplateError

from poc.records import InputError, Messages
from poc.sources import first_part

# Special tokens that end a turn or a document: a model may know one that neither its tokenizer's eos nor its generation
# config names (SmolLM2, Qwen; Gemma; Gemma 4; Llama 3; Phi; GPT-2 and others; Granite, Llama 3 base).
ENDS = ("<|im_end|>", "<end_of_turn>", "<turn|>", "<|eot_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>")
MARK = "xyzzy"  # stands for a message while a template is tried


def default_format(source: str, tokenizer, role: str | None = None) -> str:
    """bare for lab:base (and a mix that starts with it), plain for the role base or without a template, else chat."""
    if first_part(source) == "lab:base":
        return "bare"
    return "chat" if tokenizer.chat_template and role != "base" else "plain"


def render(question: str | Messages, tokenizer, style: str, instruction: str = "") -> list[int]:
    """Token ids of the prompt; `style` is bare (which has no place for an instruction), plain or chat.

    The begin-of-text token appears as the tokenizer adds it to plain text, and never twice. Raises InputError when the
    chat template is missing or refuses the messages.
    """
    if style == "chat":
        return _chat_ids(_chat_text(question, tokenizer, instruction), tokenizer)
    text = _joined(question)
    if style == "plain":
        text = f"{instruction}\n\nQuestion: {text}\nAnswer:" if instruction else f"Question: {text}\nAnswer:"
    else:
        text += "\n"
    return _plain_ids(text, tokenizer)


def end_of_turn_ids(tokenizer) -> set[int]:
    """Ids of the known end tokens in the vocabulary, and of the one that the chat template puts after an answer."""
    found = {name: tokenizer.convert_tokens_to_ids(name) for name in ENDS}
    ids = {i for name, i in found.items() if i is not None and tokenizer.convert_ids_to_tokens(i) == name}
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": MARK}]
        tail = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(MARK)[2]
        special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
        ids.update([i for i in tokenizer.encode(tail, add_special_tokens=False) if i in special][:1])
    return ids


def _joined(question: str | Messages) -> str:
    if isinstance(question, str):
        return question
    if len(question) == 1:
        return question[0]["content"]
    return "\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in question)


def _plain_ids(text: str, tokenizer) -> list[int]:
    ids = list(tokenizer(text)["input_ids"])
    added = tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id  # some are saved so that they end every text
    return ids[:-1] if added else ids


def _chat_ids(text: str, tokenizer) -> list[int]:
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    bos = tokenizer.bos_token_id
    adds = bos is not None and tokenizer("a")["input_ids"][0] == bos
    return [bos, *ids] if adds and ids[:1] != [bos] else ids


def _chat_text(question: str | Messages, tokenizer, instruction: str) -> str:
    if not tokenizer.chat_template:
        raise InputError("prompt.format: chat, but this model's tokenizer has no chat template: use plain")
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else [dict(m) for m in question]
    system = messages.pop(0)["content"] if messages and messages[0]["role"] == "system" else ""
    system = "\n\n".join(part for part in (system, instruction) if part)
    if system and _takes_system(tokenizer, tokenizer.chat_template):
        messages.insert(0, {"role": "system", "content": system})
    elif system:
        first = next((m for m in messages if m["role"] == "user"), None)
        if first is None:
            raise InputError(f"prompt: no user message to put the instruction in front of, in {messages}")
        first["content"] = f"{system}\n\n{first['content']}"
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        roles = [m["role"] for m in messages]
        raise InputError(f"prompt: the chat template refuses messages with roles {roles}: {error}") from None


@lru_cache(maxsize=16)
def _takes_system(tokenizer, template: str) -> bool:
    """Gemma's templates raise on a system message; others drop it silently."""
    turns = [{"role": "system", "content": MARK}, {"role": "user", "content": "?"}]
    try:
        return MARK in tokenizer.apply_chat_template(turns, tokenize=False, chat_template=template)
    except TemplateError:
        return False
