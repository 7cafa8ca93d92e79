"""Strings that Python 2 wrote: bytes, of which nobody knows at first whether they are letters or an array."""


class ByteText(str):
    """The bytes of a Python 2 string, one letter each (latin-1), as arrays need them; `text` reads them as UTF-8."""

    __slots__ = ()

    @property
    def text(self) -> str:
        raw = self.encode("latin-1")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return str(self)
