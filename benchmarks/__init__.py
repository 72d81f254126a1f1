"""Measure peftune beside what a user would run instead, and beside what the machine can do.

    python -m benchmarks --shape gpt2 --out build/bench/result.json
    python -m benchmarks table build/bench/result.json docs/results.md

`docs/results.md` says what is compared, and how.
"""
