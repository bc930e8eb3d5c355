"""What msat ships trained: the compact scorer, its exams, and a zoo of profiled candidates.

How each was made, from which data and with which figures: ``MODEL_CARD.md`` in this folder.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
SCORER = FOLDER / "compact"
EXAM = FOLDER / "exam"  # 50 tasks × 20 shots of MMLU-Pro: the exam that a new candidate sits
EXAM_OPEN = FOLDER / "exam_open"  # of open benchmarks: behind the shipped zoo's coarse profiles
EXAMS = (EXAM, EXAM_OPEN)
ZOO = FOLDER / "zoo.json"
