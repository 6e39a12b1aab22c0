"""What a text means as a value of its column: the one place where a `Reading` is applied, for uploads, for training
and for requests. Costs nothing to import."""

import contextlib
import re
from collections.abc import Mapping
from functools import lru_cache

from parvada.schema import Reading

MISSING = frozenset(
    {"", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "-nan", "-NaN", "null", "NULL", "Null", "?"}
)
"""Texts that stand for a missing value where a reading names none. Fixed: data that is kept relies on them."""
TEXT = Reading()
"""Of most columns of a text file."""
TYPED, TYPED_VALUE = Reading(typed=True, trim=False, missing=()), Reading(typed=True)
"""Of strings that came with their type, which are what they are; and of numbers, dates and booleans that did."""
QUOTED = Reading(typed=True, trim=False)
"""Of texts that their writer put in quotes, while it put none around numbers."""

SPACES, APOSTROPHES = " \u00a0\u2009\u202f", "'\u2019"
GROUPINGS: Mapping[str, str] = {
    "": "",
    ",": ",",
    ".": r"\.",
    " ": f"[{SPACES}]",
    "'": f"[{APOSTROPHES}]",
}
"""Separators of thousands, each with the regular expression of its variants."""
MINUS = "\u2212"
UNITS: tuple[str, ...] = (
    "%",
    "\u2030",
    "US$",
    "R$",
    *"$\u20ac\u00a3\u00a5\u20b9",
    "USD",
    "EUR",
    "GBP",
    "CHF",
    "JPY",
    "kr",
)
"""Signs that a whole column of numbers may carry."""
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.ASCII | re.IGNORECASE)


@lru_cache(maxsize=1024)
def missing_of(reading: Reading) -> frozenset[str]:
    """The texts, trimmed if the reading trims, that stand for a missing value."""
    return MISSING if reading.missing is None else frozenset({"", *reading.missing})


def codes_of(reading: Reading) -> frozenset[float]:
    """The numbers among the texts that stand for a missing value, as -999: they do so as numbers too."""
    return _codes(reading) if reading.told else frozenset()


@lru_cache(maxsize=256)
def _codes(reading: Reading) -> frozenset[float]:
    found = set[float]()
    for token in reading.told:
        for form in (reading, TEXT):
            with contextlib.suppress(ValueError):
                found.add(float(plain_number(token, form)))
    return frozenset(found)


def string_of(text: str, reading: Reading) -> str | None:
    """The value that `text` is, None if it is missing."""
    found = text.strip() if reading.trim else text
    if reading.typed and reading.mixed and reading.trim and found.lower() in ("true", "false"):
        return found.lower()  # a boolean that was made a label is written as JSON writes it
    return None if found in missing_of(reading) else found


def number_of(text: str, reading: Reading) -> float | None:
    """The number that `text` is, None if it is missing. Raises ValueError if it is none."""
    found = text.strip()
    if found in missing_of(reading):
        return None
    number = float(plain_number(found, reading))
    return None if number in codes_of(reading) else number


def plain_number(text: str, reading: Reading) -> str:
    """A number of a column's form as Python writes it. Raises ValueError if it has another form."""
    found = without_unit(text.replace(MINUS, "-"), reading.unit)
    if reading.decimal == "." and not reading.grouping and _INFINITE.fullmatch(found):
        return found  # for the caller to refuse
    if _form(reading.decimal, reading.grouping).fullmatch(found) is None:
        raise ValueError(f"{text!r} is not a number of the form that the column has")
    if reading.grouping:
        found = re.sub(GROUPINGS[reading.grouping], "", found)
    return found.replace(reading.decimal, ".")


def is_number(text: str) -> bool:
    """Whether the text is a number of any form, without a sign of percent or currency."""
    found = text.strip().replace(MINUS, "-")
    return any(_form(decimal, grouping).fullmatch(found) for decimal in ".," for grouping in GROUPINGS)


def without_unit(text: str, unit: str) -> str:
    """`-$5`, `$-5`, `5 %`: the number alone. A text without the sign stays as it is."""
    if not unit or unit not in text:
        return text
    sign = "-" if text.startswith("-") else ""
    rest = text.removeprefix("-").strip(SPACES)
    if rest.startswith(unit):
        return sign + rest.removeprefix(unit).strip(SPACES)
    return sign + rest.removesuffix(unit).strip(SPACES)


def number_form(decimal: str, grouping: str) -> str:
    """The regular expression of a number of that form, with or without its grouping. A leading zero belongs to a zip
    code or an account, and makes no number."""
    mark = re.escape(decimal)
    plain = rf"((0|[1-9]\d*)({mark}\d*)?|{mark}\d+)([eE][+-]?\d+)?"
    if not grouping:
        return rf"([+-]?{plain})"
    # With a plus sign and spaces it is somebody's telephone.
    sign = "[+-]?" if grouping != " " else "-?"
    return rf"([+-]?{plain}|{sign}[1-9]\d{{0,2}}({GROUPINGS[grouping]}\d{{3}})+({mark}\d+)?)"


