# SPDX-License-Identifier: Apache-2.0
"""The primary's host is lost: at rest, under load, while checkpoints are under way, in both directions, twenty times."""
import time

from scenario import BUSY, CALM, expect, finish, guest_is_sound, lose_primary, scenario, wait_flowing
from colo_lab.lab import check_unharmed


def there_and_back(lab, load, say):
    """a is lost, comes back as fresh secondary, then b is lost."""
    for primary in (lab.a, lab.b):
        measured = lose_primary(lab, primary, load)
        say(f"host {primary.name} lost: next answer after {measured['first_ms']} ms, last connection after "
            f"{measured['worst_ms']} ms, generation {measured['generation']}")
        if primary is lab.a:
            lab.revive(lab.a)
            load.mark()
            lab.protect(lab.b)
            gap = load.report()["sums"]["longest_gap_ms"]
            say(f"protected again by the host that had been lost; longest gap meanwhile {gap:.0f} ms")


@scenario(90)
def failover_idle(lab_factory, say):
    with lab_factory() as lab:
        lab.boot()
        lab.protect(lab.a)
        load = lab.load(*CALM)
        lab.settle(load, 1.5)
        there_and_back(lab, load, say)
        guest_is_sound(lab)
        finish(lab, load, say)


@scenario(100)
def failover_network_load(lab_factory, say):
    with lab_factory() as lab:
        lab.boot()
        lab.protect(lab.a)
        load = lab.load(*BUSY, "differing interval_ms=30")
        lab.settle(load, 2)
        there_and_back(lab, load, say)
        guest_is_sound(lab)
        finish(lab, load, say)


@scenario(120)
def failover_memory_load(lab_factory, say):
    with lab_factory() as lab:
        lab.boot()
        lab.control("dirty 200 96")
        lab.control("smc 1")
        lab.control("exec 1")
        lab.protect(lab.a, timeout=90)
        load = lab.load(*CALM)
        lab.settle(load, 2)
        there_and_back(lab, load, say)
        status = guest_is_sound(lab)
        expect(status["pages_written"] > 1000, f"the dirtier did not run: {status}")
        finish(lab, load, say)


@scenario(60)
def failover_daemon_killed_links_up(lab_factory, say):
    """Only the processes die: the kernel closes their sockets in order, which must not look like a planned end."""
    with lab_factory() as lab:
        lab.boot()
        lab.protect(lab.a)
        load = lab.load(*CALM)
        lab.settle(load, 1)
        say(f"daemon killed: {lose_primary(lab, lab.a, load, how='kill')}")
        finish(lab, load, say)


def failovers(lab, count, say, bulk=()):
    """`count` failovers, sides alternating, a new connection between each pair; the same connections throughout."""
    primary = lab.boot()
    lab.protect(primary)
    load = lab.load(*CALM, *(bulk or ("upload mb_per_s=1 block_kb=2048", "download mb_per_s=1 block_kb=2048")))
    lab.settle(load, 1)
    worst = []
    for number in range(count):
        load.add("echo interval_ms=20")
        report = load.report()
        for kind in ("upload", "download"):
            flow = next(flow for flow in report["flows"] if flow["kind"] == kind)
            expect(flow["state"] == "open" and flow["moved_bytes"] > 0, f"no {kind} is under way: {flow}")
        measured = lose_primary(lab, primary, load)
        worst.append(measured["worst_ms"])
        expect(measured["generation"] >= number + 1, f"generation {measured['generation']} after {number + 1} failovers")
        say(f"{number + 1}: host {primary.name} lost, answers after {measured['first_ms']}..{measured['worst_ms']} ms")
        lab.revive(primary)
        primary = lab.other(primary)
        lab.protect(primary)
        wait_flowing(load, time.monotonic(), timeout=10)
    guest_is_sound(lab)
    summary = finish(lab, load, say)
    echoes = [flow for flow in summary["flows"] if flow["kind"] == "echo"]
    expect(len(echoes) == 4 + count, f"{len(echoes)} echo connections instead of {4 + count}")
    say(f"gap of the slowest connection: median {sorted(worst)[len(worst) // 2]} ms, worst {max(worst)} ms")


@scenario(300)
def failover_twenty_in_a_row(lab_factory, say):
    with lab_factory() as lab:
        failovers(lab, 20, say)


@scenario(200)
def failover_at_the_end_of_a_block(lab_factory, say):
    """Uploads that wait for an answer after each block, and downloads that ask only then: the last bytes before a silence
    must not get lost, because nothing that follows would make up for them."""
    with lab_factory() as lab:
        failovers(lab, 8, say, bulk=("upload count=4 mb_per_s=1 block_kb=64 window=1", "download count=2 mb_per_s=1 block_kb=16"))


@scenario(3600, tier="soak")
def failover_hundred_in_a_row(lab_factory, say):
    with lab_factory() as lab:
        failovers(lab, 100, say)


@scenario(700, tier="soak")
def no_false_failover(lab_factory, say):
    """Ten minutes of 200 MB/s and network load: the primary stays the primary, the generation does not move."""
    with lab_factory() as lab:
        lab.boot()
        lab.control("dirty 200 96")
        status = lab.protect(lab.a, timeout=90) and lab.a.status()
        load = lab.load(*BUSY)
        until = time.monotonic() + 600
        while time.monotonic() < until:
            time.sleep(5)
            now = lab.a.status()
            expect(now["generation"] == status["generation"] and now["state"] == "protected",
                   f"state {now['state']}, generation {now['generation']}: {now['reason']}")
            check_unharmed(load.report())
        guest_is_sound(lab)
        finish(lab, load, say)
