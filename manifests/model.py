"""The base of every section of a job manifest."""

from __future__ import annotations

import pydantic


class Model(pydantic.BaseModel):
    """Base of every section: unknown keys and numbers that are not finite are errors, values do not change after reading."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)
