"""Stored results are read with suspicion: a damaged one is a row in the report and is made again, and blocks nothing."""

import json
import os
import shutil

import pytest

from bench import trails
from bench.cli import main
from bench.data.dataset import spec
from bench.experiments import select
from bench.files import write_json
from bench.manifest import path as manifest_path
from bench.manifest import read_manifest, suites_run, write_manifest
from bench.matrix import Config, Job, expand
from bench.merge import merge
from bench.plan import make_plan
from bench.report.build import build
from bench.store import Store, read_json
from bench.suites import suite
from bench.trails import Trail, Trial
from bench.verify import verify
from tests import planted
from tests.fuzz_stored import finish, outcome


@pytest.fixture(autouse=True)
def fast(no_fsync):
    pass


def job(seed=1111, backbone="lmf", **changes):
    return Job(Config("mosi", "unaligned", backbone, **changes), seed)


METRICS = {
    "empty": "", "cut": '{"test": {"acc', "null": "null", "list": "[]", "five": "5", "nothing": "{}", "text": '"x"',
    "deep": "[" * 100_000, "lone": '{"a": "\\ud800"}',
}


def edit(change):
    def damage(folder):
        content = read_json(folder / "metrics.json")
        content.pop("digests")
        change(content)
        (folder / "metrics.json").write_text(json.dumps(content))
        write_json(folder / "env.json", {"data_sha256": "aa"})  # as an earlier version wrote it: its value is what is wrong
    return damage


