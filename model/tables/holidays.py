"""A country's public holidays: the one door to the library `holidays`."""

from __future__ import annotations

from datetime import date

from freshet.stream.errors import InvalidInputError


def public_holidays(country: str, years: range) -> list[date]:
    """A country's public holidays, rising.

    Raises:
        InvalidInputError: the country is not known.
    """
    import holidays

    try:
        return sorted(holidays.country_holidays(country.upper(), years=list(years)))
    except NotImplementedError as error:
        raise InvalidInputError(
            f"no public holidays are known for the country {country!r}",
            hint="use an ISO code such as DE, GB or US",
        ) from error
