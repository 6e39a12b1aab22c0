"""What a fit tells: in order, thinned out but for the latest, bounded, and never waited for by the fit."""

import threading
import time

from parvada.local import StoredBlob
from training.outbox import MAX_PENDING, PAUSE_SECONDS, Outbox
from training.ports import Checkpoint, CurvePoint, MoreTime, Word


def point(iteration: int, metric: str = "loss", split: str = "validation") -> CurvePoint:
    return CurvePoint(iteration, split, metric, 1 / iteration, 0.1 * iteration)  # type: ignore[arg-type]


def checkpoint(iteration: int) -> Checkpoint:
    return Checkpoint(iteration, StoredBlob(f"{iteration:064}", 10, ("n1",)))


def all_of(outbox: Outbox, *messages: Word) -> list[tuple[Word, ...]]:
    for message in messages:
        outbox.put(message)
    outbox.close()
    return list(outbox.batches())


def test_what_is_told_comes_in_order() -> None:
    told: list[Word] = [point(1), point(1, "f1"), point(1, split="train"), checkpoint(1), MoreTime(9.0)]
    assert all_of(Outbox(), *told) == [tuple(told)]
    assert all_of(Outbox()) == []


def test_what_nobody_has_taken_is_replaced_by_the_latest_of_its_series() -> None:
    told: list[Word] = [point(1), checkpoint(1), point(1, "f1"), point(2), checkpoint(2), point(3)]
    assert all_of(Outbox(), *told) == [(point(1, "f1"), checkpoint(2), point(3))]
    flood = [point(number) for number in range(1, 100_001)]
    assert all_of(Outbox(), *flood) == [(point(100_000),)]


def test_no_number_of_series_makes_a_batch_large() -> None:
    told = [point(1, f"m{number}") for number in range(10 * MAX_PENDING)]
    assert all_of(Outbox(), *told) == [tuple(told[-MAX_PENDING:])]


def test_a_flood_passes_at_the_pace_of_the_outbox_while_it_lasts() -> None:
    outbox = Outbox()
    batches: list[tuple[Word, ...]] = []
    taking = threading.Thread(target=lambda: batches.extend(outbox.batches()), name="taking")
    taking.start()
    began = time.monotonic()
    for number in range(1, 100_001):
        outbox.put(point(number))
        if number % 10_000 == 0:
            time.sleep(PAUSE_SECONDS)
    outbox.close()
    taking.join()
    elapsed = time.monotonic() - began
    assert 2 <= len(batches) <= elapsed / PAUSE_SECONDS + 2
    iterations = [word.iteration for batch in batches for word in batch if isinstance(word, CurvePoint)]
    assert iterations == sorted(set(iterations)), "in order, each once"
    assert iterations[-1] == 100_000, "the latest always arrives"


def test_the_last_words_do_not_wait_for_the_pause() -> None:
    outbox = Outbox(pause=3600.0)
    batches = outbox.batches()
    outbox.put(point(1))
    assert next(batches) == (point(1),)
    outbox.put(point(2))
    outbox.close()
    assert list(batches) == [(point(2),)]
