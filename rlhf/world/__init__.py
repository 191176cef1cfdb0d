"""A small world of questions and answers in which the whole loop runs in minutes.

    lexicon     what there is to know: things, animals, cities, hobbies, feelings, harmful acts
    prompts     the questions people ask, split by combination into train, eval and held-out
    answers     the answers a base policy has read: good, half, curt, wrong, rude, unsafe, …
    rubric      the gold judge: regular expressions and lookups, never seen by a reward model
    annotators  simulated people: the rubric with noise and position bias, and a spammer

Standard library only. Everything is a pure function of its seed. A change of what `answers.corpus`
yields raises CODE_VERSION in `rlhf/stages/base.py`.
"""
