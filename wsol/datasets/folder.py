"""Your own images in class folders, with a table of boxes or a folder of masks."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS

from wsol.datasets.box_table import BoxRules, read_box_table
from wsol.datasets.images import read_size, read_values
from wsol.datasets.labeled import ImageFolder
from wsol.datasets.sample import Sample
from wsol.errors import UserError

__all__ = ["AnnotatedFolder"]

logger = logging.getLogger("wsol")

SUFFIXES = {*IMG_EXTENSIONS, ".gif"}


class AnnotatedFolder(ImageFolder):
    """`root/[split/]class/image.jpg`, with boxes from a table, masks from a folder, or both.

    Parameters
    ----------
    root : path
    split : str, optional
        A folder between root and classes; None: the classes lie directly under the root.
    boxes_file : path, optional
        A `.csv` or `.parquet` table with the columns `image, x0, y0, x1, y1`: the image's path from the root, with
        forward slashes, and a box; several rows for several objects. Rows of other splits are passed over.
    box_corners : "inclusive" or "exclusive"
        Needed with `boxes_file`: whether x1 and y1 are the last pixels inside, or one beyond.
    box_units : "pixels" or "relative"
        Needed with `boxes_file`: pixels of the image, from 0; or shares of its width and height.
    masks : path, optional
        A folder with a mask for every image at the same relative path, with any suffix. Each pixel that is not 0
        belongs to the object; use a lossless format. `dataset.boxes=from_masks` puts boxes around its regions.
    mask_ignore : int, optional
        The value, 1 to 255, of pixels that do not count.
    missing : "stop" or "drop"
        What images without a box or mask do: stop, naming them, or be left out.

    Raises
    ------
    UserError
        If neither boxes nor masks are given, what their numbers mean is not said, a row or mask fits no image or an
        image lacks its own.

    See Also
    --------
    wsol.datasets.ImageFolder : the same folder, to train on without boxes.
    """

    name = "folder"

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        boxes_file: str | Path | None = None,
        box_corners: str | None = None,
        box_units: str | None = None,
        masks: str | Path | None = None,
        mask_ignore: int | None = None,
        missing: str = "stop",
    ) -> None:
        if missing not in ("stop", "drop"):
            raise UserError(f"dataset.missing={missing}: pass stop or drop")
        if boxes_file is None and masks is None:
            raise UserError(
                "dataset=folder needs dataset.boxes_file=TABLE or dataset.masks=FOLDER; to train on classes alone, "
                "pass dataset=imagefolder"
            )
        if mask_ignore is not None and not (type(mask_ignore) is int and 0 < mask_ignore < 256):
            raise UserError(f"dataset.mask_ignore={mask_ignore}: pass a whole number from 1 to 255, or null")
        super().__init__(root, split)
        self._top = Path(root).expanduser()
        self._names = [path.relative_to(self._top).as_posix() for path in self._paths]
        self._ignore = mask_ignore
        self._boxes: dict[str, np.ndarray] | None = None
        self._masks: dict[str, Path] | None = None
        if boxes_file is not None:
            self._rules = BoxRules(box_corners, box_units)
            self._boxes = self._read_boxes(Path(boxes_file).expanduser(), f"{split}/" if split else "")
            self._keep(self._boxes, f"box in {boxes_file}", missing)
        if masks is not None:
            self._masks = self._find_masks(Path(masks).expanduser())
            self._keep(self._masks, f"mask in {masks}", missing)

    def __getitem__(self, index: int) -> Sample:
        path, name = self._paths[index], self._names[index]
        boxes = mask = ignore = None
        if self._boxes is not None:
            size = read_size(path, name) if self._rules.units == "relative" else None
            boxes = self._rules.to_pixels(self._boxes[name], size)
        if self._masks is not None:
            mask = partial(_pixels, self._masks[name], name, self._ignore, False)
            ignore = None if self._ignore is None else partial(_pixels, self._masks[name], name, self._ignore, True)
        return Sample(
            sample_id=path.relative_to(self.root).as_posix(),
            label=int(self._labels[index]),
            image=path,
            boxes=boxes,
            mask=mask,
            ignore=ignore,
        )

    def _read_boxes(self, file: Path, prefix: str) -> dict[str, np.ndarray]:
        """Boxes as written by image; rows of other splits are left out, rows of no image are an error."""
        table = read_box_table(file, self._rules)
        own, known = {name: row for name, row in table.items() if name.startswith(prefix)}, set(self._names)
        if not own:
            raise UserError(
                f"{file}: no image begins with {prefix!r}, as in {self._names[0]!r}; the first row names "
                f"{next(iter(table))!r}, but paths are wanted from dataset.root on"
            )
        for name, (where, _) in own.items():
            if name not in known:
                near = difflib.get_close_matches(name, self._names, 3) or self._names[:1]
                raise UserError(
                    f"{where}: {name!r} is none of the images, such as {', '.join(near)}; mend or remove the row"
                )
        return {name: boxes for name, (_, boxes) in own.items()}

    def _find_masks(self, folder: Path) -> dict[str, Path]:
        """Mask by image, of those that have one."""
        if not folder.is_dir():
            raise UserError(f"dataset.masks={folder}: no such folder")
        if folder.resolve() == self._top.resolve():
            raise UserError(f"dataset.masks={folder} is the folder of the images; masks need a folder of their own")
        files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
        masks = _by_stem([path.relative_to(folder).as_posix() for path in files], f"in {folder}")
        images = _by_stem(self._names, f"in {self._top}, of which each wants a mask,")
        return {images[stem]: folder / masks[stem] for stem in images if stem in masks}

    def _keep(self, annotated: Mapping[str, object], what: str, missing: str) -> None:
        """Stop at images without a box or mask, or leave them out."""
        kept = [index for index, name in enumerate(self._names) if name in annotated]
        lacking = [name for name in self._names if name not in annotated]
        if lacking and (missing == "stop" or not kept):
            raise UserError(
                f"{len(lacking)} of {len(self._names)} images have no {what}: {', '.join(lacking[:5])}"
                f"{' …' if len(lacking) > 5 else ''}; add them"
                + (", or pass dataset.missing=drop to leave such images out" if kept else "")
            )
        if lacking:
            logger.info("%s: %d of %d images have no %s and are left out", self.name, len(lacking), len(self), what)
        self._paths, self._names = [self._paths[i] for i in kept], [self._names[i] for i in kept]
        self._labels = self._labels[kept]


def _by_stem(names: Sequence[str], where: str) -> dict[str, str]:
    """Names by what they are without suffix, which must tell them apart."""
    found: dict[str, str] = {}
    for name in names:
        stem = PurePosixPath(name).with_suffix("").as_posix()
        if stem in found:
            raise UserError(f"{found[stem]} and {name} {where} differ only in their suffix; rename or remove one")
        found[stem] = name
    return found


def _pixels(file: Path, name: str, ignore: int | None, ignored: bool) -> np.ndarray:
    values = read_values(file, name)
    return values == ignore if ignored else (values > 0) & (values != ignore)