DAMAGE = {
    **{k: lambda f, v=v: (f / "metrics.json").write_text(v) for k, v in METRICS.items()},
    "acc 1.5": edit(lambda m: m["test"].update(non0_acc2=1.5)), "acc -3": edit(lambda m: m["test"].update(acc7=-3)),
    "acc true": edit(lambda m: m["test"].update(non0_acc2=True)), "acc text": edit(lambda m: m["valid"].update(acc5="0.5")),
    "mae -1": edit(lambda m: m["test"].update(mae=-1)), "corr 2": edit(lambda m: m["test"].update(corr=2)),
    "infinite": edit(lambda m: m["test"].update(mae=float("inf"))), "epochs": edit(lambda m: m.update(epochs=-1)),
    "no test": edit(lambda m: m.pop("test")), "split a list": edit(lambda m: m.update(valid=[1])),
    "digests gone": lambda f: write_json(f / "metrics.json", {k: v for k, v in read_json(f / "metrics.json").items() if k != "digests"}),
    "digests null": lambda f: write_json(f / "metrics.json", {**read_json(f / "metrics.json"), "digests": None}),
    "edited": lambda f: (f / "metrics.json").write_text((f / "metrics.json").read_text().replace('"acc7": 0.', '"acc7": 0.1')),
    "predictions cut": lambda f: (f / "predictions.npz").write_bytes((f / "predictions.npz").read_bytes()[:100]),
    "history edited": lambda f: (f / "history.csv").write_text("epoch\n1\n"),
    "job gone": lambda f: (f / "job.json").unlink(), "job null": lambda f: (f / "job.json").write_text("null"),
    "metrics a folder": lambda f: ((f / "metrics.json").unlink(), (f / "metrics.json").mkdir()),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_result_is_no_result(tmp_path, what):
    store, j = Store(tmp_path), job()
    finish(store, j)
    assert store.status(j) == "done" and not verify(store, deep=True).wrong
    DAMAGE[what](store.folder(j))
    again = Store(tmp_path)
    for s in (store, again):
        assert s.status(j) == "damaged"
        values, runs = s.frames([j])
        assert values.empty and runs.status[0] == "failed" and runs.error[0].startswith("damaged: ")
    assert [w for w, _ in verify(again).wrong] == [j.folder]
    again.predictions(j), again.history(j), again.scan()
    finish(again, j)
    assert again.status(j) == "done"


def test_a_result_without_its_predictions_is_still_a_result(tmp_path):
    """They hold ids and labels, and are left out of folders that are handed on; all else stays sealed."""
    store, j = Store(tmp_path), job()
    finish(store, j)
    (store.folder(j) / "predictions.npz").unlink()
    assert Store(tmp_path).status(j) == "done" and store.predictions(j) is None and not verify(store).wrong
    (store.folder(j) / "history.csv").write_text("epoch\n1\n")
    assert Store(tmp_path).status(j) == "damaged"


def test_another_jobs_files_are_not_this_jobs(tmp_path):
    store, ours, theirs, copy = Store(tmp_path), job(), job(backbone="tfn"), job(seed=1112)
    finish(store, theirs)
    shutil.copytree(store.folder(theirs), store.folder(ours))
    assert store.status(ours) == "damaged" and store.status(theirs) == "done"
    finish(store, job(seed=1113))
    shutil.copytree(store.folder(job(seed=1113)), store.folder(copy))
    assert store.status(copy) == "damaged"
    write_json(store.folder(copy) / "job.json", copy.as_dict())
    assert Store(tmp_path).status(copy) == "damaged", "the digest in metrics.json is of the other job.json"
    found = verify(store)
    assert {w for w, _ in found.wrong} == {ours.folder, copy.folder} and found.results == 2 and found.sealed == 2


def test_verify_recomputes_and_finds_what_was_sealed_with_care(tmp_path):
    from bench import records

    store, j = Store(tmp_path), job()
    finish(store, j)
    folder = store.folder(j)
    content = read_json(folder / "metrics.json")
    content["test"]["acc7"] += 0.02
    content.pop("digests")
    write_json(folder / "metrics.json", records.sealed(content, {n: (folder / n).read_bytes() for n in records.SEALED}))
    assert not verify(store).wrong
    (wrong,) = verify(store, deep=True).wrong
    assert wrong[0] == j.folder and wrong[1].startswith("test acc7 is 0.") and "by the stored predictions" in wrong[1]
    twin = Job(j.config, 1112)  # the same predictions under another seed, resealed
    finish(store, twin)
    files = {n: (store.folder(twin) / n).read_bytes() for n in records.SEALED} | {"predictions.npz": (folder / "predictions.npz").read_bytes()}
    (store.folder(twin) / "predictions.npz").write_bytes(files["predictions.npz"])
    write_json(store.folder(twin) / "metrics.json", records.sealed(content, files))
    assert "the same predictions as" in dict(verify(store).wrong)[twin.folder]
    for one in (j, twin):  # and without them, so that nothing but the numbers can tell
        (store.folder(one) / "predictions.npz").unlink()
    files.pop("predictions.npz")
    for loss, found in ((0.5, ["the same numbers as"]), (None, [])):
        values = {k: {**content[k], "loss": loss} for k in ("valid", "test")}
        for one in (j, twin):
            kept = {n: (store.folder(one) / n).read_bytes() for n in files}
            write_json(store.folder(one) / "metrics.json", records.sealed({**content, **values, "digests": {}}, kept))
        wrong = [reason for where, reason in verify(store).wrong if where == twin.folder]
        assert [w[: len(f)] for w, f in zip(wrong, found, strict=True)] == found  # accuracies alone may well be equal


@pytest.mark.parametrize(("losses", "delta", "chosen"), [
    ((0.5, 0.4, 0.4, 0.6), 0.0, 2), ((0.9, 0.5, 0.45, 0.3), 0.1, 4), ((0.9, 0.5, 0.45, 0.42), 0.1, 2),
])
def test_verify_finds_an_epoch_that_validation_did_not_choose(losses, delta, chosen, tmp_path):
    """The first of the lowest, by more than min_delta; preparation epochs do not count."""
    from bench import records

    store = Store(tmp_path)
    j = Job(job().config.with_(train={"min_delta": delta}), 1111)
    finish(store, j)
    folder = store.folder(j)
    lines = ["epoch,valid_loss", "0,0.1", *(f"{i},{loss}" for i, loss in enumerate(losses, 1))]
    (folder / "history.csv").write_text("\n".join(lines) + "\n")
    for best in (chosen, 1):
        content = {k: v for k, v in read_json(folder / "metrics.json").items() if k != "digests"} | {"best_epoch": best, "epochs": len(losses)}
        write_json(folder / "metrics.json", records.sealed(content, {n: (folder / n).read_bytes() for n in records.SEALED}))
        said = [f"best_epoch is 1 in metrics.json, but {chosen} by the validation losses of history.csv"] if best != chosen else []
        assert [why for _, why in verify(store, deep=True).wrong] == said


def test_a_pipe_in_place_of_a_file_is_damage_and_is_not_waited_for(tmp_path):
    store, j = Store(tmp_path), job()
    finish(store, j)
    for name in ("predictions.npz", "history.csv", "job.json", "env.json", "metrics.json"):
        (store.folder(j) / name).unlink()
        os.mkfifo(store.folder(j) / name)
        again = Store(tmp_path)
        again.history(j), again.predictions(j), again.scan(), again.frames([j])
        said = "regular file" if name != "metrics.json" else "cut or damaged"
        assert said in verify(again, deep=True).wrong[0][1] and again.status(j) == "damaged"


def test_what_only_verify_finds_is_said_to_be_finished_to_a_run(tmp_path, capsys):
    store, fine, forged = Store(tmp_path), job(), job(1112)
    finish(store, fine)
    finish(store, forged)
    env = store.folder(forged) / "env.json"
    write_json(env, {**read_json(env), "provenance": "official", "data_sha256": "c" * 64})
    found = verify(store)
    assert found.hidden == [forged.folder] and "official, whose hash is none that was published" in dict(found.wrong)[forged.folder]
    assert store.status(forged) == "done"
    (store.folder(fine) / "metrics.json").write_text("null")
    assert main(["verify", "--results", str(tmp_path)]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "`bench run` makes the others again" in out and "remove their folders" in out
    published = spec("mosi").features["unaligned"].sha256
    write_json(env, {**read_json(env), "data_sha256": published})
    assert forged.folder not in dict(verify(store).wrong)


def test_the_verb(tmp_path, capsys):
    store, j = Store(tmp_path), job()
    finish(store, j)
    assert main(["verify", "--deep", "--results", str(tmp_path)]) == 0
    assert "1 result: 1 sealed, 0 not sealed (of an earlier version), 0 damaged; metrics of 1 recomputed" in capsys.readouterr().out
    (store.folder(j) / "metrics.json").write_text("null")
    assert main(["verify", "--results", str(tmp_path)]) == 1
    assert "metrics.json holds no object" in capsys.readouterr().out
    assert main(["verify", "--results", str(tmp_path / "none")]) == 2


def test_damage_and_strange_environments_never_block_the_page(tmp_path):
    p = planted.write(tmp_path / "results", holes=False)
    jobs = expand([p.experiment])
    folders = [p.store.folder(j) for j in jobs]
    (folders[0] / "metrics.json").write_text("null")
    (folders[1] / "job.json").write_text("{}")
    for folder, env in zip(folders[2:], ("5", "[]", "null", "{", '{"wall_seconds": "x", "data_sha256": 3, "device": [1], "a": {}}')):
        (folder / "env.json").write_text(env)
    (folders[8] / "history.csv").write_bytes(b"\xff\xfe,,\n\n")
    page = build([p.experiment], Store(p.store.root), tmp_path / "out", "real", reported=planted.reported()).read_text()
    assert "damaged: metrics.json holds no object" in page and "damaged: job.json is" in page


def test_results_of_other_versions_are_read_under_their_own_id(tmp_path):
    newer = {**job().as_dict(), "id": "abcdefabcdef-s1111", "resolution": 7}
    folder = tmp_path / "mosi" / "lmf+none" / "abcdefabcdef-s1111"
    write_json(folder / "job.json", newer)
    split = {"non0_acc2": 0.5}
    write_json(folder / "metrics.json", {"valid": split, "test": split, "best_epoch": 1, "epochs": 1, "new_key": [1]})
    store = Store(tmp_path)
    (found,) = store.scan()
    assert found.id == "abcdefabcdef-s1111" and store.status(found) == "done"
    assert list(store.frames([found])[0].value) == [0.5, 0.5]
    known = job().config
    assert Config.from_dict(known.as_dict()).id == known.id
    assert Config.from_dict({**known.as_dict(), "resolution": 7}).id not in (known.id, Config.from_dict({**known.as_dict(), "resolution": 8}).id)


def test_plans_with_unknown_fields_are_read_and_damaged_ones_are_one_line(tmp_path, capsys):
    from bench.errors import BenchError

    store, chosen, s = Store(tmp_path), select(["msmix-t1"]), suite("quick")
    write_manifest(make_plan(chosen, s, store), store, None)
    file = manifest_path(store, "quick")
    content = read_json(file)
    content["new"], content["artefacts"]["x-t99"] = 5, {"seeds": 1, "cells": []}
    for cell in content["artefacts"]["msmix-t1"]["cells"]:
        cell[-1]["resolution"] = 7
    write_json(file, content)
    (e,), _ = read_manifest(chosen, store, s)
    assert len(e.rows) >= len(chosen[0].rows)
    for seeds in (99_999_999_999, -3, "5", True, None, 1.5):  # a report over them would never end, or show none of its runs
        write_json(file, {**content, "artefacts": {"msmix-t1": {**content["artefacts"]["msmix-t1"], "seeds": seeds}}})
        with pytest.raises(BenchError, match="'seeds' is .* no number from 0 to 1000.*remove it and run again: finished jobs are kept"):
            read_manifest(chosen, store, s)
    for broken in ("5", "[]", '{"artefacts": 3}', '{"artefacts": {"msmix-t1": {"cells": [5]}}}', '{"artefacts": {"msmix-t1": null}}', "{"):
        file.write_text(broken)
        with pytest.raises(BenchError, match="quick.json is damaged"):
            read_manifest(chosen, store, s)


def test_merge_joins_done_jobs_and_names_what_contradicts(tmp_path, capsys):
    a, b = Store(tmp_path / "a"), Store(tmp_path / "b")
    finish(a, job(1111))
    finish(a, job(1112))
    for s, seed in ((1111, 0), (1112, 1), (1113, 0), (1114, 0)):
        finish(b, job(s), seed)
    (b.folder(job(1113)) / "labels-0123.json").write_text("{}")
    (b.folder(job(1114)) / "metrics.json").write_text("null")
    b.fail(job(1115), "boom", "ValueError")
    kept = (a.folder(job(1112)) / "metrics.json").read_bytes()
    assert main(["merge", str(a.root), str(b.root)]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "1 result copied" in out and "1 there before, 1 conflict, 1 damaged" in out and f"conflict: {job(1112).folder}" in out
    assert [Store(a.root).status(job(s)) for s in range(1111, 1116)] == ["done", "done", "done", "missing", "missing"]
    assert (a.folder(job(1112)) / "metrics.json").read_bytes() == kept and (a.folder(job(1113)) / "labels-0123.json").exists()
    assert not list(a.root.rglob(".*"))
    assert main(["merge", str(a.root), str(tmp_path / "none")]) == 2


def test_merge_joins_what_was_run(tmp_path):
    chosen, s = select(["msmix-t1"]), suite("quick")
    a, b = Store(tmp_path / "a"), Store(tmp_path / "b")
    write_manifest(make_plan(chosen, s, a, only="synthetic-mosi/lmf+*"), a, None)
    write_manifest(make_plan(select(["msmix-t4"]), s, b), b, None)
    merge(a.root, [b.root])
    assert {e.id for e in read_manifest(select(["msmix-t1", "msmix-t4"]), a, s)[0]} == {"msmix-t1", "msmix-t4"}


def test_merge_takes_a_cell_from_the_folder_that_ran_it(tmp_path):
    """A plan names every cell of its artefact, run or not, and what fits a data file changes settings: of two the one with runs."""
    a, b = Store(tmp_path / "a"), Store(tmp_path / "b")

    def cell(store, lr=None):
        """LMF alone as a folder's record has it, after its learning rate was changed in the record."""
        record = read_json(manifest_path(store, "quick"))
        (found,) = (c for *_, c in record["artefacts"]["msmix-t1"]["cells"] if (c["backbone"], c["mixer"]) == ("lmf", "none"))
        if lr is not None:
            found["train"]["lr"] = lr
            write_json(manifest_path(store, "quick"), record)
        return Config.from_dict(found)

    for store in (a, b):
        write_manifest(make_plan(select(["msmix-t1"]), suite("quick"), store, only="synthetic-mosi/tfn+none"), store, None)
    mine, theirs = cell(a, 0.1), cell(b, 0.2)
    assert merge(a.root, [b.root]).conflicts == [] and cell(a).id == mine.id, "nobody ran it: the first folder's"
    finish(b, Job(theirs, 1111))
    found = merge(a.root, [b.root])
    assert (found.copied, found.conflicts, cell(a).id) == (1, [], theirs.id), "the second folder alone ran it"
    cell(a, 0.1)
    finish(a, Job(mine, 1111))
    (line,) = merge(a.root, [b.root]).conflicts
    assert cell(a).id == mine.id and line.startswith("plans/quick.json: msmix-t1, LMF "), "both ran it: named, the first folder's stays"


def test_merge_joins_variants_of_one_name(tmp_path):
    """Their cells, whichever folder ran them (a suite "tuned" in two places); of two with other settings the first folder's,
    named."""
    chosen, s = select(["msmix-t1"]), suite("quick")
    a, b = Store(tmp_path / "a"), Store(tmp_path / "b")
    for store, backbone, rate in ((a, "lmf", 0.1), (b, "tfn", 0.2)):
        for name, value in (("wide", 0.3), ("rate", rate)):
            plan = make_plan(chosen, s, store, only=f"synthetic-mosi/{backbone}+none", settings=[f"train.lr={value}"], variant=name)
            write_manifest(plan, store, None)
    assert merge(a.root, [b.root]).conflicts == ["plans/quick.json: msmix-t1, --as rate"]
    (e,), _ = read_manifest(chosen, a, s)
    assert {(r.departs, r.backbone): c.train["lr"] for r in e.rows if r.departs for c in r.cells.values()} == {
        ("wide", "LMF"): 0.3, ("wide", "TFN"): 0.3, ("rate", "LMF"): 0.1}
    for broken in ({"cells": [5]}, {"cells": [], "variants": {"wide": {}}}, 5):
        write_json(manifest_path(b, "quick"), {"artefacts": {"msmix-t1": broken}})
        kept = manifest_path(a, "quick").read_bytes()
        assert [why for _, why in merge(a.root, [b.root]).damaged] == ["the record of what was run is damaged"]
        assert manifest_path(a, "quick").read_bytes() == kept


def test_the_last_suite_is_known_in_a_copy_too(tmp_path):
    """A clone's files are as old as the clone: which suite ran last stands in the record."""
    s = Store(tmp_path)
    for name in ("real", "quick", "paper"):
        write_manifest(make_plan(select(["msmix-t4"]), suite("quick"), s), s, None)
        manifest_path(s, "quick").rename(tmp_path / f"{name}.json")
    for name in ("real", "quick", "paper"):
        (tmp_path / f"{name}.json").rename(manifest_path(s, name))
        os.utime(manifest_path(s, name), (1, 1))
    assert suites_run(s) == ["real", "quick", "paper"]
    found = read_json(manifest_path(s, "real"))
    write_json(manifest_path(s, "real"), {**found, "written": found["written"] + 60})
    assert suites_run(s)[-1] == "real"


def test_merge_joins_searches(tmp_path, capsys):
    """The one that went on further stays; of two that differ the first folder's, named."""
    def trail(mixer, values):
        cell = job(1111).config.with_(mixer=mixer)
        trials = [Trial(k, {}, cell.id, {"101": v}, v) for k, v in enumerate(values)]
        return Trail(cell.as_dict(), "tpe", 3, (101,), "loss", {}, ("ours",), 9, trials)

    a, b = Store(tmp_path / "a"), Store(tmp_path / "b")
    for store, mixer, values in ((a, "none", [1.0]), (b, "none", [1.0, 0.5, 0.7]), (b, "manifold", [2.0]), (a, "powmix", [3.0]),
                                 (b, "powmix", [2.5, 2.0])):
        trails.write(store, trail(mixer, values))
    (b.root / "tuning" / "mosi" / "lmf+none" / "x.json").write_text("[]")
    assert main(["merge", str(a.root), str(b.root)]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "1 conflict, 1 damaged" in out and "lmf+powmix" in out and "is not a trail" in out
    assert {t.cell["mixer"]: [x.value for x in t.trials] for t in trails.read_all(a)} == {"none": [1.0, 0.5, 0.7], "manifold": [2.0], "powmix": [3.0]}


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_fuzz(tmp_path, first):
    """Whatever changes in a folder, nothing is raised, and a sealed result is as it was or damaged. More of them:
    benchmarks/fuzz_stored.py."""
    found = [outcome(tmp_path / "results", seed) for seed in range(first, first + 50)]
    assert not [f for f in found if f[1].startswith("ACCEPTED")]
    assert {b for w, b in found if w in ("bytes of metrics.json", "bytes of predictions.npz", "bytes of job.json")} <= {"damaged", "as it was"}
    assert {b for _, b in found} >= {"damaged", "as it was"}
