# SPDX-License-Identifier: Apache-2.0
"""The control interface of a pair that runs: what tests/conformance/pair.json says it answers, and what comes together."""
import json
import os
import stat
import time

from scenario import expect, refused, scenario
from colo_lab import LabError
from colo_lab.qmp import Qmp, QmpError

TABLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance", "pair.json")
SOON_S = 15
# How fast a loss is noticed is not the point here; a busy machine shall not make one up.
MANUAL = {"arbiter": {"kind": "manual", "directory": None}, "heartbeat": {"loss_ms": 1000, "progress_timeout_ms": 5000}}
DEVICE_STATE = b"QEVM"  # how a file of device state begins
SAVES = 8


def answer_of(qmp, request):
    try:
        return {"return": qmp.execute(request["execute"], request.get("arguments"))}
    except QmpError as error:
        return {"error": [error.error_class, error.description]}


def is_so(answer, step):
    if "error" in step:
        return answer.get("error") == step["error"]
    value = answer.get("return")
    if value is None or ("return" in step and value != step["return"]):
        return False
    if "members" in step and sorted(value) != step["members"]:
        return False
    return all(value.get(name) == part for name, part in step.get("has", {}).items())


def ask(qmp, step):
    """The answer, asked for again while it may still become what it should be."""
    until = time.monotonic() + (SOON_S if step.get("soon") else 0)
    while True:
        answer = answer_of(qmp, step["send"])
        if is_so(answer, step) or time.monotonic() > until:
            return answer
        time.sleep(0.1)


def play(name, sides, say, folder):
    """One part of the table; every row is played, then all that was wrong is told."""
    with open(TABLE, encoding="utf-8") as file:
        steps = json.loads(file.read().replace("@FOLDER@", folder))[name]
    wrong = []
    for step in steps:
        qmp = sides[step["side"]].qmp
        qmp.take_events()
        answer = ask(qmp, step)
        if not is_so(answer, step):
            wrong.append(f"{step['side']} {json.dumps(step['send'])}\n    section {step['says']}\n    answers {json.dumps(answer)}")
        for event in step.get("events", []):
            try:
                qmp.wait_event(event, 10)
            except LabError:
                wrong.append(f"{step['side']} {json.dumps(step['send'])}\n    section {step['says']}\n    no {event} follows")
    expect(not wrong, f"{name}: {len(wrong)} of {len(steps)} rows differ\n" + "\n".join(wrong))
    say(f"{name}: {len(steps)} rows are as they should be")


@scenario(120)
def interface_of_a_pair(lab_factory, say):
    with lab_factory(MANUAL) as lab:
        lab.boot()
        lab.protect(lab.a)
        # From here on a checkpoint has a cause.
        lab.a.qmp.execute("migrate-set-parameters", {"x-checkpoint-delay": 20000})
        sides = {"primary": lab.a, "secondary": lab.b}
        play("protected", sides, say, lab.directory)
        lab.wait_protected(lab.a)
        lab.b.qmp.take_events()
        lab.a.die()
        lab.b.wait_status(lambda s: s["state"] == "peer-lost", "peer lost, waiting for the operator", 15)
        data = lab.b.qmp.wait_event("COLO_EXIT", 10)["data"]
        expect(data == {"mode": "secondary", "reason": "error"}, f"12.1: COLO_EXIT says {data}")
        play("peer-lost", sides, say, lab.directory)
        lab.wait_alone(lab.b)
        again = [event for event in lab.b.qmp.take_events() if event["event"] == "COLO_EXIT"]
        expect(not again, f"12.1: no second COLO_EXIT, but {again}")
        play("after-failover", sides, say, lab.directory)


def send(qmp, command, arguments=None):
    """Without waiting for the answer, which comes with `id` = command."""
    qmp._socket.sendall(json.dumps({"execute": command, "arguments": arguments or {}, "id": command}).encode())


def take_answer(qmp, command, timeout=30.0):
    until = time.monotonic() + timeout
    while True:
        message = qmp._read(until)
        if "event" in message:
            qmp.events.append(message)
        elif message.get("id") == command:
            return message


@scenario(90)
def saves_that_overlap(lab_factory, say):
    """xen-save-devices-state from several monitors at once: each is answered with a whole file, the guest runs afterwards, a
    `stop` in between has the last word, and a guest that panicked stays what it is."""
    with lab_factory() as lab:
        host = lab.boot()
        monitors = [Qmp(host.socket) for _ in range(SAVES)]
        files = [os.path.join(lab.directory, f"state{i}") for i in range(SAVES)]
        umask = os.umask(0)  # the daemon has the same
        os.umask(umask)
        host.qmp.take_events()
        for stop_too in (False, True):
            for qmp, name in zip(monitors, files):
                send(qmp, "xen-save-devices-state", {"filename": name, "live": False})
            if stop_too:
                host.qmp.execute("stop")
            answers = [take_answer(qmp, "xen-save-devices-state") for qmp in monitors]
            expect(all(answer.get("return") == {} for answer in answers), f"12.2: {answers}")
            for name in files:
                with open(name, "rb") as file:
                    expect(file.read(4) == DEVICE_STATE, f"12.2: {name} is no device state")
                mode = stat.S_IMODE(os.stat(name).st_mode)
                expect(mode == 0o660 & ~umask, f"12.2: {name} has mode {mode:o} under umask {umask:o}")
                os.unlink(name)
            status = host.qmp.execute("query-status")
            wanted = "paused" if stop_too else "running"
            expect(status["status"] == wanted, f"9: {wanted} after the saves, not {status}")
            events = [event["event"] for event in host.qmp.take_events() if event["event"] in ("STOP", "RESUME")]
            expect(events and all(one != other for one, other in zip(events, events[1:])), f"9: STOP and RESUME take turns: {events}")
            expect(events[0] == "STOP" and events[-1] == ("STOP" if stop_too else "RESUME"), f"9: {events}")
            say(f"{SAVES} saves at once{' and a stop' if stop_too else ''}: {len(events)} STOP/RESUME, then {wanted}")
        host.qmp.execute("cont")
        lab.control("panic", answer=False)
        host.qmp.wait_event("GUEST_PANICKED", 20)
        expect(host.qmp.execute("query-status")["status"] == "guest-panicked", "9: run state after GUEST_PANICKED")
        send(monitors[0], "xen-save-devices-state", {"filename": files[0]})
        send(monitors[1], "xen-save-devices-state", {"filename": files[1]})
        for qmp in monitors[:2]:
            answer = take_answer(qmp, "xen-save-devices-state")
            expect(answer.get("return") == {}, f"12.2: a guest that stands still can be saved: {answer}")
        expect(host.qmp.execute("query-status")["status"] == "guest-panicked", "9: a save lets no panicked guest go on")
        text = refused(host, "cont")
        expect(text == "Resetting the Virtual Machine is required", f"9: cont of a panicked guest: {text}")
        for qmp in monitors:
            qmp.close()
