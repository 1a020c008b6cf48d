"""Text that a model or a file wrote, made safe to look at: in a terminal, in HTML, in a log.

Not an escape for HTML (Jinja2 does that) and not reversible: it is for the eye only.
"""

import re

# C0 and C1 except tab and line feed; every character of Unicode category Cf (bidi, zero-width, tags), Zl, Zp, Cs; the
# blank fillers and variation selectors, which show as nothing and can carry hidden data.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def visible(text: str) -> str:
    """Shows control, bidi and zero-width characters, lone surrogates and fillers as \\x1b, \\u202e, \\U000e0041.

    Tab and line feed stay. The result holds no character that moves a cursor, hides, or reorders text.
    """
    return _INVISIBLE.sub(_escape, text)


def clip(text: str, limit: int) -> str:
    """The first `limit` characters; what was cut off is counted, never silent."""
    return text if len(text) <= limit else f"{text[:limit]} … [{len(text) - limit} more characters]"


def _escape(match: re.Match) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
