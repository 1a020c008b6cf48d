import pytest
from tokenizers.processors import TemplateProcessing

from poc.lab import tokenizer as lab_tokenizer
from poc.prompts import default_format, end_of_turn_ids, render
from poc.records import InputError

NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
DROPS_SYSTEM = NO_SYSTEM.replace("{{ raise_exception('System role not supported') }}", "").replace(
    "{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}"
)
USER = ({"role": "user", "content": "2+2?"},)
TALK = (
    {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "2+2?"},
)  # fmt: skip


@pytest.fixture
def plain():
    return lab_tokenizer.build(chat=False)


@pytest.fixture
def chat():
    return lab_tokenizer.build(chat=True)


def with_bos(tokenizer, before="<system> $A"):
    """The tokenizer, now adding <system> as its begin-of-text token to plain text."""
    tokenizer.bos_token = "<system>"
    special = [(x, tokenizer.convert_tokens_to_ids(x)) for x in ("<system>", "<eos>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=before, special_tokens=special)
    return tokenizer


def text(ids, tokenizer):
    return tokenizer.decode(ids)


def test_bare_and_plain(plain):
    shown = lambda *args: text(render(*args), plain)  # noqa: E731
    assert shown("2+2?", plain, "bare", "Think.") == "2+2?\n"
    assert shown("2+2?", plain, "plain", "Think.") == "Think.\n\nQuestion: 2+2?\nAnswer:"
    assert shown("2+2?", plain, "plain", "") == "Question: 2+2?\nAnswer:"
    assert shown(USER, plain, "bare", "") == "2+2?\n"
    assert shown(TALK[1:], plain, "bare", "") == "User: Hi\nAssistant: Hello\nUser: 2+2?\n"


def test_chat_puts_the_instruction_in_the_system_message(chat):
    shown = lambda *args: text(render(*args), chat)  # noqa: E731
    assert shown("2+2?", chat, "chat", "Think.") == "<system>Think.<user>2+2?<assistant>"
    assert shown("2+2?", chat, "chat", "") == shown(USER, chat, "chat", "") == "<user>2+2?<assistant>"
    end = "<user>Hi<assistant>Hello<eos><user>2+2?<assistant>"
    assert shown(TALK, chat, "chat", "Think.") == f"<system>Be kind.\n\nThink.{end}"
    assert shown(TALK, chat, "chat", "") == f"<system>Be kind.{end}"
    assert TALK[1] == {"role": "user", "content": "Hi"}  # the caller's messages stay as they were


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM])
def test_without_a_system_role_the_instruction_goes_to_the_first_user_message(chat, template):
    chat.chat_template = template
    assert text(render("2+2?", chat, "chat", "Think."), chat) == "<user>Think.\n\n2+2?<eos><assistant>"
    shown = text(render(TALK, chat, "chat", "Think."), chat)
    assert shown == "<user>Be kind.\n\nThink.\n\nHi<eos><assistant>Hello<eos><user>2+2?<eos><assistant>"


def test_the_template_in_use_decides_not_an_earlier_one(chat):
    render("2+2?", chat, "chat", "Think.")
    chat.chat_template = NO_SYSTEM
    assert text(render("2+2?", chat, "chat", "Think."), chat).startswith("<user>Think.")


@pytest.mark.parametrize("in_template", [True, False])
def test_bos_appears_exactly_once_where_the_tokenizer_adds_it(chat, in_template):
    with_bos(chat)
    if in_template:
        chat.chat_template = "<system>" + NO_SYSTEM
    ids = render("2+2?", chat, "chat", "")
    assert ids[0] == chat.bos_token_id and ids.count(chat.bos_token_id) == 1
    for style in ("bare", "plain"):
        ids = render("2+2?", chat, style, "")
        assert ids[0] == chat.bos_token_id and ids.count(chat.bos_token_id) == 1


def test_no_bos_where_the_tokenizer_adds_none(chat):
    chat.bos_token = "<user>"  # as SmolLM2 names its turn token
    assert render("2+2?", chat, "bare", "") == chat.encode("2+2?\n")
    chat.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert render("2+2?", chat, "chat", "") == chat.encode("2+2?")


def test_an_end_token_that_the_tokenizer_adds_is_not_part_of_a_prompt(plain):
    with_bos(plain, "<system> $A <eos>")
    assert render("2+2?", plain, "bare", "") == [plain.bos_token_id, *plain.encode("2+2?\n", add_special_tokens=False)]


def test_what_cannot_be_rendered_is_an_input_error(plain, chat):
    with pytest.raises(InputError, match="no chat template: use plain"):
        render("2+2?", plain, "chat", "")
    chat.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InputError, match="roles must alternate"):
        render("2+2?", chat, "chat", "")
    with pytest.raises(InputError, match="no user message"):
        render(({"role": "assistant", "content": "x"},), chat, "chat", "Think.")


@pytest.mark.parametrize(
    "source, role, has_template, expected",
    [
        ("lab:base", None, False, "bare"), ("lab:base", "base", False, "bare"), ("lab:base", "instruct", False, "bare"),
        ("mix:lab:base+lab:instruct@0.9", None, False, "bare"), ("mix:lab:instruct+lab:base@0.9", None, True, "chat"),
        ("lab:instruct", None, True, "chat"), ("owner/name", "base", True, "plain"), ("owner/name", None, True, "chat"),
        ("owner/name", "instruct", True, "chat"), ("owner/name", "instruct", False, "plain"),
        ("owner/name", None, False, "plain"),
    ],
)  # fmt: skip
def test_default_format(plain, chat, source, role, has_template, expected):
    assert default_format(source, chat if has_template else plain, role) == expected


def test_end_of_turn_ids(plain, chat):
    assert end_of_turn_ids(plain) == set()
    assert end_of_turn_ids(chat) == {chat.eos_token_id}
    chat.add_special_tokens({"additional_special_tokens": ["<|im_end|>", "<stop>"]})
    assert end_of_turn_ids(chat) == {chat.eos_token_id, chat.convert_tokens_to_ids("<|im_end|>")}
    chat.chat_template = chat.chat_template.replace("<eos>", "\n<stop><user>")
    assert end_of_turn_ids(chat) == set(chat.convert_tokens_to_ids(["<stop>", "<|im_end|>"]))  # and not <user>
    chat.chat_template = chat.chat_template.replace("\n<stop><user>", "")
    assert end_of_turn_ids(chat) == {chat.convert_tokens_to_ids("<|im_end|>")}
