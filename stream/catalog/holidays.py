"""Public holidays of countries and their parts: the one door to the library `holidays`."""

from __future__ import annotations

from datetime import date

from freshet.stream.errors import InvalidInputError


def public_holidays(country: str, years: range) -> list[date]:
    """The public holidays of a country such as DE, or of a part of it such as DE-BY, rising.

    Raises:
        InvalidInputError: The country or the part is not known.
    """
    import holidays

    name, _, part = country.upper().partition("-")
    try:
        found = holidays.country_holidays(name, subdiv=part or None, years=list(years))
    except NotImplementedError as error:
        raise InvalidInputError(
            f"no public holidays are known for the country {country!r}",
            hint="use an ISO code such as DE, GB or US, or DE-BY for a part of it",
        ) from error
    return sorted(found)
