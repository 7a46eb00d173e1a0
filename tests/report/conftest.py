"""Pictures that cost nothing, where a test is about the page around them."""

from io import BytesIO

import pytest
from matplotlib.figure import Figure

from equipoise.report import style


@pytest.fixture
def rendered() -> None:
    """Asked for by tests that want every pixel: layout and rendering are most of the time of a report."""


@pytest.fixture(autouse=True)
def pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(style.RC, "savefig.dpi", 30)
    if "rendered" not in request.fixturenames:
        monkeypatch.setattr(Figure, "savefig", _nothing)


def _nothing(figure: Figure, file: BytesIO, *, format: str) -> None:
    file.write(b"a picture")
