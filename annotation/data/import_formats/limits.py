"""How large and how odd a file may be before it is refused: settings, all in docs/production.md."""

from django.conf import settings

MIB = 2**20


def max_file() -> int:
    """Bytes of a file as it was sent."""
    return int(settings.IMPORT_MAX_MIB) * MIB


def max_unpacked(packed: int) -> int:
    """Bytes that a compressed file of this size may unpack to."""
    ratio = int(settings.IMPORT_MAX_RATIO)
    return min(int(settings.IMPORT_MAX_UNPACKED_MIB) * MIB, max(MIB, packed * ratio))


def max_row() -> int:
    """Bytes of a line, or of one object of a JSON array."""
    return int(settings.IMPORT_MAX_ROW_MIB * MIB)


def max_rows() -> int:
    """Rows of a file."""
    return int(settings.IMPORT_MAX_ROWS)


def max_files() -> int:
    """Files in an archive or a folder."""
    return int(settings.IMPORT_MAX_FILES)
