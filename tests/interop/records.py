"""Records made on the spot, and the prompt of the IST authors as text."""

import random

THINGS = ["a kettle", "the old harbour", "my neighbour's bicycle", "a thunderstorm", "copper wire",
          "the night train", "a sourdough loaf", "the moon", "a chess clock", "winter barley"]
ASKS = ["Describe {} in one sentence.", "Why does {} matter?", "What would a child ask about {}?",
        "Name something that goes with {}.", "How would you explain {} to a visitor?"]
INPUTS = ["", "", "Keep it short.", "Answer in plain words, without numbers."]
ANSWERS = ["It is {}, and it is better known than people think.",
           "Most days nobody notices {}; today we did.",
           "Think of {} first, then of everything around it, and stop there.",
           "There are {} good reasons, and the first of them is time."]


def records(n, seed=1):
    """n records with instruction, input and output, always the same."""
    rng = random.Random(seed)
    out = []
    for _ in range(n):
        thing = rng.choice(THINGS)
        out.append({"instruction": rng.choice(ASKS).format(thing), "input": rng.choice(INPUTS),
                    "output": " ".join(rng.choice(ANSWERS).format(rng.choice([thing, "three"]))
                                       for _ in range(rng.randint(1, 3)))})
    return out


def paper_text(r):
    """The authors' prompt: its lines carry the source file's indentation."""
    s = " " * 16
    if r["input"]:
        head = ("Below is an instruction that describes a task, paired with an input that provides "
                "further context. Write a response that appropriately completes the request. \n\n")
        middle = f"{s}### Instruction:\n{s}{r['instruction']}\n\n{s}### Input:\n{s}{r['input']}\n\n"
    else:
        head = ("Below is an instruction that describes a task. Write a response that "
                "appropriately completes the request.  \n\n")
        middle = f"{s}### Instruction:\n{s}{r['instruction']}\n\n"
    return f"{head}{middle}{s}### Response:\n{s}{r['output']}"
