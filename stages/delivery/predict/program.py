"""Predicts with a package that Bonsai made. Needs NumPy, Pillow and the runtime that the package names; Python 3.10 or later.

    python predict.py cat.jpg dog.jpg           one line a file
    python predict.py images.csv --json         the files that a table names; one JSON object a line
    python predict.py --check images            compute the package's figure again, on a folder with one sub-folder per class
    python predict.py --out masks a.jpg         write the masks that a segmentation predicts

A file is an image, an array (.npy: one sample, or a batch of them, as training has them) or a table (.csv with a column `path`). Relative
paths in a table start from its folder. Every file of the package is compared with SHA256SUMS before it is used.

--check takes the package's test samples out of all that it is given, if all of them are there; else it takes everything.

Exit codes: 0 ok; 2 a file or an option cannot be used; 5 the runtime is not installed, or the engine does not run here;
6 a file of the package was changed, or --check found another figure for the package's own test samples; 130 Ctrl-C;
141 whoever read the output has gone.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from bonsai.stages.delivery.predict.engines import Refused, shown
from bonsai.stages.delivery.predict.figure import accuracy_of, compute
from bonsai.stages.delivery.predict.network import Network, open_network
from bonsai.stages.delivery.predict.samples import Columns, list_labelled, list_samples, read_inputs
from bonsai.stages.tasks.predicting import LABEL, MASK, ReadMasks

HERE = Path(__file__).resolve().parent


class Asked(NamedTuple):
    """What to do.

    Attributes:
        files: Images, arrays and tables to predict.
        check: Folder or table with targets, to compute the package's figure on.
        as_json: Whether to print JSON, one object a line.
        portable: Whether to run ``model.onnx`` in ONNX Runtime instead of the engine.
        out: Folder for masks, if the task gives masks.
    """

    files: Sequence[Path] = ()
    check: Path | None = None
    as_json: bool = False
    portable: bool = False
    out: Path | None = None


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="images, .npy arrays, or .csv tables of paths")
    parser.add_argument("--check", type=Path, metavar="FOLDER", help="compute the package's figure on a folder of classes, or on a table with targets")
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.add_argument("--portable", action="store_true", help="run model.onnx in ONNX Runtime on any CPU, instead of the engine")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write the masks that a segmentation predicts there, as PNG files of class indices")
    found = parser.parse_args(arguments)
    if bool(found.files) == bool(found.check):
        parser.error("give files to predict, or --check FOLDER")
    return answer(HERE, Asked(found.files, found.check, found.json, found.portable, found.out))


def answer(package: Path, asked: Asked) -> int:
    """Predict files, or check a package's figure; print the result, or the one message that says why there is none.

    Args:
        package: Folder of the package.
        asked: What to do.

    Returns:
        The exit code.
    """
    try:
        network = open_network(package, portable=asked.portable)
        if asked.check is not None:
            return _check(network, asked.check, asked.as_json)
        for line in _lines(network, asked):
            print(line, flush=True)
    except Refused as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return refusal.code
    return 0


def _lines(network: Network, asked: Asked) -> Iterator[str]:
    """Yield what is printed of each sample, and write masks where they are asked for."""
    head = network.reading.columns(network.manifest["classes"]) if network.reading is not None else ()
    between, within = ("\t", "\t") if head else (": ", "  ")
    if head and not asked.as_json:
        yield "\t".join(("file", *map(shown, head)))
    for sample in list_samples(asked.files, Columns.of(network.manifest)):
        for number, inputs in enumerate(read_inputs(sample.path, network.preprocess)):
            output = network.run(inputs[None])[0]
            prediction = network.read(output)
            if asked.out is not None:
                prediction[MASK] = str(_write_mask(network, output, asked.out, f"{sample.path.name}-{number}.png"))
            if asked.as_json:
                yield json.dumps({"file": str(sample.path), "sample": number, **sample.cells, **prediction}, ensure_ascii=False)
            else:
                cells = network.reading.line(prediction) if network.reading is not None else (str(prediction),)
                told = f"  (label: {sample.cells[LABEL]})" if LABEL in sample.cells else ""
                yield shown(sample.path) + between + within.join(map(shown, cells)) + shown(told)


def _write_mask(network: Network, output: np.ndarray, folder: Path, name: str) -> Path:
    """Write the mask of a sample as a PNG of class indices, of the network's own size, and return its path."""
    if not isinstance(network.reading, ReadMasks):
        raise Refused(2, "--out: the package predicts no masks", given=folder, allowed="a package of task segmentation", fix="leave --out away")
    file = folder / name
    if file.exists():
        raise Refused(2, f"--out: {shown(file)} is there already", given=file, allowed="a new name for each sample", fix="give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(network.reading.mask(output)).save(file)
    return file


def _check(network: Network, place: Path, as_json: bool) -> int:
    """Compute the figure on samples with targets, print it beside the package's, and return the exit code."""
    given = list_labelled(place, network.manifest["classes"], Columns.of(network.manifest))
    found = compute(network, given)
    metric, said = network.manifest["metric"], accuracy_of(network.manifest)
    if as_json:
        facts = {metric["name"]: found.value, "samples": found.samples, "program": network.program}
        packaged = {"packaged": found.packaged, "packaged_samples": said["n"], "packaged_program": said["measured_by"]}
        print(json.dumps({**facts, "given": len(given), **packaged, "test_part": found.same, "equal": found.equal}))
    else:
        these = "these are its test samples" if found.same else "these are not exactly its test samples"
        print(f"{metric['label']} {_written(found.value, metric)} on {found.samples} of {len(given)} samples, by {network.program}")
        print(f"the package: {_written(found.packaged, metric)} on {said['n']} {said['part']} samples, by {said['measured_by']}")
        print(f"{these}; the figures are {'equal' if found.equal else 'different'}")
    return 6 if found.contradicts else 0


def _written(figure: float, metric: Mapping[str, Any]) -> str:
    """Return a figure as people read it, and all its digits."""
    return f"{figure:.2%} ({figure!r})" if metric["unit"] == "%" else f"{figure!r} {metric['unit']}".rstrip()


def _end(arguments: Sequence[str]) -> int:
    """Run the program and return its exit code; whoever reads its output may go, and Ctrl-C ends it, without a traceback."""
    try:
        return main(arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


if __name__ == "__main__":
    sys.exit(_end(sys.argv[1:]))
