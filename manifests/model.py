"""The base of every section of a job manifest."""

from __future__ import annotations

import pydantic


class Model(pydantic.BaseModel):
    """Base of every section: unknown keys are errors, values do not change after reading."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