@lru_cache(maxsize=32)
def _form(decimal: str, grouping: str) -> re.Pattern[str]:
    return re.compile(number_form(decimal, grouping), re.ASCII)


# ---------------------------------------------------------------- dates
ISO_DATE = r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}(:?\d{2})?)?)?"
"""A date or time of ISO 8601 in the forms that are in use."""
_DATED = re.compile(r"\s*[+-]?\d{4}")


def is_dated(text: str) -> bool:
    """Whether the text begins with a year: `now` and its like mean another time whenever they are asked."""
    return _DATED.match(text) is not None


_MONTHS = {
    "January": "jan january januar janv janvier enero ene gennaio gen januari janeiro",
    "February": "feb february februar févr fevr février fevrier febrero febbraio februari fevereiro fev",
    "March": "mar march mär märz maerz mrz mars marzo maart março marco mrt",
    "April": "apr april avr avril abril abr aprile",
    "May": "may mai mayo maggio mag mei maio",
    "June": "jun june juni juin junio giugno giu junho",
    "July": "jul july juli juil juillet julio luglio lug julho",
    "August": "aug august août aout agosto ago augustus",
    "September": "sep sept september septembre septiembre settembre set setembro",
    "October": "oct october okt oktober octobre octubre ottobre ott outubro out",
    "November": "nov november novembre noviembre novembro",
    "December": "dec december dez dezember déc décembre decembre diciembre dic dicembre december dezembro",
}
_MONTH_OF = {word: month for month, words in _MONTHS.items() for word in words.split()}
_WORD = re.compile(r"[^\W\d_]{3,}")


def named_month(text: str) -> str:
    """`1. Mai 2024` and its like in several languages as `1 May 2024`; a text without the name of a month as it is."""
    found = _WORD.search(text)
    month = _MONTH_OF.get(found[0].lower()) if found is not None else None
    if found is None or month is None:
        return text
    return " ".join(re.sub(r"[.,/-]", " ", f"{text[: found.start()]} {month} {text[found.end() :]}").split())


_PARTS = {
    "%d": r"(0?[1-9]|[12]\d|3[01])",
    "%m": r"(0?[1-9]|1[0-2])",
    "%Y": r"\d{4}",
    "%y": r"\d{2}",
    "%H": r"([01]?\d|2[0-3])",
    "%M": r"[0-5]\d",
    "%S": r"[0-5]\d",
    "%B": f"({'|'.join(_MONTHS)})",
}


def date_form(date: str) -> str:
    """The regular expression of the dates that `datetime.strptime` takes with this format."""
    return re.sub(r"%[a-zA-Z]", lambda part: _PARTS.get(part[0], ".+"), re.escape(date).replace(r"\%", "%"))


_NUMERIC_DATE = re.compile(r"(\d{1,4})([/.\-])(\d{1,2})\2(\d{1,4})(?:([ T])\d{1,2}:\d{2}(:\d{2})?)?", re.ASCII)
_NAMED_DATE = re.compile(r"(\d{1,2} )?[A-Z][a-z]+ (\d{1,2} )?(\d{4}|\d{2})(?: \d{1,2}:\d{2}(:\d{2})?)?", re.ASCII)


def date_formats(text: str) -> tuple[str, ...]:
    """The formats, beside ISO 8601, that this date may have: two where day and month may be either way round."""
    if named := _NAMED_DATE.fullmatch(named_month(text)):
        time = " %H:%M:%S" if named[4] else " %H:%M" if ":" in text else ""
        day_and_month = "%d %B" if named[1] else "%B %d"
        full = "%Y" if len(named[3]) == 4 else "%y"
        return (f"{day_and_month} {full}{time}",) if bool(named[1]) != bool(named[2]) else ()
    found = _NUMERIC_DATE.fullmatch(text)
    if found is None:
        return ()
    mark, time = found[2], f"{found[5]}%H:%M" + (":%S" if found[6] else "") if found[5] else ""
    if len(found[1]) == 4 and len(found[4]) <= 2:
        return (f"%Y{mark}%m{mark}%d{time}",)
    year = {4: "%Y", 2: "%y"}.get(len(found[4]))
    if year is None or len(found[1]) > 2:
        return ()
    short = year == "%y"
    if mark == ".":
        # With dots the day comes first wherever dates are written so; numbers of versions have no zeros before them.
        orders = [] if short and re.match(r"\d\d\.\d\d\.", text) is None else [("%d", "%m", year)]
    else:
        orders = [("%d", "%m", year), ("%m", "%d", year), *([("%y", "%m", "%d")] if short else [])]
    return tuple(mark.join(order) + time for order in orders)
