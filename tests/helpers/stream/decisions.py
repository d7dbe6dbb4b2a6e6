"""A policy and a plan in conversation, and the record that the policy keeps of it."""

import numpy as np

from stream.steering.policy_client import Questions
from stream.steering.policy_server import PolicyDoor
from stream.steering.record import DecisionRecord
from stream.wire.codec import decode, encode
from stream.wire.messages import Command
from tests.helpers.stream.policies import AXES, ILLUMINATION, LIMITS, image, policy

SCAN = "0000-star"
MIDDLE = (LIMITS[0][0] + LIMITS[0][1]) / 2
UPPER = (LIMITS[0][0], MIDDLE), LIMITS[1]


def conversation(folder, n_questions=8, restarts=(), fails=()):
    """Answers of a door with a record in `folder`; its policy is started anew before some questions.

    The last exposure of those that `fails` names fails.
    """
    (folder / "scans" / SCAN).mkdir(parents=True, exist_ok=True)
    door, questions = None, Questions(lambda: 0.0)
    measured, answers, failed = np.zeros((0, 2)), [], []
    for question in range(n_questions):
        if door is None or question in restarts:
            record = DecisionRecord(folder / "scans", folder, ILLUMINATION)
            door = PolicyDoor(policy(seed=3), "run", lambda: 0.0, record)
        if question >= 2:
            path = AXES.centres(measured)[: 16 * (question - 1)]
            counts = {"lost": question // 4}
            door.show(image(question, path=path, corner_px=60 + 4 * question, counts=counts))
        consult = questions.next(16, failed)
        (reply,) = door.exchange([[b"plan", *encode(consult, [measured])]])
        answer, (points,) = decode(reply[1:])
        questions.high_water = answer.sequence
        n_good = len(points) - (question in fails)
        failed += [tuple(point) for point in points[n_good:].tolist()]
        measured = np.concatenate([measured, points[:n_good]])
        answers.append((answer, points))
        if question == 5:
            (_, *passed_on), _ = door.exchange([[b"me", *encode(command("region", UPPER))]])
            questions.hear(decode(passed_on)[0])
    return answers


def command(deed, region=None):
    return Command(deed=deed, region=region, by="test")


def record_of(folder):
    """The file of the decisions about the scan that `conversation` made in `folder`."""
    (file,) = (folder / "scans" / SCAN).glob("decisions-*.log")
    return file
