"""What msat ships trained: the compact scorer, its exams, a scale of published scores, and zoos.

How each was made, from which data and with which figures: ``MODEL_CARD.md`` in this folder.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
SCORER = FOLDER / "compact"
ENCODER = FOLDER / "encoder"
EXAM = FOLDER / "exam"  # 50 tasks × 20 shots of MMLU-Pro: the exam that a new candidate sits
EXAM_OPEN = FOLDER / "exam_open"  # of open benchmarks: behind the coarse profiles of candidates of 2024
EXAM_REASONING = FOLDER / "exam_reasoning"  # of procedural tasks that can be made again without a download
EXAM_AREAS = FOLDER / "exam_areas"  # the areas that profiles from published scores speak of; nobody sits it
EXAMS = (EXAM, EXAM_OPEN, EXAM_REASONING, EXAM_AREAS)
QUICK = FOLDER / "quick.json"  # which questions of EXAM and EXAM_REASONING make the quick exams
SCALE = FOLDER / "scale.json"
ZOO = FOLDER / "zoo.json"
ZOO_REASONING = FOLDER / "zoo_reasoning.json"  # candidates that sat the exam of procedural tasks
