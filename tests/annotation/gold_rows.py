"""Rows of a file of gold items."""


def gold_rows(n, k=4, **more):
    return [
        {
            "prompt": f"What is {number} plus one?",
            "responses": [f"It is {number + 1 + wrong}." for wrong in range(k)],
            "ranks": list(range(1, k + 1)),
            **more,
        }
        for number in range(n)
    ]
