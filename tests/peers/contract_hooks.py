"""Puts what is there into half of the paths that schemathesis makes up: ANMIN_KNOWN has it by the word of the path."""

import json
import os
import random

import schemathesis

KNOWN = json.loads(os.environ["ANMIN_KNOWN"])
CHOICE = random.Random(7)


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    if not path_parameters or CHOICE.random() < 0.5:
        return path_parameters
    parts = context.operation.path.split("/")
    for before, part in zip(parts, parts[1:]):
        name = part.strip("{}")
        known = KNOWN.get(before, KNOWN.get(name))
        if part.startswith("{") and name in path_parameters and known is not None:
            path_parameters[name] = known
    if "device" in path_parameters:
        path_parameters.update(device=KNOWN["device"], name=KNOWN["points"])
    return path_parameters
