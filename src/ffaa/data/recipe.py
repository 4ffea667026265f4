"""A data recipe: which collections, and how faces are cut, cleaned and split."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ffaa.data.faces import MIN_FACE
from ffaa.data.sources.base import SourceArgs


class DataRecipe(BaseModel):
    """All settings of `ffaa data build`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    seed: int = 0
    sources: list[SourceArgs] = Field(min_length=1)
    size: Literal[224, 336] | None = Field(224, description="side of the crops; null: none, the rows point to photos")
    faces: Literal["largest", "every"] = Field("largest", description="of a photo, or the people of a video")
    no_face: Literal["reject", "whole"] = Field("reject", description="whole: take the centre square of such photos")
    min_face: int = Field(MIN_FACE, ge=16, description="narrowest usable face, pixels of the photo")
    frames: int = Field(10, ge=1, le=256, description="per video")
    sampling: Literal["even", "scene"] = Field("even", description="how the frames of a video are chosen")
    pose: bool = Field(True, description="measure yaw, pitch and roll; needs the part face-mesh")
    val: float = Field(0.1, ge=0, lt=1, description="share of the faces that have no split of their own")
    test: float = Field(0.1, ge=0, lt=1, description="the same; 0 for collections that bring a test split")
    leaks: Literal["error", "drop"] = Field("error", description="drop: of a cut group, only the most held-out split")
    duplicates: bool = Field(True, description="remove equal files and near duplicates")
    shards: Literal["none", "webdataset", "arrow"] = Field("none", description="pack the crops instead of single files")
    shard_rows: int = Field(5000, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> DataRecipe:
        if self.val + self.test >= 1:
            raise ValueError("val and test leave nothing for train")
        if self.shards != "none" and self.size is None:
            raise ValueError("shards hold crops; give a size")
        return self
