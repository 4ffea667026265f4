"""Readers of published collections: kind -> what gives its items. Nothing is downloaded; `root` must hold the files."""

from __future__ import annotations

from ffaa.data.sources import (
    celebdf,
    csv_file,
    ddvqa,
    deeperforensics,
    deepfakedetection,
    dfdc,
    dffd,
    faceforensics,
    folder,
    gandiffface,
    multiffdi,
    pgc,
    whichfaceisreal,
)
from ffaa.data.sources.base import Source

SOURCES: dict[str, Source] = {
    "faceforensics": faceforensics.SOURCE,
    "deepfakedetection": deepfakedetection.SOURCE,
    "celebdf": celebdf.SOURCE,
    "dffd": dffd.SOURCE,
    "gandiffface": gandiffface.SOURCE,
    "deeperforensics": deeperforensics.SOURCE,
    "dfdc": dfdc.SOURCE,
    "pgc": pgc.SOURCE,
    "whichfaceisreal": whichfaceisreal.SOURCE,
    "multiffdi": multiffdi.SOURCE,
    "ddvqa": ddvqa.SOURCE,
    "folder": folder.SOURCE,
    "csv": csv_file.SOURCE,
}
