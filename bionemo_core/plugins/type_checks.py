"""Quick checks of values without OmegaConf, whose import is a third of the time of `--help`.

A check returns True only if it is certain; otherwise OmegaConf decides.
"""

import types
from typing import Any, Union, get_args, get_origin

_EXACT: dict[Any, tuple[type, ...]] = {
    int: (int,),
    float: (float, int),
    str: (str,),
    bool: (bool,),
    type(None): (type(None),),
}
_UNIONS = (Union, types.UnionType)


def plainly_known(kind: Any) -> bool:
    """Return whether OmegaConf certainly accepts this annotation: plain types, and unions and lists of them."""
    if kind in _EXACT:
        return True
    if get_origin(kind) in _UNIONS:
        return all(member in _EXACT for member in get_args(kind))
    return get_origin(kind) is list and all(member in _EXACT for member in get_args(kind))


def plainly_fits(value: Any, kind: Any) -> bool:
    """Return whether `value` certainly fits the annotation `kind`; False means that it is not certain."""
    if isinstance(value, str) and ("${" in value or value == "???"):
        return False
    if kind in _EXACT:
        return type(value) in _EXACT[kind]
    if not plainly_known(kind):
        return False
    if get_origin(kind) in _UNIONS:
        return any(plainly_fits(value, member) for member in get_args(kind))
    return isinstance(value, list) and all(plainly_fits(one, member) for one in value for member in get_args(kind))
