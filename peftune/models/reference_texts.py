"""Sixteen fixed texts on which a model's behaviour is recorded and compared."""

from __future__ import annotations

REFERENCE_TEXTS: tuple[str, ...] = (
    "The soup was cold and nobody said sorry.",
    "train leaves at 7:40 from platform 2",
    "could not stop smiling the whole way home :)",
    "I expected little of it. I was right, sadly, and the tickets were not cheap either.",
    "Is the library open on Monday?",
    "New shoes, first walk, no blisters. That never happens to me.",
    "meh.",
    "They fixed the roof, and now it leaks in two places instead of one. Wonderful.",
    "The committee will meet again in March to vote on the second proposal.",
    "my cat brought me a leaf and sat there so proud",
    "12 eggs, 300 g flour, 1/2 l milk",
    "Three hours on hold; then the line went dead.",
    "Not bad at all, and I say that as someone who hates musicals!",
    "UPDATE: the parcel has been moved to the depot in the next town.",
    "He was late, he was rude, and somehow it was still the best evening of the year.",
    "Grüße aus dem Süden ☀",
)
