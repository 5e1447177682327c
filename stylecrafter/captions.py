"""Captions without their style: what a text should say when the style comes from a reference picture.

The rules are written for captions as BLIP-2 makes them ("a watercolor painting of a dog, in the style of
monet"). They rather leave a style phrase in than take content out: a medium goes only where it can be
nothing else, so "a man painting a fence" and "a painting on a wall" stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


def _any(*words: str) -> str:
    """One of these, longest first; "_" stands for a space or a hyphen."""
    ordered = sorted(" ".join(words).split(), key=len, reverse=True)
    return "(?:" + "|".join(ordered).replace("_", "[ -]") + ")"


# ---- Words ---------------------------------------------------------------------------------------

_MATERIAL = _any(
    "oil oils acrylic acrylics watercolou?r watercolou?rs ink pencil colou?red_pencil charcoal pastel pastels",
    "crayon crayons chalk gouache tempera pen_and_ink ink_and_wash pen",
)
_ART = _any(
    "cartoon anime manga comic comic_book pixel_art pop_art ukiyo_e impressionist impressionistic",
    "expressionist cubist surrealist pointillist low_poly hand_drawn vector line_art disney pixar ghibli",
    "stylized stylised oil_painting watercolou?r pencil_sketch",
)
_PERIOD = _any(
    "abstract surreal realistic photorealistic hyperrealistic minimalist psychedelic baroque renaissance",
    "medieval gothic japanese chinese victorian modern contemporary classical traditional romantic",
)
_LOOK = _any(
    "black_and_white monochrome sepia colou?r colou?rful digital 3d 2d flat isometric woodblock woodcut line",
    "beautiful detailed simple old vintage antique classic framed large small stock realist fine_art",
)
_BEFORE = f"(?:(?:{_ART}|{_PERIOD}|{_LOOK}|{_MATERIAL}|style)[ -])"
_MEDIUM = _any(
    "painting drawing sketch illustration photo photograph picture image print engraving etching lithograph",
    "artwork art render rendering animation cartoon anime clip_art clipart line_art pixel_art pop_art mural",
    "fresco doodle caricature watercolou?r woodcut cgi vector",
)
_SURFACE = "(?:canvas|paper|panel|board|wood|linen|silk)"
_ARTIST = _any(
    "(?:vincent_)?van_gogh (?:claude_)?monet (?:pablo_)?picasso (?:salvador_)?dal[ií] rembrandt hokusai",
    "(?:edvard_)?munch (?:gustav_)?klimt (?:henri_)?matisse (?:paul_)?c[eé]zanne (?:andy_)?warhol",
    "(?:roy_)?lichtenstein (?:jackson_)?pollock vermeer (?:edgar_)?degas renoir gauguin seurat kandinsky",
    "mir[oó] chagall magritte hiroshige botticelli caravaggio banksy (?:da_)?vinci michelangelo raphael",
    "(?:thomas_)?kinkade (?:bob_)?ross turner d[uü]rer (?:alphonse_|alfons_)?mucha basquiat hopper",
    "(?:georgia_)?o'keeffe (?:frida_)?kahlo (?:greg_)?rutkowski (?:studio_)?ghibli miyazaki",
)
_TAG_ART = (
    f"(?:{_BEFORE}+(?:painting|drawing|sketch|illustration|print|photo|photograph|photography|render|rendering)"
    f"|(?:{_BEFORE}*(?:digital|concept|pixel|line|vector|pop|fan|clip|fantasy)[ -]art)"
    f"|{_MATERIAL} on {_SURFACE}|(?:unreal|octane|blender) ?(?:engine|render)?(?: \\d)?)"
)
_TAG_QUALITY = (
    "(?:trending on artstation|artstation(?: hq)?|deviantart|(?:highly|very|intricately) detailed|[48]k(?: hd)?"
    "|u?hd|masterpiece|award[ -]winning|watercolou?r|artwork|cartoon|anime|sharp focus|high quality)"
)

# A name goes on until a word that starts something else.
_NOT_NAME = r"(?:(?:an?|the|with|without|on|at|in|of|and|or|by|near|under|over|for|from|to|while|who|that)\b|\w+ing\b)"
_NAME = rf"(?!{_NOT_NAME})[\w'’.-]*\w"
_NAMES = rf"(?:the )?{_NAME}(?: {_NAME}){{0,4}}(?: and {_NAME}(?: {_NAME}){{0,3}})?"
_CAPITAL = r"[A-ZÀ-Þ][\w'’.-]*\w"
_PLACE = (
    r"(?:Lake|Mount|Mt|River|Bay|Sea|Beach|Street|Bridge|Park|Castle|Tower|City|Hill|House|Hall|Avenue|Road"
    r"|Square|Ocean|Canal|Station|The|A|An|Night|Day|Moonlight)"
)
_CAPITAL_NAME = (
    rf"(?!(?:{_CAPITAL} )*{_PLACE}\b){_CAPITAL}(?: (?:van|von|de|da|der|del|la|{_CAPITAL})){{0,4}}"
)
# After these, a medium is a thing in the picture.
_NOT_BEFORE_MEDIUM = (
    r"(?:an?|the|of|at|on|in|to|with|and|or|for|from|by|her|his|its|their|my|your|this|that|many|some|more|\w+ing"
    r"|large|small|big|old|new|beautiful|colou?rful|framed|displays?|sells?|makes?|holds?|shows?)"
)
_DRAWN_LOOK = _any("cartoon anime manga stylized stylised hand_drawn pixel_art low_poly")
# With these after it, such a word is no style of the picture.
_NOT_AFTER_LOOK = (
    "(?:convention|figure|figurine|poster|shop|store|show|network|strip|studio|series|movie|film|magazine|book"
    "|museum|fan|festival|art|style|drawing|painting|of|in|on|at|is|and|with|by|showing|depicting|featuring)"
)
_SHOWS = r"(?:of|depicting|showing|featuring|that (?:shows|depicts)|which (?:shows|depicts))"


_END = r"(?=\s*(?:[,.;:!]|$))"
_DONE = r"(?:(?:painted|drawn|done|made|rendered|created|illustrated) )?"


@dataclass(frozen=True)
class _Rule:
    """A pattern that goes, what stays of it, and words one of which it needs: looking for them is cheap."""

    needs: tuple[str, ...]
    pattern: re.Pattern[str]
    replacement: str | Callable[[re.Match[str]], str] = ""


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


def _with_article(found: re.Match[str]) -> str:
    """What stands before a removed adjective; its "a" or "an" is made to fit the next letter."""
    before, article, following = found.groups()
    if not article:
        return before
    return before + article[0] + ("n " if following.lower() in "aeiou" else " ")


_RULES = (
    # "a watercolor painting of", "this is a black and white photo showing"
    _Rule(
        (" of ", "showing", "shows", "depict", "featuring"),
        _compiled(
            rf"^\s*(?:(?:this|there|it) is )?(?:(?:an?|the|this) )?{_BEFORE}*{_MEDIUM}(?: (?:art|style|print))? "
            rf"{_SHOWS} (?=\w)"
        ),
    ),
    # ", painted in the style of van gogh", "in the manner of the old masters"
    _Rule(
        ("style of", "manner of"),
        _compiled(rf",?\s*\b{_DONE}in (?:the|an?) (?:\w+ )?(?:style|manner) of {_NAMES}"),
    ),
    # "in a cartoon style", "in impressionist style", "in van gogh style"
    _Rule(
        ("style",),
        _compiled(
            rf",?\s*\b{_DONE}in (?:an? |the )?(?:{_BEFORE}*(?:{_ART}|{_LOOK}|{_MATERIAL})|{_ARTIST})"
            rf"(?:'s)?[ -]style\b{_END}"
        ),
    ),
    # "painted in watercolor", "drawn with colored pencils on paper"
    _Rule(
        (" in ", " with "),
        _compiled(
            rf",?\s*\b(?:painted|drawn|done|made|rendered|created|sketched|illustrated) (?:in|with) "
            rf"{_MATERIAL}s?(?: on {_SURFACE})?{_END}"
        ),
    ),
    # "by an unknown artist", "by artist jane doe"
    _Rule(
        ("artist", "painter", "illustrator", "photographer"),
        _compiled(
            rf",?\s*\b{_DONE}by (?:an? |the )?(?:unknown |anonymous )?"
            rf"(?:artist|painter|illustrator|photographer)(?: {_NAME}){{0,4}}{_END}"
        ),
    ),
    # "by monet", "painted by vincent van gogh"
    _Rule(("by ",), _compiled(rf",?\s*\b{_DONE}by {_ARTIST}{_END}")),
    # "by Jane Doe", but not "standing by Lake Como", "surrounded by Japanese maples"
    _Rule(
        ("by ",),
        re.compile(rf",?\s*\b(?:painted|drawn|created|illustrated|photographed) by {_CAPITAL_NAME}{_END}"),
    ),
    _Rule(
        ("by ",),
        re.compile(rf"((?:,|\b(?!\w*(?:ed|en|own|ing)\b)[\w'’]+))\s+by {_CAPITAL_NAME}{_END}"),
        r"\1",
    ),
    # "a dog oil on canvas", "a castle digital art", but not "a wall full of digital art"
    _Rule(
        ("art", "painting", "illustration", "photo", " on "),
        _compiled(
            rf"\b(?!{_NOT_BEFORE_MEDIUM}\b)([\w'’]+)\s+(?:{_MATERIAL} on {_SURFACE}"
            r"|(?:digital|pixel|concept|vector|clip)[ -]art|(?:oil|watercolou?r|acrylic|digital)[ -]painting"
            rf"|(?:vector|digital|stock)[ -]illustration|stock photo(?:graphy)?){_END}"
        ),
        r"\1",
    ),
    # "a castle, anime style", "a cartoon-style elephant"
    _Rule(("style",), _compiled(rf",?\s*\b(?:{_ART}|{_ARTIST})(?:'s)?[ -]styled?\b{_END}")),
    _Rule(
        ("style",),
        _compiled(rf"()(?:\b(an?) )?\b(?:{_ART}|{_ARTIST})(?:'s)?[ -]styled? (?=(\w))"),
        _with_article,
    ),
    # "an anime girl", but not "an anime convention"
    _Rule(
        ("cartoon", "anime", "manga", "styli", "drawn", "pixel", "poly"),
        _compiled(
            rf"^(\s*(?:(?:the|two|three|some) )?)(?:(an?) )?{_DRAWN_LOOK} "
            rf"(?!{_NOT_AFTER_LOOK}s?\b)(?=([a-z]))"
        ),
        _with_article,
    ),
)
_TAG = re.compile(rf"\s*(?:an? )?(?:{_TAG_ART}|{_TAG_QUALITY}|{_ART} style)[\s.!]*", re.IGNORECASE)
_ONLY_LITTLE = re.compile(r"[\W_]*(?:(?:an?|the|this|it|is|there|and|of|by|in)\b[\W_]*)*", re.IGNORECASE)


def remove_style_phrases(caption: str) -> str:
    """The caption without phrases that name medium, technique, artist or rendering.

    Pure and idempotent. A caption without such phrases comes back as it is, and one that consists of
    nothing else too: the result of a caption that is not empty is never empty.
    """
    text = caption
    # Removing one phrase may bring another to the front; every round shortens the text, so it ends.
    while (shorter := _one_round(text)) != text:
        text = shorter
    return text


def _one_round(text: str) -> str:
    lower = text.lower()
    for rule in _RULES:
        if any(word in lower for word in rule.needs):
            text = _keep_content(text, rule.pattern.sub(rule.replacement, text))
    if "," in text:
        first, *others = text.split(",")
        text = _keep_content(text, ",".join([first, *(part for part in others if not _TAG.fullmatch(part))]))
        if _TAG.fullmatch(first) and others:
            text = _keep_content(text, ",".join(text.split(",")[1:]))
    return text


def _keep_content(before: str, after: str) -> str:
    """`after`, tidied up, or `before` if nothing changed or hardly anything is left."""
    if after == before or _ONLY_LITTLE.fullmatch(after):
        return before
    tidy = re.sub(r"\s+([,.;:!])", r"\1", re.sub(r"\s+", " ", after)).strip(" ,;:")
    return tidy[:1].upper() + tidy[1:] if before.lstrip()[:1].isupper() else tidy
