"""Counts what became of numbered requests: which were answered, and how often, and how.

Knows nothing of connections, so that the counting itself can be tested.
"""

import json
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Question:
    """A request: its number is its correlation data."""

    number: int
    topic: str
    payload: str
    streamed: bool = False
    sampled: bool = False

    @property
    def correlation(self) -> bytes:
        """Names it in its replies."""
        return b"%d" % self.number


@dataclass(frozen=True)
class Answer:
    """A whole answer, or the last message of one in pieces."""

    text: str | None
    end: int | None = None
    """How many pieces there were."""
    reason: str | None = None
    created: int | None = None
    """Tells one time it was begun from another: a node that was killed begins anew."""


@dataclass
class Record:
    """What is known of one question."""

    question: Question
    accepted: bool = False
    answers: list["Answer"] = field(default_factory=list)
    pieces: dict[int, dict[int, set[str]]] = field(default_factory=dict)
    """Of a streamed answer, of each time it was begun: the texts under each number."""

    def texts(self) -> set[str]:
        """All the whole texts that came, whether in one message or in pieces."""
        texts = {answer.text for answer in self.answers if answer.text is not None}
        for answer in self.answers:
            pieces = self.pieces.get(answer.created, {})
            if answer.end is not None and all(i in pieces for i in range(answer.end)):
                texts.add("".join(min(pieces[i]) for i in range(answer.end)))
        return texts

    def differs(self) -> bool:
        """Whether two texts came, or two ends, or two texts of one piece."""
        ends = {(answer.created, answer.end) for answer in self.answers}
        return (
            len(self.texts()) > 1
            or len({answer.reason for answer in self.answers}) > 1
            or len(ends) > len({created for created, _end in ends})
            or any(len(texts) > 1 for run in self.pieces.values() for texts in run.values())
            or any(
                i >= end
                for created, end in ends
                if end is not None
                for i in self.pieces.get(created, {})
            )
        )


@dataclass(frozen=True)
class Counts:
    """The figures that a test of faults is about."""

    asked: int
    accepted: int
    answered: int
    unanswered: int
    """Accepted, and no whole answer came."""
    repeated: int
    """Answered more than once, with the same text each time."""
    different: int
    """Answered with different texts."""
    strangers: int
    """Replies to nothing that was asked, or that make no sense."""
    errors: dict[str, int]
    """Replies that are errors, by their code."""

    def __str__(self) -> str:
        return (
            f"asked {self.asked}, accepted {self.accepted}, answered {self.answered}, "
            f"unanswered {self.unanswered}, repeated {self.repeated}, "
            f"different {self.different}, strangers {self.strangers}, errors {self.errors}"
        )


class Tally:
    """Of all the questions that are to be asked."""

    def __init__(self, questions: list[Question]):
        self.records = {question.correlation: Record(question) for question in questions}
        assert len(self.records) == len(questions), "two questions have the same number"
        self.asked: set[int] = set()
        self.answered: set[int] = set()
        self.strangers = 0
        self.errors: Counter[str] = Counter()

    def accepted(self, question: Question) -> None:
        """The broker took it."""
        self.records[question.correlation].accepted = True

    def reply(self, correlation: bytes | None, payload: bytes, error: str | None = None) -> None:
        """A reply came; `error` is the code of one."""
        record = self.records.get(correlation)
        if record is None:
            self.strangers += 1
            return
        if error is not None:
            self.errors[error] += 1
            return
        try:
            self._take(record, payload)
        except (ValueError, KeyError, TypeError, IndexError):
            self.strangers += 1
            return
        if record.texts():
            self.answered.add(record.question.number)

    def _take(self, record: Record, payload: bytes) -> None:
        if not record.question.payload.startswith("{"):
            record.answers.append(Answer(payload.decode()))
            return
        reply = json.loads(payload)
        choice = reply["choices"][0]
        message = choice.get("message")
        whole = None if message is None else message["content"]
        reason = choice["finish_reason"]
        created = reply["created"]
        if not record.question.streamed:
            record.answers.append(Answer(whole, None, reason, created))
        elif reason is not None:
            record.answers.append(Answer(whole, reply["sequence"], reason, created))
        else:
            run = record.pieces.setdefault(created, {})
            run.setdefault(reply["sequence"], set()).add(choice["delta"]["content"])

    def unanswered(self) -> list[Question]:
        """Asked, and there is no whole answer."""
        questions = (record.question for record in self.records.values())
        return [q for q in questions if q.number in self.asked and q.number not in self.answered]

    def faulty(self) -> list[str]:
        """Tells of the questions with different answers and of those with none."""
        records = self.records.values()
        wrong = [r for r in records if r.differs() or (r.accepted and not r.texts())]
        return [f"{r.question.number}: answers {r.answers}, pieces {r.pieces}" for r in wrong]

    def sampled_texts(self) -> dict[str, set[str]]:
        """The answers to sampled questions, by what was asked."""
        texts: dict[str, set[str]] = {}
        for record in self.records.values():
            if record.question.sampled:
                messages = str(json.loads(record.question.payload)["messages"])
                texts.setdefault(messages, set()).update(record.texts())
        return texts

    def counts(self) -> Counts:
        """All of it so far."""
        records = self.records.values()
        return Counts(
            asked=len(self.asked),
            accepted=sum(r.accepted for r in records),
            answered=len(self.answered),
            unanswered=sum(r.accepted and r.question.number not in self.answered for r in records),
            repeated=sum(len(r.answers) > 1 and not r.differs() for r in records),
            different=sum(r.differs() for r in records),
            strangers=self.strangers,
            errors=dict(self.errors),
        )
