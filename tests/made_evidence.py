"""Evidence of a run and of evaluations, made up, for tests of the card."""

from made_runs import drawn_run
from roslin.evaluate.limits import (
    FAMILIES,
    PROVOCATIONS,
    FamilyChange,
    LimitsReport,
    PairResult,
    PrecisionReport,
    ProbeResult,
)
from roslin.publish.evidence import (
    BaseEvidence,
    BenchmarkEvidence,
    CheckEvidence,
    CourseEvidence,
    Evidence,
    LimitsEvidence,
    LossEvidence,
    OverlapEvidence,
    RecordsEvidence,
    ResponsesEvidence,
    SourceEvidence,
    TuningEvidence,
)
from roslin.publish.evidence.responses import FigureEvidence, SampleAnswer, SampleEvidence, SideEvidence
from roslin.publish.loss import LossComparison
from roslin.statistics import Interval

WEIGHTS = "ab" * 32
BASE = "cd" * 32
COMPARISON = LossComparison(82, Interval(3.9, 3.7, 4.1), Interval(2.9, 2.7, 3.1), Interval(-1.0, -1.1, -0.9))
WITHOUT_END = LossComparison(82, COMPARISON.before, COMPARISON.after, Interval(-0.8, -0.9, -0.7))


def loss(whole: LossComparison = COMPARISON, by_category: dict[str, LossComparison] | None = None) -> LossEvidence:
    parts = (
        {"open_qa": LossComparison(60, whole.before, whole.after, whole.change)} if by_category is None else by_category
    )
    without_end = WITHOUT_END if whole is COMPARISON else whole
    return LossEvidence.of(whole, without_end, parts, "Other records decided when tuning stopped.")


def tuning(**changes: object) -> TuningEvidence:
    """A run on two files of records; `changes` replace parts of it."""
    made = TuningEvidence(
        fingerprint=WEIGHTS,
        name="mine",
        parameters=2_775_208_960,
        languages=["en"],
        base=BaseEvidence(
            words="EleutherAI/pythia-2.8b",
            hub_name="EleutherAI/pythia-2.8b",
            revision="v0",
            fingerprint=BASE,
            licence="apache-2.0",
        ),
        records=RecordsEvidence(
            sources=[
                SourceEvidence(name="mine.jsonl", sha256="ef" * 32, licence="cc0-1.0"),
                SourceEvidence(name="owner/data", sha256=None, licence="mit"),
            ],
            train=400,
            train_sha256="12" * 32,
            by_category={"open_qa": 300, "summarization": 100},
            held_out=82,
            dropped=3,
            max_length=2048,
            check=CheckEvidence(
                records=485,
                findings={"duplicate": 7, "near-duplicate": 9},
                private={"e-mail": 4},
                held_out_compared=False,
            ),
        ),
        course=CourseEvidence(
            method="Full fine-tuning",
            recipe="model: EleutherAI/pythia-2.8b\nepochs: 2\n",
            updates=120,
            epochs=1.75,
            tokens=123_456,
            seconds=654.3,
            hardware="2 × NVIDIA H100 80GB HBM3",
            gpus=["NVIDIA H100 80GB HBM3"] * 2,
            versions={"roslin": "0.1.0", "torch": "2.13.0"},
        ),
        loss=loss(),
    )
    return made.model_copy(update=changes)


def benchmarks() -> BenchmarkEvidence:
    return BenchmarkEvidence.of(
        drawn_run("mine", accuracy=0.62),
        fingerprint=WEIGHTS,
        base=drawn_run("its base", seed=1, accuracy=0.5),
        contamination={"piqa": OverlapEvidence(records=400, questions=1838, touched=17, clean_accuracy=0.617)},
        remarks=["Said of *it*."],
    )


def limits_report(answer: str = "Yes.", why: str = "says so") -> LimitsReport:
    def results(name: str, kinds: tuple[str, str]) -> list[ProbeResult]:
        first = ProbeResult(name, kinds[0], "Ask?", None, answer, True, why, False, (1, 2), -3.0)
        other = ProbeResult(name, kinds[1], "Ask?", "A text.", answer, False, why, False, (1, 2), -3.0)
        return [first, other, ProbeResult(*[*vars(first).values()][:5], False, *[*vars(first).values()][6:]), first]

    kinds = ("answer in the text", "answer not in the text")
    probes = [each for family in FAMILIES for each in results(family.name, kinds)]
    provoked = [each for family in PROVOCATIONS for each in results(family.name, ("a", "b"))]
    pairs = [PairResult(dimension, ("A.", "B."), lean) for dimension in ("age", "class") for lean in (1.0, 2.0, -1.0)]
    return LimitsReport("mine", "float32", 3, 4, tuple(probes), tuple(provoked), tuple(pairs))


PRECISION = PrecisionReport(
    "mine", "float32", "bfloat16", 30, 44, (FamilyChange("syntax", 1, 4, 1, 2),), 40, 0.0123, 0.25
)


def responses() -> ResponsesEvidence:
    def side(name: str, rouge: float) -> SideEvidence:
        figures = {
            "rouge_l": FigureEvidence(estimate=rouge, low=rouge - 0.05, high=rouge + 0.05),
            "perplexity": FigureEvidence(estimate=None, low=None, high=None),
        }
        return SideEvidence(name=name, dtype="bfloat16", figures=figures)

    sample = SampleEvidence(
        instruction="Name a *river*.",
        context="",
        response="The Seine.",
        own=SampleAnswer(answer="<b>Rhine</b>\n## No heading", faults=["did not stop"]),
        base=SampleAnswer(answer=None, faults=[]),
    )
    return ResponsesEvidence(
        fingerprint=WEIGHTS,
        drawing="greedy, at most 64 new tokens",
        records=37,
        left_out=2,
        own=side("mine", 0.41),
        base=side("its base", 0.12),
        verdicts={"rouge_l": "higher by 0.290 F: better"},
        seed=5,
        samples=[sample],
    )


def everything() -> Evidence:
    """A run with all evaluations."""
    return Evidence(
        tuning=tuning(),
        benchmarks=[benchmarks()],
        limits=LimitsEvidence.of(limits_report(), PRECISION, WEIGHTS),
        responses=responses(),
    )
