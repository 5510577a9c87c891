"""What kernels and those who call them say of characters, segments and lines by single bits and numbers."""

HARD, SOFT, ALONE, TELLING, STRONG, MOJIBAKE, LETTER, ORDERED, SYNTAX = (1 << bit for bit in range(9))
"""Of a character, as dataproc/characters.py explains them."""
ODD, ODD_UNTIL_HTML = 1, 2
"""Of two bytes: `characters.Characters.odd`."""
COMPOSING = 0xFF
"""Instead of a canonical combining class."""

SUSPICIOUS, UNORDERED, ENTITY, HTML = 4, 8, 16, 32
"""Of a segment, beside HARD and SOFT. HTML: a `<` stands in it or before it, so ftfy leaves entities as they are."""

ODD_LINE = -1
"""Instead of a place in a line."""
NO_DIGIT = 16
"""Instead of the value of a hexadecimal digit."""
QUOTE, BACKSLASH = b'"\\'
