"""The report's words: one module for each language, with the same keys and the same placeholders.

A `Language` is chosen once, when a page is written, and handed down; nothing here knows an arm, a chart or a page. What
a run's files say (names, hashes, reasons in English) is put into the sentences, never translated.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from poc.records import InputError
from poc.report.language import en, ja
from poc.text import clip, visible


@dataclass(frozen=True)
class Language:
    """The words of one language. `rules`: what each rule of the guard means; `glossary`: term and explanation."""

    code: str
    text: Mapping[str, str]
    rewards: Mapping[str, str]
    rules: Mapping[str, str]
    glossary: Mapping[str, tuple[str, str]]

    def __call__(self, key: str, /, **values) -> str:
        """The sentence `key` with its placeholders filled. KeyError: a key or a placeholder that is not there."""
        return self.text[key].format(**values)

    def count(self, noun: str, n: int) -> str:
        """ "1 arm", "7 arms" """
        return self(f"{noun}.one" if n == 1 else f"{noun}.many", n=n)

    def markup(self, key: str, /, **values) -> Markup:
        """The same as HTML: values that are not markup already are made visible and escaped."""
        safe = {k: v if isinstance(v, Markup) else visible(str(v)) for k, v in values.items()}
        return Markup(self.text[key]).format(**safe)


LANGUAGES = {
    module.CODE: Language(module.CODE, module.TEXT, module.REWARDS, module.RULES, module.GLOSSARY)
    for module in (en, ja)
}


def load(code: str) -> Language:
    """The language `code`. InputError names those there are."""
    if code not in LANGUAGES:
        raise InputError(f"--language {clip(visible(code), 40)}: this report is written in {' or '.join(LANGUAGES)}")
    return LANGUAGES[code]


def logged(text: str, limit: int = 400) -> Markup:
    """What a file says, word for word: as code, in the language it was written in."""
    return Markup('<code translate="no">{}</code>').format(clip(visible(text), limit))
