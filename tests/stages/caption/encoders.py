"""Encoders for tests of captions: pictures by their mean colour, texts by a table."""

import numpy as np


class TableEncoder:
    """The vector of a text stands in a table, and so does that of a picture, by its mean red level.

    Counts the pictures and texts it was asked for.
    """

    def __init__(self, texts, pictures):
        self._texts = texts
        self._pictures = pictures
        self.asked_pictures, self.asked_texts = [], []

    @property
    def dimensions(self):
        return len(next(iter(self._texts.values())))

    def pictures(self, pictures):
        levels = [round(float(np.asarray(picture)[..., 0].mean())) for picture in pictures]
        self.asked_pictures.append(levels)
        return np.array([self._pictures(level, view) for view, level in enumerate(levels)], np.float32)

    def texts(self, texts):
        self.asked_texts.append(list(texts))
        return np.array([self._texts[text] for text in texts], np.float32)

    def bodies(self, bodies):
        raise NotImplementedError
