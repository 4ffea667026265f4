"""Who writes the answers to learn: name -> the class that teaches."""

from __future__ import annotations

from ffaa.vqa.teachers.grounded_teacher import GroundedTeacher
from ffaa.vqa.teachers.openai_teacher import OpenAITeacher

TEACHERS = {"grounded": GroundedTeacher, "openai": OpenAITeacher}
