"""Reading a mask from an image file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hefw.core.errors import ConfigError, PluginError

#: The dimmest grey level, of 255, that counts as white.
WHITE = 128


def read_mask(path: str) -> NDArray[np.bool_]:
    """A mask (height, width) from an image file: True where a pixel is white, or at least half as bright.

    Transparent parts lie on black. `~` in the path is expanded.

    Raises:
        ConfigError: the file is missing, unreadable, no image, has more than 8 bits a channel, or has no white pixel.
        PluginError: pillow is not installed.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise PluginError(
            f"mask {path!r} cannot be read: pillow not installed; run: pip install 'hefw[report]', or use a box"
        ) from None
    try:
        with Image.open(Path(path).expanduser()) as image:
            if image.mode.startswith(("I", "F")):
                raise ConfigError(
                    f"mask {path!r} has more than 8 bits a channel (mode {image.mode}); save it with 8 bits"
                )
            opaque = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    except FileNotFoundError:
        raise ConfigError(f"mask {path!r} does not exist; give the path of an image file, white = encrypted") from None
    except UnidentifiedImageError:
        raise ConfigError(f"mask {path!r} is no image; give a PNG or another image file, white = encrypted") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise ConfigError(f"mask {path!r} cannot be read: {reason}; give an image file, white = encrypted") from None
    white = np.asarray(opaque.convert("L")) >= WHITE
    if not white.any():
        raise ConfigError(f"mask {path!r} has no white pixel, so nothing would be encrypted; paint the region white")
    return white
