"""Parameter-efficient fine-tuning of GPT-2 for sequence classification, with the forgetting it costs.

Light: importing peftune loads no torch; each name of `__init__.pyi` loads what it needs when it is
first used.
"""

from __future__ import annotations

import lazy_loader

from peftune._version import __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
