"""Makes `transformers.AutoModel` know our weights as soon as both packages are imported.

transformers has no entry points: whoever wants a model known must register its class, and a class
can only be registered where transformers is loaded, which `import freshet` must not do (one second
for a program that never forecasts). So what registers it is imported right after transformers'
own register of models, whichever of the two packages comes first.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

REGISTER = "transformers.models.auto.modeling_auto"
OURS = "freshet.model.automodel"


def register_when_loaded() -> None:
    """Register now if transformers' register is loaded, else right after it will be."""
    if REGISTER in sys.modules:
        importlib.import_module(OURS)
    else:
        sys.meta_path.insert(0, _AfterRegister())


class _AfterRegister(MetaPathFinder):
    """Finds one module, once, as everybody else does, and imports ours after it."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> Any:
        if fullname != REGISTER:
            return None
        # Ends here whatever happens, and leaves the finding to those that know how.
        sys.meta_path.remove(self)
        spec: ModuleSpec | None = find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        load = loader.exec_module

        def load_both(module: ModuleType) -> None:
            load(module)
            importlib.import_module(OURS)

        loader.exec_module = load_both
        return spec
