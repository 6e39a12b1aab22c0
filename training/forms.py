"""The forms that texts of numbers and dates may have, matched for whole columns at once."""

import pyarrow as pa
import pyarrow.compute as pc

from parvada import texts
from parvada.columns import dates_of
from parvada.schema import Reading

Style = tuple[str, str]
STYLES: tuple[Style, ...] = (
    *((".", grouping) for grouping in ("", ",", " ", "'")),
    *((",", grouping) for grouping in ("", ".", " ", "'")),
)
"""Decimal mark and separator of thousands of a number."""
DIGITS = r"^[+-]?(0|[1-9]\d*)$"
BOOLEAN = r"^(?i:true|false)$"
_INFINITE = r"^[+-]?(?i:inf|infinity)$"
_ISO = f"^{texts.ISO_DATE}$"
_LONG = 19
"""Digits from which on an integer may not fit 64 bits."""


def unit_of(text: str) -> str:
    """The percent or currency sign that a number carries, if that is what the text is."""
    text = text.replace(texts.MINUS, "-")
    for unit in texts.UNITS:
        rest = texts.without_unit(text, unit)
        if rest != text and rest[-1:].isdigit() and rest.lstrip("+-")[:1].isdigit():
            return unit
    return ""


def without_unit(values: pa.Array, unit: str) -> tuple[pa.Array, pa.Array]:
    """The numbers without the sign, with an ASCII minus; and for each whether it carried the sign (all, if there is
    none to carry). As `parvada.texts.without_unit`, for many."""
    values = pc.replace_substring(values, texts.MINUS, "-")
    if not unit:
        return values, pc.is_valid(values)
    carries = pc.match_substring(values, unit)
    sign = "".join(f"\\x{{{ord(letter):x}}}" for letter in unit)
    values = pc.replace_substring_regex(values, f"^(-?)[{texts.SPACES}]*{sign}[{texts.SPACES}]*", r"\1")
    return pc.replace_substring_regex(values, f"[{texts.SPACES}]*{sign}$", ""), carries


def plain_numbers(values: pa.Array, reading: Reading) -> pa.Array:
    """Texts of numbers as Arrow reads them."""
    plain, _ = without_unit(values, reading.unit)
    if reading.grouping:
        plain = pc.replace_substring_regex(plain, texts.GROUPINGS[reading.grouping], "")
    if reading.decimal != ".":
        plain = pc.replace_substring(plain, reading.decimal, ".")
    return pc.replace_substring_regex(plain, r"^\+", "")


def fit_number(values: pa.Array, reading: Reading, *, whole: bool) -> pa.Array:
    """Which of the texts are numbers of the reading's form; `whole`: integers of 64 bits."""
    plain, _ = without_unit(values, reading.unit)
    if not whole:
        return matches(plain, (reading.decimal, reading.grouping))
    plain = plain_numbers(values, reading)
    digits = pc.match_substring_regex(plain, DIGITS)
    return pc.and_(digits, fit_64_bits(plain, digits))


def matches(values: pa.Array, style: Style) -> pa.Array:
    form = f"^({texts.number_form(*style)})$"
    return pc.or_(pc.match_substring_regex(values, form), pc.match_substring_regex(values, _INFINITE))


def has_fraction(values: pa.Array, fits: pa.Array, decimal: str) -> bool:
    marked = pc.match_substring_regex(values, f"[{decimal}eEnN]")
    return bool(pc.any(pc.and_(fits, marked)).as_py())


def fit_64_bits(values: pa.Array, digits: pa.Array) -> pa.Array:
    long = pc.and_(digits, pc.greater_equal(pc.utf8_length(values), _LONG))
    if not pc.any(long).as_py():
        return pc.is_valid(values)
    asked = zip(long.to_pylist(), values.to_pylist(), strict=True)
    return pa.array([not is_long or -(2**63) <= int(text) < 2**63 for is_long, text in asked], pa.bool_())


def dates_that_are(values: pa.Array, date: str) -> pa.Array:
    """Which of the texts are dates of this format, of a day that exists."""
    if not date:
        fits = pc.match_substring_regex(values, _ISO)
        named = values
    else:
        named = pa.array([texts.named_month(text) for text in values.to_pylist()], pa.string())
        fits = pc.match_substring_regex(named, f"^{texts.date_form(date)}$")
    if not pc.any(fits).as_py():
        return fits
    known = iter(dates_of(named.filter(fits).to_pylist(), date).notna())
    return pa.array([bool(next(known)) if fit else False for fit in fits.to_pylist()], pa.bool_())
