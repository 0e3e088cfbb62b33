import multiprocessing
import sqlite3
import time

import pytest

from hbm_core.errors import StoreError
from hbm_core.inference.sampler import ChainProgress, Progress
from hbm_core.store.jobs import Ask, DamagedRow, JobTable, WorkerRow


@pytest.fixture
def table(tmp_path):
    with JobTable(tmp_path / "jobs.db", patience=0.3) as table:
        yield table


def ask(name="a", **more):
    return Ask(name, "some.task", f'{{"n":"{name}"}}', **more)


def running(table, name="a", session="s1"):
    table.submit(ask(name), session)
    return table.claim("w1", lease=60)


def test_a_job_runs_from_queued_to_done(table):
    assert table.submit(ask(label="Eight schools"), "s1")
    assert (table.get("a").state, table.get("a").label, table.position("a")) == ("queued", "Eight schools", 1)
    job = table.claim("w1", lease=60)
    assert (job.id, job.state, job.worker, job.attempts) == ("a", "running", "w1", 1)
    progress = Progress("sampling", (ChainProgress(3, 10, 1, True, 0.5),), 2.0)
    assert table.beat("a", "w1", 60, progress).owned
    assert table.get("a").progress == progress
    assert table.finish("a", "w1", size=7, partial=False)
    done = table.get("a")
    assert (done.state, done.bytes, done.progress, done.worker) == ("done", 7, None, None)
    assert done.created <= done.started <= done.finished
    assert not table.submit(ask(), "s2")
    assert table.get("a").state == "done"


def test_the_queue_is_first_come_first_served_and_bounded(table):
    for place, name in enumerate("cab", start=1):
        table.submit(ask(name), "s1", queue=3)
        assert table.position(name) == place
    with pytest.raises(StoreError, match="HBM_QUEUE"):
        table.submit(ask("d"), "s1", queue=3)
    assert not table.submit(ask("a"), "s2", queue=3)
    assert [table.claim("w", 60).id for _ in range(3)] == list("cab")
    assert table.claim("w", 60) is None


def test_a_worker_that_lost_its_job_cannot_touch_it(table):
    running(table)
    table.release("w1", "it died")
    assert table.claim("w2", 60).attempts == 2
    assert not table.beat("a", "w1", 60, Progress("saving")).owned
    assert not table.finish("a", "w1", 1, False)
    assert not table.fail("a", "w1", "mine")
    assert not table.stopped("a", "w1")
    job = table.get("a")
    assert (job.state, job.worker, job.progress, job.error) == ("running", "w2", None, None)


def test_three_deaths_and_the_job_fails_with_the_reason(table):
    table.submit(ask(), "s1")
    for attempt in (1, 2, 3):
        assert table.claim(f"w{attempt}", 60).attempts == attempt
        assert table.release(f"w{attempt}", "its worker was killed (signal 9)") == ("a",)
    job = table.get("a")
    assert job.state == "failed"
    assert "3 times" in job.error and "signal 9" in job.error
    assert table.submit(ask(), "s1")
    assert (table.get("a").state, table.get("a").attempts, table.get("a").error) == ("queued", 0, None)


def test_an_orderly_stop_does_not_count_as_an_attempt(table):
    for _ in range(5):
        running(table)
        table.release("w1", "the app was stopped", counted=False)
    assert (table.get("a").state, table.get("a").attempts) == ("queued", 0)


def test_an_expired_lease_is_taken_up_by_another(table):
    table.submit(ask(), "s1")
    table.claim("w1", lease=-1)
    job = table.claim("w2", lease=-1)
    assert (job.worker, job.attempts) == ("w2", 2)
    table.claim("w3", lease=-1)
    assert table.claim("w4", 60) is None
    assert table.get("a").state == "failed"
    assert "no sign of life" in table.get("a").error


def test_a_shared_run_stops_only_when_nobody_is_left(table):
    table.submit(ask(), "s1")
    assert not table.submit(ask(), "s2")
    table.claim("w1", 60)
    table.withdraw("a", "s1")
    assert not table.beat("a", "w1", 60, None).cancel
    assert table.sessions("a") == ("s2",)
    assert set(table.sessions("a", active=False)) == {"s1", "s2"}
    table.withdraw("a", "s2")
    assert table.beat("a", "w1", 60, None).cancel
    assert table.stopped("a", "w1")
    assert table.get("a").state == "cancelled"
    assert [job.id for job in table.jobs("s1")] == ["a"]


def test_a_waiting_job_is_cancelled_at_once(table):
    table.submit(ask(), "s1")
    table.withdraw("a", "somebody else")
    assert table.get("a").state == "queued"
    table.withdraw("a", "s1")
    assert table.get("a").state == "cancelled"
    assert table.position("a") is None
    assert table.submit(ask(), "s1")


def test_asking_again_while_the_run_stops_queues_it_anew(table):
    running(table)
    table.withdraw("a", "s1")
    table.submit(ask(), "s3")
    assert not table.get("a").cancel
    table.stopped("a", "w1")
    assert table.get("a").state == "queued"


