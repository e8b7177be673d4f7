"""The templates in pages/, filled in; whatever is put into them is text, never markup."""

import functools
from typing import Any

import jinja2

from zoo.contact_sheet import clock


@functools.cache
def _templates() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("zoo", "pages"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    made.globals["clock"] = clock
    made.globals["first_name"] = lambda label: label.partition(",")[0]  # ImageNet's have synonyms after commas
    return made


def render(template: str, **values: Any) -> str:
    """A page."""
    return _templates().get_template(template).render(values)
