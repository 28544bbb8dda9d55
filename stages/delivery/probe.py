"""Runs an engine in a process of its own: a `Request` as JSON on stdin, the answer as JSON on the last line of stdout.

An engine is native code or drives native code: what it does to its process must not be done to the one that judges it. Of Bonsai only the
engine's own backend is imported.
"""

import base64
import json
import sys
from pathlib import Path

import numpy as np

from bonsai.profiles.errors import BonsaiError
from bonsai.profiles.located_yaml import Record
from bonsai.profiles.schema import Target
from bonsai.stages.backends.registry import backend_of
from bonsai.stages.delivery.golden import read_golden


class Request(Record):
    """What to run.

    Attributes:
        package: Folder with the golden images.
        engine: Name of the engine in it, whose checksum was found right.
    """

    package: Path
    engine: str
    target: Target


def main() -> None:
    """Answer one request: ``outputs`` for the golden images, float32 in base64, with their ``shape``; or why they cannot be had: ``refused``."""
    request = Request.model_validate_json(sys.stdin.read())
    images, _ = read_golden(request.package)
    answer: dict[str, object]
    try:
        run = backend_of(request.target).open_engine(request.package / request.engine, request.target)
        outputs = np.concatenate([run(image[None]) for image in images]).astype(np.float32)
        answer = {"shape": outputs.shape, "outputs": base64.b64encode(outputs.tobytes()).decode()}
    except BonsaiError as error:
        answer = {"refused": str(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
