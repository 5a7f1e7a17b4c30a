"""Annotations in PASCAL VOC's XML: size of the image, and per object class, box and whether it is difficult."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from wsol.datasets.box_faults import wrong_boxes_stop
from wsol.errors import UserError

__all__ = ["XmlObject", "read_voc_xml"]

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True)
class XmlObject:
    """An object as it is written.

    Parameters
    ----------
    name : str
        Class.
    box : (xmin, ymin, xmax, ymax)
        As written: PASCAL VOC counts pixels from 1, corners inclusive.
    difficult : bool
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


def read_voc_xml(path: Path) -> tuple[tuple[int, int] | None, list[XmlObject]]:
    """Read one annotation.

    Parameters
    ----------
    path : Path

    Returns
    -------
    size : (width, height) or None
        None where the file doesn't say, or says 0.
    objects : list of XmlObject
        Body parts, which VOC lists inside of an object, are not objects.

    Raises
    ------
    UserError
        If the file is missing or no such XML, or an object has no name or no four numbers in order.
    """
    root = _parse(path)
    size = tuple(_whole(root.findtext(f"size/{side}")) for side in ("width", "height"))
    objects = [_object(node, f"{path}, object {i}") for i, node in enumerate(root.findall("object"), start=1)]
    return (size[0], size[1]) if min(size) > 0 else None, objects


def _parse(path: Path) -> ElementTree.Element:
    if not path.is_file():
        raise UserError(f"{path}: no such file; unpack the annotations whole")
    try:
        text = path.read_bytes()
        # Entities can blow up a small file to gigabytes, and no annotation needs them.
        if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
            raise UserError(f"{path}: a document type declaration in an annotation is refused; remove it")
        root = ElementTree.fromstring(text)
    except (OSError, ElementTree.ParseError) as error:
        raise UserError(f"{path} can't be read as XML: {error}; replace the file") from error
    if root.tag != "annotation":
        raise UserError(f"{path}: the outermost element is <{root.tag}>, wanted <annotation>; is it PASCAL VOC's?")
    return root


def _whole(text: str | None) -> int:
    return int(text) if text is not None and text.strip().isdecimal() else 0


def _object(node: ElementTree.Element, where: str) -> XmlObject:
    name = (node.findtext("name") or "").strip()
    if not name:
        raise UserError(f"{where}: no <name>; add the object's class")
    texts = [(node.findtext(f"bndbox/{corner}") or "").strip() for corner in CORNERS]
    shown = " ".join(text or "?" for text in texts)
    try:
        x0, y0, x1, y1 = (float(text) for text in texts)
    except ValueError:
        raise UserError(f"{where} ({name!r}): box {shown!r} is not xmin ymin xmax ymax; mend it") from None
    if wrong_boxes_stop() and not (all(map(math.isfinite, (x0, y0, x1, y1))) and x0 <= x1 and y0 <= y1):
        raise UserError(f"{where} ({name!r}): box {shown!r} is inverted or not finite; mend it")
    return XmlObject(name, (x0, y0, x1, y1), (node.findtext("difficult") or "").strip() == "1")
