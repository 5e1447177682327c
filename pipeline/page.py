"""Self-contained HTML pages from the templates in `pages/`: nothing in them is loaded from elsewhere."""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

PAGES = Path(__file__).parent / "pages"


def render_page(
    template: str, styles: Sequence[str], script: str, data: dict[str, Any], **values: Any
) -> str:
    """A page of `pages/`, self-contained. Every value is escaped; the script alone may run."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    css = "\n".join((PAGES / name).read_text(encoding="utf-8") for name in styles)
    return environment.get_template(template).render(
        css=Markup(css),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        data=Markup(script_json(data)),
        **values,
    )


def script_json(value: Any) -> str:
    """JSON that may stand inside a `<script>` element: no text in it can end that, or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
