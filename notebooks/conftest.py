"""Chapters that need a download are skipped, with the reason, where it is not to be had."""

import pytest

from dimlib.data.packages import FACES, GALAXIES, fetch

DOWNLOADS = {"24_galaxies.ipynb": GALAXIES, "25_faces.ipynb": FACES}


def pytest_collection_modifyitems(items):
    for name in {item.path.name for item in items} & set(DOWNLOADS):
        try:
            fetch(**DOWNLOADS[name])
        except ConnectionError as error:
            skip = pytest.mark.skip(reason=str(error))
            for item in items:
                if item.path.name == name:
                    item.add_marker(skip)
