"""Images not to be believed alone: a damaged number or name looks like a wide gap or another series."""

from collections.abc import Sequence

from stream.detector.protocol import ImageMessage

MOST_OVERTAKEN = 1024  # frames that one may overtake on its way


class Doubts:
    """Holds the last image that does not fit what is known, until a second one agrees with it.

    Attributes
    ----------
    held : ImageMessage or None
    """

    def __init__(self) -> None:
        self.held: ImageMessage | None = None

    def forget_others(self, key: str) -> None:
        """Gives up an image of another series than `key`, which goes on."""
        if self.held is not None and self.held.key != key:
            self.held = None

    def believed(self, images: Sequence[ImageMessage], *, is_repeat_enough: bool) -> list[ImageMessage]:
        """Returns those of `images`, with the one held before, that belong together; the last other is held.

        Parameters
        ----------
        images : sequence of ImageMessage
            In the order of arrival.
        is_repeat_enough : bool
            Whether the same image once more is a second one.
        """
        found: list[ImageMessage] = []
        for image in images:
            last = found[-1] if found else self.held
            if last is not None and last.key == image.key:
                apart = abs(last.image_id - image.image_id)
                if apart <= MOST_OVERTAKEN and (apart or is_repeat_enough or found):
                    found += [image] if found else [last, image]
                    self.held = None
                    continue
            self.held = image
        return found
