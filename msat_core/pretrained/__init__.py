"""What msat ships trained: the compact scorer, its exams, and a zoo of profiled candidates.

How each was made, from which data and with which figures: ``MODEL_CARD.md`` in this folder.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
SCORER = FOLDER / "compact"
EXAM = FOLDER / "exam"
ZOO = FOLDER / "zoo.json"
EXAMS = (EXAM, FOLDER / "exam_open")
