"""A small world of questions and answers in which the whole loop runs in minutes.

    lexicon     the world's vocabulary: things, animals, cities, hobbies, feelings, harmful acts
    prompts     the questions people ask, split by combination into train, eval and held-out
    answers     the answers that a base policy is trained on: good, curt, wrong, rude, unsafe, …
    rubric      the gold judge: regular expressions and lookups, never seen by a reward model
    everyday    questions for the demo on a real language model (everyday_prompts), and their rule
    annotators  simulated people: the rubric with noise and position bias, and a spammer

Standard library only. Everything is a pure function of its random seed. Raise CODE_VERSION in
`rlhf/stages/base.py` with every change of the corpus that `answers.corpus` yields.
"""