def test_a_cancelled_job_whose_worker_dies_stays_cancelled(table):
    running(table)
    table.withdraw("a", "s1")
    table.release("w1", "killed")
    assert table.get("a").state == "cancelled"


def test_overdue_names_runs_that_do_not_obey(table):
    running(table)
    table.beat("a", "w1", 60, Progress("sampling"))
    assert table.overdue(0, 1e9) == []
    table.withdraw("a", "s1")
    time.sleep(0.02)
    assert [job.worker for job in table.overdue(0.01, 1e9)] == ["w1"]
    table.beat("a", "w1", 60, Progress("compiling"))
    assert table.overdue(10, 1e9) == []
    assert [job.id for job in table.overdue(10, 0.01)] == ["a"]


def test_pin_rename_list_forget_and_delete(table):
    for name, session in (("a", "s1"), ("b", "s2")):
        table.submit(ask(name), session)
    table.submit(ask("a"), "s2")
    table.pin("a")
    table.rename("a", "Mine")
    assert (table.get("a").pinned, table.get("a").label) == (True, "Mine")
    assert {job.id for job in table.jobs("s2")} == {"a", "b"}
    assert [job.id for job in table.jobs("s1")] == ["a"]
    assert len(table.jobs()) == 2
    assert not table.forget("a", "s1")
    assert table.forget("a", "s2")
    assert table.delete("a")
    assert not table.delete("a")
    assert table.get("a") is None
    running(table, "b")
    assert not table.delete("b")


def test_a_lost_result_is_offered_again(table):
    running(table)
    table.finish("a", "w1", 5, False)
    table.lost("a", "The result was damaged.")
    assert (table.get("a").state, table.get("a").error) == ("failed", "The result was damaged.")
    assert table.submit(ask(), "s1")


def test_results_found_on_disk_enter_as_done(table):
    table.adopt(ask(public=True), created=5.0, size=3, partial=True)
    job = table.get("a")
    assert (job.state, job.created, job.bytes, job.partial, job.public) == ("done", 5.0, 3, True, True)


def test_workers_show_themselves(table):
    row = WorkerRow("w1", "here", 12, "warming", 1.0, 1.0)
    table.show(row)
    table.show(WorkerRow("w1", "here", 12, "idle", 1.0, 2.0))
    assert [(found.state, found.seen) for found in table.workers()] == [("idle", 2.0)]
    table.gone("w1")
    assert table.workers() == []


def test_a_row_changed_behind_the_table_is_noticed(table, tmp_path):
    running(table, "a")
    table.submit(ask("b"), "s1")
    with sqlite3.connect(tmp_path / "jobs.db") as other:
        other.execute("UPDATE jobs SET request = replace(request, 'b', 'c') WHERE id = 'b'")
    other.close()
    with pytest.raises(DamagedRow):
        table.get("b")
    assert table.problems() == ["row b is damaged"]
    assert [job.id for job in table.jobs()] == ["a"]
    assert table.claim("w2", 60) is None
    assert table.get("b") is None


def test_a_damaged_file_is_said_in_words(tmp_path):
    path = tmp_path / "jobs.db"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match="damaged"):
        JobTable(path)


def test_a_damaged_page_is_found(tmp_path):
    path = tmp_path / "jobs.db"
    with JobTable(path) as table:
        for number in range(200):
            table.submit(ask(f"job-{number}"), "s1")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 600] = b"\xff" * 600
    path.write_bytes(content)
    with JobTable(path) as table:
        try:
            assert table.problems()
        except StoreError as error:
            assert "damaged" in str(error)


def test_a_lock_held_too_long_is_said_in_words_and_passes(table, tmp_path):
    other = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="held by another process"):
        table.submit(ask(), "s1")
    assert table.get("a") is None
    other.execute("COMMIT")
    other.close()
    assert table.submit(ask(), "s1")


def test_a_folder_that_cannot_be_made_is_said_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used"):
        JobTable(tmp_path / "file" / "jobs.db")


#: Seconds that three processes may take to start on a machine that is busy too.
PATIENCE = 240


def _claim_all(path, name, start, out):
    with JobTable(path) as table:
        start.wait()
        while (job := table.claim(name, 60)) is not None:
            out.put((name, job.id))
            table.finish(job.id, name, 1, False)
    out.put((name, None))


def test_processes_that_claim_at_once_never_share_a_job(tmp_path):
    path, count = tmp_path / "jobs.db", 60
    with JobTable(path) as table:
        for number in range(count):
            table.submit(ask(f"job-{number}"), "s1")
        context = multiprocessing.get_context("spawn")
        out, start = context.Queue(), context.Event()
        names = ("w1", "w2", "w3")
        processes = [context.Process(target=_claim_all, args=(path, name, start, out)) for name in names]
        for process in processes:
            process.start()
        start.set()
        claimed, ended = [], 0
        while ended < len(processes):
            _, id = out.get(timeout=PATIENCE)
            ended += id is None
            claimed += [id] * (id is not None)
        for process in processes:
            process.join()
        assert sorted(claimed) == sorted(f"job-{number}" for number in range(count))
        assert all(job.state == "done" and job.attempts == 1 for job in table.jobs())
