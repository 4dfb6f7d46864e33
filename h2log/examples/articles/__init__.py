"""The sample site, eight notes on one connection: what `h2log serve` serves unless told otherwise.

`h2log run h2log.examples.articles:app` serves it as an application.
"""

from pathlib import Path

from h2log import App

__all__ = ["SITE", "app"]

SITE = Path(__file__).parent / "site"

app = App()
app.static(SITE)
