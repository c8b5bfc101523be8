"""Chapters that need a download are skipped, with the reason, where it is not to be had. The longest ones come first,
so that no process waits for a long one at the end."""

import pytest

from dimlib.data.packages import FACES, GALAXIES, fetch

LONGEST = "16", "14", "05", "25", "15", "13", "21", "18", "11", "22", "17", "24", "28", "23", "26", "27"
DOWNLOADS = {"24_galaxies.ipynb": GALAXIES, "25_faces.ipynb": FACES}


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: (*LONGEST, item.path.name[:2]).index(item.path.name[:2]))
    for name in {item.path.name for item in items} & set(DOWNLOADS):
        try:
            fetch(**DOWNLOADS[name])
        except ConnectionError as error:
            skip = pytest.mark.skip(reason=str(error))
            for item in items:
                if item.path.name == name:
                    item.add_marker(skip)
